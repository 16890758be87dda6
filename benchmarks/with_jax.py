"""JAX under `jit`, with optax's losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.problem import Answer, Problem, Ready

NAME = "JAX + optax"
Function = Callable[..., Any]


def version() -> str:
    """Return the versions of both."""
    import jax
    import optax

    return f"{jax.__version__} + {optax.__version__}"


def _named() -> dict[str, Function]:
    """Return the losses that optax has under a name of its own."""
    from optax import losses

    return {
        "cross_entropy": lambda s, y: losses.softmax_cross_entropy_with_integer_labels(s, y).mean(),
        "kl_divergence": lambda s, t: losses.kl_divergence(s, t).mean(),
        "logistic": lambda s, t: losses.sigmoid_binary_cross_entropy(s, t).mean(),
        "squared_error": lambda s, t: losses.squared_error(s, t).mean(),
        "half_squared_error": lambda s, t: losses.l2_loss(s, t).mean(),
        "huber": lambda s, t: losses.huber_loss(s, t).mean(),
    }


def _composed() -> dict[str, Function]:
    """Return the losses that take several functions."""
    import jax
    import jax.numpy as jnp

    def picked(array: Any, label: Any) -> Any:
        return jnp.take_along_axis(array, label[:, None], axis=1)

    def focal(s: Any, y: Any) -> Any:
        log_p = picked(jax.nn.log_softmax(s), y)
        return -((1 - jnp.exp(log_p)) ** 2 * log_p).mean()

    def multiclass_hinge(s: Any, y: Any) -> Any:
        terms = jnp.maximum(0, s - picked(s, y) + 1)
        return jnp.where(jnp.arange(s.shape[1]) == y[:, None], 0, terms).sum(axis=1).mean()

    def softmax_entropy(s: Any) -> Any:
        log_p = jax.nn.log_softmax(s)
        return -(jnp.exp(log_p) * log_p).sum(axis=1).mean()

    def softmax_kl(s: Any, t: Any) -> Any:
        return (t * (jnp.log(t) - jax.nn.log_softmax(s))).sum(axis=1).mean()

    return {
        "nll": lambda s, y: -picked(s, y).mean(),
        "cross_entropy_on_probabilities": lambda p, y: -jnp.log(picked(p, y)).mean(),
        "focal": focal,
        "multiclass_hinge": multiclass_hinge,
        "entropy": lambda p: -(p * jnp.log(p)).sum(axis=1).mean(),
        "softmax_entropy": softmax_entropy,
        "softmax_kl": softmax_kl,
        "bce": lambda p, t: -(t * jnp.log(p) + (1 - t) * jnp.log1p(-p)).mean(),
        "absolute_error": lambda s, t: jnp.abs(s - t).mean(),
    }


def _with_options(problem: Problem, function: Function) -> Function | None:
    import jax
    import jax.numpy as jnp
    from optax import losses

    rows = losses.softmax_cross_entropy_with_integer_labels
    match problem.work.option:
        case "":
            return function
        case "soft targets":
            return lambda s, t: losses.softmax_cross_entropy(s, t).mean()
        case "label_smoothing":
            amount, k = problem.options["label_smoothing"], problem.work.classes

            def smoothed(s: Any, y: Any) -> Any:
                return losses.softmax_cross_entropy(s, losses.smooth_labels(jax.nn.one_hot(y, k), amount)).mean()

            return smoothed
        case "sample_weight":
            weight = jnp.asarray(problem.options["sample_weight"])
            return lambda s, y: (rows(s, y) * weight).sum() / weight.sum()
        case "class_weight":
            weight = jnp.asarray(problem.options["class_weight"])
            return lambda s, y: (rows(s, y) * weight[y]).sum() / weight[y].sum()
        case "ignore_index":
            kept = problem.options["ignore_index"]
            return lambda s, y: (rows(s, y) * (y != kept)).sum() / (y != kept).sum()
        case _:
            return None


def prepare(problem: Problem) -> Ready | None:
    """Return the jitted value and gradient, or what the work asks for."""
    import jax

    work = problem.work
    jax.config.update("jax_enable_x64", work.dtype == "float64")
    named = _named()
    found = {**_composed(), **named}.get(work.loss)
    function = found and _with_options(problem, found)
    if function is None or work.formula or work.task == "grad_and_hessian_diag":
        return None
    arrays = [jax.device_put(a.astype(np.int32) if a.dtype == np.int64 else a) for a in problem.arguments]
    jitted, names = _jitted(work.task, function)
    if work.task == "hvp":
        arrays.append(jax.device_put(problem.direction))

    def run() -> Any:
        return jax.block_until_ready(jitted(*arrays))

    def answer(raw: Any) -> Answer:
        return dict(zip(names, (np.asarray(a) for a in (raw if len(names) > 1 else (raw,))), strict=True))

    return Ready(run, answer, work.loss in named, pause=True)


def _jitted(task: str, function: Function) -> tuple[Function, tuple[str, ...]]:
    import jax

    if task == "value":
        return jax.jit(function), ("value",)
    if task == "value_and_grad":
        return jax.jit(jax.value_and_grad(function)), ("value", "grad")

    def hvp(s: Any, *rest: Any) -> Any:
        *target, v = rest
        return jax.jvp(jax.grad(lambda x: function(x, *target)), (s,), (v,))[1]

    return jax.jit(hvp), ("hvp",)
