"""Numbers of many digits with their first and second derivatives, by the chain rule on numbers.

A jet holds, for every entry of an array, its value, its slope along each of some directions, and the second derivative
along some pairs of these. One sweep over a loss gives its value, gradient, Hessian diagonal and Hessian product.
Nothing here knows the rules of calculus/, only the derivative of each elementary function (lossmith.check.arithmetic),
whose conventions at kinks and for 0·∞ hold here too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from lossmith.check.arithmetic import FUNCTIONS, Arithmetic, Dual, Real, exactly, primal

Objects: TypeAlias = Any
"""An array of objects, which are numbers of mpmath."""


class Jet(NamedTuple):
    """Values with slopes (one more axis, of directions) and bends (one more, of pairs); None where all are zero."""

    v: Objects
    f: Objects | None = None
    s: Objects | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the values."""
        return self.v.shape


class Jets:
    """The algebra of jets, for `Sweep`.

    Parameters
    ----------
    digits : int
    pairs : sequence of (int, int)
        The pairs of directions whose second derivatives are wanted.
    """

    def __init__(self, digits: int, pairs: list[tuple[int, int]]) -> None:
        o = self.arithmetic = Arithmetic(digits)
        self._first = np.array([i for i, _ in pairs], dtype=np.intp)
        self._second = np.array([j for _, j in pairs], dtype=np.intp)
        self._add, self._mul = np.frompyfunc(o.add, 2, 1), np.frompyfunc(o.mul, 2, 1)
        # What does not vary has no slope, even where the function has none: cos has no derivative at infinity.
        self._scale = np.frompyfunc(lambda x, slope: o.mul(x, slope) if slope else o.zero, 2, 1)
        self._exactly = np.frompyfunc(lambda x: exactly(x, o.ctx), 1, 1)

    # -------------------------------------------------------------- numbers in and out

    def number(self, value: Any) -> Jet:
        given = np.empty(np.shape(value) or (1,), dtype=object)
        given[...] = value if np.ndim(value) == 0 else np.asarray(value).astype(object)
        return Jet(np.asarray(self._exactly(given), dtype=object))

    def seeded(self, values: Any, slopes: Any) -> Jet:
        """Return numbers that vary, with their slopes along each direction."""
        return Jet(self.number(values).v, self.number(slopes).v)

    def at(self, a: Jet, key: tuple[Any, ...]) -> Jet:
        return Jet(*(None if part is None else part[key] for part in a))

    def transposed(self, a: Jet, order: tuple[int, ...]) -> Jet:
        rest = (len(order),)
        return Jet(*(None if x is None else x.transpose(order if x is a.v else order + rest) for x in a))

    # -------------------------------------------------------------- sums and products

    def _plus(self, *parts: Objects | None) -> Objects | None:
        found = None
        for part in parts:
            found = part if found is None else found if part is None else self._add(found, part)
        return found

    def _times(self, a: Objects, b: Objects | None) -> Objects | None:
        """Return values times slopes or bends."""
        return None if b is None else self._scale(a[..., None], b)

    def _crossed(self, f: Objects | None, g: Objects | None) -> Objects | None:
        """Return f_i g_j for the pairs (i, j)."""
        return None if f is None or g is None else self._mul(f[..., self._first], g[..., self._second])

    def add(self, a: Jet, b: Jet) -> Jet:
        shape = np.broadcast_shapes(a.shape, b.shape)
        a, b = self._spread(a, shape), self._spread(b, shape)
        return Jet(self._add(a.v, b.v), self._plus(a.f, b.f), self._plus(a.s, b.s))

    @staticmethod
    def _spread(a: Jet, shape: tuple[int, ...]) -> Jet:
        """Broadcast slopes and bends; what is missing on one side must not lose the other's shape."""
        if a.shape == shape:
            return a
        parts = (x if x is None else np.broadcast_to(x, shape + x.shape[len(a.shape) :]) for x in (a.f, a.s))
        return Jet(a.v, *parts)

    def mul(self, a: Jet, b: Jet) -> Jet:
        slopes = self._plus(self._times(b.v, a.f), self._times(a.v, b.f))
        bends = self._plus(self._times(b.v, a.s), self._times(a.v, b.s))
        crossed = self._plus(self._crossed(a.f, b.f), self._crossed(b.f, a.f))
        return Jet(self._mul(a.v, b.v), slopes, self._plus(bends, crossed))

    def _chained(self, a: Jet, derivatives: Callable[[Real], tuple[Real, Real, Real]]) -> Jet:
        """Return g(a), of a function that gives g, g′ and g″ at a number."""
        v, first, second = np.frompyfunc(derivatives, 1, 3)(a.v)
        bends = self._plus(self._times(first, a.s), self._times(second, self._crossed(a.f, a.f)))
        return Jet(v, self._times(first, a.f), bends)

    def power(self, a: Jet, b: Jet) -> Jet:
        o = self.arithmetic
        if a.f is None and b.f is None:
            return Jet(np.frompyfunc(o.power, 2, 1)(a.v, b.v))
        if b.f is not None:  # a^b = exp(b log a), but for its value
            found = self.call("exp", self.mul(b, self.call("log", a)))
            return Jet(np.frompyfunc(o.power, 2, 1)(a.v, b.v), found.f, found.s)
        shape = np.broadcast_shapes(a.shape, b.shape)

        def first(x: Real, n: Real) -> Real:
            return o.mul(n, o.power(x, n - 1))

        def second(x: Real, n: Real) -> Real:
            return o.mul(n * (n - 1), o.power(x, n - 2))

        a = self._spread(a, shape)
        slopes, curved = np.frompyfunc(first, 2, 1)(a.v, b.v), np.frompyfunc(second, 2, 1)(a.v, b.v)
        bends = self._plus(self._times(slopes, a.s), self._times(curved, self._crossed(a.f, a.f)))
        return Jet(np.frompyfunc(o.power, 2, 1)(a.v, b.v), self._times(slopes, a.f), bends)

    # -------------------------------------------------------------- functions and choices

    def call(self, function: str, *args: Jet) -> Jet:
        o = self.arithmetic
        if function == "scaled":
            return self.mul(*args)
        if function in ("maximum", "minimum"):
            a, b = args
            v = np.frompyfunc(getattr(o, function), 2, 1)(a.v, b.v)
            chosen = self.where(self.compare(">", a, b) if function == "maximum" else self.compare(">", b, a), a, b)
            return Jet(v, chosen.f, chosen.s)
        (a,) = args
        if a.f is None or function == "sign":
            return Jet(np.frompyfunc(lambda x: o.call(function, x), 1, 1)(a.v))
        slope_at = FUNCTIONS[function][1]

        def derivatives(x: Real) -> tuple[Real, Real, Real]:
            slope = slope_at(o, Dual(0, x, o.one))
            return o.call(function, x), primal(slope), slope.tangent if isinstance(slope, Dual) else o.zero

        return self._chained(a, derivatives)

    def compare(self, op: str, a: Jet, b: Jet) -> np.ndarray:
        holds = {">": np.greater, ">=": np.greater_equal, "==": np.equal}[op]
        return np.asarray(holds(a.v, b.v), dtype=bool)

    def where(self, mask: np.ndarray, a: Jet, b: Jet) -> Jet:
        zero = np.full(1, self.arithmetic.zero, dtype=object)

        def chosen(x: Objects | None, y: Objects | None) -> Objects | None:
            if x is None and y is None:
                return None
            return np.where(mask[..., None], zero if x is None else x, zero if y is None else y)

        return Jet(np.where(mask, a.v, b.v), chosen(a.f, b.f), chosen(a.s, b.s))

    # -------------------------------------------------------------- over the classes

    def total(self, a: Jet, axis: int, mask: np.ndarray | None) -> Jet:
        if mask is not None:
            a = self.where(mask, a, self.number(0))
        return Jet(*(self._reduced(part, axis) for part in a))

    def _reduced(self, part: Objects | None, axis: int) -> Objects | None:
        return None if part is None else self._add.reduce(part, axis=axis)

    def _along(self, a: Jet, axis: int, mask: np.ndarray | None, found: Callable[[list[Real]], Any]) -> np.ndarray:
        """Apply a function to the list of numbers along the axis that are in the mask."""
        v = np.moveaxis(a.v, axis, -1)
        kept = None if mask is None else np.moveaxis(np.broadcast_to(mask, a.shape), axis, -1)
        result = np.empty(v.shape[:-1], dtype=object)
        for place in np.ndindex(result.shape):
            result[place] = found(list(v[place] if kept is None else v[place][kept[place]]))
        return result

    def place(self, op: str, a: Jet, axis: int, mask: np.ndarray | None) -> np.ndarray:
        return np.maximum(self._first_places(op, a, axis, mask), 0)

    def _first_places(self, op: str, a: Jet, axis: int, mask: np.ndarray | None) -> np.ndarray:
        """Return where the largest stands first; −1 where there is none, −2 where one is NaN."""
        o = self.arithmetic

        def first(values: list[Real]) -> int:
            found = o.first_of_largest(values, smallest=op == "min") if values else -1
            return -2 if found is None else found

        places = self._along(a, axis, mask, first).astype(int)
        if mask is not None:  # from the place among the members of the mask to the class
            kept = np.moveaxis(np.broadcast_to(mask, a.shape), axis, -1)
            for at in np.ndindex(places.shape):
                if places[at] >= 0:
                    places[at] = np.flatnonzero(kept[at])[places[at]]
        return places

    def extremum(self, op: str, a: Jet, axis: int, mask: np.ndarray | None) -> Jet:
        o, places = self.arithmetic, self._first_places(op, a, axis, mask)
        at = np.expand_dims(np.maximum(places, 0), axis)
        v = np.take_along_axis(a.v, at, axis).squeeze(axis)
        v[places == -1], v[places == -2] = (-o.inf if op == "max" else o.inf), o.nan
        parts = [None if x is None else np.take_along_axis(x, at[..., None], axis).squeeze(axis) for x in (a.f, a.s)]
        for part in parts:
            if part is not None:
                part[places < 0] = o.zero
        return Jet(v, *parts)

    def logsumexp(self, a: Jet, axis: int, mask: np.ndarray | None) -> Jet:
        o = self.arithmetic
        values = self._along(a, axis, mask, o.logsumexp)
        if a.f is None:
            return Jet(values)
        shares = self._shares(a, axis, mask)
        slopes = self._reduced(self._times(shares, a.f), axis)
        bent = self._plus(a.s, self._crossed(a.f, a.f))
        own = self._crossed(slopes, slopes)
        less = None if own is None else self._mul(np.full(1, -o.one, dtype=object), own)
        return Jet(values, slopes, self._plus(self._reduced(self._times(shares, bent), axis), less))

    def _shares(self, a: Jet, axis: int, mask: np.ndarray | None) -> Objects:
        """Return the softmax of the values; 0 for what is not in the mask."""
        o = self.arithmetic

        def powers(values: list[Real]) -> list[Real]:
            return o.shifted_exponentials(values)[1] if values else []

        found = np.moveaxis(np.full(a.shape, o.zero, dtype=object), axis, -1)
        every = self._along(a, axis, mask, powers)
        kept = None if mask is None else np.moveaxis(np.broadcast_to(mask, a.shape), axis, -1)
        for place in np.ndindex(every.shape):
            members = slice(None) if kept is None else kept[place]
            inverse = o.power(o.sum(every[place]), -o.one)
            found[place][members] = np.array([o.mul(p, inverse) for p in every[place]] + [None], dtype=object)[:-1]
        return np.moveaxis(found, -1, axis)

    def softmax(self, a: Jet, axis: int, mask: np.ndarray | None) -> Jet:
        total = self.logsumexp(a, axis, mask)
        key = (slice(None),) * axis + (None,)
        less = self.mul(self.number(-1), self.at(total, key))
        return self.call("exp", self.add(a, less))
