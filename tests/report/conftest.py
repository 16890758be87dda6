"""Reports in tests use the NumPy kernels alone: there is nothing to compile, and Numba may be missing."""

import pytest

from lossmith.functions import VECTOR_FUNCTIONS
from lossmith.kernels import runtime
from lossmith.losses import CATALOGUE


@pytest.fixture(autouse=True)
def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "has_numba", lambda: False)
    monkeypatch.setattr("lossmith.report.speed.has_numba", lambda: False)
    monkeypatch.setattr("lossmith.check.subject.has_numba", lambda: False)
    for owner in (*CATALOGUE.values(), *VECTOR_FUNCTIONS.values()):
        monkeypatch.setattr(owner, "_kernels", {})
    for loss in CATALOGUE.values():
        monkeypatch.setattr(loss, "_plans", {})
    return
