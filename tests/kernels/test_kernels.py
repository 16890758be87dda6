"""Kernels of both back ends, against straightforward computations in more digits."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from kernels import stable_forms as forms
from lossmith.kernels.lower import lower
from lossmith.kernels.runtime import compile_kernel
from lossmith.kernels.sums import sum_rows

BACKENDS = ["numba", "numpy"]
U = {"f4": 2.0**-24, "f8": 2.0**-53}
HYPERS = {
    "multiclass_hinge": {"margin": 1.0},
    "huber": {"delta": 1.25},
    "pairwise_exp": {"alpha": np.array([1.0, 0.5, 2.0, -1.0, 0.25])},
}
_kernels = {}


def kernel_of(form, dtype, backend):
    key = form.__name__, dtype, backend
    if key not in _kernels:
        _kernels[key] = compile_kernel(lower(*form()), dtype, backend)
    return _kernels[key]


def run(form, dtype, backend, s, target=None, *, weight=None, scale=1.0, threads=None, out=None):
    """Run a form on a batch; returns the value and the gradient."""
    kernel = kernel_of(form, dtype, backend)
    inputs, label = {"s": s}, None
    if kernel.program.labels:
        label = target
    elif target is not None:
        inputs["t"] = target
    outputs = {"value": np.full(s.shape if s.ndim == 1 else len(s), 7.0)}
    if len(kernel.outputs) > 1:
        outputs["grad"] = np.full_like(s, 7.0) if out is None else out
    hypers = HYPERS.get(kernel.program.name, {})
    kernel.run(inputs, label, hypers, weight, scale, outputs, threads)
    return outputs["value"], outputs.get("grad")


def batch(form, n=64, k=5, dtype="f4", seed=0, spread=3.0):
    """Return scores, and the label or the targets that a form takes."""
    rng = np.random.default_rng(seed)
    _, formula = form()
    if formula.kind == "elementwise":
        s = (spread * rng.normal(size=n * k)).astype(dtype)
        return s, rng.integers(0, 2, n * k).astype(dtype) if len(formula.inputs) > 1 else None
    s = (spread * rng.normal(size=(n, k))).astype(dtype)
    if formula.of_role("label"):
        return s, rng.integers(0, k, n)
    if formula.of_role("targets"):
        return s, rng.dirichlet(np.ones(k), n).astype(dtype)
    return s, None


# ------------------------------------------------------------------ the right numbers


def exact_softmax(row, digits=60):
    with mpmath.workdps(digits):
        e = [mpmath.exp(mpmath.mpf(float(x))) for x in row]
        return e, mpmath.fsum(e)


def reference_cross_entropy(s, y):
    with mpmath.workdps(60):
        e, z = exact_softmax(s)
        value = mpmath.log(z) - mpmath.mpf(float(s[y]))
        grad = [e[j] / z if j != y else -mpmath.fsum(e[k] for k in range(len(s)) if k != y) / z for j in range(len(s))]
        return value, grad


def relative(found, exact):
    exact = mpmath.mpf(exact)
    if exact == 0:
        return 0.0 if found == 0 else math.inf
    return float(abs(mpmath.mpf(float(found)) - exact) / abs(exact))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("lead", [0.0, 1.0, 15.0, 20.0, 30.0, 60.0])
def test_cross_entropy_keeps_the_promise_at_every_lead(backend, dtype, lead):
    s, y = batch(forms.softmax_cross_entropy, n=12, k=10, dtype=dtype, spread=1.0)
    s[np.arange(12), y] = s.max(axis=1) + lead
    value, grad = run(forms.softmax_cross_entropy, dtype, backend, s, y)
    for i in range(len(s)):
        exact_value, exact_grad = reference_cross_entropy(s[i], y[i])
        gaps = float(s[i].max()) - s[i].astype(float)
        allowed = (8 + gaps.max() + 10) * U[dtype]
        assert relative(value[i], exact_value) <= allowed
        for j in range(s.shape[1]):
            assert relative(grad[i, j], exact_grad[j]) <= allowed


def reference(form, s, target):
    """Return value and gradient in float64 by loops, one row."""
    s = s.astype(float)
    k = len(s) if s.ndim else 1
    grad = np.zeros(k)
    match form.__name__:
        case "softmax_cross_entropy" | "log_sum_exp" | "log_sum_exp_of_others":
            p = np.exp(s - s.max()) / np.exp(s - s.max()).sum()
            grad = p.copy()
            grad[target] -= 1
            return -np.log(p[target]), grad
        case "soft_cross_entropy":
            t, p = target.astype(float), np.exp(s) / np.exp(s).sum()
            return -np.sum(t * np.log(p)), t.sum() * p - t
        case "hinge":
            value = 0.0
            for j in range(k):
                if j != target and s[j] - s[target] + 1 > 0:
                    value += s[j] - s[target] + 1
                    grad[j] += 1
                    grad[target] -= 1
            return value, grad
        case "huber":
            r = s - target.astype(float)
            return (r * r / 2, r) if abs(r) <= 1.25 else (1.25 * (abs(r) - 1.25 / 2), 1.25 * np.sign(r))
        case "logistic":
            return np.logaddexp(0, s) - target * s, 1 / (1 + np.exp(-s)) - target
        case "relu_like":
            return max(s, 0.0), float(s > 0)
        case "pairwise_hinge":
            t, value = target.astype(float), 0.0
            for a in range(k):
                for b in range(k):
                    pair, slack = t[a] * (1 - t[b]), 1 - s[a] + s[b]
                    if slack > 0:
                        value += pair * slack
                        grad[b] += pair
                        grad[a] -= pair
            return value, grad
        case "pairwise_exp":
            a = HYPERS["pairwise_exp"]["alpha"]
            terms = (a[i] * np.exp(s[m]) * np.tanh(s[i] - s[m]) for i in range(k) for m in range(k))
            return sum(terms), None
        case "score_at_label":
            grad[target] = -1
            return -s[target], grad
        case "largest_margin":
            others = [(s[j], j) for j in range(k) if j != target]
            best = max(others, key=lambda o: o[0])
            grad[best[1]] += 1
            grad[target] -= 1
            return best[0] - s[target], grad
    raise AssertionError(form)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("k", [5, 40, 600])
@pytest.mark.parametrize("form", forms.ALL, ids=lambda f: f.__name__)
def test_forms_agree_with_loops_in_float64(form, dtype, backend, k):
    """Five classes run in tiles, forty in bands, six hundred row by row."""
    if k > 5 and (form is forms.pairwise_exp or (k > 40 and "pair" in form.__name__)):
        pytest.skip("as many hyperparameters as classes, or too many pairs")
    s, target = batch(form, n=64 if k < 600 else 9, k=k, dtype=dtype)
    value, grad = run(form, dtype, backend, s, target)
    eps = (2e-6 if dtype == "f4" else 2e-14) * (1 if k < 40 else 4)
    for i in range(len(s)):
        expected, expected_grad = reference(form, s[i], None if target is None else target[i])
        assert value[i] == pytest.approx(expected, rel=30 * eps, abs=3 * eps * max(1, k // 5))
        if expected_grad is not None:
            np.testing.assert_allclose(grad[i], expected_grad, rtol=30 * eps, atol=eps)


@pytest.mark.parametrize("form", forms.ALL, ids=lambda f: f.__name__)
def test_back_ends_agree_to_a_few_ulp(form):
    s, target = batch(form, n=200)
    found = [run(form, "f4", backend, s, target) for backend in BACKENDS]
    for a, b in zip(*found, strict=True):
        if a is not None:
            largest = np.abs(b).max(initial=1.0)  # terms of both signs cancel
            np.testing.assert_allclose(a, b, rtol=32 * U["f4"], atol=4 * U["f4"] * largest)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sums_over_many_classes_do_not_drift(backend):
    k = 100_000
    s = np.zeros((2, k), "f4")
    s[1] = np.linspace(-3, 3, k)
    value, _ = run(forms.softmax_cross_entropy, "f4", backend, s, np.array([0, 5]))
    assert value[0] == pytest.approx(math.log(k), rel=4 * U["f4"])
    exact = np.log(np.sum(np.exp(s[1].astype(float)))) - float(s[1, 5])
    assert value[1] == pytest.approx(exact, rel=16 * U["f4"])


# ------------------------------------------------------------------ special values


def special(backend, rows, y, form=forms.softmax_cross_entropy):
    return run(form, "f4", backend, np.array(rows, "f4"), np.array(y))


@pytest.mark.parametrize("backend", BACKENDS)
def test_masked_classes_contribute_nothing(backend):
    inf = math.inf
    value, grad = special(backend, [[0, -inf, 1], [-inf, 0, -inf], [0, -inf, 1]], [0, 1, 1])
    kept = special(backend, [[0, 1]], [0])
    assert value[0] == kept[0][0]
    assert grad[0].tolist() == [kept[1][0, 0], 0, kept[1][0, 1]]
    assert value[1] == 0
    assert grad[1].tolist() == [0, 0, 0]
    assert value[2] == inf
    assert grad[2, 1] == -1
    assert grad[2, [0, 2]].sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [3, 40])
def test_a_maximum_over_no_class_is_minus_infinity(backend, k):
    """Of all classes at -inf nothing is known; of some classes, that they contribute nothing."""
    s = np.full((4, k), -math.inf, "f4")
    s[[0, 1], [0, 1]] = 1, 2
    s[2] = 0
    form = forms.log_sum_exp_of_others
    value, grad = special(backend, s, [0, 0, 0, 0], form)
    assert value[:2].tolist() == [0, math.inf]
    assert not grad[0].any()
    assert value[2] == pytest.approx(math.log(k))
    assert np.isnan(value[3])
    value, grad = special(backend, [[5.0], [math.inf]], [0, 0], form)  # one class: no other at all
    assert value.tolist() == [0, 0]
    assert grad.tolist() == [[0], [0]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_infinite_scores_have_their_limits(backend):
    inf = math.inf
    value, grad = special(backend, [[0, inf, 1], [0, inf, 1], [inf, inf, 1], [-inf] * 3, [0, 0, 0]], [1, 0, 0, 0, 0])
    assert value[0] == 0
    assert grad[0].tolist() == [0, 0, 0]
    assert value[1] == inf
    assert grad[1].tolist() == [-1, 1, 0]
    assert np.isnan(value[2:4]).all()
    assert np.isnan(grad[2:4]).all()
    assert value[4] == pytest.approx(math.log(3))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [5, 40])
@pytest.mark.parametrize("form", forms.ALL, ids=lambda f: f.__name__)
def test_nan_stays_in_its_row(form, backend, k):
    if k > 5 and form is forms.pairwise_exp:
        pytest.skip("as many hyperparameters as classes")
    s, target = batch(form, n=40, k=k)
    value, grad = run(form, "f4", backend, s, target)
    for row in (0, 17, 39):
        spoilt = s.copy()
        spoilt[(row, 2) if s.ndim == 2 else row] = np.nan
        value2, grad2 = run(form, "f4", backend, spoilt, target)
        others = np.arange(len(s)) != row
        assert np.isnan(value2[row])
        assert value2[others].tobytes() == value[others].tobytes()
        if grad is not None:
            assert np.isnan(grad2[row]).all()
            assert grad2[others].tobytes() == grad[others].tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [5, 40])
@pytest.mark.parametrize("form", forms.ALL, ids=lambda f: f.__name__)
def test_weights_multiply_and_zero_wipes_out(form, backend, k):
    if k > 5 and form is forms.pairwise_exp:
        pytest.skip("as many hyperparameters as classes")
    s, target = batch(form, n=30, k=k)
    weight = np.random.default_rng(1).uniform(0.5, 2, len(s))
    value, grad = run(form, "f4", backend, s, target)
    weight[4] = 0
    s[4] = np.nan
    value2, grad2 = run(form, "f4", backend, s, target, weight=weight, scale=0.25)
    assert value2[4] == 0
    kept = weight != 0
    np.testing.assert_allclose(value2[kept], (weight * value)[kept], rtol=1e-15)
    if grad is not None:
        assert (grad2[4] == 0).all()
        factor = (weight * 0.25).astype("f4").reshape(-1, *[1] * (grad.ndim - 1))
        np.testing.assert_array_equal(grad2[kept], (factor * grad)[kept])


# ------------------------------------------------------------------ memory, order, threads


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [3, 100, 3000])
@pytest.mark.parametrize("form", forms.ALL, ids=lambda f: f.__name__)
def test_gradient_may_overwrite_the_scores(form, backend, k):
    if form is forms.pairwise_exp or (k > 100 and "pair" in form.__name__):
        pytest.skip("no gradient, or too many pairs")
    s, target = batch(form, n=7, k=k)
    value, grad = run(form, "f4", backend, s, target)
    again = s.copy()
    value2, grad2 = run(form, "f4", backend, again, target, out=again)
    assert grad2 is again
    assert value2.tobytes() == value.tobytes()
    assert grad2.tobytes() == grad.tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [5, 40])
@pytest.mark.parametrize("form", forms.ALL, ids=lambda f: f.__name__)
def test_results_are_the_same_bits_for_any_split(form, backend, k):
    if k > 5 and form is forms.pairwise_exp:
        pytest.skip("as many hyperparameters as classes")
    s, target = batch(form, n=4001, k=k)
    whole = run(form, "f4", backend, s, target, threads=1)
    for threads in (2, 3, 16):
        for a, b in zip(whole, run(form, "f4", backend, s, target, threads=threads), strict=True):
            assert a is b is None or a.tobytes() == b.tobytes()
    for rows in (slice(0, 1), slice(1, 8), slice(8, 1000), slice(3999, 4001)):
        part = run(form, "f4", backend, s[rows], None if target is None else target[rows])
        for a, b in zip(whole, part, strict=True):
            assert a is b is None or a[rows].tobytes() == b.tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", [5, 40])
@pytest.mark.parametrize("form", forms.ALL, ids=lambda f: f.__name__)
def test_totals_are_the_sums_of_the_values_in_the_same_bits_for_any_split(form, backend, weighted, k):
    if k > 5 and form is forms.pairwise_exp:
        pytest.skip("as many hyperparameters as classes")
    s, target = batch(form, n=4001, k=k)
    kernel = kernel_of(form, "f4", backend)
    inputs, label = {"s": s}, target if kernel.program.labels else None
    if "t" in kernel.program.inputs:
        inputs["t"] = target
    weight = None
    if weighted:
        weight = np.random.default_rng(1).uniform(0.5, 2, len(s))
        weight[[3, 77]] = 0
        s[3] = np.nan
    hypers = HYPERS.get(kernel.program.name, {})
    value, grad = run(form, "f4", backend, s, target, weight=weight)
    found = set()
    for threads, inside in ((1, False), (2, False), (3, False), (2, True)):
        again = {**inputs, "s": s.copy()}
        outputs = {} if grad is None else {"grad": again["s"] if inside else np.empty_like(s)}
        found.add(kernel.total(again, label, hypers, weight, 1.0, outputs, threads))
        assert grad is None or outputs["grad"].tobytes() == grad.tobytes()
    assert len(found) == 1
    assert found.pop() == pytest.approx(math.fsum(value), rel=1e-14, abs=1e-13 * np.abs(value).sum())


def layouts(s):
    wide = np.zeros((len(s), 2 * s.shape[1]), s.dtype)
    wide[:, ::2] = s
    raw = np.empty(s.nbytes + 1, np.uint8)
    misaligned = raw[1:].view(s.dtype).reshape(s.shape) if s.nbytes else s
    misaligned[...] = s
    frozen = s.copy()
    frozen.flags.writeable = False
    yield from (np.asfortranarray(s), wide[:, ::2], s[::-1].copy()[::-1], misaligned, frozen)


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_layout_gives_the_same_bits(backend):
    s, y = batch(forms.softmax_cross_entropy, n=9)
    expected = run(forms.softmax_cross_entropy, "f4", backend, s, y)
    for other in layouts(s):
        found = run(forms.softmax_cross_entropy, "f4", backend, other, y, out=np.empty(s.shape, "f4"))
        assert [a.tobytes() for a in found] == [a.tobytes() for a in expected]
    strided = np.empty((9, 10), "f4")[:, ::2]
    found = run(forms.softmax_cross_entropy, "f4", backend, s, y, out=strided)
    np.testing.assert_array_equal(strided, expected[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_rounds_once(backend):
    s, y = batch(forms.softmax_cross_entropy, n=20, dtype="f2")
    value, grad = run(forms.softmax_cross_entropy, "f2", backend, s, y)
    value4, grad4 = run(forms.softmax_cross_entropy, "f4", backend, s.astype("f4"), y)
    np.testing.assert_array_equal(value, value4)
    np.testing.assert_array_equal(grad, grad4.astype("f2"))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("n", "k"), [(0, 4), (1, 1), (5, 1), (1, 2), (3, 2049)])
def test_small_and_odd_shapes(backend, n, k):
    s = np.random.default_rng(0).normal(size=(n, k)).astype("f4")
    y = np.zeros(n, int)
    value, grad = run(forms.softmax_cross_entropy, "f4", backend, s, y)
    for i in range(n):
        exact, exact_grad = reference(forms.softmax_cross_entropy, s[i], 0)
        assert value[i] == pytest.approx(exact, rel=1e-5, abs=1e-7)
        np.testing.assert_allclose(grad[i], exact_grad, rtol=1e-5, atol=1e-7)


def test_sum_of_rows_is_accurate_and_of_one_order():
    rng = np.random.default_rng(0)
    values = rng.normal(size=1_000_001) * 10.0 ** rng.integers(-8, 8, 1_000_001)
    exact = math.fsum(values.tolist())
    assert sum_rows(values) == pytest.approx(exact, abs=1e-15 * np.abs(values).sum())
    assert sum_rows(values) == sum_rows(values.copy())
    assert sum_rows(np.array([np.inf, 1.0])) == np.inf
    assert np.isnan(sum_rows(np.array([np.inf, -np.inf] * 4000)))
    assert sum_rows(np.empty(0)) == 0.0
