"""From a formula to kernels: the passes, in their order.

read        trace.py, reader.py       a function or a text becomes a Formula
specialise  `specialised`             options that are known constants are folded in
name        logforms.py               for kernels: what may leave the range of floats, before it is differentiated
derive      differentiate.py          gradient and Hessian, by rules
split       cases.py                  one form for most classes, one for each class with an indicator of its own
stabilise   stabilize.py              each of those forms on its own
lower       lower.py                  expressions become loops over the classes of one row
emit        emit_numpy.py, emit_numba.py, and runtime.py, which runs the result over a batch
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from lossmith.calculus.cases import split_cases
from lossmith.calculus.centred import centred
from lossmith.calculus.differentiate import Trail, differentiate
from lossmith.calculus.hessian import LowRank, separate
from lossmith.calculus.logforms import in_logarithms
from lossmith.calculus.magnitudes import with_extrema
from lossmith.calculus.simplify import all_but_differences, contract, distribute, everything, simplify
from lossmith.calculus.stabilize import stabilize
from lossmith.kernels.lower import weight_is_zero, weight_of_row
from lossmith.kernels.rowprogram import Output
from lossmith.language.budget import within_budget
from lossmith.language.build import add, as_factors, as_terms, const, delta, mul, not_, reduce_, substitute, where
from lossmith.language.expr import (
    ONE,
    ZERO,
    Entry,
    Expr,
    Free,
    Hyper,
    Index,
    Label,
    fresh,
    named,
    walk,
)
from lossmith.language.formula import DIRECTION, Formula, Input, Role

J, K = named("j"), named("k")


@within_budget("deriving it")
def specialised(formula: Formula, constants: Mapping[str, float], positive: frozenset[str] = frozenset()) -> Formula:
    """Return the formula with the hyperparameters in `constants` folded in, and those above 0 marked."""
    mapping = {Hyper(name, ()): const(value) for name, value in constants.items()}
    # Only where something is folded in: contracting opens (p_k − 1{k=y})², whose square at y would not cancel.
    expr = contract(substitute(formula.expr, mapping)) if mapping else formula.expr
    kept = tuple(replace(h, positive=h.name in positive) for h in formula.hypers if h.name not in constants)
    definitions = tuple(replace(d, expr=substitute(d.expr, mapping)) for d in formula.definitions)
    return replace(formula, expr=expr, hypers=kept, definitions=definitions)


@within_budget("deriving it")
def with_soft_label(formula: Formula, class_weight: bool = False) -> Formula:
    """Return the expected loss Σ_i t_i L(s, i) over a distribution of the label, with weights per class."""
    (label,) = formula.of_role("label")
    index = fresh("i")
    weight = (Hyper("class_weight", (index,)),) if class_weight else ()
    inner = substitute(formula.expr, {Label(label.name): index})
    expr = contract(reduce_("sum", index, mul(Entry(label.name, index), *weight, inner)))
    soft = Input(label.name, Role("targets", "nonnegative"))
    inputs = tuple(soft if i is label else i for i in formula.inputs)
    return replace(formula, expr=expr, inputs=inputs, definitions=(), expectation_of=formula)


def expectation(derived: Expr, formula: Formula) -> Expr | None:
    """Return Σ_i t_i E(j, i) for what was derived from a loss with a label, E(j, y).

    E has one form where j is the label and one where it is not; each is stable on its own, and their sum over the
    labels has no cancellation that the terms do not have. None where other indicators are in E.
    """
    hard = formula.expectation_of
    assert hard is not None
    label = Label(hard.of_role("label")[0].name)
    base, patches = split_cases(derived, J)
    if any(at is not label for at, _ in patches):
        return None
    weighted = any(isinstance(n, Hyper) and n.name == "class_weight" for n in walk(formula.expr)) and not any(
        h.name == "class_weight" for h in hard.hypers
    )

    def share(at: Index) -> Expr:
        weight = Hyper("class_weight", (at,)) if weighted else ONE
        return mul(weight, Entry(label.name, at))

    index = fresh("i")
    of_label = [f for f in as_factors(base) if label in f.free]
    if not patches and not any(J in f.free for f in of_label):  # every label has the same, but for a factor
        rest = mul(*(f for f in as_factors(base) if f not in of_label))
        return mul(rest, reduce_("sum", index, mul(share(index), substitute(mul(*of_label), {label: index}))))
    own = substitute(patches[0][1] if patches else base, {label: J})
    other = distribute(substitute(base, {label: index}), lambda f: {J, index} <= f.free)
    terms = as_terms(other)
    not_own = not_(delta(index, J))
    return add(mul(share(J), own), *(reduce_("sum", index, mul(share(index), t), not_own) for t in terms))


def in_range(formula: Formula) -> Formula:
    """Return the formula for kernels: what may leave the range of floats is named before it is differentiated."""
    targets = (i for i in formula.of_role("targets") if i.role.domain in ("unit", "simplex", "positive", "nonnegative"))
    hard = formula.expectation_of
    return replace(
        formula,
        expr=in_logarithms(formula.expr, frozenset(i.name for i in targets)),
        expectation_of=None if hard is None else in_range(hard),
    )


@within_budget("deriving it")
def gradient(formula: Formula, name: str, spell: bool = True) -> Trail:
    """Differentiate the loss by one of its inputs; without `spell`, in a form for kernels instead of readers."""
    return differentiate(formula.expr, name, None if formula.kind == "elementwise" else J, spell)


@within_budget("deriving it")
def second_derivative(formula: Formula, name: str, spell: bool = True) -> Trail:
    """Differentiate the gradient again, by the entry k (or the element itself)."""
    first = gradient(formula, name, spell).result
    return differentiate(first, name, None if formula.kind == "elementwise" else K, spell)


@within_budget("deriving it")
def low_rank_hessian(formula: Formula, name: str) -> LowRank | None:
    """Return the Hessian as a diagonal plus rank-one terms, None where it is a full matrix."""
    return separate(second_derivative(in_range(formula), name, spell=False).result, J, K)


def hessian_diagonal(formula: Formula, name: str, spell: bool = True) -> Expr:
    """Return ∂²L/∂s_j²."""
    result = second_derivative(formula, name, spell).result
    if formula.kind == "elementwise":
        return result
    return simplify(substitute(result, {K: J}), multiply_out=everything if spell else all_but_differences)[0]


def hessian_product(formula: Formula, name: str) -> Expr:
    """Return Σ_k ∂²L/∂s_j∂s_k v_k."""
    result = second_derivative(formula, name, spell=False).result
    if formula.kind == "elementwise":
        return mul(result, Entry(DIRECTION, None))
    return centred(_product(result, J, K, J), formula.expr, name)


def _product(matrix: Expr, row: Free, column: Free, kept: Free) -> Expr:
    """Return a matrix of entries (row, column) times v, summed over the index that is not kept.

    With d_j 1{j=k} + Σ_r u_j w_k that is d_j v_j + Σ_r u_j (Σ_k w_k v_k): no pair of classes is looked at.
    """
    index = fresh()
    v = Entry(DIRECTION, index)
    parts = separate(matrix, row, column)
    if parts is None:
        summed = column if kept is row else row
        return contract(reduce_("sum", index, mul(substitute(matrix, {summed: index}), v)))
    terms = [mul(substitute(parts.diagonal, {row: kept}), Entry(DIRECTION, kept))]
    for u, w in parts.terms:  # u over the row's index, w over the column's; both are written over the row's
        outer, inner = (u, w) if kept is row else (w, u)
        along = contract(reduce_("sum", index, mul(substitute(inner, {row: index}), v)))
        terms.append(mul(substitute(outer, {row: kept}), along))
    return simplify(add(*terms))[0]


@within_budget("deriving it")
def outputs_for(formula: Formula, wanted: tuple[str, ...]) -> tuple[Output, ...]:
    """Return the stabilised outputs of a kernel: any of value, grad, hessian_diag, hvp and low_rank."""
    formula = in_range(formula)
    found: list[Output] = []
    scores = [i.name for i in formula.of_role("scores")]
    for output in wanted:
        if output == "value":
            found.append(Output("value", formula.output, stable(formula.expr, formula)))
        elif output == "low_rank":
            found += [_output(n, e, formula) for n, e in _low_rank_parts(formula, scores[0])]
        else:
            for k, name in enumerate(scores):
                numbered = output if k == 0 else f"{output}_{k + 1}"
                found.append(_output(numbered, _derived(output, formula, name), formula))
    return tuple(found)


DERIVED: Mapping[str, Callable[[Formula, str], Expr]] = {
    "grad": lambda formula, name: gradient(formula, name, spell=False).result,
    "hessian_diag": lambda formula, name: hessian_diagonal(formula, name, spell=False),
    "hvp": hessian_product,
}
"""What can be computed for each differentiable input, and the pass that derives it."""


def _derived(output: str, formula: Formula, name: str) -> Expr:
    if formula.expectation_of is not None and formula.kind == "row":
        found = expectation(DERIVED[output](formula.expectation_of, name), formula)
        if found is not None:
            return found
    return DERIVED[output](formula, name)


def stable(expr: Expr, formula: Formula) -> Expr:
    """Return `expr` in stable form, with what is known of the formula's inputs and hyperparameters."""
    targets = frozenset(i.name for i in formula.of_role("targets"))
    scores = frozenset(i.name for i in formula.of_role("scores"))
    found = stabilize(expr, targets, frozenset(h.name for h in formula.hypers if h.positive), scores)
    weight = weight_of_row(formula.expr)
    return found if weight is None else where(weight_is_zero(weight), ZERO, found)


def _low_rank_parts(formula: Formula, name: str) -> list[tuple[str, Expr]]:
    parts = low_rank_hessian(formula, name)
    assert parts is not None
    named_parts = [("diagonal", parts.diagonal)]
    for r, (u, v) in enumerate(parts.terms):
        named_parts += [(f"u_{r}", u), (f"v_{r}", v)]
    return named_parts


def _output(name: str, expr: Expr, formula: Formula) -> Output:
    if formula.kind == "elementwise":
        return Output(name, None, stable(expr, formula))
    base, patches = split_cases(expr, J)
    done = tuple((with_extrema(at), stable(e, formula)) for at, e in patches)
    return Output(name, J, stable(base, formula), done)


# ------------------------------------------------------------------ vector functions


@within_budget("deriving it")
def function_output(formula: Formula, what: str, called: str = "out") -> Output:
    """Return the output of a vector function's kernel: its value, jvp or vjp, under the name `called`."""
    name, at = formula.of_role("scores")[0].name, formula.output
    if what == "value":
        return Output(called, at, stable(formula.expr, formula))
    if at is None:
        slope = differentiate(formula.expr, name, None).result
        return Output(called, None, stable(mul(slope, Entry(DIRECTION, None)), formula))
    jacobian = differentiate(formula.expr, name, J).result
    kept = at if what == "jvp" else J
    return Output(called, kept, stable(_product(jacobian, at, J, kept), formula))
