"""From formula to first result, in a process that has done nothing yet: `python -m benchmarks.first`.

Prints seconds. Numba and lossmith are imported before the clock starts.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.contestants import described
from benchmarks.ours import NAME
from benchmarks.supervise import ROOT, environment
from benchmarks.works import FIRST_RESULTS

FORMULA = "-((1 - softmax(s)[y])**gamma) * log(softmax(s)[y]) + 0.01 * sum(s**2)"


def once() -> float:
    """Return the seconds from the text to value and gradient of 128 × 10 scores."""
    import numba  # noqa: F401
    import numpy as np

    import lossmith

    random = np.random.default_rng(0)
    scores, labels = random.standard_normal((128, 10), dtype=np.float32), random.integers(0, 10, 128)
    start = time.perf_counter()
    value, _ = lossmith.loss(FORMULA, gamma=2.0).value_and_grad(scores, labels)
    taken = time.perf_counter() - start
    assert np.isfinite(value)
    return taken


def cells(threads: int, repeats: int) -> list[dict[str, Any]]:
    """Return the medians for an empty cache of kernels ("cold") and for one that holds them ("warm")."""
    times: dict[str, list[float]] = {name: [] for name in FIRST_RESULTS}
    failed = ""
    try:
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as folder:
                for name in FIRST_RESULTS:
                    times[name].append(_in_a_process(threads, folder))
    except (subprocess.SubprocessError, ValueError) as error:
        failed = described(error)
    return [
        {
            "work": f"first result, {name} cache",
            "group": "first",
            "threads": threads,
            "contestants": {NAME: {"failed": failed} if failed else {"seconds": statistics.median(found)}},
        }
        for name, found in times.items()
    ]


def _in_a_process(threads: int, folder: str) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.first"],
        cwd=ROOT, env={**environment(threads), "LOSSMITH_CACHE": folder}, capture_output=True, text=True, check=True,
        timeout=120,
    )  # fmt: skip
    return float(done.stdout)


if __name__ == "__main__":
    os.environ.setdefault("LOSSMITH_NUM_THREADS", "1")
    print(once())
