"""What a loss function says of itself: its expression and the roles of its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np

from lossmith.language.expr import Expr, Free

Domain: TypeAlias = Literal["real", "unit", "simplex", "sign", "nonnegative", "positive", "above -1"]
Kind: TypeAlias = Literal["row", "elementwise", "vector"]

DIRECTION = "v"
"""The name of the row that a Hessian-vector product multiplies."""


@dataclass(frozen=True)
class Role:
    """What an argument of a loss is: differentiable scores, the label, or targets; and where its values lie.

    Domains: "real"; "unit" is [0, 1]; "simplex" is a distribution over the classes; "sign" is {−1, +1};
    "nonnegative" is [0, ∞); "positive" is (0, ∞); "above -1" is (−1, ∞), what log(1 + s) is for.
    """

    kind: Literal["scores", "label", "targets"]
    domain: Domain = "real"


Scores: TypeAlias = Annotated[Any, Role("scores")]
Probabilities: TypeAlias = Annotated[Any, Role("scores", "unit")]
Label: TypeAlias = Annotated[Any, Role("label")]
Targets: TypeAlias = Annotated[Any, Role("targets")]
Distribution: TypeAlias = Annotated[Any, Role("targets", "simplex")]
UnitTargets: TypeAlias = Annotated[Any, Role("targets", "unit")]
SignTargets: TypeAlias = Annotated[Any, Role("targets", "sign")]

ROLES_BY_NAME: Mapping[str, Role] = {"s": Role("scores"), "y": Role("label"), "t": Role("targets")}
"""The names that carry a role by themselves."""


@dataclass(frozen=True)
class Input:
    """An argument that holds one row (or one element) of data."""

    name: str
    role: Role


@dataclass(frozen=True)
class Hyperparameter:
    """A keyword-only argument: a number (ndim 0) or one number per class (ndim 1)."""

    name: str
    default: float | np.ndarray | None
    ndim: int = 0
    positive: bool = False
    """Whether its values are known to be above 0, so that a maximum may be taken before scaling by it."""


@dataclass(frozen=True)
class Definition:
    """A named sub-expression: p_k = softmax(s)_k, or a number (index None)."""

    name: str
    index: Free | None
    expr: Expr


@dataclass(frozen=True)
class Formula:
    """A loss or vector function as it was read.

    A row loss's `expr` is a number. An elementwise one's inputs are `Entry(name, None)`. A vector function's `expr`
    is its component at the free index `output`.
    """

    name: str
    kind: Kind
    expr: Expr
    inputs: tuple[Input, ...]
    hypers: tuple[Hyperparameter, ...] = ()
    definitions: tuple[Definition, ...] = ()
    output: Free | None = None
    text: str | None = None
    doc: str = ""
    function: Any = field(default=None, compare=False)
    expectation_of: Formula | None = None
    """For an expected loss over a distribution of the label: the loss with the label."""

    def of_role(self, kind: str) -> tuple[Input, ...]:
        """Return the inputs with a role, in the order of the arguments."""
        return tuple(i for i in self.inputs if i.role.kind == kind)
