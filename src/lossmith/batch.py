"""The border between a user's arrays and the kernels: what comes in is checked here, once, and laid out.

Everything that is refused is refused before anything is computed, with the row it was found in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lossmith.errors import DomainError, LabelError, ShapeError
from lossmith.language.formula import Formula, Input

_TOLERANCE = {2: 1e-2, 4: 1e-4, 8: 1e-6}
"""By how much the sum of a distribution may differ from one, by the size of its dtype in bytes."""


@dataclass(frozen=True)
class Layout:
    """How the scores came: their shape and dtype, and where the classes were."""

    shape: tuple[int, ...]
    axis: int
    dtype: np.dtype[Any]
    compute: np.dtype[Any]
    elementwise: bool

    @property
    def rows(self) -> int:
        """The number of samples."""
        size = int(np.prod(self.shape, dtype=np.int64))
        return size if self.elementwise else size // max(1, self.shape[self.axis])

    @property
    def classes(self) -> int:
        """The number of classes, or 1 for an elementwise loss."""
        return 1 if self.elementwise else self.shape[self.axis]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape that per-sample values have."""
        return self.shape if self.elementwise else self.shape[: self.axis] + self.shape[self.axis + 1 :]

    def flat(self, array: np.ndarray) -> np.ndarray:
        """Return (N, K), or (N,) for an elementwise loss, in the compute dtype and C order; a copy only if needed."""
        if self.elementwise:
            return np.ascontiguousarray(array, dtype=self.compute).reshape(-1)
        moved = np.moveaxis(array, self.axis, -1)
        return np.ascontiguousarray(moved, dtype=self.compute).reshape(self.rows, self.classes)

    def unflat(self, array: np.ndarray) -> np.ndarray:
        """Bring (N, K) back to the shape and dtype of the scores."""
        array = array.astype(self.dtype, copy=False)
        if self.elementwise:
            return array.reshape(self.shape)
        return np.moveaxis(array.reshape(*self.sample_shape, self.classes), -1, self.axis)


def as_floats(name: str, value: Any) -> np.ndarray:
    """Return an array of a float dtype; integers and booleans become float64."""
    array = np.asarray(value)
    if array.dtype.kind in "iub":
        return array.astype(np.float64)
    if array.dtype.kind == "f" or array.dtype.name == "bfloat16":
        return array if array.dtype.itemsize <= 8 else array.astype(np.float64)
    raise ShapeError(
        f"{name} has dtype {array.dtype}, expected floats; convert it first, for example with "
        f"np.asarray({name}, dtype=float)."
    )


def layout_of(formula: Formula, name: str, scores: np.ndarray, axis: int) -> Layout:
    """Return the layout of a batch from its scores."""
    elementwise = formula.kind == "elementwise"
    compute = np.dtype(np.float32 if scores.dtype.itemsize <= 4 else np.float64)
    if elementwise:
        return Layout(scores.shape, 0, scores.dtype, compute, True)
    if scores.ndim == 0:
        raise ShapeError(f"{name} is a single number, expected a row of scores (K,) or a batch (N, K).")
    if not -scores.ndim <= axis < scores.ndim:
        raise ShapeError(f"axis={axis} does not exist in {name} of shape {scores.shape}.")
    axis %= scores.ndim
    if scores.shape[axis] == 0:
        raise ShapeError(f"{name} has shape {scores.shape}: no classes along axis {axis}, expected at least one.")
    return Layout(scores.shape, axis, scores.dtype, compute, False)


def row_input(layout: Layout, item: Input, value: Any) -> np.ndarray:
    """Return another row input laid out like the scores, checked against its domain."""
    array = as_floats(item.name, value)
    if array.shape != layout.shape:
        try:
            array = np.broadcast_to(array, layout.shape)
        except ValueError:
            raise ShapeError(
                f"{item.name} has shape {array.shape}, expected {layout.shape} like the scores."
            ) from None
    check_domain(layout, item, array)
    return layout.flat(array)


_OUTSIDE = {
    "unit": (lambda a: (a < 0) | (a > 1), "values in [0, 1]"),
    "nonnegative": (lambda a: a < 0, "values of 0 or more"),
    "positive": (lambda a: a <= 0, "values above 0"),
    "sign": (lambda a: (a != 1) & (a != -1), "values -1 or +1"),
    "simplex": (lambda a: a < 0, "a distribution: values of 0 or more that sum to 1"),
}


def check_domain(layout: Layout, item: Input, array: np.ndarray) -> None:
    """Raise a DomainError that names the first sample with a value outside the input's domain."""
    domain = item.role.domain
    if domain == "real":
        return
    outside, expected = _OUTSIDE[domain]
    bad = outside(array)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise DomainError(f"{item.name} is {array[at]!s} at {_place(layout, at)}, expected {expected}.")
    if domain == "simplex" and not layout.elementwise:
        total = np.sum(array, axis=layout.axis, dtype=np.float64)
        wrong = np.abs(total - 1) > _TOLERANCE.get(array.dtype.itemsize, 1e-6)
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0]) if total.ndim else ()
            raise DomainError(
                f"{item.name} sums to {total[at]:.6g} over the classes in row {_row_name(at)}, expected 1; "
                f"divide each row by its sum."
            )


def _row_name(at: tuple[int, ...]) -> str:
    return str(at[0]) if len(at) == 1 else str(at) if at else "0"


def _place(layout: Layout, at: tuple[int, ...]) -> str:
    if layout.elementwise:
        return f"element {_row_name(at)}"
    row = at[: layout.axis] + at[layout.axis + 1 :]
    return f"row {_row_name(row)}, class {at[layout.axis]}"


def labels(layout: Layout, name: str, value: Any, ignore_index: int | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return labels (N,) as int64 and a mask of the rows that count (None if all do)."""
    array = np.asarray(value)
    if array.shape != layout.sample_shape:
        raise ShapeError(
            f"{name} has shape {array.shape}, expected {layout.sample_shape} for scores of shape {layout.shape} "
            f"(or {layout.shape} for a distribution over the classes)."
        )
    if array.dtype.kind not in "iu":
        whole = array.dtype.kind == "f" and bool(np.all(array == np.floor(array)))
        hint = f"; convert it with {name}.astype(int)" if whole else ""
        raise LabelError(f"{name} has dtype {array.dtype}, expected integers in [0, {layout.classes}){hint}.")
    flat = array.reshape(-1).astype(np.int64, copy=False)
    kept = None
    if ignore_index is not None:
        kept = flat != ignore_index
        flat = np.where(kept, flat, 0)
    bad = (flat < 0) | (flat >= layout.classes)
    if bad.any():
        row = int(np.argmax(bad))
        hint = "" if ignore_index is not None else f"; pass ignore_index={flat[row]} to leave such rows out"
        place = np.unravel_index(row, layout.sample_shape) if array.ndim else ()
        raise LabelError(
            f"{name} is {flat[row]} in row {_row_name(tuple(int(i) for i in place))}, "
            f"expected 0 to {layout.classes - 1} for {layout.classes} classes{hint}."
        )
    return flat, kept


def sample_weights(layout: Layout, value: Any) -> np.ndarray | None:
    """Return weights (N,) in float64; for an elementwise loss, weights per row are spread over the row."""
    if value is None:
        return None
    array = as_floats("sample_weight", value).astype(np.float64, copy=False)
    shape = layout.sample_shape
    if layout.elementwise and array.shape != shape and array.shape == shape[: array.ndim]:
        array = array.reshape(array.shape + (1,) * (len(shape) - array.ndim))
    try:
        array = np.broadcast_to(array, shape)
    except ValueError:
        raise ShapeError(f"sample_weight has shape {array.shape}, expected {shape}, one per sample.") from None
    _refuse_bad_weights("sample_weight", array)
    return np.ascontiguousarray(array).reshape(-1)


def class_weights(layout: Layout, value: Any) -> np.ndarray:
    """Return weights (K,), one per class, in float64."""
    array = as_floats("class_weight", value).astype(np.float64, copy=False)
    if array.shape != (layout.classes,):
        raise ShapeError(f"class_weight has shape {array.shape}, expected ({layout.classes},), one per class.")
    _refuse_bad_weights("class_weight", array)
    return array


def _refuse_bad_weights(name: str, array: np.ndarray) -> None:
    bad = ~((array >= 0) & np.isfinite(array))
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise DomainError(f"{name} is {array[at]} at index {_row_name(at)}, expected finite values of 0 or more.")


def hyperparameters(layout: Layout, formula: Formula, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters for a kernel: floats, and (K,) arrays in the compute dtype."""
    found: dict[str, Any] = {}
    for hyper in formula.hypers:
        value = values.get(hyper.name, hyper.default)
        if value is None:
            raise TypeError(f"the hyperparameter {hyper.name} has no default: pass {hyper.name}=…")
        if hyper.ndim == 0:
            found[hyper.name] = float(value)
            continue
        array = as_floats(hyper.name, value)
        if array.shape != (layout.classes,):
            raise ShapeError(f"{hyper.name} has shape {array.shape}, expected ({layout.classes},), one per class.")
        found[hyper.name] = np.ascontiguousarray(array, dtype=layout.compute)
    return found
