"""An executable statement of what a well-formed row program is: names before use, types, scopes, stores last."""

from __future__ import annotations

from collections.abc import Iterator

from lossmith.kernels.rowprogram import (
    FOLDS,
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
    Type,
    Value,
    operands,
    show,
    statements,
    subvalues,
)


class MalformedProgram(AssertionError):
    """A row program that breaks the rules of rowprogram.py: a mistake of the lowering, never of a user."""


def verify(program: RowProgram) -> None:
    """Raise MalformedProgram unless the program keeps the rules of rowprogram.py."""
    problems = list(_Check(program).problems())
    if problems:
        raise MalformedProgram("\n".join([*problems, "in", str(program)]))


class _Check:
    def __init__(self, program: RowProgram) -> None:
        self.program = program
        self.known: dict[str, tuple[int, Type]] = {}
        self.params = {p.name: p.ndim for p in program.params}

    def problems(self) -> Iterator[str]:
        yield from self.body(self.program.body, 0)
        yield from self.stores()
        if self.program.kind == "elementwise" and self.program.depth:
            yield "an elementwise program has a loop"

    def body(self, body: tuple[Stmt, ...], depth: int) -> Iterator[str]:
        folds: dict[str, Type] = {}
        for stmt in body:
            for value in operands(stmt):
                yield from self.value(value, depth)
            match stmt:
                case Let(name, at, value):
                    if at != depth:
                        yield f"{name} is named at depth {depth} but says {at}"
                    yield from self.define(name, depth, self.type(value))
                case Fold(name, op, value, where):
                    if depth == 0:
                        yield f"{name} is gathered outside of any loop"
                    if self.type(value) != FOLDS[op][0]:
                        yield f"{op} gathers {show(value)}, a {self.type(value)}"
                    if where is not None and self.type(where) != "bool":
                        yield f"{name} is gathered where {show(where)}, which is no condition"
                    folds[name] = FOLDS[op][1]
                case Reject(name):
                    if self.known.get(name) != (0, "bool"):
                        yield f"a row is rejected by {name}, which is no condition of a row"
                case Patch(index=index):
                    yield from self.index(index, 0)
                case Loop(at, inner):
                    if at != depth:
                        yield f"a loop at depth {depth} says {at}"
                    yield from self.body(inner, depth + 1)
                case Store():
                    pass
        for name, kind in folds.items():  # known only when the loop has ended
            yield from self.define(name, depth - 1, kind)

    def define(self, name: str, depth: int, kind: Type) -> Iterator[str]:
        if name in self.known:
            yield f"{name} is named twice"
        self.known[name] = (depth, kind)

    def value(self, value: Value, depth: int) -> Iterator[str]:
        for part in subvalues(value):
            match part:
                case Load(name, index):
                    if name not in self.program.inputs:
                        yield f"{name} is no input"
                    if (index is None) != (self.program.kind == "elementwise"):
                        yield f"{show(part)} in a program of kind {self.program.kind}"
                    yield from self.index(index, depth)
                case Param(name, index):
                    if self.params.get(name) != (0 if index is None else 1):
                        yield f"{show(part)} is no hyperparameter of that shape"
                    yield from self.index(index, depth)
                case Position(index):
                    yield from self.index(index, depth)
                case Ref(name, indices):
                    if name not in self.known:
                        yield f"{name} is used before it is known"
                    elif len(indices) != self.known[name][0]:
                        yield f"{show(part)} has {len(indices)} indices, not {self.known[name][0]}"
                    for index in indices:
                        yield from self.index(index, depth)
                case Op(op, args):
                    if op not in OPERATIONS:
                        yield f"{op} is no operation"
                    elif tuple(map(self.type, args)) != OPERATIONS[op][0]:
                        yield f"{show(part)} mixes up its types"
                case Number() | Size():
                    pass

    def index(self, index: Index | None, depth: int) -> Iterator[str]:
        match index:
            case Each(at) if at >= depth:
                yield f"the index of depth {at} is used at depth {depth}"
            case AtLabel(name) if name not in self.program.labels:
                yield f"{name} is no label"
            case AtFound(name) if self.known.get(name) != (0, "int"):
                yield f"{name} is not an index that was found"
            case AtClass(number) if number < 0:
                yield f"class {number}"
            case _:
                pass

    def type(self, value: Value) -> Type:
        match value:
            case Number() | Load() | Param():
                return "float"
            case Size() | Position():
                return "int"
            case Ref(name):
                return self.known.get(name, (0, "float"))[1]
            case Op(op):
                return OPERATIONS[op][1] if op in OPERATIONS else "float"

    def stores(self) -> Iterator[str]:
        """Every output is stored once, in the last loop (per entry) or outside of loops (per row)."""
        outside = [s.output for s in self.program.body if isinstance(s, Store)]
        inside = [s.output for s in statements(self.program.body) if isinstance(s, Store)]
        loops = [s for s in self.program.body if isinstance(s, Loop)]
        last = [s.output for s in loops[-1].body if isinstance(s, Store)] if loops else []
        for name, per_class in self.program.outputs:
            if inside.count(name) != 1:
                yield f"{name} is stored {inside.count(name)} times"
            elif name not in (last if per_class else outside):
                yield f"{name} is not stored where it belongs"
        rejects = [n for n, s in enumerate(self.program.body) if isinstance(s, Reject)]
        if any(isinstance(s, Store | Patch) for s in self.program.body[: max(rejects, default=0)]):
            yield "a number is stored before its row is rejected"
        for stmt in statements(self.program.body):
            if isinstance(stmt, Patch) and (stmt.output, True) not in self.program.outputs:
                yield f"{stmt.output} has no entries to overwrite"
