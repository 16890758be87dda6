"""What is checked: the definition, kernels and derived formulas of a loss, each replaceable."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lossmith import compiler, evaluation
from lossmith.check.arithmetic import Real
from lossmith.check.floats import Naive
from lossmith.check.interpreter import Reference, Sample, evaluate_adaptive
from lossmith.check.ledger import PYTORCH, TEXTBOOK
from lossmith.check.mparray import definition_value
from lossmith.check.pytorch import Autograd, has_torch
from lossmith.kernels.lower import lower
from lossmith.kernels.runtime import compile_kernel, has_numba
from lossmith.language.build import mul, reduce_, substitute
from lossmith.language.expr import Entry, Expr, Label, fresh
from lossmith.language.formula import Formula, Hyperparameter, Input, Role

if TYPE_CHECKING:
    from lossmith.loss import Loss

TOGETHER = (("value", "grad"), ("hessian_diag",), ("hvp",))
"""The outputs that one kernel computes."""

Kernels: TypeAlias = Callable[..., Mapping[str, tuple[np.ndarray, ...]]]
"""(outputs, arrays, hypers) -> for each output one array per differentiable input; one value."""
Side: TypeAlias = Callable[..., Mapping[str, tuple[np.ndarray, ...]]]


class NotCompiled(Exception):
    """There was no time to compile a kernel."""


@dataclass(frozen=True)
class Subject:
    """A loss to be checked.

    Attributes
    ----------
    formula : Formula
        The definition. Its `function`, where it has one, is what values are compared with.
    hypers : mapping
        The values of the hyperparameters that are set; others get their defaults.
    kernels : mapping
        Of each back end: what computes batches.
    gradient, hessian_diag : callable
        Of the name of an input: the derived formula, at the free index j for a row loss.
    sides : mapping
        Of others who compute the same, whose digits are stated: (dtype, inputs, label, hypers, K) -> as kernels.
    expected : Formula, optional
        What kernels are made from, where that is not the definition: the compiler's own form of an expected loss.
    """

    formula: Formula
    hypers: Mapping[str, Any]
    kernels: Mapping[str, Kernels]
    gradient: Callable[[str], Expr]
    hessian_diag: Callable[[str], Expr]
    sides: Mapping[str, Side] = field(default_factory=dict[str, Side])
    expected: Formula | None = None

    @property
    def compiled(self) -> Formula:
        """The formula as the compiler takes it."""
        return self.expected or self.formula

    def hypers_for(self, K: int) -> dict[str, Any]:
        """Return a value for every hyperparameter; without a default, an array of K or a number."""
        return {h.name: self._hyper(h, K) for h in self.formula.hypers}

    def _hyper(self, hyper: Hyperparameter, K: int) -> Any:
        value = self.hypers.get(hyper.name, hyper.default)
        if value is None:
            return np.linspace(0.5, 2.0, K) if hyper.ndim else 1.5
        return value

    @property
    def fixed_size(self) -> int | None:
        """The number of classes, where an array with one number per class decides it."""
        values = (self._hyper(h, 0) for h in self.formula.hypers)
        lengths = [len(v) for v in values if np.ndim(v) == 1 and len(v)]
        return lengths[0] if lengths else None

    def value(self, sample: Sample) -> Real:
        """Return the exact value: from the function where there is one, else from the formula."""
        if self.formula.function is None:
            return Reference(sample, 40, limits=True).value(self.formula.expr)
        return definition_value(self.formula.function, self.formula, sample, 30, limits=True)


def subject_of(loss: Loss, patience: float = math.inf) -> Subject:
    """Return what is checked of a loss, with what the textbook formulas and PyTorch make of it.

    Once compiling Numba kernels has taken `patience` seconds, those that are left are not compiled.
    """
    formula = loss.definition
    sides: dict[str, Side] = {TEXTBOOK: Naive(formula).run}
    if has_torch():
        sides[PYTORCH] = Autograd(formula).run
    return replace(_subject(loss, formula, patience), sides=sides)


def soft_subject_of(loss: Loss, patience: float = math.inf) -> Subject:
    """Return what is checked of a loss with a distribution in the place of its label."""
    formula = loss.definition
    (label,) = formula.of_role("label")
    i = fresh("i")
    # The expectation as it is defined, not as the compiler writes it.
    at_class = substitute(formula.expr, {Label(label.name): i})
    expected = reduce_("sum", i, mul(Entry(label.name, i), at_class))
    soft = Input(label.name, Role("targets", "simplex"))
    inputs = tuple(soft if item is label else item for item in formula.inputs)
    name = f"{formula.name}, soft label"
    defined = replace(formula, name=name, expr=expected, inputs=inputs, function=None)
    compiled = compiler.with_soft_label(formula)
    return replace(_subject(loss, compiled, patience), formula=defined, expected=compiled)


def _subject(loss: Loss, formula: Formula, patience: float) -> Subject:
    kernels: dict[str, Kernels] = {}
    programs: dict[Any, Any] = {}
    if has_numba() and evaluation.backend() != "numpy":
        kernels["numba"] = _kernels(loss, "numba", patience, programs)
    kernels["numpy"] = _kernels(loss, "numpy", math.inf, programs)
    return Subject(
        formula,
        loss._defaults,  # pyright: ignore[reportPrivateUsage]
        kernels,
        lambda name: compiler.gradient(formula, name).result,
        lambda name: compiler.hessian_diagonal(formula, name),
    )


def _kernels(loss: Loss, backend: Any, patience: float, programs: dict[Any, Any]) -> Kernels:
    """Return what computes batches with the kernels of a back end; all back ends share the row programs."""
    made: dict[Any, Any] = {}
    spent = 0.0

    def run(outputs: tuple[str, ...], arrays: list[np.ndarray], hypers: Mapping[str, Any]) -> Any:
        nonlocal spent
        inputs, direction = (arrays[:-1], arrays[-1]) if "hvp" in outputs else (arrays, None)
        ready = evaluation.prepare(loss, tuple(inputs), dict(hypers), {"axis": -1})
        key = (outputs, ready.key, ready.layout.compute.char)
        start = time.perf_counter()
        new = key not in made
        if new:
            if spent > patience:
                raise NotCompiled(backend)
            for_all = (outputs, ready.key)
            if for_all not in programs:
                programs[for_all] = lower(compiler.outputs_for(ready.formula, outputs), ready.formula)
            made[key] = compile_kernel(programs[for_all], ready.layout.compute, backend)
        kernel = made[key]
        shape = next(iter(ready.inputs.values())).shape
        found: dict[str, np.ndarray] = {}
        for name in kernel.outputs:
            single = name == "value"
            found[name] = np.empty(shape[0] if single else shape, "d" if single else kernel.compute)
        rows = dict(ready.inputs)
        if direction is not None:
            rows[compiler.DIRECTION] = direction
        kernel.run(rows, ready.label, ready.hypers, ready.weight, 1.0, found)
        spent += (time.perf_counter() - start) * new  # the first run compiles
        # Per-sample values leave the house in the dtype of the scores.
        arrays_of = {n: a.astype(kernel.compute, copy=False) for n, a in found.items()}
        return {o: tuple(a for n, a in arrays_of.items() if n.startswith(o)) for o in outputs}

    return run


def other_value(against: Any, formula: Formula, sample: Sample) -> Real:
    """Return the value that a second definition gives: a Loss, a formula as text, or a function.

    It gets the inputs by position and, of the hyperparameters, those that it names.
    """
    from lossmith.losses import resolve_loss

    if callable(against) and not hasattr(against, "definition"):
        named = {h.name for h in formula.hypers} & set(inspect.signature(against).parameters)
        trimmed = Formula(
            formula.name,
            formula.kind,
            formula.expr,
            formula.inputs,
            tuple(h for h in formula.hypers if h.name in named),
        )
        return definition_value(against, trimmed, sample)
    other = resolve_loss(against)
    renamed = dict(zip((i.name for i in other.definition.inputs), formula.inputs, strict=False))
    rows = {n: sample.rows[i.name] for n, i in renamed.items() if i.name in sample.rows}
    hypers = {h.name: h.default for h in other.definition.hypers} | dict(sample.hypers)
    return evaluate_adaptive(other.definition.expr, Sample(rows, sample.label, hypers, sample.K))
