"""The text reader: the same expression as the tracer gives, and nothing but clear refusals."""

import builtins
import contextlib
import gc
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossmith.errors import FormulaError
from lossmith.language import reader as reader_module
from lossmith.language import source as source_module
from lossmith.language.formula import Distribution, Probabilities, Role, Scores
from lossmith.language.reader import read
from lossmith.language.trace import trace

# ------------------------------------------------------------------ both front ends agree


def own(name: str) -> Callable[..., Any]:
    """A function of lossmith, as traced losses call it."""

    def function(x: Any, *args: Any, **kwargs: Any) -> Any:
        return x.__lossmith_apply__(name, *args, **kwargs)

    return function


class lm:
    softmax, log_softmax, logsumexp, sigmoid, softplus, log_sigmoid, relu, leaky_relu = map(
        own,
        ["softmax", "log_softmax", "logsumexp", "sigmoid", "softplus", "log_sigmoid", "relu",
         "leaky_relu"],
    )  # fmt: skip
    onehot, classes = own("onehot"), own("classes")


def focal(s, y, *, gamma=2.0):
    p = lm.softmax(s)
    return -((1 - p[y]) ** gamma) * np.log(p[y])


def symmetric(s, y, *, alpha=0.1, beta=1.0):
    p = lm.softmax(s)
    q = np.clip(lm.onehot(y, s), 1e-4, 1.0)
    return -alpha * np.log(p[y]) - beta * np.sum(p * np.log(q))


def distillation(s, t, *, tau=2.0):
    return np.sum(t * (np.log(t) - lm.log_softmax(s / tau))) * tau**2


def smoothed(s, y, *, eps=0.1):
    q = (1 - eps) * lm.onehot(y, s) + eps / s.size
    return np.sum(q * (lm.logsumexp(s) - s))


def crammer_singer(s, y, *, delta=1.0):
    others = np.max(s, where=lm.classes(s) != y, initial=-np.inf)
    return np.maximum(0, delta + others - s[y])


def unlikelihood(s, y):
    return np.log(1 + np.sum(np.exp(s - s[y]), where=lm.classes(s) != y))


def pairwise(s, t):
    return np.sum(t[:, None] * (1 - t) * np.maximum(0, 1 - s[:, None] + s))


def huber(s, t, *, delta=1.0):
    d = np.abs(s - t)
    return np.where(d <= delta, d**2 / 2, delta * (d - delta / 2))


def multi_margin(s, y, *, w=(1.0, 2.0, 3.0)):
    gaps = np.maximum(0, 1 - s[y] + s)
    return w[y] * np.sum(gaps**2, where=lm.classes(s) != y) / s.size


def modified_huber(s, t):
    z = s * t
    return np.where(z >= -1, np.square(lm.relu(1 - z)), -4 * z)


def logit_adjusted(s, y, *, prior=(0.5, 0.25, 0.25), tau=1.0):
    z = s + tau * np.log(prior)
    return lm.logsumexp(z) - z[y]


def tukey(s, t, *, c=4.685):
    r = (s - t) / c
    inside = (r > -1) & (r < 1)
    return np.where(inside, c**2 / 6 * (1 - (1 - r**2) ** 3), c**2 / 6)


PAIRS: list[tuple[Callable[..., Any], str, dict[str, Any]]] = [
    (lambda s, y: lm.logsumexp(s) - s[y], "logsumexp(s) - s[y]", {}),
    (lambda s, y: -np.log(lm.softmax(s)[y]), "-log(softmax(s)[y])", {}),
    (focal, "-(1 - softmax(s)[y])**gamma * log(softmax(s)[y])", {"gamma": 2.0}),
    (focal, "p = softmax(s)\n-(1 - p[y])**gamma * log(p[y])", {"gamma": 2}),
    (distillation, "sum(t * (log(t) - log_softmax(s / tau))) * tau**2", {"tau": 2.0}),
    (smoothed, "q = (1 - eps)*onehot(y) + eps/K; sum(q * (logsumexp(s) - s))", {"eps": 0.1}),
    (crammer_singer, "maximum(0, delta + max(s, where=classes != y) - s[y])", {"delta": 1.0}),
    (crammer_singer, "maximum(0, delta + max(s, where=classes!=y, initial=-inf) - s[y])",
     {"delta": 1.0}),
    (lambda s, y, *, q=0.7: (1 - lm.softmax(s)[y] ** q) / q, "(1 - softmax(s)[y]**q) / q",
     {"q": 0.7}),
    (unlikelihood, "log(1 + sum(exp(s - s[y]), where=classes != y))", {}),
    (lambda s, t: np.log(np.cosh(s - t)), "log(cosh(s - t))", {}),
    (lambda s, t: (lm.sigmoid(s) - t) ** 2 / 2, "(sigmoid(s) - t)**2 / 2", {}),
    (lambda s, t: lm.softplus(s) - t * s, "softplus(s) − t·s", {}),
    (lambda s, t: -t * np.log(s) - (1 - t) * np.log(1 - s), "-t*np.log(s) - (1 - t)*numpy.log(1-s)",
     {}),
    (pairwise, "sum(t[:, None] * (1 - t) * maximum(0, 1 - s[:, None] + s))", {}),
    (lambda s, t: pairwise(s, t),
     "sum(sum(t[:,newaxis]*(1-t)*maximum(0, 1-s[...,None]+s), axis=1))", {}),
    (lambda s, y: np.sum(np.maximum(0, s - s[y] + 1), where=lm.classes(s) != y),
     "sum(maximum(0, s - s[y] + 1), where=~(classes == y))", {}),
    (huber, "d = abs(s - t)\nwhere(d <= delta, d**2 / 2, delta * (d - delta / 2))", {"delta": 1}),
    (multi_margin, "w[y] * sum(maximum(0, 1 - s[y] + s)**2, where=classes != y) / K",
     {"w": [1, 2, 3]}),
    (modified_huber, "z = s*t; where(z >= -1, square(relu(1 - z)), -4*z)", {}),
    (logit_adjusted, "z = s + tau*log(prior)\nlogsumexp(z) - z[y]",
     {"prior": np.array([0.5, 0.25, 0.25]), "tau": 1.0}),
    (tukey, "r = (s - t)/c; where((r > -1) & (r < 1), c**2/6 * (1 - (1 - r**2)**3), c**2/6)",
     {"c": 4.685}),
    (symmetric, "p = softmax(s)\n q = clip(onehot(y), 1e-4, 1)\n"
     "-alpha*log(p[y]) - beta*sum(p*log(q))  # Wang et al.", {"alpha": 0.1, "beta": 1.0}),
    (lambda s, y: np.max(s) - s[y], "max(s) - s[y]", {}),
    (lambda s, t: np.mean(np.abs(s - t)), "mean(abs(s - t))", {}),
    (lambda s, t: np.sum(np.sqrt(s * t)) * -2 + 2, "2 - 2*sum(sqrt(s*t))", {}),
    (lambda s, t: np.exp(s) - t * s, "exp(s) - t*s", {}),
    (lambda s, t: t / s + np.log(s), "t/s + log(s)", {}),
    (lambda s, t, *, q=0.5: np.maximum(q * (t - s), (q - 1) * (t - s)),
     "maximum(q*(t - s), (q - 1)*(t - s))", {"q": 0.5}),
    (lambda s, t: np.maximum(0, np.abs(s - t) - 0.25), "relu(abs(s - t) - 1/4)", {}),
    (lambda s: lm.softmax(s), "softmax(s)", {}),
    (lambda s: s - lm.logsumexp(s), "log_softmax(s)", {}),
    (lambda s: lm.leaky_relu(s, 0.1), "where(s > 0, s, 0.1*s)", {}),
    (lambda s: -lm.softplus(-s), "log_sigmoid(s)", {}),
    (lambda s, t: 1 - s @ t / (np.linalg.norm(s) * np.linalg.norm(t)),
     "1 - sum(s*t) / (np.linalg.norm(s) * sqrt(sum(t**2)))", {}),
    (lambda s, t: np.sum(np.sum(s[:, None] * t, axis=1, keepdims=True), axis=(0, 1)),
     "sum(sum(s[:, None]*t, axis=1, keepdims=True))", {}),
    (lambda s, y: np.pi * s[3] + s[np.argmax(s)] + (y == 2),
     "pi*s[3] + s[argmax(s)] + (y == 2)", {}),
]  # fmt: skip


@pytest.mark.parametrize(("function", "text", "keywords"), PAIRS)
def test_text_and_function_give_the_same_expression(function: Any, text: str, keywords: dict[str, Any]) -> None:
    traced, found = trace(function), read(text, **keywords)
    assert found.expr is traced.expr
    assert (found.kind, found.output) == (traced.kind, traced.output)
    assert found.inputs == traced.inputs
    assert [(h.name, h.ndim) for h in found.hypers] == [(h.name, h.ndim) for h in traced.hypers]
    assert found.text == text


def test_roles_are_declared_and_scores_come_first() -> None:
    found = read("sum(q*log(p/a)) + s[y] + t[0]", q=Distribution, p=Probabilities, a=Role("scores"))
    assert [(i.name, i.role.kind, i.role.domain) for i in found.inputs] == [
        ("s", "scores", "real"), ("p", "scores", "unit"), ("a", "scores", "real"),
        ("y", "label", "real"), ("t", "targets", "real"), ("q", "targets", "simplex"),
    ]  # fmt: skip


def test_names_with_roles_can_be_taken_by_others() -> None:
    found = read("sum(s**2) * t", t=0.5)
    assert [h.name for h in found.hypers] == ["t"]
    found = read("sum(t**2)", t=Scores)
    assert found.inputs[0].role.kind == "scores"


def test_functions_and_values_may_share_a_name() -> None:
    found = read("power(s, power) + norm", power=1.5, norm=2.0)
    assert found.expr is trace(lambda s, *, power=1.5, norm=2.0: s**power + norm).expr


def test_definitions_are_kept_in_order() -> None:
    found = read("z = s / 2; p = softmax(z); l = log(p[y]); -l")
    assert [d.name for d in found.definitions] == ["z", "p", "l"]


def test_names_are_read_as_python_reads_them() -> None:
    assert read("ﬁt * s", ﬁt=2.0).hypers[0].name == "fit"


def test_reader_never_evaluates(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reader_module, source_module):
        text = Path(module.__file__ or "").read_text(encoding="utf-8")
        assert not re.search(r"(?<!re\.)\b(eval|exec|compile|__import__)\(", text)

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("text reached Python")

    read("s + 1")  # everything is imported now
    monkeypatch.setattr(builtins, "eval", refuse)
    monkeypatch.setattr(builtins, "exec", refuse)
    assert read("-log(softmax(s)[y])").kind == "row"


# ------------------------------------------------------------------ what is refused, word for word

REFUSED: list[tuple[str, dict[str, Any]]] = [
    # nothing, or no text of a formula
    ("", {}), ("  # only a comment", {}), ("s + \x00", {}), ("\ud800", {}), ("s" * 10_001, {}),
    # characters
    ("s ^ 2", {}), (r"\log(s)", {}), ("{s}", {}), ("x = '1'; s", {}), ("s² + t", {}),
    ("s ≤ t", {}), ("s « t", {}),
    # brackets and syntax
    ("log(softmax(s)[y]", {}), ("log(s))", {}), ("log(s]", {}), ("lambda * s", {}),
    ("p = softmax(s)\n-log(p[y) + 1]", {}), ("if s: t", {}), ("s +* t", {}),
    ("2s", {}), ("1if s else t", {}),
    # names
    ("-log(sofmax(s)[y])", {}), ("ln(s)", {}), ("σ(s)", {}), ("foo(s)", {}), ("s.sum()", {}),
    ("(1 - softmax(s)[y])**gama", {"gamma": 2.0}), ("g * s", {}), ("S[y]", {}), ("np.soft * s", {}),
    ("softmax[y] + s", {}), ("s(y)", {}), ("(s + t)(2)", {}), ("classes = s; s", {}),
    ("s = s / 2; s", {}), ("p = s; p = t; p", {}), ("p, q = s, t; p", {}), ("q = s; s", {}),
    ("s * w", {"w": 2.0, "v": 1.0}), ("s + K", {"K": 3}), ("s * w", {"w": "big"}),
    ("s * w", {"w": [[1.0]]}), ("s * w", {"w": True}),
    ("s * a", {"a": Role("scores"), "b": Scores}),
    # lines
    ("p = softmax(s)", {}), ("s\n-t", {}), ("import os", {}), ("return s", {}), ("s += 1; s", {}),
    # what Python has and formulas have not
    ("s if y else t", {}), ("s and t", {}), ("not s", {}), ("[x for x in s]", {}), ("[s, t]", {}),
    ("None", {}), ("True", {}), ("1j * s", {}), ("s % 2", {}), ("s // 2", {}), ("s << 2", {}),
    ("-1 < s < 1", {}), ("s in t", {}), ("(lambda: s)()", {}), ("sum(*s)", {}), ("sum(**s)", {}),
    ("(p := s)", {}),
    # arguments
    ("max(0, s)", {}), ("sum(s, 0)", {}), ("softmax()", {}), ("log(s, t)", {}), ("clip()", {}),
    ("sum(s, whre=s > 0)", {}), ("log(s, axis=0)", {}), ("sum(s, axis=y)", {}),
    ("sum(s, axis=3)", {}),
    ("sum(s, keepdims=1)", {}), ("sum(s, where=t)", {}), ("sum(s, where=s[:, None] > 0)", {}),
    ("where(s, 1, 2)", {}), ("s > 0 | t > 0", {}), ("(s > 0) & t", {}), ("sum(s[y])", {}),
    ("max(s[y])", {}), ("onehot(s)", {}), ("s @ 2", {}),
    # indices and shapes
    ("s[1:]", {}), ("s[-1]", {}), ("s[t]", {}), ("s[1.5]", {}), ("s[y][y]", {}), ("s[y, y]", {}),
    ("s[s > 0]", {}), ("s[:, None] - s", {}), ("sum(s, keepdims=True)", {}),
    ("s[None, None, None]", {}),
    ("s[5000000000]", {}), ("w * s", {"w": [1, 2]}), ("gamma[y] * s", {"gamma": 2.0}),
    # no loss
    ("t + 1", {}), ("t + y*0 + s*0", {}), ("3", {}),
    # numbers and size
    ("s / 0", {}), ("1" * 400 + " * s", {}), ("1e999 * s", {}), ("2**1000 * 2**1000 * s", {}),
    ("s**9**9", {}), ("9**9**9 * s", {}), ("inf - inf + s", {}),
    ("(" * 250 + "s" + ")" * 250, {}), ("-" * 150 + "s", {}), ("s" + " + s" * 150, {}),
    ("-" * 9_000 + "s", {}), ("(" * 4_000 + "s" + ")" * 4_000, {}),
    ("\n".join(["a0 = s", *(f"a{i + 1} = exp(a{i})" for i in range(110)), "a110"]), {}),
    ("\n".join(["a0 = s", *(f"a{i + 1} = exp(a{i}) * a{i}" for i in range(20)), "a20"]), {}),
    ("softmax(softmax(softmax(softmax(softmax(softmax(s))))))", {}),
    # places
    ("    p = softmax(s)\n    -log(p[y]) + gama", {}), ("γ − δ + gama * s", {"γ": 1.0, "δ": 2.0}),
    ("(s +\n   gama)", {}), ("s + " + "t + " * 30 + "gama", {}), ("(s) # + t\n", {"w": 1.0}),
]  # fmt: skip


def test_every_refusal_word_for_word(golden: Callable[[str, str], None]) -> None:
    shown: list[str] = []
    for text, keywords in REFUSED:
        with pytest.raises(FormulaError) as caught:
            read(text, **keywords)
        message = str(caught.value)
        assert message.isprintable() or "\n" in message
        title = ascii(text if len(text) < 80 else f"{text[:60]} … {len(text)} characters")
        given_ = "".join(f", {n}={v!r}" for n, v in keywords.items())
        shown.append(f"read({title}{given_})\n{_without_null(message)}\n")
    golden("language/refused_formulas.txt", "\n".join(shown))


def _without_null(message: str) -> str:
    return message.replace("\x00", "\\0")


def test_caret_stands_below_the_place() -> None:
    with pytest.raises(FormulaError) as caught:
        read("p = softmax(s)\n   γ * log(p[y]) − gama", γ=1.0)
    error = caught.value
    assert (error.line, error.column) == (2, 20)
    _, line, caret, *_ = str(error).splitlines()
    assert line[caret.index("^") :] == "gama"


def test_numbers_are_read_in_every_notation() -> None:
    found = read("s*1e-3 + .5*t1 + 1.*s + 1_000 + 2.5E+2*t1_2", t1=2.0, t1_2=1.0)
    assert found.expr is read("t1_2*250 + s/1*0.001 + t1*0.5 + s + 1000", t1=2, t1_2=1).expr


# ------------------------------------------------------------------ nothing but FormulaError

SYMBOLS = ". , ( ) [ ] : ; = + - * ** / // % @ & | ~ < > <= >= == != ... ^ ' \\ # − 0 1 2 3.5 1e9"
WORDS = "s t y K classes w g pi inf None True p q np γ 9**9 if else and not lambda for in"
OPTIONS = "where= axis= keepdims= initial="
CALLS = "sum( max( min( mean( exp( log( softmax( where( logsumexp( onehot( maximum( argmax( clip("
SPACES = ["\n", " ", "\t", "\x00", "\u2028"]
TOKENS = [*SYMBOLS.split(), *WORDS.split(), *OPTIONS.split(), *CALLS.split(), *SPACES]
KEYWORDS: dict[str, Any] = {"w": [1.0, 2.0], "g": 0.5}
VALID = [text for _, text, keywords in PAIRS if not keywords]


def only_formula_errors(text: str, **keywords: Any) -> None:
    gc.disable()  # it would look at all that other tests have left in memory
    try:
        start = time.thread_time()  # what others do on the machine does not matter
        with contextlib.suppress(FormulaError):
            read(text, **keywords)
        assert time.thread_time() - start < 1
    finally:
        gc.enable()


@given(st.lists(st.sampled_from(TOKENS), max_size=40))
@settings(max_examples=300)
def test_soup_of_tokens(tokens: list[str]) -> None:
    text = "".join(tokens)
    only_formula_errors(text)
    used = {n: v for n, v in KEYWORDS.items() if re.search(rf"\b{n}\b", text)}
    only_formula_errors(text, **used)


@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    only_formula_errors(text)


@given(st.data())
@settings(max_examples=300)
def test_mutated_formulas(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(VALID))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 6)))
        text = text[:start] + data.draw(st.sampled_from([*TOKENS, ""])) + text[end:]
    only_formula_errors(text)


NUMBERS = st.sampled_from(["s", "t", "s[y]", "2", "0.5", "classes", "y", "K", "(s > t)", "onehot(y)", "0"])


def _wider(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = ["+", "-", "*", "/", "**", ">", "==", "&", "@"]
    unary = [
        "exp",
        "log",
        "sum",
        "max",
        "softmax",
        "logsumexp",
        "abs",
        "mean",
        "argmax",
        "sqrt",
        "norm",
    ]
    return st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(binary), inner),
        st.builds("{}({})".format, st.sampled_from(unary), inner),
        st.builds("sum({}, where={} > {})".format, inner, inner, inner),
        st.builds("where({} > {}, {}, {})".format, inner, inner, inner, inner),
        st.builds("({})[{}]".format, inner, inner),
        st.builds("({})[:, None]".format, inner),
        st.builds("sum({}, axis=1)".format, inner),
    )


@given(st.recursive(NUMBERS, _wider, max_leaves=12))
@settings(max_examples=300)
def test_well_formed_expressions(text: str) -> None:
    only_formula_errors(text)


@pytest.mark.parametrize(
    "step",
    [
        "x{n} = sum(exp(s[:, None]*s + x{m}[:, None]*s + x{m}), axis=1)",
        "x{n} = softmax(x{m}*s + x{m}[y])",
        "x{n} = exp(x{m}) * (x{m} + 1)",
        "x{n} = (x{m} + 1)**2",
        "x{n} = (x{m} * x{m} * 3)**7",
        "x{n} = x{m}/{n} + 1/{n}*exp(x{m})",
        "x{n} = max(x{m}[:, None] - x{m}, axis=1)",
        "x{n} = s[argmax(x{m} - s)] * x{m}",
    ],
)
def test_growing_definitions_are_stopped_in_time(step: str) -> None:
    for count in (4, 8, 60):
        lines = [step.format(n=n, m=n - 1) for n in range(1, count)]
        only_formula_errors("\n".join(["x0 = s", *lines, f"sum(x{count - 1})"]))


def test_planted_mistakes_in_formulas_change_the_expression() -> None:
    """A slip that is itself a formula gives another expression: nothing is silently repaired."""
    right = read("-log(softmax(s)[y])").expr
    wrong = [
        "log(softmax(s)[y])", "-softmax(s)[y]", "-log(softmax(s)[0])", "-log(sigmoid(s)[y])",
        "-log(softmax(t)[y]) + s[y]", "-2*log(softmax(s)[y])", "-log(softmax(-s)[y])",
    ]  # fmt: skip
    assert all(read(text).expr is not right for text in wrong)
