"""Arrays of numbers of many digits, on which a loss function runs as it stands.

Nothing is traced and no formula is built: NumPy hands each call to `MpArray` through its protocols,
and it is carried out at once. So this is a reference that shares no code with the tracer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from lossmith.check.arithmetic import Arithmetic, Real, exactly
from lossmith.check.interpreter import Sample, has_nan, ways_to_limit
from lossmith.check.precision import common_limit, settled
from lossmith.language.formula import Formula

_METHODS = frozenset({"sum", "mean", "max", "min", "argmax", "argmin", "dot", "clip"})
_UFUNC_REDUCTIONS = {"add": "sum", "maximum": "max", "minimum": "min", "logaddexp": "logsumexp"}


class MpArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array of numbers of one precision, for one sample with K classes.

    Parameters
    ----------
    values : array_like
        Numbers of any kind; floats are taken exactly.
    arithmetic : Arithmetic
        What computes.
    K : int
        The number of classes, for `onehot` and `classes`.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, values: Any, arithmetic: Arithmetic, K: int) -> None:
        self.arithmetic, self.K = arithmetic, K
        self.data = _objects(values, arithmetic.ctx)

    def __repr__(self) -> str:
        return f"MpArray({self.data.tolist()})"

    def like(self, values: Any) -> MpArray:
        """Return an array of the same precision."""
        return MpArray(values, self.arithmetic, self.K)

    # -------------------------------------------------------------- NumPy's protocols

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> MpArray:
        name = ufunc.__name__
        if method == "reduce" and name in _UFUNC_REDUCTIONS:
            kwargs.setdefault("axis", 0)
            return self._apply(_UFUNC_REDUCTIONS[name], *inputs, **kwargs)
        if method != "__call__" or kwargs:
            raise TypeError(f"np.{name} is not supported here as {method} with {sorted(kwargs)}")
        return self._apply(name, *inputs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func.__name__ in ("shape", "size", "ndim"):
            return getattr(args[0], func.__name__)
        return self._apply(func.__name__, *args, **kwargs)

    def __lossmith_apply__(self, name: str, *args: Any, **kwargs: Any) -> MpArray:
        """Return the operation `name` of this array: how lossmith's own functions come here."""
        return self._apply(name, self, *args, **kwargs)

    def _apply(self, name: str, *args: Any, **kwargs: Any) -> MpArray:
        if name in _ENTRYWISE:
            function = _ENTRYWISE[name]
            return self._entrywise(lambda *numbers: function(self.arithmetic, *numbers), *args)
        if name not in _OPERATIONS:
            raise TypeError(f"{name} is not supported on MpArray")
        first, *others = args if args else (self,)
        first = first if isinstance(first, MpArray) else self.like(first)
        return _OPERATIONS[name](first, *others, **kwargs)

    def _entrywise(self, function: Callable[..., Any], *args: Any) -> MpArray:
        arrays = [_objects(a, self.arithmetic.ctx) for a in args]
        return self.like(np.frompyfunc(function, len(arrays), 1)(*arrays))

    # -------------------------------------------------------------- what NumPy arrays also have

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def T(self) -> MpArray:
        return self.like(self.data.T)

    def astype(self, dtype: Any, **_: Any) -> MpArray:
        """Return the array itself: an indicator is a number already."""
        del dtype
        return self

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: Any) -> MpArray:
        items = key if isinstance(key, tuple) else (key,)
        return self.like(self.data[tuple(_as_index(i) for i in items)])

    def __getattr__(self, name: str) -> Any:
        if name in _METHODS:
            return lambda *args, **kwargs: self._apply(name, self, *args, **kwargs)
        raise AttributeError(name)

    def item(self) -> Real:
        """Return the only number."""
        return self.data.item()

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    __index__ = __int__


def _objects(values: Any, ctx: Any) -> np.ndarray:
    if isinstance(values, MpArray):
        return values.data
    array = np.asarray(values, dtype=object)
    flat = [exactly(_unwrapped(x), ctx) for x in array.ravel()]
    made = np.empty(len(flat), dtype=object)
    made[:] = flat
    return made.reshape(array.shape)


def _unwrapped(x: Any) -> Any:
    if isinstance(x, MpArray):
        return x.item()
    return int(x) if isinstance(x, np.bool_ | bool | np.integer) else x


def _as_index(item: Any) -> Any:
    if isinstance(item, MpArray):
        return item.data.astype(np.int64)[()]
    return item


# ------------------------------------------------------------------ entry by entry


def _compared(holds: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda o, a, b: o.one if holds(a, b) else o.zero


def _indicator(holds: Callable[..., Any]) -> Callable[..., Any]:
    return lambda o, *numbers: o.one if holds(*(bool(x) for x in numbers)) else o.zero


def _elementary(name: str) -> Callable[..., Any]:
    return lambda o, *numbers: o.call(name, *numbers)


def _leaky_relu(o: Arithmetic, x: Real, slope: Real = 0.01) -> Real:
    return x if x > 0 else o.mul(exactly(slope, o.ctx), x)


_ENTRYWISE: dict[str, Callable[..., Any]] = {
    **{
        name: _elementary(name)
        for name in (
            *("exp", "log", "log1p", "expm1", "abs", "sign", "sin", "cos", "tan", "sinh", "cosh"),
            *("tanh", "arcsin", "arccos", "arctan", "arcsinh", "arccosh", "arctanh"),
            *("sigmoid", "softplus", "log_cosh", "maximum", "minimum"),
        )
    },
    **{
        alias: _elementary(name)
        for alias, name in {
            "absolute": "abs", "fabs": "abs", "fmax": "maximum", "fmin": "minimum",
            "asin": "arcsin", "acos": "arccos", "atan": "arctan",
            "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh",
        }.items()
    },
    "add": lambda o, a, b: o.add(a, b),
    "subtract": lambda o, a, b: o.sub(a, b),
    "multiply": lambda o, a, b: o.mul(a, b),
    "divide": lambda o, a, b: o.div(a, b),
    "true_divide": lambda o, a, b: o.div(a, b),
    "power": lambda o, a, b: o.power(a, b),
    "pow": lambda o, a, b: o.power(a, b),
    "float_power": lambda o, a, b: o.power(a, b),
    "negative": lambda o, x: o.neg(x),
    "positive": lambda o, x: x,
    "square": lambda o, x: o.mul(x, x),
    "sqrt": lambda o, x: o.power(x, o.one / 2),
    "reciprocal": lambda o, x: o.power(x, -o.one),
    "exp2": lambda o, x: o.power(2 * o.one, x),
    "log2": lambda o, x: o.div(o.call("log", x), o.ctx.log(2)),
    "log10": lambda o, x: o.div(o.call("log", x), o.ctx.log(10)),
    "logaddexp": lambda o, a, b: o.logsumexp([a, b]),
    "greater": _compared(lambda a, b: a > b),
    "greater_equal": _compared(lambda a, b: a >= b),
    "less": _compared(lambda a, b: a < b),
    "less_equal": _compared(lambda a, b: a <= b),
    "equal": _compared(lambda a, b: a == b),
    "not_equal": _compared(lambda a, b: a != b),
    "logical_and": _indicator(lambda a, b: a and b),
    "bitwise_and": _indicator(lambda a, b: a and b),
    "logical_or": _indicator(lambda a, b: a or b),
    "bitwise_or": _indicator(lambda a, b: a or b),
    "logical_not": _indicator(lambda a: not a),
    "invert": _indicator(lambda a: not a),
    "bitwise_not": _indicator(lambda a: not a),
    "where": lambda o, cond, a, b: a if cond else b,
    "heaviside": lambda o, x, at_zero: o.ctx.mpf(x > 0) if x != 0 else at_zero,
    "log_sigmoid": lambda o, x: -o.call("softplus", -x),
    "relu": lambda o, x: o.maximum(x, o.zero),
    "leaky_relu": _leaky_relu,
    "silu": lambda o, x: o.mul(x, o.call("sigmoid", x)),
}  # fmt: skip


# ------------------------------------------------------------------ over the classes


def _folded(
    x: MpArray,
    fold: Callable[[list[Real]], Any],
    axis: Any,
    where: Any = None,
    keepdims: bool = False,
) -> MpArray:
    """Apply `fold` to the numbers along the axes, to those with `where` only."""
    data = x.data
    kept_where = np.ones(data.shape, bool)
    if where is not None:
        kept_where = np.broadcast_to(_objects(where, x.arithmetic.ctx).astype(bool), data.shape)
    axes = range(data.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = sorted({a % data.ndim for a in axes})
    outer = [a for a in range(data.ndim) if a not in axes]
    shape = tuple(data.shape[a] for a in outer)
    found = np.empty(shape, dtype=object)
    for place in itertools.product(*map(range, shape)):
        at: list[Any] = [slice(None)] * data.ndim
        for a, k in zip(outer, place, strict=True):
            at[a] = k
        found[place] = fold(list(data[tuple(at)][kept_where[tuple(at)]]))
    return x.like(np.expand_dims(found, tuple(axes)) if keepdims else found)


def _sum(x: MpArray, axis: Any = None, *, initial: Any = 0, **options: Any) -> MpArray:
    return _folded(x, x.arithmetic.sum, axis, **_known(options)) + initial


def _mean(x: MpArray, axis: Any = None, **options: Any) -> MpArray:
    o = x.arithmetic
    return _folded(x, lambda v: o.div(o.sum(v), o.ctx.mpf(len(v))), axis, **_known(options))


def _extremum(largest: bool) -> Callable[..., MpArray]:
    def extremum(x: MpArray, axis: Any = None, *, initial: Any = None, **options: Any) -> MpArray:
        o = x.arithmetic
        start = [] if initial is None else [exactly(_unwrapped(initial), o.ctx)]

        def fold(values: list[Real]) -> Real:
            values = values + start
            first = o.first_of_largest(values, smallest=not largest)
            return o.nan if first is None else values[first]

        return _folded(x, fold, axis, **_known(options))

    return extremum


def _place(largest: bool) -> Callable[..., MpArray]:
    def place(x: MpArray, axis: Any = None) -> MpArray:
        o = x.arithmetic
        return _folded(x, lambda v: o.first_of_largest(v, smallest=not largest) or 0, axis)

    return place


def _logsumexp(x: MpArray, axis: Any = None, **options: Any) -> MpArray:
    return _folded(x, x.arithmetic.logsumexp, axis, **_known(options))


def _log_softmax(x: MpArray, axis: int = -1) -> MpArray:
    return x - _logsumexp(x, axis, keepdims=True)


def _softmax(x: MpArray, axis: int = -1, *, where: Any = None) -> MpArray:
    o = x.arithmetic
    kept = x.like(np.ones(x.shape)) if where is None else x.like(where)
    moved = np.moveaxis(x.data, axis, -1)
    mask = np.moveaxis(np.broadcast_to(kept.data, x.shape).astype(bool), axis, -1)
    found = np.empty(moved.shape, dtype=object)
    for place in itertools.product(*map(range, moved.shape[:-1])):
        chosen = moved[place][mask[place]]
        _, powers = o.shifted_exponentials(list(chosen)) if len(chosen) else (None, [])
        total = o.sum(powers)
        found[place] = o.zero
        found[place][mask[place]] = [o.div(p, total) for p in powers]
    return x.like(np.moveaxis(found, -1, axis))


def _clip(x: MpArray, a_min: Any = None, a_max: Any = None, **bounds: Any) -> MpArray:
    low, high = bounds.get("min", a_min), bounds.get("max", a_max)
    if low is not None:
        x = np.maximum(x, low)  # type: ignore[assignment]
    return x if high is None else np.minimum(x, high)  # type: ignore[return-value]


def _matmul(a: MpArray, b: Any) -> MpArray:
    b = a.like(b)
    if b.ndim == 1:
        return _sum(a * b, -1)
    rows = a if a.ndim == 2 else a[None, :]
    product = _sum(rows[:, :, None] * b[None, :, :], 1)
    return product if a.ndim == 2 else product[0]


def _norm(x: MpArray, ord: Any = None, axis: Any = None) -> MpArray:
    if ord is None or ord == 2:
        return np.sqrt(_sum(x * x, axis))  # type: ignore[return-value]
    return (_sum if ord == 1 else _extremum(True))(np.abs(x), axis)  # type: ignore[arg-type]


def _onehot(y: MpArray, like: Any = None) -> MpArray:
    K = y.K if like is None else len(like)
    return y.like([int(k == int(y)) for k in range(K)])


def _classes(x: MpArray) -> MpArray:
    return x.like(range(x.shape[-1] if x.ndim else x.K))


def _known(options: dict[str, Any]) -> dict[str, Any]:
    """Drop the options without a value, and refuse the unknown."""
    given = {k: v for k, v in options.items() if v is not None}
    unknown = given.keys() - {"where", "keepdims"}
    if unknown:
        raise TypeError(f"no option {min(unknown)}= on MpArray")
    return given


_OPERATIONS: dict[str, Callable[..., MpArray]] = {
    "sum": _sum, "mean": _mean,
    "max": _extremum(True), "amax": _extremum(True),
    "min": _extremum(False), "amin": _extremum(False),
    "argmax": _place(True), "argmin": _place(False),
    "logsumexp": _logsumexp, "softmax": _softmax, "log_softmax": _log_softmax,
    "softmin": lambda x, axis=-1: _softmax(-x, axis),
    "clip": _clip, "matmul": _matmul, "dot": _matmul, "norm": _norm,
    "onehot": _onehot, "classes": _classes,
    "ones_like": lambda x: x.like(np.ones(x.shape)),
    "zeros_like": lambda x: x.like(np.zeros(x.shape)),
    "full_like": lambda x, value: x.like(np.zeros(x.shape)) + value,
}  # fmt: skip


# ------------------------------------------------------------------ a loss function, run


def run_definition(
    function: Callable[..., Any], formula: Formula, sample: Sample, digits: int
) -> tuple[MpArray, Arithmetic]:
    """Run a user's function of one sample on numbers of so many digits.

    Returns
    -------
    value : MpArray
    arithmetic : Arithmetic
        What has computed it.
    """
    arithmetic = Arithmetic(digits)

    def made(value: Any) -> MpArray:
        return MpArray(value, arithmetic, sample.K)

    inputs = [made(sample.label if i.role.kind == "label" else sample.rows[i.name]) for i in formula.inputs]
    hypers = {h.name: made(sample.hypers[h.name]) for h in formula.hypers}
    found = function(*inputs, **hypers)
    return found if isinstance(found, MpArray) else made(found), arithmetic


def definition_value(
    function: Callable[..., Any],
    formula: Formula,
    sample: Sample,
    digits: int = 40,
    *,
    component: int | None = None,
    limits: bool = False,
) -> Real:
    """Return what a user's function gives for one sample, with `digits` correct digits.

    Parameters
    ----------
    function : callable
        A function of one sample in NumPy's language, called as the formula's own function is.
    component : int, optional
        Which entry of a vector function's result.
    limits : bool
        Take entries of ±∞ as the limit of large numbers, as `Reference` does.

    Raises
    ------
    Unsettled
        If 1000 digits do not suffice.
    """
    if has_nan(sample):
        return Arithmetic(digits).nan

    def on_way(way: Sample) -> Real:
        def at_digits(level: int) -> tuple[Real, bool]:
            found, arithmetic = run_definition(function, formula, way, level)
            number = (found if component is None else found[component]).item()
            return number, arithmetic.doubts(number)

        return settled(at_digits, digits, limit=way is not sample)

    return common_limit([on_way(w) for w in (ways_to_limit(sample) if limits else [sample])])
