"""Inputs to try a loss on: ordinary ones, and those on which losses have failed elsewhere.

Every input is a number of the dtype asked for, inside the domain that its role names; every row
says in words what it is about. The same seed gives the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from lossmith.check.interpreter import Sample
from lossmith.language.formula import Domain, Formula, Input

SIZES = (2, 3)
"""The numbers of classes of most rows."""

MORE_SIZES = ((1, 4), (5, 14), (100, 3), (1000, 1))
"""Other numbers of classes, and how many rows have them."""

ORDINARY = "ordinary"
REGIONS: Mapping[str, str] = {
    ORDINARY: "the numbers that textbook code is tried on",
    "spread out": "scores some 10 or 100 apart",
    "nearly equal": "scores that differ by 0.01 or not at all",
    "lead up to 5": "one score up to 5 above the others",
    "lead 15": "one score 15 above the others",
    "lead 20": "one score 20 above the others",
    "lead 30": "one score 30 to 36 above the others",
    "lead 60": "one score 60 above the others",
    "lead over 80": "one score more than 80 above the others",
    "around 1e8": "scores near 1e8 or −1e6, some units apart",
    "up to 1e30": "scores of all sizes up to 1e30, and the largest floats",
    "tiny": "scores near the smallest floats",
    "ties": "whole numbers, and scores that are equal",
    "near 0 or 1": "probabilities within rounding of 0 or 1",
    "at 0 or 1": "probabilities that are 0 or 1",
    "masked": "a score of −∞ or −1e9 that is not the label's",
    "one class": "K = 1",
    "infinite": "a label's score of −∞, and a score of +∞",
    "undefined": "NaN, two scores of +∞, or −∞ everywhere",
}
"""The kinds of inputs, in the order of a report, and what their rows have in common."""


@dataclass(frozen=True)
class Batch:
    """Rows with the same number of classes.

    Attributes
    ----------
    inputs : mapping
        Of each input that is no label: an array (N, K), or (N,) for an elementwise loss.
    label : ndarray or None
        The labels (N,), where the loss has a label.
    notes : tuple of str
        What each row is about.
    regions : tuple of str
        The kind of each row, of REGIONS.
    ordinary : ndarray of bool
        The rows on which naive code does well too.
    finite : ndarray of bool
        The rows without infinities and NaN.
    """

    inputs: Mapping[str, np.ndarray]
    label: np.ndarray | None
    notes: tuple[str, ...]
    regions: tuple[str, ...]
    K: int
    ordinary: np.ndarray = field(init=False)
    finite: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ordinary", np.array([r == ORDINARY for r in self.regions], dtype=bool))
        finite = np.ones(len(self.notes), dtype=bool)
        for array in self.inputs.values():
            finite &= np.isfinite(array).reshape(len(self.notes), -1).all(axis=1)
        object.__setattr__(self, "finite", finite)

    def __len__(self) -> int:
        return len(self.notes)

    def sample(self, row: int, hypers: Mapping[str, Any]) -> Sample:
        """Return one row as a sample for the interpreter."""
        label = None if self.label is None else int(self.label[row])
        return Sample({n: a[row] for n, a in self.inputs.items()}, label, hypers, self.K)

    def arguments(self, formula: Formula, dtype: Any) -> list[np.ndarray]:
        """Return the arrays in the order of the formula's inputs, floats as `dtype`."""
        found: list[np.ndarray] = []
        for i in formula.inputs:
            if i.role.kind == "label":
                assert self.label is not None
                found.append(self.label)
            else:
                found.append(self.inputs[i.name].astype(dtype))
        return found

    def describe(self, row: int) -> str:
        """Return a row in words and numbers, short enough for a table."""
        numbers = [] if self.label is None else [f"y = {self.label[row]}"]
        if self.K > 4:
            numbers.insert(0, f"K = {self.K}")
        numbers += [f"{name} = {in_short(array[row])}" for name, array in self.inputs.items()]
        return f"{self.notes[row]}: {', '.join(numbers)}"


def in_short(values: Any, most: int = 4) -> str:
    """Return a number, or the first few of a row."""
    numbers = [f"{float(v):.9g}" for v in np.atleast_1d(values)[:most]]
    if np.ndim(values) == 0:
        return numbers[0]
    return f"[{', '.join(numbers)}{', …' if len(values) > most else ''}]"


class _Row(NamedTuple):
    region: str
    note: str
    values: np.ndarray
    label: int | None = None
    """The class that the row is about, where it is about one."""


_Rows: TypeAlias = Iterator[_Row]


# ------------------------------------------------------------------ scores

_SPREADS = ((1.0, ORDINARY), (1.0, ORDINARY), (1.0, ORDINARY), (3.0, ORDINARY), (1e-3, "nearly equal"),
            (10.0, "spread out"), (100.0, "spread out"))  # fmt: skip
_LEADS = {0: "nearly equal", 1: "lead up to 5", 5: "lead up to 5", 15: "lead 15", 20: "lead 20", 30: "lead 30",
          36: "lead 30", 60: "lead 60"}  # fmt: skip


def _real_rows(rng: np.random.Generator, K: int, dtype: np.dtype[Any]) -> _Rows:
    info = np.finfo(dtype)
    for scale, region in _SPREADS:
        yield _Row(region, f"normal, scale {scale:g}", rng.normal(size=K) * scale)
    leads = [0, 1, 5, 15, 20, 30, 60, 88, 104, 200]
    for lead in leads if dtype == np.float32 else [15, 20, 36, 60, 300, 700, 745]:
        region, ahead = _LEADS.get(lead, "lead over 80"), int(rng.integers(K))
        row = np.zeros(K)
        row[ahead] = lead
        yield _Row(region, f"lead {lead}", row, ahead)
        yield _Row(region, f"lead {lead}, rest uneven", row + rng.normal(size=K) / 8, ahead)
        if K > 1:
            yield _Row(region, f"behind by {lead}", row, (ahead + 1) % K)
    signs = rng.choice([-1.0, 1.0], K)
    yield _Row("up to 1e30", "scales 1e-30 to 1e30", signs * 10.0 ** rng.uniform(-30, 30, K))
    yield _Row("spread out", "scales 1e-6 to 1e6", signs * 10.0 ** rng.uniform(-6, 6, K))
    yield _Row("tiny", "subnormal", signs * float(info.smallest_subnormal) * rng.integers(1, 99, K))
    yield _Row("tiny", "smallest normal", signs * float(info.tiny) * rng.uniform(1, 4, K))
    yield _Row("up to 1e30", "largest", signs * float(info.max) * rng.uniform(0.02, 0.1, K))
    yield _Row("nearly equal", "all zero", np.zeros(K))
    yield _Row("nearly equal", "all equal", np.full(K, 2.5))
    yield _Row("around 1e8", "far from zero", 1e8 + 8.0 * rng.integers(0, 9, K))
    yield _Row("around 1e8", "far below zero", -1e6 + rng.integers(0, 30, K))
    yield _Row("ties", "whole numbers", rng.integers(-2, 3, K).astype(float))
    yield _Row("ties", "whole numbers", rng.integers(-1, 2, K).astype(float))
    if K > 1:
        yield from _ties_and_infinities(rng, K)


def _ties_and_infinities(rng: np.random.Generator, K: int) -> _Rows:
    row = np.round(rng.normal(size=K), 3) - 4
    a, b = rng.choice(K, 2, replace=False)
    row[[a, b]] = 1.5
    yield _Row("ties", "tie of two", row, int(a))
    masked = rng.normal(size=K)
    masked[b] = -np.inf
    yield _Row("masked", "−∞ beside the label", masked, int(a))
    yield _Row("infinite", "−∞ at the label", masked, int(b))
    large = rng.normal(size=K)
    large[a] = np.inf
    yield _Row("infinite", "+∞ at the label", large, int(a))
    yield _Row("infinite", "+∞ beside the label", large, int(b))
    yield _Row("masked", "additive mask of −1e9", np.where(np.isinf(masked), -1e9, masked), int(a))
    yield _Row("undefined", "all −∞", np.full(K, -np.inf))
    missing = rng.normal(size=K)
    missing[a] = np.nan
    yield _Row("undefined", "NaN", missing, int(b))


def _distributions(rng: np.random.Generator, K: int, dtype: np.dtype[Any]) -> _Rows:
    tiny = float(np.finfo(dtype).tiny)
    for scale in (1.0, 1.0, 3.0):
        p = np.exp(scale * rng.normal(size=K))
        yield _Row(ORDINARY if K > 1 else "at 0 or 1", "a distribution", p / p.sum())
    yield _Row("ties", "uniform", np.full(K, 1 / K))
    at = int(rng.integers(K))
    onehot = np.eye(K)[at]
    yield _Row("at 0 or 1", "one-hot", onehot, at)
    yield _Row(ORDINARY if K > 1 else "at 0 or 1", "one-hot, smoothed", 0.9 * onehot + 0.1 / K, at)
    if K > 1:
        yield _Row("at 0 or 1", "one-hot, of another class", onehot, (at + 1) % K)
        rest = np.full(K, 0.5 / max(1, K - 2))
        rest[at], rest[at - 1] = 0.5, 0.0
        yield _Row("at 0 or 1", "a zero", rest / rest.sum(), at)
        for small in (1e-7, 1e-30, tiny, float(np.finfo(dtype).smallest_subnormal) * 3):
            p = np.full(K, small)
            p[at] = 1 - small * (K - 1)
            yield _Row("near 0 or 1", f"rest {small:.0e}", p, at)
            yield _Row("near 0 or 1", f"rest {small:.0e}, label there", p, (at + 1) % K)


def _unit_rows(rng: np.random.Generator, K: int, dtype: np.dtype[Any]) -> _Rows:
    yield from _distributions(rng, K, dtype)
    yield _Row(ORDINARY, "in (0, 1)", rng.uniform(0.05, 0.95, K))
    yield _Row(ORDINARY, "in (0, 1)", rng.uniform(0.05, 0.95, K))
    yield _Row("near 0 or 1", "near 1", 1 - np.finfo(dtype).eps * rng.integers(1, 9, K))
    yield _Row("ties", "near 1/2", 0.5 + np.finfo(dtype).eps * rng.integers(-9, 9, K))
    yield _Row("at 0 or 1", "0 and 1", rng.integers(0, 2, K).astype(float))


def _positive_rows(rng: np.random.Generator, K: int, dtype: np.dtype[Any]) -> _Rows:
    yield _Row(ORDINARY, "around 1", np.exp(rng.normal(size=K)))
    yield _Row(ORDINARY, "around 1", np.exp(rng.normal(size=K)))
    yield _Row("up to 1e30", "scales 1e-30 to 1e30", 10.0 ** rng.uniform(-30, 30, K))
    yield _Row("tiny", "smallest normal", float(np.finfo(dtype).tiny) * rng.uniform(1, 4, K))
    yield _Row("ties", "whole numbers", rng.integers(1, 5, K).astype(float))
    yield _Row("ties", "all 1", np.ones(K))


def _nonnegative_rows(rng: np.random.Generator, K: int, dtype: np.dtype[Any]) -> _Rows:
    yield from _positive_rows(rng, K, dtype)
    yield _Row("ties", "counts", rng.integers(0, 4, K).astype(float))
    yield _Row("tiny", "all zero", np.zeros(K))


def _rows_above_minus_one(rng: np.random.Generator, K: int, dtype: np.dtype[Any]) -> _Rows:
    for row in _positive_rows(rng, K, dtype):
        yield _Row(row.region, row.note, np.maximum(row.values - 1, -1 + 2 * float(np.finfo(dtype).eps)))
    yield _Row("tiny", "around 0", float(np.finfo(dtype).tiny) * rng.normal(size=K))
    yield _Row("ties", "all zero", np.zeros(K))


def _sign_rows(rng: np.random.Generator, K: int, dtype: np.dtype[Any]) -> _Rows:
    del dtype
    yield _Row(ORDINARY, "signs", rng.choice([-1.0, 1.0], K))


_Recipe: TypeAlias = Callable[[np.random.Generator, int, np.dtype[Any]], _Rows]
_RECIPES: dict[Domain, _Recipe] = {
    "real": _real_rows,
    "unit": _unit_rows,
    "simplex": _distributions,
    "sign": _sign_rows,
    "nonnegative": _nonnegative_rows,
    "positive": _positive_rows,
    "above -1": _rows_above_minus_one,
}


# ------------------------------------------------------------------ targets


def _targets(
    item: Input, rng: np.random.Generator, scores: np.ndarray, dtype: np.dtype[Any], number: int
) -> tuple[str, np.ndarray]:
    """Return targets for one row of scores, a different kind for each number in turn."""
    K = len(scores)
    domain = item.role.domain
    if domain == "real" and K == 1:
        return _real_target(rng, scores, number)
    if domain == "real":  # most losses of a row with targets mean a distribution
        domain = "simplex" if number % 3 else "nonnegative"
    rows = [r for r in _RECIPES[domain](rng, K, dtype) if np.isfinite(r.values).all()]
    row = rows[number % len(rows)]
    return row.note, row.values


def _real_target(rng: np.random.Generator, scores: np.ndarray, number: int) -> tuple[str, np.ndarray]:
    near = np.where(np.isfinite(scores), scores, 0.0)
    kinds: list[tuple[str, np.ndarray]] = [
        ("normal", rng.normal(size=1)),
        ("a little off", near * (1 + 0.1 * rng.normal(size=1))),
        ("hit exactly", near),
        ("off by 1", near + rng.choice([-1.0, 1.0])),
        ("0", np.zeros(1)),
        ("1", np.ones(1)),
    ]
    return kinds[number % len(kinds)]


# ------------------------------------------------------------------ batches


def batches(
    formula: Formula,
    dtype: Any = np.float32,
    *,
    seed: int = 0,
    sizes: Sequence[int] = SIZES,
    large: bool = True,
) -> list[Batch]:
    """Return the inputs to try a loss on, all of them numbers of `dtype`.

    Parameters
    ----------
    formula : Formula
        Whose inputs, and in which domains.
    dtype : float32 or float64
        For float32, leads up to 200; for float64, what float32 cannot express.
    sizes : sequence of int
        The numbers of classes.
    large : bool
        Whether to add a few rows with 1, 5, 100 and 1000 classes.
    """
    made = np.dtype(dtype)
    rng = np.random.default_rng([seed, made.itemsize])
    if formula.kind == "elementwise":
        return [_batch(formula, rng, 1, made, repeat=2)]
    found = [_batch(formula, rng, K, made) for K in sizes]
    if large:
        found += [_few(_batch(formula, rng, K, made), n) for K, n in MORE_SIZES]
    return found


def _batch(formula: Formula, rng: np.random.Generator, K: int, dtype: np.dtype[Any], repeat: int = 1) -> Batch:
    first, *others = (i for i in formula.inputs if i.role.kind == "scores")
    recipe = _RECIPES[first.role.domain]
    rows = [r for _ in range(repeat) for r in recipe(rng, K, dtype)]
    if formula.kind == "elementwise" and first.role.domain == "real":
        for region, note, value in (
            ("infinite", "+∞", np.inf),
            ("infinite", "−∞", -np.inf),
            ("undefined", "NaN", np.nan),
        ):
            rows.append(_Row(region, note, np.array([value])))
    notes = [r.note for r in rows]
    columns: dict[str, list[np.ndarray]] = {first.name: [r.values for r in rows]}
    for other in others:
        pool = [r.values for r in _RECIPES[other.role.domain](rng, K, dtype) if r.region == ORDINARY]
        columns[other.name] = [pool[k % len(pool)] for k in range(len(rows))]
    for item in formula.of_role("targets"):
        drawn = [_targets(item, rng, r.values, dtype, k) for k, r in enumerate(rows)]
        columns[item.name] = [values for _, values in drawn]
        notes = [f"{n}; {item.name}: {t}" for n, (t, _) in zip(notes, drawn, strict=True)]
    with np.errstate(over="ignore", under="ignore"):
        inputs = {n: _as_dtype(np.array(c), dtype) for n, c in columns.items()}
    label = None
    if formula.of_role("label"):
        drawn_labels = rng.integers(K, size=len(rows))
        about = [int(d) if r.label is None else r.label for r, d in zip(rows, drawn_labels, strict=True)]
        label = np.array(about, dtype=np.int64)
    if formula.kind == "elementwise":
        inputs = {n: a[:, 0] for n, a in inputs.items()}
    alone = K == 1 and formula.kind == "row"
    regions = tuple("one class" if alone and np.isfinite(r.values).all() else r.region for r in rows)
    return Batch(inputs, label, tuple(notes), regions, K)


def _as_dtype(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    rounded = values.astype(dtype)
    # A finite number that rounding would take to infinity stays the largest.
    largest = np.finfo(dtype).max
    return np.where(np.isfinite(values), np.clip(rounded, -largest, largest), rounded)


def _few(batch: Batch, count: int) -> Batch:
    return some_rows(batch, np.linspace(0, len(batch) - 1, count + 1).astype(int)[:count])


def some_rows(batch: Batch, chosen: np.ndarray) -> Batch:
    """Return the rows of a batch with these numbers."""
    return Batch(
        {n: a[chosen] for n, a in batch.inputs.items()},
        None if batch.label is None else batch.label[chosen],
        tuple(batch.notes[k] for k in chosen),
        tuple(batch.regions[k] for k in chosen),
        batch.K,
    )
