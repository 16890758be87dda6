"""These tests are about the check, not about compiling: kernels are those of NumPy, which need none."""

import pytest


@pytest.fixture(autouse=True)
def with_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSMITH_BACKEND", "numpy")
