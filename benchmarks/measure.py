"""Timing in turns: A B C A B C …, so that whatever else the machine does meets all alike."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.contestants import described
from benchmarks.problem import Ready

MOST_TURNS, FEWEST_TURNS = 61, 3
SHORTEST = 1e-3
"""A turn repeats the call until it has taken about so long: the clock and the loop are then out of the way."""
WARM_BELOW = 20e-3
"""Calls shorter than this get an untimed one first: threads are awake and caches hold the contestant's own data."""
PAUSE = 5e-3
"""Seconds after a turn of a peer whose OpenMP or Eigen threads spin on, for the processors to be free again."""


@dataclass
class Turns:
    """The plan of one contestant, and its times."""

    ready: Ready
    calls: int
    warm: int
    cost: float
    turns: int = FEWEST_TURNS
    times: list[float] = field(default_factory=list)


def measure(
    contestants: Mapping[str, Ready], seconds: float, threads: int, about: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Return medians of interleaved runs.

    Parameters
    ----------
    contestants : mapping of str to Ready
        Each has run at least once.
    seconds : float
        What all turns together should take; each contestant gets an equal share, and three turns at the least.
    threads : int
    about : callable
        Told whose turn it is.

    Returns
    -------
    dict
        For each: seconds (the median), low and high (quartiles), turns and calls; or "failed".
    """
    failed: dict[str, dict[str, Any]] = {}
    plans: dict[str, Turns] = {}
    pause = PAUSE if threads > 1 else 0.0
    for name, ready in contestants.items():
        about(name)
        try:
            plans[name] = _plan(ready, seconds / len(contestants), pause)
        except Exception as error:
            failed[name] = {"failed": described(error)}
    rounds = max((p.turns for p in plans.values()), default=0)
    gc.collect()
    gc.disable()
    try:
        for k in range(rounds):
            for name, plan in plans.items():
                due = (k + 1) * plan.turns // rounds > k * plan.turns // rounds  # slow ones sit out evenly
                if not due or name in failed:
                    continue
                about(name)
                try:
                    plan.times.append(_turn(plan, pause))
                except Exception as error:
                    failed[name] = {"failed": described(error)}
    finally:
        gc.enable()
    return failed | {name: _summary(plan) for name, plan in plans.items() if name not in failed}


def _plan(ready: Ready, share: float, pause: float) -> Turns:
    """Return how often to call it, from a short trial."""
    trial = Turns(ready, 1, 1, 0.0)
    once = _turn(trial, 0.0)
    if once < SHORTEST:
        trial.calls = max(1, math.ceil(SHORTEST / 4 / max(once, 1e-7)))
        once = _turn(trial, 0.0)
    calls = max(1, math.ceil(SHORTEST / max(once, 1e-7)))
    warm = (1 + calls // 8) if once < WARM_BELOW else 0
    cost = (calls + warm) * once + (pause if ready.pause else 0.0)
    turns = min(MOST_TURNS, max(FEWEST_TURNS, int(share / cost)))
    return Turns(ready, calls, warm, cost, turns)


def _turn(plan: Turns, pause: float) -> float:
    """Return the seconds of one call."""
    ready, run = plan.ready, plan.ready.run
    if ready.before:
        ready.before()
    try:
        for _ in range(plan.warm):
            run()
        start = time.perf_counter()
        for _ in range(plan.calls):
            run()
        taken = time.perf_counter() - start
    finally:
        if ready.after:
            ready.after()
    if ready.pause and pause:
        time.sleep(pause)
    return taken / plan.calls


def _summary(plan: Turns) -> dict[str, Any]:
    low, middle, high = statistics.quantiles(plan.times, n=4) if len(plan.times) > 1 else plan.times * 3
    return {
        "seconds": middle,
        "low": low,
        "high": high,
        "turns": len(plan.times),
        "calls": plan.calls,
    } | ({} if plan.ready.library else {"library": False})
