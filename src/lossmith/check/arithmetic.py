"""Real numbers of many digits, and dual numbers over them: what the interpreter computes with.

Nothing here knows the rules of calculus/: derivatives come from dual numbers v + t·ε with ε² = 0,
whose parts may be dual numbers again for second derivatives. Conventions, the same in all of
lossmith:

- 0·∞ = 0, so that a zero target or weight leaves out what it multiplies; ∞ − ∞ is NaN.
- maximum(a, b)' is a' where a > b, else b'; minimum(a, b)' is a' where a < b, else b'.
- |x|' = sign(x)·x' with sign(0) = 0, and sign' = 0. Indicators have derivative 0.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import mpmath

Real: TypeAlias = Any
"""A number of mpmath, which has no types."""

_LARGEST_MAGNITUDE = 3000
"""exp of more than 2**3000 is infinite here: the exponent itself would fill the memory."""

_BEYOND_FLOATS = 1100

_OF_THREAD = threading.local()


def context(digits: int) -> Any:
    """Return this thread's own mpmath context of so many digits; the global one is left alone."""
    made: dict[int, Any] = _OF_THREAD.__dict__.setdefault("contexts", {})
    if digits not in made:
        ctx = mpmath.mp.clone()
        ctx.dps = digits
        made[digits] = ctx
    return made[digits]


def exactly(value: Any, ctx: Any) -> Real:
    """Return `value` as a number of `ctx`: floats and integers exactly, fractions rounded."""
    if hasattr(value, "_mpf_"):
        return ctx.make_mpf(value._mpf_)
    if isinstance(value, Fraction):
        return ctx.mpf(value.numerator) / value.denominator
    if isinstance(value, int):
        return ctx.mpf(value)
    return ctx.mpf(float(value))  # NumPy's float16 … float64 all fit a float


@dataclass(frozen=True, slots=True)
class Dual:
    """The number value + tangent·ε. Of two tags, the larger one is the inner derivative's."""

    tag: int
    value: Any
    tangent: Any


def primal(x: Any) -> Real:
    """Return x with every ε set to zero."""
    while isinstance(x, Dual):
        x = x.value
    return x


def _parts(x: Any, tag: int) -> tuple[Any, Any]:
    """Return (value, tangent) of x for one ε; None stands for a tangent of zero."""
    return (x.value, x.tangent) if isinstance(x, Dual) and x.tag == tag else (x, None)


def _tag(*numbers: Any) -> int:
    return max((x.tag for x in numbers if isinstance(x, Dual)), default=-1)


def _dual(tag: int, value: Any, tangent: Any) -> Any:
    return value if tangent is None else Dual(tag, value, tangent)


class Arithmetic:
    """Functions on reals and dual numbers at one precision.

    `absorbed` tells afterwards whether some sum was so lopsided that a term left no trace in it, and `singular`
    whether a logarithm or reciprocal of zero was taken after that: the zero may be what was left of 1 − p.
    """

    def __init__(self, digits: int) -> None:
        self.ctx = context(digits)
        self.absorbed = self.singular = False
        self.zero, self.one, self.nan = self.ctx.mpf(0), self.ctx.mpf(1), self.ctx.nan
        self.inf = self.ctx.inf
        self._known: dict[tuple[str, Any], Real] = {}

    def doubts(self, value: Real) -> bool:
        """Whether a result may be what it is for want of digits: infinite or NaN, or zero as in 0·∞."""
        return self.singular if value == 0 else self.absorbed and not self.ctx.isfinite(value)

    # -------------------------------------------------------------- sums, products, powers

    def add(self, a: Any, b: Any) -> Any:
        if a.__class__ is Dual or b.__class__ is Dual:
            tag = _tag(a, b)
            (av, at), (bv, bt) = _parts(a, tag), _parts(b, tag)
            tangent = bt if at is None else at if bt is None else self.add(at, bt)
            return _dual(tag, self.add(av, bv), tangent)
        total = a + b
        if ((total == a and b) or (total == b and a)) and self.ctx.isfinite(total):
            self.absorbed = True
        return total

    def sum(self, terms: Iterable[Any]) -> Any:
        total = self.zero
        for term in terms:
            total = self.add(total, term)
        return total

    def mul(self, a: Any, b: Any) -> Any:
        if a.__class__ is Dual or b.__class__ is Dual:
            tag = _tag(a, b)
            (av, at), (bv, bt) = _parts(a, tag), _parts(b, tag)
            left = None if at is None else self.mul(at, bv)
            right = None if bt is None else self.mul(av, bt)
            tangent = right if left is None else left if right is None else self.add(left, right)
            return _dual(tag, self.mul(av, bv), tangent)
        if not a or not b:
            return self.nan if self.ctx.isnan(a) or self.ctx.isnan(b) else self.zero
        return a * b

    def neg(self, a: Any) -> Any:
        return self.mul(-self.one, a)

    def sub(self, a: Any, b: Any) -> Any:
        return self.add(a, self.neg(b))

    def div(self, a: Any, b: Any) -> Any:
        return self.mul(a, self.power(b, -self.one))

    def scaled(self, a: Any, b: Any) -> Any:
        """Return a·b, which is 0 for a = 0 whatever b is."""
        return self.zero if not isinstance(a, Dual) and a == 0 else self.mul(a, b)

    def power(self, base: Any, exponent: Any) -> Any:
        tag = _tag(base, exponent)
        if tag < 0:
            return self._power(base, exponent)
        (b, bt), (e, et) = _parts(base, tag), _parts(exponent, tag)
        value = self.power(b, e)
        tangent = None
        if bt is not None:
            tangent = self.mul(self.mul(e, self.power(b, self.sub(e, self.one))), bt)
        if et is not None:
            by_exponent = self.mul(self.mul(value, self.call("log", b)), et)
            tangent = by_exponent if tangent is None else self.add(tangent, by_exponent)
        return _dual(tag, value, tangent)

    def _power(self, base: Real, exponent: Real) -> Real:
        ctx = self.ctx
        if exponent == 0:
            return self.one
        if ctx.isnan(base) or ctx.isnan(exponent):
            return self.nan
        if base == 0:  # a zero is +0
            self.singular |= self.absorbed and exponent < 0
            return self.zero if exponent > 0 else self.inf
        if ctx.isinf(exponent):
            size = abs(base)
            if base < 0 or size == 1:
                return self.one if base == 1 else self.nan
            return self.inf if (size > 1) == (exponent > 0) else self.zero
        whole = ctx.isint(exponent)
        if base < 0 and not whole:
            return self.nan
        if ctx.isinf(base):
            size = self.inf if exponent > 0 else self.zero
            return -size if base < 0 and int(exponent) % 2 else size
        if whole and abs(exponent) < 10**6:
            return base ** int(exponent)
        magnitude = _exp(self, exponent * ctx.log(abs(base)))
        return -magnitude if base < 0 and int(exponent) % 2 else magnitude

    # -------------------------------------------------------------- choices

    def sign(self, a: Any) -> Real:
        p = primal(a)
        return self.nan if self.ctx.isnan(p) else self.ctx.mpf((p > 0) - (p < 0))

    def maximum(self, a: Any, b: Any) -> Any:
        pa, pb = primal(a), primal(b)
        if self.ctx.isnan(pa) or self.ctx.isnan(pb):
            return self.nan
        return a if pa > pb else b

    def minimum(self, a: Any, b: Any) -> Any:
        pa, pb = primal(a), primal(b)
        if self.ctx.isnan(pa) or self.ctx.isnan(pb):
            return self.nan
        return a if pa < pb else b

    def first_of_largest(self, numbers: list[Any], *, smallest: bool = False) -> int | None:
        """Return where the largest number stands first; None when one is NaN."""
        values = [primal(x) for x in numbers]
        if any(self.ctx.isnan(v) for v in values):
            return None
        best = min(values) if smallest else max(values)
        return values.index(best)

    def shifted_exponentials(self, numbers: list[Any]) -> tuple[Real, list[Any]]:
        """Return m = max and exp(x_k − m): their limit for one +∞, NaN for two or for −∞ alone."""
        values = [primal(x) for x in numbers]
        if any(self.ctx.isnan(v) for v in values):
            return self.nan, [self.nan] * len(numbers)
        shift = max(values)
        if self.ctx.isinf(shift):
            if shift < 0 or values.count(shift) > 1:
                return self.nan, [self.nan] * len(numbers)
            return shift, [self.one if v == shift else self.zero for v in values]
        return shift, [self.call("exp", self.add(x, -shift)) for x in numbers]

    def logsumexp(self, numbers: list[Any]) -> Any:
        if not numbers:
            return -self.inf
        shift, powers = self.shifted_exponentials(numbers)
        if shift == self.inf:
            return numbers[[primal(x) for x in numbers].index(shift)]
        return self.add(shift, self.call("log", self.sum(powers)))

    # -------------------------------------------------------------- elementary functions

    def call(self, name: str, *args: Any) -> Any:
        """Return the elementary function `name` of lossmith.language.elementary at args."""
        if name in ("maximum", "minimum", "scaled"):
            return getattr(self, name)(*args)
        if name == "sign":
            return self.sign(args[0])
        value, derivative = FUNCTIONS[name]
        (x,) = args
        if not isinstance(x, Dual):
            # Every component of a gradient needs the same exponentials.
            key = name, x._mpf_
            if key not in self._known:
                self._known[key] = value(self, x)
            return self._known[key]
        slope = derivative(self, x.value)
        return Dual(x.tag, self.call(name, x.value), self.mul(slope, x.tangent))


def _exp(o: Arithmetic, x: Real) -> Real:
    if o.ctx.isfinite(x) and x and o.ctx.mag(x) > _LARGEST_MAGNITUDE:
        o.absorbed = True
        return o.inf if x > 0 else o.zero
    if x and o.ctx.isfinite(x) and o.ctx.mag(x) < -o.ctx.prec:
        o.absorbed = True
    if x and o.ctx.isint(x) and o.ctx.mag(x) > 20:
        # mpmath takes a whole x as a power of e, which takes long for a large one.
        return o.ctx.exp(o.ctx.fadd(x, 0.5, exact=True)) / o.ctx.exp(o.one / 2)
    return o.ctx.exp(x)


def _log(o: Arithmetic, x: Real) -> Real:
    if x == 0:
        o.singular |= o.absorbed
        return -o.inf
    return o.ctx.log(x) if x > 0 else o.nan


def _near_zero(o: Arithmetic, x: Real, function: Callable[[Real], Real]) -> Real:
    """Return f(x) = x + O(x²) for an f that loses digits near 0 when written down plainly."""
    ctx = o.ctx
    if not x or not ctx.isfinite(x) or ctx.mag(x) > 0:
        return function(x)
    lost = -int(ctx.mag(x))
    if lost > 4 * ctx.prec:
        return +x
    with ctx.workprec(ctx.prec + 2 * lost + 10):
        found = function(x)
    return +found


def _expm1(o: Arithmetic, x: Real) -> Real:
    return _near_zero(o, x, lambda v: o.add(_exp(o, v), -o.one))


def _log1p(o: Arithmetic, x: Real) -> Real:
    return _near_zero(o, x, lambda v: _log(o, o.add(o.one, v)))


def _sigmoid(o: Arithmetic, x: Real) -> Real:
    power = _exp(o, -abs(x))
    over = o.add(o.one, power)
    return power / over if x < 0 else o.one / over


def _softplus(o: Arithmetic, x: Real) -> Real:
    rest = _log1p(o, _exp(o, -abs(x)))
    return o.add(x, rest) if x > 0 else rest


def _log_cosh(o: Arithmetic, x: Real) -> Real:
    size = abs(x)
    if size > 1:
        return o.add(size - o.ctx.log(2), _log1p(o, _exp(o, -2 * size)))
    half = _near_zero(o, x / 2, o.ctx.sinh)
    return _log1p(o, 2 * half * half)


def _tanh(o: Arithmetic, x: Real) -> Real:
    if abs(x) < 1:
        return _near_zero(o, x, o.ctx.tanh)
    power = _exp(o, -2 * abs(x))
    size = o.add(o.one, -power) / o.add(o.one, power)
    return size if x > 0 else -size


def _cosh(o: Arithmetic, x: Real) -> Real:
    return o.add(_exp(o, x), _exp(o, -x)) / 2


def _sinh(o: Arithmetic, x: Real) -> Real:
    if abs(x) < 1:
        return _near_zero(o, x, o.ctx.sinh)
    return o.add(_exp(o, x), -_exp(o, -x)) / 2


def _periodic(o: Arithmetic, name: str, x: Real) -> Real:
    # What is beyond every float stands for infinity, where there is no limit.
    if not o.ctx.isfinite(x) or (x and o.ctx.mag(x) > _BEYOND_FLOATS):
        return o.nan
    return getattr(o.ctx, name)(x)


def _arcsinh(o: Arithmetic, x: Real) -> Real:
    size = abs(x)
    if o.ctx.isinf(x):
        return x
    found = _near_zero(o, size, lambda v: o.ctx.log(v + o.ctx.sqrt(v * v + 1)))
    return found if x >= 0 else -found


def _arctanh(o: Arithmetic, x: Real) -> Real:
    if not abs(x) < 1:
        return o.nan if abs(x) != 1 else o.inf * x
    return (_log1p(o, x) - _log1p(o, -x)) / 2


def _within(o: Arithmetic, name: str, x: Real) -> Real:
    return getattr(o.ctx, name)(x) if abs(x) <= 1 else o.nan


def _arccosh(o: Arithmetic, x: Real) -> Real:
    return o.ctx.acosh(x) if x >= 1 else o.nan


def _polynomial(o: Arithmetic, x: Any, constant: int, square: int) -> Any:
    """Return constant + square·x²."""
    return o.add(o.ctx.mpf(constant), o.mul(o.ctx.mpf(square), o.mul(x, x)))


def _root_slope(o: Arithmetic, x: Any, constant: int, square: int) -> Any:
    """Return (constant + square·x²)^(−1/2)."""
    return o.power(_polynomial(o, x, constant, square), o.ctx.mpf(-0.5))


FUNCTIONS: dict[str, tuple[Callable[[Arithmetic, Real], Real], Callable[[Arithmetic, Any], Any]]] = {
    "exp": (_exp, lambda o, x: o.call("exp", x)),
    "log": (_log, lambda o, x: o.power(x, -o.one)),
    "log1p": (_log1p, lambda o, x: o.power(o.add(o.one, x), -o.one)),
    "expm1": (_expm1, lambda o, x: o.call("exp", x)),
    "abs": (lambda o, x: abs(x), lambda o, x: o.sign(x)),
    "sin": (lambda o, x: _periodic(o, "sin", x), lambda o, x: o.call("cos", x)),
    "cos": (lambda o, x: _periodic(o, "cos", x), lambda o, x: o.neg(o.call("sin", x))),
    "tan": (
        lambda o, x: _periodic(o, "tan", x),
        lambda o, x: o.power(o.call("cos", x), -2 * o.one),
    ),
    "sinh": (_sinh, lambda o, x: o.call("cosh", x)),
    "cosh": (_cosh, lambda o, x: o.call("sinh", x)),
    "tanh": (_tanh, lambda o, x: o.power(o.call("cosh", x), -2 * o.one)),
    "arcsin": (lambda o, x: _within(o, "asin", x), lambda o, x: _root_slope(o, x, 1, -1)),
    "arccos": (lambda o, x: _within(o, "acos", x), lambda o, x: o.neg(_root_slope(o, x, 1, -1))),
    "arctan": (
        lambda o, x: o.ctx.atan(x),
        lambda o, x: o.power(_polynomial(o, x, 1, 1), -o.one),
    ),
    "arcsinh": (_arcsinh, lambda o, x: _root_slope(o, x, 1, 1)),
    "arccosh": (_arccosh, lambda o, x: _root_slope(o, x, -1, 1)),
    "arctanh": (_arctanh, lambda o, x: o.power(_polynomial(o, x, 1, -1), -o.one)),
    "sigmoid": (
        _sigmoid,
        lambda o, x: o.mul(o.call("sigmoid", x), o.call("sigmoid", o.neg(x))),
    ),
    "softplus": (_softplus, lambda o, x: o.call("sigmoid", x)),
    "log_cosh": (_log_cosh, lambda o, x: o.call("tanh", x)),
}
"""Each function's value at a real number, and its derivative at a number that may be dual."""
