"""What is measured, as data: adding a row to the benchmark is adding one entry here."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

CROSS_ENTROPY_SHAPES = (
    (1, 10), (128, 10), (128, 1000), (65536, 3), (65536, 10), (65536, 32), (8192, 100), (4096, 1000), (1024, 32000),
    (256, 128256),
)  # fmt: skip
ROWS = ((65536, 10), (4096, 1000))
ELEMENTS = ((4_000_000,),)
MANY_CLASSES = 32000

GROUPS = {
    "softmax": "Softmax cross-entropy",
    "value": "Value only",
    "catalogue": "The other losses of the catalogue",
    "second": "Second derivatives",
    "float64": "Softmax cross-entropy in float64",
    "options": "Options",
    "formula": "A formula of the user's own",
    "exact": "Precision",
    "scaling": "From one thread to all",
    "first": "From formula to first result",
    "memory": "Peak memory",
}
"""Kinds of work, in the order of the page."""


@dataclass(frozen=True)
class Work:
    """One row of the benchmark.

    Attributes
    ----------
    group : str
        A key of GROUPS.
    loss : str
        A name of the catalogue.
    shape : tuple of int
        Of the scores: (N, K) for a loss of rows, (N,) for an elementwise one.
    dtype : str
    task : str
        The method of Loss that is timed; "value" is the call itself.
    option : str
        A key of `problem.OPTIONS`.
    formula : str
        A definition that stands in for the catalogue's.
    baseline : str
        Another way to call lossmith, timed in the same turns: "plain" (without the option), "catalogue" (instead of the
        formula), "value_and_grad" (instead of the task) or "one thread".
    peers : bool
        Whether the peers run.
    quick : bool
        Whether it belongs to the quick run.
    seconds : float
        Its time, in units of that of an ordinary row.
    """

    group: str
    loss: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    task: str = "value_and_grad"
    option: str = ""
    formula: str = ""
    baseline: str = ""
    peers: bool = True
    quick: bool = False
    seconds: float = 1.0

    @property
    def name(self) -> str:
        """What it is called in tables and by `--only`."""
        task = "" if self.task == "value_and_grad" else f" {self.task}"
        option = f" {self.option}" if self.option else ""
        formula = f" as “{self.formula}”" if self.formula else ""
        scaling = " scaling" if self.group == "scaling" else ""
        dtype = "" if self.dtype == "float32" else f" {self.dtype}"
        return f"{self.loss}{formula}{task}{option}{scaling} {'×'.join(map(str, self.shape))}{dtype}"

    @property
    def classes(self) -> int:
        """K; 1 for an elementwise loss."""
        return self.shape[1] if len(self.shape) == 2 else 1


_QUICK = {(128, 10), (65536, 10), (4096, 1000), (1024, 32000)}
_ROW_LOSSES = (
    "nll", "cross_entropy_on_probabilities", "focal", "multiclass_hinge", "entropy", "softmax_entropy",
    "kl_divergence", "softmax_kl",
)  # fmt: skip
_ELEMENT_LOSSES = ("logistic", "bce", "squared_error", "half_squared_error", "absolute_error", "huber")
_QUICK_LOSSES = {"focal", "multiclass_hinge", "logistic", "huber"}
_OPTIONS = ("class_weight", "ignore_index", "label_smoothing", "sample_weight", "soft targets")
_SECOND = ("grad_and_hessian_diag", "hvp")
_PLAIN_FORMULA = "logsumexp(s) - s[y]"


def _catalogue(names: tuple[str, ...], shapes: tuple[tuple[int, ...], ...]) -> list[Work]:
    return [Work("catalogue", n, s, quick=n in _QUICK_LOSSES and s != ROWS[1]) for n in names for s in shapes]


WORKS: tuple[Work, ...] = (
    *(Work("softmax", "cross_entropy", s, quick=s in _QUICK) for s in CROSS_ENTROPY_SHAPES),
    *(Work("value", "cross_entropy", s, task="value", quick=s == (1024, 32000))
      for s in ((65536, 10), (4096, 1000), (1024, 32000), (256, 128256))),
    *_catalogue(_ROW_LOSSES, ROWS),
    *_catalogue(_ELEMENT_LOSSES, ELEMENTS),
    *(Work("second", "cross_entropy", s, task=t, baseline="value_and_grad", quick=s == ROWS[0])
      for t in _SECOND for s in ((65536, 10), (8192, 100), (4096, 1000))),
    *(Work("float64", "cross_entropy", s, "float64", quick=s == ROWS[0]) for s in CROSS_ENTROPY_SHAPES),
    *(Work("options", "cross_entropy", s, option=o, baseline="plain") for o in _OPTIONS for s in ROWS),
    *(Work("formula", "cross_entropy", s, formula=_PLAIN_FORMULA, baseline="catalogue", peers=False, seconds=0.7)
      for s in ((1, 10), *ROWS)),
    *(Work("exact", "cross_entropy", s, d, option="precision=exact", baseline="plain", peers=False, seconds=0.7)
      for d in ("float32", "float64") for s in ROWS),
    Work("scaling", "cross_entropy", (4096, 1000), baseline="one thread", peers=False),
    Work("scaling", "cross_entropy", (65536, 10), baseline="one thread", peers=False),
)  # fmt: skip
"""Everything that is timed in turns."""

FIRST_RESULTS = ("cold", "warm")
MEMORY_SHAPES = ((65536, 10), (1024, 32000))


def all_works() -> tuple[Work, ...]:
    """Return the table, and below it the losses that have joined the catalogue since it was written."""
    from lossmith.losses import CATALOGUE

    named = {w.loss for w in WORKS}
    late: list[Work] = []
    for name, loss in CATALOGUE.items():
        if name not in named:
            late += _catalogue((name,), ELEMENTS if loss.kind == "elementwise" else ROWS)
    return (*WORKS, *late)


def chosen(works: tuple[Work, ...], only: list[str], quick: bool) -> tuple[Work, ...]:
    """Return the works whose name or group holds, or matches, one of the words."""
    found = [w for w in works if w.quick or not quick]
    if only:
        exact = {w.name for w in found} & {word.replace("x", "×") for word in only}
        loose = [word for word in only if word.replace("x", "×") not in exact]
        found = [w for w in found if w.name in exact or any(matches(word, w.name, w.group) for word in loose)]
    return tuple(found)


def matches(word: str, *texts: str) -> bool:
    """Return whether one of the texts holds the word (an `x` may stand for `×`) or fits it as a pattern."""
    spelled = {word, word.replace("x", "×")}
    return any(w in text or fnmatch.fnmatch(text, w) for text in texts for w in spelled)
