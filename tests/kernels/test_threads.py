"""Threads, forks and the cache folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kernels import stable_forms as forms
from lossmith.kernels import cache, threads
from lossmith.kernels.lower import lower
from lossmith.kernels.programs import program_for
from lossmith.kernels.runtime import compile_kernel
from lossmith.kernels.threads import available_threads, ends_of_pieces, run_pieces

HERE = Path(__file__).resolve().parent


def run_here(kernel, s, y, threads=4):
    outputs = {"value": np.empty(len(s)), "grad": np.empty_like(s)}
    kernel.run({"s": s}, y, {}, None, 1.0, outputs, threads)
    return outputs["value"].tobytes() + outputs["grad"].tobytes()


@pytest.fixture(scope="module")
def job():
    rng = np.random.default_rng(0)
    s = rng.normal(size=(20_000, 10)).astype("f4")
    y = rng.integers(0, 10, len(s))
    kernel = compile_kernel(lower(*forms.softmax_cross_entropy()), "f4", "numba")
    return kernel, s, y, run_here(kernel, s, y, 1)


def test_every_piece_is_done_once():
    for count in (0, 1, 2, 100):
        done = []
        run_pieces(done.append, count, 4)
        assert sorted(done) == list(range(count))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 1000, 65536])
@pytest.mark.parametrize("threads", [2, 3, 16])
@pytest.mark.parametrize("least", [1, 5, 100])
def test_pieces_cover_a_batch_and_become_smaller(count, threads, least):
    ends = ends_of_pieces(count, threads, least)
    sizes = np.diff([0, *ends])
    assert ends[-1] == count
    assert sizes.min() > 0
    assert (sizes[1:] <= sizes[:-1]).all()
    assert (sizes[:-1] >= least).all()  # the last is what is left
    assert sizes[0] <= max(least, count // (2 * threads))  # no thread waits for another that has most of the work
    assert sizes[-1] <= max(least, 2 * threads)


def test_an_error_in_a_piece_reaches_the_caller_and_the_pool_lives_on():
    def fail(piece):
        if piece == 3:
            raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            run_pieces(fail, 8, 4)
    test_every_piece_is_done_once()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be placed here")
@pytest.mark.skipif(available_threads() < 2, reason="needs two processors")
def test_helpers_stand_apart():
    """No helper waits for the processor of the thread that asks, and that thread may run where it could before."""
    everywhere = os.sched_getaffinity(0)
    for here in sorted(everywhere)[:2] * 2:
        where = []

        def look(_, where=where):
            if threading.current_thread() is not threading.main_thread():
                where.append(os.sched_getaffinity(0))
            time.sleep(0.001)

        # A thread that is held on one processor would leave the helpers no other: this asks as if it ran there.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threads, "_processor", lambda here=here: lambda: here)
            run_pieces(look, 20, 3)
        assert where
        assert all(mask == everywhere - {here} for mask in where)
        assert os.sched_getaffinity(0) == everywhere
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "_processor", lambda: None)
        test_every_piece_is_done_once()


def test_pieces_may_ask_for_pieces():
    done = []
    run_pieces(lambda a: run_pieces(lambda b: done.append((a, b)), 5, 4), 5, 4)
    assert len(set(done)) == 25


def test_many_threads_at_once(job):
    *arguments, expected = job
    with ThreadPoolExecutor(16) as pool:
        found = [f.result(timeout=60) for f in [pool.submit(run_here, *arguments) for _ in range(64)]]
    assert set(found) == {expected}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork(job):
    *arguments, expected = job
    run_here(*arguments)
    stop = threading.Event()
    busy = threading.Thread(target=lambda: [run_here(*arguments) for _ in iter(stop.is_set, True)])
    busy.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                os._exit(0 if run_here(*arguments) == expected else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        busy.join()


def test_number_of_threads(monkeypatch):
    monkeypatch.setenv("LOSSMITH_NUM_THREADS", "3")
    assert available_threads() == 3
    monkeypatch.setenv("LOSSMITH_NUM_THREADS", "none")
    assert available_threads() >= 1


SCRIPT = """
import json, sys
import numpy as np
import lossmith.kernels.runtime as runtime
heavy = [m for m in ("numba", "llvmlite") if m in sys.modules]
from kernels import stable_forms as forms
from lossmith.kernels.lower import lower
kernel = runtime.compile_kernel(lower(*forms.softmax_cross_entropy()), "f4")
s = np.arange(12, dtype="f4").reshape(3, 4)
out = {"value": np.empty(3), "grad": np.empty_like(s)}
kernel.run({"s": s}, np.array([0, 1, 2]), {}, None, 1.0, out)
found = getattr(kernel, "from_disk", None)
print(json.dumps([heavy, out["value"].tolist(), found, type(kernel).__name__]))
"""


def in_process(folder, before="", script=SCRIPT):
    source = HERE.parents[1] / "src"
    environment = {**os.environ, "LOSSMITH_CACHE": str(folder), "PYTHONPATH": f"{source}{os.pathsep}{HERE.parent}"}
    return subprocess.Popen(
        [sys.executable, "-c", before + script],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process):
    output, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return json.loads(output)


def test_cache_is_found_again_and_shared(tmp_path):
    first = [answer(p) for p in [in_process(tmp_path) for _ in range(3)]]  # all at once
    (module,) = tmp_path.glob("*.py")
    assert module.name.startswith("cross_entropy_value_and_grad_float32_")
    assert "def kernel(" in module.read_text()
    assert not list(tmp_path.glob("*.tmp"))
    again = answer(in_process(tmp_path))
    assert again[2] is True
    assert {json.dumps(a[1]) for a in first} == {json.dumps(again[1])}
    assert again[0] == []  # no Numba before the first kernel


def test_numpy_takes_over_where_numba_is_missing(tmp_path):
    found = answer(in_process(tmp_path, "import sys\nsys.modules['numba'] = None\n"))
    assert found[3] == "NumpyKernel"
    assert not list(tmp_path.glob("*.py"))
    assert found[1] == pytest.approx(answer(in_process(tmp_path))[1], rel=1e-6)


def test_a_folder_that_cannot_be_written_is_replaced(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert answer(in_process(blocked / "below"))[1]


def test_a_damaged_module_is_written_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("LOSSMITH_CACHE", str(tmp_path))
    path = Path(cache.load("demo", "x = 1\n").__file__)
    path.write_text("x = 2\n")
    del sys.modules[next(m for m in sys.modules if m.startswith("_lossmith_kernel_demo"))]
    assert cache.load("demo", "x = 1\n").x == 1


def test_damaged_machine_code_is_made_anew(tmp_path):
    """The compiler takes over; no damaged object code is ever linked."""
    expected = answer(in_process(tmp_path))
    (file,) = tmp_path.glob("*.kernel")
    content = file.read_bytes()
    for damaged in (content[: len(content) // 2], b"", content[:-9] + bytes(9)):
        file.write_bytes(damaged)
        found = answer(in_process(tmp_path))
        assert found[1:3] == [expected[1], False]
        assert len(file.read_bytes()) > 10_000
    assert answer(in_process(tmp_path))[2] is True


def test_a_program_is_derived_once(tmp_path, monkeypatch):
    monkeypatch.setenv("LOSSMITH_CACHE", str(tmp_path))
    outputs, formula = forms.hinge()
    calls = []

    def derive():
        calls.append(1)
        return lower(outputs, formula)

    first = program_for(formula, ("value", "grad"), derive)
    assert program_for(formula, ("value", "grad"), derive) == first == lower(outputs, formula)
    assert len(calls) == 1
    other = replace(formula, expr=forms.huber()[1].expr)
    for changed in (other, replace(formula, hypers=()), replace(formula, name="other")):
        program_for(changed, ("value", "grad"), derive)
    program_for(formula, ("grad",), lambda: lower(outputs[1:], formula))
    assert len(calls) == 4
    for file in tmp_path.glob("*.program"):
        file.write_bytes(b"damaged")
    assert program_for(formula, ("value", "grad"), derive) == first


CHANGED_INSIDE = """
import lossmith.kernels.machine as machine
machine._is_known_inside = lambda: False
machine._linked = None
"""


def test_numbas_own_cache_takes_over_if_numba_has_changed_inside(tmp_path):
    first = answer(in_process(tmp_path, CHANGED_INSIDE))
    assert list((tmp_path / "__pycache__").glob("*.nbc"))
    assert answer(in_process(tmp_path, CHANGED_INSIDE))[1:3] == [first[1], False]
