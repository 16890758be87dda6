"""Rule statements: the text language over metavariables a, b, c (numbers), x, z (rows) and i, j (classes).

`group(e)` keeps e together (a Held node), for right-hand sides in which a rule's left-hand side stands again.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from lossmith.calculus.patterns import meta_index
from lossmith.language.build import const
from lossmith.language.expr import ClassNumber, Expr, Held, Size, Var
from lossmith.language.operations import OPERATIONS
from lossmith.language.parsing import parsed
from lossmith.language.traced import AXES, Traced

NUMBERS, ROWS, INDICES = "abcd", "xz", "ij"

_BINARY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow, ast.Gt: operator.gt, ast.Lt: operator.lt, ast.Eq: operator.eq,
}  # fmt: skip


def metavariable(name: str) -> Traced | None:
    """Return what a name stands for in a statement, None if it is no metavariable."""
    if name in NUMBERS:
        return Traced(Var(name, ()))
    if name in ROWS:
        return Traced(Var(name, (AXES[0],)), (True,))
    if name in INDICES:
        return Traced(ClassNumber(meta_index(name)))
    return Traced(Size()) if name == "K" else None


def parse_statement(text: str) -> Expr:
    """Return the pattern that a statement writes."""
    match parsed(text).body:
        case [ast.Expr(value=value)]:
            return _value(value).expr
        case _:
            raise ValueError(f"no rule statement: {text}")


def _value(node: ast.AST) -> Traced:
    match node:
        case ast.Constant(value=value) if isinstance(value, int | float):
            return Traced(const(Fraction(value)))
        case ast.Name(id=name):
            found = metavariable(name)
            if found is not None:
                return found
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_value(left), _value(right))
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return _BINARY[type(op)](_value(left), _value(right))
        case ast.Subscript(value=row, slice=at):
            return _value(row)[_value(at)]
        case ast.Call(func=ast.Name(id="group"), args=[argument]):
            inner = _value(argument)
            return Traced(Held(inner.expr), inner.full)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return OPERATIONS[name](*(_value(a) for a in arguments))
        case _:
            pass
    raise ValueError(f"no rule statement: {ast.unparse(node)}")
