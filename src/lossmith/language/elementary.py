"""The elementary functions, one row each: what the text language calls them, and what NumPy does.

Derivatives are rules and live in calculus/rules.py; stable forms in calculus/stabilize.py. Adding a function is one
row here, one row there, and one in the 50-digit interpreter.
"""

from __future__ import annotations

from typing import NamedTuple


class Function(NamedTuple):
    """An elementary function of one or two numbers."""

    name: str
    arity: int
    numpy: str | None
    """The NumPy function that computes it to rounding, or None where generated code spells it out."""
    latex: str
    """How LaTeX writes the name; arguments follow in parentheses."""


FUNCTIONS: dict[str, Function] = {
    f.name: f
    for f in (
        Function("exp", 1, "exp", r"\exp"),
        Function("log", 1, "log", r"\log"),
        Function("log1p", 1, "log1p", r"\operatorname{log1p}"),
        Function("expm1", 1, "expm1", r"\operatorname{expm1}"),
        Function("abs", 1, "abs", r"\operatorname{abs}"),  # printed as |x|
        Function("sign", 1, "sign", r"\operatorname{sign}"),
        Function("sin", 1, "sin", r"\sin"),
        Function("cos", 1, "cos", r"\cos"),
        Function("tan", 1, "tan", r"\tan"),
        Function("sinh", 1, "sinh", r"\sinh"),
        Function("cosh", 1, "cosh", r"\cosh"),
        Function("tanh", 1, "tanh", r"\tanh"),
        Function("arcsin", 1, "arcsin", r"\arcsin"),
        Function("arccos", 1, "arccos", r"\arccos"),
        Function("arctan", 1, "arctan", r"\arctan"),
        Function("arcsinh", 1, "arcsinh", r"\operatorname{arsinh}"),
        Function("arccosh", 1, "arccosh", r"\operatorname{arcosh}"),
        Function("arctanh", 1, "arctanh", r"\operatorname{artanh}"),
        Function("sigmoid", 1, None, r"\sigma"),
        Function("softplus", 1, None, r"\operatorname{softplus}"),
        # ln cosh x, a name for what is stable: |x| + log1p(expm1(-2|x|)/2)
        Function("log_cosh", 1, None, r"\log\cosh"),
        Function("maximum", 2, "maximum", r"\max"),
        Function("minimum", 2, "minimum", r"\min"),
        # a·b with 0·anything = 0: what a target or weight of zero leaves out
        Function("scaled", 2, None, ""),
    )
}
"""Square root and reciprocal are powers; log_softmax and log_sigmoid are written with logsumexp and softplus."""
