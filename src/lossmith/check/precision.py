"""How many digits are enough: raise the precision until two in a row agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lossmith.check.arithmetic import Real, context, exactly

LEVELS = (60, 150, 400, 850, 1000)
"""The precisions tried, in digits. A float64 result needs at most 324 + 308 above its own."""

FAR = 400
"""±∞ as a limit is ±10**400: beyond every float, and its digits can still be told from 1."""


class Unsettled(ArithmeticError):
    """The value depends on digits beyond the last precision tried."""


def settled(at_digits: Callable[[int], tuple[Real, bool]], digits: int, *, limit: bool = False) -> Real:
    """Return the value that two precisions in a row agree on to so many digits.

    Zero, infinity and NaN are believed at the last precision only: before that they may be what
    is left of a cancellation. A value of 1e-300 is believed at 300 digits more than one of 1: terms
    of its size may have been lost beside a 1. What is below 1e-400 even there is 0 for every float.

    Parameters
    ----------
    at_digits : callable
        Gives the value computed with so many digits, and whether it may be zero, infinite or NaN for want of
        digits alone: see `Arithmetic.doubts`.
    digits : int
        How many digits must be right.
    limit : bool
        Whether ±10**400 stand for ±∞. Two precisions below that agree on nothing: 1 + 10**400 is 10**400 to both.

    Raises
    ------
    Unsettled
        If the last precision does not suffice.
    """
    ctx = context(LEVELS[-1])
    enough = max(digits + 10, 2 * FAR if limit else 0)
    levels = [level for level in LEVELS if level >= enough] or [digits + 20, 2 * digits]
    least = ctx.mpf(10) ** -FAR
    value, doubtful, previous, sure = ctx.zero, False, None, 0
    for level in levels:
        value, doubtful = at_digits(level)
        if previous is not None and ctx.isfinite(value) and abs(value) >= least:
            needed = digits + 0.302 * min(max(0, -int(ctx.mag(value))), 10**5)
            if sure >= min(needed, levels[-2]) and agree(previous, value, digits):
                return value
        previous, sure = value, level
    if not ctx.isfinite(value) or abs(value) < least:
        if doubtful:
            raise Unsettled(f"{ctx.nstr(value, 10)} at {levels[-1]} digits, maybe for want of more")
        return value if not ctx.isfinite(value) else ctx.mpf(0)
    raise Unsettled(f"no {digits} digits settled at a precision of {levels[-1]}")


def common_limit(values: list[Real]) -> Real:
    """Return the limit of a value, found on several ways to infinity and once more farther out on the first of them.

    It is NaN if it depends on the way, and infinite if it grows: a logarithm of 10**400 is no large number.

    Raises
    ------
    Unsettled
        If it falls, as slowly as that.
    """
    if len(values) == 1:
        return values[0]
    first, *others, farther = values
    ctx = context(LEVELS[-1])
    nothing = ctx.mpf(10) ** (10 - FAR)

    def same(a: Real, b: Real) -> bool:
        beyond = min(abs(a), abs(b)) > ctx.mpf(10) ** (FAR - 10) and a * b > 0
        return bool(beyond or max(abs(a), abs(b)) < nothing or agree(a, b))

    if not all(same(first, v) for v in others):
        return ctx.nan
    if same(first, farther):
        return ctx.zero if abs(first) < nothing else first
    if first * farther > 0 and abs(farther) > abs(first):
        return ctx.inf if first > 0 else -ctx.inf
    raise Unsettled(f"{ctx.nstr(first, 10)}, and farther out {ctx.nstr(farther, 10)}")


def agree(a: Any, b: Any, digits: int = 35) -> bool:
    """Whether two numbers agree to so many digits, relative to the larger; NaN agrees with NaN.

    Two values below 1e-400, which no float can tell from 0, agree.
    """
    ctx = context(LEVELS[-1])
    a, b = exactly(a, ctx), exactly(b, ctx)
    if ctx.isnan(a) or ctx.isnan(b):
        return bool(ctx.isnan(a) and ctx.isnan(b))
    if a == b:
        return True
    if ctx.isinf(a) or ctx.isinf(b):
        return False
    larger = max(abs(a), abs(b))
    return bool(larger < ctx.mpf(10) ** -FAR or abs(a - b) <= larger * ctx.mpf(10) ** -digits)
