"""Arithmetic on double words: a number as the unevaluated sum of two float64, of 106 bits together.

A pair is (high, low), high being the sum rounded to float64. Where high is infinite or NaN, low is 0: what the rounding
errors of such an operation are is NaN, and `_settled` keeps it out. The same formulas run on NumPy arrays and, as LLVM
instructions, on vectors; `lanes` is the one or the other, with what operators do not say: see `Lanes`. Every step is
one rounded operation of float64, so both give the same bits.

Sources: Joldes, Muller, Popescu (2017), "Tight and rigorous error bounds for basic building blocks of double-word
arithmetic" (JMP), for +, −, ×, /; Lefèvre, Louvet, Muller, Picot, Rideau (2023), "Accurate calculation of Euclidean
norms using double-word arithmetic", for √; Hida, Li, Bailey (2001), "Algorithms for quad-double precision arithmetic"
(QD), for the way to exp and log: a series near 0 and its squares, a step of Newton's from the logarithm in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Protocol, TypeAlias

Word: TypeAlias = Any
"""A float64 in each lane: an array, a vector, or next to one a Python float."""

Pair: TypeAlias = tuple[Word, Word]

WIDTH = 32
"""How many numbers compiled code does at once: four registers of 512 bits, for one would wait for each of its steps."""

BOUNDS: dict[str, float] = {
    "add": 3.0, "sub": 3.0, "mul": 5.0, "div": 10.0, "sqrt": 4.0, "gap": 3.0, "gap_of_words": 0.0,
    "scaled": 5.0, "exp": 48.0, "expm1": 48.0, "log": 24.0, "log1p": 24.0, "sigmoid": 64.0, "softplus": 64.0,
    "log_cosh": 200.0, "tanh": 128.0, "pow": 64.0,
}  # fmt: skip
"""Largest relative errors in units of 2**-106, for results and steps that do not underflow; tests hold to them."""

# Bits of log 2 = 0x0.b17217f7d1cf79abc9e3b39803f2f6af40f343267298b62d8a...: three words of 42, 42 and 53 bits, so that
# an exponent times each of the first two is exact.
LOG_2 = Fraction(0xB17217F7D1CF79ABC9E3B39803F2F6AF40F343267298B62D8A, 2**200)
ROUNDER = 1.5 * 2.0**52
"""Added to a number below 2**51 it leaves the nearest integer in the low bits."""

LARGE, SMALL = 710.1, -800.0
"""exp is infinite at the one, which is less than 1024.5 log 2, and 0 at the other."""

TINY = 2.0**-120
"""Below this, x is the best pair for expm1(x)."""


class Lanes(Protocol):
    """What the formulas need besides operators."""

    def two_prod(self, a: Word, b: Word) -> Pair:
        """Return the rounded product, and what it lacks of the product."""
        ...

    def fma(self, a: Word, b: Word, c: Word) -> Word:
        """Return a·b + c, rounded once or twice: for low words, where it does not matter."""
        ...

    def select(self, condition: Any, yes: Word, no: Word) -> Word: ...
    def sqrt(self, a: Word) -> Word: ...

    def power_of_two(self, exponent: Word) -> Word:
        """Return 2**exponent for whole exponents from -1022 to 1023."""
        ...

    def split(self, a: Word) -> Pair:
        """Return an exponent e and a significand m, a = m·2**e with 3/4 ≤ m < 3/2, of a positive normal number."""
        ...


def words(value: Fraction) -> tuple[float, float]:
    """Return the pair nearest to a number."""
    high = float(value)
    return high, float(value - Fraction(high))


def _bits(value: Fraction, below: int) -> Fraction:
    """Return what a number is down to the bit 2**-below."""
    return Fraction(math.floor(value * 2**below), 2**below)


LOG_2_FIRST = _bits(LOG_2, 42)
LOG_2_SECOND = _bits(LOG_2, 84) - LOG_2_FIRST
LOG_2_THIRD = float(LOG_2 - LOG_2_FIRST - LOG_2_SECOND)
LOG_2_PAIR = words(LOG_2)

INVERSE_FACTORIALS = [Fraction(1, math.factorial(n)) for n in range(17)]
SERIES = [words(f) for f in INVERSE_FACTORIALS[:9]]
SERIES_TAIL = [float(f) for f in INVERSE_FACTORIALS[9:]]

# log(1 + f) = f + f²·p(f) for -1/4 ≤ f ≤ 1/2, as in vecmath: good to float64, from where Newton's step goes on.
LOG_SERIES = (
    -0.5, 0.3333333333333327, -0.2500000000000189, 0.20000000000032203, -0.1666666666619957, 0.1428571428009353,
    -0.12500000038196948, 0.11111111581875757, -0.09999998837016885, 0.09090887968431785, -0.08333329606317234,
    0.07692820791563096, -0.07143926798461255, 0.06660712661769233, -0.062247351252612486, 0.05891874361744719,
    -0.05778182318740101, 0.05659358272929423, -0.04721667968579209, 0.026598013184052294, -0.007089897314887163,
)  # fmt: skip


# ------------------------------------------------------------------ sums and products


def two_sum(a: Word, b: Word) -> Pair:
    """Return the rounded sum, and what it lacks of the sum (Knuth; JMP alg. 2)."""
    total = a + b
    back = total - a
    return total, (a - (total - back)) + (b - back)


def fast_two_sum(a: Word, b: Word) -> Pair:
    """Return the same where a is the larger (Dekker; JMP alg. 1)."""
    total = a + b
    return total, b - (total - a)


def _settled(lanes: Lanes, pair: Pair, plain: Word) -> Pair:
    """Return the pair, or (plain, 0) where a step left the finite numbers: the result of float64 says where to."""
    high, low = pair
    fine = abs(low) < math.inf
    return lanes.select(fine, high, plain), lanes.select(fine, low, 0.0)


def add(lanes: Lanes, x: Pair, y: Pair) -> Pair:
    """Return x + y: JMP alg. 6, relative error 3u²."""
    sh, sl = two_sum(x[0], y[0])
    th, tl = two_sum(x[1], y[1])
    vh, vl = fast_two_sum(sh, sl + th)
    return _settled(lanes, fast_two_sum(vh, tl + vl), sh)


def negative(x: Pair) -> Pair:
    """Return −x."""
    return -x[0], -x[1]


def sub(lanes: Lanes, x: Pair, y: Pair) -> Pair:
    """Return x − y."""
    return add(lanes, x, negative(y))


def mul(lanes: Lanes, x: Pair, y: Pair) -> Pair:
    """Return x·y: JMP alg. 11, relative error 5u²."""
    ch, cl = lanes.two_prod(x[0], y[0])
    return _settled(lanes, fast_two_sum(ch, lanes.fma(x[0], y[1], lanes.fma(x[1], y[0], cl))), ch)


def div(lanes: Lanes, x: Pair, y: Pair) -> Pair:
    """Return x/y: JMP alg. 17, relative error 10u²."""
    th = x[0] / y[0]
    ch, cl = lanes.two_prod(y[0], th)
    rh, rl = fast_two_sum(ch, lanes.fma(y[1], th, cl))
    low = ((x[0] - rh) + (x[1] - rl)) / y[0]
    return _settled(lanes, fast_two_sum(th, low), th)


def sqrt(lanes: Lanes, x: Pair) -> Pair:
    """Return √x: Lefèvre and others, SQRTDWtoDW, relative error 25/8 u²."""
    root = lanes.sqrt(x[0])
    ch, cl = lanes.two_prod(root, root)
    low = (((x[0] - ch) - cl) + x[1]) / (root + root)
    return _settled(lanes, fast_two_sum(root, low), root)


def gap(lanes: Lanes, x: Pair, m: Pair) -> Pair:
    """Return x − m, and 0 where both are the same infinity."""
    high, low = sub(lanes, x, m)
    same = (x[0] == m[0]) & (x[1] == m[1])
    return lanes.select(same, 0.0, high), lanes.select(same, 0.0, low)


def gap_of_words(lanes: Lanes, x: Pair, m: Pair) -> Pair:
    """Return the same of numbers that are one word each."""
    high, low = _settled(lanes, two_sum(x[0], -m[0]), x[0] - m[0])
    return lanes.select(x[0] == m[0], 0.0, high), low


def scaled(lanes: Lanes, a: Pair, x: Pair) -> Pair:
    """Return a·x, and 0 where a is 0, whatever x is."""
    high, low = mul(lanes, a, x)
    none = a[0] == 0.0
    return lanes.select(none, 0.0, high), lanes.select(none, 0.0, low)


def _choose(lanes: Lanes, condition: Any, yes: Pair, no: Pair) -> Pair:
    return lanes.select(condition, yes[0], no[0]), lanes.select(condition, yes[1], no[1])


def magnitude(lanes: Lanes, x: Pair) -> Pair:
    """Return |x|."""
    return abs(x[0]), lanes.select(x[0] < 0.0, -x[1], x[1])


def _doubled(x: Pair) -> Pair:
    return x[0] + x[0], x[1] + x[1]


# ------------------------------------------------------------------ exponentials


def _polynomial(lanes: Lanes, x: Word, coefficients: Sequence[float]) -> Word:
    result = lanes.fma(x, coefficients[-1], coefficients[-2])
    for coefficient in coefficients[-3::-1]:
        result = lanes.fma(result, x, coefficient)
    return result


def _expm1_near_0(lanes: Lanes, r: Pair) -> Pair:
    """Return exp(r) − 1 for |r| ≤ 0.41: Taylor's series at r/8, and (1 + y)² − 1 three times.

    Of the terms from r⁹/9! on, float64 is enough: they are below 2**-52 of the first. The low words need no
    normalising on the way, for each is small beside the coefficient that comes next.
    """
    h, l = r[0] * 0.125, r[1] * 0.125  # noqa: E741
    high, low = _polynomial(lanes, h, SERIES_TAIL), None
    for first, second in SERIES[:0:-1]:
        ch, cl = lanes.two_prod(high, h)
        cl = lanes.fma(high, l, cl) if low is None else lanes.fma(high, l, lanes.fma(low, h, cl))
        high, low = fast_two_sum(first, ch)
        low = low + (cl + second if second else cl)
    ch, cl = lanes.two_prod(high, h)
    y = fast_two_sum(ch, lanes.fma(high, l, lanes.fma(low, h, cl)))
    for _ in range(3):
        ch, cl = lanes.two_prod(y[0], y[0])
        twice = y[0] + y[0]
        sh, sl = fast_two_sum(twice, ch)
        y = fast_two_sum(sh, lanes.fma(twice, y[1], lanes.fma(y[1], 2.0, cl)) + sl)
    return y


def _reduced(lanes: Lanes, x: Pair, least: float) -> tuple[Word, Pair]:
    """Return a whole n and r, x = n·log 2 + r with |r| ≤ 0.35, for x between `least` and LARGE, where it is kept."""
    low, high = x[0] < least, x[0] > LARGE
    h = lanes.select(low, least, lanes.select(high, LARGE, x[0]))
    l = lanes.select(low | high, 0.0, x[1])  # noqa: E741
    n = (h * float(1 / LOG_2) + ROUNDER) - ROUNDER
    sh, sl = two_sum(h - n * float(LOG_2_FIRST), n * -float(LOG_2_SECOND))
    th, tl = two_sum(sh, l)
    return n, fast_two_sum(th, tl + (sl - n * LOG_2_THIRD))


def exp(lanes: Lanes, x: Pair) -> Pair:
    """Return exp(x)."""
    n, r = _reduced(lanes, x, SMALL)
    y = _expm1_near_0(lanes, r)
    sh, sl = fast_two_sum(1.0, y[0])
    sh, sl = fast_two_sum(sh, sl + y[1])
    half = (n * 0.5 + ROUNDER) - ROUNDER
    first, second = lanes.power_of_two(half), lanes.power_of_two(n - half)  # 2**n itself may be no normal number
    high, low = sh * first * second, sl * first * second
    return high, lanes.select(high < math.inf, low, 0.0)


def expm1(lanes: Lanes, x: Pair) -> Pair:
    """Return exp(x) − 1."""
    n, r = _reduced(lanes, x, -100.0)
    y = _expm1_near_0(lanes, r)
    scale = lanes.power_of_two(n - 1.0)
    base = two_sum(scale, -0.5)
    found = _doubled(add(lanes, base, (y[0] * scale, y[1] * scale)))
    return _choose(lanes, abs(x[0]) < TINY, x, (found[0], lanes.select(abs(found[0]) < math.inf, found[1], 0.0)))


# ------------------------------------------------------------------ logarithms


def _log_near_1(lanes: Lanes, f: Pair) -> Pair:
    """Return log(1 + f) for -1/4 ≤ f ≤ 1/2: y, and what Newton's step adds to it."""
    h = f[0]
    y = lanes.fma(h * h, _polynomial(lanes, h, LOG_SERIES), h)
    eh, el = _choose(lanes, abs(y) < TINY, (y, 0.0), _expm1_near_0(lanes, (y, 0.0)))
    missing = ((h - eh) + (f[1] - el)) / (1.0 + h)
    return fast_two_sum(y, missing - missing * missing * 0.5)


def _log_of_parts(lanes: Lanes, e: Word, f: Pair) -> Pair:
    """Return e·log 2 + log(1 + f)."""
    sh, sl = fast_two_sum(e * float(LOG_2_FIRST), e * float(LOG_2_SECOND))
    return add(lanes, (sh, sl + e * LOG_2_THIRD), _log_near_1(lanes, f))


def _log_limits(lanes: Lanes, distance: Word, pair: Pair) -> Pair:
    """Put in the limits where the distance from the pole is not positive and finite."""
    limit = lanes.select(distance == 0.0, -math.inf, distance)  # infinity and NaN stay
    limit = lanes.select(distance < 0.0, math.nan, limit)
    return _choose(lanes, (distance > 0.0) & (distance < math.inf), pair, (limit, 0.0))


def _parts(lanes: Lanes, x: Pair) -> tuple[Word, Pair]:
    """Return e and f, x = 2**e·(1 + f)."""
    small = x[0] < 2.0**-960
    h, l = lanes.select(small, x[0] * 2.0**200, x[0]), lanes.select(small, x[1] * 2.0**200, x[1])  # noqa: E741
    e, m = lanes.split(h)
    half = (e * 0.5 + ROUNDER) - ROUNDER
    low = l * lanes.power_of_two(-half) * lanes.power_of_two(half - e)
    return lanes.select(small, e - 200.0, e), two_sum(m - 1.0, low)


def log(lanes: Lanes, x: Pair) -> Pair:
    """Return log(x): −∞ at 0, NaN below."""
    e, f = _parts(lanes, x)
    return _log_limits(lanes, x[0], _log_of_parts(lanes, e, f))


def log1p(lanes: Lanes, x: Pair) -> Pair:
    """Return log(1 + x): −∞ at −1, NaN below."""
    z = add(lanes, (1.0, 0.0), x)
    e, f = _parts(lanes, z)
    f = _choose(lanes, e == 0.0, x, f)
    return _log_limits(lanes, z[0], _log_of_parts(lanes, e, f))


# ------------------------------------------------------------------ what is made of them


def sigmoid(lanes: Lanes, x: Pair) -> Pair:
    """Return 1/(1 + exp(−x))."""
    e = exp(lanes, negative(magnitude(lanes, x)))
    return div(lanes, _choose(lanes, x[0] < 0.0, e, (1.0, 0.0)), add(lanes, (1.0, 0.0), e))


def softplus(lanes: Lanes, x: Pair) -> Pair:
    """Return log(1 + exp(x))."""
    near = log1p(lanes, exp(lanes, negative(magnitude(lanes, x))))
    return _choose(lanes, x[0] > 0.0, add(lanes, x, near), near)


def log_cosh(lanes: Lanes, x: Pair) -> Pair:
    """Return log(cosh(x)) = log(1 + u²/(2e)), e = exp(−|x|) and u = e − 1; for large |x|, |x| − log 2."""
    a = magnitude(lanes, x)
    u = expm1(lanes, negative(a))
    near = log1p(lanes, div(lanes, mul(lanes, u, u), _doubled(exp(lanes, negative(a)))))
    return _choose(lanes, a[0] < 60.0, near, sub(lanes, a, LOG_2_PAIR))


def tanh(lanes: Lanes, x: Pair) -> Pair:
    """Return tanh(x) = −u/(2 + u) with u = exp(−2|x|) − 1, and the sign of x."""
    u = expm1(lanes, negative(_doubled(magnitude(lanes, x))))
    found = div(lanes, u, add(lanes, (2.0, 0.0), u))
    return _choose(lanes, x[0] < 0.0, found, negative(found))


def power(lanes: Lanes, x: Pair, a: Pair) -> Pair:
    """Return x**a as exp(a·log |x|), with a sign for odd a; of negative x for whole a only. 1 if a is 0 or x is 1."""
    found = exp(lanes, mul(lanes, a, log(lanes, magnitude(lanes, x))))
    small = abs(a[0]) < 2.0**51  # beyond, all numbers are even
    half = a[0] * 0.5
    whole = ((a[0] + ROUNDER) - ROUNDER == a[0]) & (a[1] == 0.0)
    odd = whole & small & ~((half + ROUNDER) - ROUNDER == half)
    below = x[0] < 0.0
    found = _choose(lanes, below & odd, negative(found), found)
    found = _choose(lanes, below & (x[0] > -math.inf) & small & ~whole, (math.nan, 0.0), found)
    one = (x[1] == 0.0) & ((x[0] == 1.0) | ((x[0] == -1.0) & (abs(a[0]) == math.inf))) | (a[0] == 0.0)
    return _choose(lanes, one, (1.0, 0.0), found)


# ------------------------------------------------------------------ comparisons and choices


def _is_above(x: Pair, y: Pair) -> Any:
    return (x[0] > y[0]) | ((x[0] == y[0]) & (x[1] > y[1]))


def _is_same(x: Pair, y: Pair) -> Any:
    return (x[0] == y[0]) & (x[1] == y[1])


def _flag(lanes: Lanes, condition: Any) -> Pair:
    """Return a condition as a number, 1 or 0."""
    return lanes.select(condition, 1.0, 0.0), 0.0


def _is_nan(x: Pair) -> Any:
    return ~(x[0] == x[0])


def maximum(lanes: Lanes, x: Pair, y: Pair) -> Pair:
    """Return the larger one, NaN if either is."""
    return _choose(lanes, _is_above(x, y) | _is_nan(x), x, y)


def minimum(lanes: Lanes, x: Pair, y: Pair) -> Pair:
    """Return the smaller one, NaN if either is."""
    return _choose(lanes, _is_above(y, x) | _is_nan(x), x, y)


def peak(lanes: Lanes, x: Pair, y: Pair) -> Pair:
    """Return the larger one, NaN if either is or both are +∞."""
    high, low = maximum(lanes, x, y)
    return lanes.select((x[0] == math.inf) & (y[0] == math.inf), math.nan, high), low


def sign(lanes: Lanes, x: Pair) -> Pair:
    """Return −1, 0 or 1."""
    return lanes.select(x[0] > 0.0, 1.0, lanes.select(x[0] < 0.0, -1.0, x[0])), 0.0


def chosen(lanes: Lanes, condition: Pair, yes: Pair, no: Pair) -> Pair:
    """Return the one or the other."""
    return _choose(lanes, condition[0] > 0.0, yes, no)


OPERATIONS: dict[str, tuple[int, Callable[..., Pair]]] = {
    "add": (2, add), "sub": (2, sub), "mul": (2, mul), "div": (2, div), "over": (2, div), "gap": (2, gap),
    "gap_of_words": (2, gap_of_words),
    "scaled": (2, scaled), "pow": (2, power), "square": (1, lambda lanes, x: mul(lanes, x, x)), "sqrt": (1, sqrt),
    "exp": (1, exp), "expm1": (1, expm1), "log": (1, log), "log1p": (1, log1p), "sigmoid": (1, sigmoid),
    "softplus": (1, softplus), "log_cosh": (1, log_cosh), "tanh": (1, tanh),
    "neg": (1, lambda lanes, x: negative(x)), "abs": (1, magnitude), "sign": (1, sign),
    "count": (2, lambda lanes, x, y: (x[0] + y[0], 0.0)), "copy": (1, lambda lanes, x: x),
    "maximum": (2, maximum), "minimum": (2, minimum), "peak": (2, peak),
    "select": (3, chosen),
    ">": (2, lambda lanes, x, y: _flag(lanes, _is_above(x, y))),
    ">=": (2, lambda lanes, x, y: _flag(lanes, _is_above(x, y) | _is_same(x, y))),
    "==": (2, lambda lanes, x, y: _flag(lanes, _is_same(x, y))),
    "is_nan": (1, lambda lanes, x: _flag(lanes, _is_nan(x))),
    "not": (1, lambda lanes, x: (1.0 - x[0], 0.0)),
    "and": (2, lambda lanes, x, y: (x[0] * y[0], 0.0)),
    "or": (2, lambda lanes, x, y: _flag(lanes, x[0] + y[0] > 0.0)),
}  # fmt: skip
"""Operations by the names that row programs have for them, and of how many pairs each is."""
