"""The examples run as they stand, briefly."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, timeout=200)


def test_softmax_collapse_runs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    picture = tmp_path / "folder" / "collapse.png"
    done = run(
        str(EXAMPLES / "softmax_collapse.py"), "--p", "7", "--width", "16", "--steps", "20", "--out", str(picture)
    )
    assert done.returncode == 0, done.stderr
    assert "Training loss" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_softmax_collapse_says_what_is_missing() -> None:
    script = (
        f"import sys, runpy; sys.modules['torch'] = None; runpy.run_path({str(EXAMPLES / 'softmax_collapse.py')!r})"
    )
    done = run("-c", script)
    assert done.returncode == 1
    assert "pip install torch" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_softmax_collapse_shows_what_it_says() -> None:
    """PyTorch's loss ends at 1e-9 or above; lossmith's falls below 1e-14 in the same 1200 steps."""
    torch: Any = pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("softmax_collapse", EXAMPLES / "softmax_collapse.py")
    assert spec is not None
    assert spec.loader is not None
    example: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    data = example.additions(23, 0.4, seed=0)
    losses = (torch.nn.functional.cross_entropy, example.CrossEntropy.apply)
    by_torch, by_lossmith = (
        example.train(example.network(23, 100, seed=0), data, loss, 1200, 0.01, lambda: None) for loss in losses
    )
    assert by_torch[:, 1].min() > 1e-9
    assert by_lossmith[-1, 0] < 1e-14
    np.testing.assert_allclose(by_torch[:50, 0], by_lossmith[:50, 0], rtol=1e-3)
    np.testing.assert_allclose(by_lossmith[:, 0], by_lossmith[:, 1], rtol=1e-6)
