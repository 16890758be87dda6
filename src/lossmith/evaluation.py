"""Running a loss over a batch: pick the kernel for these arguments, run it, reduce."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lossmith import batch
from lossmith.batch import Layout
from lossmith.calculus.stabilize import by_rules
from lossmith.compiler import DIRECTION, FOLDED, outputs_for
from lossmith.errors import ShapeError
from lossmith.kernels.lower import lower
from lossmith.kernels.runtime import Kernel, compile_kernel, sum_rows
from lossmith.language.expr import Expr
from lossmith.language.formula import Formula, Input, Role

if TYPE_CHECKING:
    from lossmith.loss import Loss


@dataclass(frozen=True)
class Result:
    """What a kernel computed, in the shape of the scores."""

    value: Any
    arrays: dict[str, np.ndarray]

    def outputs(self, name: str) -> Any:
        """Return the output of that name; a tuple if there is one for each of several inputs."""
        found = [a for key, a in self.arrays.items() if key == name or key.startswith(f"{name}_")]
        return found[0] if len(found) == 1 else tuple(found)


@dataclass(frozen=True)
class Prepared:
    """A batch in the form that kernels take, and the formula for it."""

    formula: Formula
    key: tuple[Any, ...]
    layout: Layout
    inputs: dict[str, np.ndarray]
    label: np.ndarray | None
    hypers: dict[str, Any]
    weight: np.ndarray | None
    total: float


def stable_names(expr: Expr) -> Expr:
    """Return the expression with softmax, log-sum-exp and sigmoid recognised."""
    return by_rules(expr)


def run(
    loss: Loss, wanted: tuple[str, ...], args: tuple[Any, ...], hyper: dict[str, Any], settings: dict[str, Any], out: Any
) -> Result:
    """Compute the wanted outputs of a batch."""
    reduction = settings["reduction"]
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction is {reduction!r}, expected 'mean', 'sum' or 'none'.")
    arguments, direction = _split_arguments(loss, args, wanted)
    ready = prepare(loss, arguments, hyper, settings)
    inputs = dict(ready.inputs)
    if direction is not None:
        inputs[DIRECTION] = batch.row_input(ready.layout, Input(DIRECTION, Role("targets")), direction)
    kernel = kernel_for(loss, wanted, ready)
    scale = 1.0 if reduction != "mean" else 1.0 / ready.total if ready.total > 0 else 0.0
    arrays = _outputs(kernel.outputs, ready.layout, out)
    kernel.run(inputs, ready.label, ready.hypers, ready.weight, scale, arrays)
    value: Any = None
    if "value" in arrays:
        per_sample = arrays.pop("value")
        value = _reduced(per_sample, reduction, scale, ready.layout)
    return Result(value, {n: _finished(ready.layout, a, out, n) for n, a in arrays.items()})


def _split_arguments(loss: Loss, args: tuple[Any, ...], wanted: tuple[str, ...]) -> tuple[tuple[Any, ...], Any]:
    names = [i.name for i in loss.definition.inputs]
    expected = [*names, DIRECTION] if "hvp" in wanted else names
    if len(args) != len(expected):
        raise TypeError(f"{loss.name} takes {len(expected)} arrays ({', '.join(expected)}), got {len(args)}.")
    return (args[:-1], args[-1]) if "hvp" in wanted else (args, None)


def prepare(loss: Loss, args: tuple[Any, ...], hyper: dict[str, Any], settings: dict[str, Any]) -> Prepared:
    """Check and lay out the arguments, and choose the formula that fits them."""
    definition = loss.definition
    given = dict(zip((i.name for i in definition.inputs), args, strict=True))
    first = definition.of_role("scores")[0].name
    scores = batch.as_floats(first, given[first])
    layout = batch.layout_of(definition, first, scores, settings["axis"])
    label_name = loss.label_name
    weight = batch.sample_weights(layout, settings.get("sample_weight"))
    class_weight = settings.get("class_weight")
    placed = any(h.name == "class_weight" for h in definition.hypers)
    soft = label_name is not None and np.ndim(given[label_name]) == scores.ndim and definition.kind == "row"
    label: np.ndarray | None = None
    total_weight = weight
    if class_weight is not None:
        class_weight = batch.class_weights(layout, class_weight)
        if label_name is None and not placed:
            raise TypeError(f"{loss.name} takes no label, so class_weight has nothing to weigh.")
    if label_name is not None and not soft:
        label, kept = batch.labels(layout, label_name, given[label_name], settings.get("ignore_index"))
        if kept is not None:
            weight = kept.astype(np.float64) if weight is None else weight * kept
        total_weight = weight
        if class_weight is not None:
            of_row = class_weight[label]
            total_weight = of_row if weight is None else weight * of_row
            weight = weight if placed else total_weight
    ndims = {h.name: 1 for h in definition.hypers if h.ndim == 0 and np.ndim(hyper.get(h.name, h.default)) == 1}
    constants = _constants(definition, hyper, ndims)
    weighted = soft and class_weight is not None and not placed
    formula = loss.variant(ndims, soft, weighted, constants)
    values = {**hyper, "class_weight": class_weight} if class_weight is not None else hyper
    hypers = batch.hyperparameters(layout, formula, values)
    if weighted:
        hypers["class_weight"] = np.ascontiguousarray(class_weight, dtype=layout.compute)
    inputs = _row_inputs(formula, layout, first, scores, given)
    total = float(layout.rows) if total_weight is None else sum_rows(total_weight)
    key = (tuple(sorted(ndims)), soft, weighted, tuple(sorted(constants.items())))
    return Prepared(formula, key, layout, inputs, label, hypers, weight, total)


def _constants(definition: Formula, hyper: Mapping[str, Any], ndims: Mapping[str, int]) -> dict[str, float]:
    found: dict[str, float] = {}
    for h in definition.hypers:
        value = hyper.get(h.name, h.default)
        if h.ndim == 0 and h.name not in ndims and value is not None and float(value) in FOLDED:
            found[h.name] = float(value)
    return found


def _row_inputs(
    formula: Formula, layout: Layout, first: str, scores: np.ndarray, given: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    found = {first: layout.flat(scores)}
    for item in formula.inputs:
        if item.name == first:
            batch.check_domain(layout, item, scores)
        elif item.role.kind != "label":
            found[item.name] = batch.row_input(layout, item, given[item.name])
    return found


def kernel_for(loss: Loss, wanted: tuple[str, ...], ready: Prepared) -> Kernel:
    """Return the kernel for these outputs, this variant of the formula and this dtype; compiled once."""
    key = (wanted, ready.key, ready.layout.compute.char)
    kernel = loss._kernels.get(key)  # pyright: ignore[reportPrivateUsage]
    if kernel is None:
        program = lower(outputs_for(ready.formula, wanted), ready.formula)
        kernel = compile_kernel(program, ready.layout.compute)
        loss._kernels[key] = kernel  # pyright: ignore[reportPrivateUsage]
    return kernel


def _outputs(names: tuple[str, ...], layout: Layout, out: Any) -> dict[str, np.ndarray]:
    given = list(out) if isinstance(out, tuple | list) else [out]
    arrays: dict[str, np.ndarray] = {}
    shape = (layout.rows,) if layout.elementwise else (layout.rows, layout.classes)
    for name in names:
        if name == "value":
            arrays[name] = np.empty(layout.rows, dtype=np.float64)
            continue
        target = given.pop(0) if given else None
        if target is None:
            arrays[name] = np.empty(shape, dtype=layout.compute)
            continue
        if not isinstance(target, np.ndarray) or target.shape != layout.shape or target.dtype != layout.dtype:
            raise ShapeError(
                f"out has shape {np.shape(target)} and dtype {getattr(target, 'dtype', None)}, "
                f"expected an array of shape {layout.shape} and dtype {layout.dtype} like the scores."
            )
        direct = layout.dtype == layout.compute and target.flags.c_contiguous and target.flags.writeable
        in_place = direct and (layout.elementwise or layout.axis == len(layout.shape) - 1)
        arrays[name] = target.reshape(shape) if in_place else np.empty(shape, dtype=layout.compute)
    return arrays


def _finished(layout: Layout, array: np.ndarray, out: Any, name: str) -> np.ndarray:
    given = list(out) if isinstance(out, tuple | list) else [out]
    shaped = layout.unflat(array)
    position = 0 if not name[-1].isdigit() else int(name.rsplit("_", 1)[1]) - 1
    target = given[position] if position < len(given) else None
    if target is None:
        return shaped
    if not np.shares_memory(shaped, target):
        target[...] = shaped
    return target


def _reduced(per_sample: np.ndarray, reduction: str, scale: float, layout: Layout) -> Any:
    if reduction == "none":
        shaped = per_sample.astype(layout.dtype).reshape(layout.sample_shape)
        return shaped if shaped.ndim else shaped[()]
    return sum_rows(per_sample) * scale if per_sample.size else 0.0


def source(loss: Loss, backend: str, outputs: tuple[str, ...]) -> str:
    """Return the generated code of a loss for one set of outputs."""
    definition = loss.display_formula()
    program = lower(outputs_for(definition, outputs), definition)
    return compile_kernel(program, np.dtype(np.float32), backend).source
