"""The border between a user's arrays and the kernels: what comes in is checked here, once, and laid out.

Everything that is refused is refused before anything is computed, with the row it was found in. Rows that do not
count (of weight 0, or with the ignored label) may hold anything.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from lossmith.errors import DomainError, LabelError, ShapeError
from lossmith.kernels.threads import available_threads, run_pieces
from lossmith.kernels.watch import TOLERANCE
from lossmith.language.formula import Formula, Hyperparameter, Input


@dataclass(frozen=True)
class Layout:
    """How the scores came: their shape and dtype, and where the classes were."""

    shape: tuple[int, ...]
    axis: int
    dtype: np.dtype[Any]
    compute: np.dtype[Any]
    elementwise: bool
    doubled: bool = False
    """Whether kernels compute in two words of `compute` for each number."""

    @cached_property
    def rows(self) -> int:
        """The number of samples."""
        size = math.prod(self.shape)
        return size if self.elementwise else size // max(1, self.shape[self.axis])

    @cached_property
    def classes(self) -> int:
        """The number of classes, or 1 for an elementwise loss."""
        return 1 if self.elementwise else self.shape[self.axis]

    @cached_property
    def flat_shape(self) -> tuple[int, ...]:
        """The shape that kernels see: (N, K), or (N,) for an elementwise loss."""
        return (self.rows,) if self.elementwise else (self.rows, self.classes)

    @cached_property
    def classes_last(self) -> bool:
        """Whether arrays lie as kernels see them; always so for an elementwise loss."""
        return self.elementwise or self.axis == len(self.shape) - 1

    @cached_property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape that per-sample values have."""
        return self.shape if self.elementwise else self.shape[: self.axis] + self.shape[self.axis + 1 :]

    @property
    def stored(self) -> np.dtype[Any]:
        """The dtype of the scores, if kernels read and write it: half precisions they do not."""
        return self.dtype if self.dtype.char in "fd" else self.compute

    def flat(self, array: np.ndarray) -> np.ndarray:
        """Return (N, K), or (N,) for an elementwise loss, in the compute dtype and C order; a copy only if needed."""
        if self.classes_last and array.dtype in (self.compute, self.stored) and array.flags.c_contiguous:
            return array.reshape(self.flat_shape)
        moved = array if self.classes_last else np.moveaxis(array, self.axis, -1)
        with np.errstate(over="ignore"):  # a target beyond the floats of the scores is infinite beside them
            return np.ascontiguousarray(moved, dtype=self.compute).reshape(self.flat_shape)

    def unflat(self, array: np.ndarray) -> np.ndarray:
        """Bring (N, K) back to the shape and dtype of the scores."""
        array = self.rounded(array)
        if self.classes_last:
            return array.reshape(self.shape)
        return np.moveaxis(array.reshape(*self.sample_shape, self.classes), -1, self.axis)

    def rounded(self, array: np.ndarray) -> np.ndarray:
        """Return the array in the dtype of the scores; what is beyond its floats becomes infinite."""
        if array.dtype == self.dtype:
            return array
        with np.errstate(over="ignore"):
            return array.astype(self.dtype)

    def spread(self, per_sample: np.ndarray) -> np.ndarray:
        """Bring (N,) to a shape that broadcasts with the scores."""
        shaped = per_sample.reshape(self.sample_shape)
        return shaped if self.elementwise else np.expand_dims(shaped, self.axis)


def _as_array(name: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError:  # NumPy's own sentence does not say which argument it is about
        raise ShapeError(f"{name} is no array: its rows have different lengths.") from None


def shape_of(name: str, value: Any) -> tuple[int, ...]:
    """Return the shape of an argument, which may be a list."""
    return _as_array(name, value).shape


def as_floats(name: str, value: Any) -> np.ndarray:
    """Return an array of a float dtype; integers and booleans become float64."""
    array = _as_array(name, value)
    if array.dtype.kind in "iub":
        return array.astype(np.float64)
    if array.dtype.kind == "f" or array.dtype.name == "bfloat16":
        return array if array.dtype.itemsize <= 8 else array.astype(np.float64)
    raise ShapeError(
        f"{name} has dtype {array.dtype}, expected floats; convert it first, for example with "
        f"np.asarray({name}, dtype=float)."
    )


def layout_of(formula: Formula, name: str, scores: np.ndarray, axis: Any) -> Layout:
    """Return the layout of a batch from its scores."""
    compute = np.dtype(np.float32 if scores.dtype.itemsize <= 4 else np.float64)
    if formula.kind == "elementwise":
        return Layout(scores.shape, 0, scores.dtype, compute, True)
    if scores.ndim == 0:
        raise ShapeError(f"{name} is a single number, expected a row of scores (K,) or a batch (N, K).")
    try:
        axis = operator.index(axis)
    except TypeError:
        raise TypeError(f"axis is {axis!r}, expected the number of an axis of {name}.") from None
    if not -scores.ndim <= axis < scores.ndim:
        raise ShapeError(f"axis={axis} does not exist in {name} of shape {scores.shape}.")
    axis %= scores.ndim
    if scores.shape[axis] == 0:
        raise ShapeError(f"{name} has shape {scores.shape}: no classes along axis {axis}, expected at least one.")
    return Layout(scores.shape, axis, scores.dtype, compute, False)


def row_input(layout: Layout, item: Input, value: Any, weight: np.ndarray | None = None) -> np.ndarray:
    """Return another input laid out like the scores, checked against its domain in the rows that count.

    It has the shape of the scores, or is one number. Other shapes that NumPy would broadcast are refused: (N, 1)
    beside (N, K) is more often a column of labels than a distribution, and (K,) beside (K, K) could be either.
    """
    array = as_floats(item.name, value)
    if array.ndim == 0:
        array = np.broadcast_to(array, layout.shape)
    elif array.shape != layout.shape:
        raise ShapeError(f"{item.name} has shape {array.shape}, expected {layout.shape} like the scores.")
    check_domain(layout, item, array, weight)
    return layout.flat(array)


# NaN is inside every domain: it makes its row NaN, and no other.
_OUTSIDE = {
    "unit": (lambda a: (a < 0) | (a > 1), "values in [0, 1]"),
    "nonnegative": (lambda a: a < 0, "values of 0 or more"),
    "positive": (lambda a: a <= 0, "values above 0"),
    "above -1": (lambda a: a <= -1, "values above -1"),
    "sign": (lambda a: (a != 1) & (a != -1) & (a == a), "values -1 or +1"),
    "simplex": (lambda a: a < 0, "a distribution: values of 0 or more that sum to 1"),
}


_FEW, _MANY, _MANY_SUMMED = 1 << 13, 1 << 20, 1 << 18
_PIECE = 1 << 17
"""How much is looked at together where threads share the work: what the cache holds while it is looked at twice."""

Check: TypeAlias = Callable[[np.ndarray], bool]
"""Whether all values of an array surely are what they must be; False where that takes a closer look."""


def _at_most(limit: int, dtype: np.dtype[Any]) -> Check:
    """Return a check of the bits in one pass: seen as unsigned, negative numbers and NaN are the largest."""
    unsigned = np.dtype(f"u{dtype.itemsize}")

    def inside(array: np.ndarray) -> bool:
        if not array.size:
            return True
        bits = array.view(unsigned)
        return int(bits.max() if bits.size > _FEW else bits.item(bits.argmax())) <= limit  # argmax is called sooner

    return inside


def _shared(inside: Check, many: int) -> Check:
    """Return a check that takes arrays of so many numbers in pieces, on several threads."""

    def everywhere(array: np.ndarray) -> bool:
        if array.size < many:
            return inside(array)
        rows = -(-len(array) * _PIECE // array.size)
        found = [False] * -(-len(array) // rows)

        def look(piece: int) -> None:
            found[piece] = inside(array[piece * rows : (piece + 1) * rows])

        run_pieces(look, len(found), available_threads())
        return all(found)

    return everywhere


def label_check(classes: int, dtype: np.dtype[Any]) -> Check:
    """Return the check that labels are in [0, classes)."""
    if dtype.kind not in "iu" or not dtype.isnative:
        return lambda array: False
    largest = (1 << 8 * dtype.itemsize - (dtype.kind == "i")) - 1
    return _shared(_at_most(min(classes - 1, largest), dtype), _MANY)


def domain_check(domain: str, dtype: np.dtype[Any]) -> Check:
    """Return the check that floats, classes last, are inside a domain."""
    if domain == "real":
        return lambda array: True
    if dtype.char not in "fd" or not dtype.isnative or domain in ("sign", "positive", "above -1"):
        return lambda array: False
    largest = np.array([1 if domain == "unit" else np.inf], dtype)
    inside = _at_most(int(largest.view(f"u{dtype.itemsize}")[0]), dtype)
    if domain != "simplex":
        return _shared(inside, _MANY)
    return _shared(lambda array: inside(array) and _surely_sum_to_one(array), _MANY_SUMMED)


def _surely_sum_to_one(array: np.ndarray) -> bool:
    # Sums in the dtype of the array; what rounding may add to them is far below half of the tolerance.
    with np.errstate(over="ignore"):
        few = array.shape[-1] <= 512
        total = np.einsum("...k->...", array) if few else np.add.reduce(array, axis=-1)
    return not array.size or bool(np.abs(total - 1).max() <= TOLERANCE[array.dtype.itemsize] / 2)


def check_domain(layout: Layout, item: Input, array: np.ndarray, weight: np.ndarray | None = None) -> None:
    """Raise a DomainError that names the first sample with a value outside the input's domain, weights of 0 apart."""
    domain = item.role.domain
    if domain == "real":
        return
    if layout.classes_last and domain_check(domain, array.dtype)(array):
        return
    outside, expected = _OUTSIDE[domain]
    bad = outside(array)
    if weight is not None:
        bad &= layout.spread(weight != 0)
    if bad.any():
        at = _first(bad)
        raise DomainError(f"{item.name} is {array[at]!s} at {_place(layout, at)}, expected {expected}.")
    if domain == "simplex" and not layout.elementwise:
        _check_sums(layout, item, array, weight)


def _check_sums(layout: Layout, item: Input, array: np.ndarray, weight: np.ndarray | None) -> None:
    with np.errstate(invalid="ignore"):
        total = np.asarray(np.sum(array, axis=layout.axis, dtype=np.float64))
    wrong = np.abs(total - 1) > TOLERANCE.get(array.dtype.itemsize, 1e-6)
    if weight is not None:
        wrong = wrong & (weight != 0).reshape(layout.sample_shape)
    if wrong.any():
        at = _first(wrong)
        raise DomainError(
            f"{item.name} sums to {total[at]:.6g} over the classes in row {_row_name(at)}, expected 1; "
            f"divide each row by its sum."
        )


def _first(bad: Any) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(bad)[0])


def _row_name(at: Sequence[int]) -> str:
    return str(at[0]) if len(at) == 1 else str(tuple(at)) if at else "0"


def _place(layout: Layout, at: tuple[int, ...]) -> str:
    if layout.elementwise:
        return f"element {_row_name(at)}"
    row = at[: layout.axis] + at[layout.axis + 1 :]
    return f"row {_row_name(row)}, class {at[layout.axis]}"


def labels(
    layout: Layout, name: str, value: Any, ignore_index: int | None, weight: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return labels (N,) as int64, all in range, and a mask of the rows that are not ignored, None if none is."""
    array = _as_array(name, value)
    if array.shape != layout.sample_shape:
        raise ShapeError(
            f"{name} has shape {array.shape}, expected {layout.sample_shape} for scores of shape {layout.shape} "
            f"(or {layout.shape} for a distribution over the classes)."
        )
    if array.dtype.kind not in "iu" and array.size:  # an empty list is float64 to NumPy
        raise LabelError(_no_label_dtype(layout, name, array))
    flat, ignored = array.reshape(-1), None if ignore_index is None else operator.index(ignore_index)
    inside = label_check(layout.classes, flat.dtype)(flat)  # before the cast: uint64 would wrap
    kept = None
    if ignored is not None and not (inside and not 0 <= ignored < layout.classes):
        kept = flat != ignored
        kept = None if kept.all() else kept
    if not inside:  # rows that do not count may hold anything
        counted = np.ones(len(flat), bool) if kept is None else kept
        counted = counted if weight is None else counted & (weight != 0)
        flat = flat * counted
        if not label_check(layout.classes, flat.dtype)(flat):
            _refuse_bad_labels(layout, name, array, counted, ignore_index)
    return flat.astype(np.int64, copy=False), kept


def _refuse_bad_labels(
    layout: Layout, name: str, array: np.ndarray, counted: np.ndarray, ignore_index: int | None
) -> None:
    bad = ((array < 0) | (array >= layout.classes)).reshape(-1) & counted
    if bad.any():
        row = int(np.argmax(bad))
        found = array.reshape(-1)[row]
        hint = "" if ignore_index is not None else f"; pass ignore_index={found} to leave such rows out"
        place = [int(i) for i in np.unravel_index(row, layout.sample_shape)] if array.ndim else []
        raise LabelError(
            f"{name} is {found} in row {_row_name(place)}, "
            f"expected 0 to {layout.classes - 1} for {layout.classes} classes{hint}."
        )


def _no_label_dtype(layout: Layout, name: str, array: np.ndarray) -> str:
    whole = array.dtype.kind == "b"
    if array.dtype.kind == "f":
        whole = bool(np.all(np.isfinite(array) & (array == np.floor(array))))
    hint = f"; convert it with {name}.astype(int)" if whole else ""
    return f"{name} has dtype {array.dtype}, expected integers in [0, {layout.classes}){hint}."


def sample_weights(layout: Layout, value: Any) -> np.ndarray | None:
    """Return weights (N,) in float64; for an elementwise loss, weights per row are spread over the row."""
    if value is None:
        return None
    given = as_floats("sample_weight", value).astype(np.float64, copy=False)
    array, shape = given, layout.sample_shape
    if layout.elementwise and 0 < array.ndim < len(shape):
        array = array.reshape(array.shape + (1,) * (len(shape) - array.ndim))
    if not _fits(array.shape, shape, layout.elementwise):
        raise ShapeError(f"sample_weight has shape {given.shape}, expected {shape}, one per sample.")
    _refuse_bad_weights("sample_weight", given)
    if array.shape == shape:
        return np.ascontiguousarray(array).reshape(-1)
    return np.ascontiguousarray(np.broadcast_to(array, shape)).reshape(-1)


def _fits(given: tuple[int, ...], shape: tuple[int, ...], elementwise: bool) -> bool:
    if not given or given == shape:
        return True
    return elementwise and len(given) == len(shape) and all(a in (1, b) for a, b in zip(given, shape, strict=True))


def class_weights(layout: Layout, value: Any) -> np.ndarray:
    """Return weights (K,), one per class, in float64."""
    array = as_floats("class_weight", value).astype(np.float64, copy=False)
    if array.shape != (layout.classes,):
        raise ShapeError(f"class_weight has shape {array.shape}, expected ({layout.classes},), one per class.")
    _refuse_bad_weights("class_weight", array)
    return array


_surely_weights = _at_most(int(np.array([np.finfo(np.float64).max]).view(np.uint64)[0]), np.dtype(np.float64))


def _refuse_bad_weights(name: str, array: np.ndarray) -> None:
    if _surely_weights(array):
        return
    bad = ~((array >= 0) & np.isfinite(array))
    if bad.any():
        at = _first(bad)
        raise DomainError(f"{name} is {array[at]} at index {_row_name(at)}, expected finite values of 0 or more.")


def number(name: str, value: Any) -> float:
    """Return the value of a hyperparameter that is one number."""
    if type(value) is float:
        return value
    array = _as_array(name, value)
    if array.ndim:
        raise ShapeError(f"{name} has shape {array.shape}, expected one number.")
    if array.dtype.kind not in "iubf" and array.dtype.name != "bfloat16":
        raise TypeError(f"{name} is {value!r}, expected a number.")
    return float(array)


def hyperparameters(layout: Layout, hypers: Sequence[Hyperparameter], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters for a kernel: floats, and (K,) arrays in the compute dtype."""
    found: dict[str, Any] = {}
    for hyper in hypers:
        value = values.get(hyper.name)
        value = hyper.default if value is None else value
        if value is None:
            raise TypeError(f"the hyperparameter {hyper.name} has no default: pass {hyper.name}=…")
        if hyper.ndim == 0:
            found[hyper.name] = number(hyper.name, value)
            continue
        array = as_floats(hyper.name, value)
        if array.shape != (layout.classes,):
            raise ShapeError(f"{hyper.name} has shape {array.shape}, expected ({layout.classes},), one per class.")
        found[hyper.name] = np.ascontiguousarray(array, dtype=layout.compute)
    return found


def outputs(layout: Layout, names: Sequence[str], out: Any) -> dict[str, np.ndarray]:
    """Return the arrays that a user wants written, by the name of the output; the others are missing."""
    if out is None:
        return {}
    given = list(out) if isinstance(out, tuple | list) else [out]
    if len(given) != len(names):
        raise ShapeError(f"out is for {', '.join(names)}: it holds {len(given)} of {len(names)} arrays.")
    found = {name: target for name, target in zip(names, given, strict=True) if target is not None}
    for target in found.values():
        if not isinstance(target, np.ndarray) or target.shape != layout.shape or target.dtype != layout.dtype:
            raise ShapeError(
                f"out has shape {np.shape(target)} and dtype {getattr(target, 'dtype', None)}, "
                f"expected an array of shape {layout.shape} and dtype {layout.dtype} like the scores."
            )
        if not target.flags.writeable:
            raise ShapeError("out is read-only, expected an array that can be written to.")
    return found
