"""From text to the formula of a loss: Python's parser, an allow-list of nodes, traced values.

The text is parsed and never evaluated or compiled: each allowed node is carried out on traced
values by the same OPERATIONS as a traced Python function, so both give the same expression.
"""

from __future__ import annotations

import ast
import math
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from lossmith.errors import FormulaError
from lossmith.language import source
from lossmith.language.budget import within_budget
from lossmith.language.expr import Size
from lossmith.language.formula import ROLES_BY_NAME, Formula, Hyperparameter, Input, Role
from lossmith.language.operations import OPERATIONS, REDUCTIONS
from lossmith.language.source import Source
from lossmith.language.trace import formula_of, hyperparameter, role_of, traced_hyper, traced_input
from lossmith.language.traced import Traced, apply, index, lift

Keyword: TypeAlias = Any
"""A number, a sequence of numbers, a Role, or an annotation that holds one."""

CONSTANTS: dict[str, Callable[[], Traced]] = {
    "K": lambda: Traced(Size()),
    "classes": lambda: apply("classes"),
    "pi": lambda: lift(math.pi),
    "inf": lambda: lift(math.inf),
}
"""The names that stand for values in every formula."""

_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.Pow: "power",
    ast.MatMult: "matmul",
    ast.BitAnd: "logical_and",
    ast.BitOr: "logical_or",
}
_UNARY: dict[type[ast.unaryop], str] = {
    ast.USub: "negative",
    ast.UAdd: "positive",
    ast.Invert: "logical_not",
}
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
}


@within_budget("reading it", share=0.3)
def read(text: str, /, **keywords: Keyword) -> Formula:
    """Return the formula that a text describes.

    Parameters
    ----------
    text : str
        Lines (or parts between semicolons) `name = expression`, and last the loss itself, in
        NumPy's words: "p = softmax(s); -log(p[y])".
    **keywords : float, sequence of float, or role
        The hyperparameters with their defaults, a number or one for each class; and the inputs
        other than s, y and t with their roles, such as `a=lm.Scores`.

    Returns
    -------
    Formula

    Raises
    ------
    FormulaError
        If the text is no loss; the message shows the place and what to write instead.
    """
    where = Source(text)
    statements = source.parse(where)
    reader = _Reader(where, *_declared(keywords))
    try:
        value = reader.run(statements)
    except RecursionError:  # the caller stood deep in the stack already
        raise FormulaError("the formula is nested too deeply") from None
    reader.refuse_unused()
    try:
        inputs = reader.used_inputs()
        formula = formula_of("loss", value, inputs, reader.hypers, reader.definitions)
    except FormulaError as error:
        raise where.placed(error, statements[-1]) from None
    return replace(formula, text=text)


def _declared(keywords: dict[str, Any]) -> tuple[dict[str, Role], tuple[Hyperparameter, ...]]:
    """Split the keywords into inputs by role and hyperparameters by value."""
    roles: dict[str, Role] = {}
    hypers: list[Hyperparameter] = []
    for given, value in keywords.items():
        name = unicodedata.normalize("NFKC", given)  # as Python's parser reads names
        if name in CONSTANTS:
            raise FormulaError(f"{name} has a meaning of its own in formulas; choose another name")
        role = role_of(value)
        if role is None:
            hypers.append(hyperparameter(name, value))
        else:
            roles[name] = role
    taken = {h.name for h in hypers}
    by_name = {n: r for n, r in ROLES_BY_NAME.items() if n not in taken and n not in roles}
    return {**by_name, **roles}, tuple(hypers)


class _Reader:
    """Carries out the allowed nodes of a parsed formula on traced values."""

    def __init__(self, where: Source, roles: dict[str, Role], hypers: tuple[Hyperparameter, ...]) -> None:
        self.where, self.roles, self.hypers = where, roles, hypers
        self.given = {name: traced_input(Input(name, role)) for name, role in roles.items()}
        self.given.update({h.name: traced_hyper(h) for h in hypers})
        self.definitions: dict[str, Traced] = {}
        self.targets: dict[str, ast.Name] = {}
        self.used: set[str] = set()

    # -------------------------------------------------------------- statements

    def run(self, statements: list[ast.stmt]) -> Traced:
        """Carry out the definitions and return the value of the last line."""
        *definitions, last = statements
        for statement in definitions:
            self.define(statement)
        if isinstance(last, ast.Assign):
            raise self.error(
                last,
                "the last line must be the loss itself, not a definition",
                "end with an expression, such as -log(p[y])",
            )
        if not isinstance(last, ast.Expr):
            raise self.error(last, *source.refusal(last))
        return self.value(last.value)

    def define(self, statement: ast.stmt) -> None:
        """Carry out `name = expression`."""
        if isinstance(statement, ast.Expr):
            raise self.error(
                statement,
                "this line has no effect: only the last line is the loss",
                "give it a name, as in p = softmax(s), or delete it",
            )
        if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            raise self.error(statement, *source.refusal(statement))
        target = statement.targets[0]
        if not isinstance(target, ast.Name):
            raise self.error(target, "only a plain name can be defined, as in p = softmax(s)")
        name = target.id
        if name in self.definitions:
            raise self.error(target, f"{name} is defined twice", "choose another name")
        if name in CONSTANTS or name in self.given:
            raise self.error(target, f"{name} already has a meaning", "choose another name")
        self.definitions[name] = self.value(statement.value)
        self.targets[name] = target

    # -------------------------------------------------------------- expressions

    def value(self, node: ast.expr) -> Traced:
        """Return the traced value of an expression; errors get its place."""
        method = _VISITORS.get(type(node))
        if method is None:
            raise self.error(node, *source.refusal(node))
        try:
            return method(self, node)
        except FormulaError as error:
            raise self.where.placed(error, node) from None

    def error(self, node: ast.AST, message: str, hint: str | None = None) -> FormulaError:
        return self.where.placed(FormulaError(message, hint=hint), node)

    def constant(self, node: ast.Constant) -> Traced:
        number = node.value
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise self.error(node, *source.refusal(node))
        if isinstance(number, float) and math.isinf(number):
            raise self.error(node, "this number is too large")
        return lift(number)

    def name(self, node: ast.Name) -> Traced:
        name = node.id
        if name in self.definitions:
            self.used.add(name)
            return self.definitions[name]
        if name in self.given:
            self.used.add(name)
            return self.given[name]
        if name in CONSTANTS:
            return CONSTANTS[name]()
        if name in OPERATIONS:
            raise self.error(node, f"{name} is a function", f"give it an argument: {name}(…)")
        raise self.unknown(node, name, [*self.definitions, *self.given, *CONSTANTS])

    def unknown(self, node: ast.AST, name: str, known: list[str]) -> FormulaError:
        meant = source.suggestion(name, known)
        declared = f"pass a hyperparameter with its value ({name}=1.0), an input with its role"
        hint = f"{meant} Otherwise {declared}" if meant else declared
        return self.error(node, f"unknown name {name}", hint)

    def attribute(self, node: ast.Attribute) -> Traced:
        name = source.without_module(node)
        if name in ("pi", "inf"):
            return CONSTANTS[name]()
        if name in OPERATIONS:
            raise self.error(node, f"{name} is a function", f"give it an argument: {name}(…)")
        if name is not None:
            hint = source.suggestion(name, [*CONSTANTS, *OPERATIONS])
            raise self.error(node, f"unknown name {ast.unparse(node)}", hint)
        raise self.error(node, *source.refusal(node))

    def binary(self, node: ast.BinOp) -> Traced:
        left, right = self.value(node.left), self.value(node.right)
        try:
            name = _BINARY.get(type(node.op))
            if name is None:
                message, hint = source.refused_operator(node.op)
                raise FormulaError(message, hint=hint)
            return apply(name, left, right)
        except FormulaError as error:
            raise self.where.between(error, node.left, node.right) from None

    def unary(self, node: ast.UnaryOp) -> Traced:
        if isinstance(node.op, ast.Not):
            raise self.error(node, "not is not supported in a formula", "write ~(condition)")
        return apply(_UNARY[type(node.op)], self.value(node.operand))

    def compare(self, node: ast.Compare) -> Traced:
        if len(node.ops) > 1:
            raise self.error(node, "comparisons cannot be chained", "write (a < b) & (b < c), in parentheses")
        name = _COMPARISONS.get(type(node.ops[0]))
        if name is None:
            raise self.error(node, "in and is are not supported in a formula", "write == or !=")
        return apply(name, self.value(node.left), self.value(node.comparators[0]))

    def subscript(self, node: ast.Subscript) -> Traced:
        row = self.value(node.value)
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        key = tuple(self.key(part) for part in parts)
        return index(row, key)

    def key(self, node: ast.expr) -> Any:
        """Return one index: a class, None, `...` or a whole axis."""
        match node:
            case ast.Slice(lower=None, upper=None, step=None):
                return slice(None)
            case ast.Slice():
                return slice(0)  # refused by index(), with its hint
            case ast.Constant(value=None):
                return None
            case ast.Constant(value=value) if value is Ellipsis:
                return Ellipsis
            case ast.Name(id="newaxis"):
                return None
            case ast.Attribute() if source.without_module(node) == "newaxis":
                return None
            case ast.Constant(value=int()) | ast.UnaryOp(operand=ast.Constant(value=int())):
                return self.integer(node, "an index")
            case _:
                return self.value(node)

    # -------------------------------------------------------------- calls

    def call(self, node: ast.Call) -> Traced:
        name = self.function_name(node.func)
        if any(isinstance(a, ast.Starred) for a in node.args):
            raise self.error(node, "*arguments are not supported in a formula")
        if name in REDUCTIONS and len(node.args) != 1:
            hint = f"an axis is named: {name}(x, axis=0)" if node.args else None
            if name in ("max", "min"):
                hint = f"{name}imum(a, b) is for two numbers; an axis is named: {name}(x, axis=0)"
            count = len(node.args)
            raise self.error(node, f"{name} takes 1 argument, got {count}", hint)
        args = [self.value(a) for a in node.args]
        options: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise self.error(node, "**options are not supported in a formula")
            options[keyword.arg] = self.option(keyword.arg, keyword.value)
        return apply(name, *args, **options)

    def function_name(self, node: ast.expr) -> str:
        """Return the name of the called function, with or without np. before it."""
        if isinstance(node, ast.Attribute):
            name = source.without_module(node)
            if name is None:
                raise self.error(node, *source.refusal(node))
        elif isinstance(node, ast.Name):
            name = node.id
        else:
            raise self.error(node, "this is called like a function", "a product needs a *: a * (b)")
        if name in OPERATIONS:
            return name
        if name in self.given or name in self.definitions or name in CONSTANTS:
            raise self.error(node, f"{name} is a value, not a function", f"a product needs a *: {name} * (…)")
        hint = source.suggestion(name, OPERATIONS) or (
            "there are NumPy's functions of numbers and rows, softmax, log_softmax, logsumexp, "
            "sigmoid, softplus, relu and onehot"
        )
        raise self.error(node, f"unknown function {name}", hint)

    def option(self, name: str, node: ast.expr) -> Any:
        """Return the value of a keyword argument."""
        if name == "keepdims":
            if not isinstance(node, ast.Constant) or not isinstance(node.value, bool):
                raise self.error(node, "keepdims= is True or False")
            return node.value
        if name in ("axis", "ord"):
            if isinstance(node, ast.Tuple):
                return tuple(self.integer(n, f"{name}=") for n in node.elts)
            if isinstance(node, ast.Name) and node.id == "inf" and name == "ord":
                return math.inf
            return self.integer(node, f"{name}=")
        return self.value(node)

    def integer(self, node: ast.expr, what: str) -> int:
        """Return an integer that stands in the text as such."""
        sign = 1
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            node, sign = node.operand, -1
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value < 2**31:
            return sign * node.value
        raise self.error(node, f"{what} must be a small integer")

    # -------------------------------------------------------------- what was used

    def refuse_unused(self) -> None:
        """Refuse a declared name that does not occur: most likely a slip of the pen."""
        inputs = [name for name in self.roles if name not in ROLES_BY_NAME]
        for name in [h.name for h in self.hypers] + inputs:
            if name not in self.used:
                raise FormulaError(f"{name} was given, but the formula does not use it")
        for name, target in self.targets.items():
            if name not in self.used:
                raise self.error(target, f"{name} is defined, but the formula does not use it")

    def used_inputs(self) -> tuple[Input, ...]:
        """Return the inputs: scores first, then labels, then targets, as declared."""
        order = ("scores", "label", "targets")
        used = [Input(n, r) for n, r in self.roles.items() if n in self.used]
        return tuple(sorted(used, key=lambda i: order.index(i.role.kind)))


_VISITORS: dict[type[ast.expr], Callable[[_Reader, Any], Traced]] = {
    ast.Constant: _Reader.constant,
    ast.Name: _Reader.name,
    ast.Attribute: _Reader.attribute,
    ast.BinOp: _Reader.binary,
    ast.UnaryOp: _Reader.unary,
    ast.Compare: _Reader.compare,
    ast.Subscript: _Reader.subscript,
    ast.Call: _Reader.call,
}
"""The allow-list: every node type that an expression may have, and what carries it out."""
