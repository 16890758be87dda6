"""From the outputs that are asked for to one row program: which loop computes what, and what gets a name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from lossmith.errors import UnsupportedError
from lossmith.kernels.names import Namer
from lossmith.kernels.printing import NUMBA_NAMES, NUMPY_NAMES
from lossmith.kernels.rowprogram import (
    AtFound,
    AtLabel,
    Each,
    Fold,
    Index,
    Let,
    Load,
    Loop,
    Op,
    Output,
    Param,
    Parameter,
    Patch,
    Position,
    Ref,
    Reject,
    RowProgram,
    Stmt,
    Store,
    Value,
)
from lossmith.kernels.terms import CLASS, Term, Terms, propagates
from lossmith.kernels.verify import verify
from lossmith.language import build
from lossmith.language.budget import within_budget
from lossmith.language.expr import Add, Entry, Expr, Hyper, Label, Reduce, walk
from lossmith.language.formula import Formula


@within_budget("making its kernel")
def lower(outputs: Sequence[Output], formula: Formula) -> RowProgram:
    """Return the program that computes `outputs` for one row or element.

    Parameters
    ----------
    outputs : sequence of Output
        What to compute, differentiated and stabilised; evaluated as written.
    formula : Formula
        Whose name, arguments and hyperparameters the program takes.

    Returns
    -------
    RowProgram
        A verified program. Its inputs are the formula's rows in order, then any others that the expressions
        read, such as the vector `v` of a Hessian-vector product.
    """
    program = _Lowering(outputs, formula).program()
    verify(program)
    return program


def takes_differences(expr: Expr, name: str) -> bool:
    """Whether entries of the input `name` are subtracted from one another somewhere in `expr`."""
    for node in walk(expr):
        if isinstance(node, Add):
            split = [build.coefficient(t) for t in node.terms]
            signs = {number > 0 for number, rest in split if _is_of_scores(rest, name)}
            if len(signs) == 2:
                return True
    return False


def weight_of_row(expr: Expr) -> Expr | None:
    """Return the weight w_y of a loss that is w_y times something, None where there is none."""
    factors = build.as_factors(expr)
    return next((f for f in factors if isinstance(f, Hyper) and any(isinstance(i, Label) for i in f.indices)), None)


def weight_is_zero(weight: Expr) -> Expr:
    """Return the condition under which a row is left out."""
    return build.compare("==", weight, build.const(0))


def _is_of_scores(e: Expr, name: str) -> bool:
    """Whether e is an entry of the input `name`, or a maximum or log Σ exp over such."""
    if isinstance(e, Reduce) and e.op in ("max", "min", "logsumexp"):
        return any(isinstance(n, Entry) and n.name == name for n in walk(e.body))
    return isinstance(e, Entry) and e.name == name


class _Lowering:
    def __init__(self, outputs: Sequence[Output], formula: Formula) -> None:
        self.formula = formula
        self.terms = Terms()
        self.entries: list[tuple[str, Term]] = []  # outputs with one entry per class
        self.numbers: list[tuple[str, Term]] = []  # outputs with one number per row, or element
        self.patches: list[tuple[str, Index, Term | None, Term]] = []
        self.bad: Term | None = None
        for output in outputs:
            self._take(output)
        self._share_maxima()
        self.elementwise = formula.kind == "elementwise"
        self.bad = self._nan_check()
        reachable = postorder(self.roots())
        self.inputs = self._inputs(reachable)
        self.named: dict[Term, str] = {}
        given = [*self.inputs, *self._labels(), *(h.name for h in formula.hypers), *(o.name for o in outputs)]
        self.namer = Namer([*NUMPY_NAMES, *NUMBA_NAMES, *given])
        stored = {t for _, t in self.entries if t.scope == 0 and t.kind != "leaf"}
        self.to_name = _worth_a_name(reachable, self.roots()) | stored | ({self.bad} if self.bad else set())

    def _take(self, output: Output) -> None:
        if output.index is None:
            self.numbers.append((output.name, self.terms.number(output.expr)))
        else:
            body = build.substitute(output.expr, {output.index: CLASS[0]})
            self.entries.append((output.name, self.terms.number(body)))
        for at, e in output.patches:
            place = self.terms.leaf(Position, None, at)
            found = place.args[0] if place.args else None
            self.patches.append((output.name, place.leaf.index, found, self.terms.number(e)))

    def _share_maxima(self) -> None:
        """Let a maximum that something is also a gap below be that same peak."""
        reachable = postorder(
            [*(t for _, t in self.numbers), *(t for *_, t in self.patches), *(t for _, t in self.entries)]
        )
        peaks = {t.args: t for t in reachable if t.op == "peak"}
        same = {t: peaks[t.args] for t in reachable if t.kind == "fold" and t.op == "max" and t.args in peaks}
        if not same:
            return
        for term in reachable:
            term.args = tuple(same.get(a, a) for a in term.args)
        self.numbers = [(n, same.get(t, t)) for n, t in self.numbers]
        self.entries = [(n, same.get(t, t)) for n, t in self.entries]
        self.patches = [(n, i, f, same.get(t, t)) for n, i, f, t in self.patches]

    def roots(self) -> list[Term]:
        """Return every term that the program must compute, those of the stores last."""
        places = [found for _, _, found, _ in self.patches if found is not None]
        bad = [] if self.bad is None else [self.bad]
        patches = [value for *_, value in self.patches]
        return [*bad, *(t for _, t in self.numbers), *places, *patches, *(t for _, t in self.entries)]

    def _labels(self) -> tuple[str, ...]:
        return tuple(i.name for i in self.formula.of_role("label"))

    def _inputs(self, reachable: list[Term]) -> tuple[str, ...]:
        known = [i.name for i in self.formula.inputs if i.role.kind != "label"]
        read = sorted({t.leaf.input for t in reachable if isinstance(t.leaf, Load)} - set(known))
        return (*known, *read)

    # -------------------------------------------------------------- NaN

    def _nan_check(self) -> Term | None:
        """Return the condition under which a score of the row is NaN, or None if every output shows that by itself."""
        roots = self.roots()
        conditions: list[Term] = []
        for name in (i.name for i in self.formula.of_role("scores")):
            entry = self.terms.leaf(Load, name, None if self.elementwise else CLASS[0])
            tops = {t for t in postorder(roots) if t.op in ("peak", "max", "min") and t.args == (entry,)}
            poisoned = frozenset([entry] if self.elementwise else tops)
            memo: dict[Term, object] = {}
            if all(isinstance(propagates(t, poisoned, memo), float) for t in roots):
                continue
            if self.elementwise:
                conditions.append(self.terms.op("is_nan", entry))
            elif takes_differences(self.formula.expr, name):  # a row of −∞ alone has none: neither has NaN a maximum
                top, lowest = self.terms.fold("max", 0, entry), self.terms.number(build.const(-math.inf))
                conditions.append(self.terms.op("not", self.terms.op(">", top, lowest)))
            else:
                conditions.append(self.terms.fold("nan", 0, entry))
        if not conditions:
            return None
        bad = conditions[0]
        for other in conditions[1:]:
            bad = self.terms.op("or", bad, other)
        weight = weight_of_row(self.formula.expr)
        if weight is not None:  # a row of weight 0 contributes nothing, whatever it holds
            bad = self.terms.op("and", bad, self.terms.op("not", self.terms.condition(weight_is_zero(weight))))
        return bad

    # -------------------------------------------------------------- the program

    def program(self) -> RowProgram:
        params = [Parameter(h.name, h.ndim, h.default) for h in self.formula.hypers]
        body = self._row()
        names = [(n, False) for n, _ in self.numbers] + [(n, True) for n, _ in self.entries]
        kind = "elementwise" if self.elementwise else "row"
        name = self.formula.name or "loss"
        domains = tuple((i.name, i.role.domain) for i in self.formula.inputs if i.role.domain != "real")
        return RowProgram(name, kind, self.inputs, self._labels(), tuple(params), tuple(names), tuple(body), domains)

    def _row(self) -> list[Stmt]:
        """Return the statements of the row: loops in order, and between them what is one number per row."""
        roots = self.roots()
        last = max((t.loops_before(0) for t in postorder(roots)), default=0)
        storing = 0
        if self.entries:  # scores may share memory with an output: nothing reads them after the loop that stores
            storing = max(last, 1, *(1 + t.loops_before(0) for _, t in self.entries))
        body: list[Stmt] = []
        rejected = self.bad is None
        stored: set[str] = set()
        for loop in range(1 + max(last, storing)):
            if loop:
                stores = self.entries if loop == storing else []
                body += self._loop(0, loop, roots, stores)
            body += self._lets(0, loop, roots)
            if not rejected and self.bad is not None and self.bad.loops_before(0) <= loop:
                body.append(Reject(self.named[self.bad]))
                rejected = True
            for name, term in self.numbers:
                if rejected and name not in stored and term.loops_before(0) <= loop:
                    stored.add(name)
                    body.append(Store(name, self.value(term)))
        for name, index, found, term in self.patches:
            at = index if found is None else AtFound(self.named[found])
            body.append(Patch(name, at, self.value(term)))
        return body

    def _loop(self, depth: int, number: int, roots: list[Term], stores: list[tuple[str, Term]]) -> list[Stmt]:
        """Return the loop of that number at `depth`, with all folds that can be in it."""
        reachable = postorder(roots)
        folds = [t for t in reachable if t.kind == "fold" and t.scope == depth and t.loops_before(depth) == number
                 and t not in self.named]  # fmt: skip
        kept = [t.args[0] for t in reachable if t.kind == "shift" and depth == 0 and t.loops_before(0) == number]
        inside = [*(a for f in folds for a in f.args), *kept, *(t for _, t in stores)]
        if not inside:
            return []
        body = self._scope(depth + 1, inside)
        for fold in folds:
            value, *where = map(self.value, fold.args)
            body.append(Fold(self.namer.name(fold), fold.op, value, where[0] if where else None))
        for fold, stmt in zip(folds, body[len(body) - len(folds) :], strict=True):
            assert isinstance(stmt, Fold)
            self.named[fold] = stmt.name
        body += [Store(name, self.value(term)) for name, term in stores]
        return [Loop(depth, tuple(body))]

    def _scope(self, depth: int, roots: list[Term]) -> list[Stmt]:
        """Return what computes the roots at `depth`: loops deeper down, and the values between them."""
        here = [t for t in postorder(roots) if t.scope == depth]
        body: list[Stmt] = []
        for loop in range(1 + max((t.loops_before(depth) for t in here), default=0)):
            if loop:
                body += self._loop(depth, loop, roots, [])
            body += self._lets(depth, loop, roots)
        return body

    def _lets(self, depth: int, loop: int, roots: list[Term]) -> list[Stmt]:
        """Name what is worth a name at `depth` once `loop` loops have run."""
        body: list[Stmt] = []
        for term in postorder(roots):
            ready = term.scope == depth and term.loops_before(depth) == loop
            if ready and term in self.to_name and term.kind != "fold" and term not in self.named:
                value = self.value(term)
                self.named[term] = self.namer.name(term)
                body.append(Let(self.named[term], depth, value))
        return body

    def value(self, term: Term) -> Value:
        """Return a term as a value in which what has a name goes by it."""
        if term in self.named:
            return Ref(self.named[term], tuple(map(Each, range(term.scope))))
        if term.kind == "op":
            return Op(term.op, tuple(map(self.value, term.args)))
        if term.kind == "shift":
            return Ref(self.named[term.args[0]], (Each(term.depth),))
        if term.kind == "fold":
            raise UnsupportedError("a sum that is needed before its loop has run")
        leaf = term.leaf
        if not term.args:
            return leaf
        at = AtFound(self.named[term.args[0]])
        if isinstance(leaf, Load):
            return Load(leaf.input, at)
        return Param(leaf.name, at) if isinstance(leaf, Param) else Position(at)


def postorder(roots: Iterable[Term]) -> list[Term]:
    """Return every term below the roots once, what is needed first coming first."""
    done: dict[Term, None] = {}
    stack = [(t, False) for t in reversed(list(roots))]
    while stack:
        term, ready = stack.pop()
        if term in done:
            continue
        if ready:
            done[term] = None
        else:
            stack.append((term, True))
            stack.extend((a, False) for a in reversed(term.args))
    return list(done)


def _worth_a_name(reachable: list[Term], roots: list[Term]) -> set[Term]:
    """Return the terms used twice, or in a deeper loop than their own; entries at the label, read before any store."""
    uses: dict[Term, int] = {}
    names: set[Term] = {t.args[0] for t in reachable if t.kind == "shift"}
    for term in reachable:
        inside = term.scope + (term.kind == "fold")
        for a in term.args:
            uses[a] = uses.get(a, 0) + 1
            if a.scope < inside:
                names.add(a)
    for term in roots:
        uses[term] = uses.get(term, 0) + 1
    names |= {t for t, n in uses.items() if n > 1}
    plain = {t for t in names if (t.kind == "leaf" and not _is_gathered(t)) or t.op == "to_float"}
    reads = {t for t in reachable if isinstance(t.leaf, Load) and t.leaf.index is not None and t.scope == 0}
    return (names - plain) | reads


def _is_gathered(term: Term) -> bool:
    """Whether a leaf is an entry at a class that differs from row to row."""
    return isinstance(term.leaf, Load | Param) and isinstance(term.leaf.index, AtLabel | AtFound)
