"""From a row program to loops that Numba compiles: one pass over a row per loop of the program.

The generated function takes arrays of some rows and runs over all of them; threads and blocks are runtime.py's. All
arithmetic is in the dtype of the kernel: a Python literal would turn float32 into float64, so constants are `F(0.5)`.
Loops over the classes are written in vectors where they can be: emit_vectors.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lossmith.kernels.emit_vectors import BLOCK, LANES, TURNING, operations, varies
from lossmith.kernels.emit_watch import LOOKING, WatchWriter
from lossmith.kernels.printing import ATOM, NUMBA_NAMES, NUMPY_CALLS, UNARY, number_text
from lossmith.kernels.rowprogram import (
    OPERATIONS,
    AtClass,
    AtFound,
    AtLabel,
    Each,
    Fold,
    Index,
    Let,
    Load,
    Loop,
    Number,
    Op,
    Param,
    Patch,
    Position,
    Ref,
    Reject,
    RowProgram,
    Size,
    Stmt,
    Store,
    Value,
    letter,
    operands,
    renamed,
    statements,
    subvalues,
)
from lossmith.kernels.schedule import only_looks, schedule
from lossmith.kernels.watch import watched, with_sums

VECMATH = {"exp", "exp_gap", "log", "log1p", "expm1", "tanh", "sigmoid", "softplus", "log_cosh", "maximum", "minimum"}
"""Operations that have a function of their name in vecmath."""
STREAMS = {"drain", "stream"}
"""The functions of streams.py."""


def emit_numba(program: RowProgram, dtype: np.dtype, weighted: bool = False) -> str:
    """Return a module with one compiled function, `kernel`.

    Parameters
    ----------
    program : RowProgram
        What to compute.
    dtype : numpy.dtype
        float32 or float64: of the inputs, of all arithmetic, and of every output but the value.
    weighted : bool
        Whether the kernel takes a weight per row.

    Notes
    -----
    Arguments of the kernel: inputs, labels, hyperparameters, [weight], scale, outputs. Outputs other than the value
    are multiplied by weight·scale, the value by the weight. No output may share memory with an input: LLVM takes
    another way through a loop then, and adds in another order. Outputs that are 0 but for some entries must hold
    zeros: `blank_outputs` names them.

    The kernel returns whether inputs surely lie in their domains, None if it does not watch any.
    """
    return Emitter(program, np.dtype(dtype), weighted).module()


class Emitter(WatchWriter):
    """Writes a kernel that takes one row at a time."""

    share_rows = True
    """Whether what one loop keeps for another lives in the rows of outputs."""

    def __init__(self, program: RowProgram, dtype: np.dtype, weighted: bool) -> None:
        super().__init__()
        program = renamed(program, NUMBA_NAMES.union(name for name, _ in program.outputs))
        self.watched = watched(program)
        program, self.sums = with_sums(program)
        self.program = program
        self.dtype = dtype
        self.weighted = weighted
        self.elementwise = program.kind == "elementwise"
        self.schedule = schedule(program, self.share_rows)
        loops = [s for s in self.schedule.body if isinstance(s, Loop)]
        self.longest = max(loops, key=operations, default=None)
        self.made = {s.name: s.value for s in statements(program.body) if isinstance(s, Let)}
        self.rejects = [s.name for s in program.body if isinstance(s, Reject)]

    # -------------------------------------------------------------- the module

    def module(self) -> str:
        self.function()
        if self.watched:
            self.indent = 1
            self.put("return sure")
        head = [
            f'"""{self.docstring()}"""\n',
            "import numpy as np",
            "from numba import njit\n",
        ]
        modules = {"lanes": LANES, "looking": LOOKING, "streams": STREAMS, "turning": TURNING}
        modules["vecmath"] = self.vecmath.difference(*modules.values())
        for module, names in modules.items():
            if used := self.vecmath & names:
                head.append(f"from lossmith.kernels.{module} import {', '.join(sorted(used))}")
        if self.vecmath:
            head.append("")
        head.append(f"F = np.{self.dtype.name}")
        head += ["U = np.uint64  # an index that cannot count from the end", "\n"]
        return "\n".join([*head, '@njit(nogil=True, error_model="numpy")', *self.lines]) + "\n"

    def arguments(self) -> list[str]:
        weight = ["weight"] if self.weighted else []
        outputs = [name for name, _ in self.program.outputs]
        params = [p.name for p in self.program.params]
        return [*self.program.inputs, *self.program.labels, *params, *weight, "scale", *outputs]

    def function(self) -> None:
        self.lines.append(f"def kernel({', '.join(self.arguments())}):")
        first = self.program.inputs[0]
        self.put(f"N, K = U({first}.shape[0]), U({first}.shape[1])")
        scaled = any(name != "value" for name, _ in self.program.outputs)
        if scaled and not self.weighted:
            self.put("factor = F(scale)")
        for name in self.schedule.kept:
            if name not in self.schedule.homes:
                self.put(f"{name}_row = np.empty(K, {'np.bool_' if self.is_condition(name) else 'F'})")
        if self.watched:
            self.put("sure = True")
        self.put("for i in range(N):")
        self.indent += 1
        if self.weighted:
            self.put("w = weight[i]")
            if scaled:
                self.put("factor = F(w * scale)")
            self.put("if w == 0.0:")
            self.fill("0.0", "F(0)")
        for name in self.program.labels:
            self.put(f"{name}_i = U({name}[i])")
        self.watch("i * K, K")
        self.body(self.schedule.body)

    def fill(self, value: str, entry: str) -> None:
        """Give every output of this row one number, and go on with the next row."""
        self.indent += 1
        for name in self.filled(entry):
            if (name, True) in self.program.outputs:
                self.put("for k in range(K):")
                self.put(f"    {name}[i, k] = {entry}")
            else:
                self.put(f"{self.value_place()} = {value}" if name == "value" else f"{name}[i] = {entry}")
        self.put("continue")
        self.indent -= 1

    def value_place(self) -> str:
        """Return where the value of this row is written."""
        return "value[i]"

    def is_condition(self, name: str) -> bool:
        makers = (s for s in statements(self.program.body) if isinstance(s, Let) and s.name == name)
        return any(isinstance(m.value, Op) and OPERATIONS[m.value.op][1] == "bool" for m in makers)

    # -------------------------------------------------------------- statements

    def body(self, body: Iterable[Stmt]) -> None:
        for stmt in body:
            match stmt:
                case Let(name, _, value):
                    self.put(f"{name} = {self.text(value)}")
                    self.keep(name)
                case Loop():
                    self.loop(stmt)
                    self.watch_sums(stmt)
                case Fold():
                    self.gather_lanes(stmt) if self.lanes else self.gather(stmt)
                case Store(output, value):
                    self.store(output, value)
                case Patch(output, index, value):
                    self.put(f"{output}[i, {self.index(index)}] = factor * {self.text(value, UNARY)}")
                case Reject(name):
                    if not self.elementwise:
                        self.put(f"if {name}:")
                        self.fill("np.nan", "F(np.nan)")

    def keep(self, name: str) -> None:
        """Remember a loop's value for later loops, if any of them wants it."""
        self.known.add(name)
        if self.lanes and name in self.schedule.kept:
            self.write_vector(*self.place(name), name, None)
        elif name in self.schedule.kept:
            self.put(f"{self.row(name, letter(0))} = {name}")

    def row(self, name: str, at: str) -> str:
        home = self.schedule.homes.get(name)
        return f"{name}_row[{at}]" if home is None else f"{home}[i, {at}]"

    def place(self, name: str) -> tuple[str, str]:
        home = self.schedule.homes.get(name)
        return (f"{name}_row", "") if home is None else (home, "i * K")

    def store(self, output: str, value: Value) -> None:
        plain = output == "value" and not self.weighted
        text = self.text(value, 0 if plain else UNARY)
        if (output, True) in self.program.outputs:
            text = text if output == "value" else f"factor * {text}"
            if self.lanes:
                self.write_vector(output, "i * K", text, value)
            else:
                self.put(f"{output}[i, k] = {text}")
            return
        if output == "value":
            text = f"w * {text}" if self.weighted else text
        else:
            text = f"factor * {text}"
        self.put(f"{output}[i] = {text}")

    def loop(self, loop: Loop) -> None:
        if only_looks(loop):
            self.look(loop)
        elif self.fits_vectors(loop):
            self.loop_in_vectors(loop)
        else:
            self.loop_over_classes(loop)

    def loop_over_classes(self, loop: Loop) -> None:
        """Write a loop over single classes; LLVM turns it into vectors only because its index is unsigned."""
        folds = [s for s in loop.body if isinstance(s, Fold)]
        sums = [f.name for f in folds if f.op == "sum"]
        index, blocked = letter(loop.depth), bool(sums) and loop.depth == 0
        for fold in folds:
            self.start(fold, blocked)
        if blocked:
            self.put(f"for block in range(U(0), K, U({BLOCK})):")
            self.indent += 1
            for name in sums:
                self.put(f"{name} = F(0)")
        self.put(f"for {index} in range({f'block, min(block + U({BLOCK}), K)' if blocked else 'K'}):")
        outer, self.known = self.known, set(self.known)
        self.depth, self.indent = loop.depth + 1, self.indent + 1
        self.fetch(loop)
        self.body(loop.body)
        self.depth, self.indent = loop.depth, self.indent - 1
        if blocked:
            for name in sums:
                self.put(f"{name}_sum += {name}")
            self.indent -= 1
        self.known = outer
        for fold in folds:
            self.finish(fold, blocked, loop)

    def fetch(self, loop: Loop) -> None:
        """Read what an earlier loop kept for this entry."""
        if loop.depth:
            return
        made = {s.name for s in loop.body if isinstance(s, Let)}
        used = [v for s in statements((loop,)) for o in operands(s) for v in subvalues(o) if isinstance(v, Ref)]
        for name in dict.fromkeys(v.name for v in used if v.indices == (Each(0),) and v.name in self.schedule.kept):
            inner = {s.name for s in statements(loop.body) if isinstance(s, Fold)}
            if name not in made | inner:
                self.put(f"{name} = {self.row(name, letter(0))}")
                self.known.add(name)

    # -------------------------------------------------------------- values

    def index(self, index: Index | None) -> str:
        match index:
            case None:
                raise ValueError("an element has no index")
            case Each(depth):
                return letter(depth)
            case AtLabel(name):
                return f"{name}_i"
            case AtFound(name):
                return name
            case AtClass(number):
                return f"U({number})"

    def leaf(self, value: Value) -> tuple[str, int]:
        vector = self.vector_leaf(value) if self.lanes else None
        if vector is not None:
            return vector, ATOM
        match value:
            case Number(number):
                return f"F({number_text(number)})", ATOM
            case Load(name, None):
                return f"{name}[i]", ATOM
            case Load(name, index):
                return f"{name}[i, {self.index(index)}]", ATOM
            case Param(name, None):
                return name, ATOM
            case Param(name, index):
                return f"{name}[{self.index(index)}]", ATOM
            case Size():
                return "K", ATOM
            case Position(index):
                return self.index(index), ATOM
            case Ref(name, indices):
                if not indices or name in self.known:
                    own = indices == tuple(map(Each, range(len(indices))))
                    return (name if own else self.row(name, self.index(indices[0]))), ATOM
                return self.row(name, self.index(indices[0])), ATOM
            case _:
                return super().leaf(value)

    def parts(self, value: Value) -> tuple[str, int]:
        if isinstance(value, Op) and value.op == "pow":
            return self.vec("power", ", ".join(map(self.text, value.args))), ATOM
        return super().parts(value)

    def call(self, value: Op) -> tuple[str, int]:
        op, args = value.op, value.args
        match op:
            case "gap":
                x, m = self.atom(args[0]), self.atom(args[1])
                return self.vec("select", f"{x} == {m}, F(0), {x} - {m}"), ATOM
            case "scaled":
                a, x = self.atom(args[0]), self.text(args[1], UNARY)
                return self.vec("select", f"{a} == F(0), F(0), {a} * {x}"), ATOM
            case "square":
                x = self.atom(args[0])
                return f"{x} * {x}", UNARY - 1
            case "sign":
                x = self.atom(args[0])
                low = self.vec("select", f"{x} < F(0), F(-1), {x}")
                return self.vec("select", f"{x} > F(0), F(1), {low}"), ATOM
            case "is_nan":
                x = self.atom(args[0])
                return f"{x} != {x}", 2
            case "not":
                return f"not {self.text(args[0], 2)}", 1
            case "indicator":
                return self.vec("select", f"{self.text(args[0])}, F(1), F(0)"), ATOM
            case "to_float":
                if self.lanes and varies(args[0]):
                    return self.vec("as_floats", f"{self.text(args[0])}, F(0)"), ATOM
                return f"F({self.text(args[0])})", ATOM
            case "select":
                return self.vec("select", ", ".join(map(self.text, args))), ATOM
            case _:
                pass
        written = ", ".join(map(self.text, args))
        if op == "exp" and self.is_nonpositive(args[0]):
            return self.vec("exp_nonpositive", written), ATOM
        if op in VECMATH:
            return self.vec(op, written), ATOM
        if op == "sqrt" and self.lanes:
            return self.vec("square_root", written), ATOM
        if op == "abs":
            return f"abs({written})", ATOM
        if op in NUMPY_CALLS:
            return f"np.{op}({written})", ATOM
        raise NotImplementedError(op)

    def is_nonpositive(self, value: Value) -> bool:
        """Whether a value is surely at most 0, or NaN."""
        match value:
            case Op("gap"):
                return True
            case Op("neg", (inner,)):
                return isinstance(inner, Op) and inner.op in ("abs", "square", "softplus", "exp", "exp_gap")
            case Number(number):
                return number <= 0
            case Op("select", (_, a, b)):
                return self.is_nonpositive(a) and self.is_nonpositive(b)
            case Ref(name) if name in self.made:
                return self.is_nonpositive(self.made[name])
            case _:
                return False
