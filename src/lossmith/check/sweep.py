"""Expressions evaluated for all classes at once, and for all rows of a batch, by whatever computes: an `Algebra`.

The interpreter takes one class at a time and any node; this takes arrays. It serves the numbers of many digits with
their derivatives (jets.py), floats as textbook code has them (floats.py), and PyTorch's tensors (pytorch.py). Every
node's value is kept, so that sub-expressions can be looked at afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from lossmith.language import expr as e
from lossmith.language.expr import Bound, Expr, Index, level_of

Data: TypeAlias = Any
"""What an algebra computes with; its shape has one axis for the rows and one for each class index in the expression."""
Axes: TypeAlias = tuple[Any, ...]

_OWN = object()
"""The axis of an input before an index names it."""


class Algebra(Protocol):
    """What a sweep asks of numbers. Masks are arrays of bool; `axis` is the one to run over."""

    def number(self, value: Any) -> Data:
        """Return one number, or an array of them."""
        ...

    def at(self, a: Data, key: tuple[Any, ...]) -> Data:
        """Return a[key]."""
        ...

    def transposed(self, a: Data, order: tuple[int, ...]) -> Data: ...
    def add(self, a: Data, b: Data) -> Data: ...
    def mul(self, a: Data, b: Data) -> Data: ...
    def power(self, a: Data, b: Data) -> Data: ...
    def call(self, function: str, *args: Data) -> Data: ...
    def compare(self, op: str, a: Data, b: Data) -> np.ndarray: ...
    def where(self, mask: np.ndarray, a: Data, b: Data) -> Data: ...
    def total(self, a: Data, axis: int, mask: np.ndarray | None) -> Data: ...
    def extremum(self, op: str, a: Data, axis: int, mask: np.ndarray | None) -> Data: ...
    def place(self, op: str, a: Data, axis: int, mask: np.ndarray | None) -> np.ndarray: ...
    def logsumexp(self, a: Data, axis: int, mask: np.ndarray | None) -> Data: ...
    def softmax(self, a: Data, axis: int, mask: np.ndarray | None) -> Data:
        """Return the softmax over the classes in the mask, for every class."""
        ...


class Swept(NamedTuple):
    """A value with the indices that its axes, after that of the rows, stand for."""

    data: Data
    axes: Axes = ()


class Sweep:
    """Evaluates expressions over a batch of `rows` rows with K classes.

    Parameters
    ----------
    algebra : Algebra
    inputs : mapping
        Of each input by name: data of shape (rows, K), or (rows,) for an elementwise one.
    label : ndarray of int or None
    hypers : mapping
        Of each hyperparameter by name: a number, or K numbers.
    """

    def __init__(
        self,
        algebra: Algebra,
        inputs: Mapping[str, Data],
        label: np.ndarray | None,
        hypers: Mapping[str, Any],
        rows: int,
        K: int,
    ) -> None:
        self.algebra, self.inputs, self.label, self.hypers = algebra, inputs, label, hypers
        self.rows, self.K = rows, K
        self.known: dict[Any, Swept] = {}
        self._places: dict[Index, tuple[np.ndarray, Axes]] = {}
        self._order: dict[Any, int] = {}

    def value(self, expr: Expr, index: Index | None = None) -> Data:
        """Return the value of `expr`, with an axis for its free index if one is named."""
        found = self.swept(expr)
        if index is None:
            return self._aligned(found, ())
        return self._along(found, (index,), index)

    def swept(self, expr: Expr) -> Swept:
        """Return the value with its axes."""
        if expr not in self.known:
            self.known[expr] = self._evaluated(expr)
        return self.known[expr]

    # -------------------------------------------------------------- axes

    def _sorted(self, axes: set[Any]) -> Axes:
        for a in axes:
            self._order.setdefault(a, len(self._order))
        return tuple(sorted(axes, key=self._order.__getitem__))

    def _aligned(self, found: Swept, axes: Axes) -> Data:
        if found.axes == axes:
            return found.data
        key = (slice(None), *(slice(None) if a in found.axes else None for a in axes))
        return self.algebra.at(found.data, key)

    def _along(self, found: Swept, axes: Axes, index: Any) -> Data:
        """Return data with these axes, that of `index` at its full length."""
        data = self._aligned(found, axes)
        if index in found.axes:
            return data
        key = (slice(None),) * (1 + axes.index(index))
        return self.algebra.at(data, (*key, np.zeros(self.K, dtype=np.intp)))

    def _together(self, *parts: Swept) -> tuple[Axes, list[Data]]:
        axes = self._sorted({a for p in parts for a in p.axes})
        return axes, [self._aligned(p, axes) for p in parts]

    def _picked(self, found: Swept, bound: Any, index: Index) -> Swept:
        """Return what stands at `index` along the axis `bound`."""
        if isinstance(index, e.Free | Bound) and index not in found.axes:
            return self._renamed(found, bound, index)
        numbers, own = self._place(index)
        axes = self._sorted({*found.axes, *own} - {bound})
        place = self._ints(numbers, own, axes)
        key: list[np.ndarray] = [np.arange(self.rows).reshape(-1, *[1] * len(axes))]
        if found.data.shape[0] == 1:
            key = [np.zeros((1,) * (1 + len(axes)), dtype=np.intp)]
        for a in found.axes:
            shape = [1] * (1 + len(axes))
            if a is not bound:
                shape[1 + axes.index(a)] = self.K
            key.append(place if a is bound else np.arange(self.K).reshape(shape))
        return Swept(self.algebra.at(found.data, tuple(key)), axes)

    def _renamed(self, found: Swept, bound: Any, index: Index) -> Swept:
        axes = tuple(index if a is bound else a for a in found.axes)
        after = self._sorted(set(axes))
        if after == axes:
            return Swept(found.data, axes)
        order = [axes.index(a) for a in after]
        return Swept(self.algebra.transposed(found.data, (0, *(1 + k for k in order))), after)

    def _ints(self, numbers: np.ndarray, own: Axes, axes: Axes) -> np.ndarray:
        return numbers[(slice(None), *(slice(None) if a in own else None for a in axes))]

    def _place(self, index: Index) -> tuple[np.ndarray, Axes]:
        """Return the class numbers that an index stands for, with their axes."""
        if index not in self._places:
            self._places[index] = self._class_numbers(index)
        return self._places[index]

    def _class_numbers(self, index: Index) -> tuple[np.ndarray, Axes]:
        match index:
            case e.Fixed(number):
                return np.array([number]), ()
            case e.Label():
                if self.label is None:
                    raise KeyError("the expression has a label, the batch has none")
                return self.label, ()
            case e.ArgReduce(op):
                bound, axes, data, mask = self._run_over(index)
                rest = tuple(a for a in axes if a is not bound)
                return self.algebra.place(op, data, 1 + axes.index(bound), mask), rest
            case _:
                return np.arange(self.K)[None, :], (index,)

    # -------------------------------------------------------------- nodes

    def _evaluated(self, expr: Expr) -> Swept:
        o = self.algebra
        match expr:
            case e.Const(value):
                return Swept(o.number(value))
            case e.Size():
                return Swept(o.number(self.K))
            case e.Hyper(name, indices):
                return self._hyper(name, indices)
            case e.Entry(name, index):
                data = self.inputs[name]
                return Swept(data) if index is None else self._picked(Swept(data, (_OWN,)), _OWN, index)
            case e.ClassNumber(index):
                numbers, axes = self._place(index)
                return Swept(o.number(numbers), axes)
            case e.Delta() | e.Compare() | e.Not():
                mask, axes = self._condition(expr)
                return Swept(o.number(mask.astype(int)), axes)
            case e.Add(terms):
                return self._folded(terms, o.add)
            case e.Mul(factors):
                return self._folded(factors, o.mul)
            case e.Pow(base, exponent):
                axes, (a, b) = self._together(self.swept(base), self.swept(exponent))
                return Swept(o.power(a, b), axes)
            case e.Call(function, args):
                axes, data = self._together(*(self.swept(a) for a in args))
                return Swept(o.call(function, *data), axes)
            case e.Where(cond, then, other):
                return self._where(cond, then, other)
            case e.Held(body):
                return self.swept(body)
            case e.Reduce():
                return self._reduced(expr)
            case e.Softmax():
                return self._softmax(expr)
            case _:
                raise TypeError(f"not an expression to be evaluated at once: {expr!r}")

    def _hyper(self, name: str, indices: tuple[Index, ...]) -> Swept:
        if not indices:
            return Swept(self.algebra.number(self.hypers[name]))
        row = self.algebra.number(np.asarray(self.hypers[name])[None, :])
        return self._picked(Swept(row, (_OWN,)), _OWN, indices[0])

    def _folded(self, parts: tuple[Expr, ...], operation: Any) -> Swept:
        found = self.swept(parts[0])
        for part in parts[1:]:
            axes, (a, b) = self._together(found, self.swept(part))
            found = Swept(operation(a, b), axes)
        return found

    def _where(self, cond: Expr, then: Expr, other: Expr) -> Swept:
        mask, axes = self._condition(cond)
        if mask.all() or not mask.any():  # what is not chosen is not even evaluated
            return self.swept(then if mask.any() else other)
        a, b = self.swept(then), self.swept(other)
        every = self._sorted({*axes, *a.axes, *b.axes})
        chosen = self._ints(mask, axes, every)
        return Swept(self.algebra.where(chosen, self._aligned(a, every), self._aligned(b, every)), every)

    def _condition(self, cond: Expr) -> tuple[np.ndarray, Axes]:
        match cond:
            case e.Delta(i, j):
                (a, a_axes), (b, b_axes) = self._place(i), self._place(j)
                axes = self._sorted({*a_axes, *b_axes})
                return self._ints(a, a_axes, axes) == self._ints(b, b_axes, axes), axes
            case e.Compare(op, a, b):
                axes, (x, y) = self._together(self.swept(a), self.swept(b))
                return self.algebra.compare(op, x, y), axes
            case e.Not(inner):
                mask, axes = self._condition(inner)
                return ~mask, axes
            case e.Mul(factors):
                masks = [self._condition(f) for f in factors]
                axes = self._sorted({a for _, own in masks for a in own})
                return np.logical_and.reduce(np.broadcast_arrays(*(self._ints(m, o, axes) for m, o in masks))), axes
            case _:
                found = self.swept(cond)
                return ~self.algebra.compare("==", found.data, self.algebra.number(0)), found.axes

    def _run_over(self, node: e.Reduce | e.Softmax | e.ArgReduce) -> tuple[Index, Axes, Data, np.ndarray | None]:
        """Return the bound index of a binder, all axes, the body with them, and which classes count."""
        bound, body = Bound(level_of(node)), self.swept(node.body)
        cond, cond_axes = (None, ()) if node.cond is e.TRUE else self._condition(node.cond)
        axes = self._sorted({*body.axes, *cond_axes, bound})
        data = self._along(body, axes, bound)
        if cond is None:
            return bound, axes, data, None
        for a in axes:  # a condition on another index leaves the body as it is, for every class of that index
            if a in cond_axes and a not in body.axes and a is not bound:
                data = self.algebra.at(data, (*[slice(None)] * (1 + axes.index(a)), np.zeros(self.K, dtype=np.intp)))
        mask = np.broadcast_to(self._ints(cond, cond_axes, axes), self._full(axes, data.shape[0], cond.shape[0]))
        return bound, axes, data, mask

    def _full(self, axes: Axes, *rows: int) -> tuple[int, ...]:
        return (max(rows), *[self.K] * len(axes))

    def _reduced(self, node: e.Reduce) -> Swept:
        o = self.algebra
        bound, axes, data, mask = self._run_over(node)
        axis, rest = 1 + axes.index(bound), tuple(a for a in axes if a is not bound)
        match node.op:
            case "sum":
                return Swept(o.total(data, axis, mask), rest)
            case "logsumexp":
                return Swept(o.logsumexp(data, axis, mask), rest)
            case _:
                return Swept(o.extremum(node.op, data, axis, mask), rest)

    def _softmax(self, node: e.Softmax) -> Swept:
        key = ("softmax", node.cond, node.body)
        bound = Bound(level_of(node))
        if key not in self.known:
            _, axes, data, mask = self._run_over(node)
            self.known[key] = Swept(self.algebra.softmax(data, 1 + axes.index(bound), mask), axes)
        return self._picked(self.known[key], bound, node.at)
