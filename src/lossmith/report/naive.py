"""The formulas of a loss written out in NumPy, as a tutorial would: what generated kernels are timed beside.

No shift against overflow, no rewriting: every function of the derived formulas is one NumPy call. What occurs twice is
computed once, as anybody would. The same text serves a whole batch, or one sample of a loop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from lossmith.compiler import gradient
from lossmith.errors import UnsupportedError
from lossmith.language import expr as e
from lossmith.language.build import const, mul, opened, substitute
from lossmith.language.elementary import FUNCTIONS
from lossmith.language.formula import Formula

_OWN_NAMES = {"np", "N", "K", "rows", "classes", "value"}

Axes = tuple[e.Index, ...]


@dataclass(frozen=True)
class _Piece:
    """Code for an array with one axis for each class index in it, after that of the samples."""

    code: str
    axes: Axes = ()
    number: bool = False
    """A plain number: it broadcasts as it is."""


def naive_source(formula: Formula, batch: bool = True) -> str:
    """Return a function that computes value and gradients, as text.

    Parameters
    ----------
    formula : Formula
    batch : bool
        Whether it takes all samples at once, or one.

    Raises
    ------
    UnsupportedError
        For a formula that this simple translation does not cover.
    """
    names = [i.name for i in formula.inputs]
    hypers = [h.name for h in formula.hypers]
    taken = _OWN_NAMES & {*names, *hypers}
    if taken or any(re.fullmatch(r"v\d+", n) for n in (*names, *hypers)):
        raise UnsupportedError("the naive translation needs for itself a name that the loss uses.")
    writer = _Writer(batch, formula.of_role("scores")[0].name)
    value = writer.named("value", writer.piece(formula.expr))
    results = [value]
    for item in formula.of_role("scores"):
        results.append(writer.named(f"grad_{item.name}", writer.piece(gradient(formula, item.name).result)))
    first = formula.of_role("scores")[0].name
    head = f"def {_identifier(formula.name)}({', '.join([*names, *(['*', *hypers] if hypers else [])])}):"
    if formula.kind == "elementwise":
        start: list[str] = []
    elif batch:
        start = [f"N, K = {first}.shape", "rows, classes = np.arange(N), np.arange(K)[None, :]"]
    else:
        start = [f"K = len({first})", "classes = np.arange(K)"]
    body = "\n".join(f"    {line}" for line in [*start, *writer.lines, f"return {', '.join(results)}"])
    used = [line for line in body.split("\n") if line]
    return "import numpy as np\n\n\n" + head + "\n" + "\n".join(used) + "\n"


def naive_function(formula: Formula, batch: bool = True) -> Callable[..., Any]:
    """Return the function itself; gradients that do not vary have size one along an axis."""
    namespace: dict[str, Any] = {}
    # The text comes from an expression, not from the user's own text: names are checked by the reader.
    exec(compile(naive_source(formula, batch), "<naive NumPy code>", "exec"), namespace)
    return namespace[_identifier(formula.name)]


def _identifier(name: str) -> str:
    return f"naive_{name}" if name.isidentifier() else "naive_loss"


class _Writer:
    """Writes statements; every function call and reduction gets a name."""

    def __init__(self, batch: bool, scores: str) -> None:
        self.batch, self.scores = batch, scores
        self.lines: list[str] = []
        self._names: dict[str, str] = {}
        self._order: dict[e.Index, int] = {}
        self._pieces: dict[e.Node, _Piece] = {}

    def named(self, name: str, piece: _Piece) -> str:
        """Assign a piece to a name, unless that is its name already."""
        self.lines.append(f"{name} = {_bare(piece.code)}")
        return name

    def piece(self, node: e.Expr) -> _Piece:
        if node not in self._pieces:
            self._pieces[node] = self._spelled(node)
        return self._pieces[node]

    # -------------------------------------------------------------- shapes

    def _aligned(self, piece: _Piece, axes: Axes) -> str:
        if piece.number or piece.axes == axes:
            return piece.code
        at = [":"] * self.batch + [":" if a in piece.axes else "None" for a in axes]
        if set(at) == {"None"}:  # a number of one sample
            return piece.code
        return f"{_bracketed(piece.code)}[{', '.join(at)}]"

    def _together(self, pieces: Sequence[_Piece], write: Callable[..., str]) -> _Piece:
        axes = self._sorted({a for p in pieces for a in p.axes})
        code = write(*(self._aligned(p, axes) for p in pieces))
        return _Piece(code, axes, all(p.number for p in pieces))

    def _sorted(self, axes: set[e.Index]) -> Axes:
        for a in axes:
            self._order.setdefault(a, len(self._order))
        return tuple(sorted(axes, key=lambda a: self._order[a]))

    def _kept(self, piece: _Piece) -> _Piece:
        """Give a piece a name, the same for the same code."""
        if piece.number:
            return piece
        if piece.code not in self._names:
            self._names[piece.code] = f"v{len(self._names) + 1}"
            self.lines.append(f"{self._names[piece.code]} = {_bare(piece.code)}")
        return _Piece(self._names[piece.code], piece.axes)

    # -------------------------------------------------------------- nodes

    def _spelled(self, node: e.Expr) -> _Piece:
        match node:
            case e.Const(value):
                return _Piece(_constant(value), (), True)
            case e.Size():
                return _Piece("K", (), True)
            case e.Hyper(name, indices):
                return self._hyper(name, indices)
            case e.Entry(name, index):
                return self._entry(name, index)
            case e.ClassNumber(index):
                return self._index(index)
            case e.Delta() | e.Compare():
                found = self._condition(node)
                return self._kept(_Piece(f"{found.code}.astype({self.scores}.dtype)", found.axes))
            case e.Not(cond):
                return self._together([self.piece(cond)], lambda a: f"(1 - {a})")
            case e.Add(terms):
                return self._sum(terms)
            case e.Mul(factors):
                return self._product(factors)
            case e.Pow(base, exponent):
                return self._power(base, exponent)
            case e.Call(function, args):
                return self._call(function, [self.piece(a) for a in args])
            case e.Where(cond, then, other):
                parts = [self._condition(cond), self.piece(then), self.piece(other)]
                return self._kept(self._together(parts, lambda *a: f"np.where({', '.join(a)})"))
            case e.Reduce(op):
                index, cond, body = opened(node)
                return self._reduced(op, index, cond, self.piece(body))
            case e.Softmax(at=at):
                return self._softmax(node, at)
            case e.Held(body):
                return self.piece(body)
            case _:
                raise UnsupportedError(f"the naive translation does not know {type(node).__name__}.")

    def _sum(self, terms: Sequence[e.Expr]) -> _Piece:
        added = [t for t in terms if not _is_negative(t)]
        taken = [mul(const(-1), t) for t in terms if _is_negative(t)]
        parts = [self.piece(t) for t in (*added, *taken)]

        def write(*codes: str) -> str:
            first = " + ".join(codes[: len(added)]) or "0"
            return f"({' - '.join([first, *codes[len(added) :]])})"

        return self._together(parts, write)

    def _product(self, factors: Sequence[e.Expr]) -> _Piece:
        if _is_negative(e.Mul(tuple(factors))):
            rest = self.piece(mul(const(-1), *factors))
            return self._together([rest], lambda a: f"(-{a})")
        above = [f for f in factors if not _is_reciprocal(f)]
        below = [f.base for f in factors if isinstance(f, e.Pow) and _is_reciprocal(f)]
        parts = [self.piece(f) for f in (*above, *below)]

        def write(*codes: str) -> str:
            top = " * ".join(codes[: len(above)]) or "1"
            return "(" + " / ".join([top, *codes[len(above) :]]) + ")"

        return self._together(parts, write)

    def _power(self, base: e.Expr, exponent: e.Expr) -> _Piece:
        if isinstance(exponent, e.Const) and exponent.value in (-1, Fraction(1, 2)):
            form = "(1 / {})" if exponent.value == -1 else "np.sqrt({})"
            return self._together([self.piece(base)], lambda a: form.format(a))
        return self._kept(self._together([self.piece(base), self.piece(exponent)], lambda a, b: f"({a} ** {b})"))

    def _call(self, function: str, args: Sequence[_Piece]) -> _Piece:
        forms = {
            "sigmoid": "1 / (1 + np.exp(-{}))",
            "softplus": "np.log(1 + np.exp({}))",
            "log_cosh": "np.log(np.cosh({}))",
            "scaled": "({} * {})",
        }
        plain = f"np.{FUNCTIONS[function].numpy}(" + ", ".join("{}" for _ in args) + ")"
        form = forms.get(function, plain)
        made = self._together(args, lambda *a: form.format(*(_bare(x) if form is plain else x for x in a)))
        return made if made.number else self._kept(made)

    def _reduced(self, op: str, index: e.Index, cond: e.Expr, body: _Piece) -> _Piece:
        if op == "logsumexp":
            raised = self._call("exp", [body])
            return self._call("log", [self._reduced("sum", index, cond, raised)])
        parts = [body, _Piece("classes", (index,)), self._condition(cond)]
        outer = self._sorted({a for p in parts for a in p.axes} - {index})
        neutral = {"sum": "0", "max": "-np.inf", "min": "np.inf"}[op]
        axes = self._sorted({*outer, index})
        code = self._aligned(body, axes)
        if cond is not e.TRUE:
            code = f"np.where({self._aligned(parts[2], axes)}, {code}, {neutral})"
        elif index not in body.axes:
            code = f"({code} + 0 * {self._aligned(parts[1], axes)})"
        return self._kept(_Piece(f"np.{op}({_bare(code)}, axis={axes.index(index) - len(axes)})", outer))

    def _softmax(self, node: e.Softmax, at: e.Index) -> _Piece:
        index, cond, body = opened(node)
        top = self._call("exp", [self.piece(substitute(body, {index: at}))])
        total = self._reduced("sum", index, cond, self._call("exp", [self.piece(body)]))
        return self._kept(self._together([top, total], lambda a, b: f"{a} / {b}"))

    def _condition(self, node: e.Expr) -> _Piece:
        match node:
            case e.Delta(i, j):
                return self._together([self._index(i), self._index(j)], lambda a, b: f"({a} == {b})")
            case e.Compare(op, a, b):
                return self._together([self.piece(a), self.piece(b)], lambda x, y: f"({x} {op} {y})")
            case e.Not(cond):
                return self._together([self._condition(cond)], lambda a: f"~{a}")
            case e.Const():
                return _Piece("True", (), True)
            case _:
                return self._together([self.piece(node)], lambda a: f"({a} != 0)")

    # -------------------------------------------------------------- leaves

    def _index(self, index: e.Index) -> _Piece:
        match index:
            case e.Fixed(number):
                return _Piece(str(number), (), True)
            case e.Label(name):
                return _Piece(name)
            case e.ArgReduce(op, cond):
                bound, members, inside = opened(index)
                found = self.piece(inside)
                if cond is not e.TRUE or members is not e.TRUE or bound not in found.axes:
                    raise UnsupportedError("the naive translation does not know an argmax of this form.")
                axis = found.axes.index(bound) - len(found.axes)
                others = tuple(a for a in found.axes if a is not bound)
                return self._kept(_Piece(f"np.arg{op}({_bare(found.code)}, axis={axis})", others))
            case _:
                return _Piece("classes", (index,))

    def _entry(self, name: str, index: e.Index | None) -> _Piece:
        if index is None:
            return _Piece(name)
        if isinstance(index, e.Free):
            return _Piece(name, (index,))
        at = self._index(index)
        if at.axes:
            raise UnsupportedError("the naive translation does not know an entry at this index.")
        return self._kept(_Piece(f"{name}[rows, {at.code}]" if self.batch else f"{name}[{at.code}]"))

    def _hyper(self, name: str, indices: tuple[e.Index, ...]) -> _Piece:
        if not indices:
            return _Piece(name, (), True)
        (index,) = indices
        if isinstance(index, e.Free):
            return _Piece(f"{name}[None, :]" if self.batch else name, (index,))
        at = self._index(index)
        return self._kept(_Piece(f"{name}[{at.code}]", at.axes))


def _is_reciprocal(node: e.Expr) -> bool:
    return isinstance(node, e.Pow) and isinstance(node.exponent, e.Const) and node.exponent.value == -1


def _is_negative(node: e.Expr) -> bool:
    first = node.factors[0] if isinstance(node, e.Mul) else node
    return isinstance(first, e.Const) and first.value < 0


def _bare(code: str) -> str:
    """Return the code without brackets around the whole of it."""
    depth = 0
    for at, c in enumerate(code):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return code[1:-1] if c == ")" and at == len(code) - 1 and code[0] == "(" else code
    return code


def _bracketed(code: str) -> str:
    simple = code.isidentifier() or (code.startswith("(") and code.endswith(")"))
    return code if simple else f"({code})"


def _constant(value: e.Number) -> str:
    if isinstance(value, Fraction):
        return f"({value.numerator} / {value.denominator})"
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "np.inf" if value > 0 else "(-np.inf)"
    return f"({value!r})" if value < 0 else repr(value)
