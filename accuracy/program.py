"""Programs of scalar operations run on ball arithmetic: every result comes with a proof of its digits.

A ball is a midpoint with a radius that holds all rounding so far (Arb, in python-flint). A result whose ball is too
wide is computed once more with more bits; an indicator that the balls do not decide asks for more bits too. So the
definition is evaluated as it stands, cancellations and all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from flint import arb, ctx, fmpq

from accuracy.derive import needed
from accuracy.graph import Graph

MOST_BITS = 6000
"""Two float64 numbers differ in at most 2100 bits; what is not settled by then is zero, or said to be undecided."""

SURE_BITS = 75
"""The relative accuracy of a result: 2**-22 units in the last place of float64."""

COMPILED = 3000
"""Longer programs are interpreted: Python's compiler takes longer than that."""


class Undecided(ArithmeticError):
    """A ball is too wide for a choice; more bits may do."""


# ------------------------------------------------------------------ one operation


def _greater(a: Any, b: Any) -> int:
    if a > b:
        return 1
    if a <= b:
        return 0
    raise Undecided


def _at_least(a: Any, b: Any) -> int:
    return 1 - _greater(b, a)


def _equal(a: Any, b: Any) -> int:
    if a == b:
        return 1
    if a != b:
        return 0
    raise Undecided


def _sign(a: Any) -> int:
    return _greater(a, 0) - _greater(0, a)


def largest(*numbers: Any) -> Any:
    """Return one of the balls, that with the largest number unless they overlap."""
    found = numbers[0]
    for x in numbers[1:]:
        if x > found:
            found = x
    return found


def _sum(*terms: Any) -> Any:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _pick(condition: Any, a: Any, b: Any) -> Any:
    return a if condition else b


# The same with the conventions at 0 and ∞: 0·∞ = 0, log 0 = −∞, 1/0 = ∞.


def _is_zero(a: Any) -> bool:
    if a == 0:
        return True
    if a != 0 or a.is_nan():
        return False
    raise Undecided


def _careful_mul(a: Any, b: Any) -> Any:
    a, b = arb(a), arb(b)
    if a.is_finite() == b.is_finite():
        return a * b
    finite, other = (a, b) if a.is_finite() else (b, a)
    return arb(0) if not other.is_nan() and _is_zero(finite) else a * b


def _careful_inv(a: Any) -> Any:
    a = arb(a)
    if a.is_nan() or a.is_finite():
        return arb("inf") if _is_zero(a) else 1 / a
    return arb(0)


def _careful_log(a: Any) -> Any:
    a = arb(a)
    if a.is_nan() or a == arb("inf"):
        return a
    return arb("-inf") if _is_zero(a) else a.log() if a > 0 else arb("nan")  # _is_zero has decided the sign


def _careful_exp(a: Any) -> Any:
    a = arb(a)
    return arb(0) if a == arb("-inf") else a.exp()


def _careful_pow(a: Any, b: Any) -> Any:
    a, b = arb(a), arb(b)
    if b == 0:
        return arb(1)
    if a == arb("inf"):
        return a if b > 0 else arb(0)
    if not a.is_finite() or a > 0 or a < 0:
        return a**b  # of a negative number: NaN, unless b is whole
    if a == 0:
        return arb(0) if b > 0 else arb("inf")
    if b > 0:  # not below 0, or the loss would not be defined there
        most = a.abs_upper() ** b
        return arb(0).union(most)
    raise Undecided


_PLAIN: Mapping[str, Callable[..., Any]] = {
    "sum": _sum,
    "mul": lambda a, b: a * b,
    "inv": lambda a: 1 / a,
    "pow": lambda a, b: a**b,
    "exp": lambda a: a.exp(),
    "log": lambda a: a.log(),
    "abs": abs,
    "sign": _sign,
    "greater": _greater,
    "at_least": _at_least,
    "equal": _equal,
    "pick": _pick,
    "largest": largest,
}
_CAREFUL: Mapping[str, Callable[..., Any]] = {
    **_PLAIN,
    "mul": _careful_mul,
    "inv": _careful_inv,
    "log": _careful_log,
    "exp": _careful_exp,
    "pow": _careful_pow,
}
_INFIX = {"sum": " + ", "mul": " * ", "pow": "**"}


# ------------------------------------------------------------------ programs


class Program:
    """What computes some results from the numbers of one sample.

    Parameters
    ----------
    graph : Graph
    results : sequence of int
        Nodes; `run` returns their values in this order.
    """

    def __init__(self, graph: Graph, results: Sequence[int]) -> None:
        order = needed(graph, results)
        place = {node: number for number, node in enumerate(order)}
        self._results = [place[r] for r in results]
        self.count = len(results)
        self._steps: list[tuple[int, str, Any]] = []
        self._leaves: list[tuple[int, str, int | None]] = []
        self._constants: list[tuple[int, Any]] = []
        for node in order:
            operation, *arguments = graph.nodes[node]
            if operation == "leaf":
                self._leaves.append((place[node], *arguments))
            elif operation == "const":
                self._constants.append((place[node], _literal(arguments[0])))
            else:
                self._steps.append((place[node], operation, tuple(place[a] for a in arguments)))
        self._size = len(order)
        self._code = self._compiled() if len(order) < COMPILED else None

    def run(self, numbers: Mapping[str, Any], bits: int) -> list[Any]:
        """Return the results at one sample as balls, computed with so many bits.

        Parameters
        ----------
        numbers : mapping
            Of every name: exact balls, a list where there is one per class.
        """
        ctx.prec = bits
        given = [numbers[name] if k is None else numbers[name][k] for _, name, k in self._leaves]
        constants = [v if isinstance(v, int) else arb(v) for _, v in self._constants]
        found = self._code(given, constants) if self._code else self._interpreted(given, constants, _PLAIN)
        if all(x.is_finite() for x in found):
            return found
        return self._interpreted(given, constants, _CAREFUL)

    def _interpreted(self, given: list[Any], constants: list[Any], functions: Mapping[str, Any]) -> list[Any]:
        values: list[Any] = [None] * self._size
        for (place, *_), value in zip(self._leaves, given, strict=True):
            values[place] = value
        for (place, _), value in zip(self._constants, constants, strict=True):
            values[place] = value
        for place, operation, arguments in self._steps:
            values[place] = functions[operation](*[values[a] for a in arguments])
        return [arb(values[r]) for r in self._results]

    def _compiled(self) -> Callable[[list[Any], list[Any]], list[Any]]:
        lines = ["def code(given, constants):"]
        for names, taken in (("given", self._leaves), ("constants", self._constants)):
            if taken:
                lines.append(f"    {', '.join(f'v{place}' for place, *_ in taken)}, = {names}")
        lines += [f"    v{place} = {_written(operation, arguments)}" for place, operation, arguments in self._steps]
        lines.append(f"    return [{', '.join(f'arb(v{r})' for r in self._results)}]")
        space: dict[str, Any] = {**{f"{name}_": f for name, f in _PLAIN.items()}, "arb": arb}
        exec("\n".join(lines), space)
        return space["code"]


def _literal(value: Fraction) -> Any:
    return int(value) if value.denominator == 1 else fmpq(value.numerator, value.denominator)


def _written(operation: str, arguments: tuple[int, ...]) -> str:
    names = [f"v{a}" for a in arguments]
    if operation in _INFIX:
        return _INFIX[operation].join(names)
    if operation == "inv":
        return f"1 / {names[0]}"
    if operation in ("exp", "log"):
        return f"{names[0]}.{operation}()"
    return f"{operation}_({', '.join(names)})"


# ------------------------------------------------------------------ settled results


def settled(program: Program, numbers: Mapping[str, Any], bits: int) -> list[Any]:
    """Return results of which SURE_BITS bits are right; None where MOST_BITS did not do.

    What is below 2**-2000 even then is returned as 0.
    """
    while True:
        try:
            found = program.run(numbers, bits)
            if all(is_sure(x) for x in found):
                return found
        except Undecided:
            found = [arb(0, 1)] * program.count
        if bits >= MOST_BITS:
            break
        bits = min(2 * bits, MOST_BITS)
    return [x if is_sure(x) else arb(0) if abs(x) < arb(2) ** -2000 else None for x in found]


def is_sure(x: Any) -> bool:
    """Whether the bits of a ball that matter are certain: NaN and infinities are, when exact."""
    return x.rel_accuracy_bits() >= SURE_BITS or (not x.is_finite() and _exact_special(x))


def _exact_special(x: Any) -> bool:
    return x == arb("inf") or x == arb("-inf") or x.is_nan()
