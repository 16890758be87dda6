"""Reads printed text back and computes it: an independent judge of parentheses.

The grammar is what a reader of mathematics assumes: juxtaposition is multiplication, a fraction
holds one product above and one power below, Σ and max reach to the end of their product, and a
function without parentheses takes the one symbol that follows. What is ambiguous is an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from lossmith.language import expr as x

Env = dict[str, Any]
Meaning = Callable[[Env], float]
K = 3

_TOKEN = re.compile(
    r"\s*(\d+(?:\.\d+)?×10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+|∞|\d+(?:\.\d+)?|[^\W\d_⁰¹²³⁴⁵⁶⁷⁸⁹]+|[⁰¹²³⁴⁵⁶⁷⁸⁹]+|.)",
    re.DOTALL,
)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "=": lambda a, b: a == b,
    "≠": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    "≥": lambda a, b: a >= b,
    "≤": lambda a, b: a <= b,
}
BIG: dict[str, Callable[[list[float]], float]] = {"Σ": math.fsum, "max": max, "min": min}
FUNCTIONS: dict[str, Callable[..., float]] = {
    "exp": math.exp,
    "log": math.log,
    "tanh": math.tanh,
    "cosh": math.cosh,
    "abs": abs,  # where bars stand inside of bars
    "σ": lambda a: 1 / (1 + math.exp(-a)),
    "sign": lambda a: float((a > 0) - (a < 0)),
    "max": max,
    "min": min,
}


class Unreadable(Exception):
    """The text is ambiguous or no mathematics."""


def read(text: str) -> Meaning:
    """Return the meaning of a printed expression, a function of the values of its symbols."""
    reader = _Reader(_TOKEN.findall(text))
    meaning = reader.sum()
    if reader.peek():
        raise Unreadable(f"{reader.peek()!r} left over in {text!r}")
    return meaning


class _Reader:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.at = [*tokens, "", "", ""], 0

    def peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead]

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if expected is not None and token != expected:
            raise Unreadable(f"expected {expected!r}, found {token!r} at {self.at}: {self.tokens}")
        self.at += 1
        return token

    def accept(self, token: str) -> bool:
        if self.peek() == token:
            self.at += 1
            return True
        return False

    def sum(self) -> Meaning:
        terms = [(-1 if self.accept("−") else 1, self.product())]
        while self.peek() in ("+", "−"):
            sign = 1 if self.take() == "+" else -1
            terms.append((sign, self.product()))
        return lambda env: sum(sign * term(env) for sign, term in terms)

    def product(self) -> Meaning:
        factors: list[Meaning] = []
        divided = closed = False
        while True:
            if divided or closed:
                raise Unreadable(f"a factor after a fraction or a bare log: {self.tokens}")
            start = self.peek()
            factors.append(self.factor())
            bare = start == "log" and self.bare
            if self.accept("/"):
                if bare:
                    raise Unreadable("log x/y")
                divisor = self.factor()
                factors, divided = [_quotient(factors, divisor)], True
            closed = bare
            if not (self.accept("·") or self._begins_factor()):
                return lambda env: math.prod(f(env) for f in factors)

    def _begins_factor(self) -> bool:
        token = self.peek()
        if token in ("if", "otherwise", "and", "or", ""):
            return False
        if token == "|":
            return not self.in_bars
        return token in ("(", "√", "{") or bool(re.match(r"[\d∞]|[^\W_]", token))

    bare = False
    in_bars = False

    def factor(self) -> Meaning:
        self.bare = False
        token = self.peek()
        if token in BIG and self.peek(1) == "_":
            return self.big_operator()
        if token == "log" and self.peek(1) != "(":
            self.take()
            argument = self.factor() if self.peek() in (*BIG, "cosh", "softmax", "|") else None
            argument = argument or self.atom()
            self.bare = True
            return lambda env: math.log(argument(env))
        base = self.atom()
        if re.match(r"[⁰¹²³⁴⁵⁶⁷⁸⁹]", self.peek()):
            exponent = int(self.take().translate(_RAISED))
            return lambda env: math.pow(base(env), exponent)
        if self.accept("^"):
            power = self.atom()
            return lambda env: math.pow(base(env), power(env))
        return base

    def atom(self) -> Meaning:
        token = self.take()
        if not token:
            raise Unreadable("the text ends where a factor should stand")
        if token == "(":
            return self._until(")")
        if token == "|":
            outer, self.in_bars = self.in_bars, True
            inside = self._until("|")
            self.in_bars = outer
            return lambda env: abs(inside(env))
        if token == "{":
            return self.cases()
        if token == "√":
            self.take("(")
            inside = self._until(")")
            return lambda env: math.sqrt(inside(env))
        if token == "1" and self.accept("{"):
            condition = self.condition()
            self.take("}")
            return lambda env: float(condition(env))
        if token[0].isdigit() or token == "∞":
            number = math.inf if token == "∞" else _number(token)
            return lambda env: number
        if token == "softmax":
            return self.softmax()
        if token in FUNCTIONS:
            self.take("(")
            args = [self.sum()]
            while self.accept(","):
                args.append(self.sum())
            self.take(")")
            return lambda env: FUNCTIONS[token](*(a(env) for a in args))
        if not token.isalpha():
            raise Unreadable(f"{token!r} begins nothing: {self.tokens}")
        return self.symbol(token)

    def _until(self, close: str) -> Meaning:
        bars = self.in_bars
        self.in_bars = close == "|"
        inside = self.sum()
        self.in_bars = bars
        self.take(close)
        return inside

    def symbol(self, name: str) -> Meaning:
        if self.accept("_"):
            index = self.index()
            return lambda env: env[name][int(index(env))]

        def value(env: Env) -> float:
            found = env[name]
            return found if isinstance(found, int | float) else found[env["*"]]

        return value

    def index(self) -> Meaning:
        if self.accept("{"):
            inside = self._until("}")
            return inside
        token = self.take()
        return (lambda env: int(token)) if token.isdigit() else (lambda env: env[token])

    def under(self) -> tuple[str, Callable[[Env], bool]]:
        """Read k, {k≠y} or {k≠y: s_k > 0} and return the index and the condition."""
        if not self.accept("{"):
            return self.take(), lambda env: True
        name = self.peek()
        conditions: list[Callable[[Env], bool]] = []
        if self.peek(1) in (":", "}"):
            self.take()
        else:
            conditions.append(self.condition())
        if self.accept(":"):
            conditions.append(self.condition())
        self.take("}")
        return name, lambda env: all(c(env) for c in conditions)

    def big_operator(self) -> Meaning:
        symbol = self.take()
        self.take("_")
        name, condition = self.under()
        body = self.product()

        def value(env: Env) -> float:
            inner = [{**env, name: k} for k in range(K)]
            return BIG[symbol]([body(e) for e in inner if condition(e)])

        return value

    def softmax(self) -> Meaning:
        name, condition = self.under() if self.accept("_") else ("*", lambda env: True)
        self.take("(")
        body = self._until(")")
        self.take("_")
        at = self.index()

        def value(env: Env) -> float:
            inner = [{**env, name: k} for k in range(K)]
            top = math.exp(body({**env, name: int(at(env))}))
            return top / math.fsum(math.exp(body(e)) for e in inner if condition(e))

        return value

    def cases(self) -> Meaning:
        branches: list[tuple[Meaning, Callable[[Env], bool]]] = []
        while True:
            value = self.sum()
            if self.accept("otherwise"):
                self.take("}")
                return lambda env: next((v for v, c in branches if c(env)), value)(env)
            self.take("if")
            branches.append((value, self.condition()))
            self.take(";")

    def condition(self) -> Callable[[Env], bool]:
        parts = [self.relation()]
        word = self.peek()
        if word not in (",", "and", "or"):
            return parts[0]
        while self.accept(word):
            parts.append(self.relation())
        if word == "or":
            return lambda env: any(p(env) for p in parts)
        return lambda env: all(p(env) for p in parts)

    def relation(self) -> Callable[[Env], bool]:
        if self.peek() == "(":  # (a or b), or a term in parentheses
            start = self.at
            try:
                self.take("(")
                inside = self.condition()
                self.take(")")
                if self.peek() in (",", "and", "or", "}", ";", ":", ")"):
                    return inside
            except (Unreadable, KeyError):
                pass
            self.at = start
        left = self.sum()
        sign = _RELATIONS[self.take()]
        right = self.sum()
        return lambda env: sign(left(env), right(env))


def _quotient(top: list[Meaning], divisor: Meaning) -> Meaning:
    return lambda env: math.prod(f(env) for f in top) / divisor(env)


def _number(token: str) -> float:
    digits, _, exponent = token.partition("×10")
    return float(digits) * 10.0 ** int(exponent.translate(_RAISED) or 0)


def evaluate(node: Any, env: Env) -> float:
    """Compute an expression from its nodes; `env` has the symbols as they print."""

    def of(e: Any) -> float:
        return evaluate(e, env)

    def inside(binder: Any, body: Any = None) -> list[float]:
        bound = f"#{x.level_of(binder)}"
        envs = [{**env, bound: k} for k in range(K)]
        return [evaluate(binder.body, e) for e in envs if evaluate(binder.cond, e)]

    match node:
        case x.Free(name) | x.Label(name):
            return env[name]
        case x.Bound(level):
            return env[f"#{level}"]
        case x.Fixed(number):
            return number
        case x.Const(value):
            return float(value)
        case x.Size():
            return K
        case x.ClassNumber(index):
            return of(index)
        case x.Hyper(name, indices) | x.Var(name, indices):
            return env[name][int(of(indices[0]))] if indices else env[name]
        case x.Entry(name, index):
            return env[name][int(of(index))]
        case x.Delta(i, j):
            return float(of(i) == of(j))
        case x.Compare(op, a, b):
            return float(_RELATIONS[{">": ">", ">=": "≥", "==": "="}[op]](of(a), of(b)))
        case x.Not(cond):
            return 1 - of(cond)
        case x.Add(terms):
            return math.fsum(of(t) for t in terms)
        case x.Mul(factors):
            return math.prod(of(f) for f in factors)
        case x.Pow(base, exponent):
            return math.pow(of(base), of(exponent))
        case x.Held(body):
            return of(body)
        case x.Where(cond, then, other):
            return of(then) if of(cond) else of(other)
        case x.Call(name, args):
            return _CALLS[name](*(of(a) for a in args))
        case x.Reduce("logsumexp"):
            return math.log(math.fsum(math.exp(v) for v in inside(node)))
        case x.Reduce(op):
            return BIG["Σ" if op == "sum" else op](inside(node))
        case x.Softmax(_, body, at):
            bound = f"#{x.level_of(node)}"
            top = math.exp(evaluate(body, {**env, bound: int(of(at))}))
            return top / math.fsum(math.exp(v) for v in inside(node))
        case _:
            raise TypeError(repr(node))


_CALLS: dict[str, Callable[..., float]] = {
    **FUNCTIONS,
    "sigmoid": FUNCTIONS["σ"],
    "maximum": max,
    "minimum": min,
    "abs": abs,
    "scaled": lambda a, b: a * b,
    "log_cosh": lambda a: math.log(math.cosh(a)),
}
