"""Who takes part, in the order of the columns."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import memory_bound, ours, with_jax, with_numpy, with_sklearn, with_torch
from benchmarks.problem import Problem, Ready


@dataclass(frozen=True)
class Contestant:
    """One column of the tables.

    Attributes
    ----------
    name : str
    prepare : callable
        Sets it up for a problem; None if it has no such loss, task or option.
    version : callable or None
        Imports it; raises ImportError where it is missing.
    role : str
        "ours", "peer", "memory" or "baseline".
    quick : bool
        Whether it belongs to the quick run.
    by_shape : bool
        Whether it compiles for each shape anew.
    """

    name: str
    prepare: Callable[[Problem], Ready | None]
    version: Callable[[], str] | None = None
    role: str = "peer"
    quick: bool = True
    by_shape: bool = False


BASELINE = "baseline"
CONTESTANTS = (
    Contestant(ours.NAME, ours.prepare, ours.version, "ours"),
    Contestant(ours.REUSED, ours.prepare_reused, role="ours"),
    Contestant(BASELINE, ours.prepare_baseline, role="baseline"),
    Contestant(with_torch.EAGER, with_torch.prepare, with_torch.version),
    Contestant(with_torch.COMPILED, with_torch.prepare_compiled, with_torch.version, quick=False, by_shape=True),
    Contestant(with_jax.NAME, with_jax.prepare, with_jax.version, by_shape=True),
    Contestant(with_sklearn.NAME, with_sklearn.prepare, with_sklearn.version),
    Contestant(with_numpy.NAME, with_numpy.prepare, with_numpy.version),
    Contestant(memory_bound.COPY, memory_bound.prepare_copy, role="memory"),
    Contestant(memory_bound.READ, memory_bound.prepare_read, role="memory"),
)
PEERS = tuple(c.name for c in CONTESTANTS if c.role == "peer")


def described(error: BaseException) -> str:
    """Return one line on an error, without a path in it."""
    return cleaned(f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}")


def cleaned(text: str, length: int = 160) -> str:
    """Return the text without paths of this machine, cut to a length."""
    text = re.sub(r"(?<![\w.])(?:[A-Za-z]:)?[/\\](?:[\w.@+-]+[/\\])+[\w.@+-]*", "…", text)
    return text if len(text) <= length else text[: length - 1] + "…"
