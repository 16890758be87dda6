"""A pool of threads for work in independent pieces; the thread that asks takes its share.

Waiting cannot deadlock: a piece is either done by the thread that asks, or by a helper that is running it already.
So calls may come from many threads at once, from inside pools of others, and after a fork.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

ENVIRONMENT = "LOSSMITH_NUM_THREADS"
FEW = 8
"""With fewer helpers than this, one that waits for another's processor is missed."""


def available_threads() -> int:
    """Return how many threads kernels may use: $LOSSMITH_NUM_THREADS, else the processors of this process."""
    named = os.environ.get(ENVIRONMENT, "")
    if named.isdigit() and int(named) > 0:
        return int(named)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Job:
    """Pieces 0 … count − 1, each given out once."""

    def __init__(self, work: Callable[[int], None], count: int) -> None:
        self._work = work
        self._count = count
        self._next = 0
        self._left = count
        self._lock = threading.Lock()
        self._undone = threading.Lock()
        self._undone.acquire()
        self._error: BaseException | None = None

    def help(self) -> None:
        """Do pieces until none is left to begin."""
        done = 0
        while True:
            with self._lock:
                self._left -= done
                if done and self._left == 0:
                    self._undone.release()
                piece = self._next
                if piece >= self._count:
                    return
                self._next += 1
            try:
                self._work(piece)
            except BaseException as error:
                self._error = error
            done = 1

    def wait(self) -> None:
        self._undone.acquire()
        if self._error is not None:
            raise self._error


class _Pool:
    def __init__(self) -> None:
        self._queue: SimpleQueue[_Job] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._where: set[int] | None = None

    def invite(self, job: _Job, helpers: int) -> None:
        """Offer the job to so many helpers, and start threads if there are not enough."""
        if len(self._threads) < helpers:
            with self._lock:
                while len(self._threads) < helpers:
                    thread = threading.Thread(target=self._serve, name="lossmith", daemon=True)
                    thread.start()
                    self._threads.append(thread)
                    self._where = None
        if helpers < FEW:
            self._stand_apart()
        for _ in range(helpers):
            self._queue.put(job)

    def _stand_apart(self) -> None:
        """Keep the helpers off the processor of the thread that asks.

        Linux likes to wake a thread where the one runs that wakes it. There it waits for that one, the other
        processors idle, until the scheduler has a look a few milliseconds later: long after the job is done.
        """
        ask = _processor()
        if ask is None or threading.current_thread() in self._threads:  # a helper's own processors are not all
            return
        apart = os.sched_getaffinity(0) - {ask()}
        if apart and apart != self._where:
            with contextlib.suppress(OSError):  # it may be forbidden
                for thread in self._threads:
                    os.sched_setaffinity(thread.native_id or 0, apart)
            self._where = apart

    def _serve(self) -> None:
        while True:
            self._queue.get().help()


@functools.cache
def _processor() -> Callable[[], int] | None:
    """Return what tells the processor this thread runs on, None unless threads can be kept off one."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    import ctypes

    return getattr(ctypes.PyDLL(None), "sched_getcpu", None)


_pool = _Pool()


def _renew() -> None:
    """Begin anew in a forked child: it has none of its parent's threads, and maybe a lock that is held."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def run_pieces(work: Callable[[int], None], count: int, threads: int) -> None:
    """Call work(0), …, work(count − 1), on up to `threads` threads, and return when all have returned."""
    if count <= 1 or threads <= 1:
        for piece in range(count):
            work(piece)
        return
    job = _Job(work, count)
    _pool.invite(job, min(threads, count) - 1)
    job.help()
    job.wait()


@functools.lru_cache(256)
def ends_of_pieces(count: int, threads: int, least: int) -> tuple[int, ...]:
    """Return where the pieces of a batch end: large ones first, for few calls, then small ones, to end together."""
    ends: list[int] = []
    done = 0
    while done < count:
        left = count - done
        done += min(left, max(least, left // (2 * threads)))
        ends.append(done)
    return tuple(ends)
