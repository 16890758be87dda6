"""The command: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import first, guard, machine, memory, page
from benchmarks.contestants import CONTESTANTS
from benchmarks.ours import NAME
from benchmarks.supervise import Plan, measured
from benchmarks.targets import seconds, speedup
from benchmarks.works import GROUPS, Work, all_works, chosen, matches

FULL_SECONDS, QUICK_SECONDS = 3.0, 1.2
FIRST_REPEATS = 5
BUSY = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.write and (options.only or options.quick or options.contestants):
        parser.error("--write writes the whole page; leave out --only, --quick and --contestants")
    unknown = [name for name in options.contestants if name not in {c.name for c in CONTESTANTS}]
    if unknown:
        parser.error(f"no contestant is called {unknown[0]!r}; there are {', '.join(c.name for c in CONTESTANTS)}")
    if options.list:
        print("\n".join(f"{w.group:10} {w.name}{'  (quick)' if w.quick else ''}" for w in all_works()))
        return 0
    results = json.loads(Path(options.read).read_text(encoding="utf-8")) if options.read else _measure(options)
    if not results["cells"]:
        parser.error("no work fits; see --list")
    return _deliver(options, results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Speed of lossmith beside that of its peers."
    )
    add = parser.add_argument
    add("--write", metavar="PAGE", help="write the page, and the results as JSON beside it")
    add("--json", metavar="FILE", help="write the results as JSON")
    add("--read", metavar="FILE", help="take the results from such a file and measure nothing")
    add("--quick", action="store_true", help="a few works only; compare with the recorded ratios, fail below 80 %%")
    add("--record", action="store_true", help="write benchmarks/recorded.json from this run")
    add("--only", metavar="NAME", action="append", default=[], help="works (see --list) or groups; may be repeated")
    add("--contestants", metavar="NAME", nargs="+", default=[], help="these only")
    add("--threads", metavar="N", type=int, nargs="+", default=[], help="numbers of threads (1 and 2)")
    add("--seconds", metavar="S", type=float, help="for one work, by default 3, or 1.2 with --quick")
    add("--list", action="store_true", help="name the works and stop")
    return parser


# ------------------------------------------------------------------ measuring


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    threads = options.threads or _thread_counts(options.quick)
    names = options.contestants or [c.name for c in CONTESTANTS if c.quick or not options.quick]
    works = chosen(all_works(), options.only, options.quick)
    results: dict[str, Any] = {"machine": machine.description(), "versions": {}, "threads": threads, "cells": []}
    if machine.load() > BUSY:
        _say(f"Other processes are running here (load {machine.load():.1f}): the figures will not be worth keeping.")
    began = time.monotonic()
    for count in threads:
        mine = [w for w in works if count > 1 or w.baseline != "one thread"]
        results["cells"] += _in_turns(mine, count, list(names), options, results["versions"])
        if not options.quick:
            results["cells"] += _special(options.only, count, names)
    results["seconds"] = round(time.monotonic() - began)
    _say(f"{len(results['cells'])} cells in {results['seconds']} s")
    return results


def _thread_counts(quick: bool) -> list[int]:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if available < 2:
        _say("One processor only: nothing is measured with two threads.")
        return [1]
    return [2] if quick else [1, 2]


def _in_turns(
    works: list[Work], threads: int, names: list[str], options: argparse.Namespace, versions: dict[str, str | None]
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    time_each = options.seconds or (QUICK_SECONDS if options.quick else FULL_SECONDS)
    for message in measured(Plan(works, threads, names, time_each), _say):
        if "versions" in message:
            _note_versions(message["versions"], versions)
            continue
        found.append(message)
        _say(f"[{_count(threads)}, {len(found)}/{len(works)}] {_summary(message)}")
    return found


def _note_versions(said: dict[str, str | None], versions: dict[str, str | None]) -> None:
    for name, version in said.items():
        if version is None and name not in versions:
            _say(f"{name} is not installed: its column is empty.")
        if version != "":
            versions[name] = version or versions.get(name)


def _special(only: list[str], threads: int, names: list[str]) -> list[dict[str, Any]]:
    """Return what needs a fresh process for each figure."""
    found: list[dict[str, Any]] = []
    for group, cells in (
        ("first", lambda: first.cells(threads, FIRST_REPEATS)),
        ("memory", lambda: memory.cells(threads, names)),
    ):
        if (only and not any(matches(word, group, GROUPS[group]) for word in only)) or NAME not in names:
            continue
        for cell in cells():
            found.append(cell)
            _say(f"[{_count(threads)}] {_summary(cell)}")
    return found


# ------------------------------------------------------------------ saying


def _deliver(options: argparse.Namespace, results: dict[str, Any]) -> int:
    for path in filter(None, (options.json, options.write and str(Path(options.write).with_suffix(".json")))):
        Path(path).write_text(_as_json(_rounded(results)), encoding="utf-8")
    if options.write:
        path = Path(options.write)
        shown = path.name if path.is_absolute() else path.as_posix()
        path.write_text(page.page(results, f"python -m benchmarks --write {shown}"), encoding="utf-8")
        print(page.targets_table(page.verdicts(results["cells"])))
    elif not options.quick:
        print(page.page(results, "python -m benchmarks"))
    status = _compared(results, options) if options.quick and not options.record else 0
    if options.record:
        guard.record(results)
    return status


def _compared(results: dict[str, Any], options: argparse.Namespace) -> int:
    """Print the ratios beside the recorded ones; a work that fell is measured once more before it counts."""
    before = guard.recorded()
    if not before:
        for group in GROUPS:
            cells = [c for c in results["cells"] if c["group"] == group]
            if cells:
                print(page.table(group, cells))
        print("Nothing is recorded to compare with; `--quick --record` does it.")
        return 0
    if before["machine"]["processor"] != results["machine"]["processor"]:
        print(f"Recorded on another processor, {before['machine']['processor']}: ratios may differ for that reason.")
    found = guard.changes(results["cells"], before)
    if any(c.fell for c in found) and not options.read:
        found = _again(found, options, before)
    print(guard.report(found))
    return int(any(c.fell for c in found))


def _again(found: Iterable[guard.Change], options: argparse.Namespace, before: dict[str, Any]) -> list[guard.Change]:
    best = {(c.work, c.threads): c for c in found}
    for count in sorted({c.threads for c in best.values() if c.fell}):
        fell = {c.work for c in best.values() if c.fell and c.threads == count}
        _say(f"Once more: {', '.join(sorted(fell))}")
        works = [w for w in all_works() if w.name in fell]
        names = options.contestants or [c.name for c in CONTESTANTS if c.quick]
        for change in guard.changes(_in_turns(works, count, list(names), options, {}), before):
            key = change.work, change.threads
            best[key] = max(best[key], change, key=lambda c: c.part)
    return list(best.values())


def _summary(cell: dict[str, Any]) -> str:
    mine, gain = seconds(cell, NAME), speedup(cell)
    failed = [name for name, found in cell["contestants"].items() if "failed" in found]
    parts = [cell["work"]]
    if mine is not None:
        parts.append(f"{mine * 1e3:.4g} ms")
    if gain is not None:
        parts.append(f"{gain:.2f}× the fastest peer's speed")
    if "extra" in cell["contestants"].get(NAME, {}):
        parts.append(f"{cell['contestants'][NAME]['extra'] / 2**20:.1f} MiB beyond scores and gradient")
    if failed:
        parts.append(f"failed: {', '.join(failed)}")
    return " · ".join(parts)


def _rounded(results: Any) -> Any:
    """Return the results with four figures in every float."""
    if isinstance(results, dict):
        return {key: _rounded(value) for key, value in results.items()}
    if isinstance(results, list):
        return [_rounded(value) for value in results]
    return float(f"{results:.4g}") if isinstance(results, float) else results


def _as_json(results: dict[str, Any]) -> str:
    """Return JSON with a line for each cell."""
    head = json.dumps({**results, "cells": []}, indent=1, ensure_ascii=False)
    cells = ",\n".join(json.dumps(cell, ensure_ascii=False) for cell in results["cells"])
    return head.replace('"cells": []', f'"cells": [\n{cells}\n]') + "\n"


def _count(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
