"""The page with the results, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.contestants import BASELINE, PEERS
from benchmarks.memory_bound import COPY, READ
from benchmarks.ours import NAME, REUSED
from benchmarks.remarks import remark
from benchmarks.targets import Cell, Verdict, fastest_peer, ratio, seconds, share, speedup, verdicts
from benchmarks.works import GROUPS

COLUMNS = (NAME, REUSED, *PEERS, BASELINE, COPY, READ)
BASELINES = {
    "second": "lossmith's value and gradient",
    "options": "lossmith without the option",
    "formula": "the catalogue's loss",
    "exact": "lossmith without it",
    "scaling": "lossmith on one thread",
}
"""What the column "baseline" holds, by group."""

LIMIT_HEAD = ("work", "threads", "measured", "memory alone")

HEAD = """\
# Performance

<!-- Written by `{command}`. Do not edit: change the code, or benchmarks/remarks.py, and run it again. -->

{machine}

Every row is one process in which all contestants take turns (A B C A B C …) on the same arrays; times are medians of
single calls, in milliseconds unless said. Before it is timed, each contestant's result is compared with lossmith's.
“lossmith” returns fresh arrays, as a user calls it; “out=” writes to an array that exists. Peers get what suits them:
arrays converted before the clock starts, PyTorch eager and with `torch.compile`, JAX under `jit`, scikit-learn without
the division by N.
“copy” and “read” are the memory system: copying the scores to an array that exists, and reading them once, with as many
threads. “speed-up” is the fastest peer's time ÷ lossmith's; “bandwidth” is the share of the bandwidth of copying (of
reading, for values) that lossmith reaches with every array counted once. — : the peer does not have it. ‡ : written out
in the peer's functions, there is none of that name.
"""


def page(results: Mapping[str, Any], command: str) -> str:
    """Return the whole page.

    Parameters
    ----------
    results : mapping
        "machine", "versions", "threads" and "cells".
    command : str
        What wrote it, for the header.
    """
    cells: list[Cell] = results["cells"]
    judged = verdicts(cells)
    head = HEAD.format(command=command, machine=machine(results))
    parts = [head, "## Targets\n", targets_table(judged), *misses(judged, cells), *failures(cells)]
    for group, title in GROUPS.items():
        mine = [c for c in cells if c["group"] == group]
        if mine:
            parts += [f"## {title}\n", table(group, mine)]
    return "\n".join(parts).rstrip() + "\n"


def machine(results: Mapping[str, Any]) -> str:
    """Return one list of what the numbers depend on."""
    about = results["machine"]
    lines = [f"- {key}: {value}" for key, value in about.items() if value]
    lines += [f"- {name}: {version or 'not installed'}" for name, version in results["versions"].items()]
    lines.append(f"- threads: {', '.join(map(str, results['threads']))}")
    return "\n".join(lines)


# ------------------------------------------------------------------ targets


def targets_table(judged: Sequence[Verdict]) -> str:
    """Return one line for each target: how often it is met, and the worst figure."""
    rows: list[list[str]] = []
    for target in dict.fromkeys(v.target for v in judged):
        mine = [v for v in judged if v.target is target]
        worst = worst_of(mine)
        met = sum(v.met for v in mine)
        where = f"{worst.work}, {_threads(worst.threads)}"
        rows.append([target.text, worst.wanted, f"{met} of {len(mine)}", worst.shown, where])
    return _markdown(["target", "", "met", "worst", "where"], rows)


def worst_of(judged: Sequence[Verdict]) -> Verdict:
    """Return the verdict farthest from its limit on the wrong side."""

    def distance(v: Verdict) -> float:
        if v.figure is None:
            return float("inf")
        return v.figure / v.target.limit if v.target.at_most else v.target.limit / v.figure

    return max(judged, key=distance)


def misses(judged: Sequence[Verdict], cells: Sequence[Cell]) -> list[str]:
    """Return the targets that are missed: what was measured, the physical limit beside it, and what is known of why."""
    missed = [v for v in judged if not v.met]
    if not missed:
        return ["Every target is met.\n"]
    by_work = {(c["work"], c["threads"]): c for c in cells}
    parts = ["### Missed\n", "“memory alone” is the time that moving the arrays takes at the bandwidth of a copy.\n"]
    for target in dict.fromkeys(v.target for v in missed):
        mine = [v for v in missed if v.target is target]
        rows = [[v.work, str(v.threads), v.shown, limit(by_work[v.work, v.threads])] for v in mine]
        parts += [f"{target.text}, wanted {mine[0].wanted}:\n", _markdown(LIMIT_HEAD, rows)]
        reasons: dict[str, list[str]] = {}
        for v in mine:
            reasons.setdefault(remark(target.text, v.work), []).append(v.work)
        parts += [_reason(text, works, len(reasons)) for text, works in reasons.items()]
    return parts


def _reason(text: str, works: list[str], reasons: int) -> str:
    """Return a paragraph on why; it names the works if there are several reasons."""
    about = f" ({'; '.join(dict.fromkeys(works))})" if reasons > 1 else ""
    return f"Why{about}: {text or 'not explained yet.'}\n"


def limit(cell: Cell) -> str:
    """Return how long moving the arrays takes at the bandwidth of copying (of reading, for values)."""
    writes = seconds(cell, REUSED) is not None
    bound = seconds(cell, COPY if writes else READ)
    if bound is None or "streams" not in cell:
        return ""
    return f"{_time(cell['streams'] / (2 if writes else 1) * bound)} ms"


def failures(cells: Iterable[Cell]) -> list[str]:
    """Return the contestants that failed, with the reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        for name, entry in cell["contestants"].items():
            if "failed" in entry:
                found.setdefault((name, entry["failed"]), []).append(f"{cell['work']} ({_threads(cell['threads'])})")
    if not found:
        return []
    rows = [[name, reason, "; ".join(where)] for (name, reason), where in found.items()]
    return ["### Failed\n", _markdown(["contestant", "reason", "where"], rows)]


# ------------------------------------------------------------------ times


def table(group: str, cells: Sequence[Cell]) -> str:
    """Return the times of one group."""
    if group == "memory":
        return _memory_table(cells)
    shown = [c for c in COLUMNS if any(c in cell["contestants"] for cell in cells)]
    names = [BASELINES.get(group, c) if c == BASELINE else c for c in shown]
    extra = ["speed-up", "÷ baseline", "bandwidth"]
    rows: list[list[str]] = []
    for cell in cells:
        peer = fastest_peer(cell)
        times = [_cell(cell, name, peer is not None and peer[0] == name) for name in shown]
        rows.append([cell["work"], str(cell["threads"]), *times, *derived(cell)])
    used = [k for k, _ in enumerate(extra) if any(row[len(row) - len(extra) + k] for row in rows)]
    cut = len(rows[0]) - len(extra)
    head = ["work", "threads", *names, *(extra[k] for k in used)]
    return _markdown(head, [[*row[:cut], *(row[cut + k] for k in used)] for row in rows])


def derived(cell: Cell) -> tuple[str, str, str]:
    """Return speed-up, ratio to the baseline and share of bandwidth, "" where there is none."""
    gain, base, part = speedup(cell), ratio(cell, NAME, BASELINE), share(cell)
    return (
        "" if gain is None else f"{gain:.2g}×" if gain < 10 else f"{gain:.0f}×",
        "" if base is None else f"{base:.2f}",
        "" if part is None else f"{part:.0%}",
    )


def _cell(cell: Cell, name: str, fastest: bool) -> str:
    found = cell["contestants"].get(name)
    if found is None:
        return "—"
    if "failed" in found:
        return "failed"
    mark = "" if found.get("library", True) else " ‡"
    text = _time(found["seconds"])
    return (f"**{text}**" if fastest else text) + mark


def _memory_table(cells: Sequence[Cell]) -> str:
    names = [n for n in COLUMNS if any(n in c["contestants"] for c in cells)]
    rows: list[list[str]] = []
    for cell in cells:
        entries = [cell["contestants"].get(name, {}) for name in names]
        shown = [f"{e['extra'] / 2**20:.1f}" if "extra" in e else "failed" if "failed" in e else "—" for e in entries]
        rows.append([cell["work"], str(cell["threads"]), *shown])
    note = "MiB beyond the scores and one array for the gradient, at the peak of one call.\n\n"
    return note + _markdown(["work", "threads", *names], rows)


def _time(taken: float) -> str:
    """Return milliseconds with three figures."""
    ms = taken * 1e3
    return f"{ms:.4f}" if ms < 0.1 else f"{ms:.3f}" if ms < 1 else f"{ms:.2f}" if ms < 10 else f"{ms:.1f}"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(text.replace('|', '∣') for text in line)} |" for line in lines) + "\n"
