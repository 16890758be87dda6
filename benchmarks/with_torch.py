"""PyTorch, eager and compiled. Targets come as labels or as arrays; every loss returns its mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.problem import Answer, Problem, Ready

EAGER, COMPILED = "torch", "torch.compile"
Function = Callable[..., Any]


def version() -> str:
    """Return the version of PyTorch."""
    import torch

    return str(torch.__version__).split("+")[0]


def _named() -> dict[str, Function]:
    """Return the losses that PyTorch has under a name of its own."""
    import torch.nn.functional as f

    return {
        "cross_entropy": f.cross_entropy,
        "nll": f.nll_loss,
        "multiclass_hinge": lambda s, y: f.multi_margin_loss(s, y) * s.shape[1],
        "kl_divergence": lambda s, t: f.kl_div(s, t, reduction="batchmean"),
        "logistic": f.binary_cross_entropy_with_logits,
        "bce": f.binary_cross_entropy,
        "squared_error": f.mse_loss,
        "absolute_error": f.l1_loss,
        "huber": f.huber_loss,
    }


def _composed() -> dict[str, Function]:
    """Return the losses that take several of PyTorch's functions."""
    import torch
    import torch.nn.functional as f

    def focal(s: Any, y: Any) -> Any:
        log_p = f.log_softmax(s, dim=1).gather(1, y[:, None])
        return -((1 - log_p.exp()) ** 2 * log_p).mean()

    def softmax_entropy(s: Any) -> Any:
        log_p = f.log_softmax(s, dim=1)
        return -(log_p.exp() * log_p).sum(dim=1).mean()

    return {
        "cross_entropy_on_probabilities": lambda p, y: f.nll_loss(p.log(), y),
        "focal": focal,
        "entropy": lambda p: torch.special.entr(p).sum(dim=1).mean(),
        "softmax_entropy": softmax_entropy,
        "softmax_kl": lambda s, t: f.kl_div(f.log_softmax(s, dim=1), t, reduction="batchmean"),
        "half_squared_error": lambda s, t: f.mse_loss(s, t) / 2,
    }


def _with_options(problem: Problem, function: Function) -> Function | None:
    """Return the loss with the work's options, None if PyTorch has them not."""
    import torch
    import torch.nn.functional as f

    options = dict(problem.options)
    match problem.work.option:
        case "" | "soft targets":
            return function
        case "class_weight":
            weight = torch.from_numpy(options["class_weight"])
            return lambda s, y: f.cross_entropy(s, y, weight=weight)
        case "ignore_index" | "label_smoothing":
            return lambda s, y: f.cross_entropy(s, y, **options)
        case "sample_weight":
            weight = torch.from_numpy(options["sample_weight"])
            total = weight.sum()
            return lambda s, y: (f.cross_entropy(s, y, reduction="none") * weight).sum() / total
        case _:
            return None


def prepare(problem: Problem, compiled: bool = False) -> Ready | None:
    """Return value and gradient (or what the work asks for) by autograd."""
    import torch

    work, named = problem.work, _named()
    found = {**_composed(), **named}.get(work.loss)
    function = found and _with_options(problem, found)
    if function is None or work.formula or work.task == "grad_and_hessian_diag":
        return None
    if compiled:
        if work.task == "hvp":
            return None  # compiled functions cannot be differentiated twice
        torch._dynamo.reset()  # pyright: ignore[reportPrivateUsage]  each work is compiled for itself, as if alone
        function = torch.compile(function, dynamic=False)
    torch.set_num_threads(problem.threads)
    scores = torch.from_numpy(problem.scores).detach().requires_grad_()
    target = [] if problem.target is None else [torch.from_numpy(problem.target)]
    return Ready(_runner(problem, function, scores, target), _answer, work.loss in named, pause=True)


def _runner(problem: Problem, function: Function, scores: Any, target: list[Any]) -> Callable[[], Any]:
    import torch

    def value() -> Any:
        with torch.no_grad():
            return {"value": function(scores, *target)}

    def value_and_grad() -> Any:
        loss = function(scores, *target)
        (grad,) = torch.autograd.grad(loss, scores)
        return {"value": loss, "grad": grad}

    def hvp() -> Any:
        (grad,) = torch.autograd.grad(function(scores, *target), scores, create_graph=True)
        (product,) = torch.autograd.grad(grad, scores, direction)
        return {"hvp": product}

    if problem.work.task == "hvp":
        direction = torch.from_numpy(problem.direction)
        return hvp
    return value if problem.work.task == "value" else value_and_grad


def prepare_compiled(problem: Problem) -> Ready | None:
    """Return the same with the loss compiled."""
    return prepare(problem, compiled=True)


def _answer(raw: Any) -> Answer:
    return {name: tensor.detach().numpy() for name, tensor in raw.items()}
