"""The text of a formula: its limits, its places, and what to say of what is not allowed."""

from __future__ import annotations

import ast
import difflib
import keyword
import re
from collections.abc import Iterable

from lossmith.errors import FormulaError
from lossmith.language.parsing import parsed

MAX_CHARACTERS = 10_000
MAX_LEVELS = 100
MODULES = frozenset({"np", "numpy", "lm", "lossmith"})

# What people paste from papers and word processors; each is one character for one.
_TYPOGRAPHY = str.maketrans({"−": "-", "–": "-", "·": "*", "×": "*", "÷": "/", "\u00a0": " "})

_CHARACTERS = {
    "^": ("a power is written **, not ^", None),
    "\\": ("a formula is written as in NumPy, not as in LaTeX", "write log(softmax(s)[y])"),
    "{": ("there are no braces in formulas", "group with parentheses: (a + b) * c"),
    "}": ("there are no braces in formulas", "group with parentheses: (a + b) * c"),
    "²": ("a power is written **", "write x**2"),
    "³": ("a power is written **", "write x**3"),
    "≤": ("write <= instead of ≤", None),
    "≥": ("write >= instead of ≥", None),
    "≠": ("write != instead of ≠", None),
    "√": ("write sqrt(x) instead of √", None),
    "∑": ("write sum(x) instead of ∑", None),
    **dict.fromkeys("\"'“”‘’`", ("there is no text in formulas", "leave the quotes out")),
}

_OTHER_NAMES = {
    "ln": "log", "σ": "sigmoid", "expit": "sigmoid", "logistic": "sigmoid", "Σ": "sum",
    "xlogy": "where(t > 0, t * log(t), 0)", "one_hot": "onehot", "lse": "logsumexp",
    "sgn": "sign", "relu6": "clip", "hinge": "relu", "average": "mean", "total": "sum",
}  # fmt: skip


class Source:
    """The text of a formula, and where things are in it."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_CHARACTERS:
            raise FormulaError(f"the formula has {len(text)} characters; {MAX_CHARACTERS} at most are read")
        self.text = text
        self.lines = text.splitlines()
        # There are no blocks, so indentation means nothing, and no strings, so # starts a comment.
        self.code = [line.split("#")[0].strip().translate(_TYPOGRAPHY) for line in self.lines]
        self.margins = [len(line) - len(line.lstrip()) for line in self.lines]

    def at(self, message: str, line: int, column: int, hint: str | None = None) -> FormulaError:
        """Return an error at a place, counted from 1; places beyond the text move to its end."""
        line = min(max(line, 1), max(len(self.lines), 1))
        length = len(self.lines[line - 1]) if self.lines else 0
        column = min(max(column, 1), length + 1)
        return FormulaError(message, text=self.text, line=line, column=column, hint=hint)

    def placed(self, error: FormulaError, node: ast.AST) -> FormulaError:
        """Return the error with the place of a node, unless it has one."""
        line = getattr(node, "lineno", None)
        if error.line is not None or line is None:
            return error
        column = self._column(line, getattr(node, "col_offset", 0))
        return self.at(error.message, line, column, error.hint)

    def between(self, error: FormulaError, left: ast.expr, right: ast.expr) -> FormulaError:
        """Return the error with the place of the operator between two operands."""
        line, end = left.end_lineno, left.end_col_offset
        if error.line is not None or line is None or end is None:
            return error
        column = self._column(line, end)
        for number in range(line, right.lineno + 1):
            code = " " * self.margins[number - 1] + self.code[number - 1]
            found = _OPERATOR.search(code, column - 1 if number == line else 0)
            if found:
                return self.at(error.message, number, found.start() + 1, error.hint)
        return self.at(error.message, line, column, error.hint)

    def _column(self, line: int, offset: int) -> int:
        """Return the column of a byte offset: Python's parser counts bytes of UTF-8."""
        before = self.code[line - 1].encode()[:offset]
        return 1 + self.margins[line - 1] + len(before.decode(errors="ignore"))


_OPERATOR = re.compile(r"[^\s)(]")


# ------------------------------------------------------------------ parsing


def parse(source: Source) -> list[ast.stmt]:
    """Return the statements of the text.

    Raises
    ------
    FormulaError
        If it cannot be parsed, or is nested too deeply.
    """
    if not source.text.isascii() and any("\ud800" <= c <= "\udfff" for c in source.text):
        raise FormulaError("the formula is no valid Unicode text")  # which no terminal could show
    _check_characters(source)
    _check_brackets(source)
    try:
        tree = parsed("\n".join(source.code))
    except SyntaxError as error:
        raise _syntax_error(source, error) from None
    except (ValueError, RecursionError, MemoryError, OverflowError):
        raise FormulaError(_TOO_DEEP) from None
    if not tree.body:
        raise FormulaError("the formula is empty", hint="write for example -log(softmax(s)[y])")
    _check_depth(tree)
    return tree.body


_TOO_DEEP = f"the formula is nested too deeply: {MAX_LEVELS} levels at most are read"


def _check_characters(source: Source) -> None:
    for number, code in enumerate(source.code, 1):
        for place, character in enumerate(code, 1 + source.margins[number - 1]):
            refused = _CHARACTERS.get(character)
            if refused is None and not character.isascii():
                refused = _foreign(character)
            elif refused is None and character != "\t" and not character.isprintable():
                refused = ("an invisible character does not belong in a formula", None)
            if refused is not None:
                raise source.at(refused[0], number, place, refused[1])
        margin = source.margins[number - 1]
        if long := _LONG_NUMBER.search(code):
            raise source.at("this number is too large", number, 1 + margin + long.start())
        if joined := _JOINED_NUMBER.search(code):
            message = "a number and a name stand together"
            raise source.at(message, number, 1 + margin + joined.end(), "a product needs a *: 2 * s")


_LONG_NUMBER = re.compile(r"[\d_]{310,}")  # a float64 has at most 309 digits before the point
# Python reads 2if as 2 if, with a warning.
_JOINED_NUMBER = re.compile(r"(?<![\w.])(?>(?:\d[\d_]*\.?[\d_]*|\.\d+)(?:[eE][+-]?\d+)?)(?=[^\W\d])")


def _foreign(character: str) -> tuple[str, str | None] | None:
    if ("a" + character).isidentifier():  # a letter of some alphabet, such as γ
        return None
    shown = character if character.isprintable() else f"U+{ord(character):04X}"
    return f"the character {shown} does not belong in a formula", None


def _check_brackets(source: Source) -> None:
    opened: list[tuple[str, int, int]] = []
    for number, code in enumerate(source.code, 1):
        for place, character in enumerate(code, 1 + source.margins[number - 1]):
            if character in "([":
                opened.append((character, number, place))
            elif character in ")]":
                if not opened:
                    raise source.at(f"this {character} closes nothing", number, place)
                start, *_ = opened.pop()
                if start + character not in ("()", "[]"):
                    message = f"this {character} closes a {start}"
                    raise source.at(message, number, place)
    if opened:
        character, number, place = opened[-1]
        raise source.at(f"this {character} is never closed", number, place)


def _syntax_error(source: Source, error: SyntaxError) -> FormulaError:
    """Return what to say of text that is no Python, whose own words change with its version."""
    line = min(max(error.lineno or 1, 1), max(len(source.code), 1))
    if "nested" in error.msg:
        return FormulaError(_TOO_DEEP)
    for word in re.finditer(r"[^\W\d]\w*", source.code[line - 1] if source.code else ""):
        if keyword.iskeyword(word.group()):
            name = word.group()
            hint = "call it lam" if name == "lambda" else None
            message = f"{name} is a reserved word of Python"
            return source.at(message, line, source.margins[line - 1] + word.start() + 1, hint)
    column = (error.offset or 1) + (source.margins[line - 1] if source.margins else 0)
    hint = "write * between the factors of a product" if "comma" in error.msg else None
    return source.at("this cannot be read as a formula", line, column, hint)


def _check_depth(tree: ast.AST) -> None:
    level: list[ast.AST] = [tree]
    for _ in range(MAX_LEVELS):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return
    raise FormulaError(_TOO_DEEP)


# ------------------------------------------------------------------ what is not allowed


def without_module(node: ast.expr) -> str | None:
    """Return the last name of np.exp or np.linalg.norm; None for other attributes."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return names[0] if isinstance(node, ast.Name) and node.id in MODULES and names else None


def refusal(node: ast.AST) -> tuple[str, str | None]:
    """Return what to say of a node that no formula has: what is wrong, what to write instead."""
    match node:
        case ast.BoolOp():
            return "and and or are not supported in a formula", "write (a > 0) & (b > 0), or |"
        case ast.IfExp():
            return "if is not supported in a formula", "write where(cond, a, b)"
        case ast.ListComp() | ast.GeneratorExp() | ast.SetComp() | ast.DictComp():
            return "loops are not supported in a formula", "write sum(x) for a sum over the classes"
        case ast.Tuple() | ast.List():
            return (
                "a list does not belong in a formula",
                "pass a list of numbers, one for each class, as a hyperparameter",
            )
        case ast.Attribute():
            return (
                f"attributes and methods are not supported in a formula: .{node.attr}",
                "write sum(x) instead of x.sum(), and K for the number of classes",
            )
        case ast.Constant(value=None) | ast.Slice():
            return "None and : belong between brackets, as in s[:, None]", None
        case ast.Constant(value=value):
            return f"{value!r} is no number", None
        case ast.Return():
            return "return is not needed: the last line is the loss", "delete the word return"
        case _:
            return (
                "this is no part of a formula",
                "a formula has lines of the form name = expression, and last the loss itself",
            )


def refused_operator(operator: ast.operator) -> tuple[str, str | None]:
    """Return what to say of an operator that no formula has."""
    if isinstance(operator, ast.BitXor):
        return _CHARACTERS["^"]
    if isinstance(operator, ast.Mod | ast.FloorDiv):
        return "% and // are not supported: rounding has no useful derivative", None
    return "<< and >> are not supported in a formula", "compare with < and >"


def suggestion(name: str, known: Iterable[str]) -> str | None:
    """Return the question whether a known name was meant."""
    other = _OTHER_NAMES.get(name)
    if other is not None:
        return f"did you mean {other}?"
    names = sorted(known)
    same = [n for n in names if n.lower() == name.lower()]
    close = same or difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else None
