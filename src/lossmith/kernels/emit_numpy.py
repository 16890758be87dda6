"""From a row program to the vectorised NumPy code that a person would write for a whole batch.

Rows lie along axis 0, the loop at depth d along axis d + 1. Sums keep their axis, so that numbers of a row have shape
(N, 1) and meet (N, K) arrays without more ado; in loops over pairs, indexing with None lines the axes up.
"""

from __future__ import annotations

from collections.abc import Iterable

from lossmith.kernels.printing import ATOM, NUMPY_CALLS, NUMPY_NAMES, UNARY, Printer
from lossmith.kernels.rowprogram import (
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
    function_name,
    operands,
    renamed,
    statements,
    subvalues,
)

HELPERS = {
    "peak": '''
def peak(x, axis=1):
    """Maximum over the classes; NaN where it is -inf, or +inf twice: no limit exists there."""
    m = x.max(axis=axis, keepdims=True)
    lost = np.isinf(m) & ((m < 0) | ((x == m).sum(axis=axis, keepdims=True) > 1))
    return np.where(lost, np.nan, m)
''',
    "peak_where": '''
def peak_where(hit, x, axis=1):
    """Maximum over some classes: -inf if there are none; NaN where it is +inf twice: no limit exists there."""
    x = np.where(hit, x, -np.inf)
    m = x.max(axis=axis, keepdims=True)
    lost = (m == np.inf) & ((x == m).sum(axis=axis, keepdims=True) > 1)
    return np.where(lost, np.nan, m)
''',
    "gap": '''
def gap(x, m):
    """x - m, and 0 where both are the same infinity."""
    return np.where(x == m, 0, x - m)
''',
    "scaled": '''
def scaled(a, x):
    """a * x, and 0 where a is 0, whatever x is."""
    return np.where(a == 0, 0, a * x)
''',
    "sigmoid": '''
def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)
''',
    "softplus": '''
def softplus(x):
    """log(1 + exp(x)) without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
''',
    "log_cosh": '''
def log_cosh(x):
    """log(cosh(x)): no overflow for large x, no cancellation for small."""
    a = np.abs(x)
    u = np.expm1(-a)
    return np.where(a < 20, np.log1p(u * u / (2 * np.exp(-a))), a - 0.6931471805599453)
''',
}  # fmt: skip
"""What NumPy lacks, spelled out in the generated code when it is used."""

EMPTY = {"sum": "0", "max": "-np.inf", "min": "np.inf", "peak": "-np.inf", "argmax": "-np.inf", "argmin": "np.inf"}
QUIET = {"exp", "log", "log1p", "expm1", "div", "over", "pow", "sinh", "cosh", "gap", "sqrt", "scaled", "softplus",
         "sigmoid", "log_cosh", "square", "mul", "arctanh", "arcsin", "arccos", "arccosh", "sub"}  # fmt: skip


def emit_numpy(program: RowProgram) -> str:
    """Return a module with one function that computes the program's outputs for a batch, on NumPy alone."""
    return NumpyEmitter(renamed(program, NUMPY_NAMES.union(name for name, _ in program.outputs))).module()


class NumpyEmitter(Printer):
    """Writes the code. The methods from `imports` to `folded` say what is NumPy's own in it."""

    def __init__(self, program: RowProgram) -> None:
        self.program = program
        self.elementwise = program.kind == "elementwise"
        self.depth = 0  # of the loop being written
        self.axes: dict[str, frozenset[int]] = {}  # of each named value: which axes it extends along
        self.depths: dict[str, int] = {}
        self.used: set[str] = set()
        self.patched = {s.output for s in statements(program.body) if isinstance(s, Patch)}
        self.rejects = [s.name for s in program.body if isinstance(s, Reject)]

    # -------------------------------------------------------------- the module

    def module(self) -> str:
        body = list(self.body(self.program.body))
        operations = {v.op for s in statements(self.program.body) for o in operands(s) for v in subvalues(o)
                      if isinstance(v, Op)}  # fmt: skip
        prologue = list(self.prologue())
        if operations & QUIET or self.used & {"peak", "peak_where"}:
            body = ['with np.errstate(all="ignore"):', *(f"    {line}" for line in body)]
        lines = [self.signature(), f'    """{self.docstring()}"""', *(f"    {x}" for x in (*prologue, *body))]
        lines.append(f"    return {self.returned()}")
        head = "".join(f"{line}\n" for line in self.imports())
        return "\n\n".join([head, *self.helpers(), "\n".join(lines) + "\n"])

    def imports(self) -> Iterable[str]:
        yield "import numpy as np"

    def helpers(self) -> Iterable[str]:
        return (text.lstrip("\n") for name, text in HELPERS.items() if name in self.used)

    def signature(self) -> str:
        rows = [*self.program.inputs[:1], *self.program.labels, *self.program.inputs[1:]]
        hypers = [self.default(p.name, p.default) for p in self.program.params]
        star = ["*"] if hypers else []
        return f"def {function_name(self.program)}({', '.join([*rows, *star, *hypers])}):"

    @staticmethod
    def default(name: str, value: object) -> str:
        return f"{name}={value!r}" if isinstance(value, int | float) else name

    def docstring(self) -> str:
        what = " and ".join(name.replace("_", " ") for name, _ in self.program.outputs)
        if self.elementwise:
            return f"Return {what} of {self.program.name}, element by element."
        shapes = [f"{name} (N, K)" for name in self.program.inputs] + [f"{name} (N,)" for name in self.program.labels]
        return f"Return {what} of {self.program.name} for every row of {', '.join(shapes)}."

    def prologue(self) -> Iterable[str]:
        first = self.program.inputs[0]
        yield f"given, dtype = {first}.dtype, np.result_type({first}, np.float32)  # half precision is rounded once"
        cast = ", ".join(f"{name}.astype(dtype, copy=False)" for name in self.program.inputs)
        yield f"{', '.join(self.program.inputs)} = {cast}"
        for p in self.program.params:
            if p.ndim:
                yield f"{p.name} = np.asarray({p.name}, dtype)"
            elif "casts" in self.used:
                yield f"{p.name} = dtype.type({p.name})"
        yield from self.sizes()

    def sizes(self) -> Iterable[str]:
        """Write what depends on the shape of the batch alone."""
        first = self.program.inputs[0]
        if self.used & {"K", "classes"} or ("shape" in self.used and self.program.depth > 1):
            yield f"K = {first}.shape[1]"
        if "rows" in self.used:
            yield f"rows = np.arange(len({first}))"
        if "classes" in self.used:
            yield "classes = np.arange(K)"

    def returned(self) -> str:
        found: list[str] = []
        for name, per_class in self.program.outputs:
            if name == "value" and not per_class:
                found.append("value" if self.elementwise else "value[:, 0]")
            else:
                row = "" if per_class or self.elementwise else "[:, 0]"
                found.append(f"{name}{row}.astype(given, copy=False)")
        return ", ".join(found)

    # -------------------------------------------------------------- statements

    def body(self, body: tuple[Stmt, ...]) -> Iterable[str]:
        for stmt in body:
            match stmt:
                case Let(name, _, value):
                    yield f"{name} = {self.text(value)}"
                    self.define(name, self.depth, self.extent(value))
                case Loop(depth, inner):
                    self.depth = depth + 1
                    yield from self.body(inner)
                    self.depth = depth
                case Fold():
                    yield self.fold(stmt)
                case Store(output, value):
                    yield f"{output} = {self.stored(output, value)}"
                    if (output, True) not in self.program.outputs:
                        yield from self.rejected(output)
                case Patch(output, index, value):
                    yield f"{output}[{self.place(index)}] = {self.patch(value)}"
                case Reject():
                    pass
        if self.depth == 0:
            for output, per_class in self.program.outputs:
                if per_class:
                    yield from self.rejected(output)

    def define(self, name: str, depth: int, extent: frozenset[int]) -> None:
        self.axes[name], self.depths[name] = extent, depth

    def fold(self, fold: Fold) -> str:
        axis = self.depth
        extent = self.extent(fold.value) | (self.extent(fold.where) if fold.where else frozenset())
        value = self.text(fold.value)
        if fold.op == "sum" and fold.where is not None and fold.value == Number(1):
            text, extra = self.text(fold.where), self.counting
        else:
            extra = ""
            if fold.op == "nan":
                value = f"np.isnan({value})"
            text = value if fold.where is None else f"np.where({self.text(fold.where)}, {value}, {EMPTY[fold.op]})"
        if not {0, axis} <= extent:  # the same in every row, or for every class
            text = f"np.broadcast_to({text}, {self.shape(axis)})"
        self.define(fold.name, axis - 1, (extent | {0}) - {axis})
        if fold.op == "peak":
            return f"{fold.name} = {self.peak(fold, text)}"
        function = {"nan": "any"}.get(fold.op, fold.op)
        keep = ", keepdims=True" if axis == 1 else ""
        return f"{fold.name} = {self.folded(function, text, f'axis={axis}{keep}{extra}')}"

    counting = ", dtype=dtype"
    """What a sum over conditions is told."""

    def folded(self, function: str, text: str, options: str) -> str:
        if text.isidentifier() or (text.endswith(")") and text.startswith("np.") and function == "any"):
            return f"{text}.{function}({options})"
        return f"np.{function}({text}, {options})"

    def peak(self, fold: Fold, text: str) -> str:
        along, squeezed = ("", "") if self.depth == 1 else (f", axis={self.depth}", f".squeeze({self.depth})")
        if fold.where is None:
            self.used.add("peak")
            return f"peak({text}{along}){squeezed}"
        self.used.add("peak_where")
        value = self.text(fold.value)
        if not {0, self.depth} <= self.extent(fold.value) | self.extent(fold.where):
            value = f"np.broadcast_to({value}, {self.shape(self.depth)})"
        return f"peak_where({self.text(fold.where)}, {value}{along}){squeezed}"

    def shape(self, axis: int) -> str:
        self.used.add("shape")
        first = self.program.inputs[0]
        return f"{first}.shape" if axis == 1 else f"({', '.join([f'len({first})', *['K'] * axis])})"

    def stored(self, output: str, value: Value) -> str:
        per_class = (output, True) in self.program.outputs
        text, extent = self.text(value), self.extent(value)
        first = self.program.inputs[0]
        if per_class and not {0, 1} <= extent:
            return f"np.full_like({first}, {text})"
        if not per_class and 0 not in extent:
            return f"np.full_like({first if self.elementwise else f'{first}[:, :1]'}, {text})"
        if isinstance(value, Ref | Load) and (output in self.patched or self.rejects):
            return f"{text}.copy()"
        return text

    def rejected(self, output: str) -> Iterable[str]:
        """Write NaN over the rows that hold one."""
        for bad in self.rejects:
            if self.elementwise:
                yield f"{output} = np.where({bad}, np.nan, {output})"
            else:
                yield f"{output}[{bad}[:, 0]] = np.nan  # a NaN spoils its row"

    def place(self, index: Index) -> str:
        match index:
            case AtLabel(name):
                self.used.add("rows")
                return f"rows, {name}"
            case AtFound(name):
                self.used.add("rows")
                return f"rows, {name}[:, 0]"
            case AtClass(number):
                return f":, {number}"
            case Each():
                raise ValueError("an entry cannot be overwritten for every class")

    def patch(self, value: Value) -> str:
        text = self.text(value, ATOM)
        return f"{text}[:, 0]" if 0 in self.extent(value) else self.text(value)

    # -------------------------------------------------------------- shapes

    def extent(self, value: Value) -> frozenset[int]:
        """Return the axes along which a value extends."""
        match value:
            case Op(_, args):
                return frozenset().union(*map(self.extent, args))
            case Load(_, Each(depth)):
                return frozenset([0, depth + 1])
            case Load():
                return frozenset([0])
            case Param(_, index) | Position(index):
                match index:
                    case Each(depth):
                        return frozenset([depth + 1])
                    case AtLabel() | AtFound():
                        return frozenset([0])
                    case _:
                        return frozenset()
            case Ref(name, indices):
                moved = {d + 1: index.depth + 1 for d, index in enumerate(indices) if isinstance(index, Each)}
                return frozenset(moved.get(a, a) for a in self.axes[name])
            case Number() | Size():
                return frozenset()

    def lined_up(self, text: str, own: tuple[int, ...]) -> str:
        """Index an array over the rows and the axes `own` so that its axes meet those of the loop around."""
        axes = range(1, self.depth + 1)
        if self.depth < 2 or own == tuple(axes):
            return text
        marks = [":" if a in own else "None" for a in axes] if own else [":", *["None"] * (self.depth - 1)]
        return f"{text}[{', '.join([':', *marks])}]"

    def along(self, text: str, depth: int) -> str:
        """Index an array over the classes alone so that it lies along the axis of a loop."""
        after = self.depth - depth - 1
        return f"{text}[{', '.join([':', *['None'] * after])}]" if after else text

    # -------------------------------------------------------------- values

    def leaf(self, value: Value) -> tuple[str, int]:
        match value:
            case Load(name, None):
                return name, ATOM
            case Load(name, Each(depth)):
                return self.lined_up(name, (depth + 1,)), ATOM
            case Load(name, AtLabel(label)):
                self.used.add("rows")
                return self.lined_up(f"{name}[rows, {label}, None]", ()), ATOM
            case Load(name, AtFound(at)):
                return self.lined_up(f"np.take_along_axis({name}, {at}, axis=1)", ()), ATOM
            case Load(name, AtClass(number)):
                return self.lined_up(f"{name}[:, {number}, None]", ()), ATOM
            case Param(name, index):
                return self.param(name, index), ATOM
            case Size():
                self.used.add("K")
                return "K", ATOM
            case Position(index):
                return self.position(index), ATOM
            case Ref(name, indices):
                return self.reference(name, indices), ATOM
            case _:
                return super().leaf(value)

    def param(self, name: str, index: Index | None) -> str:
        match index:
            case None:
                return name
            case Each(depth):
                return self.along(name, depth)
            case AtLabel(label):
                return self.lined_up(f"{name}[{label}, None]", ())
            case AtFound(at):
                return self.lined_up(f"{name}[{at}]", ())
            case AtClass(number):
                return f"{name}[{number}]"

    def position(self, index: Index) -> str:
        match index:
            case Each(depth):
                self.used.add("classes")
                return self.along("classes", depth)
            case AtLabel(label):
                return f"{label}[{', '.join([':', *['None'] * max(1, self.depth)])}]"
            case AtFound(at):
                return self.lined_up(at, ())
            case AtClass(number):
                return str(number)

    def reference(self, name: str, indices: tuple[Index, ...]) -> str:
        if self.elementwise or not self.axes[name]:
            return name
        if self.depths[name] and 0 not in self.axes[name]:  # per class, the same in every row
            last = indices[-1]
            assert isinstance(last, Each)
            return self.along(name, last.depth)
        return self.lined_up(name, tuple(i.depth + 1 for i in indices if isinstance(i, Each)))

    def call(self, value: Op) -> tuple[str, int]:
        op, args = value.op, value.args
        if op not in ("indicator", "to_float") and not self.extent(value):
            self.used.add("casts")
        if op == "square":
            return f"{self.text(args[0], ATOM)} ** 2", UNARY + 1
        if op == "not":
            return f"~{self.text(args[0], UNARY)}", UNARY
        if op == "to_float" and not self.extent(args[0]):
            return self.parts(args[0])
        if op in ("indicator", "to_float"):
            return f"{self.text(args[0], ATOM)}.astype(dtype)", ATOM
        written = ", ".join(map(self.text, args))
        if op == "select":
            text = f"np.where({written})"
            plain = not (self.extent(args[1]) or self.extent(args[2]))
            return (f"{text}.astype(dtype)" if plain else text), ATOM
        if op == "is_nan":
            return f"np.isnan({written})", ATOM
        if op in NUMPY_CALLS:
            return f"np.{op}({written})", ATOM
        self.used.add(op)
        return f"{op}({written})", ATOM
