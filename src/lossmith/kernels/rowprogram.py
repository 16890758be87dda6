"""Row programs, the second intermediate representation: what a kernel does for one row, loop by loop.

The grammar, one line a node:

    program ::= RowProgram(name, kind, inputs, labels, params, outputs, body)

    stmt    ::= Let(name, depth, value)        give a value a name; inside loops, one value per entry
              | Loop(depth, body)              for every class: the index Each(depth)
              | Fold(name, op, value, where)   inside a loop: gather value, where that holds, into name, which
                                               belongs to the scope around the loop
              | Reject(name)                   a row (an element) where the condition holds is NaN in all outputs
              | Store(output, value)           inside a loop: the output's entry there; outside: its number per row
              | Patch(output, index, value)    after the loop: overwrite one entry of the row

    value   ::= Number(value)                  a constant
              | Load(input, index)             an entry of an input row; index None for an element
              | Param(name, index)             a hyperparameter, a number (index None) or one per class
              | Size()                         the number of classes, an integer
              | Position(index)                an index as an integer
              | Ref(name, indices)             a named value: none for a row's number, else one index per loop
              | Op(op, args)                   an operation: see OPERATIONS

    index   ::= Each(depth)                    the class of the loop at that depth
              | AtLabel(name)                  the label of the row
              | AtClass(number)                a class by its number
              | AtFound(name)                  the class that an argmax or argmin found

Scopes are nested: depth 0 is the row, depth 1 a loop over its classes, depth 2 a loop inside that one (a sum over
pairs). A value named inside a loop is known, entry by entry, from there on: in later loops at the same depth by the
index of that loop, and in deeper loops by the index of any loop around. An emitter decides whether it is kept in
memory (NumPy keeps all) or computed again (loops keep what is dear): schedule.py.

The folds: sum; max and min, where NaN wins; `peak`, the maximum as a shift needs it (NaN where it is +∞ more than
once, or −∞ over all classes: there the limit does not exist; over some classes, −∞ is the maximum of none); argmax and
argmin, the first at ties, where the first NaN wins; `nan`, whether any is NaN. Of no entry at all they are 0, −∞, +∞,
NaN, 0, 0, False.

An elementwise program has no loops: its row is one element.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from fractions import Fraction
from typing import Literal, TypeAlias

from lossmith.kernels.record import Record, replaced
from lossmith.language.expr import Expr, Free
from lossmith.language.expr import Index as ExprIndex

# ------------------------------------------------------------------ what is asked for


class Output(Record):
    """One thing that a kernel computes, as an expression in its final, stable form.

    `index` None means one number per row. `patches` are entries, at the label say, that have an expression of
    their own: they are written after the loop over the classes.
    """

    name: str
    index: Free | None
    expr: Expr
    patches: tuple[tuple[ExprIndex, Expr], ...] = ()


# ------------------------------------------------------------------ indices and values


class Each(Record):
    depth: int


class AtLabel(Record):
    name: str


class AtClass(Record):
    number: int


class AtFound(Record):
    name: str


Index: TypeAlias = Each | AtLabel | AtClass | AtFound


class Number(Record):
    value: int | Fraction | float


class Load(Record):
    input: str
    index: Index | None


class Param(Record):
    name: str
    index: Index | None


class Size(Record):
    pass


class Position(Record):
    index: Index


class Ref(Record):
    name: str
    indices: tuple[Index, ...] = ()


class Op(Record):
    op: str
    args: tuple[Value, ...]


Value: TypeAlias = Number | Load | Param | Size | Position | Ref | Op
Type: TypeAlias = Literal["float", "bool", "int"]

# ------------------------------------------------------------------ operations

_F, _B, _I = "float", "bool", "int"
OPERATIONS: dict[str, tuple[tuple[Type, ...], Type]] = {
    # arithmetic; `over` is a division by what does not change in the loop and is at least 1
    **dict.fromkeys(("add", "sub", "mul", "div", "over", "pow", "maximum", "minimum"), ((_F, _F), _F)),
    **dict.fromkeys(("neg", "square", "sqrt"), ((_F,), _F)),
    # gap(x, m) = x − m, and 0 where both are one infinity; exp_gap is its exponential (made by schedule.py);
    # scaled(a, x) = a·x, and 0 where a is 0
    **dict.fromkeys(("gap", "exp_gap", "scaled"), ((_F, _F), _F)),
    **dict.fromkeys(
        ("exp", "log", "log1p", "expm1", "abs", "sign", "sin", "cos", "tan", "sinh", "cosh", "tanh", "arcsin",
         "arccos", "arctan", "arcsinh", "arccosh", "arctanh", "sigmoid", "softplus", "log_cosh"),
        ((_F,), _F),
    ),
    # choices: conditions and what they choose; what is not chosen does not matter
    **dict.fromkeys((">", ">=", "=="), ((_F, _F), _B)),
    **dict.fromkeys(("int>", "int>=", "int=="), ((_I, _I), _B)),
    "not": ((_B,), _B),
    **dict.fromkeys(("and", "or"), ((_B, _B), _B)),
    "is_nan": ((_F,), _B),
    "select": ((_B, _F, _F), _F),
    # from one type to another
    "indicator": ((_B,), _F),
    "to_float": ((_I,), _F),
}  # fmt: skip

SINGLE = frozenset(
    ("pow", "sin", "cos", "tan", "sinh", "cosh", "arcsin", "arccos", "arctan", "arcsinh", "arccosh", "arctanh")
)
"""Operations of the C library: one number at a time, where the others work on vectors."""

FOLDS: dict[str, tuple[Type, Type]] = {
    "sum": (_F, _F), "max": (_F, _F), "min": (_F, _F), "peak": (_F, _F),
    "argmax": (_F, _I), "argmin": (_F, _I), "nan": (_F, _B),
}  # fmt: skip
"""The type that each fold gathers, and the type of what comes out."""

# ------------------------------------------------------------------ statements


class Let(Record):
    name: str
    depth: int
    value: Value


class Fold(Record):
    name: str
    op: str
    value: Value
    where: Value | None = None


class Reject(Record):
    name: str


class Store(Record):
    output: str
    value: Value


class Patch(Record):
    output: str
    index: Index
    value: Value


class Loop(Record):
    depth: int
    body: tuple[Stmt, ...]


Stmt: TypeAlias = Let | Fold | Reject | Store | Patch | Loop


class Parameter(Record):
    """A hyperparameter of a program: a number (ndim 0) or one per class (ndim 1)."""

    name: str
    ndim: int
    default: object = None


class RowProgram(Record):
    """What a kernel does for one row (or one element); `outputs` says which have an entry per class."""

    name: str
    kind: Literal["row", "elementwise"]
    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    params: tuple[Parameter, ...]
    outputs: tuple[tuple[str, bool], ...]
    body: tuple[Stmt, ...]
    domains: tuple[tuple[str, str], ...] = ()
    """Inputs, and where their values must lie: loops that read them anyway may watch for others."""

    @property
    def depth(self) -> int:
        """How deep the loops are nested."""
        return max((1 + s.depth for s in statements(self.body) if isinstance(s, Loop)), default=0)

    def __str__(self) -> str:
        return "\n".join(_lines(self.body, ""))


# ------------------------------------------------------------------ walking


def statements(body: tuple[Stmt, ...]) -> Iterator[Stmt]:
    """Yield every statement, those of loops after the loop itself."""
    for stmt in body:
        yield stmt
        if isinstance(stmt, Loop):
            yield from statements(stmt.body)


def operands(stmt: Stmt) -> tuple[Value, ...]:
    """Return the values that a statement computes."""
    match stmt:
        case Let(value=value) | Store(value=value) | Patch(value=value):
            return (value,)
        case Fold(value=value, where=where):
            return (value,) if where is None else (value, where)
        case _:
            return ()


def subvalues(value: Value) -> Iterator[Value]:
    """Yield a value and all values in it."""
    yield value
    if isinstance(value, Op):
        for arg in value.args:
            yield from subvalues(arg)


def found_in(values: Iterable[Value]) -> set[str]:
    """Return the names of the places, found by argmax or argmin, at which the values are read."""
    read = (v.index for v in values if isinstance(v, Load | Param | Position))
    return {index.name for index in read if isinstance(index, AtFound)}


def map_value(value: Value, change: Callable[[Value], Value]) -> Value:
    """Return the value with `change` applied to every part of it, from the leaves up."""
    if isinstance(value, Op):
        value = Op(value.op, tuple(map_value(a, change) for a in value.args))
    return change(value)


def map_statement(stmt: Stmt, change: Callable[[Value], Value]) -> Stmt:
    """Return a statement with its values changed, inside loops too."""

    def new(value: Value) -> Value:
        return map_value(value, change)

    match stmt:
        case Let(name, depth, value):
            return Let(name, depth, new(value))
        case Fold(name, op, value, where):
            return Fold(name, op, new(value), None if where is None else new(where))
        case Store(output, value):
            return Store(output, new(value))
        case Patch(output, index, value):
            return Patch(output, index, new(value))
        case Loop(depth, body):
            return Loop(depth, tuple(map_statement(s, change) for s in body))
        case Reject():
            return stmt


def fresh_name(name: str, taken: set[str]) -> str:
    """Return a name that is not taken yet, and take it."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def renamed(program: RowProgram, taken: Collection[str]) -> RowProgram:
    """Return the program with inputs, labels and hyperparameters renamed where generated code needs their names."""
    given = [*program.inputs, *program.labels, *(p.name for p in program.params)]
    new = {name: f"{name}_" for name in given if name in taken}
    if not new:
        return program

    def at(index: Index | None) -> Index | None:
        return AtLabel(new.get(index.name, index.name)) if isinstance(index, AtLabel) else index

    def change(value: Value) -> Value:
        match value:
            case Load(name, index):
                return Load(new.get(name, name), at(index))
            case Param(name, index):
                return Param(new.get(name, name), at(index))
            case Position(index):
                return Position(at(index))  # type: ignore[arg-type]
            case _:
                return value

    body = tuple(map_statement(s, change) for s in program.body)
    body = tuple(replaced(s, index=at(s.index)) if isinstance(s, Patch) else s for s in body)  # type: ignore[arg-type]
    return replaced(
        program,
        inputs=tuple(new.get(n, n) for n in program.inputs),
        labels=tuple(new.get(n, n) for n in program.labels),
        params=tuple(replaced(p, name=new.get(p.name, p.name)) for p in program.params),
        body=body,
        domains=tuple((new.get(n, n), d) for n, d in program.domains),
    )


def in_vectors(stmt: Stmt) -> bool:
    """Whether a statement is no loop, or one over the classes of a row that vectors can do."""
    if not isinstance(stmt, Loop):
        return True
    return not any(isinstance(s, Loop) for s in stmt.body) and not calls_library(stmt.body)


def calls_library(body: Iterable[Stmt]) -> bool:
    """Whether statements that hold no others have an operation of the C library, for one number at a time."""
    values = (v for s in body for o in operands(s) for v in subvalues(o))
    return any(isinstance(v, Op) and v.op in SINGLE for v in values)


# ------------------------------------------------------------------ what the code will be called, and look like

Form: TypeAlias = Literal["elements", "streams", "tiles", "bands", "rows"]
"""How compiled loops are arranged: emit_elements.py (twice), emit_tiles.py, emit_bands.py, emit_numba.py."""

FEW, SOME = 40, 512
"""Up to so many classes tiles are faster than bands, and bands than one row at a time."""

STRETCH, TILE, BAND = 1024, 64, 16
"""How many elements, how many rows of a tile or a band, are done together."""

STREAMED = 1 << 21
"""So many elements are more than caches hold of several arrays: outputs are written past them."""


def form_of(program: RowProgram, classes: int, many: bool = False) -> Form:
    """Return the arrangement of loops that is fastest for rows of so many classes; `many` is STREAMED or more."""
    if program.kind == "elementwise":
        return "streams" if many else "elements"
    if program.depth != 1 or classes > SOME or not all(map(in_vectors, program.body)):
        return "rows"
    return "tiles" if classes <= FEW else "bands"


def rows_per_sum(form: Form) -> int:
    """Return how many rows have their values added up by a kernel that does that; 1 if it writes every value."""
    return {"elements": STRETCH, "streams": STRETCH, "tiles": TILE, "bands": BAND, "rows": 1}[form]


def function_name(program: RowProgram) -> str:
    """Return the name of the generated function."""
    outputs = "_and_".join(name for name, _ in program.outputs)
    name = re.sub(r"\W", "_", program.name)
    return f"{name if name[:1].isidentifier() else '_' + name}_{outputs}"


# ------------------------------------------------------------------ the form in which people read it

LETTERS = ("k", "j", "l", "k2", "k3", "k4", "k5", "k6")


def letter(depth: int) -> str:
    """Return the name of a loop's index: k, in it j, in it l."""
    return LETTERS[depth]


def show_index(index: Index) -> str:
    """Return an index as text."""
    match index:
        case Each(depth):
            return letter(depth)
        case AtLabel(name) | AtFound(name):
            return name
        case AtClass(number):
            return str(number)


def show(value: Value) -> str:
    """Return a value as text, operations as calls."""
    match value:
        case Number(number):
            return str(number)
        case Load(name, index) | Param(name, index):
            return name if index is None else f"{name}[{show_index(index)}]"
        case Size():
            return "K"
        case Position(index):
            return show_index(index)
        case Ref(name, indices):
            return name + (f"[{', '.join(map(show_index, indices))}]" if indices else "")
        case Op(op, args):
            return f"{op}({', '.join(map(show, args))})"


def _lines(body: tuple[Stmt, ...], indent: str) -> Iterator[str]:
    for stmt in body:
        match stmt:
            case Let(name, _, value):
                yield f"{indent}{name} = {show(value)}"
            case Fold(name, op, value, where):
                condition = "" if where is None else f" where {show(where)}"
                yield f"{indent}{name} <- {op} {show(value)}{condition}"
            case Reject(name):
                yield f"{indent}reject where {name}"
            case Store(output, value):
                yield f"{indent}{output} := {show(value)}"
            case Patch(output, index, value):
                yield f"{indent}{output}[{show_index(index)}] := {show(value)}"
            case Loop(depth, inner):
                yield f"{indent}for {letter(depth)}:"
                yield from _lines(inner, indent + "    ")
