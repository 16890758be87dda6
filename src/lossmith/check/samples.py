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
    ordinary : ndarray of bool
        The rows on which naive code does well too.
    finite : ndarray of bool
        The rows without infinities and NaN.
    """

    inputs: Mapping[str, np.ndarray]
    label: np.ndarray | None
    notes: tuple[str, ...]
    ordinary: np.ndarray
    K: int
    finite: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
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
        numbers += [f"{name} = {_shown(array[row])}" for name, array in self.inputs.items()]
        return f"{self.notes[row]}: {', '.join(numbers)}"


def _shown(values: Any) -> str:
    numbers = [f"{float(v):.9g}" for v in np.atleast_1d(values)[:4]]
    if np.ndim(values) == 0:
        return numbers[0]
    return f"[{', '.join(numbers)}{', …' if len(values) > 4 else ''}]"


class _Row(NamedTuple):
    note: str
    values: np.ndarray
    label: int | None = None
    """The class that the row is about, where it is about one."""
    ordinary: bool = False


_Rows: TypeAlias = Iterator[_Row]


# ------------------------------------------------------------------ scores


def _real_rows(rng: np.random.Generator, K: int, dtype: np.dtype[Any]) -> _Rows:
    info = np.finfo(dtype)
    for scale in (1.0, 1.0, 1.0, 3.0, 1e-3, 10.0, 100.0):
        ordinary = scale in (1.0, 3.0)
        yield _Row(f"normal, scale {scale:g}", rng.normal(size=K) * scale, ordinary=ordinary)
    leads = [0, 1, 5, 15, 20, 30, 60, 88, 104, 200]
    for lead in leads if dtype == np.float32 else [15, 36, 300, 700, 745]:
        ahead = int(rng.integers(K))
        row = np.zeros(K)
        row[ahead] = lead
        yield _Row(f"lead {lead}", row, ahead)
        yield _Row(f"lead {lead}, rest uneven", row + rng.normal(size=K) / 8, ahead)
        if K > 1:
            yield _Row(f"behind by {lead}", row, (ahead + 1) % K)
    signs = rng.choice([-1.0, 1.0], K)
    yield _Row("scales 1e-30 to 1e30", signs * 10.0 ** rng.uniform(-30, 30, K))
    yield _Row("scales 1e-6 to 1e6", signs * 10.0 ** rng.uniform(-6, 6, K))
    yield _Row("subnormal", signs * float(info.smallest_subnormal) * rng.integers(1, 99, K))
    yield _Row("smallest normal", signs * float(info.tiny) * rng.uniform(1, 4, K))
    yield _Row("largest", signs * float(info.max) * rng.uniform(0.02, 0.1, K))
    yield _Row("all zero", np.zeros(K))
    yield _Row("all equal", np.full(K, 2.5))
    yield _Row("far from zero", 1e8 + 8.0 * rng.integers(0, 9, K))
    yield _Row("far below zero", -1e6 + rng.integers(0, 30, K))
    yield _Row("whole numbers", rng.integers(-2, 3, K).astype(float))
    yield _Row("whole numbers", rng.integers(-1, 2, K).astype(float))
    if K > 1:
        yield from _ties_and_infinities(rng, K)


def _ties_and_infinities(rng: np.random.Generator, K: int) -> _Rows:
    row = np.round(rng.normal(size=K), 3) - 4
    a, b = rng.choice(K, 2, replace=False)
    row[[a, b]] = 1.5
    yield _Row("tie of two", row, int(a))
    masked = rng.normal(size=K)
    masked[b] = -np.inf
    yield _Row("−∞ beside the label", masked, int(a))
    yield _Row("−∞ at the label", masked, int(b))
    large = rng.normal(size=K)
    large[a] = np.inf
    yield _Row("+∞ at the label", large, int(a))
    yield _Row("+∞ beside the label", large, int(b))
    yield _Row("additive mask of −1e9", np.where(np.isinf(masked), -1e9, masked), int(a))
    yield _Row("all −∞", np.full(K, -np.inf))
    missing = rng.normal(size=K)
    missing[a] = np.nan
    yield _Row("NaN", missing, int(b))


def _distributions(rng: np.random.Generator, K: int, dtype: np.dtype[Any]) -> _Rows:
    tiny = float(np.finfo(dtype).tiny)
    for scale in (1.0, 1.0, 3.0):
        p = np.exp(scale * rng.normal(size=K))
        yield _Row("a distribution", p / p.sum(), ordinary=True)
    yield _Row("uniform", np.full(K, 1 / K))
    at = int(rng.integers(K))
    onehot = np.eye(K)[at]
    yield _Row("one-hot", onehot, at)
    yield _Row("one-hot, smoothed", 0.9 * onehot + 0.1 / K, at)
    if K > 1:
        yield _Row("one-hot, of another class", onehot, (at + 1) % K)
        rest = np.full(K, 0.5 / max(1, K - 2))
        rest[at], rest[at - 1] = 0.5, 0.0
        yield _Row("a zero", rest / rest.sum(), at)
        for small in (1e-7, 1e-30, tiny, float(np.finfo(dtype).smallest_subnormal) * 3):
            p = np.full(K, small)
            p[at] = 1 - small * (K - 1)
            yield _Row(f"rest {small:.0e}", p, at)
            yield _Row(f"rest {small:.0e}, label there", p, (at + 1) % K)


def _unit_rows(rng: np.random.Generator, K: int, dtype: np.dtype[Any]) -> _Rows:
    yield from _distributions(rng, K, dtype)
    yield _Row("in (0, 1)", rng.uniform(0.05, 0.95, K), ordinary=True)
    yield _Row("in (0, 1)", rng.uniform(0.05, 0.95, K), ordinary=True)
    yield _Row("near 1", 1 - np.finfo(dtype).eps * rng.integers(1, 9, K))
    yield _Row("near 1/2", 0.5 + np.finfo(dtype).eps * rng.integers(-9, 9, K))
    yield _Row("0 and 1", rng.integers(0, 2, K).astype(float))


def _positive_rows(rng: np.random.Generator, K: int, dtype: np.dtype[Any]) -> _Rows:
    yield _Row("around 1", np.exp(rng.normal(size=K)), ordinary=True)
    yield _Row("around 1", np.exp(rng.normal(size=K)), ordinary=True)
    yield _Row("scales 1e-30 to 1e30", 10.0 ** rng.uniform(-30, 30, K))
    yield _Row("smallest normal", float(np.finfo(dtype).tiny) * rng.uniform(1, 4, K))
    yield _Row("whole numbers", rng.integers(1, 5, K).astype(float))
    yield _Row("all 1", np.ones(K))


def _nonnegative_rows(rng: np.random.Generator, K: int, dtype: np.dtype[Any]) -> _Rows:
    yield from _positive_rows(rng, K, dtype)
    yield _Row("counts", rng.integers(0, 4, K).astype(float))
    yield _Row("all zero", np.zeros(K))


def _sign_rows(rng: np.random.Generator, K: int, dtype: np.dtype[Any]) -> _Rows:
    del dtype
    yield _Row("signs", rng.choice([-1.0, 1.0], K), ordinary=True)


_Recipe: TypeAlias = Callable[[np.random.Generator, int, np.dtype[Any]], _Rows]
_RECIPES: dict[Domain, _Recipe] = {
    "real": _real_rows,
    "unit": _unit_rows,
    "simplex": _distributions,
    "sign": _sign_rows,
    "nonnegative": _nonnegative_rows,
    "positive": _positive_rows,
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
        for note, value in (("+∞", np.inf), ("−∞", -np.inf), ("NaN", np.nan)):
            rows.append(_Row(note, np.array([value])))
    notes = [r.note for r in rows]
    columns: dict[str, list[np.ndarray]] = {first.name: [r.values for r in rows]}
    for other in others:
        pool = [r.values for r in _RECIPES[other.role.domain](rng, K, dtype) if r.ordinary]
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
    return Batch(inputs, label, tuple(notes), np.array([r.ordinary for r in rows]), K)


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
        batch.ordinary[chosen],
        batch.K,
    )
