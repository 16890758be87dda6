"""Peak memory of value and gradient, in a process of its own: `python -m benchmarks.memory CONTESTANT N K THREADS`.

Prints the bytes beyond the inputs and one array for the gradient. Linux only: the peak is reset and read in /proc.
"""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.contestants import CONTESTANTS, described
from benchmarks.problem import make_problem
from benchmarks.supervise import ROOT, environment
from benchmarks.works import MEMORY_SHAPES, Work

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEASURED = ("lossmith", "torch", "JAX + optax", "scikit-learn", "NumPy")


def beyond(name: str, rows: int, classes: int, threads: int) -> int:
    """Return the peak of one call, less what the process held before it and the gradient."""
    contestant = next(c for c in CONTESTANTS if c.name == name)
    work = Work("memory", "cross_entropy", (rows, classes))
    problem = make_problem(work, threads)
    # Code is compiled and threads are started before: on few rows, unless it compiles for each shape anew.
    few = work if contestant.by_shape else Work("memory", "cross_entropy", (64, classes))
    warm = contestant.prepare(make_problem(few, threads))
    assert warm is not None
    warm.run()
    ready = contestant.prepare(problem)
    assert ready is not None
    if contestant.by_shape:
        ready.run()
    del warm
    gc.collect()
    _give_back()
    before = _kilobytes("VmRSS")
    _RESET.write_text("5")
    result = ready.run()
    peak = _kilobytes("VmHWM")
    del result
    return (peak - before) * 1024 - problem.scores.nbytes


def _give_back() -> None:
    """Return freed memory to the system, so that using it again counts."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _kilobytes(key: str) -> int:
    lines = _STATUS.read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])


def cells(threads: int, names: list[str]) -> list[dict[str, Any]]:
    """Return the bytes beyond inputs and gradient, for each shape and contestant."""
    found: list[dict[str, Any]] = []
    for shape in MEMORY_SHAPES:
        made = {name: _in_a_process(name, shape, threads) for name in MEASURED if name in names}
        found.append({
            "work": f"peak memory {shape[0]}×{shape[1]}",
            "group": "memory",
            "threads": threads,
            "contestants": made,
            "bytes": shape[0] * shape[1] * 4,
        })  # fmt: skip
    return found


def _in_a_process(name: str, shape: tuple[int, ...], threads: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.memory", name, *map(str, shape), str(threads)]
    if not _RESET.exists():
        return {"failed": "needs Linux"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment(threads), capture_output=True, text=True, check=True, timeout=120
        )
        return {"extra": int(done.stdout.split()[-1])}
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [str(error)]
        return {"failed": described(RuntimeError(lines[-1]))}
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        return {"failed": described(error)}


if __name__ == "__main__":
    print(beyond(sys.argv[1], *map(int, sys.argv[2:5])))
