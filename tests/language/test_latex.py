"""LaTeX: balanced, escaped, and accepted by a program that sets it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from language import samples
from language.expressions import expressions
from lossmith.language import build as b
from lossmith.language import expr as x
from lossmith.language.latex import to_latex


@pytest.mark.parametrize(
    ("name", "latex"),
    [
        ("its gradient", r"p_j - \mathbf{1}\{j=y\}"),
        ("its Hessian", r"p_j \, \mathbf{1}\{j=k\} - p_j \, p_k"),
        ("focal", r"-(1 - p_y)^{\gamma} \log p_y"),
        ("half the squares", r"\frac{1}{2} \sum_m (s_m - t_m)^2"),
        ("tau inside", r"\operatorname{softmax}\left( \frac{s}{\tau} \right)_j"),
        ("hinge", r"\sum_{k \neq y} \max(0, s_k - s_y + \Delta)"),
        ("upright", r"\mathrm{log\_scale} \, s_j"),
        ("numbers", r"1 \times 10^{-7} \cdot s_j + \infty"),
        ("∂²", r"\frac{\partial^2 L}{\partial s_j \, \partial s_k}"),
        ("∂ of more", r"\frac{\partial}{\partial s_j} [s_j - s_y]"),
        ("chain rule, held", r"-\frac{1}{p_y} \cdot p_y (\mathbf{1}\{j=y\} - p_j)"),
        (
            "huber",
            r"\begin{cases} \frac{(s - t)^2}{2} & \text{if } \lvert s - t \rvert \leq \delta \\ "
            r"\delta \left( \lvert s - t \rvert - \frac{\delta}{2} \right) & \text{otherwise} "
            r"\end{cases}",
        ),
    ],
)
def test_samples(name: str, latex: str) -> None:
    assert to_latex(samples.SAMPLES[name][0], samples.P) == latex


def test_several_indices_share_one_subscript() -> None:
    hessian = x.Var("H", (samples.J, samples.K))
    assert to_latex(hessian) == "H_{jk}"
    assert to_latex(x.Var("H", (samples.J, x.Fixed(12)))) == "H_{j, 12}"


def test_cases_inside_a_product_are_fenced() -> None:
    case = b.where(b.delta(samples.J, samples.Y), samples.s(samples.J), x.ZERO)
    assert to_latex(b.mul(samples.TAU, case)).startswith(r"\tau \left( \begin{cases}")


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(expressions())
def test_braces_balance(expr: x.Expr) -> None:
    latex = to_latex(expr)
    depth = 0
    bare = latex.replace(r"\{", "").replace(r"\}", "")
    for c in bare:
        depth += (c == "{") - (c == "}")
        assert depth >= 0
    assert depth == 0
    assert latex.count(r"\left") == latex.count(r"\right")
    assert latex.count(r"\begin") == latex.count(r"\end")
    assert latex.isascii()


@pytest.mark.parametrize("name", [n for n in samples.SAMPLES if n != "huber"])
def test_matplotlib_sets_it(name: str) -> None:
    mathtext = pytest.importorskip("matplotlib.mathtext")
    latex = to_latex(samples.SAMPLES[name][0], samples.P)
    latex = latex.replace(r"\operatorname*{arg\,max}", r"\operatorname{argmax}")
    latex = latex.replace(r"\lvert", "|").replace(r"\rvert", "|")
    mathtext.MathTextParser("path").parse(f"${latex}$")
