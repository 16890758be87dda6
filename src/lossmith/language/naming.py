"""The names that are printed: Greek letters, and indices that do not clash."""

from __future__ import annotations

from collections.abc import Sequence

from lossmith.language.build import substitute
from lossmith.language.expr import (
    Derivative,
    Entry,
    Expr,
    Free,
    Hyper,
    Label,
    Node,
    Size,
    Var,
    walk,
)
from lossmith.language.layout import Symbol

GLYPHS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eps": "ε", "zeta": "ζ",
    "eta": "η", "theta": "θ", "kappa": "κ", "lambda_": "λ", "lam": "λ", "mu": "μ", "nu": "ν",
    "xi": "ξ", "rho": "ρ", "tau": "τ", "phi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω",
    "Gamma": "Γ", "Delta": "Δ", "Theta": "Θ", "Lambda": "Λ", "Phi": "Φ", "Psi": "Ψ", "Omega": "Ω",
    "margin": "Δ", "label_smoothing": "ε", "class_weight": "w",
}  # fmt: skip
"""How names print. `sigma` is not here: σ is the sigmoid."""

BOUND_NAMES = ("m", "k", "n", "l", "q", "r", "i", "j", "u", "v")


def names_in(expr: Expr) -> set[str]:
    """Return every name that is printed in `expr`, those of free indices included."""
    found: set[str] = set()
    for node in walk(expr):
        match node:
            case Hyper(name) | Entry(name) | Var(name) | Label(name) | Derivative(_, name):
                found.add(name)
            case Free(name, 0):
                found.add(name)
            case Size():
                found.add("K")
            case _:
                pass
    return found


def symbols_of(expr: Expr) -> dict[str, Symbol]:
    """Return the symbol of each name; a name whose glyph another one has is spelled out."""
    symbols: dict[str, Symbol] = {}
    taken: set[str] = set()
    for name in sorted(names_in(expr), key=lambda n: (n in GLYPHS, n)):
        text = GLYPHS.get(name, name)
        symbols[name] = Symbol(name if text in taken else text)
        taken.add(symbols[name].text)
    return symbols


def name_fresh_indices(expr: Expr) -> Expr:
    """Give the indices that a traversal opened names of their own."""
    taken = names_in(expr)
    renamed: dict[Node, Node] = {}
    for index in sorted((i for i in expr.free if isinstance(i, Free) and i.uid), key=lambda i: (i.name, i.uid)):
        name = unused((index.name, *BOUND_NAMES), taken)
        taken.add(name)
        renamed[index] = Free(name, 0)
    return substitute(expr, renamed) if renamed else expr


def unused(candidates: Sequence[str], taken: set[str] | frozenset[str]) -> str:
    for name in candidates:
        if name not in taken:
            return name
    n = 1
    while f"{candidates[0]}{n}" in taken:
        n += 1
    return f"{candidates[0]}{n}"
