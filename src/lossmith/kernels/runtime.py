"""Running kernels over a batch: compiled on demand, in pieces of rows, on several threads.

A row's results depend on that row alone, so they are the same bits for any number of threads and any split of the
batch. Sums over rows go through `sum_rows`, which adds in an order that depends on nothing but their number.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lossmith.errors import ShapeError
from lossmith.kernels import rowprogram
from lossmith.kernels.rowprogram import Form, RowProgram, form_of, function_name, rows_per_sum
from lossmith.kernels.threads import available_threads, run_pieces

if TYPE_CHECKING:
    from pathlib import Path

Backend = Literal["auto", "numba", "numpy"]

SMALL = 32768
"""A batch with fewer entries than this (or pairs, for loops over pairs) is done by the calling thread alone."""

NUMPY_CHUNK = 1 << 20
"""How many numbers an intermediate array of the NumPy back end may hold; rows beyond go in the next chunk."""

DOUBLE = np.dtype(np.float64)

BUFFER = 1 << 14
"""How many entries are computed beside the inputs before they are written over them."""

SUM_BLOCK = 4096


@functools.cache
def has_numba() -> bool:
    """Whether Numba can be imported: it may be missing, or not fit this NumPy."""
    try:
        import numba
    except ImportError:
        return False
    return bool(numba.__version__)


def compile_kernel(program: RowProgram, dtype: Any, backend: Backend = "auto") -> Kernel:
    """Return a kernel for arrays of a dtype; the machine code is made at the first run.

    Parameters
    ----------
    program : RowProgram
        What to compute for each row.
    dtype : dtype
        float32 or float64; half precisions are computed in float32 and rounded once.
    backend : {"auto", "numba", "numpy"}
        "auto" is Numba where it is installed.
    """
    if backend == "auto":
        backend = "numba" if has_numba() else "numpy"
    given = np.dtype(dtype)
    compute = given if given.char in "fdg" else np.dtype(np.float32 if given.itemsize < 4 else np.float64)
    return _NumbaKernel(program, given, compute) if backend == "numba" else _NumpyKernel(program, given, compute)


class Kernel:
    """A compiled row program.

    Attributes
    ----------
    program : RowProgram
    outputs : tuple of str
        The names of what it computes, in order.
    dtype, compute : dtype
        Of the arrays, and of the arithmetic.
    """

    def __init__(self, program: RowProgram, dtype: np.dtype[Any], compute: np.dtype[Any]) -> None:
        self.program = program
        self.dtype = dtype
        self.compute = compute
        self.outputs = tuple(name for name, _ in program.outputs)
        self._elementwise = program.kind == "elementwise"
        self._float = compute.type
        self._depth = max(1, program.depth)
        self._forms = [(name, self._is_value(name, per_class), per_class or self._elementwise)
                       for name, per_class in program.outputs]  # fmt: skip
        first = len(program.inputs) + len(program.labels)
        self._per_class = {first + k for k, p in enumerate(program.params) if p.ndim}  # arguments that have no rows

    @property
    def source(self) -> str:
        """The generated code."""
        raise NotImplementedError

    def run(
        self,
        inputs: Mapping[str, np.ndarray],
        label: np.ndarray | None,
        hypers: Mapping[str, Any],
        weight: np.ndarray | None,
        scale: float,
        outputs: Mapping[str, np.ndarray],
        threads: int | None = None,
    ) -> None:
        """Compute every output for every row.

        Parameters
        ----------
        inputs : mapping of str to array, (N, K), or (N,) for an elementwise program
            Not written to, unless one of them is also an output.
        label : int array (N,), or None
            Each in [0, K): checked by the caller.
        hypers : mapping of str to number or array (K,)
        weight : float64 array (N,), or None
            A row of weight 0 has value 0 and zeros elsewhere, whatever it holds.
        scale : float
            Outputs other than the value are multiplied by weight·scale; the value by the weight.
        outputs : mapping of str to array
            Where to write: value float64 (N,), others like the inputs. An output may be an input.
        threads : int, optional
            At most so many threads; all there are by default.
        """
        self._run(inputs, label, hypers, weight, scale, outputs, threads, 1)

    def total(
        self,
        inputs: Mapping[str, np.ndarray],
        label: np.ndarray | None,
        hypers: Mapping[str, Any],
        weight: np.ndarray | None,
        scale: float,
        outputs: Mapping[str, np.ndarray],
        threads: int | None = None,
    ) -> float:
        """Compute every output for every row but the value, of which only the sum is returned, added in float64.

        Takes what `run` takes, `outputs` without the value. It spares writing the values and reading them again where
        that counts. The sum is the same bits for any number of threads.
        """
        first = inputs[self.program.inputs[0]]
        each = self._rows_per_sum(1 if self._elementwise else first.shape[1])
        values = np.empty(-(-len(first) // each))
        self._run(inputs, label, hypers, weight, scale, {**outputs, "value": values}, threads, each)
        return sum_rows(values)

    def straight(self, classes: int) -> Callable[..., None]:
        """Return the compiled function itself, for small batches: what `run` does for them without its checks.

        It is called as call(*inputs, *labels, *hyperparameters, scale, *outputs). Everything is up to the caller: all
        arrays in C order and aligned, inputs and outputs in the dtype of `compute`, labels in int64 and in range, the
        value in float64, and no output in the memory of an input. Anything else reads or writes where it should not.
        """
        return self._prepare(False, classes, False)

    def _rows_per_sum(self, classes: int) -> int:
        """Return how many rows a call from `total` gives one sum for."""
        return 1

    def _run(
        self, inputs: Mapping[str, np.ndarray], label: np.ndarray | None, hypers: Mapping[str, Any],
        weight: np.ndarray | None, scale: float, outputs: Mapping[str, np.ndarray], threads: int | None, each: int,
    ) -> None:  # fmt: skip
        rows = [self._laid_out(inputs[name]) for name in self.program.inputs]
        shape = rows[0].shape
        if len(rows) > 1 and any(r.shape != shape for r in rows):
            raise ShapeError(f"inputs of one batch have shapes {[r.shape for r in rows]}")
        n = shape[0]
        if n == 0:
            return
        labels = [np.ascontiguousarray(label, dtype=np.int64)] if self.program.labels else []
        weights = [] if weight is None else [np.ascontiguousarray(weight, dtype=np.float64)]
        if any(a.shape != (n,) for a in (*labels, *weights)):
            raise ShapeError(f"labels and weights have shapes {[a.shape for a in (*labels, *weights)]}, not ({n},)")
        params = [self._param(hypers[p.name], p.ndim, shape) for p in self.program.params]
        targets, overwrites, copies = self._targets(rows, outputs, each)
        call = self._prepare(bool(weights), 1 if self._elementwise else shape[1], each > 1)
        if overwrites:
            call = functools.partial(self._by_way_of_buffers, call, overwrites, each)
        self._spread(
            call, [*rows, *labels, *weights], len(rows) + len(labels), params, float(scale), targets, threads, each
        )
        for given, made in copies:
            given[...] = made

    def _by_way_of_buffers(self, call: Callable[..., None], overwrites: set[int], each: int, *args: Any) -> None:
        """Compute a few rows at a time beside the inputs, then write them over: the same code, so the same bits."""
        n, cut = len(args[0]), len(args) - len(self.outputs)
        step = max(1, BUFFER // max(1, args[0][0].size) // each) * each
        for start in range(0, n, step):
            stop = min(n, start + step)
            at = slice(start, stop)
            mine = [a[at] if isinstance(a, np.ndarray) and k not in self._per_class else a
                    for k, a in enumerate(args[:cut])]  # fmt: skip
            targets = self._part(args[cut:], start, stop, each)
            buffers = [np.empty_like(t) if k in overwrites else t for k, t in enumerate(targets)]
            call(*mine, *buffers)
            for k in overwrites:
                targets[k][...] = buffers[k]

    def _part(self, targets: Any, start: int, stop: int, each: int) -> list[np.ndarray]:
        """Return the part of each output that belongs to some rows; `each` rows share one value."""
        return [
            t[start // each : -(-stop // each)] if is_value else t[start:stop]
            for t, (_, is_value, _) in zip(targets, self._forms, strict=True)
        ]

    def _spread(
        self, call: Callable[..., None], arrays: list[Any], unweighted: int, params: list[Any], scale: float,
        targets: list[np.ndarray], threads: int | None, each: int,
    ) -> None:  # fmt: skip
        """Run the rows in pieces of whole sums, on several threads if there is enough to do."""
        n = len(arrays[0])
        work = n if self._elementwise else n * arrays[0].shape[1] ** self._depth
        if work >= SMALL and threads is None:
            threads = available_threads()
        if work < SMALL or threads == 1 or n == 1:
            call(*arrays[:unweighted], *params, *arrays[unweighted:], scale, *targets)
            return
        assert threads is not None
        sums = -(-n // each)
        pieces = min(sums, max(1, work // SMALL), 8 * threads)

        def piece(k: int) -> None:
            start, stop = sums * k // pieces * each, min(n, sums * (k + 1) // pieces * each)
            mine = [a[start:stop] for a in arrays]
            mine[unweighted:unweighted] = params
            call(*mine, scale, *self._part(targets, start, stop, each))

        run_pieces(piece, pieces, threads)

    # -------------------------------------------------------------- arguments

    def _laid_out(self, array: np.ndarray) -> np.ndarray:
        """Return the array as the kernel reads it: in C order, aligned, in the dtype of the arithmetic."""
        flags = array.flags
        if array.dtype == self.compute and flags.c_contiguous and flags.aligned:
            return array
        return np.require(array, self.compute, ["C", "A"])

    def _param(self, value: Any, ndim: int, shape: tuple[int, ...]) -> Any:
        if ndim == 0:
            return self._float(value)
        array = self._laid_out(np.asarray(value))
        if array.shape != shape[1:]:
            raise ShapeError(f"a hyperparameter per class has shape {array.shape}, not {shape[1:]}")
        return array

    def _targets(
        self, rows: list[np.ndarray], outputs: Mapping[str, np.ndarray], each: int
    ) -> tuple[list[np.ndarray], set[int], list[tuple[np.ndarray, np.ndarray]]]:
        """Return the arrays to write to, which of them are inputs themselves, and what to copy at the end."""
        targets: list[np.ndarray] = []
        copies: list[tuple[np.ndarray, np.ndarray]] = []
        overwrites: set[int] = set()
        for number, (name, is_value, like_rows) in enumerate(self._forms):
            given = outputs[name]
            shape = rows[0].shape if like_rows else rows[0].shape[:1]
            shape = (-(-shape[0] // each),) if is_value else shape
            if given.shape != shape:
                raise ShapeError(f"the output {name} has shape {given.shape}, not {shape}")
            dtype = DOUBLE if is_value else self.compute
            flags = given.flags
            fits = given.dtype == dtype and flags.c_contiguous and flags.aligned
            shared = [row for row in rows if np.may_share_memory(row, given)]
            if fits and not shared:
                targets.append(given)
            elif fits and all(self._same_place(row, given) for row in shared):
                targets.append(given)
                overwrites.add(number)
            else:
                made = np.empty(shape, dtype)
                targets.append(made)
                copies.append((given, made))
        return targets, overwrites, copies

    @staticmethod
    def _same_place(row: np.ndarray, given: np.ndarray) -> bool:
        return row.ctypes.data == given.ctypes.data and row.shape == given.shape

    @staticmethod
    def _is_value(name: str, per_class: bool) -> bool:
        return name == "value" and not per_class

    def _prepare(self, weighted: bool, classes: int, summed: bool) -> Callable[..., None]:
        """Return what computes some rows: call(*inputs, *labels, *params, *weight, scale, *outputs).

        With `summed`, the value is one sum per `_rows_per_sum` rows.
        """
        raise NotImplementedError


class _NumbaKernel(Kernel):
    def __init__(self, program: RowProgram, dtype: np.dtype[Any], compute: np.dtype[Any]) -> None:
        super().__init__(program, dtype, compute)
        self._compiled: dict[tuple[bool, Form, bool], Callable[..., None]] = {}
        self._lock = threading.RLock()
        self.from_disk = False
        """Whether the last machine code needed was found on disk."""

    @property
    def source(self) -> str:
        from lossmith.kernels.emit import emit

        return emit(self.program, self.compute, form=form_of(self.program, 1 << 20))

    def _rows_per_sum(self, classes: int) -> int:
        if not any(is_value for _, is_value, _ in self._forms):
            return 1
        return rows_per_sum(form_of(self.program, classes))

    def _prepare(self, weighted: bool, classes: int, summed: bool) -> Callable[..., None]:
        key = weighted, form_of(self.program, classes), summed
        if key not in self._compiled:
            with self._lock:
                if key not in self._compiled:
                    self._compiled[key] = self._found(*key)
        return self._compiled[key]

    def _found(self, weighted: bool, form: Form, summed: bool) -> Callable[..., None]:
        """Return the machine code: from the disk, without a look at its source, or compiled."""
        # files, hashes and temporary folders are for the first kernel, not for import
        from lossmith.kernels import cache, machine

        name = f"{function_name(self.program)}_{self.compute.name}"
        how = f"{self.compute.name} {weighted} {form} {summed}".encode()
        path = cache.place(name, repr(self.program).encode(), how, suffix=".kernel")
        found = machine.find(path)
        self.from_disk = found is not None
        return found or self._made(name, weighted, form, summed, path)

    def _made(self, name: str, weighted: bool, form: Form, summed: bool, path: Path) -> Callable[..., None]:
        from lossmith.kernels import cache, machine
        from lossmith.kernels.emit import emit

        text = emit(self.program, self.compute, weighted, form, summed)
        return machine.compiled(cache.load(name, text).kernel, self._signature(weighted), path)

    def _signature(self, weighted: bool) -> tuple[Any, ...]:
        from numba.core import types

        number = types.float32 if self.compute.char == "f" else types.float64
        ndim = 1 if self._elementwise else 2

        def array(kind: Any, dims: int, readonly: bool) -> Any:
            return types.Array(kind, dims, "C", readonly=readonly)

        inputs = [array(number, ndim, True) for _ in self.program.inputs]
        labels = [array(types.int64, 1, True) for _ in self.program.labels]
        params = [array(number, 1, True) if p.ndim else number for p in self.program.params]
        weights = [array(types.float64, 1, True)] if weighted else []
        outputs = [
            array(types.float64 if self._is_value(name, per_class) else number, ndim if per_class else 1, False)
            for name, per_class in self.program.outputs
        ]
        return (*inputs, *labels, *params, *weights, types.float64, *outputs)


class _NumpyKernel(Kernel):
    @property
    def source(self) -> str:
        from lossmith.kernels.emit_numpy import emit_numpy

        return emit_numpy(self.program)

    @functools.cached_property
    def _function(self) -> Callable[..., Any]:
        namespace: dict[str, Any] = {}
        exec(compile(self.source, f"<{self.program.name}: generated NumPy code>", "exec"), namespace)
        return namespace[function_name(self.program)]

    def _prepare(self, weighted: bool, classes: int, summed: bool) -> Callable[..., None]:
        return functools.partial(self._chunks, weighted)

    def _chunks(self, weighted: bool, *args: Any) -> None:
        program = self.program
        inputs, labels, params, weight, scale, outputs = self._sorted(args, weighted)
        rows = [*inputs[:1], *labels, *inputs[1:]]
        n = len(inputs[0])
        width = 1 if self._elementwise else inputs[0].shape[1] ** self._depth
        step = max(1, NUMPY_CHUNK // width)
        for start in range(0, n, step):
            at = slice(start, min(n, start + step))
            found = self._function(*(r[at] for r in rows), **params)
            made = found if isinstance(found, tuple) else (found,)
            for (name, per_class), array, target in zip(program.outputs, made, outputs, strict=True):
                value = self._is_value(name, per_class)
                target[at] = self._scaled(array, None if weight is None else weight[at], scale, value)

    def _sorted(self, args: tuple[Any, ...], weighted: bool) -> tuple[Any, ...]:
        program, rest = self.program, list(args)

        def take(count: int) -> list[Any]:
            taken, rest[:] = rest[:count], rest[count:]
            return taken

        inputs, labels = take(len(program.inputs)), take(len(program.labels))
        from lossmith.kernels.printing import NUMPY_NAMES

        names = [p.name for p in rowprogram.renamed(program, NUMPY_NAMES.union(self.outputs)).params]
        params = dict(zip(names, take(len(names)), strict=True))
        weight = take(1)[0] if weighted else None
        (scale,) = take(1)
        return inputs, labels, params, weight, scale, rest

    def _scaled(self, array: np.ndarray, weight: np.ndarray | None, scale: float, value: bool) -> np.ndarray:
        """Multiply by weight and scale; a weight of 0 gives 0, also of infinity and NaN."""
        if weight is None:
            return array if value or scale == 1.0 else array * self._float(scale)
        with np.errstate(all="ignore"):
            factor = weight if value else (weight * scale).astype(self.compute)
            factor = factor.reshape(-1, *[1] * (array.ndim - 1))
            return np.where(weight.reshape(factor.shape) == 0, 0, array * factor)


def sum_rows(values: np.ndarray) -> float:
    """Return the sum of an array (N,) in float64, as accurate for 10⁸ numbers as for ten, in an order of its own.

    Blocks of fixed size are added pairwise, and their sums exactly.
    """
    values = np.ascontiguousarray(values, dtype=np.float64).reshape(-1)
    with np.errstate(all="ignore"):  # infinities of both signs are NaN, without a warning
        if values.size <= SUM_BLOCK:
            return float(np.add.reduce(values))
        whole = values.size // SUM_BLOCK * SUM_BLOCK
        sums = np.add.reduce(values[:whole].reshape(-1, SUM_BLOCK), axis=1).tolist()
        sums.append(float(np.add.reduce(values[whole:])))
        try:
            return math.fsum(sums)
        except (OverflowError, ValueError):  # such infinities, or a sum beyond the largest float
            return float(np.add.reduce(sums))
