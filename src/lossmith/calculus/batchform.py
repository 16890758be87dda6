"""From one sample to a batch and to a linear model: the N×K matrix form, the 1/N, and X, W, b.

These lines speak of samples and features, which the expressions of one sample do not have; the entries of matrices
are Vars with two indices, and the sums over samples are spelled here.
"""

from __future__ import annotations

from dataclasses import dataclass

from lossmith.calculus.derivation import Section
from lossmith.language.abbreviate import abbreviate
from lossmith.language.build import const, mul, power, rebuild, substitute
from lossmith.language.expr import (
    Delta,
    Entry,
    Expr,
    Hyper,
    Index,
    Label,
    Node,
    Var,
    named,
    walk,
)
from lossmith.language.formula import Definition, Formula
from lossmith.language.latex import to_latex
from lossmith.language.mathml import operator, to_mathml
from lossmith.language.text import to_text

SAMPLE, J = named("i"), named("j")
_MATHML_N = "<mfrac><mn>1</mn><mi>N</mi></mfrac>"


@dataclass(frozen=True)
class RawLine:
    """A line in the three notations."""

    text: str
    latex: str
    mathml: str


def batch_lines(formula: Formula, gradient: Section, names: tuple[Definition, ...]) -> tuple[RawLine, ...]:
    """Return the mean over a batch and its gradient, entry by entry and, where it has one, as a matrix."""
    scores = formula.of_role("scores")[0].name.upper()
    args = ", ".join(_row_of(i.name, i.role.kind == "label") for i in formula.inputs)
    latex_args = args.replace("_i", "_{i}")
    first = RawLine(
        f"J = (1/N) Σ_i L({args})",
        rf"J &= \frac{{1}}{{N}} \sum_{{i=1}}^{{N}} L({latex_args})",
        f"<mi>J</mi>{operator('=')}{_MATHML_N}{_sum_over('i')}<mi>L</mi><mo>(</mo>{_mathml_args(formula)}<mo>)</mo>",
    )
    per_entry = mul(power(Var("N", ()), const(-1)), in_batch(gradient.lines[-1].expr, formula, names))
    lines = [first, _equation(f"∂J/∂{scores}_ij", scores, ("i", "j"), per_entry)]
    matrix = matrix_form(gradient.lines[-1].expr, formula, names)
    if matrix is not None:
        scaled = mul(power(Var("N", ()), const(-1)), matrix)
        lines.append(_equation(f"∂J/∂{scores}", scores, (), scaled, _legend(matrix, formula)))
    return tuple(lines)


def _row_of(name: str, is_label: bool) -> str:
    return f"{name if is_label else name.upper()}_i"


def _mathml_args(formula: Formula) -> str:
    shown = [_msub(i.name if i.role.kind == "label" else i.name.upper(), "i") for i in formula.inputs]
    return "<mo>,</mo>".join(shown)


def _msub(name: str, indices: str) -> str:
    inside = "".join(f"<mi>{c}</mi>" for c in indices)
    return f"<msub><mi>{name}</mi><mrow>{inside}</mrow></msub>"


def _sum_over(index: str) -> str:
    return f"<munder><mo>∑</mo><mi>{index}</mi></munder>"


def in_batch(expr: Expr, formula: Formula, names: tuple[Definition, ...]) -> Expr:
    """Return the gradient of one sample with the sample's number i on everything that belongs to it."""
    expr = abbreviate(expr, names)
    labels = {Label(i.name): Label(f"{i.name}_i") for i in formula.of_role("label")}
    named_rows = {d.name for d in names if d.index is not None}
    scalars = {d.name for d in names if d.index is None}

    def visit(n: Node) -> Node:
        match n:
            case Label():
                return labels.get(n, n)
            case Entry(name, index):
                return Var(name.upper(), (SAMPLE,) if index is None else (SAMPLE, _visited(index)))
            case Var(name, indices) if name in named_rows:
                return Var(name.upper(), (SAMPLE, *(_visited(k) for k in indices)))
            case Var(name, ()) if name in scalars:
                return Var(name, (SAMPLE,))
            case _:
                return rebuild(n, visit)

    def _visited(index: Index) -> Index:
        result = visit(index)
        assert isinstance(result, Index)
        return result

    result = visit(expr)
    assert isinstance(result, Expr)
    if formula.kind == "elementwise":
        rows = [i.name.upper() for i in formula.inputs]
        result = substitute(result, {Var(name, (SAMPLE,)): Var(name, (SAMPLE, J)) for name in rows})
    return result


def matrix_form(expr: Expr, formula: Formula, names: tuple[Definition, ...]) -> Expr | None:
    """Return the gradient as a sum of matrices, P − Y, where every part of it is an entry at j."""
    expr = abbreviate(expr, names)
    allowed: dict[Node, Node] = {}
    for n in walk(expr):
        if isinstance(n, Var) and n.indices == (J,):
            allowed[n] = Var(n.name.upper(), ())
        elif isinstance(n, Delta) and n.i is J and isinstance(n.j, Label):
            allowed[n] = Var("Y", ())
        elif isinstance(n, Entry) and n.index in (J, None):
            allowed[n] = Var(n.name.upper(), ())
    result = substitute(expr, allowed)
    rest = [n for n in walk(result) if not isinstance(n, Hyper) and n.free]
    linear = all(_is_linear(t) for t in (result.terms if hasattr(result, "terms") else (result,)))  # type: ignore[attr-defined]
    return result if not rest and linear and allowed else None


def _is_linear(term: Expr) -> bool:
    matrices = [n for n in walk(term) if isinstance(n, Var)]
    others = [n for n in walk(term) if not isinstance(n, Var) and isinstance(n, Entry)]
    flat = all(type(n).__name__ in ("Var", "Const", "Mul", "Hyper") for n in walk(term))
    return len(matrices) <= 1 and not others and flat


def _legend(matrix: Expr, formula: Formula) -> str:
    if any(isinstance(n, Var) and n.name == "Y" for n in walk(matrix)):
        label = formula.of_role("label")[0].name
        return f"Y the one-hot rows of {label}"
    return ""


def _equation(lhs: str, matrix: str, indices: tuple[str, ...], rhs: Expr, remark: str = "") -> RawLine:
    denominator = _msub(matrix, "".join(indices)) if indices else f"<mi>{matrix}</mi>"
    latex_below = f"{matrix}_{{{''.join(indices)}}}" if indices else matrix
    note = f"    ({remark})" if remark else ""
    return RawLine(
        f"{lhs} = {to_text(rhs)}{note}",
        rf"\frac{{\partial J}}{{\partial {latex_below}}} &= {to_latex(rhs)}"
        + (rf" \quad\text{{({remark})}}" if remark else ""),
        f"<mfrac><mrow><mi>∂</mi><mi>J</mi></mrow><mrow><mi>∂</mi>{denominator}</mrow></mfrac>{operator('=')}"
        + to_mathml(rhs, display=True)
        + (f"<mspace width='2em'/><mtext>({remark})</mtext>" if remark else ""),
    )


def linear_lines(formula: Formula) -> tuple[RawLine, ...]:
    """Return the gradients of J + (α/2)‖W‖² with respect to W, b and X, by the chain rule through S = X W + b."""
    g = formula.of_role("scores")[0].name.upper()
    by = _partial_mathml
    return (
        RawLine(
            f"G = ∂J/∂{g},   R = J + (α/2) Σ_dj W_dj²",
            rf"G &= \frac{{\partial J}}{{\partial {g}}}, \qquad R = J + \frac{{\alpha}}{{2}} \sum_{{d,j}} W_{{dj}}^2",
            f"<mi>G</mi>{operator('=')}{by('J', f'<mi>{g}</mi>')}<mo>,</mo><mspace width='1.5em'/><mi>R</mi>"
            f"{operator('=')}<mi>J</mi>{operator('+')}<mfrac><mi>α</mi><mn>2</mn></mfrac>"
            "<munder><mo>∑</mo><mrow><mi>d</mi><mo>,</mo><mi>j</mi></mrow></munder>"
            "<msubsup><mi>W</mi><mrow><mi>d</mi><mi>j</mi></mrow><mn>2</mn></msubsup>",
        ),
        RawLine(
            f"∂R/∂W_dj = Σ_i G_ij ∂{g}_ij/∂W_dj + α W_dj = Σ_i X_id G_ij + α W_dj,   ∂R/∂W = Xᵀ G + α W",
            rf"\frac{{\partial R}}{{\partial W_{{dj}}}} &= \sum_i G_{{ij}} \frac{{\partial {g}_{{ij}}}}"
            rf"{{\partial W_{{dj}}}} + \alpha W_{{dj}} = \sum_i X_{{id}} G_{{ij}} + \alpha W_{{dj}}, \qquad "
            r"\frac{\partial R}{\partial W} = X^\top G + \alpha W",
            f"{by('R', _msub('W', 'dj'))}{operator('=')}{_sum_over('i')}{_msub('G', 'ij')}"
            f"<mfrac><mrow><mi>∂</mi>{_msub(g, 'ij')}</mrow><mrow><mi>∂</mi>{_msub('W', 'dj')}</mrow></mfrac>"
            f"{operator('+')}<mi>α</mi>{_msub('W', 'dj')}{operator('=')}{_sum_over('i')}{_msub('X', 'id')}"
            f"{_msub('G', 'ij')}{operator('+')}<mi>α</mi>{_msub('W', 'dj')}<mo>,</mo><mspace width='1.5em'/>"
            f"{by('R', '<mi>W</mi>')}{operator('=')}<msup><mi>X</mi><mo>⊤</mo></msup><mi>G</mi>{operator('+')}"
            "<mi>α</mi><mi>W</mi>",
        ),
        RawLine(
            f"∂R/∂b_j = Σ_i G_ij ∂{g}_ij/∂b_j = Σ_i G_ij,   ∂R/∂b = Gᵀ 1",
            rf"\frac{{\partial R}}{{\partial b_j}} &= \sum_i G_{{ij}} \frac{{\partial {g}_{{ij}}}}{{\partial b_j}} "
            r"= \sum_i G_{ij}, \qquad \frac{\partial R}{\partial b} = G^\top \mathbf{1}",
            f"{by('R', _msub('b', 'j'))}{operator('=')}{_sum_over('i')}{_msub('G', 'ij')}<mo>,</mo>"
            f"<mspace width='1.5em'/>{by('R', '<mi>b</mi>')}{operator('=')}<msup><mi>G</mi><mo>⊤</mo></msup><mn>1</mn>",
        ),
        RawLine(
            f"∂R/∂X_id = Σ_j G_ij ∂{g}_ij/∂X_id = Σ_j G_ij W_dj,   ∂R/∂X = G Wᵀ",
            rf"\frac{{\partial R}}{{\partial X_{{id}}}} &= \sum_j G_{{ij}} \frac{{\partial {g}_{{ij}}}}"
            r"{\partial X_{id}} = \sum_j G_{ij} W_{dj}, \qquad \frac{\partial R}{\partial X} = G W^\top",
            f"{by('R', _msub('X', 'id'))}{operator('=')}{_sum_over('j')}{_msub('G', 'ij')}{_msub('W', 'dj')}<mo>,</mo>"
            f"<mspace width='1.5em'/>{by('R', '<mi>X</mi>')}{operator('=')}<mi>G</mi><msup><mi>W</mi><mo>⊤</mo></msup>",
        ),
    )


def _partial_mathml(above: str, below: str) -> str:
    return f"<mfrac><mrow><mi>∂</mi><mi>{above}</mi></mrow><mrow><mi>∂</mi>{below}</mrow></mfrac>"
