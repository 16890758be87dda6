"""The command that trains a linear model: `fit`."""

from __future__ import annotations

import csv
import io
import sys
import time
import warnings
from typing import Any

import click
import numpy as np

from lossmith.cli.arguments import Given, only_losses, resolve, with_names
from lossmith.cli.tables import Parts, in_dtype, loaded, split, task_of
from lossmith.cli.terminal import examples, is_terminal, note, writable, write_text

_BETWEEN_0_AND_1 = click.FloatRange(0, 1, max_open=True)
_AT_LEAST_0 = click.FloatRange(0)
_ABOVE_0 = click.FloatRange(0, min_open=True)
_COUNT = click.IntRange(1)


@click.command(
    short_help="A linear model, trained with any loss and tested.",
    epilog=examples(
        "lossmith fit digits --loss multiclass_hinge",
        "lossmith fit letters.csv --target Letter --standardize --C 1 --predictions letters-predicted.csv",
        "lossmith fit diabetes --loss huber -H delta=50 --standardize",
    ),
)
@click.argument("data", metavar="[DATA]", default="digits")
@click.option("--loss", "definition", default="cross_entropy", show_default=True, metavar="FORMULA|NAME")
@with_names
@click.option("--target", metavar="COLUMN", help="The column to predict, for CSV and Parquet files.")
@click.option(
    "--task",
    type=click.Choice(["classification", "regression"]),
    help="By default the loss and the target tell.",
)
@click.option(
    "--alpha", metavar="A", type=_AT_LEAST_0, help="The strength of the penalty alpha/2·‖W‖².  [default: 0.0001]"
)
@click.option("--C", "c", metavar="C", type=_ABOVE_0, help="The same as in scikit-learn: alpha = 1/(C·rows).")
@click.option("--solver", type=click.Choice(["lbfgs", "sgd", "adam"]), default="lbfgs", show_default=True)
@click.option("--max-iter", metavar="N", type=_COUNT, help="Iterations (lbfgs: 1000) or epochs (sgd, adam: 100).")
@click.option("--tol", metavar="NUMBER", type=_AT_LEAST_0, default=1e-4, show_default=True, help="When to stop.")
@click.option("--learning-rate", metavar="NUMBER", type=_ABOVE_0, help="Of sgd and adam.")
@click.option("--batch-size", metavar="N", type=_COUNT, default=200, show_default=True, help="Of sgd and adam.")
@click.option("--momentum", metavar="NUMBER", type=_BETWEEN_0_AND_1, default=0.9, show_default=True, help="Of sgd.")
@click.option("--early-stopping", is_flag=True, help="Stop by the score on a tenth of the training rows.")
@click.option(
    "--test-fraction",
    metavar="NUMBER",
    type=_BETWEEN_0_AND_1,
    default=0.2,
    show_default=True,
    help="Of the rows, drawn at random.",
)
@click.option("--train-rows", metavar="N", type=_COUNT, help="Train on the first so many rows, test on the rest.")
@click.option("--standardize/--no-standardize", default=False, help="Features of mean 0 and variance 1.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), help="Of the features and scores.")
@click.option(
    "--seed",
    metavar="N",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Of all that is drawn at random.",
)
@click.option("--predictions", metavar="FILE.csv", help="Write what is predicted for every row.")
@click.option("--progress/--no-progress", default=None, help="A bar on stderr; by default on a terminal.")
@click.pass_context
def fit(ctx: click.Context, **options: Any) -> None:
    """Train a linear model, scores = X·W + b, with any loss, and test it.

    DATA is a CSV or Parquet file (with --target), an .npz file, IDX images with their labels beside
    them, or digits, iris, wine, breast_cancer or diabetes, which scikit-learn brings.
    """
    if options["alpha"] is not None and options["c"] is not None:
        raise click.UsageError("give --alpha or --C, not both")
    given_fraction = ctx.get_parameter_source("test_fraction") is not click.core.ParameterSource.DEFAULT
    if options["train_rows"] is not None and given_fraction:
        raise click.UsageError("give --test-fraction or --train-rows, not both")
    path = None if options["predictions"] is None else writable(options["predictions"])
    (given,) = resolve([options["definition"]], options["hypers"], options["roles"])
    (loss,) = only_losses([given], "training")
    table = in_dtype(loaded(options["data"], options["target"]), options["dtype"])
    task = task_of(loss, table, options["task"])
    parts = split(table, task, options["test_fraction"], options["train_rows"], options["seed"])
    alpha = _alpha(options["alpha"], options["c"], parts.train.size)
    click.echo("\n".join(_beginning(given, parts, task, alpha, options)))
    model, seconds = _trained(loss, parts, task, alpha, options)
    click.echo("\n".join(["", *_scores(model, parts, task), "", _ending(model, seconds)]))
    if path is not None:
        write_text(path, _predictions(model, parts))
        click.echo(f"wrote {path}")


def _alpha(alpha: float | None, c: float | None, rows: int) -> float:
    if c is not None:
        return 1 / (c * rows)
    return 1e-4 if alpha is None else alpha


def _trained(loss: Any, parts: Parts, task: str, alpha: float, options: dict[str, Any]) -> tuple[Any, float]:
    """Return the fitted model and how long it took."""
    # scikit-learn and SciPy take a second to import: not before the arguments are known to be good.
    from sklearn.exceptions import ConvergenceWarning

    from lossmith.linear.estimators import LinearClassifier, LinearRegressor

    progress = options["progress"]
    passed = ("solver", "max_iter", "tol", "learning_rate", "batch_size", "momentum", "early_stopping", "standardize")
    model = (LinearClassifier if task == "classification" else LinearRegressor)(
        loss,
        alpha=alpha,
        random_state=options["seed"],
        progress=is_terminal(sys.stderr) if progress is None else progress,
        **{name: options[name] for name in passed},
    )
    X, y = parts.table.X[parts.train], parts.table.target[parts.train]
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, y)
    seconds = time.perf_counter() - start
    for warning in caught:
        # Why the solver stopped and that there are many classes is said elsewhere, in our words.
        if not issubclass(warning.category, ConvergenceWarning) and "unique classes" not in str(warning.message):
            note(" ".join(str(warning.message).split()))
    return model, seconds


# ---------------------------------------------------------------- what is said


def _beginning(given: Given, parts: Parts, task: str, alpha: float, options: dict[str, Any]) -> list[str]:
    table = parts.table
    named = f" in {options['target']}" if options["target"] else ""
    if task == "classification":
        count = len(np.unique(table.target))
        target = f"{count} classes{named}"
        if 3 * count > table.X.shape[0]:
            said = f"{count} classes in {table.X.shape[0]} rows"
            note(f"{said}: to predict numbers, take a loss with targets, such as huber")
        kind = "linear classifier"
    else:
        target = f"targets{named} from {table.target.min():g} to {table.target.max():g}"
        kind = "linear regression"
    c = f" (C = {options['c']:g})" if options["c"] is not None else ""
    details = [f"alpha = {alpha:.4g}{c}", options["solver"], str(table.X.dtype)]
    if options["standardize"]:
        details.append("features standardized")
    features = f"{table.X.shape[1]} feature{'s' if table.X.shape[1] != 1 else ''}"
    return [
        f"{table.name}: {table.X.shape[0]} rows, {features}, {target}",
        f"{kind} with {given.title}: {', '.join(details)}",
        parts.said,
    ]


def _scores(model: Any, parts: Parts, task: str) -> list[str]:
    """Return a small table: the measures, for the rows trained on and the rows tested on."""
    sides = {"train": parts.train, "test": parts.test}
    columns: dict[str, dict[str, float]] = {}
    for side, rows in sides.items():
        if rows.size:
            X, y = parts.table.X[rows], parts.table.target[rows]
            known = parts.table.target[parts.train]
            columns[side] = _accuracy(model, X, y, known) if task == "classification" else _errors(model, X, y)
    measures = list(columns["train"])
    first = max(len(m) for m in measures)
    lines = [" " * first + "".join(f"{side:>10}" for side in columns)]
    for measure in measures:
        figures = "".join(f"{column[measure]:>10.4f}" for column in columns.values())
        lines.append(f"{measure:<{first}}{figures}")
    if task == "classification" and parts.test.size:
        lines += _unseen(model, parts)
    return lines


def _accuracy(model: Any, X: np.ndarray, y: np.ndarray, known: np.ndarray) -> dict[str, float]:
    """Return the accuracy, and that of who always says the most frequent of the known labels."""
    labels, counts = np.unique(known, return_counts=True)
    most_frequent = labels[np.argmax(counts)]
    return {"accuracy": model.score(X, y), "the most frequent class": float(np.mean(y == most_frequent))}


def _errors(model: Any, X: np.ndarray, y: np.ndarray) -> dict[str, float]:
    predicted = model.predict(X)
    spread = float(np.sum((y - y.mean()) ** 2))
    left = float(np.sum((y - predicted) ** 2))
    return {
        "R²": 1 - left / spread if spread else float("nan"),
        "mean absolute error": float(np.mean(np.abs(y - predicted))),
    }


def _unseen(model: Any, parts: Parts) -> list[str]:
    unseen = ~np.isin(parts.table.target[parts.test], model.classes_)
    count = int(np.count_nonzero(unseen))
    if not count:
        return []
    return [f"{count} of the test rows have labels that the training rows do not have; they count as missed"]


def _ending(model: Any, seconds: float) -> str:
    unit = "iteration" if model.solver == "lbfgs" else "epoch"
    count = f"{model.n_iter_} {unit}{'s' if model.n_iter_ != 1 else ''}"
    message = model.solver_message_.rstrip(".")
    return f"{count} in {seconds:.2f} s; {message}"


def _predictions(model: Any, parts: Parts) -> str:
    """Return a CSV with a line for every row of the table, rows counted from 1."""
    table = parts.table
    part = np.full(table.target.size, "train", dtype=object)
    part[parts.test] = "test"
    header = ["row", "part", "target", "predicted"]
    columns: list[Any] = [range(1, table.target.size + 1), part, table.target, model.predict(table.X)]
    if hasattr(model, "classes_") and hasattr(model, "predict_proba"):
        header += [f"p({label})" for label in model.classes_]
        columns += [[f"{p:.6g}" for p in column] for column in model.predict_proba(table.X).T]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue()
