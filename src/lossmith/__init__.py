"""Write the loss. Get the gradient: derived, exact, fast, everywhere.

>>> import lossmith as lm
>>> ce = lm.loss("logsumexp(s) - s[y]")
>>> value, grad = ce.value_and_grad([[2.0, 0.0, 1.0]], [0])
>>> round(value, 6)
0.407606
"""

from lossmith import functions, losses
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
    Scores,
    SignTargets,
    Targets,
    UnitTargets,
)
from lossmith.loss import Loss, loss
from lossmith.losses import *  # noqa: F403  the catalogue: lossmith.cross_entropy and the others
from lossmith.losses import CATALOGUE

__version__ = "0.1.0"

__all__ = [
    *CATALOGUE,
    "DataError",
    "Distribution",
    "DomainError",
    "FormulaError",
    "Label",
    "LabelError",
    "Loss",
    "LossmithError",
    "Probabilities",
    "Scores",
    "ShapeError",
    "SignTargets",
    "Targets",
    "UnitTargets",
    "UnsupportedError",
    "VectorFunction",
    "classes",
    "function",
    "functions",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "loss",
    "losses",
    "onehot",
    "relu",
    "sigmoid",
    "softmax",
    "softplus",
    "tanh",
]
