"""Running a loss over a batch: pick the kernel for these arguments, run it, reduce.

The environment variable LOSSMITH_BACKEND names the kernels that run: "numba", "numpy" or "auto" (Numba where it can be
imported), which is the default. It is read at every call; tests compare the back ends by it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, cast

import numpy as np

import lossmith.batch as batch  # `from lossmith import` would ask the package, and load the catalogue
from lossmith.batch import Layout
from lossmith.kernels.programs import program_for
from lossmith.kernels.rowprogram import RowProgram
from lossmith.kernels.runtime import Backend, Kernel, compile_kernel
from lossmith.language.formula import DIRECTION, Formula, Input, Role
from lossmith.plan import BACKEND, KEPT, WEIGHTS, Plan, factor, reduced, settles, signature
from lossmith.preparation import Loss, Prepared, Rows, places_weights, prepare, rows_of

VALUES = 1 << 15
"""Of so many rows the value of each is kept in memory; of more, one sum for many rows."""


@dataclass(frozen=True)
class Result:
    """What a kernel computed, in the shape of the scores."""

    value: Any
    arrays: dict[str, np.ndarray]

    def in_order(self, wanted: tuple[str, ...]) -> tuple[Any, ...]:
        """Return what was wanted, in that order."""
        return tuple(self.value if name == "value" else self._output(name) for name in wanted)

    def _output(self, name: str) -> Any:
        found = [a for key, a in self.arrays.items() if key == name or key.startswith(f"{name}_")]
        return found[0] if len(found) == 1 else tuple(found)


def backend() -> Backend:
    """Return the back end that LOSSMITH_BACKEND asks for."""
    name = os.environ.get(BACKEND, "auto")
    if name not in ("auto", "numba", "numpy"):
        raise ValueError(f"the environment variable {BACKEND} is {name!r}, expected 'auto', 'numba' or 'numpy'.")
    return name


def run(loss: Loss, wanted: tuple[str, ...], args: tuple[Any, ...], options: dict[str, Any], out: Any) -> Any:
    """Compute the wanted outputs of a batch: a tuple of them, each a tuple itself if there are several inputs.

    "low_rank" is the parts of each sample's Hessian by their names, classes last.
    """
    if wanted == ("low_rank",):  # the diagonal of the sum cancels (p − p²), the diagonal by itself does not
        return (_run(loss, ("low_rank", "hessian_diag"), args, options, out, None).arrays,)
    key = signature(wanted, args, options)
    plan = loss._plans.get(key)  # pyright: ignore[reportPrivateUsage]
    if plan is not None:
        found = plan.run(args, options, out)
        if found is not None:
            return found
    return _run(loss, wanted, args, options, out, key).in_order(wanted)


def _run(
    loss: Loss, wanted: tuple[str, ...], args: tuple[Any, ...], options: dict[str, Any], out: Any, key: Any
) -> Result:
    hyper, settings = loss.arguments(options)
    reduction = settings["reduction"]
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction is {reduction!r}, expected 'mean', 'sum' or 'none'.")
    arguments, direction = _split_arguments(loss, args, wanted)
    ready = prepare(loss, arguments, hyper, settings)
    if direction is not None:
        ready.inputs[DIRECTION] = batch.row_input(ready.layout, Input(DIRECTION, Role("targets")), direction)
    names = _names(loss, wanted)
    targets = batch.outputs(ready.layout, names, out) if names else {}
    kernel = kernel_for(loss, wanted, ready)
    if key is not None:
        _keep_plan(loss, key, args, options, settings, ready, kernel)
    dtype = ready.layout.compute if "low_rank" in wanted else ready.layout.stored
    arrays = _outputs(kernel, ready.layout, targets, dtype)
    value: Any = None
    if "low_rank" in wanted:  # classes last and unrounded, whatever the scores are: these are not shaped like them
        _run_low_rank(kernel, ready, factor(reduction, ready.total), arrays)
        shape = (*ready.layout.sample_shape, ready.layout.classes)
        return Result(None, {n: a.reshape(shape) for n, a in arrays.items()})
    value = _call(kernel, ready, reduction, arrays, "value" in wanted, zeroed=not targets)
    return Result(value, {n: _finished(ready.layout, a, targets.get(n)) for n, a in arrays.items()})


def _keep_plan(
    loss: Loss,
    key: Any,
    args: tuple[Any, ...],
    options: dict[str, Any],
    settings: dict[str, Any],
    ready: Prepared,
    kernel: Kernel,
) -> None:
    """Keep what has been found out for the next call of this kind, if it is a plain one."""
    layout, program = ready.layout, kernel.program
    names = [*(i.name for i in loss.definition.inputs), DIRECTION]
    given = dict(zip(names, args, strict=False))
    floats = [given[name] for name in program.inputs]
    plain = (
        all(settings.get(name) is options.get(name) for name in WEIGHTS)  # weights of bind are not looked at again
        and layout.rows > 0
        and layout.classes_last
        and all(p.ndim == 0 or (p.name == "class_weight" and not ready.variant.soft) for p in program.params)
        and all(a.dtype == layout.compute == layout.dtype and a.shape == layout.shape for a in floats)
        and settings.get("precision", "fast") == "fast"
    )
    if not plain:
        return
    label = names.index(program.labels[0]) if program.labels else -1
    placed = places_weights(loss)
    weighed = any(settings.get(name) is not None for name in (*WEIGHTS, "ignore_index"))
    target = names.index(loss.label_name) if loss.label_name else -1  # labels, or distributions in their place

    def weigh(args: tuple[Any, ...], options: dict[str, Any]) -> Rows:
        given = args[target] if target >= 0 else None
        return rows_of(loss, layout, given, {**settings, **options}, placed)

    inputs = [(names.index(item.name), item) for item in ready.variant.inputs]

    def inspect(args: tuple[Any, ...], weight: np.ndarray | None) -> None:
        for at, item in inputs:
            if item.role.kind != "label":
                batch.check_domain(layout, item, args[at], weight)

    checks: list[tuple[int, batch.Check]] = []
    watched: list[tuple[int, batch.Check]] = []
    for at, item in inputs:
        dtype = given[item.name].dtype
        if item.role.kind == "label":
            checks += [] if weighed else [(at, batch.label_check(layout.classes, dtype))]
        elif item.role.domain != "real":
            check = at, batch.domain_check(item.role.domain, dtype)
            watched.append(check) if item.name in kernel.watched else checks.append(check)
    valued = "value" in kernel.outputs
    each = _rows_per_sum(kernel, layout, settings["reduction"]) if valued else 1
    plans = loss._plans  # pyright: ignore[reportPrivateUsage]
    if len(plans) >= KEPT:
        plans.clear()
    plans[key] = Plan(
        call=cache(partial(kernel.straight, layout.rows, layout.classes, each)),
        weigh=weigh if weighed else None,
        each=each,
        sums=-(-layout.rows // each) if valued else 0,
        order=tuple(names.index(n) for n in (*program.inputs, *program.labels)),
        label=label,
        checks=tuple(checks),
        watched=tuple(watched),
        inspect=inspect,
        params=tuple(None if p.ndim else kernel.compute.type(ready.hypers[p.name]) for p in program.params),
        scale=factor(settings["reduction"], layout.rows),
        divisor=float(layout.rows),
        layout=layout,
        flat_shape=None if layout.flat_shape == layout.shape else layout.flat_shape,
        reduction=settings["reduction"],
        makers=tuple(_maker(kernel, name) for name in kernel.outputs if name != "value"),
        inputs=len(loss.definition.of_role("scores")),
    )


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


def kernel_for(loss: Loss, wanted: tuple[str, ...], ready: Prepared) -> Kernel:
    """Return the kernel for these outputs, this variant of the formula, dtype and back end; compiled once."""
    layout = ready.layout
    key = (wanted, ready.key, layout.compute.char, layout.doubled, backend())
    kernel = loss._kernels.get(key)  # pyright: ignore[reportPrivateUsage]
    if kernel is None:
        program = program_for(ready.variant.base, (*wanted, repr(ready.key)), lambda: _derived(ready.formula, wanted))
        made = compile_kernel(program, layout.compute, key[-1], layout.doubled)
        # Threads that come here together must end with one kernel: it is compiled once, at its first run.
        kernel = loss._kernels.setdefault(key, made)  # pyright: ignore[reportPrivateUsage]
    return kernel


def _derived(formula: Formula, wanted: tuple[str, ...]) -> RowProgram:
    # Where the program is on disk, none of what derives it is loaded.
    from lossmith.compiler import outputs_for
    from lossmith.kernels.lower import lower

    return lower(outputs_for(formula, wanted), formula)


# ------------------------------------------------------------------ what comes out


def _outputs(
    kernel: Kernel, layout: Layout, targets: Mapping[str, np.ndarray], dtype: np.dtype[Any]
) -> dict[str, np.ndarray]:
    """Return the arrays that the kernel writes: the user's own where it can write to them as they are."""
    arrays: dict[str, np.ndarray] = {}
    for name in kernel.outputs:
        if name == "value":
            continue
        target = targets.get(name)
        direct = target is not None and layout.dtype == dtype and target.flags.c_contiguous
        if direct and layout.classes_last:
            assert target is not None
            arrays[name] = target.reshape(layout.flat_shape)
        else:
            arrays[name] = _maker(kernel, name)(layout.flat_shape, dtype)
    return arrays


def _maker(kernel: Kernel, name: str) -> Callable[..., np.ndarray]:
    """Return what makes an array for an output: of zeros, which cost nothing where they are not written, or not."""
    return np.zeros if name in kernel.blank else np.empty


def _rows_per_sum(kernel: Kernel, layout: Layout, reduction: str) -> int:
    """Return how many values are summed before anything is written of them: 1 for small batches."""
    return 1 if reduction == "none" or layout.rows <= VALUES else kernel.rows_per_sum(layout.classes)


def _call(
    kernel: Kernel, ready: Prepared, reduction: str, arrays: dict[str, np.ndarray], valued: bool, zeroed: bool
) -> Any:
    """Run the kernel, and return the value if it is wanted; `zeroed` arrays are as `_maker` made them."""
    layout, weight, label, overwrites = ready.layout, ready.weight, ready.label, False
    if arrays:
        if weight is not None and any(np.may_share_memory(weight, a) for a in arrays.values()):
            weight = weight.copy()  # the user's `out` is the user's sample_weight
        if label is not None and any(np.may_share_memory(label, a) for a in arrays.values()):
            label = label.copy()
        overwrites = any(np.may_share_memory(i, a) for i in ready.inputs.values() for a in arrays.values())
    scale = factor(reduction, ready.total)
    if not valued:
        kernel.run(ready.inputs, label, ready.hypers, weight, scale, arrays, zeroed=zeroed)
        return None
    if _rows_per_sum(kernel, layout, reduction) > 1:
        total = kernel.total(ready.inputs, label, ready.hypers, weight, scale, arrays, zeroed=zeroed)
        if overwrites or settles(total, reduction, layout, weight is not None):
            return total if reduction == "sum" else total / ready.total if ready.total else 0.0
    # Of few rows, or where a sum overflowed and the mean may not, the value of each.
    values = np.empty(layout.rows)
    kernel.run(ready.inputs, label, ready.hypers, weight, scale, {**arrays, "value": values}, zeroed=zeroed)
    return reduced(values, reduction, ready.total, layout)


def _run_low_rank(kernel: Kernel, ready: Prepared, scale: float, arrays: dict[str, np.ndarray]) -> None:
    """Run the kernel so that of a product u·v one factor only takes the weight."""
    weight = ready.weight
    mask = None if weight is None else (weight != 0).astype(np.float64)  # it wipes out the rows of weight 0
    kernel.run(ready.inputs, ready.label, ready.hypers, mask, 1.0, arrays)
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


def source(loss: Loss, backend: str, outputs: tuple[str, ...]) -> str:
    """Return the generated code of a loss for one set of outputs."""
    definition = loss.display_formula()
    return compile_kernel(_derived(definition, outputs), np.dtype(np.float32), cast(Backend, backend)).source


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
        program = program_for(formula, ("function", what), lambda: _derived_function(formula, {"out": what}))
        made = compile_kernel(program, layout.compute, key[-1])
        kernels.setdefault(key, made)
    out = np.empty(layout.flat_shape, dtype=layout.compute)
    kernels[key].run(inputs, None, batch.hyperparameters(layout, formula.hypers, hyper), None, 1.0, {"out": out})
    return layout.unflat(out)


def function_source(formula: Formula, backend_name: str, outputs: tuple[str, ...]) -> str:
    """Return the generated code of a vector function for any of value, jvp and vjp."""
    program = _derived_function(formula, {what: what for what in outputs})
    return compile_kernel(program, np.dtype(np.float32), cast(Backend, backend_name)).source


def _derived_function(formula: Formula, named: Mapping[str, str]) -> RowProgram:
    from lossmith.compiler import function_output
    from lossmith.kernels.lower import lower

    return lower(tuple(function_output(formula, what, name) for name, what in named.items()), formula)
