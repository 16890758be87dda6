"""The Hessian of each sample as a diagonal plus a few rank-one terms: products and solves in O(K)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lossmith.errors import ShapeError


@dataclass(frozen=True)
class DiagonalPlusLowRank:
    """One matrix for each sample: diag(d) + Σ_r u_r v_rᵀ.

    Attributes
    ----------
    diagonal : array of shape (..., K)
    left, right : arrays of shape (R, ..., K)
    """

    diagonal: np.ndarray
    left: np.ndarray
    right: np.ndarray

    @classmethod
    def from_outputs(cls, arrays: Mapping[str, np.ndarray]) -> DiagonalPlusLowRank:
        """Collect the outputs of a kernel."""
        diagonal = arrays["diagonal"] if "diagonal" in arrays else arrays["hessian_diag"]
        pairs = [(arrays[n], arrays["v" + n[1:]]) for n in arrays if n.startswith("u_")]
        empty = np.empty((0, *diagonal.shape), dtype=diagonal.dtype)
        left = np.stack([u for u, _ in pairs]) if pairs else empty
        right = np.stack([v for _, v in pairs]) if pairs else empty
        return cls(diagonal, left, right)

    def dense(self) -> np.ndarray:
        """Return the matrices, shape (..., K, K)."""
        k = self.diagonal.shape[-1]
        full = np.einsum("r...i,r...j->...ij", self.left, self.right)
        full[..., np.arange(k), np.arange(k)] += self.diagonal
        return full

    def diag(self) -> np.ndarray:
        """Return the diagonals of the matrices, shape (..., K)."""
        return self.diagonal + np.sum(self.left * self.right, axis=0)

    def __matmul__(self, v: np.ndarray) -> np.ndarray:
        """Return H v for a vector per sample, shape (..., K), in O(K)."""
        v = np.asarray(v)
        if v.shape != self.diagonal.shape:
            raise ShapeError(f"the vector has shape {v.shape}, expected {self.diagonal.shape}.")
        along = np.sum(self.right * v, axis=-1, keepdims=True)
        return self.diagonal * v + np.sum(self.left * along, axis=0)

    def solve(self, b: np.ndarray, damping: float = 0.0) -> np.ndarray:
        """Return x with (H + damping·I) x = b, by the Woodbury identity; damping makes singular ones solvable."""
        b = np.asarray(b)
        if b.shape != self.diagonal.shape:
            raise ShapeError(f"the right-hand side has shape {b.shape}, expected {self.diagonal.shape}.")
        d = self.diagonal + damping
        x = b / d
        if not len(self.left):
            return x
        scaled = self.left / d
        core = np.einsum("r...k,q...k->...rq", self.right, scaled)
        core[..., np.arange(len(self.left)), np.arange(len(self.left))] += 1
        along = np.einsum("r...k,...k->...r", self.right, x)
        weight = np.linalg.solve(core, along[..., None])[..., 0]
        return x - np.einsum("...r,r...k->...k", weight, scaled)
