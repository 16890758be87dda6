"""What stands on the command line, and the loss or function that it means.

An argument that is exactly a name of the catalogue or of a function means that; `@file` and `-` mean what
a file or the standard input holds; everything else is a formula.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from lossmith.cli.terminal import is_terminal, note, os_sentence
from lossmith.errors import FormulaError, LossmithError

if TYPE_CHECKING:
    from lossmith.functions import VectorFunction
    from lossmith.language.formula import Formula, Role
    from lossmith.loss import Loss

Command = TypeVar("Command", bound=Callable[..., Any])

_OTHER_NAMES = {
    "bce_with_logits": "logistic", "binary_cross_entropy": "bce", "ce": "cross_entropy",
    "crammer_singer": "multiclass_hinge", "hinge": "multiclass_hinge", "kl": "kl_divergence",
    "kld": "kl_divergence", "l1": "absolute_error", "l2": "squared_error", "log_loss": "logistic",
    "mae": "absolute_error", "mse": "squared_error", "nll_loss": "nll", "svm": "multiclass_hinge",
}  # fmt: skip
"""What people call them elsewhere."""


@dataclass(frozen=True)
class Given:
    """A loss or a function with the words that it was given by."""

    text: str
    value: Loss | VectorFunction
    named: bool

    @property
    def title(self) -> str:
        """The name, or the formula on one line, cut to some 60 characters."""
        if self.named:
            return self.value.name
        line = "; ".join(part.strip() for part in self.text.splitlines() if part.strip())
        return line if len(line) <= 60 else f"{line[:57]}…"

    @property
    def stem(self) -> str:
        """The beginning of the name of a file about it."""
        return self.value.name if self.named else "formula"


# ---------------------------------------------------------------- options


def with_names(command: Command) -> Command:
    """Give a command the options that set hyperparameters and roles."""
    command = click.option(
        "--input",
        "roles",
        multiple=True,
        metavar="NAME=ROLE[:DOMAIN]",
        help="The role of another name in a formula: scores, label or targets, with the domain real, unit, "
        "simplex, sign, nonnegative or positive. Repeatable.",
    )(command)
    return click.option(
        "-H",
        "--hyper",
        "hypers",
        multiple=True,
        metavar="NAME=VALUE",
        help="A hyperparameter: a number, or numbers with commas, one per class. Repeatable.",
    )(command)


def parse_hypers(given: Sequence[str]) -> dict[str, float | list[float]]:
    """Return the hyperparameters of `name=2.5` and `name=1,2,3`."""
    found: dict[str, float | list[float]] = {}
    for item in given:
        name, value = _split(item, "-H", "gamma=2")
        try:
            numbers = [float(part) for part in value.split(",")]
        except ValueError:
            raise click.UsageError(
                f"the value of -H {name} must be a number, or numbers with commas between them, not {value!r}"
            ) from None
        if name in found:
            raise click.UsageError(f"-H gives {name} twice")
        found[name] = numbers if "," in value else numbers[0]
    return found


def parse_roles(given: Sequence[str]) -> dict[str, Role]:
    """Return the roles of `name=targets:unit`."""
    from lossmith.language.formula import Domain, Role

    kinds, domains = ("scores", "label", "targets"), get_args(Domain)
    found: dict[str, Role] = {}
    for item in given:
        name, value = _split(item, "--input", "p=scores:unit")
        kind, _, domain = value.partition(":")
        if kind not in kinds:
            raise click.UsageError(f"the role of {name} must be one of {', '.join(kinds)}, not {kind!r}")
        if domain and domain not in domains:
            raise click.UsageError(f"the domain of {name} must be one of {', '.join(domains)}, not {domain!r}")
        found[name] = Role(kind, domain or "real")  # pyright: ignore[reportArgumentType]
    return found


def _split(item: str, option: str, example: str) -> tuple[str, str]:
    name, equals, value = (part.strip() for part in item.partition("="))
    if not (equals and name.isidentifier() and value):
        raise click.UsageError(f"{option} takes NAME=VALUE, such as {option} {example}, not {item!r}")
    return name, value


# ---------------------------------------------------------------- resolving


def resolve(arguments: Sequence[str], hypers: Sequence[str], roles: Sequence[str]) -> list[Given]:
    """Return the loss or vector function that each argument means, with its hyperparameters set.

    Each takes those of the hyperparameters and roles that it has; one that nobody takes is an error.
    """
    values, inputs = parse_hypers(hypers), parse_roles(roles)
    taken: set[str] = set()
    found = [_resolve_one(_text_of(argument), values, inputs, taken) for argument in arguments]
    for name in [*values, *inputs]:
        if name not in taken:
            raise click.UsageError(_not_taken(name, name in values, found))
    return found


def only_losses(found: Sequence[Given], task: str) -> list[Loss]:
    """Return the losses, where only losses will do; `task` says what for."""
    from lossmith.loss import Loss

    losses: list[Loss] = []
    for given in found:
        if not isinstance(given.value, Loss):
            raise FormulaError(
                f"{given.title} is a vector function, and {task} needs a loss: reduce it to one number "
                f"(sum, max, or an entry such as [y])."
            )
        losses.append(given.value)
    return losses


def _text_of(argument: str) -> str:
    """Return the formula or name that an argument holds or points to."""
    if argument == "-":
        if is_terminal(sys.stdin):
            note("type the formula, and end it with Ctrl-D on a line of its own")
        try:
            text = sys.stdin.read()
        except UnicodeDecodeError as error:
            raise FormulaError(
                f"cannot read the formula from the standard input: it is not UTF-8 ({error.reason})."
            ) from None
    elif argument.startswith("@"):
        path = Path(argument[1:]).expanduser()
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise FormulaError(f"cannot read the formula from {path}: it is not UTF-8 text.") from None
        except OSError as error:
            raise FormulaError(f"cannot read the formula: {os_sentence(error)}.") from None
    else:
        return argument.strip()
    return text.strip()


def _resolve_one(text: str, values: Mapping[str, Any], inputs: Mapping[str, Role], taken: set[str]) -> Given:
    from lossmith.functions import VECTOR_FUNCTIONS
    from lossmith.losses import CATALOGUE, resolve_loss

    if text in CATALOGUE:
        loss = resolve_loss(text)
        own = {h.name: values[h.name] for h in loss.definition.hypers if h.name in values}
        taken.update(own)
        return Given(text, loss.bind(**own) if own else loss, True)
    if text in VECTOR_FUNCTIONS:
        found = VECTOR_FUNCTIONS[text]
        taken.update(h.name for h in formula_of(found).hypers)
        return Given(text, found, True)
    words = set(re.findall(r"[^\W\d]\w*", text))
    names = {name: value for name, value in {**inputs, **values}.items() if name in words}
    taken.update(names)
    return Given(text, _read(text, names), False)


def formula_of(value: Loss | VectorFunction) -> Formula:
    """Return what was read of a loss or a function."""
    found: Any = value
    return found.definition if hasattr(found, "definition") else found._formula


def _read(text: str, names: Mapping[str, Any]) -> Loss | VectorFunction:
    """Read a formula; what cannot be read and looks like a name gets the name that is nearest."""
    from lossmith.functions import function
    from lossmith.language.reader import read
    from lossmith.loss import loss

    try:
        if read(text, **names).kind == "vector":
            return function(text, **names)
        return loss(text, **names)
    except FormulaError as error:
        raise _explained(error, text) from None


def _explained(error: FormulaError, text: str) -> LossmithError:
    """Return the error with a hint that fits the command line."""
    hint = error.hint or ""
    word = re.fullmatch(r"(\w[\w\- ]*?)\s*(\([^()]*\))?", text)
    if word and 1 < len(word[1]) < 60 and not (word[2] and hint.startswith("did you mean")):
        near = nearest(word[1], functions=not word[2])
        if near is not None:
            called = f"write {near} alone" if near == word[1] else f"did you mean {near}?"
            return FormulaError(f"there is no loss {text!r}: {called} (`lossmith list` shows all names)")
        if not word[2] and len(word[1]) > 2 and word[1].replace("-", "_").isidentifier():
            return FormulaError(f"{text!r} is neither a name that `lossmith list` shows nor a formula that can be read")
    unknown = re.match(r"unknown name (\w+)", error.message)
    if unknown and not hint.startswith("did you mean"):
        name = unknown.group(1)
        hint = f"give a hyperparameter its value with -H {name}=1.0, an input its role with --input {name}=targets"
    elif "lm.Scores" in hint:
        hint = "call an input s, or give its name that role: --input NAME=scores"
    return FormulaError(error.message, text=error.text, line=error.line, column=error.column, hint=hint or None)


def nearest(name: str, *, functions: bool = True) -> str | None:
    """Return the name of the catalogue (or of a function, too) that somebody may have meant."""
    from lossmith.functions import VECTOR_FUNCTIONS
    from lossmith.losses import CATALOGUE

    known = [*CATALOGUE, *(VECTOR_FUNCTIONS if functions else ())]
    plain = re.sub(r"[\s\-]+", "_", name.strip().lower())
    for candidate in (plain, _OTHER_NAMES.get(plain), plain.removesuffix("_loss")):
        if candidate in known:
            return candidate
    squeezed = {n.replace("_", ""): n for n in known}
    close = difflib.get_close_matches(plain.replace("_", ""), squeezed, n=1, cutoff=0.75)
    return squeezed[close[0]] if close else None


def _not_taken(name: str, is_hyper: bool, found: Sequence[Given]) -> str:
    if not is_hyper:
        return f"--input gives {name} a role, but no formula here uses that name"
    having: list[str] = []
    for given in found:
        names = [h.name for h in formula_of(given.value).hypers]
        having.append(f"{given.title} has {', '.join(names) if names else 'none'}")
    return f"there is no hyperparameter {name}: {'; '.join(having)}"
