"""Vectors in kernels: their ends, their folds, blocks of rows turned around, and kernels at every length of a row."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from kernels import stable_forms as forms
from lossmith.kernels import emit_vectors, lanes, turning
from lossmith.kernels.emit import emit
from lossmith.kernels.lower import lower
from lossmith.kernels.runtime import compile_kernel

U = np.uint64
HYPERS = {"multiclass_hinge": {"margin": 1.0}}
UNIT = {"f4": 2.0**-24, "f8": 2.0**-53}
FORMS = (forms.softmax_cross_entropy, forms.soft_cross_entropy, forms.hinge, forms.largest_margin)
ENDS = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 40, 41, 48, 63, 64, 65, 100, 511, 512, 513, 575, 576, 577, 1023, 1024,
        1025, 1100, 2049]  # fmt: skip
"""Numbers of classes around the lengths of vectors, blocks and forms."""


# ------------------------------------------------------------------ the pieces


@njit(nogil=True, error_model="numpy")
def copy_some(x, out, count):
    lanes.store_some(out, U(1), lanes.load_some(x, U(1), 16, U(count)), U(count))


@pytest.mark.parametrize("count", [0, 1, 7, 15, 16])
def test_the_last_vector_leaves_the_rest_alone(count):
    x = np.arange(18, dtype="f4")
    out = np.full(18, -1.0, "f4")
    copy_some(x, out, count)
    np.testing.assert_array_equal(out[1 : 1 + count], x[1 : 1 + count])
    assert (out[1 + count :] == -1).all()
    assert out[0] == -1


@njit(nogil=True, error_model="numpy")
def fold_all(x):
    v = lanes.load(x, U(0), 16)
    return lanes.add_lanes(v), lanes.max_lanes(v), lanes.min_lanes(v)


@pytest.mark.parametrize("at", range(16))
def test_folds_look_at_every_lane(at):
    x = np.zeros(16, "f4")
    x[at] = 3.0
    assert fold_all(x) == (3.0, 3.0, 0.0)
    x[at] = -3.0
    assert fold_all(x) == (-3.0, 0.0, -3.0)
    x[at] = np.nan
    assert np.isnan(fold_all(x)).all()


@njit(nogil=True, error_model="numpy")
def fold_rows(x):
    out = np.empty((3, 16), x.dtype)
    lanes.store(out, U(0), turning.add_rows(x, U(0), 16))
    lanes.store(out, U(16), turning.max_rows(x, U(0), 16))
    lanes.store(out, U(32), turning.min_rows(x, U(0), 16))
    return out


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_rows_are_folded_together_as_each_alone(dtype):
    x = np.random.default_rng(5).normal(size=(16, 16)).astype(dtype)
    x[3, 7], x[9, 0], x[12] = np.nan, np.inf, -np.inf
    each = np.array([fold_all(row) for row in x], dtype).T
    assert fold_rows(x).tobytes() == each.tobytes()


@njit(nogil=True, error_model="numpy")
def there_and_back(s, out, step, size):
    N, K, T = U(s.shape[0]), U(s.shape[1]), U(64)
    tile = np.empty(K * T + U(4) * T, s.dtype)
    for first in range(U(0), N, T):
        R = min(T, N - first)
        for r in range(U(0), R, U(step)):
            for begin in range(U(0), K, U(size)):
                k = min(begin, max(K, U(size)) - U(size))
                turning.rows_in(s, first + r, R - r, K, k, tile, k * T + r, T)
        for k in range(K):
            for r in range(R):
                tile[k * T + r] += k
        for r in range(U(0), R, U(step)):
            for begin in range(U(0), K, U(size)):
                k = min(begin, max(K, U(size)) - U(size))
                turning.rows_out(out, first + r, R - r, K, k, tile, k * T + r, T)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("classes", [1, 2, 3, 4, 5, 10, 16, 33])
@pytest.mark.parametrize("rows", [1, 3, 16, 17, 64, 77])
def test_blocks_of_rows_are_turned_and_turned_back(rows, classes, dtype):
    s = np.random.default_rng(rows).normal(size=(rows, classes)).astype(dtype)
    around = np.full((rows + 2, classes), -7.0, dtype)
    there_and_back(s, around[1:-1], 64 // s.itemsize, 16 // s.itemsize)
    np.testing.assert_array_equal(around[1:-1], s + np.arange(classes, dtype=dtype))
    assert (around[[0, -1]] == -7).all()


# ------------------------------------------------------------------ kernels


def run(form, dtype, backend, s, target):
    made = lower(*form())
    kernel = compile_kernel(made, dtype, backend)
    inputs = {"s": s} if made.labels else {"s": s, "t": target}
    out = {"value": np.empty(len(s)), "grad": np.full_like(s, 7.0)}
    kernel.run(inputs, target if made.labels else None, HYPERS.get(made.name, {}), None, 1.0, out)
    return out["value"], out["grad"]


def batch(form, n, k, dtype):
    rng = np.random.default_rng(k)
    s = (3 * rng.normal(size=(n, k))).astype(dtype)
    _, formula = form()
    return s, rng.integers(0, k, n) if formula.of_role("label") else rng.dirichlet(np.ones(k), n).astype(dtype)


def distance(got, exact, unit):
    """Return the largest error in roundings, relative to the largest entry of a row."""
    scale = np.abs(exact).max(axis=-1, keepdims=True) if exact.ndim == 2 else np.abs(exact)
    return np.max(np.abs(got - exact) / np.maximum(scale, 1e-3)) / unit


CASES = [(form, "f4") for form in FORMS] + [(forms.softmax_cross_entropy, "f8")]


@pytest.mark.parametrize(("form", "dtype"), CASES, ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_rows_of_every_length(form, dtype):
    """Against NumPy in float64, or in 80 bits: no class is left out, or counted twice, at the end of a row."""
    wide = "f8" if dtype == "f4" else "g"
    for k in ENDS:
        if form is forms.largest_margin and k == 1:
            continue
        s, target = batch(form, 19, k, dtype)
        value, grad = run(form, dtype, "numba", s, target)
        exact_target = target if target.dtype.kind == "i" else target.astype(wide)
        exact_value, exact_grad = run(form, wide, "numpy", s.astype(wide), exact_target)
        assert distance(value, exact_value, UNIT[dtype]) < 64, k
        assert distance(grad, exact_grad, UNIT[dtype]) < 64, k


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
def test_a_row_does_not_depend_on_its_neighbours(form):
    for k in (3, 10, 17, 41, 100, 600):
        s, target = batch(form, 67, k, "f4")
        value, grad = run(form, "f4", "numba", s, target)
        s[0], s[-1] = np.nan, 1e30
        alone = run(form, "f4", "numba", s[5:66], target[5:66])
        assert alone[0].tobytes() == value[5:66].tobytes()
        assert alone[1].tobytes() == grad[5:66].tobytes()
        one = run(form, "f4", "numba", s[37:38], target[37:38])
        assert one[0].tobytes() == value[37:38].tobytes()
        assert one[1].tobytes() == grad[37:38].tobytes()


def crowded(k):
    """Return rows with many equal numbers, infinities and NaN, and a label each."""
    rng = np.random.default_rng(k)
    s = rng.integers(-3, 4, (67, k)).astype("f4")
    s[5], s[6, ::2], s[7, -1], s[8], s[9, k // 2 :] = -np.inf, -np.inf, np.inf, np.inf, np.nan
    s[10], s[10, -1] = -np.inf, 1.0
    s[11] = -9.0  # below what fills the lanes that belong to no class
    return s, rng.integers(0, k, 67)


@pytest.mark.parametrize("k", [10, 41, 64, 100, 513, 600, 1100])
def test_the_first_of_equal_classes_is_found(k):
    s, label = crowded(k)
    _, grad = run(forms.largest_margin, "f4", "numba", s, label)
    _, exact = run(forms.largest_margin, "f4", "numpy", s, label)
    np.testing.assert_array_equal(grad, exact)


@pytest.mark.parametrize("k", [100, 600])
def test_the_last_of_equal_classes_is_a_mistake(monkeypatch, k):
    """A planted mistake: of equal numbers in a lane the last one is taken."""
    track = emit_vectors.VectorWriter.track_place

    def late(self, fold, value):
        name = track(self, fold, value)
        self.lines[-1] = self.lines[-1].replace(" > ", " >= ")
        return name

    monkeypatch.setattr(emit_vectors.VectorWriter, "track_place", late)
    s, label = crowded(k)
    _, exact = run(forms.largest_margin, "f4", "numpy", s, label)
    _, grad = planted(forms.largest_margin, "bands" if k < 512 else "rows", s, label)
    assert not np.array_equal(grad, exact, equal_nan=True)


@pytest.mark.parametrize("k", [10, 100, 600])
def test_a_lane_too_few_is_found(monkeypatch, k):
    """A planted mistake: the last part of a row is taken for one lane shorter than it is."""
    form = forms.soft_cross_entropy
    monkeypatch.setattr(emit_vectors.VectorWriter, "read_vector", _short)
    s, target = batch(form, 19, k, "f4")
    value, _ = planted(form, "rows", s, target)
    exact, _ = run(form, "f8", "numpy", s.astype("f8"), target.astype("f8"))
    assert distance(value, exact, UNIT["f4"]) > 64


def planted(form, arrangement, s, target):
    """Return what a kernel computes that is written now, past every cache."""
    text = emit(lower(*form()), np.dtype("f4"), form=arrangement)
    namespace: dict[str, object] = {}
    exec(compile(text, "planted", "exec"), namespace)
    value, grad = np.empty(len(s)), np.empty_like(s)
    namespace["kernel"](s, target, 1.0, value, grad)
    return value, grad


def _short(self, array, at):
    if self.in_part:
        return self.vec("load_some", f"{array}, {at}, {self.lanes}, left - U(1)")
    return self.vec("load", f"{array}, {at}, {self.lanes}")
