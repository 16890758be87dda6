"""Logarithms of quotients whose quotient no float can hold: log(4/2.2e-308) is 709.8."""

from __future__ import annotations

from lossmith.calculus.simplify import bottom_up
from lossmith.language.build import call, compare, const, mul, power, where
from lossmith.language.expr import Call, Const, Entry, Expr, Held, Mul, Pow, Where

_LARGEST = const(2.0**120)
"""Quotients up to this, and from its inverse on, are normal numbers in float32, too."""


def with_safe_quotients(expr: Expr) -> Expr:
    """Write log(a/b) for entries a and b as 2 log(√a/√b) where a/b is near the ends of the floats, or beyond them.

    Elsewhere it stays: two roots cost accuracy near a = b, where the logarithm is small, and none far from it.
    """
    return bottom_up(expr, _safe)


def _safe(e: Expr) -> Expr:
    if not (isinstance(e, Call) and e.function == "log"):
        return e
    (quotient,) = e.args
    parts = _parts(quotient)
    if parts is None:
        return e
    a, b = parts
    half = const(0.5)
    of_roots = Mul((power(a, half), Pow(power(b, half), const(-1))))
    inside = mul(compare(">", quotient, power(_LARGEST, const(-1))), compare(">", _LARGEST, quotient))
    return where(inside, e, mul(const(2), call("log", Held(of_roots))))


def _parts(e: Expr) -> tuple[Expr, Expr] | None:
    """Return a and b of a/b, also where a guard leaves 0/b out."""
    match e:
        case Where(other=Held(body)) | Held(body):
            return _parts(body)
        case Mul((Entry() as a, Pow(Entry() as b, Const(-1)))) | Mul((Pow(Entry() as b, Const(-1)), Entry() as a)):
            return a, b
        case _:
            return None
