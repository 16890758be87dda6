"""How much work one formula may cause.

A formula of one line can have a derivative of many pages: each product, power and function inside a function multiplies
the terms. So whatever works on expressions runs `within_budget`, where each node that is made or looked at costs steps.
Steps are counted and not seconds, so that what is refused does not depend on the machine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import lru_cache, wraps
from math import inf
from typing import ParamSpec, TypeVar

from lossmith.errors import FormulaError

MAX_STEPS = 360_000
"""The steps of one task, some 0.7 seconds; the longest of the catalogue takes half of it."""
MAKING, LOOKING = 3, 1
"""The steps that it takes to make a node, and to look at the nodes below one."""

_HINT = (
    "functions, softmaxes and powers inside each other, and products of many sums, make derivatives grow: write the "
    "loss with fewer of them, or pass parts that do not depend on the scores as targets or hyperparameters"
)


class _Count(threading.local):
    """The steps that this thread has taken, and how many it may have taken before its task is given up."""

    used: int = 0
    limit: float = inf
    allowed: int = 0
    task: str = ""


_count = _Count()


def spend(steps: int = 1) -> None:
    """Count steps of the running task.

    Raises
    ------
    FormulaError
        If it has taken more than it may.
    """
    _count.used += steps
    if _count.used > _count.limit:
        raise FormulaError(
            f"the loss is too complicated: {_count.task} takes more than {_count.allowed} steps, the most allowed",
            hint=_HINT,
        )


@contextmanager
def within_budget(task: str, share: float = 1.0) -> Generator[None]:
    """Allow a task, such as "deriving it", a share of MAX_STEPS; a task inside another one counts as part of that one.

    Raises
    ------
    FormulaError
        If the task takes more steps, or recurses deeper than Python can.
    """
    if _count.limit < inf:
        yield
        return
    _count.allowed, _count.task = round(MAX_STEPS * share), task
    _count.limit = _count.used + _count.allowed
    try:
        yield
    except RecursionError:
        raise FormulaError(f"the loss is nested too deeply for {task}", hint=_HINT) from None
    finally:
        _count.limit = inf


_P = ParamSpec("_P")
_R = TypeVar("_R")


def remembered(count: int) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Keep the last `count` results of a function, as lru_cache does; what is remembered costs the steps it took.

    Otherwise it would depend on what was derived before whether a formula is refused.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @lru_cache(maxsize=count)
        def with_cost(*args: _P.args, **kwargs: _P.kwargs) -> tuple[_R, int]:
            before = _count.used
            result = function(*args, **kwargs)
            return result, _count.used - before

        @wraps(function)
        def remembering(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            before = _count.used
            result, steps = with_cost(*args, **kwargs)
            spend(steps - (_count.used - before))  # 0 if it was done now
            return result

        return remembering

    return decorate
