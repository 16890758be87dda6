"""Formulas that tests share: losses outside the catalogue, as text, with sample domains."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from lossmith import Distribution, Scores, SignTargets, UnitTargets
from lossmith.language.formula import Role

Positive: TypeAlias = Annotated[Any, Role("targets", "positive")]

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

UNSEEN: dict[str, tuple[str, dict[str, object]]] = {
    # logarithms and powers of sigmoids and of their complements
    "focal_binary": (
        "p = sigmoid(s)\n-t*(1 - p)**gamma*log(p) - (1 - t)*p**gamma*log(1 - p)",
        {"t": UnitTargets, "gamma": 2.0},
    ),
    "focal_margin": ("-log(sigmoid(t*s))*(1 - sigmoid(t*s))**gamma", {"t": SignTargets, "gamma": 1.5}),
    "log_odds_of_sigmoid": ("(log(sigmoid(s)) - log(1 - sigmoid(s)) - t)**2", {}),
    "product_of_sigmoids": ("-log(sigmoid(s)*(1 - sigmoid(s)))", {}),
    "variance_of_sigmoid": ("sigmoid(s)*(1 - sigmoid(s))", {}),
    "generalized_binary": ("(1 - sigmoid(t*s)**q)/q", {"t": SignTargets, "q": 0.5}),
    "savage": ("(1 - sigmoid(t*s))**2", {"t": SignTargets}),
    "tangent": ("(2*arctan(t*s) - 1)**2", {"t": SignTargets}),
    # logarithms and powers of softmax, of its complement, products of probabilities
    "log_odds": ("p = softmax(s)\nlog(1 - p[y]) - log(p[y])", {}),
    "complement_log": ("-log(1 - softmax(s)[y])", {}),
    "mean_absolute": ("1 - softmax(s)[y]", {}),
    "one_minus_square": ("1 - softmax(s)[y]**2", {}),
    "gini_at_label": ("p = softmax(s)\np[y]*(1 - p[y])", {}),
    "poly2": ("p = softmax(s)\n-log(p[y]) + a*(1 - p[y]) + b*(1 - p[y])**2", {"a": 1.0, "b": 0.5}),
    "symmetric": (
        "p = softmax(s)\n-log(p[y]) + alpha*sum(p*4.0, where=classes != y)",
        {"alpha": 0.1},
    ),
    "normalized": ("p = log_softmax(s)\np[y]/sum(p)", {}),
    "spherical": ("p = softmax(s)\n-p[y]/sqrt(sum(p**2))", {}),
    "powers_of_softmax": ("p = softmax(s)\n(1 - p[y]**(1 - q))/(1 - q)", {"q": 0.3}),
    "unlikelihood": ("-sum(log(1 - softmax(s)), where=classes != y)", {}),
    "two_of_softmax": ("-log(softmax(s)[y] + softmax(s)[0])", {}),
    # temperatures, differences of log Σ exp, log(1 + Σ exp)
    "temperatures": ("tau*logsumexp(s/tau) - logsumexp(s)", {"tau": 3.0}),
    "margin_of_others": ("logsumexp(s, where=classes != y) - s[y]", {}),
    "ratio_of_others": ("softplus(logsumexp(s, where=classes != y) - s[y])", {}),
    "info_nce": ("-log(exp(s[y]/tau)/sum(exp(s/tau)))", {"tau": 0.1}),
    "nce": ("-log(sigmoid(s[y] - log(k))) - sum(log(1 - sigmoid(s - log(k))), where=classes != y)", {"k": 5.0}),
    "multilabel": ("log(1 + sum(t*exp(-s))) + log(1 + sum((1 - t)*exp(s)))", {"t": UnitTargets}),
    "circle": ("log(1 + sum(exp(g*(s - s[y] + m)), where=classes != y))", {"g": 4.0, "m": 0.25}),
    "pairwise_logistic": ("sum(log(1 + exp(s - s[y])), where=classes != y)", {}),
    "listwise": ("-sum(t*log(softmax(s)))", {"t": Distribution}),
    # mixtures of distributions, Jensen–Shannon, entropies
    "mixture_with_uniform": ("-log(0.9*softmax(s)[y] + 0.1/K)", {}),
    "mixture_of_softmaxes": ("-log(w*softmax(a)[y] + (1 - w)*softmax(b)[y])", {"w": 0.25, "a": Scores, "b": Scores}),
    "jensen_shannon": (
        "p = softmax(s)\nm = (p + t)/2\nsum(p*log(p/m) + t*log(t/m))/2",
        {"t": Distribution},
    ),
    "reverse_kl": ("p = softmax(s)\nsum(p*(log(p) - log(t)))", {"t": Distribution}),
    "tsallis": ("(1 - sum(softmax(s)**q))/(q - 1)", {"q": 1.5}),
    "gini": ("1 - sum(softmax(s)**2)", {}),
    "soft_brier": ("sum((softmax(s) - t)**2)/2", {"t": Distribution}),
    "tsallis_below_one": ("(1 - sum(softmax(s)**q))/(q - 1)", {"q": 0.5}),
    "renyi": ("log(sum(softmax(s)**a))/(1 - a)", {"a": 2.0}),
    "binary_entropy": ("p = sigmoid(s)\n-p*log(p) - (1 - p)*log(1 - p)", {}),
    "hellinger": ("sum((sqrt(softmax(s)) - sqrt(t))**2)/2", {"t": Distribution}),
    "kl_of_softmaxes": ("sum(softmax(a)*(log_softmax(a) - log_softmax(b)))", {"a": Scores, "b": Scores}),
    # ratios
    "tversky": (
        "p = sigmoid(s)\n1 - t*p/(t*p + alpha*(1 - t)*p + beta*t*(1 - p) + 1)",
        {"t": UnitTargets, "alpha": 0.3, "beta": 0.7},
    ),
    "dice": ("p = sigmoid(s)\n1 - 2*sum(p*t)/(sum(p) + sum(t))", {"t": UnitTargets}),
    "share_of_ratio": ("p = softmax(s)\np[y]/(p[y] + p[0])", {}),
    "ratio_of_expm1": ("expm1(s)/(exp(s) + 1)", {}),
    "odds_ratio": ("p = softmax(s)\np[y]/(1 - p[y])", {}),
    # numbers
    "log_cosh_scaled": ("log(cosh(a*(s - t)))/a", {"a": 2.0}),
    "squared_log": ("(log(1 + exp(s)) - log(1 + exp(t)))**2", {}),
    "pseudo_huber": ("delta**2*(sqrt(1 + ((s - t)/delta)**2) - 1)", {"delta": 2.0}),
    "cauchy": ("log(1 + ((s - t)/c)**2)", {"c": 2.0}),
    "welsch": ("1 - exp(-((s - t)/c)**2/2)", {"c": 2.0}),
    "geman_mcclure": ("r = (s - t)**2\nr/(r + c**2)", {"c": 2.0}),
    "exponential": ("exp(-t*s)", {"t": SignTargets}),
    "linex": ("exp(a*(s - t)) - a*(s - t) - 1", {"a": 0.5}),
    "poisson_deviance": ("exp(s) - t*s - t + t*log(t)", {"t": Positive}),
    "gamma": ("t*exp(-s) + s", {"t": Positive}),
    "gamma_deviance": ("t*exp(-s) + s - log(t) - 1", {"t": Positive}),
    "inverse_gaussian": ("(t - exp(s))**2/(t*exp(2*s))", {"t": Positive}),
    "quantile": ("maximum(q*(t - s), (q - 1)*(t - s))", {"q": 0.9}),
    "expectile": ("where(t > s, q, 1 - q)*(s - t)**2", {"q": 0.9}),
    "smooth_quantile": ("q*(t - s) + a*softplus((s - t)/a)", {"q": 0.9, "a": 0.1}),
    "tweedie": ("-t*exp(s*(1 - p))/(1 - p) + exp(s*(2 - p))/(2 - p)", {"t": Positive, "p": 1.5}),
    "log_ratio_squared": ("(s - log(t))**2", {"t": Positive}),
    "gaussian_nll": ("m = (a - t)**2\nm*exp(-b)/2 + b/2", {"a": Scores, "b": Scores}),
    "triplet": ("log(1 + exp(a - b + margin))", {"a": Scores, "b": Scores, "margin": 0.2}),
    "ranking_of_two": ("-log(exp(a)/(exp(a) + exp(b)))", {"a": Scores, "b": Scores}),
    "plackett": ("log(exp(a) + exp(b)) - a", {"a": Scores, "b": Scores}),
}
"""Losses that no rule was written for: what the calculus must do for formulas that nobody has seen yet."""
