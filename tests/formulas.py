"""Formulas that tests share: losses outside the catalogue, as text, with sample domains."""

from __future__ import annotations

from lossmith import Distribution, Scores, SignTargets, UnitTargets

EXTRA: dict[str, tuple[str, dict[str, object]]] = {
    "log_sum_exp": ("logsumexp(s) - s[y]", {}),
    "log_softmax": ("-log(softmax(s)[y])", {}),
    "distillation": ("sum(t * (log(t) - log_softmax(s / tau))) * tau**2", {"tau": 3.0, "t": Distribution}),
    "crammer_singer": ("maximum(0, 1 + max(s, where=classes != y) - s[y])", {}),
    "crammer_singer_margin": ("max(s - s[y] + (1 - onehot(y)))", {}),
    "generalized": ("(1 - softmax(s)[y]**q) / q", {"q": 0.7}),
    "others": ("log(1 + sum(exp(s - s[y]), where=classes != y))", {}),
    "log_cosh": ("log(cosh(s - t))", {}),
    "brier": ("sum((softmax(s) - onehot(y))**2)", {}),
    "brier_binary": ("(sigmoid(s) - t)**2 / 2", {"t": UnitTargets}),
    "pairs": ("sum(t[:, None] * (1 - t) * maximum(0, 1 - s[:, None] + s))", {"t": UnitTargets}),
    "hinge": ("maximum(0, 1 - t*s)", {"t": SignTargets}),
    "two_inputs": ("sum((a - b)**2) / 2", {"a": Scores, "b": Scores}),
    "poly1": ("p = softmax(s)\n-log(p[y]) + epsilon*(1 - p[y])", {"epsilon": 2.0}),
    "weighted": ("-alpha[y] * log(softmax(s)[y])", {"alpha": [1.0, 2.0, 0.5]}),
    "range": ("max(s) - min(s)", {}),
    "poisson": ("exp(s) - t*s", {}),
}
"""Name: text, and the hyperparameters and roles that it needs."""
