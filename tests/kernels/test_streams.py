"""Outputs that are written past the cache are the same as others."""

from typing import Any

import numpy as np
import pytest
from numba import njit

import lossmith as lm
from lossmith.kernels import rowprogram, runtime
from lossmith.kernels.streams import LINE, drain, stream

DTYPES = (np.float32, np.float64)


@njit(nogil=True, error_model="numpy")
def copy(target, at, source, count):
    stream(target, at, source, count)
    drain()


@pytest.mark.parametrize("dtype", DTYPES)
def test_streams_write_what_they_are_given_and_nothing_beside_it(dtype: type) -> None:
    lanes = LINE // np.dtype(dtype).itemsize
    source = np.arange(1, 200, dtype=dtype)
    for offset in range(lanes + 1):  # every place that an array may begin at in a line of memory
        for at in (0, 3):
            for count in (0, 1, lanes - 1, lanes, lanes + 1, 3 * lanes + 5, 150):
                target = np.zeros(300, dtype)[offset:]
                copy(target, np.uint64(at), source, np.uint64(count))
                expected = np.zeros_like(target)
                expected[at : at + count] = source[:count]
                np.testing.assert_array_equal(target, expected)


def test_lines_are_written_without_being_read() -> None:
    array = np.zeros(64, np.float32)
    copy(array, np.uint64(0), array.copy(), np.uint64(64))
    assert all("!nontemporal" in text for text in copy.inspect_llvm().values())


@pytest.mark.parametrize(("dtype", "weighted"), [(np.float32, False), (np.float32, True), (np.float64, False)])
def test_a_streamed_batch_has_the_same_bits(dtype: type, weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    s, t = rng.normal(size=(2, 70_001)).astype(dtype)
    weight = np.where(rng.random(s.size) < 0.2, 0.0, rng.random(s.size)) if weighted else None
    s[5] = np.nan
    t = 1 / (1 + np.exp(-t))

    def results() -> list[np.ndarray]:
        loss = lm.loss("softplus(s) - t*s")  # a new one, so that its kernels are chosen now
        scores = s.copy()
        # into a new array, into one that begins inside a line, and over the scores
        places = (None, np.full(s.size + 1, 7, dtype)[1:], scores)
        found = [loss.value_and_grad(scores, t, sample_weight=weight, out=place) for place in places]
        return [array for pair in found for array in pair]

    plain = results()
    monkeypatch.setattr(runtime, "STREAMED", 1)
    forms: list[str] = []

    def watched(*args: Any) -> str:
        forms.append(rowprogram.form_of(*args))
        return forms[-1]

    monkeypatch.setattr(runtime, "form_of", watched)
    streamed = results()
    if runtime.has_numba():
        assert "streams" in forms
    for a, b in zip(plain, streamed, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("many", [False, True])
def test_names_of_the_generated_code_give_way_to_the_users(many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if many:
        monkeypatch.setattr(runtime, "STREAMED", 1)
    loss = lm.loss("s_r*(s - t)**2 + grad_made*s", s_r=2.0, grad_made=3.0)
    s, t = np.array([1.0, 2.0]), np.array([0.5, 4.0])
    value, grad = loss.value_and_grad(s, t, s_r=5.0, grad_made=7.0, reduction="sum")
    assert value == 5 * (0.25 + 4) + 7 * 3
    np.testing.assert_array_equal(grad, 10 * (s - t) + 7)
