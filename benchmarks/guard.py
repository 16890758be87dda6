"""The guard against regressions: ratios of a quick run beside those that were recorded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contestants import BASELINE, PEERS
from benchmarks.memory_bound import COPY
from benchmarks.ours import NAME
from benchmarks.targets import Cell, ratio, seconds

PATH = Path(__file__).with_name("recorded.json")
LEAST = 0.8
"""A ratio below this part of the recorded one is a regression."""


@dataclass(frozen=True)
class Change:
    """A ratio now and when it was recorded: how many times as long as lossmith another takes."""

    work: str
    threads: int
    beside: str
    now: float
    recorded: float

    @property
    def part(self) -> float:
        """The ratio now, as part of the recorded one."""
        return self.now / self.recorded

    @property
    def fell(self) -> bool:
        """Whether it is a regression."""
        return self.part < LEAST


def ratios(cell: Cell) -> dict[str, float]:
    """Return every other contestant's time in units of lossmith's."""
    found: dict[str, float] = {}
    for name in (*PEERS, BASELINE, COPY):
        value = ratio(cell, name, NAME)
        if value is not None:
            found[name] = round(value, 4)
    return found


def record(results: Mapping[str, Any], path: Path = PATH) -> None:
    """Write the ratios of a run."""
    kept = {f"{c['work']} @ {c['threads']}": ratios(c) for c in results["cells"] if seconds(c, NAME) is not None}
    text = {"machine": results["machine"], "versions": results["versions"], "ratios": kept}
    path.write_text(json.dumps(text, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def recorded(path: Path = PATH) -> dict[str, Any]:
    """Return what was recorded; empty if nothing was."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def changes(cells: Iterable[Cell], before: Mapping[str, Any]) -> list[Change]:
    """Return the ratio to the fastest peer that took part both times (to copying, where there is none)."""
    found: list[Change] = []
    for cell in cells:
        now, then = ratios(cell), before.get("ratios", {}).get(f"{cell['work']} @ {cell['threads']}", {})
        both = [n for n in then if n in now and n in PEERS]
        both = both or [n for n in (BASELINE, COPY) if n in then and n in now]
        if both:
            beside = min(both, key=lambda n: then[n])
            found.append(Change(cell["work"], cell["threads"], beside, now[beside], then[beside]))
    return found


def report(found: Iterable[Change]) -> str:
    """Return a line for each."""
    lines = [
        f"{'FELL' if c.fell else 'ok  '} {c.work}, {c.threads} threads: {c.now:.2f}× ({c.beside}), "
        f"recorded {c.recorded:.2f}×, {c.part:.0%}"
        for c in found
    ]
    return "\n".join(lines)
