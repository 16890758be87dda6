"""Random rows: scores from mixtures of scales 1e-30 to 1e30, leads of 0 to 200, ties, masks and subnormal numbers.

Each row gets one kind of scores and one kind of targets, drawn from the tables below; the same seed gives the same
rows. What a loss takes is read from the roles of its inputs, so the tables know no loss by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from lossmith.language.formula import Formula, Hyperparameter, Input

Rng: TypeAlias = np.random.Generator
_Kind: TypeAlias = Callable[[Rng, int, int, np.dtype[Any]], np.ndarray]

SIZES = {1: 0.01, 2: 0.27, 3: 0.24, 4: 0.14, 5: 0.13, 7: 0.11, 10: 0.10}
"""The numbers of classes of nearly all rows, and how often they come."""


@dataclass(frozen=True)
class Rows:
    """A batch of rows with the same number of classes and the same hyperparameters.

    Attributes
    ----------
    inputs : mapping
        Of each input but the label: an array (N, K), or (N,) for an elementwise loss.
    label : ndarray or None
        Labels (N,), or a distribution (N, K) in their place.
    direction : ndarray
        The vector that the Hessian is multiplied with.
    hypers : mapping
    kinds : list of str
        What each row's scores are.
    """

    inputs: Mapping[str, np.ndarray]
    label: np.ndarray | None
    direction: np.ndarray
    hypers: Mapping[str, Any]
    kinds: list[str]

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def soft(self) -> bool:
        return self.label is not None and self.label.ndim == 2


# ------------------------------------------------------------------ scores


def _scale(rng: Rng, n: int, k: int, low: float, high: float) -> np.ndarray:
    return 10.0 ** rng.uniform(low, high, (n, k))


def _ordinary(rng: Rng, n: int, K: int, dtype: np.dtype[Any]) -> np.ndarray:
    return rng.normal(size=(n, K)) * rng.choice([0.1, 1.0, 3.0, 10.0], (n, 1))


def _one_scale(rng: Rng, n: int, K: int, dtype: np.dtype[Any]) -> np.ndarray:
    return rng.normal(size=(n, K)) * _scale(rng, n, 1, -30, 30)


def _many_scales(rng: Rng, n: int, K: int, dtype: np.dtype[Any]) -> np.ndarray:
    return rng.choice([-1.0, 1.0], (n, K)) * _scale(rng, n, K, -30, 30)


def _two_scales(rng: Rng, n: int, K: int, dtype: np.dtype[Any]) -> np.ndarray:
    """Most scores small, some of another size: what a sum or a maximum must not lose."""
    small, large = _scale(rng, n, 1, -30, 2), _scale(rng, n, 1, -1, 4)
    return rng.normal(size=(n, K)) * np.where(rng.random((n, K)) < 0.3, large, small)


def _lead(rng: Rng, n: int, K: int, dtype: np.dtype[Any]) -> np.ndarray:
    """Let the first score lead by 0 to 200; `draw` moves it to its class."""
    scores = rng.normal(size=(n, K)) * rng.choice([0.0, 0.1, 1.0, 5.0], (n, 1))
    scores[:, 0] = scores[:, 1:].max(axis=1, initial=0.0) + rng.uniform(0, 200, n)
    return scores


def _far(rng: Rng, n: int, K: int, dtype: np.dtype[Any]) -> np.ndarray:
    """Scores far from zero and near to one another."""
    return rng.choice([-1.0, 1.0], (n, 1)) * _scale(rng, n, 1, 1, 8) + rng.normal(size=(n, K)) * 8


def _ties(rng: Rng, n: int, K: int, dtype: np.dtype[Any]) -> np.ndarray:
    return rng.integers(-2, 3, (n, K)) * rng.choice([0.5, 1.0, 1.0, 30.0], (n, 1))


def _subnormal(rng: Rng, n: int, K: int, dtype: np.dtype[Any]) -> np.ndarray:
    least = float(np.finfo(dtype).smallest_subnormal)
    counts = np.floor(_scale(rng, n, K, 0, 7)) * rng.choice([-1.0, 0.0, 1.0], (n, K), p=[0.45, 0.1, 0.45])
    return np.where(rng.random((n, 1)) < 0.7, counts * least, np.where(rng.random((n, K)) < 0.5, counts * least, 1.0))


def _masked(rng: Rng, n: int, K: int, dtype: np.dtype[Any]) -> np.ndarray:
    """Let some scores, now and then all of them, be −∞."""
    scores = _ordinary(rng, n, K, dtype) + np.where(rng.random((n, K)) < 0.1, 100.0, 0.0)
    masked = rng.random((n, K)) < rng.choice([0.1, 0.5, 0.9], (n, 1))
    return np.where(masked, -np.inf, scores)


_REAL: tuple[tuple[str, float, _Kind], ...] = (
    ("ordinary", 0.18, _ordinary),
    ("one scale", 0.15, _one_scale),
    ("many scales", 0.12, _many_scales),
    ("two scales", 0.08, _two_scales),
    ("lead", 0.25, _lead),
    ("far from zero", 0.05, _far),
    ("ties", 0.08, _ties),
    ("subnormal", 0.04, _subnormal),
    ("masked", 0.05, _masked),
)


# ------------------------------------------------------------------ distributions and targets


def _normed(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum(axis=1, keepdims=True)


def _dirichlet(rng: Rng, n: int, K: int, dtype: np.dtype[Any]) -> np.ndarray:
    return _normed(rng.gamma(rng.choice([0.2, 1.0, 5.0], (n, 1)), size=(n, K)) + 1e-30)


def _peaked(rng: Rng, n: int, K: int, dtype: np.dtype[Any]) -> np.ndarray:
    """One class has nearly all, the others down to subnormal numbers."""
    weights = _scale(rng, n, K, float(np.log10(np.finfo(dtype).smallest_subnormal)), 0)
    weights[np.arange(n), rng.integers(K, size=n)] = 1.0
    return _normed(weights)


def _one_hot(rng: Rng, n: int, K: int, dtype: np.dtype[Any]) -> np.ndarray:
    return (np.arange(K) == rng.integers(K, size=(n, 1))).astype(np.float64)


def _smoothed(rng: Rng, n: int, K: int, dtype: np.dtype[Any]) -> np.ndarray:
    return 0.9 * _one_hot(rng, n, K, dtype) + 0.1 / K


def _zeros(rng: Rng, n: int, K: int, dtype: np.dtype[Any]) -> np.ndarray:
    weights = np.where(rng.random((n, K)) < 0.5, 0.0, rng.uniform(0, 1, (n, K)))
    weights[np.arange(n), rng.integers(K, size=n)] += 0.5
    return _normed(weights)


_SIMPLEX: tuple[tuple[str, float, _Kind], ...] = (
    ("a distribution", 0.5, _dirichlet),
    ("peaked", 0.2, _peaked),
    ("one-hot", 0.1, _one_hot),
    ("smoothed", 0.1, _smoothed),
    ("zeros", 0.1, _zeros),
)


def _uniform(rng: Rng, n: int, K: int, dtype: np.dtype[Any]) -> np.ndarray:
    return rng.uniform(0, 1, (n, K))


def _near_zero(rng: Rng, n: int, K: int, dtype: np.dtype[Any]) -> np.ndarray:
    return _scale(rng, n, K, -44 if dtype == np.float32 else -320, 0)


def _near_one(rng: Rng, n: int, K: int, dtype: np.dtype[Any]) -> np.ndarray:
    return 1 - np.floor(_scale(rng, n, K, 0, 5)) * float(np.finfo(dtype).epsneg)


def _ends(rng: Rng, n: int, K: int, dtype: np.dtype[Any]) -> np.ndarray:
    return rng.choice([0.0, 0.5, 1.0], (n, K))


_UNIT: tuple[tuple[str, float, _Kind], ...] = (
    ("uniform", 0.45, _uniform),
    ("near 0", 0.2, _near_zero),
    ("near 1", 0.2, _near_one),
    ("0, ½ and 1", 0.15, _ends),
)

_TABLES = {"real": _REAL, "simplex": _SIMPLEX, "unit": _UNIT}


def _drawn(domain: str, rng: Rng, n: int, K: int, dtype: np.dtype[Any]) -> tuple[np.ndarray, list[str]]:
    """Return n rows of a domain and what kind each is."""
    table = _TABLES[domain]
    weights = np.array([w for _, w, _ in table])
    numbers = np.sort(rng.choice(len(table), n, p=weights / weights.sum()))
    parts, kinds = [np.empty((0, K))], list[str]()
    for number, (kind, _, recipe) in enumerate(table):
        count = int((numbers == number).sum())
        parts.append(recipe(rng, count, K, dtype))
        kinds += [kind] * count
    order = rng.permutation(n)
    return np.concatenate(parts)[order], [kinds[k] for k in order]


def _real_targets(rng: Rng, scores: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Return targets for numbers: of any size, near the scores, the scores themselves, a whole number off."""
    near = np.where(np.isfinite(scores), scores, 0.0)
    choices = [
        _drawn("real", rng, *scores.shape, dtype)[0],
        near * (1 + rng.normal(size=scores.shape) * _scale(rng, *scores.shape, -8, 0)),
        near + rng.normal(size=scores.shape),
        near,
        near + rng.integers(-2, 3, scores.shape),
    ]
    which = rng.choice(len(choices), scores.shape, p=[0.35, 0.25, 0.25, 0.05, 0.1])
    found = np.choose(which, choices)
    return np.where(np.isfinite(found), found, 0.0)


# ------------------------------------------------------------------ hyperparameters

_HYPERS: Mapping[str, Callable[[Rng, int], Any]] = {
    "gamma": lambda rng, K: rng.choice([0.0, 0.5, 1.0, 2.0, 2.0, 3.0, 5.0, rng.uniform(0, 5)]),
    "label_smoothing": lambda rng, K: rng.choice([0.0, 0.0, 0.1, rng.uniform(0, 1)]),
    "class_weight": lambda rng, K: 1.0 if rng.random() < 0.7 else rng.uniform(0.01, 3, K),
    "margin": lambda rng, K: rng.choice([1.0, 1.0, 0.0, 0.5, 10 ** rng.uniform(-3, 3)]),
    "delta": lambda rng, K: rng.choice([1.0, 1.0, 0.5, 10 ** rng.uniform(-3, 3)]),
    "tau": lambda rng, K: rng.choice([1.0, 1.0, 2.0, 4.0, 10 ** rng.uniform(-2, 2)]),
}


def _hyper(hyper: Hyperparameter, rng: Rng, K: int) -> Any:
    if hyper.name not in _HYPERS:
        raise KeyError(f"accuracy/draw.py has no values for the hyperparameter {hyper.name}")
    drawn = _HYPERS[hyper.name](rng, K)
    return drawn if np.ndim(drawn) else float(drawn)


# ------------------------------------------------------------------ batches


def draw(formula: Formula, rng: Rng, n: int, K: int, dtype: Any, *, soft: bool = False) -> Rows:
    """Return n random rows for a loss, all numbers of `dtype`.

    Parameters
    ----------
    formula : Formula
    rng : numpy.random.Generator
    n, K : int
        The numbers of rows and of classes; of elements and 1 for an elementwise loss.
    dtype : float32 or float64
    soft : bool
        Whether distributions stand for the labels.
    """
    made = np.dtype(dtype)
    (first,) = formula.of_role("scores")
    domain = "simplex" if first.role.domain == "unit" and formula.kind == "row" else first.role.domain
    scores, kinds = _drawn(domain, rng, n, K, made)
    label = rng.integers(K, size=n) if formula.of_role("label") else None
    _place_leads(rng, scores, kinds, label)
    inputs = {first.name: scores}
    for item in formula.of_role("targets"):
        inputs[item.name] = _targets(item, rng, scores, made)
    if soft:
        label = _rounded(_drawn("simplex", rng, n, K, made)[0], made)
    direction = _rounded(rng.normal(size=(n, K)), made)
    inputs = {name: _rounded(array, made) for name, array in inputs.items()}
    if formula.kind == "elementwise":
        inputs, direction = {name: array[:, 0] for name, array in inputs.items()}, direction[:, 0]
    return Rows(inputs, label, direction, {h.name: _hyper(h, rng, K) for h in formula.hypers}, kinds)


def _place_leads(rng: Rng, scores: np.ndarray, kinds: list[str], label: np.ndarray | None) -> None:
    """Move the leading score to the label's class in half of the rows, to any class in the others."""
    n, K = scores.shape
    leading = np.array([kind == "lead" for kind in kinds])
    at = rng.integers(K, size=n)
    if label is not None:
        at = np.where(rng.random(n) < 0.5, label, at)
    rows = np.flatnonzero(leading)
    scores[rows, 0], scores[rows, at[rows]] = scores[rows, at[rows]], scores[rows, 0]


def _targets(item: Input, rng: Rng, scores: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    if item.role.domain == "real":
        return _real_targets(rng, scores, dtype)
    return _drawn(item.role.domain, rng, *scores.shape, dtype)[0]


def _rounded(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    return values.astype(dtype)  # 1e30 is far from the largest float32
