"""From the row program to one that loops run well: what is kept from loop to loop, and what is computed again.

NumPy keeps every intermediate array. A loop that looks at one entry at a time would rather compute a difference
again than read it from memory; an exponential, it would rather keep. Kept values live in one row of scratch memory,
or in the row of an output that is written last anyway.
"""

from __future__ import annotations

from collections.abc import Iterator

from lossmith.kernels.record import Record
from lossmith.kernels.rowprogram import (
    Each,
    Fold,
    Let,
    Load,
    Loop,
    Number,
    Op,
    Ref,
    RowProgram,
    Stmt,
    Store,
    Value,
    map_statement,
    operands,
    statements,
    subvalues,
)

CHEAP = {"add", "sub", "mul", "neg", "square", "gap", "scaled", "maximum", "minimum", "abs", "select", "indicator",
         "to_float", "sign", ">", ">=", "==", "int>", "int>=", "int==", "not", "and", "or", "is_nan"}  # fmt: skip
"""Operations that are done again sooner than their result is read back."""


class Schedule(Record):
    """A program's statements, arranged for loops.

    `kept` are the values with a row of memory; `homes` says for which of them that row is an output's. `blank` are
    outputs that are 0 but for entries with a value of their own: no loop writes those zeros.
    """

    body: tuple[Stmt, ...]
    kept: tuple[str, ...]
    homes: dict[str, str]
    blank: frozenset[str]


def schedule(program: RowProgram, share_rows: bool = True) -> Schedule:
    """Return the program's statements with reciprocals taken out of loops and values kept or computed again."""
    return _Scheduler(program, share_rows).result()


class _Scheduler:
    def __init__(self, program: RowProgram, share_rows: bool) -> None:
        self.program = program
        self.share_rows = share_rows
        self.kept: dict[str, None] = {}
        self.made: dict[str, tuple[int, Stmt, int]] = {}  # name -> (loop number, Let or Fold, depth)
        self._find_makers(program.body, 0, 0)

    def _find_makers(self, body: tuple[Stmt, ...], depth: int, loop: int) -> None:
        for n, stmt in enumerate(body):
            if isinstance(stmt, Loop):
                self._find_makers(stmt.body, depth + 1, loop or n + 1)
            elif isinstance(stmt, Let):
                self.made[stmt.name] = loop, stmt, depth
            elif isinstance(stmt, Fold):
                self.made[stmt.name] = loop, stmt, depth - 1

    def result(self) -> Schedule:
        body: list[Stmt] = []
        for n, stmt in enumerate(self.program.body):
            if isinstance(stmt, Loop):
                body += self._loop(stmt, n + 1)
            else:
                body.append(self._by_gaps(stmt, self.program.body, ()))
        body = [self._without_unused(stmt) for stmt in body]
        blank = blank_outputs(self.program)
        body = [s for s in (_without_stores(s, blank) for s in body) if s is not None]
        homes = self._homes(body) if self.share_rows else {}
        return Schedule(tuple(body), tuple(self.kept), homes, blank)

    # -------------------------------------------------------------- kept, or computed again

    def _loop(self, loop: Loop, number: int) -> list[Stmt]:
        again: dict[str, Let] = {}
        for stmt in statements(loop.body):
            for value in operands(stmt):
                self._look(value, number, again)
        placed = self._placed(loop, again)
        changed = self._by_gaps(placed, placed.body, (Each(0),))
        assert isinstance(changed, Loop)
        before, changed = self._reciprocals(changed)
        return [*before, changed]

    def _look(self, value: Value, number: int, again: dict[str, Let]) -> None:
        for part in subvalues(value):
            if not isinstance(part, Ref) or not part.indices or part.name in again:
                continue
            loop, maker, depth = self.made[part.name]
            own = part.indices == tuple(map(Each, range(depth)))
            if loop == number and own:
                continue
            if not own or not isinstance(maker, Let) or (depth == 1 and not is_cheap(maker.value)):
                self.kept[part.name] = None
                continue
            self._look(maker.value, number, again)
            again[part.name] = maker

    @staticmethod
    def _placed(loop: Loop, again: dict[str, Let]) -> Loop:
        """Return the loop with the values that are computed again at the start of the scope they belong to."""
        if not again:
            return loop

        def fill(body: tuple[Stmt, ...], depth: int) -> tuple[Stmt, ...]:
            used = {v.name for s in statements(body) for o in operands(s) for v in subvalues(o) if isinstance(v, Ref)}
            here = [let for let in again.values() if let.depth == depth]
            needed: set[str] = set(used)
            for let in reversed(list(again.values())):
                if let.name in needed:
                    needed |= {v.name for v in subvalues(let.value) if isinstance(v, Ref)}
            start = tuple(let for let in here if let.name in needed)
            inner = (Loop(s.depth, fill(s.body, depth + 1)) if isinstance(s, Loop) else s for s in body)
            return (*start, *inner)

        return Loop(loop.depth, fill(loop.body, loop.depth + 1))

    @staticmethod
    def _by_gaps(stmt: Stmt, lets: tuple[Stmt, ...], indices: tuple[Each, ...]) -> Stmt:
        """Spare the difference of a gap d = x - m where it is not needed for itself.

        d = 0 is x = m, which is compared for the gap anyway, and exp(d) does not wait for that comparison.
        """
        gaps = {s.name: s.value.args for s in lets
                if isinstance(s, Let) and isinstance(s.value, Op) and s.value.op == "gap"}  # fmt: skip

        def change(value: Value) -> Value:
            match value:
                case Op("==", (Ref(name, at), Number(0))) if name in gaps and at == indices:
                    return Op("==", gaps[name])
                case Op("exp", (Ref(name, at),)) if name in gaps and at == indices:
                    return Op("exp_gap", gaps[name])
                case Op("exp", (Op("gap", args),)):
                    return Op("exp_gap", args)
                case _:
                    return value

        return map_statement(stmt, change)

    def _without_unused(self, stmt: Stmt) -> Stmt:
        """Return a loop without the values that nothing looks at any more."""
        if not isinstance(stmt, Loop):
            return stmt
        inner = statements(stmt.body)
        used = {v.name for s in inner for o in operands(s) for v in subvalues(o) if isinstance(v, Ref)}
        used |= set(self.kept)
        return Loop(stmt.depth, tuple(s for s in stmt.body if not isinstance(s, Let) or s.name in used))

    # -------------------------------------------------------------- reciprocals

    @staticmethod
    def _reciprocals(loop: Loop) -> tuple[list[Stmt], Loop]:
        """Turn e/z with z fixed in the loop and at least 1 into e·(1/z): one rounding more, one division a row."""
        before: dict[str, Stmt] = {}

        def change(value: Value) -> Value:
            match value:
                case Op("over", (a, Ref(name, ()) as z)):
                    inverse = f"inv_{name}"
                    before[inverse] = Let(inverse, 0, Op("div", (Number(1), z)))
                    return Op("mul", (a, Ref(inverse)))
                case _:
                    return value

        changed = map_statement(loop, change)
        assert isinstance(changed, Loop)
        return list(before.values()), changed

    # -------------------------------------------------------------- where rows live

    def _homes(self, body: list[Stmt]) -> dict[str, str]:
        """Let kept values live in the row of an output that the last loop writes, if nobody looks at another entry."""
        loops = [(n, s) for n, s in enumerate(body) if isinstance(s, Loop)]
        if not loops:
            return {}
        last_at, last = loops[-1]
        outputs = [s.output for s in last.body if isinstance(s, Store)]
        homes: dict[str, str] = {}
        for name in self.kept:
            _, maker, depth = self.made[name]
            if depth != 1 or not isinstance(maker, Let) or not outputs:
                continue
            at = next((n for n, s in loops if _makes(s, name)), last_at)
            later = [s for s in body[at + 1 :] for s in statements((s,))]
            if at < last_at and self._only_own_entry(name, later):
                homes[name] = outputs.pop(0)
        return homes

    @staticmethod
    def _only_own_entry(name: str, later: list[Stmt]) -> bool:
        refs = [v for s in later for o in operands(s) for v in subvalues(o) if isinstance(v, Ref) and v.name == name]
        return all(v.indices == (Each(0),) for v in refs)


def blank_outputs(program: RowProgram) -> frozenset[str]:
    """Return the outputs per class that are 0 but for entries with a value of their own, and for rows with a NaN."""
    stores = [s for s in statements(program.body) if isinstance(s, Store) and (s.output, True) in program.outputs]
    return frozenset(s.output for s in stores if isinstance(s.value, Number) and s.value.value == 0)


def _without_stores(stmt: Stmt, blank: frozenset[str]) -> Stmt | None:
    """Return a statement without the stores to blank outputs, None if nothing is left of it."""
    if not isinstance(stmt, Loop):
        return stmt
    body = tuple(s for s in stmt.body if not (isinstance(s, Store) and s.output in blank))
    return Loop(stmt.depth, body) if body else None


def is_light(program: RowProgram) -> bool:
    """Whether all loops of a program only look for NaN, once the stores to blank outputs are left out."""
    blank = blank_outputs(program)
    loops = [_without_stores(s, blank) for s in program.body if isinstance(s, Loop)]
    return all(loop is None or (isinstance(loop, Loop) and only_looks(loop)) for loop in loops)


def only_looks(loop: Loop) -> bool:
    """Whether all that a loop does is to look for NaN in inputs: for many rows at once that is one look."""
    return all(isinstance(s, Fold) and s.op == "nan" and s.where is None and _is_entry(s.value) for s in loop.body)


def _is_entry(value: Value) -> bool:
    return isinstance(value, Load) and value.index == Each(0)


def _makes(loop: Loop, name: str) -> bool:
    return any(isinstance(s, Let) and s.name == name for s in loop.body)


def is_cheap(value: Value) -> bool:
    """Whether a value is computed again sooner than it is read from memory."""
    return all(v.op in CHEAP for v in subvalues(value) if isinstance(v, Op))


def closure(values: tuple[Value, ...], body: tuple[Stmt, ...]) -> Iterator[Let]:
    """Yield the Lets of a loop's body that the values need, in order."""
    needed = {v.name for value in values for v in subvalues(value) if isinstance(v, Ref)}
    found: list[Let] = []
    for stmt in reversed(body):
        if isinstance(stmt, Let) and stmt.name in needed:
            found.append(stmt)
            needed |= {v.name for v in subvalues(stmt.value) if isinstance(v, Ref)}
    yield from reversed(found)
