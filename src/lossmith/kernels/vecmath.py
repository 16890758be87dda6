"""Elementary functions that LLVM vectorises, for use inside Numba kernels.

Numba's own ``exp`` and ``log`` call the C library once per element, and a loop with a call in it is
not vectorised. The functions here are straight-line code without tables, calls or branches (choices
are selects), written directly as LLVM instructions, so that a loop becomes vector code::

    @njit(nogil=True, error_model="numpy")
    def exp_all(x, out):
        for i in range(x.size):
            out[i] = vecmath.exp(x[i])

Every function takes float32 or float64 and returns the type it was given; all floats of one call
have the same type, and nothing is promoted. Results are bitwise the same in vector and in scalar
code, hence for any length, alignment and split of the data. They rely on every operation being
rounded as written: **a kernel that calls them must not be compiled with** ``fastmath``. A processor
without a fused multiply-add gets right results, slowly. Numba refuses calls from plain Python.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import llvm_version_info
from numba.core import types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from .lanes import Vector, element_of, joined, widened
from .vecmath_llvm import FORMATS, LOG_2, Bits, Number, has_avx512
from .vecmath_tables import (
    EXP_COEFFICIENTS,
    EXP_GAP_COEFFICIENTS,
    GAP_ULP,
    LOG_COEFFICIENTS,
    LOG_COSH_COEFFICIENTS,
    MAX_ULP,
    POWERS_OF_TWO,
    UNIT_LOG_COEFFICIENTS,
)

__all__ = [
    "add_reassoc",
    "exp",
    "exp_gap",
    "exp_nonpositive",
    "expm1",
    "first_where",
    "fma",
    "log",
    "log1p",
    "log_cosh",
    "max_nnan",
    "maximum",
    "min_nnan",
    "minimum",
    "power",
    "select",
    "sigmoid",
    "softplus",
    "tanh",
]

# Older versions know llvm.maximum but have no x86 code for it, and end the process. There selects
# stand in, which are vectorised too, except in a reduction.
LLVM_HAS_MAXIMUM = llvm_version_info >= (20,)


def _polynomial(x: Number, coefficients: Sequence[float]) -> Number:
    """Estrin's scheme: pairs of terms, pairs of pairs. Few steps wait for one another.

    Loops over long formulas are held up by that: a processor has room for a few rounds at a time, no more.
    """
    power, terms = x, list[Any](coefficients)
    while len(terms) > 1:
        pairs = zip(terms[::2], terms[1::2], strict=False)
        terms = [power.fma(high, low) for low, high in pairs] + terms[len(terms) // 2 * 2 :]
        power = power * power
    return terms[0]


def _chain(x: Number, coefficients: Sequence[float]) -> Number:
    """Horner's scheme: the fewest operations, each waiting for the one before. For loops that do little else."""
    *others, total = coefficients
    value = x.constant(total)
    for coefficient in reversed(others):
        value = x.fma(value, coefficient)
    return value


def _clamp(x: Number, low: float, high: float) -> Number:
    """Bound x, leaving NaN as it is."""
    x = x.select(x < low, low, x)
    return x.select(x > high, high, x)


def _exp_parts(
    x: Number, offset: int, polynomial: Callable[[Number, Sequence[float]], Number] = _polynomial
) -> tuple[Number, Number, Number, Number]:
    """Split exp(x) = 2**n·(1 + r·g), |r| ≤ log(2)/2: returns n, 2**(n + offset), r and g."""
    fmt = x.format
    high, low = fmt.round(LOG_2), fmt.round(LOG_2 - Fraction(fmt.round(LOG_2)))
    # Adding 1.5·2**23 (2**52) leaves an integer in the low bits: n, and what makes an exponent of it.
    shift = fmt.rounding_shift + fmt.bias + offset
    shifted = x.fma(fmt.round(1 / LOG_2), shift)
    n = shifted - shift
    # x and n·high are multiples of half an ulp of log 2: nothing is lost before the last rounding.
    r = n.fma(-low, n.fma(-high, x))
    g = r.fma(polynomial(r, EXP_COEFFICIENTS[fmt.name]), 1.0)
    return n, shifted.bits().to_exponent().number(), r, g


def _exp(x: Number, low: Number | None = None) -> Number:
    """Compute exp(x + low); low is small, and none by default."""
    fmt = x.format
    x = _clamp(x, fmt.exp_low, fmt.exp_high)
    # 2**n is no normal number for n = 128 or n < -126 (float32). So multiply by 2**(n-1) and then
    # by 2, or by 2**(n+64) and then by 2**-64: only the last product can be inexact.
    _, scale, r, g = _exp_parts(x, 0)
    small = x < fmt.exp_subnormal
    scale = (scale.bits() + x.bits().select(small, 64 << fmt.mantissa_bits, -1 << fmt.mantissa_bits)).number()
    value = r.fma(g, 1.0)
    if low is not None:
        value = value.fma(low, value)
    return value * scale * x.select(small, 2.0**-64, 2.0)


def _exp_nonpositive(x: Number, polynomial: Callable[[Number, Sequence[float]], Number] = _polynomial) -> Number:
    """Compute exp(x) for x ≤ 0, subnormal numbers in full."""
    low = x.format.exp_low
    # 2**(n+64) is a normal number; only the product with 2**-64 can be inexact.
    n, scale, r, g = _exp_parts(x.select(x < low, low, x), 64, polynomial)
    value = r.fma(g, 1.0)
    return value.times_power_of_two(n) or value * scale * 2.0**-64


def _exp_gap(x: Number, m: Number) -> Number:
    """Compute exp(x - m) for x ≤ m, 1 where they are equal.

    2**(j/16) (2**(j/8) in float64), j an integer, is looked up in a register: so the polynomial is short.
    """
    fmt, gap, equal = x.format, x - m, x.is_equal(m)
    if not has_avx512():
        return _exp_nonpositive(x.select(equal, 0.0, gap), _chain)
    table = POWERS_OF_TWO[fmt.name]
    gap = gap.select(gap < fmt.exp_low, fmt.exp_low, gap)
    # As in _exp_parts, but n is a multiple of 1/steps; its fraction is the place in the table.
    steps, offset = len(table), fmt.bias + 64
    shift = fmt.rounding_shift / steps + offset
    shifted = gap.fma(fmt.round(1 / LOG_2), shift)
    n, power = shifted - shift, shifted.bits().look_up(table)
    high = fmt.round(LOG_2)
    r, low = n.fma(-high, gap), fmt.round(LOG_2 - Fraction(high))
    if abs(low) > 2.0 ** -(fmt.mantissa_bits + 5):  # else it is far less than the rounding of the gap
        r = n.fma(-low, r)
    growth = r * r.fma(_chain(r, EXP_GAP_COEFFICIENTS[fmt.name]), 1.0)
    value = power.fma(growth, power)
    scaled = value.times_power_of_two(n) or value * shifted.bits().to_exponent(steps).number() * 2.0**-64
    return x.select(equal, 1.0, scaled)


def _exp_and_expm1(x: Number) -> tuple[Number, Number]:
    """exp(x) and expm1(x) for x ≤ 0; exp flushed to what no longer counts beside 1."""
    low = x.format.expm1_low
    _, scale, r, g = _exp_parts(x.select(x < low, low, x), 0)
    return r.fma(g, 1.0) * scale, (scale * r).fma(g, scale - 1.0)


def _binary_exponent(x: Number) -> tuple[Bits, Number, Number]:
    """Split x = 2**e·m with 3/4 ≤ m < 3/2: returns e plus the bias, e as a float, and m."""
    fmt = x.format
    three_quarters = fmt.exponent_field(-1) + (1 << (fmt.mantissa_bits - 1))
    moved = x.bits() + (fmt.exponent_field(0) - three_quarters)
    biased = moved.from_exponent()
    # An integer in the low bits of the float 2**23 (2**52) is an integer added to it.
    shifted = (biased | fmt.exponent_field(fmt.mantissa_bits)).number()
    m = ((moved & ((1 << fmt.mantissa_bits) - 1)) + three_quarters).number()
    return biased, shifted - (2.0**fmt.mantissa_bits + fmt.bias), m


def _log_sum(e: Number, f: Number) -> Number:
    """Compute e·log 2 + log(1 + f); e an integer, -1/4 ≤ f ≤ 1/2."""
    fmt = f.format
    # high has few bits: e·high is exact, and cancels against the logarithm without a trace.
    high, low = fmt.split_log_2(fmt.mantissa_bits - fmt.exponent_bits)
    log_f = (f * f).fma(_polynomial(f, LOG_COEFFICIENTS[fmt.name]), f)
    return e.fma(high, e.fma(low, log_f))


def _log1p_unit(x: Number) -> Number:
    """Compute log(1 + x) for 0 ≤ x ≤ 1."""
    return (x * x).fma(_polynomial(x, UNIT_LOG_COEFFICIENTS[x.format.name]), x)


def _log_limits(distance: Number, value: Number) -> Number:
    """Put the limits of the logarithm where `distance` from its pole is not positive and finite."""
    limit = distance.select(distance.is_zero(), -np.inf, distance)  # infinity and NaN stay
    limit = distance.select(distance < 0.0, np.nan, limit)
    inside = distance.builder.and_(distance > 0.0, distance < np.inf)
    return distance.select(inside, value, limit)


def _named(function: Any, name: str, doc: str) -> Any:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def _elementary(formula: Callable[[Number], Number]) -> Any:
    """Turn a formula on Numbers into a function that compiled code can call."""
    name = formula.__name__

    def typed(typingctx: Any, x: Any) -> Any:
        if element_of(x) not in FORMATS:
            raise TypingError(f"vecmath.{name} takes float32 or float64, not {x}")
        fmt = FORMATS[element_of(x)]

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return formula(Number(builder, fmt, args[0])).node

        return x(x), codegen

    worst = MAX_ULP[name]
    figures = f"{worst['float32']} ulp (float32, every input), {worst['float64']} ulp (float64)"
    doc = f"{formula.__doc__}\n\n    Largest measured error: {figures}.\n    "
    return intrinsic(_named(typed, name, doc))


@_elementary
def exp(x: Number) -> Number:
    """Compute e**x: subnormal results in full, 0 at -inf, inf on overflow."""
    return _exp(x)


@_elementary
def exp_nonpositive(x: Number) -> Number:
    """Compute e**x for x ≤ 0 with few operations: subnormal results in full, 0 at -inf. Undefined above 0."""
    return _exp_nonpositive(x, _chain)


@_elementary
def expm1(x: Number) -> Number:
    """Compute e**x - 1 with full relative accuracy near 0; the sign of zero is kept."""
    fmt = x.format
    # Half of 2**n·(1 + r·g) - 1, because 2**128 is too large for float32.
    _, scale, r, g = _exp_parts(_clamp(x, fmt.expm1_low, fmt.exp_high), -1)
    return x.select(abs(x) < fmt.tiny, x, (scale * r).fma(g, scale - 0.5) * 2.0)


@_elementary
def log(x: Number) -> Number:
    """Compute the natural logarithm: -inf at ±0, NaN below, subnormal arguments in full."""
    subnormal = x < 2.0 ** (1 - x.format.bias)
    _, e, m = _binary_exponent(x * x.select(subnormal, 2.0**64, 1.0))
    return _log_limits(x, _log_sum(e - x.select(subnormal, 64.0, 0.0), m - 1.0))


@_elementary
def log1p(x: Number) -> Number:
    """Compute log(1 + x) with full relative accuracy near 0; the sign of zero is kept."""
    fmt = x.format
    sum_ = 1.0 + x
    biased, e, _ = _binary_exponent(sum_)
    # f = (1 + x)·2**-e - 1 is taken from x, because 1 + x has lost its low bits, and is exact. The
    # factor is 4·2**-e because 2**-128 is subnormal in float32.
    scale = (2 * (fmt.bias + 1) - biased).to_exponent().number()
    value = _log_sum(e, (x * 0.25).fma(scale, scale.fma(0.25, -1.0)))
    return _log_limits(sum_, x.select(abs(x) < fmt.tiny, x, value))


@_elementary
def sigmoid(x: Number) -> Number:
    """Compute 1/(1 + exp(-x)) with full relative accuracy in both tails, without overflow."""
    # The same exponential and quotient for x and -x, and for softplus: compiled once where both are asked for.
    e = _exp_nonpositive(-abs(x))
    right = 1.0 / (1.0 + e)
    return x.select(x < 0.0, e * right, right)


@_elementary
def softplus(x: Number) -> Number:
    """Compute log(1 + exp(x)) with full relative accuracy for every x, without overflow."""
    return x.select(x > 0.0, x, 0.0) + _log1p_unit(_exp_nonpositive(-abs(x)))


@_elementary
def tanh(x: Number) -> Number:
    """Compute the hyperbolic tangent with full relative accuracy near 0."""
    _, a = _exp_and_expm1(abs(x) * -2.0)
    return (-a / (2.0 + a)).call("llvm.copysign", x)


@_elementary
def log_cosh(x: Number) -> Number:
    """Compute log(cosh(x)) with full relative accuracy near 0, without overflow."""
    size = abs(x)
    e, _ = _exp_and_expm1(size * -2.0)
    far = (size - x.format.round(LOG_2)) + _log1p_unit(e)
    square = x * x
    half, *others = LOG_COSH_COEFFICIENTS[x.format.name]
    near = (square * square).fma(_polynomial(square, others), square * half)
    return x.select(size < 1.0, near, far)


def _binary(name: str, emit: Callable[[Number, Number], Number], doc: str) -> Any:
    """Make a function of two floats of one type that compiled code can call."""

    def typed(typingctx: Any, a: Any, b: Any) -> Any:
        result = joined(a, b)
        if element_of(result) not in FORMATS:
            raise TypingError(f"vecmath.{name} takes two floats of one type, not ({a}, {b})")
        fmt = FORMATS[element_of(result)]

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            like = context.get_value_type(result)
            x, y = (Number(builder, fmt, widened(builder, value, like)) for value in args)
            return emit(x, y).node

        return result(a, b), codegen

    return intrinsic(_named(typed, name, doc))


def _maximum(a: Number, b: Number) -> Number:
    if LLVM_HAS_MAXIMUM:
        return a.call("llvm.maximum", b, flags=("nsz",))
    return a.select(a > b, a, a.select(a.is_nan(), a, b))


def _minimum(a: Number, b: Number) -> Number:
    if LLVM_HAS_MAXIMUM:
        return a.call("llvm.minimum", b, flags=("nsz",))
    return a.select(a < b, a, a.select(a.is_nan(), a, b))


def _log_pair(x: Number) -> tuple[Number, Number]:
    """log(x) of a positive number as a large and a small one, with an error of 2**-26 (2**-55)."""
    fmt = x.format
    subnormal = x < 2.0 ** (1 - fmt.bias)
    _, e, m = _binary_exponent(x * x.select(subnormal, 2.0**64, 1.0))
    e, f = e - x.select(subnormal, 64.0, 0.0), m - 1.0
    # as in _log_sum, but what the first sum loses is kept
    high_2, low_2 = fmt.split_log_2(fmt.mantissa_bits - fmt.exponent_bits)
    product = e * high_2
    high = product + f
    lost = f - (high - product)
    low = (f * f).fma(_polynomial(f, LOG_COEFFICIENTS[fmt.name]), e.fma(low_2, lost))
    total = high + low
    return total, low - (total - high)


def _power(x: Number, y: Number) -> Number:
    size, both = abs(x), x.builder
    high, low = _log_pair(size)
    ordinary = both.and_(size > 0.0, size < np.inf)
    limit = x.select(size < 1.0, -np.inf, size)  # of the logarithm at 0 and infinity; NaN stays
    high = x.select(ordinary, high, limit)
    product = y * high
    rest = y.fma(high, -product) + y * low
    value = _exp(product, x.select(abs(product) < 2.0**10, rest, 0.0))
    endless = both.not_(abs(y) < np.inf)
    one = both.and_((size - 1.0).is_zero(), both.and_(endless, both.not_(y.is_nan())))
    one = both.or_(one, both.or_(y.is_zero(), (x - 1.0).is_zero()))
    value = x.select(one, 1.0, value)
    # A negative number has a real power only if the exponent is an integer; the sign stays if that is odd.
    whole = (y.call("llvm.rint") - y).is_zero()
    half = y * 0.5
    odd = both.and_(whole, both.not_((half.call("llvm.rint") - half).is_zero()))
    undefined = both.and_(both.and_(x < 0.0, size < np.inf), both.not_(both.or_(whole, endless)))
    value = x.select(odd, value.call("llvm.copysign", x), value)
    return x.select(undefined, np.nan, value)


power = _binary(
    "power",
    _power,
    "Return a**b as C's pow does, with an error of (1.2 + |b|/3) units in the last place where that matters.",
)
exp_gap = _binary(
    "exp_gap",
    _exp_gap,
    "Return e**(x - m) for x ≤ m, and 1 where they are equal, both infinite too. Undefined for x > m.\n\n"
    f"    Largest error where x - m is exact: {GAP_ULP['float32']} + (m - x)/20 ulp (float32, every input), "
    f"{GAP_ULP['float64']} ulp (float64).\n    ",
)
maximum = _binary("maximum", _maximum, "Return the larger; NaN if either is. A reduction by it is vectorised.")
minimum = _binary("minimum", _minimum, "Return the smaller; NaN if either is. A reduction by it is vectorised.")
max_nnan = _binary(
    "max_nnan",
    lambda a, b: a.call("llvm.maxnum", b, flags=("nnan", "nsz")),
    "Return the larger of two floats, neither NaN (or the result is undefined); may vectorise.",
)
min_nnan = _binary(
    "min_nnan",
    lambda a, b: a.call("llvm.minnum", b, flags=("nnan", "nsz")),
    "Return the smaller of two floats, neither NaN (or the result is undefined); may vectorise.",
)
add_reassoc = _binary(
    "add_reassoc",
    lambda a, b: a.add(b, flags=("reassoc",)),
    "Add; a chain of such additions may be regrouped, so that a sum in a loop is vectorised.",
)


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Compute a·b + c, rounded once."""
    if not a == b == c or a not in FORMATS:
        raise TypingError(f"vecmath.fma takes three floats of one type, not ({a}, {b}, {c})")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return a(a, b, c), codegen


@intrinsic
def select(typingctx: Any, condition: Any, a: Any, b: Any) -> Any:
    """Return a if the condition holds, else b, having computed both: never a branch."""
    result = joined(a, b)
    if isinstance(condition, Vector) and result is not None:
        result = condition.of(element_of(result))
    if result is None or element_of(condition) != types.boolean or element_of(result) not in FORMATS:
        raise TypingError(f"vecmath.select takes a bool and two floats of one type, not ({condition}, {a}, {b})")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        like = context.get_value_type(result)
        return builder.select(args[0], widened(builder, args[1], like), widened(builder, args[2], like))

    return result(condition, a, b), codegen


@intrinsic
def first_where(typingctx: Any, at: Any, condition: Any, index: Any) -> Any:
    """Return the smaller of `at`, a uint32, and the uint64 `index` if the condition holds; else `at`."""
    if at != types.uint32 or condition != types.boolean or index != types.uint64:
        raise TypingError(f"vecmath.first_where takes a uint32, a bool and a uint64, not ({at}, {condition}, {index})")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        before, hit, place = args
        short = before.type  # as wide as a float32, so that a vector has a lane for each
        found = builder.select(hit, builder.trunc(place, short), ir.Constant(short, 2**32 - 1))
        least = builder.module.declare_intrinsic("llvm.umin", [short], ir.FunctionType(short, [short, short]))
        return builder.call(least, [before, found])

    return at(at, condition, index), codegen
