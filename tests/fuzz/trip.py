"""The whole trip of a formula, as fuzz tests take it: read, derive, print, make kernels; and formulas for it."""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import lossmith as lm
from lossmith.calculus.prose import derive
from lossmith.compiler import low_rank_hessian, outputs_for
from lossmith.errors import FormulaError, UnsupportedError
from lossmith.kernels.lower import lower
from lossmith.language.formula import Formula
from lossmith.language.latex import to_latex
from lossmith.language.mathml import to_mathml

SECONDS = 1.0
"""The processor time that a step of the trip may take."""

KEYWORDS = {"w": [1.0, 2.0, 0.5], "g": 0.5, "h": 3.0}
"""What formulas may use besides s, t and y."""


class TooSlow(AssertionError):
    """A step that took longer than it may."""


def whole_trip(text: str, seconds: float = SECONDS) -> str:
    """Take a text on the whole trip, as far as it goes; return where it ended: "done", or what was refused.

    Raises
    ------
    TooSlow
        If a step takes longer than `seconds` of processor time. Any other exception is a mistake in lossmith.
    """
    step = "read"
    try:
        with _in_time(step, seconds):
            loss = _loss(text)
        formula = loss if isinstance(loss, Formula) else loss.definition
        if isinstance(loss, lm.Loss):
            for step, work in _steps(loss):
                with _in_time(step, seconds):
                    work()
        else:
            to_latex(formula.expr), to_mathml(formula.expr)
    except (FormulaError, UnsupportedError) as error:
        message = str(error)
        assert message
        assert len(message) < 2000, message
        return f"{step}: {error.args[0]}"
    return "done"


def _loss(text: str) -> lm.Loss | Formula:
    names = {n: v for n, v in KEYWORDS.items() if re.search(rf"\b{n}\b", text)}
    try:
        return lm.loss(text, **names)
    except FormulaError as error:
        if "vector function" in str(error):
            return lm.function(text, **names).definition
        if names and "does not use it" in str(error):
            return lm.loss(text)
        raise


def _steps(loss: lm.Loss) -> Iterator[tuple[str, Callable[[], object]]]:
    formula = loss.definition
    found = []
    yield "derive", lambda: found.append(derive(formula))
    yield "print", lambda: str(found[0])
    yield "latex", lambda: found[0].latex()
    for wanted in (("value", "grad"), ("grad", "hessian_diag"), ("hvp",)):
        yield f"stable {wanted}", lambda wanted=wanted: lower(outputs_for(formula, wanted), formula)
    yield "code", lambda: (loss.source("numpy"), loss.source("numba"))
    if formula.kind == "row":
        yield "hessian", lambda: low_rank_hessian(formula, formula.of_role("scores")[0].name)


@contextmanager
def _in_time(step: str, seconds: float) -> Iterator[None]:
    gc.disable()  # it would look at all that other tests have left in memory
    start = time.thread_time()
    try:
        yield
    finally:
        taken = time.thread_time() - start
        gc.enable()
    if taken > seconds:
        raise TooSlow(f"{step} took {taken:.2f} s")


# ------------------------------------------------------------------ formulas from choices

_NUMBER = (
    "0 1 2 -1 0.5 3 7 1000 1e-9 1e300 10**10 1/3 pi inf K g h s[y] s[2] t[0] w[y] y", "a",
    "{n} + {n}", "{n} - {n}", "{n} * {n}", "{n} / {n}", "{n} ** {n}", "{r} @ {r}", "({r})[y]", "({r})[1]", "-{n}",
    "sum({r})", "max({r})", "min({r})", "mean({r})", "logsumexp({r})", "norm({r})", "argmax({r})", "({r})[argmax({r})]",
    "sum({r}, where={c})", "max({r}, where={c})", "logsumexp({r}, where={c})", "min({r}, where={c})", "f({n})",
    "maximum({n}, {n})", "where({n} > {n}, {n}, {n})", "sum(({r})[:, None] * {r})", "max(({r})[:, None] - {r})",
    "sum(maximum(0, ({r})[:, None] - {r}))", "({n})**({n})", "clip({n}, -1, {n})", "({n} == {n})", "norm({r}, 1)",
)  # fmt: skip
_ROW = (
    "s t w classes onehot(y) s s", "b", "{r} + {r}", "{r} - {r}", "{r} * {r}", "{r} / {r}", "{r} ** {r}", "{n} * {r}",
    "{r} / {n}", "{r} - {n}", "{r} ** {n}", "{r}**2", "softmax({r})", "log_softmax({r})", "f({r})", "f({r})", "-{r}",
    "where({c}, {r}, {r})", "maximum({r}, {n})", "minimum({r}, {r})", "{c}", "softmax({r}, where={c})", "softmin({r})",
    "clip({r}, {n}, {n})", "sum(({r})[:, None] * {r}, axis=1)", "softmax(({r})[:, None] - {r})[y]", "n",
    "max(({r})[:, None] - {r}, axis=0)", "{r} * {r} * {r}", "({r} + {n})**{n}", "where({r} > {r}, {r}, {n})",
)  # fmt: skip
_CONDITION = (
    "(classes!=y) (s>t) (classes>2) (s>0)", "{r} > {r}", "{r} <= {n}", "{c} & {c}", "{c} | {c}", "~{c}",
    "{r} == {n}", "{r} != {r}",
)  # fmt: skip
_SHAPES = {"n": _NUMBER, "r": _ROW, "c": _CONDITION}
_FUNCTIONS = [
    "exp", "log", "abs", "sqrt", "sigmoid", "softplus", "relu", "log1p", "expm1", "sign", "tanh", "sin", "cos", "sinh",
    "cosh", "square", "log_sigmoid", "reciprocal", "leaky_relu",
]  # fmt: skip


def formula_from(choose: Callable[[int], int]) -> str:
    """Return a formula whose shapes mostly fit; `choose(n)` gives a number from 0 to n − 1."""
    maker = _Maker(choose)
    lines: list[str] = []
    for number in range(choose(5)):
        kind = "nr"[choose(2)]
        lines.append(f"a{number} = {maker.make(kind)}")
        maker.names[kind].append(f"a{number}")
    lines.append(maker.make("nnr"[choose(3)]))
    for number in reversed(range(len(lines) - 1)):  # what is not used would be refused
        if f"a{number}" not in "".join(lines[number + 1 :]):
            del lines[number]
    return "\n".join(lines)


class _Maker:
    def __init__(self, choose: Callable[[int], int]) -> None:
        self.choose, self.left = choose, 60
        self.names: dict[str, list[str]] = {"n": [], "r": [], "c": []}

    def make(self, kind: str, depth: int = 0) -> str:
        """Return an expression for a number, a row or a condition; now and then for another than was asked for."""
        if self.choose(64) == 63:
            kind = "nrc"[self.choose(3)]
        self.left -= 1
        atoms, *shapes = _SHAPES[kind]
        known = [*atoms.split(), *self.names[kind] * 5]
        if depth > 6 or self.left < 0 or not self.choose(3):
            return known[self.choose(len(known))]
        shape = shapes[self.choose(len(shapes))]
        if len(shape) == 1:  # a definition, or a number where a row may stand
            return known[-1] if shape in "ab" else self.make("n", depth + 1)
        made = shape.replace("f(", f"{_FUNCTIONS[self.choose(len(_FUNCTIONS))]}(") if shape[0] == "f" else shape
        parts = made.split("{")
        return "(" + parts[0] + "".join(self.make(p[0], depth + 1) + p[2:] for p in parts[1:]) + ")"
