"""Names for the values of generated code, after the part they play: m a maximum, d a gap below it, e its exp."""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Iterable

from lossmith.kernels.rowprogram import AtFound, AtLabel, Load, Param
from lossmith.kernels.terms import Term, is_number

_BY_OPERATION = {
    "gap": "d", "exp": "e", "log": "log_", "log1p": "log_", "over": "p", "div": "q", "sigmoid": "p", "pow": "power",
    "softplus": "softplus_", "square": "sq", "sqrt": "root", "abs": "size", "sub": "r", "tanh": "tanh_", "mul": "c",
    "maximum": "h", "minimum": "h", "select": "part", "expm1": "e1", "not": "other",
}  # fmt: skip


class Namer:
    """Gives names that nothing else has."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = {*taken, *keyword.kwlist, *dir(builtins)}

    def name(self, term: Term) -> str:
        """Return a new name for a term."""
        return self.unique(_suggest(term))

    def unique(self, name: str) -> str:
        """Return the name, numbered if it is taken."""
        candidate, n = name, 1
        while candidate in self._taken:
            n += 1
            candidate = f"{name.rstrip('_')}{n}"
        self._taken.add(candidate)
        return candidate


def _suggest(term: Term) -> str:
    if term.kind == "fold":
        return _fold(term)
    if isinstance(term.leaf, Load | Param):
        match term.leaf.index:
            case AtLabel(label):
                return f"{term.leaf.name if isinstance(term.leaf, Param) else term.leaf.input}_{label}"
            case AtFound():
                return f"{term.leaf.name if isinstance(term.leaf, Param) else term.leaf.input}_top"
            case _:
                return "x"
    if term.type == "bool":
        return _condition(term)
    if term.op == "add" and is_number(term.args[0], 1) and _has_sum(term.args[1]):
        return "z"
    if term.op == "add" and _has_sum(term):
        return "rest" if any(_is_over_others(a) for a in term.args) else "total"
    stem = _BY_OPERATION.get(term.op, "a" if term.scope == 0 else "u")
    label = _label(term)
    return f"{stem.rstrip('_')}_{label}" if term.scope == 0 and label else stem


def _fold(term: Term) -> str:
    value = term.args[0]
    if term.op == "sum":
        if value.op == "number":
            return "ties" if _is_tie(term.args[-1]) else "count"
        return "others" if _is_over_others(term) else "total"
    return {"peak": "m", "max": "top", "min": "low", "argmax": "at_top", "argmin": "at_low", "nan": "bad"}[term.op]


def _condition(term: Term) -> str:
    if _is_tie(term):
        return "is_top"
    if term.op in ("is_nan", "nan", "or"):
        return "bad"
    return "is_label" if term.op == "int==" else "hit"


def _is_tie(term: Term) -> bool:
    return term.op == "==" and any(a.op == "gap" for a in term.args)


def _is_over_others(term: Term) -> bool:
    return term.kind == "fold" and len(term.args) == 2 and term.args[1].op == "not" and _is_tie(term.args[1].args[0])


def _has_sum(term: Term) -> bool:
    return term.kind == "fold" or any(_has_sum(a) for a in term.args if a.kind in ("op", "fold"))


def _label(term: Term) -> str | None:
    """Return the label at whose class a number stands, if it is made of entries there."""
    if isinstance(term.leaf, Load | Param) and isinstance(term.leaf.index, AtLabel):
        return term.leaf.index.name
    if term.kind != "op":
        return None
    return next((found for a in term.args if (found := _label(a))), None)
