"""The benchmark runs, outlives its contestants, and judges right. How fast anything is, nothing here says."""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
WORK = "cross_entropy 128×10"


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def part(name: str) -> ModuleType:
    return import_module(f"benchmarks.{name}")


def timed(**milliseconds: Any) -> dict[str, Any]:
    return {name: {"seconds": ms / 1e3} if isinstance(ms, int | float) else ms for name, ms in milliseconds.items()}


def cell(group: str = "softmax", work: str = WORK, threads: int = 2, **contestants: Any) -> dict[str, Any]:
    return {"work": work, "group": group, "threads": threads, "contestants": timed(**contestants)}


# ------------------------------------------------------------------ the command


def test_smoke_run_without_heavy_peers(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", WORK, "--threads", "1", "--seconds", "0.1", "--json", results,
         "--contestants", "lossmith", "lossmith, out=", "scikit-learn", "NumPy", "copy", "read"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUTF8": "1"},
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(results.read_text(encoding="utf-8"))["cells"]
    assert {name: entry.get("failed") for name, entry in found["contestants"].items()} == dict.fromkeys(
        ["lossmith", "lossmith, out=", "scikit-learn", "NumPy", "copy", "read"]
    )
    assert f"| {WORK} | 1 |" in done.stdout
    assert str(ROOT) not in done.stdout + results.read_text(encoding="utf-8")
    assert "1 thread, 1/1" in done.stderr


@pytest.mark.parametrize(
    "arguments", [["--write", "page.md", "--quick"], ["--contestants", "abacus"], ["--only", "no such work"]]
)
def test_wrong_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        part("__main__").main([*arguments, "--threads", "1"])
    assert end.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_table_names_every_loss_once() -> None:
    from lossmith.losses import CATALOGUE

    works = part("works").all_works()
    names = [w.name for w in works]
    assert len(names) == len(set(names))
    assert {w.loss for w in works} == set(CATALOGUE)
    assert {w.group for w in works} <= set(part("works").GROUPS)


def test_only_takes_exact_names_words_and_patterns() -> None:
    works = part("works")
    names = [[w.name for w in works.chosen(works.WORKS, [word], False)] for word in (WORK, "huber", "nll*1000")]
    assert names == [[WORK], ["huber 4000000"], ["nll 4096×1000"]]


@pytest.mark.parametrize(("module", "peer"), [("with_torch", "torch"), ("with_jax", "jax"), ("with_numpy", "numpy")])
def test_peer_agrees_on_every_work(module: str, peer: str) -> None:
    pytest.importorskip(peer)
    if module == "with_jax":
        pytest.importorskip("optax")
    from dataclasses import replace

    problems, ours = part("problem"), part("ours")
    wrong: dict[str, str] = {}
    for work in part("works").WORKS:
        if not work.peers:
            continue
        small = replace(work, shape=(min(work.shape[0], 40), min(work.classes, 7)) if work.classes > 1 else (50,))
        problem = problems.make_problem(small, 1)
        made, mine = part(module).prepare(problem), ours.prepare(problem)
        if made is not None:
            found = problems.difference(made.answer(made.run()), mine.answer(mine.run()), work.dtype)
            if found:
                wrong[small.name] = found
    assert wrong == {}


# ------------------------------------------------------------------ wrong, failing, crashing contestants


def test_wrong_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    problems, numpy_ = part("problem"), part("with_numpy")
    right = numpy_.WRITTEN["cross_entropy", "value_and_grad"]

    def wrong(s: Any, y: Any) -> Any:
        answer = right(s, y)
        answer["grad"][3, 2] *= 1.01
        return answer

    monkeypatch.setitem(numpy_.WRITTEN, ("cross_entropy", "value_and_grad"), wrong)
    work = next(w for w in part("works").WORKS if w.name == WORK)
    names = {"lossmith", "NumPy"}
    ready, failed = part("worker")._checked(problems.make_problem(work, 1), names, lambda name: None)
    assert set(ready) == {"lossmith"}
    assert failed["NumPy"]["failed"].startswith("grad differs from lossmith's by")


def test_contestant_that_raises_while_timed_is_one_failure() -> None:
    measure, problems = part("measure"), part("problem")
    calls = iter(range(10**9))

    def sometimes() -> None:
        if next(calls) > 50:
            raise MemoryError("no more")

    ready = {"bad": problems.Ready(sometimes, None), "good": problems.Ready(lambda: None, None)}
    found = measure.measure(ready, 0.05, 1, lambda name: None)
    assert found["bad"] == {"failed": "MemoryError: no more"}
    assert found["good"]["seconds"] > 0


WORKER = """
import json, os, signal, sys, time
order = json.loads(sys.argv[1])
say = lambda message: print(json.dumps(message), flush=True)
say({"versions": {}})
for work in order["works"]:
    say({"begins": work})
    for name in order["contestants"]:
        if name not in order["skip"].get(work, []):
            open(order["about"], "w").write(name)
            if name == "crasher" and work == order["works"][-1]:
                os.kill(os.getpid(), signal.SIGSEGV)
            if name == "sleeper":
                time.sleep(60)
    say({"cell": {"work": work, "group": "softmax", "threads": 1, "contestants": {"lossmith": {"seconds": 1.0}}}})
say({"done": True})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    ("name", "reason"), [("crasher", "ended the process with signal 11"), ("sleeper", "took more than 1 s")]
)
def test_crash_and_hang_cost_one_cell_each(name: str, reason: str) -> None:
    works = list(part("works").WORKS[:2] if name == "crasher" else part("works").WORKS[:1])
    command = (sys.executable, "-c", WORKER)
    plan = part("supervise").Plan(works, 1, ["lossmith", name], 0.1, command=command, patience=1.0)
    said: list[str] = []
    cells = [c for c in part("supervise").measured(plan, said.append) if "work" in c]
    assert [c["work"] for c in cells] == [w.name for w in works]
    assert cells[-1]["contestants"] == {"lossmith": {"seconds": 1.0}, name: {"failed": reason}}
    assert all(name not in c["contestants"] for c in cells[:-1])
    assert any(reason in line for line in said)


def test_messages_hold_no_paths() -> None:
    said = part("contestants").described(ValueError(r"cannot open /srv/some/x.py or C:\Temp\y\z.py, 3/4 of 1×10"))
    assert said == "ValueError: cannot open … or …, 3/4 of 1×10"


# ------------------------------------------------------------------ judging


def test_targets_are_judged_by_the_fastest_peer() -> None:
    verdicts = part("targets").verdicts
    fast = cell(lossmith=1.0, torch=9.0, NumPy=2.1)
    slow = cell(lossmith=1.0, torch=9.0, NumPy=1.9)
    assert [(v.met, v.figure) for v in verdicts([fast, slow])] == [(True, 2.1), (False, 1.9)]


def test_a_failure_of_ours_is_a_miss_and_no_peer_is_none() -> None:
    verdicts = part("targets").verdicts
    (missed,) = verdicts([cell(lossmith={"failed": "ValueError: no"}, torch=1.0)])
    assert (missed.met, missed.shown) == (False, "not measured")
    assert verdicts([cell(lossmith=1.0)]) == []


def test_page_tells_misses_failures_and_what_is_not_installed() -> None:
    results = {
        "machine": {"processor": "abacus"},
        "versions": {"lossmith": "0", "torch": None},
        "threads": [2],
        "cells": [cell(lossmith=1.0, NumPy=1.5, **{"scikit-learn": {"failed": "ValueError: no"}})],
    }
    text = part("page").page(results, "python -m benchmarks")
    assert "- torch: not installed" in text
    assert "| scikit-learn | ValueError: no | cross_entropy 128×10 (2 threads) |" in text
    assert "0 of 1 | 1.5×" in text
    assert "### Missed" in text
    assert f"| {WORK} | 2 | 1.00 | failed | **1.50** | 1.5× |" in text


@pytest.mark.parametrize(("now", "fell"), [(1.5, True), (1.7, False), (2.5, False)])
def test_guard_falls_below_four_fifths(tmp_path: Path, now: float, fell: bool) -> None:
    guard = part("guard")
    path = tmp_path / "recorded.json"
    guard.record({"machine": {}, "versions": {}, "cells": [cell(lossmith=1.0, torch=2.0, NumPy=5.0)]}, path)
    (change,) = guard.changes([cell(lossmith=1.0, torch=now, NumPy=9.0)], guard.recorded(path))
    assert (change.beside, change.fell) == ("torch", fell)
    assert guard.report([change]).startswith("FELL" if fell else "ok")
    (change,) = guard.changes([cell(lossmith=1.0, NumPy=5.0)], guard.recorded(path))  # torch is not installed here
    assert (change.beside, change.fell) == ("NumPy", False)
