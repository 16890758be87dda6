"""The laws that every loss of the catalogue obeys. A law takes a Case, and raises AssertionError where it is broken.

Errors are in units in the last place, or relative; `Case.limit` says how many units an output may be off, which is the
promise of lossmith.check.promise. What must be the same number is compared bit by bit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import ml_dtypes
import numpy as np

from lossmith import Loss
from lossmith.check.interpreter import Reference, Sample
from lossmith.check.mparray import definition_value
from lossmith.check.promise import Promise, base_limit, is_shift_invariant
from lossmith.check.ulp import ulp_error, unit_in_last_place
from lossmith.language.expr import Derivative, Expr, Free, named
from lossmith.language.formula import Formula, Input

N, K = 4, 4
J, L = named("j"), named("l")


# ------------------------------------------------------------------ a loss with a batch


def drawn(item: Input, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return values in the domain of an input, no two alike and none at a kink."""
    k = shape[-1]
    match item.role.kind, item.role.domain:
        case "label", _:
            return rng.permutation(np.arange(np.prod(shape[:-1], dtype=int)) % k).reshape(shape[:-1])
        case "targets", "real":
            return rng.normal(size=shape)
        case "scores", "real":
            return rng.normal(size=shape) * 2
        case _, "sign":
            return rng.choice([-1.0, 1.0], shape)
        case _, "simplex":
            return rng.dirichlet(np.ones(k), shape[:-1])
        case _, "unit":
            return rng.uniform(0.05, 0.95, shape)
        case _:
            return rng.gamma(2.0, size=shape)


@dataclass(frozen=True)
class Case:
    """A loss, its hyperparameters, and a batch to try it on."""

    loss: Loss
    args: tuple[np.ndarray, ...]
    hypers: dict[str, Any] = field(default_factory=dict)

    @property
    def formula(self) -> Formula:
        arrays = {n: 1 for n, v in self.hypers.items() if np.ndim(v)}
        return self.loss.variant(arrays, False, False, {}) if arrays else self.loss.definition

    @property
    def single(self) -> bool:
        return self.loss.kind == "elementwise"

    @property
    def scores(self) -> np.ndarray:
        return self.args[0]

    @property
    def label_at(self) -> int | None:
        return next((k for k, i in enumerate(self.formula.inputs) if i.role.kind == "label"), None)

    def with_args(self, change: Callable[[np.ndarray], Any], *, labels: Callable[[Any], Any] | None = None) -> Case:
        """Return the case with every array changed, the label by a function of its own or not at all."""
        kept = labels or (lambda y: y)
        return replace(self, args=tuple(kept(a) if k == self.label_at else change(a) for k, a in enumerate(self.args)))

    def put(self, number: int, array: Any) -> Case:
        return replace(self, args=(*self.args[:number], array, *self.args[number + 1 :]))

    def __call__(self, **options: Any) -> Any:
        return self.loss(*self.args, **self.hypers, **options)

    def both(self, **options: Any) -> tuple[Any, tuple[np.ndarray, ...]]:
        """Return the value and the gradients, without reduction unless `options` names one."""
        value, grad = self.loss.value_and_grad(*self.args, **self.hypers, **{"reduction": "none", **options})
        return value, grad if isinstance(grad, tuple) else (grad,)

    def everything(self, **options: Any) -> list[np.ndarray]:
        value, grads = self.both(**options)
        return [np.asarray(value), *grads]

    # -------------------------------------------------------------- exactly

    def places(self) -> Iterator[tuple[int, ...]]:
        """Yield where the samples are: rows, or elements."""
        yield from np.ndindex(self.scores.shape if self.single else self.scores.shape[:-1])

    def sample(self, place: tuple[int, ...]) -> Sample:
        rows = {i.name: a[place] for i, a in zip(self.formula.inputs, self.args, strict=True)}
        label = None if self.label_at is None else rows.pop(self.formula.inputs[self.label_at].name)
        size = 1 if self.single else self.scores.shape[-1]
        hypers = {h.name: self.hypers.get(h.name, h.default) for h in self.formula.hypers}
        return Sample(rows, None if label is None else int(label), hypers, size)

    def limit(self, sample: Sample, expr: Expr, exact: Any, indices: dict[Free, int]) -> float:
        """Return how many ulp a result may be off."""
        names = [i.name for i in self.formula.of_role("scores")]
        invariant = frozenset(n for n in names if is_shift_invariant(self.formula, n, sample))
        at = lambda changed: Reference(changed, 20, limits=True).value(expr, indices)  # noqa: E731
        return Promise(self.formula, invariant).limit(at, sample, exact, self.scores.dtype)


def varied(loss: Loss, classes: int = K) -> dict[str, Any]:
    """Return a value for each hyperparameter that is not its default, and not one that kernels fold in."""
    found: dict[str, Any] = {}
    for h in loss.definition.hypers:
        found[h.name] = np.linspace(0.5, 2.0, classes) if h.name == "class_weight" else 1.5 * h.default + 0.25
    return found


@functools.cache
def case_of(loss: Loss, dtype: str = "f4", *, hypers: bool = False, shape: tuple[int, ...] = (N, K)) -> Case:
    """Return a loss with a batch: scores around 2, and one row whose first score, its label's, leads by 20."""
    rng = np.random.default_rng(5)
    arrays = [drawn(i, rng, shape) for i in loss.definition.inputs]
    if loss.definition.inputs[0].role.domain == "real" and shape[0] > 2 and shape[-1] > 1:
        arrays[0][2, ..., 0] += 20 - arrays[0][2].max()
        for k, item in enumerate(loss.definition.inputs):
            if item.role.kind == "label":
                arrays[k][2] = 0
    cast = [a if a.dtype.kind == "i" else a.astype(dtype) for a in arrays]
    return Case(loss, tuple(cast), varied(loss, shape[-1]) if hypers else {})


def assert_close(case: Case, got: Any, place: tuple[int, ...], expr: Expr, exact: Any = None, **at: int) -> None:
    """Hold one result to the promise; only where it is off by more than usual is the limit worked out."""
    sample, indices = case.sample(place), {named(n): k for n, k in at.items()}
    if exact is None:
        exact = Reference(sample, 30, limits=True).value(expr, indices)
    off = ulp_error(np.asarray([got]), [exact])[0]
    if off > base_limit(sample.K):
        allowed = case.limit(sample, expr, exact, indices)
        assert off <= allowed, (
            f"{off:.3g} ulp where {allowed:.3g} are promised: {got}, exact {float(exact)}, at {sample}"
        )


def same_bits(a: Any, b: Any) -> bool:
    """Whether two results are the same numbers, NaN included; a zero has no sign here."""
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=True)


def assert_same(found: list[Any], expected: list[Any]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert same_bits(a, b), f"{a}\n is not \n{b}"


def assert_ulp(found: Any, expected: Any, ulps: float) -> None:
    """Compare arrays of floats, in units of those that were found."""
    found, expected = np.asarray(found), np.asarray(expected)
    off = ulp_error(found, expected.ravel().tolist())
    assert off.max(initial=0) <= ulps, f"{off.max()} ulp: {found} is not {expected}"


# ------------------------------------------------------------------ the laws, one function each

LAWS: dict[str, Callable[[Case], None]] = {}
NEEDS: dict[str, Callable[[Case], bool]] = {}


def law(needs: Callable[[Case], bool] = lambda case: True) -> Callable[..., Any]:
    """Enter a law in the list; `needs` tells which losses it is about."""

    def enter(function: Callable[[Case], None]) -> Callable[[Case], None]:
        LAWS[function.__name__] = function
        NEEDS[function.__name__] = needs
        return function

    return enter


def with_label(case: Case) -> bool:
    return case.label_at is not None


def with_classes(case: Case) -> bool:
    return not case.single


def shift_invariant(case: Case) -> bool:
    return with_classes(case) and is_shift_invariant(case.formula, case.formula.inputs[0].name, case.sample((0,)))


@law()
def value_is_the_definition(case: Case) -> None:
    value = case.both()[0]
    for place in case.places():
        sample = case.sample(place)
        exact = definition_value(case.formula.function, case.formula, sample, 30)
        assert_close(case, value[place], place, case.formula.expr, exact)


@law()
def gradient_is_the_derivative(case: Case) -> None:
    for item, grad in zip(case.formula.of_role("scores"), case.both()[1], strict=True):
        _each_component(case, grad, lambda at, name=item.name: Derivative(case.formula.expr, name, at))


def _each_component(case: Case, found: np.ndarray, expr: Callable[[Any], Expr]) -> None:
    for place in case.places():
        if case.single:
            assert_close(case, found[place], place, expr(None))
            continue
        for k in range(case.scores.shape[-1]):
            assert_close(case, found[(*place, k)], place, expr(J), j=k)


@law()
def hessian_diagonal_is_the_second_derivative(case: Case) -> None:
    found = case.loss.hessian_diag(*case.args, **case.hypers, reduction="none")
    _each_component(case, found, lambda at: _second(case, at, at))


def _second(case: Case, j: Any, k: Any) -> Expr:
    name = case.formula.inputs[0].name
    return Derivative(Derivative(case.formula.expr, name, j), name, k)


def _exact_hessian(case: Case, place: tuple[int, ...]) -> np.ndarray:
    """Return the matrix of one sample, of exact numbers, by dual numbers."""
    sample, size = case.sample(place), 1 if case.single else case.scores.shape[-1]
    full, reference = np.empty((size, size), dtype=object), Reference(sample, 30, limits=True)
    expr = _second(case, None, None) if case.single else _second(case, J, L)
    for j, k in np.ndindex(size, size):
        full[j, k] = reference.value(expr, {} if case.single else {J: j, L: k})
    return full


@law(with_classes)
def dense_hessian_is_the_second_derivative(case: Case) -> None:
    full = case.loss.hessian(*case.args, **case.hypers, reduction="none").dense()
    for place in [(0,), (2,)]:
        exact = _exact_hessian(case, place)
        for j, l in np.ndindex(*exact.shape):  # noqa: E741
            at = {"j": j} if j == l else {"j": j, "l": l}
            expr = _second(case, J, J if j == l else L)
            assert_close(case, full[(*place, j, l)], place, expr, exact[j, l], **at)


@law()
def hessian_products_agree_with_the_matrix(case: Case) -> None:
    v = np.random.default_rng(1).normal(size=case.scores.shape).astype(case.scores.dtype)
    found = case.loss.hvp(*case.args, v, **case.hypers, reduction="none")
    low = case.loss.hessian(*case.args, **case.hypers, reduction="none") @ v
    for place in list(case.places())[:2]:
        exact = _exact_hessian(case, place)
        for j in range(len(exact)):
            terms = [h * float(x) for h, x in zip(exact[j], np.atleast_1d(v[place]), strict=True)]
            at = place if case.single else (*place, j)
            # A sum of both signs: relative to the sum of the sizes, which is what an algorithm can do.
            unit = unit_in_last_place(sum(abs(t) for t in terms), v.dtype)
            for got in (found[at], low[at]):
                assert abs(sum(terms) - float(got)) <= 4 * base_limit(len(exact)) * unit, (place, j, got, sum(terms))


@law()
def hessians_are_weighted_and_reduced_like_gradients(case: Case) -> None:
    weight, options = _powers_of_two(case)[0], case.hypers
    with_weight = {"sample_weight": weight, **options}
    plain = case.loss.hessian(*case.args, reduction="none", **options).dense()
    summed = case.loss.hessian(*case.args, reduction="sum", **with_weight).dense()
    mean = case.loss.hessian(*case.args, reduction="mean", **with_weight)
    if case.single:
        assert_same([summed.diagonal(0, -2, -1)], [plain.diagonal(0, -2, -1) * weight.astype(plain.dtype)])
    else:
        assert_same([summed], [plain * weight.astype(plain.dtype)[:, None, None]])
    assert_same([mean.dense()], [summed / summed.dtype.type(weight.sum())])
    diag = case.loss.hessian_diag(*case.args, reduction="mean", **with_weight)
    assert_ulp(mean.diag(), diag, 4)


@law()
def damped_hessians_are_solved(case: Case) -> None:
    low = case.loss.hessian(*case.args, **case.hypers, reduction="none")
    b = np.random.default_rng(2).normal(size=case.scores.shape)
    damping = 0.5 - min(0.0, 2 * float(np.linalg.eigvalsh(low.dense().astype(float)).min()))
    x = low.solve(b, damping)
    d, left, right = (a.astype(float) for a in (low.diagonal, low.left, low.right))
    again = (d + damping) * x + np.sum(left * np.sum(right * x, -1, keepdims=True), 0)
    assert np.abs(again - b).max() <= 1e-12 * (np.abs(b).max() + np.abs(d * x).max())


# ------------------------------------------------------------------ weights, reductions, labels


def _powers_of_two(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return weights per sample that multiply without rounding and sum to a power of two, and in scores' shape."""
    weight = np.array([0.5, 2.0, 1.0, 0.5])
    assert len(weight) == len(case.scores)
    if case.single:
        weight = np.repeat(weight[:, None], case.scores.shape[1], 1)
        return weight, weight
    return weight, np.broadcast_to(weight[:, None], case.scores.shape)


@law()
def weights_multiply(case: Case) -> None:
    value, grads = case.both()
    weight, spread = _powers_of_two(case)
    dtype = case.scores.dtype
    weighted, weighted_grads = case.both(sample_weight=weight)
    assert_same([weighted, *weighted_grads], [value * weight.astype(dtype), *(g * spread.astype(dtype) for g in grads)])
    uneven = np.random.default_rng(3).uniform(0.3, 3.0, weight.shape)
    found, found_grads = case.both(sample_weight=uneven)
    assert_ulp(found, uneven * value.astype(float), 1.5)  # the value was rounded twice, once before it came here
    for found_grad, g in zip(found_grads, grads, strict=True):
        assert_ulp(found_grad, uneven.reshape(N, -1) * g.astype(float), 2)


@law()
def weight_zero_leaves_a_sample_out(case: Case) -> None:
    value, grads = case.both()
    spoilt = case.with_args(_with_rubbish, labels=_with_rubbish)
    weight = np.where(np.arange(N) == 1, 0.0, 1.0)
    weight = np.repeat(weight[:, None], case.scores.shape[1], 1) if case.single else weight
    found, found_grads = spoilt.both(sample_weight=weight)
    kept = np.arange(N) != 1
    assert_same([found[kept], *(g[kept] for g in found_grads)], [value[kept], *(g[kept] for g in grads)])
    assert not found[1].any()
    assert not any(g[1].any() for g in found_grads)
    assert np.isfinite(spoilt(sample_weight=weight))
    assert spoilt(sample_weight=0 * weight) == 0.0
    assert not any(g.any() for g in spoilt.both(sample_weight=0 * weight, reduction="mean")[1])


def _with_rubbish(array: np.ndarray) -> np.ndarray:
    changed = array.copy()
    changed[1] = -77
    if changed.ndim > 1:
        changed[1, :2] = np.nan, np.inf
    return changed


@law()
def reductions_agree(case: Case) -> None:
    value, grads = case.both()
    weight, spread = _powers_of_two(case)
    size = base_limit(K) * 2 * np.finfo(value.dtype).eps
    weighted = value.astype(float) * weight
    total, mean = case(sample_weight=weight, reduction="sum"), case(sample_weight=weight)
    assert isinstance(total, float)
    assert abs(total - weighted.sum()) <= size * np.abs(weighted).sum()  # "none" has been rounded to the dtype
    assert mean == total / weight.sum()
    assert abs(case() - value.astype(float).mean()) <= size * np.abs(value).mean()
    for got, none in zip(case.both(sample_weight=weight, reduction="sum")[1], grads, strict=True):
        assert same_bits(got, none * spread.astype(none.dtype))
    for got, none in zip(case.both(sample_weight=weight, reduction="mean")[1], grads, strict=True):
        assert same_bits(got, none * (spread / weight.sum()).astype(none.dtype))


@law()
def outputs_do_not_depend_on_their_company(case: Case) -> None:
    """Value and gradient computed together are those computed apart; a batch is its rows."""
    value, grads = case.both()
    apart = case.loss.grad(*case.args, **case.hypers, reduction="none")
    apart = apart if isinstance(apart, tuple) else (apart,)
    assert_ulp(case(reduction="none"), value, 2)
    for a, b in zip(apart, grads, strict=True):
        assert_ulp(a, b, 2)
    for i in range(N):
        one = case.with_args(lambda a, i=i: a[i : i + 1], labels=lambda y, i=i: y[i : i + 1])
        assert_same(one.everything(), [value[i : i + 1], *(g[i : i + 1] for g in grads)])


@law(with_label)
def class_weights_are_weights_of_the_labels_rows(case: Case) -> None:
    weights = np.linspace(0.3, 2.0, K)
    label = case.args[case.label_at]
    hypers = {n: v for n, v in case.hypers.items() if n != "class_weight"}
    case = replace(case, hypers=hypers)
    if hypers.get("label_smoothing"):
        return  # smoothing weighs the other classes too: tests/peers/test_torch.py
    by_class = case.everything(class_weight=weights)
    by_row = case.everything(sample_weight=weights[label])
    for a, b in zip(by_class, by_row, strict=True):
        assert_ulp(a, b, 4)
    mean, none = case(class_weight=weights), by_row[0].astype(float)
    eps = np.finfo(case.scores.dtype).eps
    assert abs(mean - none.sum() / weights[label].sum()) <= 16 * eps * np.abs(none).sum()
    together = case.everything(class_weight=weights, sample_weight=np.full(N, 2.0))
    assert_same(together, [2 * a for a in by_class])


@law(with_label)
def ignored_labels_are_left_out(case: Case) -> None:
    number, kept = case.label_at, np.arange(N) != 1
    for ignored in (-1, 255, 2):
        label = np.where(np.arange(N) == 1, ignored, np.where(case.args[number] == 2, 3, case.args[number]))
        spoilt = case.with_args(_with_rubbish).put(number, label)
        small = case.put(number, label).with_args(lambda a: a[kept], labels=lambda a: a[kept])
        value, *grads = spoilt.everything(ignore_index=ignored)
        assert_same([value[kept], *(g[kept] for g in grads)], small.everything())
        assert not value[1].any()
        assert not any(g[1].any() for g in grads)
        assert spoilt(ignore_index=ignored) == small()
    assert case.put(number, np.full(N, -1))(ignore_index=-1) == 0.0


@law(with_label)
def distributions_stand_for_labels(case: Case) -> None:
    """A distribution gives the expectation over the labels; a one-hot one is the label."""
    number, soft = case.label_at, _soft_case(case)
    chances = np.random.default_rng(4).dirichlet(np.ones(K), N).astype(case.scores.dtype)
    for targets in (np.eye(K, dtype=case.scores.dtype)[case.args[number]], chances):
        mixed = soft.put(number, targets)
        value, grads = replace(mixed, loss=case.loss).both()
        for place in [(0,), (2,)]:
            samples = [replace(case.sample(place), label=k) for k in range(K)]
            each = [Reference(sample, 30).value(case.formula.expr) for sample in samples]
            exact = sum(float(t) * value for t, value in zip(targets[place], each, strict=True))
            assert_close(mixed, value[place], place, mixed.formula.expr, exact)
        expr = Derivative(mixed.formula.expr, case.formula.inputs[0].name, J)
        _each_component(mixed.with_args(lambda a: a[:3]), grads[0], lambda _, expr=expr: expr)


class _Soft:
    """A loss that has become its expectation, as far as Case looks at it."""

    def __init__(self, loss: Loss) -> None:
        self.kind, self._loss = loss.kind, loss

    @property
    def definition(self) -> Formula:
        return self.variant({}, False, False, {})

    def variant(self, arrays: Any, soft: Any, weighted: Any, constants: Any) -> Formula:
        return self._loss.variant(arrays, True, weighted, constants)


def _soft_case(case: Case) -> Case:
    return replace(case, loss=_Soft(case.loss))  # pyright: ignore[reportArgumentType]


# ------------------------------------------------------------------ symmetries


@law(with_classes)
def permuting_classes_permutes_gradients(case: Case) -> None:
    order = np.array([2, 0, 3, 1])
    hypers = {n: v[order] if np.ndim(v) else v for n, v in case.hypers.items()}
    moved = case.with_args(lambda a: np.ascontiguousarray(a[..., order]), labels=lambda y: np.argsort(order)[y])
    value, grads = replace(moved, hypers=hypers).both()
    for place in case.places():
        assert_close(case, value[place], place, case.formula.expr)
    for item, grad in zip(case.formula.of_role("scores"), grads, strict=True):
        back = grad[..., np.argsort(order)]
        _each_component(case, back, lambda at, name=item.name: Derivative(case.formula.expr, name, at))


@law(shift_invariant)
def a_constant_added_to_the_scores_changes_nothing(case: Case) -> None:
    on_grid = case.put(0, (np.round(case.scores * 8) / 8).astype(case.scores.dtype))
    for constant in (64.0, -1000.0):
        moved = on_grid.put(0, on_grid.scores + case.scores.dtype.type(constant))
        assert_same(moved.everything(), on_grid.everything())


@law(with_classes)
def classes_may_be_along_any_axis(case: Case) -> None:
    three = case_of(case.loss, "f4", hypers=bool(case.hypers), shape=(3, 2, K))
    value, grads = three.both()
    for axis in (0, 1, -2):
        moved = three.with_args(lambda a, axis=axis: np.moveaxis(a, -1, axis))
        found, found_grads = moved.both(axis=axis)
        assert_same([found, *found_grads], [value, *(np.moveaxis(g, -1, axis) for g in grads)])
        low = moved.loss.hessian(*moved.args, **moved.hypers, axis=axis, reduction="none")
        assert_same([low.dense()], [three.loss.hessian(*three.args, **three.hypers, reduction="none").dense()])


# ------------------------------------------------------------------ arrays of every kind


def layouts(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the array laid out in memory in other ways."""
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    raw = np.empty(array.nbytes + 1, np.uint8)
    misaligned = raw[1:].view(array.dtype).reshape(array.shape)
    misaligned[...] = array
    frozen = array.copy()
    frozen.flags.writeable = False
    yield from (np.asfortranarray(array), wide[..., ::2], array[::-1].copy()[::-1], misaligned, frozen)
    yield array.astype(array.dtype.newbyteorder())
    yield array.astype(object).astype(array.dtype)[None][0]


@law()
def memory_layout_changes_nothing_and_inputs_stay(case: Case) -> None:
    expected, before = case.everything(), [a.copy() for a in case.args]
    for number in range(len(case.args)):
        for other in layouts(case.args[number]):
            copy = other.copy()
            found = case.put(number, other).everything()
            assert_same([f.astype(e.dtype) for f, e in zip(found, expected, strict=True)], expected)
            assert_same([other], [copy])
    assert_same(list(case.args), before)
    rows = case.with_args(lambda a: np.broadcast_to(a[0], a.shape), labels=lambda y: np.broadcast_to(y[0], y.shape))
    copied = rows.with_args(np.array, labels=np.array)
    assert_same(rows.everything(), copied.everything())


@law()
def lists_are_float64(case: Case) -> None:
    wide = case.with_args(lambda a: a.astype(float))
    assert_same(case.with_args(lambda a: a.tolist(), labels=lambda y: y.tolist()).everything(), wide.everything())


@law()
def halves_are_computed_in_float32_and_rounded_once(case: Case) -> None:
    for half in (np.float16, ml_dtypes.bfloat16):
        rounded = case.with_args(lambda a, half=half: a.astype(half))
        if case.formula.inputs[-1].role.domain == "simplex":
            rounded = rounded.put(1, case.args[1])  # eight bits hold no distribution
        wide = rounded.with_args(lambda a: a.astype(np.float32))
        assert_same(rounded.everything(), [a.astype(half) for a in wide.everything()])
        assert rounded() == wide()


@law()
def results_have_the_dtype_of_the_scores(case: Case) -> None:
    for dtype in (np.float16, np.float32, np.float64):
        other = case.put(0, case.scores.astype(dtype))
        if case.formula.inputs[-1].role.domain == "simplex":
            other = other.put(1, case.args[1])
        assert {a.dtype for a in other.everything()} == {np.dtype(dtype)}
        assert isinstance(other(), float)
        assert isinstance(other(reduction="sum"), float)


@law()
def out_may_be_the_scores(case: Case) -> None:
    value, (expected, *others) = case.both()
    fortran = np.asfortranarray(np.zeros_like(case.scores))
    scores = case.scores.copy()
    for out in (np.full_like(expected, 7), fortran, np.zeros((N, 2 * K), expected.dtype)[:, ::2]):
        (value2, grads) = case.both(out=(out, *[None] * len(others)))
        assert grads[0] is out
        assert_same([value2, out], [value, expected])
    value2, grads = case.put(0, scores).both(out=(scores, *[None] * len(others)))
    assert grads[0] is scores
    assert_same([value2, scores], [value, expected])
    shifted = np.zeros((N + 1, K), expected.dtype)
    shifted[:N] = case.scores
    case.put(0, shifted[:N]).both(out=(shifted[1:], *[None] * len(others)))
    assert_same([shifted[1:]], [expected])


@law()
def one_row_is_a_batch_without_its_axis(case: Case) -> None:
    value, grads = case.both()
    one = case.with_args(lambda a: a[1], labels=lambda y: y[1])
    found, found_grads = one.both()
    assert_same([found, *found_grads], [value[1], *(g[1] for g in grads)])
    if not case.single:
        assert np.ndim(found) == 0
        number = one.label_at
        as_int = one if number is None else one.put(number, int(one.args[number]))
        assert isinstance(as_int(), float)


@law()
def no_rows_are_fine_and_so_is_one_class(case: Case) -> None:
    empty = case.with_args(lambda a: a[:0], labels=lambda y: y[:0])
    value, grads = empty.both()
    assert value.shape == empty.scores.shape[: value.ndim]
    assert [g.shape for g in grads] == [empty.scores.shape] * len(grads)
    for reduction in ("mean", "sum"):
        assert empty(reduction=reduction) == 0.0
    one = case_of(case.loss, "f4", hypers=bool(case.hypers), shape=(3, 1))
    value = one.both()[0]
    for place in one.places():
        exact = definition_value(one.formula.function, one.formula, one.sample(place), 30)
        assert_close(one, value[place], place, one.formula.expr, exact)


@law()
def nan_stays_in_its_row(case: Case) -> None:
    expected = case.everything()
    scores = case.scores.copy()
    scores[1, 2] = np.nan
    bad = np.isnan(scores) if case.single else np.arange(N) == 1
    found = case.put(0, scores).everything()
    for a, b in zip(found, expected, strict=True):
        assert np.isnan(a[bad]).all()
        assert same_bits(a[~bad], b[~bad])


def assert_back_ends_agree(case: Case, one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    """Within 2 ulp mostly; where differences cancel both may be off, by what is promised for each."""
    name = case.formula.inputs[0].name
    at = None if case.single else J
    first = Derivative(case.formula.expr, name, at)
    exprs = {"value": case.formula.expr, "grad": first, "hessian_diag": Derivative(first, name, at)}
    for output, expr in exprs.items():
        a, b = one[output], other[output]
        off = np.abs(a.astype(float) - b) / np.spacing(np.abs(b))
        assert np.mean(off <= 2) >= 0.85, output
        for place in map(tuple, np.argwhere(off > base_limit(K))):
            row, k = (place, {}) if case.single or output == "value" else (place[:-1], {"j": int(place[-1])})
            for found in (a, b):
                assert_close(case, found[place], tuple(int(i) for i in row), expr, **k)
