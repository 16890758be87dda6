"""Starting the processes that measure, and outliving them.

A contestant that brings its process down, or hangs, costs one cell: the process is started anew without it.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.contestants import cleaned
from benchmarks.works import Work

ROOT = Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-m", "benchmarks.worker")
PATIENCE = 300.0
"""Seconds without a word after which a process is taken to hang."""
VARIABLES = (
    "LOSSMITH_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS",
)  # fmt: skip


@dataclass
class Plan:
    """What one process is to do.

    Attributes
    ----------
    works : list of Work
    threads : int
    contestants : list of str
    seconds : float
        For one work, by default.
    command : sequence of str
        The process; tests put others here.
    patience : float
    """

    works: list[Work]
    threads: int
    contestants: list[str]
    seconds: float
    command: Sequence[str] = COMMAND
    patience: float = PATIENCE
    skip: dict[str, list[str]] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)


def environment(threads: int) -> dict[str, str]:
    """Return the environment in which everybody uses so many threads."""
    source = str(ROOT / "src")
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    return {
        **os.environ,
        **dict.fromkeys(VARIABLES, str(threads)),
        "PYTHONPATH": path,
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def measured(plan: Plan, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Yield the versions found (once for each process), and one cell for each work.

    Parameters
    ----------
    plan : Plan
    say : callable
        For progress.
    """
    left = [w.name for w in plan.works]
    while left:
        current = ""
        with tempfile.TemporaryDirectory() as folder, _Process(plan, left, Path(folder)) as process:
            for message in process.messages():
                if "begins" in message:
                    current = message["begins"]
                elif "cell" in message:
                    cell = message["cell"]
                    left.remove(cell["work"])
                    cell["contestants"] |= {n: {"failed": f} for n, f in plan.failures.get(cell["work"], {}).items()}
                    yield cell
                elif "versions" in message:
                    yield message
            if not left:
                return
            end, culprit = process.end, process.about()
        say(f"{plan.threads} threads, {current or 'start'}: {culprit} {end}")
        if not current or culprit in plan.skip.get(current, []):
            if culprit in plan.contestants and not current:  # it does not even load
                plan.contestants.remove(culprit)
                yield {"versions": {culprit: None}}
                continue
            work = current or left[0]  # no progress: give this one up
            left.remove(work)
            yield _lost(plan, work, end)
            continue
        plan.skip.setdefault(current, []).append(culprit)
        plan.failures.setdefault(current, {})[culprit] = end


def _lost(plan: Plan, name: str, end: str) -> dict[str, Any]:
    work = next(w for w in plan.works if w.name == name)
    contestants = {n: {"failed": end} for n in plan.contestants}
    return {"work": name, "group": work.group, "threads": plan.threads, "contestants": contestants}


class _Process:
    """One run of the worker."""

    def __init__(self, plan: Plan, works: list[str], folder: Path) -> None:
        self._patience = plan.patience
        self._about = folder / "about"
        self._errors = (folder / "errors").open("w+", encoding="utf-8", errors="replace")
        order = {
            "works": works,
            "threads": plan.threads,
            "contestants": plan.contestants,
            "seconds": plan.seconds,
            "skip": plan.skip,
            "about": str(self._about),
        }
        self._process = subprocess.Popen(
            [*plan.command, json.dumps(order)],
            cwd=ROOT, env=environment(plan.threads), stdout=subprocess.PIPE, stderr=self._errors, text=True,
            encoding="utf-8",
        )  # fmt: skip
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.end = ""

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *details: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(timeout=10)
        self._errors.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield what the process says, until it ends or falls silent."""
        while True:
            try:
                line = self._lines.get(timeout=self._patience)
            except queue.Empty:
                self.end = f"took more than {self._patience:.0f} s"
                return
            if line is None:
                code = self._process.wait()
                self.end = f"ended the process with signal {-code}" if code < 0 else f"ended the process with {code}"
                last = self._last_error()
                self.end += f" ({last})" if last and code > 0 else ""
                return
            message = json.loads(line)
            if "done" in message:
                return
            yield message

    def about(self) -> str:
        """Return whose code ran last."""
        try:
            return self._about.read_text(encoding="utf-8").strip() or "nobody"
        except OSError:
            return "nobody"

    def _last_error(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return cleaned(lines[-1]) if lines else ""
