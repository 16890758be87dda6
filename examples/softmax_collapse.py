"""Softmax collapse: where training in float32 stops learning, and what an accurate loss does instead.

A network learns addition modulo p from 40 % of all pairs: two hidden layers of 200 ReLUs without bias, AdamW without
weight decay, the whole batch at every step. That is the set-up of Prieto et al., "Grokking at the edge of numerical
stability" (ICLR 2025), with a smaller p so that it takes a minute or two on two cores (`--p 113` is theirs). It is
trained twice from the same weights in float32: with PyTorch's cross-entropy, and with lossmith's.

What one sees: both losses fall together until the true classes lead by 17 or so. There log Σ exp(s − max) is the
logarithm of 1.0 and PyTorch's loss is 0 for more and more samples. So is p_y − 1, the gradient at the true class, while
the gradients of the other classes are not: the rows of the gradient no longer sum to zero, every step pushes all scores
down together, and the loss stalls around 1e-8, with jumps upwards of many decades. lossmith computes log1p of the other
classes' sum, and p_y − 1 as minus the sum of their probabilities. Both keep their relative accuracy, and the loss goes
on falling, decade after decade, until exp(−100) itself is beyond float32.

The loss is multiplied by 2⁶⁰ before differentiating. AdamW divides by the gradient's own size, so in exact arithmetic
that changes nothing; but without it the squares of gradients below 1e-19, which AdamW keeps, would be zero in float32.
For the same reason its ε is 1e-30, as in the paper, and β₂ is 0.95, so that it follows gradients that shrink this fast.

Run it as `python examples/softmax_collapse.py --out collapse.png`. It needs PyTorch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import lossmith as lm

try:
    import torch
except ModuleNotFoundError:
    sys.exit("This example trains a network with PyTorch, which is not installed here: pip install torch")

SCALE = 2.0**60


class CrossEntropy(torch.autograd.Function):
    """lossmith's softmax cross-entropy for PyTorch: the value in float64, the gradient in the scores' dtype."""

    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        value, grad = lm.cross_entropy.value_and_grad(scores.detach().numpy(), labels.numpy())
        ctx.save_for_backward(torch.from_numpy(grad))
        return torch.tensor(value, dtype=torch.float64)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        (grad,) = ctx.saved_tensors
        return grad * grad_outputs[0].to(grad.dtype), None


def additions(p: int, share: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `share` of all pairs (a, b), each as two one-hot rows side by side, and a + b modulo p."""
    chosen = np.random.default_rng(seed).permutation(p * p)[: round(share * p * p)]
    a, b = np.divmod(chosen, p)
    pairs = np.concatenate([np.eye(p, dtype=np.float32)[a], np.eye(p, dtype=np.float32)[b]], axis=1)
    return torch.from_numpy(pairs), torch.from_numpy((a + b) % p)


def network(p: int, width: int, seed: int) -> torch.nn.Module:
    """Return the network; the same seed gives the same weights."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(2 * p, width, bias=False),
        torch.nn.ReLU(),
        torch.nn.Linear(width, width, bias=False),
        torch.nn.ReLU(),
        torch.nn.Linear(width, p, bias=False),
    )


def train(
    net: torch.nn.Module,
    data: tuple[torch.Tensor, torch.Tensor],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    steps: int,
    lr: float,
    advance: Callable[[], None],
) -> np.ndarray:
    """Train on the whole batch; return (steps + 1, 2): the loss as trained on, and the same computed accurately."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, betas=(0.9, 0.95), eps=1e-30, weight_decay=0.0)
    inputs, labels = data
    history = np.empty((steps + 1, 2))
    for step in range(steps + 1):
        scores = net(inputs)
        value = loss(scores, labels)
        history[step] = value.item(), lm.cross_entropy(scores.detach().numpy(), labels.numpy())
        optimizer.zero_grad()
        (value * SCALE).backward()
        optimizer.step()
        advance()
    return history


def draw(by_torch: np.ndarray, by_lossmith: np.ndarray, title: str) -> Figure:
    """Draw the losses of both runs over the steps."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10)
    axes.semilogy(_positive(by_torch[:, 0]), color="tab:orange", linewidth=1.0, label="PyTorch's cross-entropy")
    axes.semilogy(
        _positive(by_torch[:, 1]),
        color="tab:red",
        linewidth=0.8,
        linestyle=":",
        label="the same run, computed accurately",
    )
    axes.semilogy(_positive(by_lossmith[:, 0]), color="tab:blue", linewidth=1.6, label="lossmith's cross-entropy")
    axes.set(xlabel="step", ylabel="training loss", xlim=(0, len(by_torch) - 1))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", fontsize=9)
    return figure


def _positive(losses: np.ndarray) -> np.ndarray:
    return np.where(losses > 0, losses, np.nan)  # a logarithmic axis has no zero


def table(by_torch: np.ndarray, by_lossmith: np.ndarray) -> Table:
    """Return the losses at the steps 0, 1, 2, 5, 10, … and at the last."""
    found = Table(title="Training loss", header_style="bold")
    for heading in ("step", "PyTorch", "the same, computed accurately", "lossmith"):
        found.add_column(heading, justify="right")
    last = len(by_torch) - 1
    decades = [m * 10**e for e in range(9) for m in (1, 2, 5)]
    for step in [0, *(d for d in decades if d < last), last]:
        row = (by_torch[step, 0], by_torch[step, 1], by_lossmith[step, 0])
        found.add_row(f"{step}", *(f"{value:.3g}" for value in row))
    return found


@click.command(help="Train the same network with PyTorch's and with lossmith's cross-entropy, and draw both losses.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default="softmax_collapse.png", show_default=True
)
@click.option(
    "--p", type=click.IntRange(2, 1000), default=47, show_default=True, help="The modulus; the paper has 113."
)
@click.option("--share", type=click.FloatRange(0.0, 1.0, min_open=True), default=0.4, show_default=True)
@click.option("--width", type=click.IntRange(1), default=200, show_default=True, help="Units of each hidden layer.")
@click.option("--steps", type=click.IntRange(1), default=3000, show_default=True)
@click.option("--lr", type=click.FloatRange(0.0, min_open=True), default=0.01, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(out: Path, p: int, share: float, width: int, steps: int, lr: float, seed: int) -> None:
    """Run both trainings, print the table and write the picture."""
    console = Console()
    data = additions(p, share, seed)
    runs: dict[str, np.ndarray] = {}
    with Progress(console=console) as progress:
        for name, loss in (("PyTorch", torch.nn.functional.cross_entropy), ("lossmith", CrossEntropy.apply)):
            task = progress.add_task(f"{name:>8}", total=steps + 1)
            runs[name] = train(network(p, width, seed), data, loss, steps, lr, lambda task=task: progress.advance(task))
    console.print(table(runs["PyTorch"], runs["lossmith"]))
    title = f"Addition modulo {p} in float32, AdamW, the whole batch of {len(data[0])} pairs"
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(runs["PyTorch"], runs["lossmith"], title).savefig(out, dpi=110)
    console.print(f"The picture: {out}")


if __name__ == "__main__":
    main()
