"""A loss: one definition for one sample, and all that follows from it.

`loss` makes a Loss from a function or a text. A Loss computes values, gradients and Hessians of whole batches, prints
its derivation and its code, checks itself and draws itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from lossmith.errors import FormulaError, UnsupportedError
from lossmith.language.expr import Call as CallNode
from lossmith.language.expr import Entry, Reduce, Softmax, walk
from lossmith.language.formula import Formula
from lossmith.language.reader import read
from lossmith.language.trace import trace

if TYPE_CHECKING:
    from types import ModuleType

    from matplotlib.figure import Figure

    from lossmith.calculus.prose import Derivation
    from lossmith.check.report import CheckReport
    from lossmith.hessian import DiagonalPlusLowRank

OPTIONS = ("sample_weight", "class_weight", "ignore_index", "reduction", "axis", "precision")


@cache
def _engine() -> ModuleType:
    """Return the module that runs kernels; it loads with the first batch."""
    # Not `from lossmith import evaluation`, which asks the package and loads the catalogue.
    return import_module("lossmith.evaluation")


class Loss:
    """A loss function with its derivatives.

    Make one with `loss`, or take one from `lossmith.losses`. Calling it computes the value::

        loss(scores, target, **hyper, sample_weight=None, class_weight=None, ignore_index=None,
             reduction="mean", axis=-1)

    Parameters of every batch method
    --------------------------------
    scores : array of shape (N, K) for a row loss (classes along `axis`), of any shape for an elementwise loss;
        any float dtype. A single row (K,) is a batch of one sample without the batch axis. With several
        differentiable inputs they come first, in the order of the definition.
    target : for a loss with a label, integers of shape (N,) in [0, K), or a distribution over the classes of the
        scores' shape (the loss is then its expectation); for a loss with targets, an array of the scores' shape.
    **hyper : the hyperparameters of the definition; numbers, or arrays (K,) with one number per class.
    sample_weight : array of shape (N,), each ≥ 0; it multiplies the sample's loss. A row of weight 0 contributes
        nothing and gets gradient 0, whatever it holds.
    class_weight : array of shape (K,); multiplies the weight of the samples with that label.
    ignore_index : a label whose rows are left out.
    reduction : "mean" divides by the sum of the weights, "sum", or "none" for per-sample values.
    axis : where the classes are.
    precision : "fast" computes in the dtype of the scores (half precision in float32); "exact" in a wider one,
        float32 in float64 and float64 in pairs of them, and rounds once: to 1 ulp in float32, 4 in float64.

    Raises
    ------
    ShapeError, LabelError, DomainError
        For arrays that do not fit; the message names the row. Nothing has been computed then.

    Notes
    -----
    Results have the dtype of the scores; values are summed in float64. Inputs are never written to. If no sample is
    left (empty batch, everything ignored), mean and sum are 0.0.
    """

    def __init__(
        self,
        reader: Callable[[Mapping[str, int]], Formula],
        defaults: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        origin: Any = None,
    ) -> None:
        self._reader, self._origin = reader, origin
        self._formula = reader({})
        self._defaults = dict(defaults or {})
        self._options = dict(options or {})
        self._variants: dict[Any, Formula] = {}
        self._kernels: dict[Any, Any] = {}
        self._plans: dict[Any, Any] = {}
        self.__doc__ = self._formula.doc or type(self).__doc__
        self.__name__ = self._formula.name

    # -------------------------------------------------------------- what it is

    @property
    def name(self) -> str:
        """The name of the function, or "loss" for a text."""
        return self._formula.name

    @property
    def kind(self) -> str:
        """One number per sample ("row"), or every element a sample ("elementwise")."""
        return self._formula.kind

    @property
    def definition(self) -> Formula:
        """The expression and the roles of its arguments, as they were read."""
        return self._formula

    @property
    def formula(self) -> str:
        """The loss of one sample, in the notation of the textbooks."""
        return self.derivation.formula

    @property
    def references(self) -> str:
        """What the docstring of the definition says after its first line, and the first line itself."""
        return self._formula.doc

    @property
    def label_name(self) -> str | None:
        """The name of the label argument, None for a loss without one."""
        found = self._formula.of_role("label")
        return found[0].name if found else None

    @property
    def target_name(self) -> str | None:
        """The name of the targets argument, None for a loss without one."""
        found = self._formula.of_role("targets")
        return found[0].name if found else None

    @property
    def target_domain(self) -> str | None:
        """Where targets lie, a domain of `lossmith.Role` such as "real" or "unit"; None without targets."""
        found = self._formula.of_role("targets")
        return found[0].role.domain if found else None

    @property
    def link(self) -> str | None:
        """How scores become probabilities, "softmax" or "sigmoid"; None where the loss does not say."""
        (first, *_) = self._formula.of_role("scores")
        if first.role.domain != "real":
            return None
        from lossmith.calculus.stabilize import by_rules

        for node in walk(by_rules(self._formula.expr)):
            match node:
                case Softmax(body=Entry(name)) | Reduce("logsumexp", body=Entry(name)) if name == first.name:
                    return "softmax"
                case _:
                    pass
            if isinstance(node, CallNode) and node.function in ("sigmoid", "softplus"):
                return "sigmoid"
        return None

    def __repr__(self) -> str:
        return f"<Loss {self.name}: {self.formula}>"

    def _repr_html_(self) -> str:
        return self.derivation.html()

    def __deepcopy__(self, memo: Any) -> Loss:
        return self  # nothing in a loss ever changes

    def __reduce__(self) -> Any:
        return _restored, (self._origin, self._defaults, self._options)

    # -------------------------------------------------------------- batches

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Return the loss of a batch: a float, or per-sample values with reduction="none"."""
        return self._run(("value",), args, options)[0]

    def grad(self, *args: Any, out: Any = None, **options: Any) -> Any:
        """Return the gradient with respect to the scores, shaped like them; a tuple for several inputs."""
        return self._run(("grad",), args, options, out)[0]

    def value_and_grad(self, *args: Any, out: Any = None, **options: Any) -> Any:
        """Return the value and the gradient, computed together."""
        return self._run(("value", "grad"), args, options, out)

    def hessian_diag(self, *args: Any, out: Any = None, **options: Any) -> Any:
        """Return ∂²L/∂s_j² for every score, shaped like the scores."""
        return self._run(("hessian_diag",), args, options, out)[0]

    def grad_and_hessian_diag(self, *args: Any, out: Any = None, **options: Any) -> Any:
        """Return the gradient and the Hessian's diagonal, computed together, as boosting needs them."""
        return self._run(("grad", "hessian_diag"), args, options, out)

    def hvp(self, *args: Any, out: Any = None, **options: Any) -> Any:
        """Return the Hessian of each sample times a vector: `hvp(scores, target, v)`, v shaped like the scores."""
        return self._run(("hvp",), args, options, out)[0]

    def hessian(self, *args: Any, **options: Any) -> DiagonalPlusLowRank:
        """Return each sample's Hessian as a diagonal plus rank-one terms.

        Raises
        ------
        UnsupportedError
            If the loss couples pairs of classes, so that its Hessian is a full matrix; `hvp` works for any loss.
        """
        from lossmith.hessian import DiagonalPlusLowRank

        if self._hessian_is_full:
            raise UnsupportedError(
                f"The Hessian of {self.name} is a full matrix, no diagonal plus rank-one terms; use hvp(…) or "
                f"hessian_diag(…)."
            )
        if self.kind == "row":
            (parts,) = self._run(("low_rank",), args, options)
        else:
            parts = {"hessian_diag": self.hessian_diag(*args, **options)}
        return DiagonalPlusLowRank.from_outputs(parts)

    @cached_property
    def _hessian_is_full(self) -> bool:
        from lossmith.compiler import low_rank_hessian

        return self.kind == "row" and low_rank_hessian(self._formula, self._formula.of_role("scores")[0].name) is None

    def _run(self, wanted: tuple[str, ...], args: Any, options: dict[str, Any], out: Any = None) -> Any:
        return _engine().run(self, wanted, args, options, out)

    def arguments(self, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the hyperparameters and the settings of a call, defaults included."""
        settings = {"reduction": "mean", "axis": -1, **self._options}
        hyper = dict(self._defaults)
        known = {h.name for h in self._formula.hypers}
        for name, value in options.items():
            if name in known:
                hyper[name] = value
                if name == "class_weight":  # the definition places it; the mean still divides by it
                    settings[name] = value
            elif name in OPTIONS:
                settings[name] = value
            else:
                raise self._unknown(name)
        return hyper, settings

    def _unknown(self, name: str) -> TypeError:
        known = ", ".join([*sorted(h.name for h in self._formula.hypers), *OPTIONS])
        return TypeError(f"{self.name} has no argument {name!r}; it has {known}.")

    def with_arrays(self, ndims: Mapping[str, int]) -> Formula:
        """Return the definition with arrays for those hyperparameters that are numbers in it."""
        if not ndims:
            return self._formula
        key = tuple(sorted(ndims))
        if key not in self._variants:
            self._variants[key] = self._reader(ndims)
        return self._variants[key]

    def variant(
        self,
        ndims: Mapping[str, int],
        soft: bool,
        weighted: bool,
        constants: Mapping[str, float],
        positive: frozenset[str] = frozenset(),
    ) -> Formula:
        """Return the formula for arguments of this kind: arrays for numbers, a distribution for the label."""
        key = (tuple(sorted(ndims.items())), soft, weighted, tuple(sorted(constants.items())), positive)
        if key not in self._variants:
            from lossmith.compiler import specialised, with_soft_label

            formula = specialised(self.with_arrays(ndims), constants, positive)
            self._variants[key] = with_soft_label(formula, weighted) if soft else formula
        return self._variants[key]

    # -------------------------------------------------------------- other forms of it

    def bind(self, **arguments: Any) -> Loss:
        """Return this loss with other defaults for hyperparameters and options."""
        known = {h.name for h in self._formula.hypers}
        unknown = [n for n in arguments if n not in known and n not in OPTIONS]
        if unknown:
            raise self._unknown(unknown[0])
        hyper = {n: v for n, v in arguments.items() if n in known}
        options = {n: v for n, v in arguments.items() if n in OPTIONS}
        bound = Loss(self._reader, {**self._defaults, **hyper}, {**self._options, **options}, self._origin)
        bound._variants, bound._kernels = self._variants, self._kernels
        return bound

    @property
    def derivation(self) -> Derivation:
        """Gradient and Hessian, derived line by line; prints in a terminal and renders in a notebook."""
        from lossmith.calculus.prose import derive

        return derive(self.display_formula())

    def display_formula(self) -> Formula:
        """Return the formula with the options that are switched off folded away."""
        from lossmith.compiler import specialised

        values = {h.name: self._defaults.get(h.name, h.default) for h in self._formula.hypers if h.ndim == 0}
        off = {n: float(v) for n, v in values.items() if np.ndim(v) == 0 and (v == 0 or n == "class_weight")}
        return specialised(self._formula, off)

    def source(self, backend: str = "numpy", outputs: tuple[str, ...] = ("value", "grad")) -> str:
        """Return the generated code, "numpy" or "numba"; the NumPy code runs on its own."""
        return _engine().source(self, backend, outputs)

    def check(self, **options: Any) -> CheckReport:
        """Compare value, gradient and Hessian with 50-digit arithmetic, and state the worst errors."""
        from lossmith.check import check_loss

        return check_loss(self, **options)

    def plot(self, **options: Any) -> Figure:
        """Draw the loss, its derivative and its second derivative along one score."""
        from lossmith.report.curves import plot_loss

        return plot_loss(self, **options)


@overload
def loss(definition: Callable[..., Any]) -> Loss: ...
@overload
def loss(definition: str, **names: Any) -> Loss: ...
def loss(definition: Callable[..., Any] | str, **names: Any) -> Loss:
    """Make a loss from a function of one sample, or from a text.

    Parameters
    ----------
    definition : callable or str
        A NumPy function of one sample, or a formula. The arguments s, y and t are scores, label and targets;
        annotations (`lossmith.Scores`, …) give other names a role; keyword-only arguments are hyperparameters.
    **names
        For a text: hyperparameters (numbers or one number per class), and roles for other names of inputs.

    Returns
    -------
    Loss

    Raises
    ------
    FormulaError
        If the definition cannot be read as a loss.

    Examples
    --------
    >>> import lossmith as lm
    >>> lm.loss("(s - t)**2 / 2").formula
    'L = (s − t)²/2'
    """
    if isinstance(definition, str):
        text = definition

        def from_text(ndims: Mapping[str, int]) -> Formula:
            arrays = {n: np.ones(1) for n, d in ndims.items() if d}
            return read(text, **{**names, **arrays})

        made = Loss(from_text, origin=(text, names))
    else:
        if names:
            raise TypeError("hyperparameters of a function are its keyword-only arguments; use .bind(…) to set them")

        def from_function(ndims: Mapping[str, int]) -> Formula:
            return trace(definition, hyper_ndims=ndims)

        made = Loss(from_function, origin=(definition.__module__, definition.__qualname__))
    if made.kind == "vector":
        raise FormulaError(
            f"{made.name} returns a row whose elements depend on one another: a vector function, not a loss.",
            hint="Reduce it to one number (sum, max, or pick an entry such as [y]), or use lossmith.function.",
        )
    return made


def _restored(origin: Any, defaults: Mapping[str, Any], options: Mapping[str, Any]) -> Loss:
    """Make a pickled loss again: a text from itself, a function from where it is defined."""
    first, second = origin
    if isinstance(second, dict):
        return loss(first, **second).bind(**defaults, **options)
    found: Any = import_module(first)
    for part in second.split("."):
        found = getattr(found, part)
    made = found if isinstance(found, Loss) else loss(found)
    return made.bind(**defaults, **options) if defaults or options else made


__all__ = ["Loss", "loss"]
