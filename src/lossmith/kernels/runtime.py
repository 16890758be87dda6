"""Running kernels over a batch: compiled on demand, in pieces of rows, on several threads.

A row's results depend on that row alone, so they are the same bits for any number of threads and any split of the
batch. Sums over rows go through `sum_rows`, which adds in an order that depends on nothing but their number.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lossmith.errors import ShapeError
from lossmith.kernels.rowprogram import STREAMED, Form, RowProgram, form_of, function_name, rows_per_sum
from lossmith.kernels.schedule import blank_outputs, is_light
from lossmith.kernels.sums import sum_rows
from lossmith.kernels.threads import available_threads, ends_of_pieces, run_pieces
from lossmith.kernels.watch import watched

if TYPE_CHECKING:
    from pathlib import Path

Backend = Literal["auto", "numba", "numpy"]

SMALL, ROW = 1 << 17, 8
"""A batch with fewer entries than this (or pairs, for loops over pairs) is done by the calling thread alone: it is done
before another thread has woken up. A row counts for so many entries more than it has."""

LIGHT = 16
"""How many entries count for one in a program that only looks for NaN in them."""

PIECE = 1 << 15
"""How many entries a piece of a batch has at least."""

DOUBLE = np.dtype(np.float64)

BUFFER, CONVERTED = 1 << 14, 1 << 17
"""How many entries are computed beside the inputs before they are written over them, or rounded to another dtype."""


@functools.cache
def has_numba() -> bool:
    """Whether Numba can be imported: it may be missing, or not fit this NumPy."""
    try:
        import numba
    except ImportError:
        return False
    return bool(numba.__version__)


def compile_kernel(program: RowProgram, dtype: Any, backend: Backend = "auto", doubled: bool = False) -> Kernel:
    """Return a kernel for arrays of a dtype; the machine code is made at the first run.

    Parameters
    ----------
    program : RowProgram
        What to compute for each row.
    dtype : dtype
        float32 or float64; half precisions are computed in float32 and rounded once.
    backend : {"auto", "numba", "numpy"}
        "auto" is Numba where it is installed.
    doubled : bool
        Whether to compute in double words, two float64 for each number.
    """
    if backend == "auto":
        backend = "numba" if has_numba() else "numpy"
    given = np.dtype(dtype)
    if doubled:
        from lossmith.kernels.doubled_kernel import DoubledKernel

        return DoubledKernel(program, given, compiled=backend == "numba")
    compute = given if given.char in "fd" else np.dtype(np.float32 if given.itemsize < 4 else np.float64)
    if backend == "numba":
        return _NumbaKernel(program, given, compute)
    from lossmith.kernels.numpy_kernel import NumpyKernel

    return NumpyKernel(program, given, compute)


class Kernel:
    """A compiled row program.

    Attributes
    ----------
    program : RowProgram
    outputs : tuple of str
        The names of what it computes, in order.
    dtype, compute : dtype
        Of the arrays, and of the arithmetic.
    blank : set of str
        Outputs that are 0 but for some entries. If they come full of zeros, those need not be written.
    watched : set of str
        Inputs of which it sees whether they lie in their domain.
    """

    def __init__(self, program: RowProgram, dtype: np.dtype[Any], compute: np.dtype[Any]) -> None:
        self.program = program
        self.dtype = dtype
        self.compute = compute
        self.outputs = tuple(name for name, _ in program.outputs)
        self._elementwise = program.kind == "elementwise"
        self._float = compute.type
        self._depth = max(1, program.depth)
        self._form = functools.cache(functools.partial(form_of, program))
        self._forms = [(name, self._is_value(name, per_class), per_class or self._elementwise)
                       for name, per_class in program.outputs]  # fmt: skip
        first = len(program.inputs) + len(program.labels)
        self._per_class = {first + k for k, p in enumerate(program.params) if p.ndim}  # arguments that have no rows
        self.blank: frozenset[str] = frozenset()
        self.watched: frozenset[str] = frozenset()
        self._light = False

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
        zeroed: bool = False,
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
        zeroed : bool
            Whether the outputs of `blank` hold zeros.
        """
        self._run(inputs, label, hypers, weight, scale, outputs, threads, 1, zeroed)

    def total(
        self,
        inputs: Mapping[str, np.ndarray],
        label: np.ndarray | None,
        hypers: Mapping[str, Any],
        weight: np.ndarray | None,
        scale: float,
        outputs: Mapping[str, np.ndarray],
        threads: int | None = None,
        zeroed: bool = False,
    ) -> float:
        """Compute every output for every row but the value, of which only the sum is returned, added in float64.

        Takes what `run` takes, `outputs` without the value. It spares writing the values and reading them again where
        that counts. The sum is the same bits for any number of threads.
        """
        first = inputs[self.program.inputs[0]]
        each = self.rows_per_sum(1 if self._elementwise else first.shape[1])
        values = np.empty(-(-len(first) // each))
        self._run(inputs, label, hypers, weight, scale, {**outputs, "value": values}, threads, each, zeroed)
        return sum_rows(values)

    def straight(
        self, rows: int, classes: int, each: int = 1, weighted: bool = False, zeroed: bool = False
    ) -> Callable[..., Any]:
        """Return what `run` calls after its checks for a batch of that shape: the compiled function, if it is small.

        It is called as call(*inputs, *labels, *hyperparameters, scale, *outputs), with an array of weights before the
        scale if `weighted`. Everything is up to the caller: all arrays in C order and aligned, inputs and outputs in
        the dtype of `compute`, labels in int64 and in range, weights and the value in float64, and no output in the
        memory of an input. Anything else reads or writes where it should not.
        The value is an array of one number for `each` rows, which is 1 or what `rows_per_sum` says. It returns False
        if it is not sure that the inputs of `watched` lie in their domains; rows that do not count are looked at too.
        """
        call = self._prepare(weighted, classes, each > 1, rows >= STREAMED)
        call = call if zeroed else self._zeroing(call)
        return self._spread(call, rows, classes, each, None)

    def rows_per_sum(self, classes: int) -> int:
        """Return how many rows `total` has one sum for before it adds them all."""
        return 1

    def _run(
        self, inputs: Mapping[str, np.ndarray], label: np.ndarray | None, hypers: Mapping[str, Any],
        weight: np.ndarray | None, scale: float, outputs: Mapping[str, np.ndarray], threads: int | None, each: int,
        zeroed: bool,
    ) -> None:  # fmt: skip
        rows = [self._readable(inputs[name]) for name in self.program.inputs]
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
        converts = any(r.dtype != self.compute for r in rows)
        many = n >= STREAMED and not overwrites
        call = self._prepare(bool(weights), 1 if self._elementwise else shape[1], each > 1, many)
        if not zeroed or overwrites or copies:
            call = self._zeroing(call)
        if overwrites or converts:
            call = functools.partial(self._by_way_of_buffers, call, overwrites, each)
        call = self._spread(call, n, 1 if self._elementwise else shape[1], each, threads)
        call(*rows, *labels, *params, *weights, float(scale), *targets)
        for given, made in copies:
            given[...] = made

    def _zeroing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return what fills the outputs of `blank` with zeros first, those of the rows that it is called for."""
        blank = [k - len(self.outputs) for k, name in enumerate(self.outputs) if name in self.blank]
        if not blank:
            return call

        def zeroed(*args: Any) -> Any:
            for k in blank:
                args[k].fill(0)
            return call(*args)

        return zeroed

    def _by_way_of_buffers(self, call: Callable[..., None], overwrites: set[int], each: int, *args: Any) -> None:
        """Compute a few rows at a time beside the inputs, then write them over: the same code, so the same bits.

        Likewise rows of another float dtype than that of the arithmetic: a copy of all of them would be far away.
        """
        n, cut = len(args[0]), len(args) - len(self.outputs)
        most = BUFFER if args[0].dtype == self.compute else CONVERTED
        step = max(1, most // max(1, args[0][0].size) // each) * each
        for start in range(0, n, step):
            stop = min(n, start + step)
            mine = self._rows(args[:cut], start, stop)
            targets = self._part(args[cut:], start, stop, each)
            buffers = [
                np.empty(t.shape, DOUBLE if self._forms[k][1] else self.compute) if k in overwrites else t
                for k, t in enumerate(targets)
            ]
            with np.errstate(over="ignore"):  # what is beyond the floats of the other dtype is infinite there
                for k in range(len(self.program.inputs)):
                    mine[k] = mine[k].astype(self.compute, copy=False)
                call(*mine, *buffers)
                for k in overwrites:
                    targets[k][...] = buffers[k]

    def _rows(self, args: Sequence[Any], start: int, stop: int) -> list[Any]:
        """Return the arguments of some rows, as the compiled function takes them."""
        return [
            a[start:stop] if isinstance(a, np.ndarray) and k not in self._per_class else a for k, a in enumerate(args)
        ]

    def _part(self, targets: Any, start: int, stop: int, each: int) -> list[np.ndarray]:
        """Return the part of each output that belongs to some rows; `each` rows share one value."""
        return [
            t[start // each : -(-stop // each)] if is_value else t[start:stop]
            for t, (_, is_value, _) in zip(targets, self._forms, strict=True)
        ]

    def _spread(
        self, call: Callable[..., Any], n: int, classes: int, each: int, threads: int | None
    ) -> Callable[..., Any]:
        """Return what does n rows in pieces of whole sums, on several threads if there is enough to do.

        It returns False if one of the pieces did.
        """
        work = n if self._elementwise else n * (classes**self._depth + ROW)
        work = -(-work // LIGHT) if self._light else work
        if work < SMALL or threads == 1 or n == 1:
            return call

        def run(*args: Any) -> Any:
            most = threads or available_threads()
            if most == 1:
                return call(*args)
            sums = -(-n // each)
            ends = ends_of_pieces(sums, most, max(1, sums * PIECE // work))
            cut = len(args) - len(self.outputs)
            unsure: list[int] = []

            def piece(k: int) -> None:
                start, stop = (ends[k - 1] if k else 0) * each, min(n, ends[k] * each)
                if call(*self._rows(args[:cut], start, stop), *self._part(args[cut:], start, stop, each)) is False:
                    unsure.append(k)

            run_pieces(piece, len(ends), most)
            return not unsure

        return run

    # -------------------------------------------------------------- arguments

    def _readable(self, array: np.ndarray) -> np.ndarray:
        """Return the array in C order, aligned, in float32 or float64."""
        if array.dtype.char in "fd":
            return np.require(array, requirements=["C", "A"])
        return self._laid_out(array)

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
        """Return the arrays to write to, which of them in the end only, and what to copy to others.

        In the end only come those that are inputs themselves, and those of another float dtype.
        """
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
            same = given.dtype == dtype
            fits = (same or (given.dtype.char in "fd" and not is_value)) and flags.c_contiguous and flags.aligned
            shared = [row for row in rows if np.may_share_memory(row, given)]
            if fits and not shared:
                targets.append(given)
                overwrites |= set() if same else {number}
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

    def _prepare(self, weighted: bool, classes: int, summed: bool, many: bool) -> Callable[..., None]:
        """Return what computes some rows: call(*inputs, *labels, *params, *weight, scale, *outputs).

        With `summed`, the value is one sum per `rows_per_sum` rows; `many` rows are STREAMED or more.
        """
        raise NotImplementedError


class _NumbaKernel(Kernel):
    def __init__(self, program: RowProgram, dtype: np.dtype[Any], compute: np.dtype[Any]) -> None:
        super().__init__(program, dtype, compute)
        self.blank = blank_outputs(program)
        self.watched = frozenset(watched(program))
        self._light = not self._elementwise and is_light(program)
        self._compiled: dict[tuple[bool, Form, bool], Callable[..., None]] = {}
        self._lock = threading.RLock()
        self.from_disk = False
        """Whether the last machine code needed was found on disk."""

    @property
    def source(self) -> str:
        from lossmith.kernels.emit import emit

        return emit(self.program, self.compute, form=form_of(self.program, 1 << 20))

    def rows_per_sum(self, classes: int) -> int:
        if not any(is_value for _, is_value, _ in self._forms):
            return 1
        return rows_per_sum(self._form(classes))

    def _prepare(self, weighted: bool, classes: int, summed: bool, many: bool) -> Callable[..., None]:
        key = weighted, self._form(classes, many), summed
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
