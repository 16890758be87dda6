"""The short way for a call like one before: arrays of the same shapes and dtypes, the same options.

The general way, evaluation.py, looks at whatever a call may bring, which takes longer than a small batch. What it finds
out about plain arrays is kept as a Plan. The next call of that kind looks at the values only, and goes straight to the
compiled function. A plan that is not sure that all is well computes nothing, and the general way says what is wrong.
Labels and weights that options are about go through the same function on both ways.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lossmith.kernels.sums import sum_rows

if TYPE_CHECKING:
    from lossmith.batch import Layout
    from lossmith.preparation import Rows

BACKEND = "LOSSMITH_BACKEND"
KEPT = 256
"""How many plans a loss keeps; it forgets them all when there are more."""

WEIGHTS = ("sample_weight", "class_weight")
"""Options that may be arrays: a plan looks at their values at every call."""
_PLAIN = frozenset({bool, float, int, str, type(None), np.float64, np.int64})
_IN_ORDER = 0x0101  # NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED

# os.environ.get takes a microsecond where a variable is not set: an exception inside. This is the dict below it.
_variables: Any = getattr(os.environ, "_data", os.environ)
_backend_key: Any = os.environ.encodekey(BACKEND) if _variables is not os.environ else BACKEND  # type: ignore[attr-defined]


def signature(wanted: tuple[str, ...], args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, ...] | None:
    """Return what a plan is found by: all that decides about a call but the values in its arrays.

    None unless the arrays are in C order, and the options numbers, words or weights.
    """
    key: list[Any] = [wanted, _variables.get(_backend_key)]
    for array in args:
        if type(array) is not np.ndarray or array.flags.num & _IN_ORDER != _IN_ORDER:
            return None
        key += (array.dtype, array.shape)
    for name, value in options.items():
        if type(value) in _PLAIN:
            key += (name, type(value), value)  # 1 == 1.0 == True, but not for every option
        elif name in WEIGHTS and type(value) is np.ndarray:
            key += (name, value.dtype, value.shape)
        else:
            return None
    return tuple(key)


def reduced(per_sample: np.ndarray, reduction: str, divisor: float, layout: Layout) -> Any:
    """Return the sum, the mean, or the values in the shape and dtype that the user sees."""
    if reduction == "none":
        shaped = layout.rounded(per_sample).reshape(layout.sample_shape)
        return shaped if shaped.ndim else shaped[()]
    total = sum_rows(per_sample)
    if reduction == "sum":
        return total
    if math.isinf(total) and np.isfinite(per_sample).all():  # the sum overflowed, the mean may not
        return sum_rows(per_sample / divisor)
    return total / divisor if divisor else 0.0


def factor(reduction: str, divisor: float) -> float:
    """Return what everything but the value is multiplied by."""
    if reduction != "mean":
        return 1.0
    return 1.0 / divisor if divisor > 0 else 0.0


def settles(total: float, reduction: str, layout: Layout, weighted: bool = False) -> bool:
    """Whether the sum of many values says what their mean is: not if it may be infinite while they are not."""
    return math.isfinite(total) or reduction == "sum" or (layout.compute.itemsize <= 4 and not weighted)


@dataclass(slots=True)
class Plan:
    """How a call is done whose arrays have the shapes and dtypes that this was made for."""

    call: Callable[[bool, bool], Callable[..., Any]]
    """Returns what computes the batch, with weights or without, into arrays of zeros or of anything."""
    weigh: Callable[[tuple[Any, ...], dict[str, Any]], Rows] | None
    """What looks at labels and weights, and refuses them, where there are options about them."""
    each: int
    """How many rows it gives one sum of values for."""
    sums: int
    """How many such sums there are; 0 if the value is not wanted."""
    order: tuple[int, ...]
    """Which of the arguments it takes."""
    label: int
    """Which of the arguments is the label, -1 for none."""
    checks: tuple[tuple[int, Callable[[np.ndarray], bool]], ...]
    """Arguments, and what must be true of their values."""
    watched: tuple[tuple[int, Callable[[np.ndarray], bool]], ...]
    """The same for arguments that are seen to be right while the batch is computed, unless into the user's arrays."""
    inspect: Callable[[tuple[Any, ...], np.ndarray | None], None]
    """Takes the arguments and the weights, and refuses what lies outside the domain in rows that count."""
    params: tuple[Any, ...]
    """Hyperparameters, None for class weights that the definition places."""
    scale: float
    """What everything but the value is multiplied by, unless there are weights."""
    divisor: float
    """What the sum of values is divided by for their mean, unless there are weights."""
    layout: Layout
    flat_shape: tuple[int, ...] | None
    """The shape that the compiled function wants, where it is another than that of the scores."""
    reduction: str
    makers: tuple[Callable[..., np.ndarray], ...]
    """What makes the arrays that come back."""
    inputs: int
    """How many differentiable inputs there are: so many arrays make one output."""

    def run(self, args: tuple[Any, ...], options: dict[str, Any], out: Any) -> tuple[Any, ...] | None:
        """Return what was wanted, or None if the general way must have a look."""
        for at, inside in self.checks:
            if not inside(args[at]):
                return None
        layout = self.layout
        if out is None:
            found = [make(layout.shape, layout.dtype) for make in self.makers]
        else:
            found = list(out) if type(out) is tuple else [out]
            if not self._takes(found, (*args, *options.values())):
                return None
            for at, inside in self.watched:
                if not inside(args[at]):
                    return None
        rows, params, targets = [args[k] for k in self.order], self.params, found
        weight, scale, divisor = None, self.scale, self.divisor
        if self.weigh is not None:
            weighed = self.weigh(args, options)
            weight, divisor, by_class = weighed.weight, weighed.total, weighed.class_weight
            scale = factor(self.reduction, divisor)
            if self.label >= 0:
                rows[-1] = weighed.label
            if None in params:
                params = [np.ascontiguousarray(by_class, layout.compute) if p is None else p for p in params]
        elif self.label >= 0:
            rows[-1] = rows[-1].astype(np.int64, copy=False)
        if self.flat_shape is not None:
            rows = [a.reshape(self.flat_shape if a.shape == layout.shape else -1) for a in rows]
            targets = [a.reshape(self.flat_shape) for a in found]
        values = np.empty(self.sums) if self.sums else None
        targets = targets if values is None else [values, *targets]
        weights = () if weight is None else (weight,)
        sure = self.call(weight is not None, out is None)(*rows, *params, *weights, scale, *targets)
        if sure is False and out is None:
            self.inspect(args, weight)
        if values is None:
            return self._grouped(found)
        value = reduced(values, self.reduction, divisor, layout)
        if self.each > 1 and not settles(value, self.reduction, layout, weight is not None):
            return None
        return (value, *self._grouped(found))

    def _takes(self, out: list[Any], args: tuple[Any, ...]) -> bool:
        """Whether results can be written where the user wants them, while the arguments are still read."""
        layout = self.layout
        return len(out) == len(self.makers) and all(
            type(array) is np.ndarray
            and array.dtype == layout.dtype
            and array.shape == layout.shape
            and array.flags.carray
            and not any(np.may_share_memory(array, o) for o in (*args, *out[:k]) if type(o) is np.ndarray)
            for k, array in enumerate(out)
        )

    def _grouped(self, found: list[np.ndarray]) -> tuple[Any, ...]:
        if self.inputs == 1:
            return tuple(found)
        return tuple(tuple(found[k : k + self.inputs]) for k in range(0, len(found), self.inputs))
