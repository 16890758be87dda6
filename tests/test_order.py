"""Results that do not depend on who computes them: any number of threads, any split, either back end, any process."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lossmith as lm
from lossmith import evaluation
from lossmith.check.samples import batches
from lossmith.kernels.runtime import has_numba
from lossmith.losses import CATALOGUE

OUTPUTS = ("value_and_grad", "grad_and_hessian_diag")
ROW, ELEMENTWISE = ("cross_entropy", "multiclass_hinge"), ("logistic", "huber")
DTYPES = ["f4", "f8"]


def batch_of(name: str, dtype: str, n: int, classes: int = 10) -> tuple[lm.Loss, np.ndarray, np.ndarray]:
    """Return a loss, scores and labels or targets."""
    rng, loss = np.random.default_rng(3), CATALOGUE[name]
    if loss.kind == "row":
        return loss, (3 * rng.normal(size=(n, classes))).astype(dtype), rng.integers(0, classes, n)
    return loss, (3 * rng.normal(size=n)).astype(dtype), rng.uniform(size=n).astype(dtype)


def bits(result: Any) -> bytes:
    return b"".join(np.asarray(part).tobytes() for part in result)


# ------------------------------------------------------------------ threads and splits


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*ROW, *ELEMENTWISE])
def test_any_number_of_threads_gives_the_same_bits(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loss, s, target = batch_of(name, dtype, 20_011)
    found: set[bytes] = set()
    for threads in ("1", "2", "3", "16"):
        monkeypatch.setenv("LOSSMITH_NUM_THREADS", threads)
        for reduction in ("mean", "none"):
            weight = np.linspace(0, 2, len(s))
            found.add(reduction.encode() + bits(loss.value_and_grad(s, target, reduction=reduction)))
            found.add(b"w" + reduction.encode() + bits(loss.value_and_grad(s, target, sample_weight=weight)))
    assert len(found) == 4


@pytest.mark.parametrize("name", [*ROW, *ELEMENTWISE])
def test_any_split_of_a_batch_gives_the_same_bits(name: str) -> None:
    loss, s, target = batch_of(name, "f4", 20_011)
    value, grad = loss.value_and_grad(s, target, reduction="none")
    for size in (1, 2, 7, 64, 1000, 4096, 19_999):
        last = 200 if size < 64 else len(s)  # thousands of calls for single rows would take long
        parts = [
            loss.value_and_grad(s[k : k + size], target[k : k + size], reduction="none") for k in range(0, last, size)
        ]
        covered = sum(len(p[0]) for p in parts)
        assert np.concatenate([p[0] for p in parts]).tobytes() == value[:covered].tobytes()
        assert np.concatenate([p[1] for p in parts]).tobytes() == grad[:covered].tobytes()


def test_where_a_row_stands_does_not_matter() -> None:
    loss, s, target = batch_of("cross_entropy", "f4", 5_000)
    order = np.random.default_rng(1).permutation(len(s))
    value, grad = loss.value_and_grad(s, target, reduction="none")
    found, found_grad = loss.value_and_grad(s[order], target[order], reduction="none")
    assert found.tobytes() == value[order].tobytes()
    assert found_grad.tobytes() == grad[order].tobytes()


def test_pools_inside_pools() -> None:
    """As libraries do that run a model per worker, each with workers of its own."""
    jobs = [batch_of(name, dtype, 30_000) for name in (*ROW, *ELEMENTWISE) for dtype in DTYPES]
    expected = [bits(loss.value_and_grad(s, target)) for loss, s, target in jobs]

    def inner(k: int) -> bytes:
        loss, s, target = jobs[k]
        return bits(loss.value_and_grad(s, target))

    def outer(_: int) -> list[bytes]:
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(inner, range(len(jobs))))

    with ThreadPoolExecutor(16) as pool:
        assert all(found == expected for found in pool.map(outer, range(16)))


FIRST_CALLS = """
import json, sys, threading
import numpy as np
import lossmith as lm
names, dtypes, each = json.loads(sys.argv[1])
rng = np.random.default_rng(0)
start = threading.Barrier(len(names) * len(dtypes) * each)
found, failed = {}, []

def work(name, dtype, number):
    try:
        loss = getattr(lm, name)
        s = np.linspace(-3, 3, 400).reshape(40, 10).astype(dtype)
        target = np.arange(40) % 10 if loss.label_name else np.abs(np.sin(s))
        start.wait()
        for _ in range(3):
            value, grad = loss.value_and_grad(s, target)
            found.setdefault((name, dtype), set()).add((float(value), grad.tobytes()))
    except BaseException as error:
        failed.append(repr(error))

threads = [threading.Thread(target=work, args=(n, d, k)) for n in names for d in dtypes for k in range(each)]
for t in threads: t.start()
for t in threads: t.join()
for _ in range(50):  # threads that live for one call
    t = threading.Thread(target=lambda: lm.logistic(np.float32([0.5]), np.float32([1])))
    t.start(); t.join()
print(json.dumps([failed, [len(v) for v in found.values()], len(found)]))
"""


def first_calls(folder: Path, names: list[str], dtypes: list[str], each: int) -> None:
    """Let many threads make the first calls of a process together, with nothing compiled before."""
    source = Path(lm.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FIRST_CALLS, json.dumps([names, dtypes, each])],
        env={**os.environ, "LOSSMITH_CACHE": str(folder), "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    failed, results, count = json.loads(done.stdout.splitlines()[-1])
    assert failed == []
    assert count == len(names) * len(dtypes)
    assert set(results) == {1}  # every thread got the same bits


def test_first_calls_from_many_threads_at_once(tmp_path: Path) -> None:
    first_calls(tmp_path, ["huber", "logistic"], ["f4", "f8"], 4)


@pytest.mark.slow
def test_first_calls_from_many_threads_at_once_of_many_losses(tmp_path: Path) -> None:
    names = ["cross_entropy", "focal", "multiclass_hinge", "huber", "logistic", "squared_error"]
    first_calls(tmp_path, names, ["f2", "f4", "f8"], 4)


# ------------------------------------------------------------------ sums


def assert_sum_is_right(found: float, values: np.ndarray) -> None:
    exact = math.fsum(math.fsum(part) for part in np.array_split(values, max(1, values.size >> 20)))
    assert abs(found - exact) <= 2**-52 * abs(exact)


def test_sums_over_rows_are_right_to_rounding() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 1023, 1024, 1025, 1_000_003):
        residuals = np.exp(4 * rng.normal(size=n))
        assert_sum_is_right(lm.absolute_error(residuals, 0.0, reduction="sum"), residuals)
        assert_sum_is_right(lm.absolute_error(residuals, 0.0) * n, residuals)


@pytest.mark.slow
def test_sums_over_very_many_rows_are_right_to_rounding() -> None:
    """10⁸ numbers, whose sum float32 would lose half of; about 2 GB."""
    s = np.exp(2 * np.random.default_rng(0).normal(size=10**8).astype("f4"))
    exact = math.fsum(float(np.sum(part.astype("f8"))) for part in np.array_split(s, 10**5))  # each to 1e-15
    assert lm.absolute_error(s, 0.0, reduction="sum") == pytest.approx(exact, rel=1e-15)


def test_planted_running_sum_is_caught() -> None:
    residuals = np.exp(4 * np.random.default_rng(0).normal(size=1_000_003))
    with pytest.raises(AssertionError):
        assert_sum_is_right(float(np.cumsum(residuals)[-1]), residuals)


# ------------------------------------------------------------------ back ends


CANCELLING = ("entropy", "softmax_entropy", "softmax_kl", "logistic")
"""Losses with a difference of terms around 1 (probabilities, targets, logarithms): their distance is in ulp of 1 there.

The back ends have an exp and a log of their own, each right to an ulp; what cancels keeps that of the terms.
"""
ULP = {"focal": 8, "cross_entropy": 3}
"""How many ulp lie between the back ends at most; 2 where nothing stands."""


def distances(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[float, str]]:
    """Yield the largest distance of both back ends in ulp, and where it is, for every output and batch."""
    loss = CATALOGUE[name]
    for batch in batches(loss.definition, dtype, sizes=(2, 10), large=False):
        args = [batch.label if i.role.kind == "label" else batch.inputs[i.name] for i in loss.definition.inputs]
        for method in OUTPUTS:
            found: list[tuple[np.ndarray, ...]] = []
            for back_end in ("numpy", "numba"):
                monkeypatch.setenv(evaluation.BACKEND, back_end)
                found.append(getattr(loss, method)(*args, reduction="none"))
            for k, (a, b) in enumerate(zip(*found, strict=True)):
                off = ulp_between(a, b, at_least=1.0 if name in CANCELLING else 0.0)
                at = np.unravel_index(np.argmax(off), off.shape)
                yield float(off[at]), f"{name} {dtype} {method}[{k}] {batch.notes[at[0]]}: {a[at]!r}, {b[at]!r}"


def ulp_between(a: np.ndarray, b: np.ndarray, at_least: float = 0.0) -> np.ndarray:
    """Return the distance of two arrays in ulp of the larger number, or of `at_least`; NaN and ∞ must be alike."""
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    np.testing.assert_array_equal(np.where(np.isinf(a), a, 0), np.where(np.isinf(b), b, 0))
    finite = np.isfinite(a)
    a, b = np.where(finite, a, 0), np.where(finite, b, 0)
    return np.abs(a - b) / np.spacing(np.maximum(np.maximum(np.abs(a), np.abs(b)), a.dtype.type(at_least)))


@pytest.mark.skipif(not has_numba(), reason="Numba is not installed")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "name",
    [n if n in ("cross_entropy", "huber", "bce") else pytest.param(n, marks=pytest.mark.slow) for n in CATALOGUE],
)
def test_back_ends_are_close(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    worst = max(distances(name, dtype, monkeypatch))
    assert worst[0] <= ULP.get(name, 2), worst[1]


def test_planted_distance_is_seen() -> None:
    a = np.float32([1, 2, np.inf])
    assert ulp_between(a, np.nextafter(a, np.float32(0)) * np.float32([1, 1, np.inf])).tolist() == [0.5, 0.5, 0.0]
    with pytest.raises(AssertionError):
        ulp_between(a, np.float32([1, 2, np.nan]))
