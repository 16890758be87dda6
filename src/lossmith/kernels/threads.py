"""A pool of threads for work in independent pieces; the thread that asks takes its share.

Waiting cannot deadlock: a piece is either done by the thread that asks, or by a helper that is running it already.
So calls may come from many threads at once, from inside pools of others, and after a fork.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

ENVIRONMENT = "LOSSMITH_NUM_THREADS"


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
        self._done = threading.Event()
        self._error: BaseException | None = None

    def help(self) -> None:
        """Do pieces until none is left to begin."""
        while True:
            with self._lock:
                piece = self._next
                if piece >= self._count:
                    return
                self._next += 1
            try:
                self._work(piece)
            except BaseException as error:
                self._error = error
            with self._lock:
                self._left -= 1
                if self._left == 0:
                    self._done.set()

    def wait(self) -> None:
        self._done.wait()
        if self._error is not None:
            raise self._error


class _Pool:
    def __init__(self) -> None:
        self._queue: SimpleQueue[_Job] = SimpleQueue()
        self._threads = 0
        self._lock = threading.Lock()

    def invite(self, job: _Job, helpers: int) -> None:
        """Offer the job to so many helpers, and start threads if there are not enough."""
        if self._threads < helpers:
            with self._lock:
                while self._threads < helpers:
                    threading.Thread(target=self._serve, name="lossmith", daemon=True).start()
                    self._threads += 1
        for _ in range(helpers):
            self._queue.put(job)

    def _serve(self) -> None:
        while True:
            self._queue.get().help()


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


def ends_of_pieces(count: int, threads: int, least: int) -> list[int]:
    """Return where the pieces of a batch end: large ones first, for few calls, then small ones, to end together."""
    ends: list[int] = []
    done = 0
    while done < count:
        left = count - done
        done += min(left, max(least, left // (2 * threads)))
        ends.append(done)
    return ends
