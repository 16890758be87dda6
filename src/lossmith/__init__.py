"""Write the loss. Get the gradient: derived, exact, fast, everywhere.

>>> import lossmith as lm
>>> ce = lm.loss("logsumexp(s) - s[y]")
>>> value, grad = ce.value_and_grad([[2.0, 0.0, 1.0]], [0])
>>> round(value, 6)
0.407606
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lossmith import functions
from lossmith.errors import (
    DataError,
    DomainError,
    FormulaError,
    LabelError,
    LossmithError,
    ShapeError,
    UnsupportedError,
)
from lossmith.functions import (
    VectorFunction,
    classes,
    function,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    logsumexp,
    onehot,
    relu,
    sigmoid,
    softmax,
    softplus,
    tanh,
)
from lossmith.language.formula import (
    Distribution,
    Label,
    Probabilities,
    Role,
    Scores,
    SignTargets,
    Targets,
    UnitTargets,
)
from lossmith.loss import Loss, loss

if TYPE_CHECKING:
    from lossmith import check, data, linear, losses, report
    from lossmith.losses.binary import *  # noqa: F403
    from lossmith.losses.classes import *  # noqa: F403
    from lossmith.losses.distributions import *  # noqa: F403
    from lossmith.losses.regression import *  # noqa: F403

__version__ = "0.1.0"

_LATER = ("check", "data", "linear", "losses", "report")
"""Modules that load when they are first asked for."""


def __getattr__(name: str) -> Any:
    """Load the catalogue, or one of the larger modules, at first use."""
    if name in _LATER:
        return import_module(f"lossmith.{name}")
    if not name.startswith("_"):
        catalogue = import_module("lossmith.losses").CATALOGUE
        if name in catalogue:
            globals()[name] = catalogue[name]
            return catalogue[name]
    raise AttributeError(f"module 'lossmith' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, *import_module("lossmith.losses").CATALOGUE})


__all__ = [
    "DataError",
    "Distribution",
    "DomainError",
    "FormulaError",
    "Label",
    "LabelError",
    "Loss",
    "LossmithError",
    "Probabilities",
    "Role",
    "Scores",
    "ShapeError",
    "SignTargets",
    "Targets",
    "UnitTargets",
    "UnsupportedError",
    "VectorFunction",
    "check",
    "classes",
    "data",
    "function",
    "functions",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "loss",
    "losses",
    "onehot",
    "relu",
    "report",
    "sigmoid",
    "softmax",
    "softplus",
    "tanh",
]
