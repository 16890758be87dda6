"""The exact value of a loss with all of its derivatives, at one sample: what a check compares with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lossmith.check.arithmetic import Arithmetic, Real, context
from lossmith.check.interpreter import Sample, has_nan, ways_to_limit
from lossmith.check.jets import Jet, Jets
from lossmith.check.precision import LEVELS, common_limit, settled
from lossmith.check.sweep import Sweep
from lossmith.language.formula import Formula

Component = tuple[str, int, int | None]
"""An output (value, grad, hessian_diag, hvp), the number of the input, and the class."""


class Exact:
    """Value, gradient, Hessian diagonal and Hessian product of a loss, with so many correct digits.

    Infinite scores are limits, as `Reference(limits=True)` takes them.

    Parameters
    ----------
    formula : Formula
    sample : Sample
    classes : sequence of int or None
        The classes whose derivatives are wanted; None for an elementwise loss.
    direction : sequence, optional
        What the Hessian is multiplied by, for each input in turn.
    digits : int
    """

    def __init__(
        self,
        formula: Formula,
        sample: Sample,
        classes: Sequence[int | None],
        direction: Any = None,
        digits: int = 40,
    ) -> None:
        self.formula, self.sample, self.digits = formula, sample, digits
        self._enough: dict[Component, int] = {}
        self.undefined = has_nan(sample)
        self._zero = context(digits).zero
        self.ways = ways_to_limit(sample)
        self._limit = self.ways[0] is not sample
        self._names = [i.name for i in formula.of_role("scores")]
        self._classes = [0 if k is None else k for k in classes]
        self._direction = direction
        self._levels: dict[tuple[int, int], tuple[Mapping[Component, Real], Arithmetic]] = {}
        # Along each class of each input, and along the direction of each input.
        size = len(self._classes)
        self._slots = [(i, k) for i in range(len(self._names)) for k in self._classes]
        self._pairs = [(d, d) for d in range(len(self._slots))]
        if direction is not None:
            self._pairs += [(d, len(self._slots) + d // size) for d in range(len(self._slots))]

    def value(self, output: str, i: int = 0, k: int | None = None) -> Real:
        """Return a number: an output, of the input number i, at the class k."""
        if self.undefined:
            return context(self.digits).nan
        at = (output, i, 0 if k is None else k) if output != "value" else ("value", 0, None)
        return common_limit([self._on_way(w, at) for w in range(len(self.ways))])

    def near(self, other: Exact, output: str, i: int = 0, k: int | None = None) -> Real:
        """Return a number at a sample close to that of `other`, with the precision that has sufficed there."""
        if self.undefined:
            return context(self.digits).nan
        at = (output, i, 0 if k is None else k) if output != "value" else ("value", 0, None)
        needed = other._enough.get(at, LEVELS[0])
        made = [level for _, level in self._levels if level >= needed]
        level = min(made) if made else max(other._enough.values(), default=LEVELS[-1])
        return common_limit([self._at_level(w, level)[0].get(at, self._zero) for w in range(len(self.ways))])

    def _on_way(self, way: int, at: Component) -> Real:
        def at_digits(level: int) -> tuple[Real, bool]:
            found, arithmetic = self._at_level(way, level)
            self._enough[at] = max(level, self._enough.get(at, 0))
            return found[at], arithmetic.doubts(found[at])

        if at not in self._at_level(way, LEVELS[-1] if self._limit else LEVELS[0])[0]:
            return self._zero  # it does not depend on the input at all
        return settled(at_digits, self.digits, limit=self._limit)

    def _at_level(self, way: int, level: int) -> tuple[Mapping[Component, Real], Arithmetic]:
        if (way, level) not in self._levels:
            jets = Jets(level, self._pairs)
            found = self._components(self._swept(jets, self.ways[way]))
            self._levels[way, level] = found, jets.arithmetic
        return self._levels[way, level]

    def _swept(self, jets: Jets, sample: Sample) -> Jet:
        single = self.formula.kind == "elementwise"
        inputs: dict[str, Jet] = {}
        for name, row in sample.rows.items():
            numbers = np.empty((1,) if single else (1, sample.K), dtype=object)
            numbers[0] = row if single else list(row)
            inputs[name] = (
                jets.seeded(numbers, self._seeds(name, numbers)) if name in self._names else jets.number(numbers)
            )
        label = None if sample.label is None else np.array([sample.label])
        return Sweep(jets, inputs, label, sample.hypers, 1, sample.K).value(self.formula.expr)

    def _seeds(self, name: str, numbers: np.ndarray) -> np.ndarray:
        count = len(self._slots) + (0 if self._direction is None else len(self._names))
        slopes = np.zeros((numbers.size, count), dtype=object)
        i = self._names.index(name)
        for d, (j, k) in enumerate(self._slots):
            if j == i:
                slopes[k, d] = 1
        if self._direction is not None:
            slopes[:, len(self._slots) + i] = np.atleast_1d(self._direction)
        return slopes.reshape(*numbers.shape, count)

    def _components(self, jet: Jet) -> Mapping[Component, Real]:
        """Return the numbers by their names, without derivatives that are zero everywhere."""
        found: dict[Component, Real] = {("value", 0, None): jet.v[0]}
        for d, (i, k) in enumerate(self._slots):
            if jet.f is not None:
                found["grad", i, k] = jet.f[0, d]
            if jet.s is not None:
                found["hessian_diag", i, k] = jet.s[0, d]
                if self._direction is not None:
                    found["hvp", i, k] = jet.s[0, len(self._slots) + d]
        return found
