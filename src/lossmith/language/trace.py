"""From a Python function of one sample to its formula: run it once on traced values."""

from __future__ import annotations

import inspect
import linecache
import numbers
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any, get_type_hints

import numpy as np

from lossmith.errors import FormulaError
from lossmith.language import build
from lossmith.language.budget import within_budget
from lossmith.language.expr import (
    ArgReduce,
    ClassNumber,
    Const,
    Delta,
    Entry,
    Expr,
    Free,
    Hyper,
    Index,
    Label,
    Node,
    Reduce,
    Size,
    Softmax,
    named,
    walk,
)
from lossmith.language.formula import (
    ROLES_BY_NAME,
    Definition,
    Formula,
    Hyperparameter,
    Input,
    Kind,
    Role,
)
from lossmith.language.operations import OPERATIONS
from lossmith.language.traced import AXES, Traced, class_number

__all__ = ["OPERATIONS", "Traced", "trace"]

OUTPUT = named("i")
"""The index of a vector function's components."""


@within_budget("reading it", share=0.3)
def trace(function: Callable[..., Any], hyper_ndims: Mapping[str, int] | None = None) -> Formula:
    """Return the formula that a function of one sample computes.

    Parameters
    ----------
    function : callable
        Its positional parameters are the inputs, with their roles by annotation (`lm.Scores`) or by
        name (s, y, t); its keyword-only parameters are the hyperparameters.
    hyper_ndims : mapping of str to int, optional
        For each hyperparameter, 0 for a number and 1 for one number per class, where that is not to
        be taken from the default value.

    Returns
    -------
    Formula

    Raises
    ------
    FormulaError
        If the function does something that a loss cannot do; the message shows the line.
    """
    inputs, hypers = _read_signature(function, hyper_ndims or {})
    values = {i.name: traced_input(i) for i in inputs}
    options = {h.name: traced_hyper(h) for h in hypers}
    try:
        with _locals_at_return(function) as seen:
            result = function(*values.values(), **options)
    except FormulaError as error:
        raise _located(error, function) from None
    name = getattr(function, "__name__", "loss")
    found = {n: v for n, v in seen.items() if n not in values and n not in options}
    formula = formula_of(name, result, inputs, hypers, found)
    return replace(formula, doc=inspect.getdoc(function) or "", function=function)


# ------------------------------------------------------------------ inputs and hyperparameters


def traced_input(given: Input) -> Traced:
    """Return the traced value of an input: a row, or the label as a number."""
    if given.role.kind == "label":
        return Traced(class_number(Label(given.name)))
    return Traced(Entry(given.name, AXES[0]), (True,))


def traced_hyper(given: Hyperparameter) -> Traced:
    """Return the traced value of a hyperparameter: a number, or one for each class."""
    if given.ndim:
        return Traced(Hyper(given.name, (AXES[0],)), (True,))
    return Traced(Hyper(given.name, ()))


def role_of(annotation: Any) -> Role | None:
    """Return the role in an annotation such as `lm.Scores`."""
    candidates = (annotation, *getattr(annotation, "__metadata__", ()))
    return next((c for c in candidates if isinstance(c, Role)), None)


def hyperparameter(name: str, value: Any, ndim: int | None = None) -> Hyperparameter:
    """Return the hyperparameter with this default: a number or a row of them."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if not isinstance(value, bool) and isinstance(value, numbers.Real):
        return Hyperparameter(name, float(value), ndim or 0)
    if isinstance(value, list | tuple | np.ndarray):
        try:
            row = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            row = np.empty((0, 0))
        if row.ndim == 1 and row.size:
            return Hyperparameter(name, row, 1 if ndim is None else ndim)
    raise FormulaError(f"the hyperparameter {name} is neither a number nor a list of numbers, one for each class")


def _read_signature(
    function: Callable[..., Any], ndims: Mapping[str, int]
) -> tuple[tuple[Input, ...], tuple[Hyperparameter, ...]]:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise FormulaError("a loss is a Python function or a formula as text") from None
    hints = _annotations(function)
    inputs: list[Input] = []
    hypers: list[Hyperparameter] = []
    for name, parameter in signature.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise FormulaError(
                f"the parameter {parameter} does not say what it is",
                hint="name every input, then every hyperparameter: def loss(s, y, *, gamma=2.0)",
            )
        if parameter.kind is parameter.KEYWORD_ONLY:
            required = parameter.default is parameter.empty
            ndim = ndims.get(name)
            hypers.append(
                Hyperparameter(name, None, ndim or 0) if required else hyperparameter(name, parameter.default, ndim)
            )
        elif parameter.default is not parameter.empty:
            raise FormulaError(
                f"the parameter {name} has a default but is not keyword-only",
                hint=f"hyperparameters come after a *: def loss(s, y, *, {name}=…)",
            )
        else:
            inputs.append(Input(name, _role(name, hints.get(name, parameter.annotation))))
    return tuple(inputs), tuple(hypers)


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except Exception:  # an annotation that cannot be resolved; its name may still carry the role
        return {}


def _role(name: str, annotation: Any) -> Role:
    role = role_of(annotation) or ROLES_BY_NAME.get(name)
    if role is None:
        unresolved = isinstance(annotation, str)
        problem = f" ({annotation!r} is not known at module level)" if unresolved else ""
        raise FormulaError(
            f"what the parameter {name} is cannot be told from its name{problem}",
            hint=f"annotate it: {name}: lm.Scores, {name}: lm.Label or {name}: lm.Targets; "
            "the names s, y and t need no annotation",
        )
    return role


# ------------------------------------------------------------------ names and places in it


@contextmanager
def _locals_at_return(function: Callable[..., Any]) -> Generator[dict[str, Any]]:
    """Collect the local variables that hold traced values when `function` returns."""
    seen: dict[str, Any] = {}
    code = getattr(function, "__code__", None)
    before = sys.getprofile()

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event == "return" and frame.f_code is code:
            found = frame.f_locals
            seen.clear()
            seen.update({n: v for n, v in found.items() if isinstance(v, Traced)})

    sys.setprofile(look)
    try:
        yield seen
    finally:
        if before is None or callable(before):
            sys.setprofile(before)
        else:  # a profiler in C, such as cProfile's
            before.enable()


def _located(error: FormulaError, function: Callable[..., Any]) -> FormulaError:
    """Return the error with the line of the function that raised it, where that is known."""
    code = getattr(function, "__code__", None)
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code is not code:
        traceback = traceback.tb_next
    if code is None or traceback is None:
        return error
    positions = list(code.co_positions())[traceback.tb_lasti // 2]
    line, start = positions[0], positions[2]
    source = "".join(linecache.getlines(code.co_filename))
    if line is None or start is None or line > len(source.splitlines()):
        return error
    before = source.splitlines()[line - 1].encode()[:start]
    column = 1 + len(before.decode(errors="ignore"))
    return FormulaError(error.message, text=source, line=line, column=column, hint=error.hint)


# ------------------------------------------------------------------ what kind of loss it is


def formula_of(
    name: str,
    result: Any,
    inputs: tuple[Input, ...],
    hypers: tuple[Hyperparameter, ...],
    seen: Mapping[str, Traced],
) -> Formula:
    """Return the formula with this result and these named intermediate values.

    Raises
    ------
    FormulaError
        If the result is no number and no row, or does not depend on any scores.
    """
    scores = {i.name for i in inputs if i.role.kind == "scores"}
    if not scores:
        raise FormulaError(
            "the loss has no scores to be differentiated by",
            hint="call an input s, or give its name that role: lm.Scores",
        )
    _check_result(result, scores)
    kind, expr = _kind_and_expr(result)
    worthy = {n: v for n, v in seen.items() if _worth_naming(v) and v.expr is not result.expr}
    if kind == "elementwise":
        single = {n: as_elementwise(v.expr) for n, v in worthy.items()}
        definitions = [Definition(n, None, e) for n, e in single.items() if not _rows_of(e)]
    else:
        definitions = [Definition(n, AXES[0] if v.full else None, v.expr) for n, v in worthy.items()]
    output = OUTPUT if kind == "vector" else None
    return Formula(name, kind, expr, inputs, hypers, tuple(definitions), output)


def _rows_of(expr: Expr) -> frozenset[Index]:
    """Return the free indices of entries: what an elementwise loss does not have."""
    return expr.free & frozenset(AXES)


def _check_result(result: Any, scores: set[str]) -> None:
    if not isinstance(result, Traced):
        got = "nothing" if result is None else f"a {type(result).__name__}"
        raise FormulaError(
            f"the loss returns {got}, not a value computed from its inputs",
            hint="does it end in a return statement?" if result is None else None,
        )
    if scores.isdisjoint(_inputs_in(result.expr)):
        listed = ", ".join(sorted(scores))
        raise FormulaError(f"the loss does not depend on its scores ({listed})")
    if result.ndim > 1:
        raise FormulaError(
            f"the result has {result.ndim} axes; a loss is a number or a row",
            hint="sum over one of them: sum(x, axis=1)",
        )
    if result.full == (False,):
        raise FormulaError("the result is an array of length 1, not a number", hint="leave keepdims= or None out")


def _kind_and_expr(result: Traced) -> tuple[Kind, Expr]:
    if not result.full:
        return "row", result.expr
    single = as_elementwise(result.expr)
    if AXES[0] not in result.expr.free or any(_couples(n) for n in walk(single)):
        return "vector", build.substitute(result.expr, {AXES[0]: OUTPUT})
    for name in _per_class(single):
        raise FormulaError(
            f"the loss is one for each element, but {name} has one number for each class",
            hint="write sum(...) or mean(...) around it to make it a loss of a whole row",
        )
    return "elementwise", single


def _inputs_in(expr: Expr) -> Generator[str]:
    for node in walk(expr):
        match node:
            case Entry(name):
                yield name
            case _:
                pass


def _per_class(expr: Expr) -> Generator[str]:
    for node in walk(expr):
        match node:
            case Hyper(name, indices) if indices:
                yield name
            case _:
                pass


def as_elementwise(expr: Expr) -> Expr:
    """Return the expression with the entries of the row at its index as numbers without index."""
    alone: dict[Node, Node] = {}
    for node in walk(expr):
        match node:
            case Entry(name, index) if index is AXES[0]:
                alone[node] = Entry(name, None)
            case _:
                pass
    return build.substitute(expr, alone) if alone else expr


def _couples(node: Node) -> bool:
    """Whether the node, in a function of one element, looks at other elements or at its place."""
    match node:
        case Reduce() | Softmax() | ArgReduce() | Size():
            return True
        case Entry(index=index):
            return index is not None
        case ClassNumber(index):
            return isinstance(index, Free)
        case Delta(i, j):
            return isinstance(i, Free) or isinstance(j, Free)
        case _:
            return False


def _worth_naming(value: Traced) -> bool:
    """Whether a reader gains from the name: one row or number, and more than a single symbol."""
    if value.ndim > 1 or value.full == (False,):
        return False
    return not isinstance(value.expr, Const | Entry | Hyper | Size | ClassNumber | Delta)
