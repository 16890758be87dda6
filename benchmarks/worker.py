"""The process that measures: one for each number of threads, started by `supervise`.

It gets one JSON object as its argument and writes JSON lines. Before a contestant's code runs, its name goes into the
file `about`: if the process dies, that is who killed it.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import IO, Any


def main() -> None:
    """Measure the works asked for."""
    order = json.loads(sys.argv[1])
    _bind_to_processors(order["threads"])
    # What libraries print must not come between the lines.
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    descriptor = os.open(order["about"], os.O_WRONLY | os.O_CREAT)

    def about(name: str) -> None:
        os.pwrite(descriptor, name.ljust(80).encode(), 0)

    versions = _versions(order, about)
    _say(lines, {"versions": versions})
    from benchmarks.works import all_works

    works = {w.name: w for w in all_works()}
    for name in order["works"]:
        about("the inputs")
        _say(lines, {"begins": name})
        skip = set(order["skip"].get(name, ()))
        _say(lines, {"cell": _cell(works[name], order, {n for n in versions if versions[n] is not None} - skip, about)})
    _say(lines, {"done": True})


def _bind_to_processors(threads: int) -> None:
    """Let this process run on as many processors as it has threads: XLA sizes its pool by them."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def _versions(order: dict[str, Any], about: Callable[[str], None]) -> dict[str, str | None]:
    """Import the contestants, and return their versions; None for one that is not installed."""
    from benchmarks.contestants import CONTESTANTS, cleaned

    found: dict[str, str | None] = {}
    for contestant in CONTESTANTS:
        if contestant.name not in order["contestants"]:
            continue
        about(contestant.name)
        try:
            found[contestant.name] = contestant.version() if contestant.version else ""
        except Exception as error:
            found[contestant.name] = None
            print(cleaned(str(error)), file=sys.stderr)
    return found


def _cell(work: Any, order: dict[str, Any], names: set[str], about: Callable[[str], None]) -> dict[str, Any]:
    """Return the times of one work."""
    from benchmarks.contestants import described
    from benchmarks.measure import measure
    from benchmarks.problem import make_problem

    cell: dict[str, Any] = {"work": work.name, "group": work.group, "threads": order["threads"]}
    try:
        problem = make_problem(work, order["threads"])
    except Exception as error:
        return cell | {"contestants": {n: {"failed": described(error)} for n in sorted(names)}}
    ready, failed = _checked(problem, names, about)
    times = measure(ready, order["seconds"] * work.seconds, order["threads"], about)
    return cell | {
        "contestants": failed | times,
        "bytes": problem.scores.nbytes,
        "streams": problem.streams,
        "classes": work.classes,
    }


def _checked(problem: Any, names: set[str], about: Callable[[str], None]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the contestants that are ready to run and gave the right answer, and what is wrong with the others."""
    from benchmarks.contestants import CONTESTANTS, described
    from benchmarks.problem import difference

    ready: dict[str, Any] = {}
    failed: dict[str, Any] = {}
    expected = None
    for contestant in CONTESTANTS:
        if contestant.name not in names or (contestant.role == "peer" and not problem.work.peers):
            continue
        about(contestant.name)
        try:
            made = contestant.prepare(problem)
            if made is None:
                continue
            raw = made.run()
            if made.answer is not None:
                answer = made.answer(raw)
                expected = expected or answer
                wrong = difference(answer, expected, problem.work.dtype)
                if wrong:
                    failed[contestant.name] = {"failed": wrong}
                    continue
            ready[contestant.name] = made
        except Exception as error:
            failed[contestant.name] = {"failed": described(error)}
    return ready, failed


def _say(lines: IO[str], message: dict[str, Any]) -> None:
    print(json.dumps(message), file=lines, flush=True)


if __name__ == "__main__":
    main()
