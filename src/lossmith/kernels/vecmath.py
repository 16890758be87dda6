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

from .vecmath_llvm import FORMATS, LOG_2, Bits, Number

__all__ = [
    "add_reassoc",
    "exp",
    "expm1",
    "first_where",
    "fma",
    "log",
    "log1p",
    "max_nnan",
    "maximum",
    "min_nnan",
    "minimum",
    "select",
    "sigmoid",
    "softplus",
    "tanh",
]

# Largest errors in units in the last place of the result, rounded up. Docstrings print them and
# tests/kernels/test_vecmath.py holds the functions to them: in float32 on all finite inputs, in
# float64 on random and hard ones, against 50 digits.
MAX_ULP: dict[str, dict[str, float]] = {
    "exp": {"float32": 0.8, "float64": 0.81},
    "expm1": {"float32": 0.93, "float64": 0.97},
    "log": {"float32": 0.92, "float64": 0.93},
    "log1p": {"float32": 0.92, "float64": 0.94},
    "sigmoid": {"float32": 0.77, "float64": 0.8},
    "softplus": {"float32": 1.03, "float64": 1.02},
    "tanh": {"float32": 0.77, "float64": 0.79},
}

# Coefficients, lowest power first, of q in exp(r) = 1 + r + r²·q(r) for |r| ≤ log(2)/2 and of p in
# log(1+f) = f + f²·p(f) for -1/4 ≤ f ≤ 1/2. Origin: Remez exchange in 120 digits for the smallest
# relative error of expm1(r) and log1p(f); the first coefficient is set to its Taylor value, which
# is exact in binary, and then one coefficient at a time is rounded to the type and the rest fitted
# anew. POLYNOMIAL_ERROR has the relative errors, which the tests measure again.
# fmt: off
EXP_COEFFICIENTS: dict[str, tuple[float, ...]] = {
    "float32": (
        0.5, 0.1666666567325592, 0.04166649281978607, 0.008333546109497547,
        0.0013932338915765285, 0.0001976123749045655,
    ),
    "float64": (
        0.5, 0.16666666666666677, 0.041666666666666685, 0.008333333333321761,
        0.0013888888888891082, 0.00019841269885424026, 2.4801587286447252e-05,
        2.7557245094091453e-06, 2.7557322509875713e-07, 2.5108698655782e-08,
        2.0896090260265426e-09,
    ),
}
LOG_COEFFICIENTS: dict[str, tuple[float, ...]] = {
    "float32": (
        -0.5, 0.33333447575569153, -0.2500009536743164, 0.1999092549085617,
        -0.16647395491600037, 0.14477701485157013, -0.13159765303134918,
        0.10463860630989075, -0.04509881138801575,
    ),
    "float64": (
        -0.5, 0.3333333333333327, -0.2500000000000189, 0.20000000000032203,
        -0.1666666666619957, 0.1428571428009353, -0.12500000038196948,
        0.11111111581875757, -0.09999998837016885, 0.09090887968431785,
        -0.08333329606317234, 0.07692820791563096, -0.07143926798461255,
        0.06660712661769233, -0.062247351252612486, 0.05891874361744719,
        -0.05778182318740101, 0.05659358272929423, -0.04721667968579209,
        0.026598013184052294, -0.007089897314887163,
    ),
}
# fmt: on
POLYNOMIAL_ERROR: dict[str, dict[str, float]] = {
    "exp": {"float32": 4.4e-10, "float64": 2.9e-19},
    "log": {"float32": 5.0e-9, "float64": 1.6e-18},
}

# Older versions know llvm.maximum but have no x86 code for it, and end the process. There selects
# stand in, which are vectorised too, except in a reduction.
LLVM_HAS_MAXIMUM = llvm_version_info >= (20,)


def _polynomial(x: Number, coefficients: Sequence[float]) -> Number:
    """Horner's rule; if long, on even and odd powers apart, so that neither waits for the other."""
    if len(coefficients) > 12:
        # The last step apart as well: two large parts would round twice.
        square = x * x
        even, odd = (_polynomial(square, coefficients[start::2]) for start in (1, 2))
        return x.fma(x.fma(odd, even), coefficients[0])
    result = x.constant(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        result = result.fma(x, coefficient)
    return result


def _clamp(x: Number, low: float, high: float) -> Number:
    """Bound x, leaving NaN as it is."""
    x = x.select(x < low, low, x)
    return x.select(x > high, high, x)


def _two_sum(a: Number, b: Number) -> tuple[Number, Number]:
    """Add without loss: the rounded sum and its rounding error."""
    total = a + b
    back = total - a
    return total, (a - (total - back)) + (b - back)


def _reduce(x: Number) -> tuple[Number, Number, Number]:
    """Split x = n·log 2 + r + r_low, |r| ≤ log(2)/2: a float with n in its low bits, r, r_low."""
    fmt = x.format
    high, low = fmt.round(LOG_2), fmt.round(LOG_2 - Fraction(fmt.round(LOG_2)))
    shifted = x.fma(fmt.round(1 / LOG_2), fmt.rounding_shift)
    n = shifted - fmt.rounding_shift
    exact = n.fma(-high, x)  # x and n·high are multiples of half an ulp of log 2: nothing is lost
    r = n.fma(-low, exact)
    return shifted, r, n.fma(-low, exact - r)


def _exp_tail(r: Number, r_low: Number) -> Number:
    """Compute exp(r + r_low) - 1 - r."""
    q = _polynomial(r, EXP_COEFFICIENTS[r.format.name])
    return r.fma(r.fma(q, r_low), r_low)


def _exp_pair(x: Number) -> tuple[Number, Number]:
    """exp(x), rounded, and what is missing from it."""
    fmt = x.format
    x = _clamp(x, fmt.exp_low, fmt.exp_high)
    shifted, r, r_low = _reduce(x)
    tail = _exp_tail(r, r_low)
    p = r + tail
    p_low = (r - p) + tail
    value = 1.0 + p
    missing = ((1.0 - value) + p) + p_low
    # 2**n is no normal number for n = 128 or n < -126 (float32). So multiply by 2**(n-1) and then
    # by 2, or by 2**(n+64) and then by 2**-64: only the last product can be inexact.
    small = x < fmt.exp_subnormal
    scale = x.bits().select(small, fmt.exponent_field(64), fmt.exponent_field(-1))
    scale = (shifted.bits().to_exponent() + scale).number()
    last = x.select(small, 2.0**-64, 2.0)
    return value * scale * last, missing * scale * last


def _expm1_pair(x: Number) -> tuple[Number, Number]:
    """expm1(x) as the sum of a large and a small number."""
    fmt = x.format
    shifted, r, r_low = _reduce(_clamp(x, fmt.expm1_low, fmt.exp_high))
    # 2**n·(1 + r + tail) - 1, all of it halved because 2**128 is too large for float32.
    scale = (shifted.bits().to_exponent() + fmt.exponent_field(-1)).number()
    base, base_low = _two_sum(scale, scale.constant(-0.5))
    high = scale.fma(r, base)
    low = scale.fma(r, base - high) + base_low
    return high * 2.0, scale.fma(_exp_tail(r, r_low), low) * 2.0


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


def _log_pair(e: Number, f: Number) -> tuple[Number, Number]:
    """Sum e·log 2 + log(1 + f) as a large and a small number; e an integer, -1/4 ≤ f ≤ 1/2."""
    fmt = f.format
    high_2, low_2 = fmt.split_log_2(fmt.mantissa_bits - fmt.exponent_bits)
    product = e * high_2  # exact: high_2 leaves room for the bits of e
    high = product + f
    low = f - (high - product)
    p = _polynomial(f, LOG_COEFFICIENTS[fmt.name])
    return high, (f * f).fma(p, e.fma(low_2, low))


def _log_limits(distance: Number, value: Number) -> Number:
    """Put the limits of the logarithm where `distance` from its pole is not positive and finite."""
    limit = distance.select(distance.is_zero(), -np.inf, distance)  # infinity and NaN stay
    limit = distance.select(distance < 0.0, np.nan, limit)
    inside = distance.builder.and_(distance > 0.0, distance < np.inf)
    return distance.select(inside, value, limit)


def _divide(high: Number, low: Number, divisor: Number, divisor_low: Number) -> Number:
    """(high + low) / (divisor + divisor_low), almost correctly rounded."""
    reciprocal = 1.0 / divisor
    quotient = high * reciprocal
    rest = (-quotient).fma(divisor, high) + low
    return (-quotient).fma(divisor_low, rest).fma(reciprocal, quotient)


def _named(function: Any, name: str, doc: str) -> Any:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def _elementary(formula: Callable[[Number], Number]) -> Any:
    """Turn a formula on Numbers into a function that compiled code can call."""
    name = formula.__name__

    def typed(typingctx: Any, x: Any) -> Any:
        if x not in FORMATS:
            raise TypingError(f"vecmath.{name} takes float32 or float64, not {x}")
        fmt = FORMATS[x]

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
    return _exp_pair(x)[0]


@_elementary
def expm1(x: Number) -> Number:
    """Compute e**x - 1 with full relative accuracy near 0; the sign of zero is kept."""
    high, low = _expm1_pair(x)
    return x.select(abs(x) < x.format.tiny, x, high + low)


@_elementary
def log(x: Number) -> Number:
    """Compute the natural logarithm: -inf at ±0, NaN below, subnormal arguments in full."""
    subnormal = x < 2.0 ** (1 - x.format.bias)
    _, e, m = _binary_exponent(x * x.select(subnormal, 2.0**64, 1.0))
    high, low = _log_pair(e - x.select(subnormal, 64.0, 0.0), m - 1.0)
    return _log_limits(x, high + low)


@_elementary
def log1p(x: Number) -> Number:
    """Compute log(1 + x) with full relative accuracy near 0; the sign of zero is kept."""
    fmt = x.format
    sum_ = 1.0 + x
    biased, e, _ = _binary_exponent(sum_)
    # f = (1 + x)·2**-e - 1 is taken from x, because 1 + x has lost its low bits, and is exact. The
    # factor is 4·2**-e because 2**-128 is subnormal in float32.
    scale = (2 * (fmt.bias + 1) - biased).to_exponent().number()
    high, low = _log_pair(e, (x * 0.25).fma(scale, scale.fma(0.25, -1.0)))
    return _log_limits(sum_, x.select(abs(x) < fmt.tiny, x, high + low))


@_elementary
def sigmoid(x: Number) -> Number:
    """Compute 1/(1 + exp(-x)) with full relative accuracy in both tails, without overflow."""
    # With e = exp(-|x|): 1/(1 + e) for x ≥ 0 and e/(1 + e) below.
    e, e_low = _exp_pair(-abs(x))
    divisor = 1.0 + e
    divisor_low = ((1.0 - divisor) + e) + e_low
    left = x < 0.0
    return _divide(x.select(left, e, 1.0), x.select(left, e_low, 0.0), divisor, divisor_low)


@_elementary
def softplus(x: Number) -> Number:
    """Compute log(1 + exp(x)) with full relative accuracy for every x, without overflow."""
    # max(x, 0) + log1p(e) with e = exp(-|x|), where 1 + e = 2**upper·(1 + f) exactly.
    e, e_low = _exp_pair(-abs(x))
    lower = e < 0.5
    high, low = _log_pair(x.select(lower, 0.0, 1.0), x.select(lower, e, e.fma(0.5, -0.5)))
    low = e_low.fma(e.fma(-0.5, 0.97), low)  # e_low/(1 + e), to a tenth of it
    positive = x.select(x > 0.0, x, 0.0)
    total, error = _two_sum(positive, high)
    # Past 40 log1p(e) is far below an ulp of x, and infinity must stay out of the differences.
    return x.select(x > 40.0, x, total + (error + low))


@_elementary
def tanh(x: Number) -> Number:
    """Compute the hyperbolic tangent with full relative accuracy near 0."""
    # tanh|x| = -a/(2 + a) with a = expm1(-2|x|).
    high, low = _expm1_pair(abs(x) * -2.0)
    a = high + low
    a_low = (high - a) + low
    divisor = 2.0 + a
    divisor_low = ((2.0 - divisor) + a) + a_low
    value = _divide(-a, -a_low, divisor, divisor_low).call("llvm.copysign", x)
    return x.select(abs(x) < x.format.tiny, x, value)


def _binary(name: str, emit: Callable[[Number, Number], Number], doc: str) -> Any:
    """Make a function of two floats of one type that compiled code can call."""

    def typed(typingctx: Any, a: Any, b: Any) -> Any:
        if a != b or a not in FORMATS:
            raise TypingError(f"vecmath.{name} takes two floats of one type, not ({a}, {b})")
        fmt = FORMATS[a]

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return emit(Number(builder, fmt, args[0]), Number(builder, fmt, args[1])).node

        return a(a, b), codegen

    return intrinsic(_named(typed, name, doc))


def _maximum(a: Number, b: Number) -> Number:
    if LLVM_HAS_MAXIMUM:
        return a.call("llvm.maximum", b, flags=("nsz",))
    return a.select(a > b, a, a.select(a.is_nan(), a, b))


def _minimum(a: Number, b: Number) -> Number:
    if LLVM_HAS_MAXIMUM:
        return a.call("llvm.minimum", b, flags=("nsz",))
    return a.select(a < b, a, a.select(a.is_nan(), a, b))


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
    if condition != types.boolean or a != b or a not in FORMATS:
        raise TypingError(f"vecmath.select takes a bool and two floats of one type, not ({condition}, {a}, {b})")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(*args)

    return a(condition, a, b), codegen


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
