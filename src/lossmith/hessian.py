"""The Hessian of each sample as a diagonal plus a few rank-one terms: products and solves in O(K)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lossmith.errors import ShapeError


@dataclass(frozen=True)
class DiagonalPlusLowRank:
    """One matrix for each sample: H = diag(d) + Σ_r u_r v_rᵀ.

    Attributes
    ----------
    diagonal : array of shape (..., K)
        d.
    left, right : arrays of shape (R, ..., K)
        u and v.
    entries : array of shape (..., K), optional
        The diagonal entries of H, where they are known better than by d + Σ_r u_r v_r, which cancels: p − p².

    Notes
    -----
    The classes are the last axis of every array here, also where the scores had them elsewhere, and the arrays are
    float32 or float64, also for scores in half precision.
    """

    diagonal: np.ndarray
    left: np.ndarray
    right: np.ndarray
    entries: np.ndarray | None = None

    @classmethod
    def from_outputs(cls, arrays: Mapping[str, np.ndarray]) -> DiagonalPlusLowRank:
        """Collect the outputs of a kernel; a single element is a matrix of one row."""
        last = {n: a if a.ndim else a.reshape(1) for n, a in arrays.items()}
        diagonal = last["diagonal"] if "diagonal" in last else last["hessian_diag"]
        pairs = [(last[n], last["v" + n[1:]]) for n in last if n.startswith("u_")]
        empty = np.empty((0, *diagonal.shape), dtype=diagonal.dtype)
        left = np.stack([u for u, _ in pairs]) if pairs else empty
        right = np.stack([v for _, v in pairs]) if pairs else empty
        return cls(diagonal, left, right, last.get("hessian_diag"))

    def dense(self) -> np.ndarray:
        """Return the matrices, shape (..., K, K)."""
        k = np.arange(self.diagonal.shape[-1])
        full = np.sum(self.left[..., :, None] * self.right[..., None, :], axis=0, dtype=self.diagonal.dtype)
        full[..., k, k] = self.diag()
        return full

    def diag(self) -> np.ndarray:
        """Return the diagonals of the matrices, shape (..., K)."""
        if self.entries is not None:
            return self.entries.copy()
        return self.diagonal + np.sum(self.left * self.right, axis=0)

    def __matmul__(self, v: Any) -> np.ndarray:
        """Return H v for a vector per sample, shape (..., K), in O(K)."""
        v = self._rows("the vector", v)
        along = np.sum(self.right * v, axis=-1, keepdims=True)
        return self.diagonal * v + np.sum(self.left * along, axis=0)

    def solve(self, b: Any, damping: float = 0.0) -> np.ndarray:
        """Return x with (H + damping·I) x = b, by the Woodbury identity, computed in float64.

        Damping makes singular matrices solvable: the Hessian of every loss that adding a constant to the scores does
        not change is singular. A sample whose diagonal d + damping has a zero gets NaN.
        """
        b = self._rows("the right-hand side", b)
        d, left, right = (a.astype(np.float64) for a in (self.diagonal, self.left, self.right))
        d = d + damping
        d = np.where(d == 0, np.nan, d)
        x = b / d
        rank = np.arange(len(left))
        core = np.einsum("r...k,q...k->...rq", right, left / d)
        core[..., rank, rank] += 1
        along = np.einsum("r...k,...k->...r", right, x)
        singular = ~np.isfinite(core).all(axis=(-2, -1)) | (np.linalg.det(core) == 0)
        core[singular] = np.eye(len(left)) * np.nan  # NaN solves to NaN, where a zero determinant raises
        weight = np.linalg.solve(core, along[..., None])[..., 0]
        return (x - np.einsum("...r,r...k->...k", weight, left / d)).astype(b.dtype)

    def _rows(self, name: str, given: Any) -> np.ndarray:
        array = np.asarray(given)
        if array.dtype.kind in "iub":
            array = array.astype(self.diagonal.dtype)
        if array.shape != self.diagonal.shape:
            raise ShapeError(f"{name} has shape {array.shape}, expected {self.diagonal.shape}.")
        return array
