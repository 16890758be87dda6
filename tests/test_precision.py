"""precision="exact": 1 ulp in float32, 4 ulp in float64, for every loss; "fast" does not keep that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import lossmith as lm
from laws import J, case_of
from lossmith.check.interpreter import Reference
from lossmith.check.ulp import ulp_error
from lossmith.language.expr import Derivative, Expr, named
from lossmith.losses import CATALOGUE

LIMITS = {"f4": 1.0, "f8": 4.0}
WIDE = np.finfo(np.longdouble).eps < 2.0**-62


def errors(name: str, dtype: str, precision: str) -> Iterator[tuple[str, float]]:
    """Yield the errors of value, gradient and Hessian diagonal, in ulp."""
    case = case_of(CATALOGUE[name], dtype)
    loss, input_ = case.loss.bind(precision=precision, reduction="none"), case.formula.inputs[0].name
    value, grad = loss.value_and_grad(*case.args)
    hessian = loss.hessian_diag(*case.args)
    body, at = case.formula.expr, None if case.single else J
    first = Derivative(body, input_, at)
    outputs: list[tuple[str, Any, Expr]] = [
        ("grad", grad, first),
        ("hessian_diag", hessian, Derivative(first, input_, at)),
    ]
    for place in case.places():
        exact = Reference(case.sample(place), 30, limits=True)
        yield f"value {place}", ulp_error(np.asarray([value[place]]), [exact.value(body)])[0]
        for output, found, expr in outputs:
            entries = [(found[place], {})] if case.single else [
                (found[(*place, k)], {named("j"): k}) for k in range(case.scores.shape[-1])
            ]  # fmt: skip
            for got, indices in entries:
                yield f"{output} {place} {indices}", ulp_error(np.asarray([got]), [exact.value(expr, indices)])[0]


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", CATALOGUE)
def test_exact_is_exact(name: str, dtype: str) -> None:
    if dtype == "f8" and not WIDE:
        pytest.skip("no 80-bit floats here")
    broken = {where: off for where, off in errors(name, dtype, "exact") if not off <= LIMITS[dtype]}
    assert broken == {}


def test_fast_is_told_from_exact() -> None:
    assert max(off for _, off in errors("cross_entropy", "f4", "fast")) > LIMITS["f4"]


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="precision is 'high', expected 'fast' or 'exact'"):
        lm.cross_entropy([[0.0, 1.0]], [0], precision="high")
