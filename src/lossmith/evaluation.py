"""Running a loss over a batch: pick the kernel for these arguments, run it, reduce.

The environment variable LOSSMITH_BACKEND names the kernels that run: "numba", "numpy" or "auto" (Numba where it can be
imported), which is the default. It is read at every call; tests compare the back ends by it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np

from lossmith import batch
from lossmith.batch import Layout
from lossmith.compiler import DIRECTION, FOLDED, function_output, outputs_for
from lossmith.errors import ShapeError, UnsupportedError
from lossmith.kernels.lower import lower
from lossmith.kernels.programs import program_for
from lossmith.kernels.runtime import Backend, Kernel, compile_kernel, sum_rows
from lossmith.language.formula import Formula, Input, Role

BACKEND = "LOSSMITH_BACKEND"
_SAFE = (2.0**-900, 2.0**900)
"""Weights whose largest lies between these have a sum, and an inverse of it, that float64 can hold."""


class Loss(Protocol):
    """What is asked of a loss here; `lossmith.Loss` has all of it."""

    _kernels: dict[Any, Any]

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def definition(self) -> Formula: ...
    @property
    def label_name(self) -> str | None: ...

    def variant(
        self,
        ndims: Mapping[str, int],
        soft: bool,
        weighted: bool,
        constants: Mapping[str, float],
        positive: frozenset[str],
    ) -> Formula: ...

    def display_formula(self) -> Formula: ...


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


@dataclass(frozen=True)
class _Rows:
    """Labels and weights: which rows count, and how much."""

    label: np.ndarray | None
    soft: bool
    class_weight: np.ndarray | None
    weight: np.ndarray | None
    total: float
    counted: np.ndarray | None


def backend() -> Backend:
    """Return the back end that LOSSMITH_BACKEND asks for."""
    name = os.environ.get(BACKEND, "auto")
    if name not in ("auto", "numba", "numpy"):
        raise ValueError(f"the environment variable {BACKEND} is {name!r}, expected 'auto', 'numba' or 'numpy'.")
    return name


def run(
    loss: Loss,
    wanted: tuple[str, ...],
    args: tuple[Any, ...],
    hyper: dict[str, Any],
    settings: dict[str, Any],
    out: Any,
) -> Result:
    """Compute the wanted outputs of a batch."""
    reduction = settings["reduction"]
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction is {reduction!r}, expected 'mean', 'sum' or 'none'.")
    if wanted == ("low_rank",):  # the diagonal of the sum cancels (p − p²), the diagonal by itself does not
        wanted = ("low_rank", "hessian_diag")
    arguments, direction = _split_arguments(loss, args, wanted)
    ready = prepare(loss, arguments, hyper, settings)
    inputs = dict(ready.inputs)
    if direction is not None:
        inputs[DIRECTION] = batch.row_input(ready.layout, Input(DIRECTION, Role("targets")), direction)
    names = _names(loss, wanted)
    targets = batch.outputs(ready.layout, names, out) if names else {}
    kernel = kernel_for(loss, wanted, ready)
    scale = 1.0 if reduction != "mean" else 1.0 / ready.total if ready.total > 0 else 0.0
    arrays = _outputs(kernel, ready.layout, targets)
    _call(kernel, ready, inputs, scale, arrays, "low_rank" in wanted)
    value: Any = None
    if "value" in arrays:
        value = _reduced(arrays.pop("value"), reduction, ready.total, ready.layout)
    if "low_rank" in wanted:  # classes last and unrounded, whatever the scores are: these are not shaped like them
        shape = (*ready.layout.sample_shape, ready.layout.classes)
        return Result(value, {n: a.reshape(shape) for n, a in arrays.items()})
    return Result(value, {n: _finished(ready.layout, a, targets.get(n)) for n, a in arrays.items()})


def _split_arguments(loss: Loss, args: tuple[Any, ...], wanted: tuple[str, ...]) -> tuple[tuple[Any, ...], Any]:
    names = [i.name for i in loss.definition.inputs]
    expected = [*names, DIRECTION] if "hvp" in wanted else names
    if len(args) != len(expected):
        arrays = "1 array" if len(expected) == 1 else f"{len(expected)} arrays"
        raise TypeError(f"{loss.name} takes {arrays} ({', '.join(expected)}), got {len(args)}.")
    return (args[:-1], args[-1]) if "hvp" in wanted else (args, None)


def _names(loss: Loss, wanted: tuple[str, ...]) -> list[str]:
    """Return the names of the arrays that come back, in their order."""
    count = len(loss.definition.of_role("scores"))
    outputs = [o for o in wanted if o not in ("value", "low_rank")]
    return [o if k == 0 else f"{o}_{k + 1}" for o in outputs for k in range(count)]


# ------------------------------------------------------------------ what comes in


def prepare(loss: Loss, args: tuple[Any, ...], hyper: dict[str, Any], settings: dict[str, Any]) -> Prepared:
    """Check and lay out the arguments, and choose the formula that fits them."""
    definition = loss.definition
    hyper = {n: v for n, v in hyper.items() if v is not None}  # None means the default
    given = dict(zip((i.name for i in definition.inputs), args, strict=True))
    first = definition.of_role("scores")[0].name
    scores = batch.as_floats(first, given[first])
    layout = batch.layout_of(definition, first, scores, settings["axis"])
    if settings.get("precision", "fast") != "fast":
        layout = replace(layout, compute=_exact_dtype(layout, settings["precision"]))
    placed = any(h.name == "class_weight" for h in definition.hypers)
    rows = _rows(loss, layout, given, settings, placed)
    ndims = {h.name: 1 for h in definition.hypers if h.ndim == 0 and np.ndim(hyper.get(h.name, h.default)) == 1}
    constants = _constants(definition, hyper, ndims)
    positive = _positive(definition, hyper, ndims, constants)
    weighted = rows.soft and rows.class_weight is not None and not placed
    formula = loss.variant(ndims, rows.soft, weighted, constants, positive)
    if formula.kind != loss.kind:
        name = min(ndims)
        shape = np.shape(hyper.get(name, 0))
        raise ShapeError(f"{name} has shape {shape}, expected one number for {loss.name}.")
    values = hyper if rows.class_weight is None else {**hyper, "class_weight": rows.class_weight}
    hypers = batch.hyperparameters(layout, formula, values)
    if weighted:
        hypers["class_weight"] = np.ascontiguousarray(rows.class_weight, dtype=layout.compute)
    inputs = _row_inputs(formula, layout, first, scores, given, rows.counted)
    key = (tuple(sorted(ndims)), rows.soft, weighted, tuple(sorted(constants.items())), positive)
    return Prepared(formula, key, layout, inputs, rows.label, hypers, rows.weight, rows.total)


def _exact_dtype(layout: Layout, precision: str) -> np.dtype[Any]:
    """Return the wider dtype that precision="exact" computes in: float64, or the 80-bit float for float64."""
    if precision != "exact":
        raise ValueError(f"precision is {precision!r}, expected 'fast' or 'exact'.")
    if layout.compute.itemsize <= 4:
        return np.dtype(np.float64)
    if np.finfo(np.longdouble).eps > 2.0**-63:
        raise UnsupportedError("precision='exact' for float64 needs a processor with 80-bit floats, as x86-64 has.")
    return np.dtype(np.longdouble)


def _rows(loss: Loss, layout: Layout, given: Mapping[str, Any], settings: Mapping[str, Any], placed: bool) -> _Rows:
    """Return labels and weights; with `placed` class weights the definition multiplies by them itself."""
    name, ignored = loss.label_name, settings.get("ignore_index")
    soft = name is not None and loss.kind == "row" and batch.shape_of(name, given[name]) == layout.shape
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
    counted = None if weight is None or weight.all() else weight != 0
    if name is not None and not soft:
        label, counted = batch.labels(layout, name, given[name], ignored, counted)
    if ignored is not None and counted is not None:
        weight = np.where(counted, 1.0 if weight is None else weight, 0.0)
    if settings.get("reduction") == "mean" and weight is not None:
        weight = _in_range(weight)
    total_weight = weight
    if label is not None and class_weight is not None:
        total_weight = class_weight[label] if weight is None else weight * class_weight[label]
        weight = weight if placed else total_weight
    total = float(layout.rows) if total_weight is None else sum_rows(total_weight)
    return _Rows(label, soft, class_weight, weight, total, counted)


def _in_range(weight: np.ndarray) -> np.ndarray:
    """Return the weights, multiplied by a power of two if their sum or its inverse would be infinite."""
    largest = float(weight.max(initial=0.0))
    if largest == 0.0 or _SAFE[0] < largest < _SAFE[1]:
        return weight
    return np.ldexp(weight, -math.frexp(largest)[1])


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
    formula: Formula,
    layout: Layout,
    first: str,
    scores: np.ndarray,
    given: Mapping[str, Any],
    counted: np.ndarray | None,
) -> dict[str, np.ndarray]:
    found = {first: layout.flat(scores)}
    for item in formula.inputs:
        if item.name == first:
            batch.check_domain(layout, item, scores, counted)
        elif item.role.kind != "label":
            found[item.name] = batch.row_input(layout, item, given[item.name], counted)
    return found


def kernel_for(loss: Loss, wanted: tuple[str, ...], ready: Prepared) -> Kernel:
    """Return the kernel for these outputs, this variant of the formula, dtype and back end; compiled once."""
    # Numba knows no 80-bit floats; NumPy computes with them.
    wide = ready.layout.compute.itemsize > 8
    key = (wanted, ready.key, ready.layout.compute.char, "numpy" if wide else backend())
    kernel = loss._kernels.get(key)  # pyright: ignore[reportPrivateUsage]
    if kernel is None:
        program = program_for(ready.formula, wanted, lambda: outputs_for(ready.formula, wanted))
        made = compile_kernel(program, ready.layout.compute, key[-1])
        # Threads that come here together must end with one kernel: it is compiled once, at its first run.
        kernel = loss._kernels.setdefault(key, made)  # pyright: ignore[reportPrivateUsage]
    return kernel


# ------------------------------------------------------------------ what comes out


def _outputs(kernel: Kernel, layout: Layout, targets: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays that the kernel writes: the user's own where it can write to them as they are."""
    arrays: dict[str, np.ndarray] = {}
    for name in kernel.outputs:
        if name == "value":
            arrays[name] = np.empty(layout.rows, dtype=np.float64)
            continue
        target = targets.get(name)
        direct = target is not None and layout.dtype == layout.compute and target.flags.c_contiguous
        if direct and (layout.elementwise or layout.axis == len(layout.shape) - 1):
            assert target is not None
            arrays[name] = target.reshape(layout.flat_shape)
        else:
            arrays[name] = np.empty(layout.flat_shape, dtype=layout.compute)
    return arrays


def _call(
    kernel: Kernel,
    ready: Prepared,
    inputs: dict[str, np.ndarray],
    scale: float,
    arrays: dict[str, np.ndarray],
    low_rank: bool,
) -> None:
    weight = ready.weight
    if weight is not None and any(np.may_share_memory(weight, a) for a in arrays.values()):
        weight = weight.copy()  # the user's `out` is the user's sample_weight
    if not low_rank:
        kernel.run(inputs, ready.label, ready.hypers, weight, scale, arrays)
        return
    # Of a product u·v one factor only takes the weight; the kernel is there to wipe out the rows of weight 0.
    mask = None if weight is None else (weight != 0).astype(np.float64)
    kernel.run(inputs, ready.label, ready.hypers, mask, 1.0, arrays)
    factor = scale if weight is None else (weight * scale).reshape(-1, 1)
    for name, array in arrays.items():
        if not name.startswith("v_"):
            with np.errstate(invalid="ignore"):  # 0·∞ of a row of weight 0 does not come up: its entries are 0
                array[...] = array * np.asarray(factor).astype(ready.layout.compute)


def _finished(layout: Layout, array: np.ndarray, target: np.ndarray | None) -> np.ndarray:
    if target is None:
        return layout.unflat(array)
    if not np.shares_memory(array, target):
        target[...] = layout.unflat(array)
    return target


def _reduced(per_sample: np.ndarray, reduction: str, total_weight: float, layout: Layout) -> Any:
    if reduction == "none":
        shaped = layout.rounded(per_sample).reshape(layout.sample_shape)
        return shaped if shaped.ndim else shaped[()]
    total = sum_rows(per_sample)
    if reduction == "sum":
        return total
    if math.isinf(total) and np.isfinite(per_sample).all():  # the sum overflowed, the mean may not
        return sum_rows(per_sample / total_weight)
    return total / total_weight if total_weight else 0.0


def source(loss: Loss, backend: str, outputs: tuple[str, ...]) -> str:
    """Return the generated code of a loss for one set of outputs."""
    definition = loss.display_formula()
    program = lower(outputs_for(definition, outputs), definition)
    return compile_kernel(program, np.dtype(np.float32), cast(Backend, backend)).source


# ------------------------------------------------------------------ vector functions


def run_function(
    formula: Formula, kernels: dict[Any, Any], what: str, x: Any, v: Any, hyper: dict[str, Any]
) -> np.ndarray:
    """Compute the value, jvp or vjp of a vector function along the last axis of x."""
    (item,) = formula.of_role("scores")
    array = batch.as_floats(item.name, x)
    layout = batch.layout_of(formula, item.name, array, -1)
    inputs = {item.name: layout.flat(array)}
    if v is not None:
        inputs[DIRECTION] = batch.row_input(layout, Input(DIRECTION, Role("targets")), v)
    key = (what, layout.compute.char, backend())
    if key not in kernels:
        program = program_for(formula, ("function", what), lambda: (function_output(formula, what),))
        made = compile_kernel(program, layout.compute, key[-1])
        kernels.setdefault(key, made)
    out = np.empty(layout.flat_shape, dtype=layout.compute)
    kernels[key].run(inputs, None, batch.hyperparameters(layout, formula, hyper), None, 1.0, {"out": out})
    return layout.unflat(out)


def function_source(formula: Formula, backend_name: str, outputs: tuple[str, ...]) -> str:
    """Return the generated code of a vector function for any of value, jvp and vjp."""
    program = lower(tuple(function_output(formula, what, what) for what in outputs), formula)
    return compile_kernel(program, np.dtype(np.float32), cast(Backend, backend_name)).source
