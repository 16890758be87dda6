"""The memory system itself, on arrays of the work's size: copying the scores, and reading them once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from benchmarks.problem import Problem, Ready

COPY, READ = "copy", "read"
_SMALL = 1 << 22
"""Bytes below which one thread does it: handing work over takes longer than it saves."""


@cache
def _pool(helpers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(helpers)


def _split(work: Callable[[slice], Any], array: np.ndarray, threads: int) -> Callable[[], Any]:
    """Return a call that does the work in equal shares, one of them itself."""
    size = array.size
    if threads == 1 or array.nbytes < _SMALL:
        return lambda: work(slice(0, size))
    shares = [slice(size * k // threads, size * (k + 1) // threads) for k in range(threads)]
    pool = _pool(threads - 1)

    def run() -> None:
        others = [pool.submit(work, share) for share in shares[1:]]
        work(shares[0])
        for other in others:
            other.result()

    return run


def prepare_copy(problem: Problem) -> Ready:
    """Return a copy of the scores to an array that exists."""
    source = problem.scores.reshape(-1)
    target = np.zeros_like(source)
    return Ready(_split(lambda at: np.copyto(target[at], source[at]), source, problem.threads), None)


def prepare_read(problem: Problem) -> Ready:
    """Return a pass over the scores that keeps one number: their maximum, which NumPy takes in full vectors."""
    source = problem.scores.reshape(-1)
    return Ready(_split(lambda at: np.maximum.reduce(source[at]), source, problem.threads), None)
