"""What a batch is made of: arguments checked and laid out, and the variant of the loss that fits them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

import lossmith.batch as batch  # `from lossmith import` would ask the package, and load the catalogue
from lossmith.batch import Layout
from lossmith.errors import ShapeError
from lossmith.kernels.sums import sum_rows
from lossmith.language.formula import Formula, Hyperparameter, Input, Role

FOLDED = frozenset({0.0, 0.5, 1.0, 2.0})
"""Hyperparameter values worth a kernel of their own: they remove a term or turn a power into a product."""
_SAFE = (2.0**-900, 2.0**900)
"""Weights whose sum or largest lies between these have an inverse of the sum that float64 can hold."""


class Loss(Protocol):
    """What is asked of a loss here; `lossmith.Loss` has all of it."""

    _kernels: dict[Any, Any]
    _plans: dict[Any, Any]

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def definition(self) -> Formula: ...
    @property
    def label_name(self) -> str | None: ...

    def with_arrays(self, ndims: Mapping[str, int]) -> Formula: ...
    def variant(
        self,
        ndims: Mapping[str, int],
        soft: bool,
        weighted: bool,
        constants: Mapping[str, float],
        positive: frozenset[str],
    ) -> Formula: ...

    def display_formula(self) -> Formula: ...
    def arguments(self, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]: ...


@dataclass(frozen=True)
class Variant:
    """The formula of a loss for arguments of one kind, made when it is asked for: a program on disk needs none."""

    loss: Loss
    ndims: Mapping[str, int]
    """Hyperparameters that are arrays where the definition has numbers."""
    soft: bool
    """Whether the label is a distribution over the classes."""
    weighted: bool
    """Whether the expectation over that distribution takes class weights."""
    constants: Mapping[str, float]
    """Hyperparameters that are folded in."""
    positive: frozenset[str]
    """Hyperparameters that are above 0."""

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells this variant from others of the same loss."""
        folded = tuple(sorted(self.constants.items()))
        return (tuple(sorted(self.ndims)), self.soft, self.weighted, folded, tuple(sorted(self.positive)))

    @property
    def base(self) -> Formula:
        """The definition, with arrays for those numbers."""
        return self.loss.with_arrays(self.ndims)

    @property
    def formula(self) -> Formula:
        """The formula of this variant."""
        return self.loss.variant(self.ndims, self.soft, self.weighted, self.constants, self.positive)

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The inputs of the formula."""
        if not self.soft:
            return self.base.inputs
        soft = Role("targets", "nonnegative")
        return tuple(replace(i, role=soft) if i.role.kind == "label" else i for i in self.base.inputs)

    @property
    def hypers(self) -> tuple[Hyperparameter, ...]:
        """The hyperparameters of the formula, but for their signs."""
        return tuple(h for h in self.base.hypers if h.name not in self.constants)


@dataclass(frozen=True)
class Prepared:
    """A batch in the form that kernels take, and the variant of the formula for it."""

    variant: Variant
    layout: Layout
    inputs: dict[str, np.ndarray]
    label: np.ndarray | None
    hypers: dict[str, Any]
    weight: np.ndarray | None
    total: float

    @property
    def formula(self) -> Formula:
        """The formula for this batch."""
        return self.variant.formula

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells this formula from others of the same loss."""
        return self.variant.key


@dataclass(frozen=True, slots=True)
class Rows:
    """Labels and weights: rows of weight 0 do not count, whatever they hold."""

    label: np.ndarray | None
    soft: bool
    class_weight: np.ndarray | None
    weight: np.ndarray | None
    total: float


def prepare(loss: Loss, args: tuple[Any, ...], hyper: dict[str, Any], settings: dict[str, Any]) -> Prepared:
    """Check and lay out the arguments, and choose the formula that fits them."""
    definition = loss.definition
    hyper = {n: v for n, v in hyper.items() if v is not None}  # None means the default
    given = dict(zip((i.name for i in definition.inputs), args, strict=True))
    first = definition.of_role("scores")[0].name
    scores = batch.as_floats(first, given[first])
    layout = batch.layout_of(definition, first, scores, settings["axis"])
    if settings.get("precision", "fast") != "fast":
        layout = _exact(layout, settings["precision"])
    placed = places_weights(loss)
    rows = rows_of(loss, layout, given.get(loss.label_name or ""), settings, placed)
    ndims = {h.name: 1 for h in definition.hypers if h.ndim == 0 and _ndim(hyper.get(h.name, h.default)) == 1}
    constants = _constants(definition, hyper, ndims)
    positive = _positive(definition, hyper, ndims, constants)
    weighted = rows.soft and rows.class_weight is not None and not placed
    variant = Variant(loss, ndims, rows.soft, weighted, constants, positive)
    if variant.base.kind != loss.kind:
        name = min(ndims)
        shape = np.shape(hyper.get(name, 0))
        raise ShapeError(f"{name} has shape {shape}, expected one number for {loss.name}.")
    values = hyper if rows.class_weight is None else {**hyper, "class_weight": rows.class_weight}
    hypers = batch.hyperparameters(layout, variant.hypers, values)
    if weighted:
        hypers["class_weight"] = np.ascontiguousarray(rows.class_weight, dtype=layout.compute)
    inputs = _row_inputs(variant.inputs, layout, first, scores, given, rows.weight)
    return Prepared(variant, layout, inputs, rows.label, hypers, rows.weight, rows.total)


def _exact(layout: Layout, precision: str) -> Layout:
    """Return the layout with wider arithmetic: float64, or two words of float64 where that is the dtype."""
    if precision != "exact":
        raise ValueError(f"precision is {precision!r}, expected 'fast' or 'exact'.")
    return replace(layout, compute=np.dtype(np.float64), doubled=layout.compute.itemsize > 4)


def places_weights(loss: Loss) -> bool:
    """Whether the definition says itself where class weights go."""
    return any(h.name == "class_weight" for h in loss.definition.hypers)


def rows_of(loss: Loss, layout: Layout, given: Any, settings: Mapping[str, Any], placed: bool) -> Rows:
    """Return labels and weights; with `placed` class weights the definition multiplies by them itself."""
    name, ignored = loss.label_name, settings.get("ignore_index")
    soft = name is not None and loss.kind == "row" and batch.shape_of(name, given) == layout.shape
    weight = batch.sample_weights(layout, settings.get("sample_weight"))
    class_weight = settings.get("class_weight")
    if class_weight is not None:
        if name is None and not placed:
            raise TypeError(f"{loss.name} takes no label, so class_weight has nothing to weigh.")
        class_weight = batch.class_weights(layout, class_weight)
    if ignored is not None and (name is None or soft):
        why = f"{name} is a distribution" if soft else f"{loss.name} takes no label"
        raise TypeError(f"{why}, so ignore_index={ignored} means none; sample_weight leaves samples out.")
    label: np.ndarray | None = None
    total = None
    if name is not None and not soft:
        label, kept = batch.labels(layout, name, given, ignored, weight)
        if kept is not None:
            total = float(np.count_nonzero(kept)) if weight is None else None
            weight = kept.view(np.int8).astype(np.float64) if weight is None else weight * kept
    mean = settings.get("reduction") == "mean"
    if label is not None and class_weight is not None:
        weight = _in_range(weight) if mean and weight is not None else weight
        each = class_weight.take(label, mode="wrap")  # the fastest mode: labels are in range
        each = each if weight is None else weight * each
        weight, total = weight if placed else each, sum_rows(each)
    elif total is None:
        total = float(layout.rows) if weight is None else sum_rows(weight)
        if mean and weight is not None and not _SAFE[0] < total < _SAFE[1]:
            weight = _in_range(weight)
            total = sum_rows(weight)
    return Rows(label, soft, class_weight, weight, total)


def _in_range(weight: np.ndarray) -> np.ndarray:
    """Return the weights, multiplied by a power of two if their sum or its inverse would be infinite."""
    largest = float(weight.max(initial=0.0))
    if largest == 0.0 or _SAFE[0] < largest < _SAFE[1]:
        return weight
    return np.ldexp(weight, -math.frexp(largest)[1])


def _ndim(value: Any) -> int:
    return 0 if value is None or type(value) in (int, float) else np.ndim(value)


def _constants(definition: Formula, hyper: Mapping[str, Any], ndims: Mapping[str, int]) -> dict[str, float]:
    found: dict[str, float] = {}
    for h in definition.hypers:
        value = hyper.get(h.name, h.default)
        if h.ndim == 0 and h.name not in ndims and value is not None and batch.number(h.name, value) in FOLDED:
            found[h.name] = float(value)
    return found


def _positive(
    definition: Formula, hyper: Mapping[str, Any], ndims: Mapping[str, int], constants: Mapping[str, float]
) -> frozenset[str]:
    """Return the numbers above 0 among the hyperparameters: scores may be scaled by those after subtracting."""
    found: list[str] = []
    for h in definition.hypers:
        value = hyper.get(h.name, h.default)
        if h.ndim == 0 and h.name not in ndims and h.name not in constants and value is not None:
            found += [h.name] if batch.number(h.name, value) > 0 else []
    return frozenset(found)


def _row_inputs(
    items: tuple[Input, ...],
    layout: Layout,
    first: str,
    scores: np.ndarray,
    given: Mapping[str, Any],
    weight: np.ndarray | None,
) -> dict[str, np.ndarray]:
    found = {first: layout.flat(scores)}
    for item in items:
        if item.name == first:
            batch.check_domain(layout, item, scores, weight)
        elif item.role.kind != "label":
            found[item.name] = batch.row_input(layout, item, given[item.name], weight)
    return found
