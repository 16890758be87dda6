"""The right-hand sides of the rules that stabilise, computed in floats: none is off by more than its rule says.

Arguments are 0, subnormal, smallest normal, 1, 37, 88, 710, 1000, huge and infinite, of both signs, for every
metavariable, in float32 and float64. An error is stated in the unit that is one ulp of the exact value plus what
it changes by where each argument is the next float: where the value itself crosses 0, no algorithm gets all digits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest

from calculus.test_rules import metavariables, read_example
from lossmith.calculus.equals import EQUALS_RULES
from lossmith.calculus.magnitudes import MAGNITUDE_RULES
from lossmith.calculus.means import MEAN_RULES
from lossmith.calculus.patterns import ROW, fill
from lossmith.calculus.rules import Rule, rewriting
from lossmith.calculus.stabilize import stabilize
from lossmith.calculus.stable_rules import STABLE_RULES
from lossmith.calculus.statements import parse_statement
from lossmith.check.interpreter import Sample, evaluate
from lossmith.check.ulp import ulp_error, unit_in_last_place
from lossmith.kernels.lower import lower
from lossmith.kernels.rowprogram import Output
from lossmith.kernels.runtime import compile_kernel
from lossmith.language.build import reduce_, substitute
from lossmith.language.expr import Entry, Expr, Fixed, Label, fresh, named
from lossmith.language.formula import Formula, Input, Role

DTYPES = ("float32", "float64")
K = 3
MOST = 120
"""How many arguments of a rule are tried; of more, a sample that is always the same."""
DIGITS = 700  # beside 1, what exp(−710) adds is 308 digits further down


def sizes(dtype: str) -> list[float]:
    info = np.finfo(dtype)
    return [0.0, float(info.smallest_subnormal), float(info.tiny), 1e-8, 0.5, 1.0, 37.0, 88.0, 710.0, 1e3,
            float(info.max) / 8, math.inf]  # fmt: skip


def space(domain: str, dtype: str) -> list[float]:
    """Return the values of a metavariable."""
    found = sizes(dtype)
    match domain:
        case "finite":
            return [x for x in (*found, *(-x for x in found)) if math.isfinite(x)]
        case "negative whole":
            return [-1.0, -2.0, -3.0]
        case "positive" | "nonnegative":
            return found[domain == "positive" :]
        case "negative":
            return [-x for x in found[1:]]
        case "unit" | "open unit":
            least, most = (0, 6) if domain == "unit" else (1, 5)
            return [*found[least:most], 1 - float(np.finfo(dtype).epsneg)]
        case _:
            return [*found, *(-x for x in found)]


def rows(dtype: str) -> list[tuple[float, ...]]:
    """Return the rows of three scores that row metavariables stand for."""
    tiny, inf = float(np.finfo(dtype).tiny), math.inf
    leads = [(x, 0.0, -0.25) for x in (0.0, tiny, 1.0, 37.0, 88.0, 710.0, 1e3)]
    return [*leads, (0.5, 0.5, -1.0), (-37.0, -38.0, -1e3), (88.0, -inf, 87.0), (-1e3, 0.0, 710.0)]


@dataclass
class Subject:
    """The right-hand side of a rule over inputs, with the arguments to try it on."""

    expr: Expr
    names: list[str]
    spaces: list[list[Any]]
    plain: frozenset[str] = frozenset()
    kind: Literal["row", "elementwise"] = "row"

    def samples(self) -> list[dict[str, Any]]:
        found = [dict(zip(self.names, v, strict=True)) for v in itertools.product(*self.spaces)]
        chosen = np.random.default_rng(5).permutation(len(found))[:MOST]
        return [found[k] for k in sorted(chosen)]

    def computed(self, samples: list[dict[str, Any]], dtype: Any) -> np.ndarray:
        """Return the right-hand side in floats."""
        inputs = tuple(Input(n, Role("scores")) for n in self.names)
        formula = Formula("rule", self.kind, self.expr, inputs)
        program = lower([Output("value", None, stabilize(self.expr, self.plain))], formula)
        kernel = compile_kernel(program, dtype, "numpy")
        width = (K,) if self.kind == "row" else ()
        arrays = {n: np.array([np.broadcast_to(s[n], width) for s in samples], dtype) for n in self.names}
        found = {"value": np.empty(len(samples), np.float64 if self.kind == "row" else dtype)}
        kernel.run(arrays, None, {}, None, 1.0, found)
        return found["value"].astype(dtype)

    def exact(self, sample: dict[str, Any]) -> Any:
        size = K if self.kind == "row" else 1
        return evaluate(self.expr, Sample({n: _filled(v, self.kind) for n, v in sample.items()}, K=size), DIGITS)


def _filled(value: Any, kind: str) -> Any:
    return float(value) if kind == "elementwise" else [float(x) for x in np.broadcast_to(value, (K,))]


def of_pattern(rule: Rule, dtype: str) -> Subject:
    """Return the right-hand side of a rule of two patterns: indices are classes 0 and 1, numbers stand at class 0."""
    assert rule.statement is not None
    left, right = (parse_statement(side) for side in rule.statement)
    numbers, row_names, indices = metavariables(left, right)
    bound: dict[str, Any] = {i.name: Fixed(k) for k, i in enumerate(indices)}  # type: ignore[attr-defined]
    m = fresh()
    bound |= {r: reduce_(ROW, m, Entry(r, m)) for r in row_names}
    bound |= {n: Entry(n, Fixed(0) if row_names else None) for n in numbers}
    spaces: list[list[Any]] = []
    for n in numbers:
        values = space(rule.domain.get(n, "unit" if n in rule.plain else "real"), dtype)
        spaces.append([x for x in values if abs(x) <= 1e3] if n in rule.plain else values)
    spaces += [[(1.0, 0.25, 0.0)] if r in rule.plain else rows(dtype) for r in row_names]
    kind = "row" if row_names else "elementwise"
    return Subject(fill(right, bound), [*numbers, *row_names], spaces, frozenset(rule.plain), kind)


def of_example(rule: Rule, text: str, dtype: str) -> Subject:
    """Return what a rule that is a function makes of an example."""
    applied = rule.apply(substitute(read_example(text), {Label("y"): named("j")}))
    assert applied is not None, "the example does not exercise the rule"
    applied = substitute(applied, {named("j"): Fixed(1)})
    values = space("real", dtype)
    pairs = [(a, b, 0.25) for a, b in itertools.product(values, values) if not math.isinf(a) or not math.isinf(b)]
    return Subject(applied, ["s"], [pairs])


def neighbours(sample: dict[str, Any], dtype: Any) -> Iterator[dict[str, Any]]:
    """Yield the sample with each argument a float further from 0."""
    for name, value in sample.items():
        for k in range(np.size(value)):
            changed = np.array(value, dtype)
            changed.flat[k] = np.nextafter(changed.flat[k], dtype.type(math.copysign(math.inf, changed.flat[k])))
            if np.isfinite(changed).all():
                yield {**sample, name: changed.astype(float) if changed.ndim else float(changed)}


def measured(subject: Subject, dtype: str) -> tuple[float, dict[str, Any]]:
    """Return the largest error of a right-hand side, and where."""
    kind = np.dtype(dtype)
    samples = subject.samples()
    worst, where = 0.0, {}
    for sample, got in zip(samples, subject.computed(samples, kind), strict=True):
        exact = subject.exact(sample)
        if exact != exact:
            continue  # no value there
        (off,) = ulp_error(np.array([got]), [exact])
        if 0.5 < off < math.inf:
            unit = unit_in_last_place(exact, kind)
            off /= 1 + float(sum(abs(subject.exact(n) - exact) for n in neighbours(sample, kind)) / unit)
        if off > worst:
            worst, where = float(off), sample
    return worst, where


PATTERNS = {r.name: r for r in (*STABLE_RULES, *MEAN_RULES) if r.statement is not None}
EXAMPLES = [
    (r, text)
    for r in (*STABLE_RULES, *MAGNITUDE_RULES, *EQUALS_RULES, *MEAN_RULES)
    if r.statement is None
    for text in r.examples
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PATTERNS)
def test_right_hand_side_is_as_good_as_its_rule_says(name: str, dtype: str) -> None:
    worst, where = measured(of_pattern(PATTERNS[name], dtype), dtype)
    assert worst <= PATTERNS[name].ulp, f"{worst:.3g} at {where}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rule", "text"), EXAMPLES)
def test_what_a_rule_makes_is_as_good_as_it_says(rule: Rule, text: str, dtype: str) -> None:
    worst, where = measured(of_example(rule, text, dtype), dtype)
    assert worst <= rule.ulp, f"{worst:.3g} at {where}"


PLANTED = {
    "not a rule at all": rewriting("same", "1 - sigmoid(a)", "group(1) - group(sigmoid(a))"),
    "no shift": rewriting("no shift", "log(1 + exp(a))", "log(group(1 + group(exp(a))))"),
    "no log1p": rewriting("no log1p", "log1p(exp(-a))", "log(group(1 + group(exp(-a))))", a="nonnegative"),
    "the wrong side of 1/2": rewriting("side", "log(1 - sigmoid(a))", "log1p(-group(sigmoid(a)))"),
    "a maximum too many": rewriting("twice", "logsumexp(x) - x[i]", "group(logsumexp(x)) - group(x[i])"),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PLANTED)
def test_planted_bad_right_hand_side_is_caught(name: str, dtype: str) -> None:
    worst, _ = measured(of_pattern(PLANTED[name], dtype), dtype)
    assert worst > 1000
