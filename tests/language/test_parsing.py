"""Formulas read in many threads at once, and in the children of a process that is reading."""

import gc
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lossmith.language.parsing import lock_held_over_forks
from lossmith.language.reader import read

TEXT = "log(1 + exp(-(2*y - 1)*s)) + " + " + ".join(f"({n} + s**2)/{n}" for n in range(1, 9))


@pytest.fixture
def switching():
    """Let threads take turns wherever garbage is looked for, which the parser does in the middle of a tree."""
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()

    def give_way(*_):
        for _ in range(50):
            pass

    gc.callbacks.append(give_way)
    gc.set_threshold(10)
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*threshold)
    gc.callbacks.remove(give_way)


def test_many_threads_read_at_once(switching):
    expected = read(TEXT.replace("y", "t")).expr
    with ThreadPoolExecutor(8) as pool:
        found = [f.result(timeout=60) for f in [pool.submit(read, TEXT.replace("y", "t")) for _ in range(64)]]
    assert {f.expr for f in found} == {expected}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_has_the_lock_free():
    lock = lock_held_over_forks()
    held, stop = threading.Event(), threading.Event()

    def hold():
        while not stop.is_set():
            with lock:
                held.set()
                stop.wait(0.01)

    busy = threading.Thread(target=hold)
    busy.start()
    try:
        held.wait()
        for _ in range(5):
            child = os.fork()
            if child == 0:
                os._exit(0 if lock.acquire(timeout=1) else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        busy.join()
