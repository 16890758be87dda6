"""The targets for speed, as data, and how measured cells stand to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.contestants import BASELINE, PEERS
from benchmarks.memory_bound import COPY, READ
from benchmarks.ours import NAME, REUSED
from benchmarks.works import MANY_CLASSES

Cell = Mapping[str, Any]
MIB = 1 << 20


def seconds(cell: Cell, name: str) -> float | None:
    """Return the median of a contestant, None if it has none."""
    return cell["contestants"].get(name, {}).get("seconds")


def fastest_peer(cell: Cell, among: Iterable[str] = PEERS) -> tuple[str, float] | None:
    """Return the peer with the smallest median."""
    times = {name: taken for name in among if (taken := seconds(cell, name)) is not None}
    return min(times.items(), key=lambda item: item[1]) if times else None


def ratio(cell: Cell, above: str, below: str) -> float | None:
    """Return the time of one contestant in units of another's."""
    a, b = seconds(cell, above), seconds(cell, below)
    return None if a is None or b is None else a / b


def speedup(cell: Cell, name: str = NAME) -> float | None:
    """Return the fastest peer's time in units of ours."""
    peer, mine = fastest_peer(cell), seconds(cell, name)
    return None if peer is None or mine is None else peer[1] / mine


def share(cell: Cell) -> float | None:
    """Return how much of the bandwidth of copying (of reading, if nothing is written) is reached with `out=`.

    Every array that the task reads or writes is counted once.
    """
    mine = seconds(cell, REUSED) or seconds(cell, NAME)
    if "streams" not in cell or mine is None:
        return None
    writes = seconds(cell, REUSED) is not None
    bound = seconds(cell, COPY if writes else READ)
    return None if bound is None else cell["streams"] / (2 if writes else 1) * bound / mine


def _many(cell: Cell) -> bool:
    return cell.get("classes", 0) >= MANY_CLASSES


def _dtype(cell: Cell, name: str) -> bool:
    return cell["work"].endswith("float64") == (name == "float64")


def _always(cell: Cell) -> bool:
    return True


@dataclass(frozen=True)
class Target:
    """A promise about some cells.

    Attributes
    ----------
    text : str
        What is promised.
    group : str
        Of the works it is about.
    figure : callable
        What is compared; None where it cannot be told.
    limit : float
    at_most : bool
        Whether the limit is an upper one.
    unit : str
        What to print behind the figure.
    applies : callable
        Whether it is about this cell.
    """

    text: str
    group: str
    figure: Callable[[Cell], float | None]
    limit: float
    at_most: bool = False
    unit: str = "×"
    applies: Callable[[Cell], bool] = _always


def _microseconds(cell: Cell) -> float | None:
    taken = seconds(cell, NAME)
    return None if taken is None else taken * 1e6


def _milliseconds(cell: Cell) -> float | None:
    taken = seconds(cell, NAME)
    return None if taken is None else taken * 1e3


def _memory(cell: Cell) -> float | None:
    extra = cell["contestants"].get(NAME, {}).get("extra")
    return None if extra is None else extra / MIB / cell["threads"]


TARGETS: tuple[Target, ...] = (
    Target("softmax cross-entropy, fresh output: fastest peer ÷ lossmith", "softmax", speedup, 2),
    Target(f"the same with out=, K ≥ {MANY_CLASSES}: fastest peer ÷ lossmith", "softmax",
           lambda c: speedup(c, REUSED), 4, applies=_many),
    Target(f"the same with out=, K ≥ {MANY_CLASSES}: lossmith ÷ copying the scores", "softmax",
           lambda c: ratio(c, REUSED, COPY), 1.5, at_most=True, applies=_many),
    Target(f"value only, K ≥ {MANY_CLASSES}: lossmith ÷ reading the scores", "value",
           lambda c: ratio(c, NAME, READ), 1.5, at_most=True, applies=_many),
    Target("one call at 1×10", "softmax", _microseconds, 5, at_most=True, unit=" µs",
           applies=lambda c: c["work"] == "cross_entropy 1×10"),
    Target("other losses: fastest peer ÷ lossmith", "catalogue", speedup, 1),
    Target("elementwise losses with out=: lossmith ÷ copying the scores", "catalogue",
           lambda c: ratio(c, REUSED, COPY), 1.5, at_most=True, applies=lambda c: c.get("classes") == 1),
    Target("second derivatives: lossmith ÷ its value and gradient", "second",
           lambda c: ratio(c, NAME, BASELINE), 1.5, at_most=True),
    Target("second derivatives: fastest peer ÷ lossmith", "second", speedup, 3),
    Target("float64: fastest peer ÷ lossmith", "float64", speedup, 1.5),
    Target("options: with ÷ without", "options", lambda c: ratio(c, NAME, BASELINE), 1.3, at_most=True,
           applies=lambda c: "soft targets" not in c["work"]),
    Target("user's formula ÷ catalogue", "formula", lambda c: ratio(c, NAME, BASELINE), 1.05, at_most=True),
    Target("precision=exact ÷ fast, float32", "exact", lambda c: ratio(c, NAME, BASELINE), 4, at_most=True,
           applies=lambda c: _dtype(c, "float32")),
    Target("precision=exact ÷ fast, float64", "exact", lambda c: ratio(c, NAME, BASELINE), 12, at_most=True,
           applies=lambda c: _dtype(c, "float64")),
    Target("peak memory beyond scores and gradient, per thread", "memory", _memory, 1, at_most=True, unit=" MiB"),
    Target("formula to first result, cold", "first", _milliseconds, 1500, at_most=True, unit=" ms",
           applies=lambda c: "cold" in c["work"]),
    Target("formula to first result, warm cache", "first", _milliseconds, 60, at_most=True, unit=" ms",
           applies=lambda c: "warm" in c["work"]),
    Target("one thread ÷ two threads at 4096×1000", "scaling", lambda c: ratio(c, BASELINE, NAME), 1.8,
           applies=lambda c: c["threads"] == 2 and "4096×1000" in c["work"]),
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """How one cell stands to one target."""

    target: Target
    work: str
    threads: int
    figure: float | None

    @property
    def met(self) -> bool:
        """Whether it is met; what could not be measured is not."""
        if self.figure is None:
            return False
        return self.figure <= self.target.limit if self.target.at_most else self.figure >= self.target.limit

    @property
    def shown(self) -> str:
        """The figure, and its unit."""
        if self.figure is None:
            return "not measured"
        return f"{self.figure:.0f}{self.target.unit}" if self.figure >= 100 else f"{self.figure:.3g}{self.target.unit}"

    @property
    def wanted(self) -> str:
        """The limit, and its unit."""
        return f"{'≤' if self.target.at_most else '≥'} {self.target.limit:g}{self.target.unit}"


def verdicts(cells: Iterable[Cell]) -> list[Verdict]:
    """Return a verdict for every target and every cell it is about; without peers, none that needs them."""
    found: list[Verdict] = []
    cells = list(cells)
    for target in TARGETS:
        for cell in cells:
            if cell["group"] != target.group or not target.applies(cell):
                continue
            figure = target.figure(cell)
            if figure is None and _about_peers(target) and NAME not in _failed(cell):
                continue  # no peer has it, or none is installed
            found.append(Verdict(target, cell["work"], cell["threads"], figure))
    return found


def _about_peers(target: Target) -> bool:
    return "fastest peer" in target.text


def _failed(cell: Cell) -> set[str]:
    return {name for name, found in cell["contestants"].items() if "failed" in found}
