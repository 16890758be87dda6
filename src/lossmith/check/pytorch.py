"""What PyTorch makes of a definition: run in eager mode on the same inputs, differentiated by its autograd.

PyTorch is imported here and only where it is installed. The translation is the one its user would write: log Σ exp,
softmax, sigmoid and softplus are PyTorch's own stable functions; at ties, maximum and minimum follow lossmith's
convention, so that no digits are lost to a choice of subgradient.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

import numpy as np

from lossmith.check.sweep import Sweep
from lossmith.language.formula import Formula

_MOST = 5
"""Second derivatives of each class are taken one by one, and only for so few classes."""


def has_torch() -> bool:
    """Whether PyTorch is installed; it is not imported for that."""
    return importlib.util.find_spec("torch") is not None


class Tensors:
    """The algebra of PyTorch's tensors, for `Sweep`."""

    def __init__(self, dtype: str) -> None:
        self.torch: Any = importlib.import_module("torch")
        self.dtype: Any = getattr(self.torch, dtype)

    def number(self, value: Any) -> Any:
        given = np.atleast_1d(np.asarray(value, dtype=np.float64))
        return self.torch.as_tensor(given).to(self.dtype)

    def at(self, a: Any, key: tuple[Any, ...]) -> Any:
        return a[tuple(self.torch.as_tensor(np.array(k)) if isinstance(k, np.ndarray) else k for k in key)]

    def transposed(self, a: Any, order: tuple[int, ...]) -> Any:
        return a.permute(order)

    def add(self, a: Any, b: Any) -> Any:
        return a + b

    def mul(self, a: Any, b: Any) -> Any:
        return a * b

    def power(self, a: Any, b: Any) -> Any:
        return a**b

    def call(self, function: str, *args: Any) -> Any:
        torch = self.torch
        match function:
            case "maximum":
                return torch.where(args[0] > args[1], *args)
            case "minimum":
                return torch.where(args[0] < args[1], *args)
            case "softplus":
                return torch.nn.functional.softplus(*args)
            case "log_cosh":
                return torch.log(torch.cosh(*args))
            case "scaled":
                return args[0] * args[1]
            case _:
                return getattr(torch, function)(*args)

    def compare(self, op: str, a: Any, b: Any) -> np.ndarray:
        holds = a > b if op == ">" else a >= b if op == ">=" else a == b
        return holds.numpy()

    def where(self, mask: np.ndarray, a: Any, b: Any) -> Any:
        return self.torch.where(self._mask(mask), a, b)

    def _mask(self, mask: np.ndarray) -> Any:
        return self.torch.as_tensor(np.array(mask))

    def _kept(self, a: Any, mask: np.ndarray | None, otherwise: float) -> Any:
        return a if mask is None else self.where(mask, a, self.number(otherwise))

    def total(self, a: Any, axis: int, mask: np.ndarray | None) -> Any:
        return self._kept(a, mask, 0.0).sum(dim=axis)

    def extremum(self, op: str, a: Any, axis: int, mask: np.ndarray | None) -> Any:
        if op == "max":
            return self._kept(a, mask, -np.inf).max(dim=axis).values
        return self._kept(a, mask, np.inf).min(dim=axis).values

    def place(self, op: str, a: Any, axis: int, mask: np.ndarray | None) -> np.ndarray:
        kept = self._kept(a, mask, -np.inf if op == "max" else np.inf).detach()
        return (kept.argmax(dim=axis) if op == "max" else kept.argmin(dim=axis)).numpy()

    def logsumexp(self, a: Any, axis: int, mask: np.ndarray | None) -> Any:
        return self.torch.logsumexp(self._kept(a, mask, -np.inf), dim=axis)

    def softmax(self, a: Any, axis: int, mask: np.ndarray | None) -> Any:
        return self.torch.softmax(self._kept(a, mask, -np.inf), dim=axis)


class Autograd:
    """A definition in PyTorch, with its derivatives by autograd."""

    def __init__(self, formula: Formula) -> None:
        self.formula = formula
        self._names = [i.name for i in formula.of_role("scores")]

    def run(
        self, dtype: str, inputs: Mapping[str, np.ndarray], label: np.ndarray | None, hypers: Mapping[str, Any], K: int
    ) -> dict[str, tuple[np.ndarray, ...]]:
        """Return all outputs of a batch; the inputs end with the direction of the product."""
        tensors = Tensors(dtype)
        given = {n: tensors.torch.as_tensor(np.array(a)).to(tensors.dtype) for n, a in inputs.items()}
        *_, direction = given.values()
        for name in self._names:
            given[name].requires_grad_(True)
        rows = len(direction)
        value = Sweep(tensors, given, label, hypers, rows, K).value(self.formula.expr).expand(rows)
        found: dict[str, list[np.ndarray]] = {
            "value": [value.numpy(force=True)],
            "grad": [],
            "hessian_diag": [],
            "hvp": [],
        }
        for name in self._names:
            first = self._by(value.sum(), given[name])
            found["grad"].append(first.numpy(force=True))
            found["hvp"].append(self._by((first * direction).sum(), given[name]).numpy(force=True))
            if first.ndim == 1 or K <= _MOST:
                found["hessian_diag"].append(self._diagonal(first, given[name]))
        return {output: tuple(arrays) for output, arrays in found.items()}

    def _by(self, total: Any, of: Any) -> Any:
        """Return the gradient of a number; of one that is constant, zeros."""
        torch: Any = importlib.import_module("torch")
        if not total.requires_grad:
            return torch.zeros_like(of)
        (found,) = torch.autograd.grad(total, of, create_graph=True, allow_unused=True)
        return torch.zeros_like(of) if found is None else found

    def _diagonal(self, first: Any, of: Any) -> np.ndarray:
        if first.ndim == 1:
            return self._by(first.sum(), of).numpy(force=True)
        columns = [self._by(first[:, k].sum(), of)[:, k].numpy(force=True) for k in range(first.shape[1])]
        return np.stack(columns, axis=1)
