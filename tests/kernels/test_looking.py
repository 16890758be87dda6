"""A look at many numbers sees each of them, and none beside them."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from lossmith.kernels.lanes import load, load_some
from lossmith.kernels.looking import BYTES, all_within, has_nan, nothing_seen, seen, seen_within

DTYPES = ["f4", "f8"]


@njit(nogil=True, error_model="numpy")
def nan(array, at, count):
    return has_nan(array, at, count)


@njit(nogil=True, error_model="numpy")
def within(array, at, count, limit):
    return all_within(array, at, count, limit)


@njit(nogil=True, error_model="numpy")
def seen_in_passing(array, limit):
    bits = nothing_seen(limit, 16)
    left = array.size % np.uint64(16)
    whole = np.uint64(array.size) - left
    for k in range(np.uint64(0), whole, np.uint64(16)):
        bits = seen(bits, load(array, k, 16))
    if left:
        bits = seen(bits, load_some(array, whole, 16, left))
    return seen_within(bits, limit)


def looks(array: np.ndarray, at: int, count: int) -> tuple[bool, bool]:
    place = np.uint64(at), np.uint64(count)
    return nan(array, *place), within(array, *place, array.dtype.type(1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_is_seen_and_none_beside(dtype: str) -> None:
    width = BYTES // np.dtype(dtype).itemsize
    for count in (1, 2, width - 1, width, width + 1, 3 * width + 7):
        array = np.full(count + 8, np.nan, dtype)
        for at in (0, 3):
            array[:] = np.nan
            array[at : at + count] = np.linspace(0, 1, count)
            assert looks(array, at, count) == (False, True)
            for place in range(at, at + count):
                kept, array[place] = array[place], np.nan
                assert looks(array, at, count) == (True, False)
                array[place] = -1
                assert looks(array, at, count) == (False, False)
                array[place] = kept
    assert looks(array, 0, 0) == (False, True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_which_numbers_lie_within(dtype: str) -> None:
    one, info = np.dtype(dtype).type(1), np.finfo(dtype)
    inside = [0.0, info.smallest_subnormal, info.tiny, np.nextafter(one, 0 * one), 1.0]
    beyond = [np.nextafter(one, 2 * one), 2.0, info.max, np.inf]
    below = [-info.smallest_subnormal, -1.0, -np.inf, -0.0]  # it cannot be sure of -0, nor of NaN
    for number in (*inside, *beyond, *below, np.nan, -np.nan):
        array = np.array([0.5, number, 0.25], dtype)
        assert looks(array, 0, 3) == (bool(np.isnan(number)), any(number is n for n in inside)), number
        at_most_infinity = within(array, np.uint64(0), np.uint64(3), np.dtype(dtype).type(np.inf))
        assert at_most_infinity == any(number is n for n in (*inside, *beyond)), number
        for count in (3, 16, 50):
            for place in {0, 2, count - 1}:
                passed = np.full(count, 0.5, dtype)
                passed[place] = number
                assert seen_in_passing(passed, one) == any(number is n for n in inside), number
                assert seen_in_passing(passed, one * np.inf) == any(number is n for n in (*inside, *beyond)), number
    quiet, bits = np.zeros(5, dtype), np.dtype(f"u{info.bits // 8}")
    quiet.view(bits)[3] = np.array(np.inf, dtype).view(bits) + 1  # the smallest NaN, a signalling one
    assert looks(quiet, 0, 5) == (True, False)
