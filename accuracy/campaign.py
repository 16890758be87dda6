"""The whole measurement: which batches, in which processes, kept so that it can be taken up again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from accuracy.chunk import Found, Job, measure
from accuracy.draw import SIZES
from accuracy.judge import Place, Worst
from lossmith import Loss
from lossmith.losses import CATALOGUE

BATCH, BATCH_OF_ELEMENTS, FEWEST = 2000, 5000, 16
"""Rows of a batch; the fewest batches of a loss, so that small runs too see both dtypes and all outputs."""
LARGE = ((100, 1000, 50), (1000, 100_000, 5), (100_000, 500_000, 1))
"""Numbers of classes; one row in so many has them; so many together."""

SOFT, CONFIRMED = 0.15, 20
"""The share of batches with distributions for labels; every how many batches the oracle itself is checked."""

BACKENDS = ("numba", "numpy")

ROOT = Path(__file__).resolve().parent.parent

Key: TypeAlias = tuple[str, str, str, str, str]
Progress: TypeAlias = Callable[[int, int, str], None]


@dataclass
class Totals:
    """What has been found, of all batches.

    Attributes
    ----------
    worst : dict
        Of each (loss, dtype, precision, back end, output).
    rows : dict
        Rows of each (loss, dtype).
    sizes : dict
        Rows of each number of classes; of elementwise losses, 0.
    confirmed, soft : int
        Rows at which mpmath confirmed the oracle; rows with a distribution for a label.
    broken : list of str
    seconds : float
        Of all processes together.
    """

    worst: dict[Key, Worst] = field(default_factory=dict)
    rows: dict[tuple[str, str], int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    confirmed: int = 0
    soft: int = 0
    broken: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, job: Job, found: Found) -> None:
        where, K = (job.loss, job.dtype), 0 if CATALOGUE[job.loss].kind == "elementwise" else job.K
        self.rows[where] = self.rows.get(where, 0) + found.rows
        self.sizes[K] = self.sizes.get(K, 0) + found.rows
        self.confirmed += found.confirmed
        self.soft += found.rows * job.soft
        self.seconds += found.seconds
        self.broken += [f"{job.loss}, {text}" for text in found.broken]
        for part, worst in found.worst.items():
            key = (job.loss, *part)
            self.worst[key] = self.worst[key].merged(worst) if key in self.worst else worst


def jobs(loss: Loss, rows: int, seed: int, backends: Sequence[str] = BACKENDS) -> Iterator[Job]:
    """Yield the batches of one loss, `rows` rows in all and a few of many classes.

    The first of the back ends runs them all, every one of them an eighth.
    """
    single, has_label = loss.kind == "elementwise", loss.label_name is not None
    size = min(BATCH_OF_ELEMENTS if single else BATCH, -(-rows // FEWEST))
    done, number = 0, 0
    while done < rows:
        rng = np.random.default_rng([seed, number])
        job = Job(
            loss.name,
            number,
            ("float32", "float64")[number % 2],
            1 if single else int(rng.choice(list(SIZES), p=list(SIZES.values()))),
            min(size, rows - done),
            soft=has_label and bool(rng.random() < SOFT),
            product=number // 2 % 4 == 0,
            backends=tuple(backends if number // 2 % 8 == 1 else backends[:1]),
            seed=seed,
            confirmed=1 if number % CONFIRMED == 0 else 0,
        )
        done, number = done + job.rows, number + 1
        yield job
    if single:
        return
    for K, one_in, together in LARGE:
        for start in range(0, rows // one_in, together):
            count = min(together, rows // one_in - start)
            yield Job(
                loss.name, number, ("float32", "float64")[number % 2], K, count, backends=tuple(backends[:1]), seed=seed
            )
            number += 1


def measure_named(job: Job) -> Found:
    """Measure a batch of a loss of the catalogue; what is raised is a broken promise too."""
    began = time.process_time()
    try:
        found = measure(CATALOGUE[job.loss], job)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        found = Found(0, {}, [f"{job.dtype}, K = {job.K}, batch {job.number}: raised {type(error).__name__}: {text}"])
    found.seconds = time.process_time() - began
    return found


def run(
    names: Sequence[str],
    rows: int,
    seed: int,
    *,
    processes: int,
    progress: Progress,
    keep: Path | None = None,
    backends: Sequence[str] = BACKENDS,
    minutes: float = math.inf,
) -> Totals:
    """Measure losses of the catalogue.

    Parameters
    ----------
    names : sequence of str
    rows : int
        Of each loss.
    seed : int
    processes : int
        0 measures in this one.
    progress : callable
        Called with (done, total, text) after each batch.
    keep : Path, optional
        A file to which every batch is written, and from which those that it has already are taken.
    backends : sequence of str
    minutes : float
        No batch is begun later than this.
    """
    work = _side_by_side(job for name in names for job in jobs(CATALOGUE[name], rows, seed, backends))
    totals, kept = Totals(), _Kept(keep)
    left: list[Job] = []
    for job in work:
        found = kept.found.get(_name(job))
        if found is None:
            left.append(job)
        else:
            totals.add(job, found)
    done = len(work) - len(left)
    for job, found in _measured(left, processes, time.monotonic() + 60 * minutes):
        totals.add(job, found)
        kept.add(job, found)
        done += 1
        progress(done, len(work), f"{job.loss}, {job.dtype}, {job.K} classes")
    return totals


def _side_by_side(work: Iterable[Job]) -> list[Job]:
    """Order batches so that a run cut short has seen as much of every loss, and of each number of classes."""
    groups: dict[tuple[str, int], list[Job]] = {}
    for job in work:
        groups.setdefault((job.loss, 0 if job.K in SIZES else job.K), []).append(job)
    placed = [((k + 0.5) / len(group), job) for group in groups.values() for k, job in enumerate(group)]
    return [job for _, job in sorted(placed, key=lambda one: one[0])]


def _measured(work: Sequence[Job], processes: int, until: float) -> Iterator[tuple[Job, Found]]:
    if processes == 0 or not work:
        for job in work:
            if time.monotonic() < until:
                yield job, measure_named(job)
        return
    # Spawned, not forked: kernels run on threads.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(measure_named, job): job for job in work}
        try:
            for future in as_completed(waiting):
                if not future.cancelled():
                    yield waiting[future], future.result()
                if time.monotonic() >= until:
                    for other in waiting:
                        other.cancel()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


# ------------------------------------------------------------------ kept results


def fingerprint() -> str:
    """Return what changes with the library's source and this tool's."""
    digest = hashlib.sha256()
    for path in sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "accuracy").glob("*.py")]):
        if path.name not in ("page.py", "__main__.py"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _name(job: Job) -> str:
    return json.dumps(dataclasses.astuple(job))


class _Kept:
    """A file of batches, a line each; one of another state of the source is begun anew."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.found = path, dict[str, Found]()
        if path is None:
            return
        head = json.dumps({"source": fingerprint()})
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if not lines or lines[0] != head:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(head + "\n", encoding="utf-8")
            return
        for line in lines[1:]:
            try:
                name, found = json.loads(line)
            except ValueError:  # the last line of a run that was cut off
                continue
            self.found[name] = _read(found)

    def add(self, job: Job, found: Found) -> None:
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([_name(job), _written(found)], ensure_ascii=False) + "\n")


def _written(found: Found) -> dict[str, Any]:
    worst = [[*key, dataclasses.asdict(w)] for key, w in found.worst.items()]
    return {**dataclasses.asdict(dataclasses.replace(found, worst={})), "worst": worst}


def _read(data: dict[str, Any]) -> Found:
    worst: dict[tuple[str, str, str, str], Worst] = {}
    for *key, figures in data["worst"]:
        places = {name: Place(**figures.pop(name)) for name in ("ulp", "share")}
        worst[tuple(key)] = Worst(**figures, **places)
    return Found(**{**data, "worst": worst})
