"""What all commands share: how errors end, streams, progress, files to be written."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click

from lossmith.errors import DataError, LossmithError

FAILED, UNUSABLE, INTERRUPTED = 1, 2, 130
"""Exit statuses: a check failed, the input cannot be used, Ctrl-C (128 + SIGINT)."""

_BROKEN_PIPE = 141  # 128 + SIGPIPE, as every program gives that the signal ends
_OUR_FAULT = 70  # EX_SOFTWARE of sysexits.h: neither a failed check nor bad input

Report = Callable[[int, int, str], None]
"""Called with what is done, the total, and a text."""


class CommandLine(click.Group):
    """A group of commands whose every error is one sentence and an exit status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they were added, not by the alphabet."""
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [_protected(arg) for arg in args])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # so that a reader that went away is noticed here
        except OSError as error:
            if error.errno == errno.EPIPE:
                _leave_pipe(ctx)
            raise
        return result

    def main(self, *args: Any, **extra: Any) -> NoReturn:  # pyright: ignore[reportIncompatibleMethodOverride]
        extra["standalone_mode"] = False
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            status = self._status(*args, **extra)
        sys.exit(status)

    def _status(self, *args: Any, **extra: Any) -> int:
        try:
            status = super().main(*args, **extra)
        except click.exceptions.NoArgsIsHelpError as shown:
            click.echo(shown.ctx.get_help() if shown.ctx else str(shown))
            return 0
        except click.Abort:
            return _fail("interrupted", INTERRUPTED)
        except click.UsageError as error:
            return _fail(_with_help(error), UNUSABLE)
        except click.ClickException as error:
            return _fail(error.format_message(), UNUSABLE)
        except LossmithError as error:
            return _fail(str(error), UNUSABLE)
        except OSError as error:
            return _fail(os_sentence(error), UNUSABLE)
        except MemoryError:
            return _fail("there is not enough memory for this", UNUSABLE)
        except Exception as error:
            if os.environ.get("LOSSMITH_DEBUG"):
                raise
            said = textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" …")
            hint = "this is a fault of lossmith; with LOSSMITH_DEBUG=1 it shows where"
            return _fail(f"{said} ({hint})", _OUR_FAULT)
        return status if isinstance(status, int) else 0


_OPTIONS_OF_ONE_LETTER = "hHo"


def _protected(arg: str) -> str:
    """Return an argument that is no option but a formula, such as -log(p[y]), with a blank before it.

    click takes what begins with a minus sign for options; who reads formulas strips blanks.
    """
    if not re.match(r"-[^-\d]", arg) or (len(arg) == 2 and arg != "-s"):
        return arg
    attached = arg[1] in _OPTIONS_OF_ONE_LETTER and not re.search(r"[(\[]", arg)  # -ofigure.svg
    return arg if attached else f" {arg}"


def _fail(sentence: str, status: int) -> int:
    with contextlib.suppress(OSError):
        click.echo(f"lossmith: {sentence}", err=True)
    return status


def _with_help(error: click.UsageError) -> str:
    said = error.format_message().rstrip(".")
    said = said[:1].lower() + said[1:]
    if error.ctx is None:
        return said
    return f"{said} (see {error.ctx.command_path} --help)"


def os_sentence(error: OSError) -> str:
    """Return what the system says of a file, as part of a sentence."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{reason[0].lower()}{reason[1:]}: {error.filename}" if error.filename else reason


def _leave_pipe(ctx: click.Context) -> NoReturn:
    # What is still in the buffer would fail once more when Python flushes it on its way out.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    ctx.exit(_BROKEN_PIPE)


def _show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any) -> None:
    note(" ".join(str(message).split()))


def note(sentence: str) -> None:
    """Say something beside the result: on the standard error stream."""
    click.echo(f"note: {sentence}", err=True)


def examples(*lines: str) -> str:
    """Return the examples at the end of a command's help, which click is to leave as they are."""
    title = "Examples:" if len(lines) > 1 else "Example:"
    return "\b\n" + "\n  ".join((title, *lines))


# ---------------------------------------------------------------- streams


def prepare_streams() -> None:
    """Read and write UTF-8 whatever the locale: derivations are full of ∂ and Σ."""
    read_as_utf8 = getattr(sys.stdin, "reconfigure", None)
    if read_as_utf8 is not None:
        read_as_utf8(encoding="utf-8", errors="strict")
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a stream that somebody put there may have none
            reconfigure(encoding="utf-8", errors="backslashreplace")


def arguments_in_utf8() -> list[str]:
    """Return the arguments; what the locale could not read, read as UTF-8 if it is that."""
    found: list[str] = []
    for arg in sys.argv[1:]:
        try:
            found.append(os.fsencode(arg).decode("utf-8"))
        except UnicodeError:
            found.append(arg)
    return found


def print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print the version and leave."""
    if wanted and not ctx.resilient_parsing:
        from lossmith import __version__

        click.echo(f"lossmith {__version__}")
        ctx.exit()


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at a stream."""
    return stream.isatty()


def width_of(stream: TextIO) -> int | None:
    """Return how many columns a stream shows; None where nothing limits them."""
    return shutil.get_terminal_size().columns if is_terminal(stream) else None


# ---------------------------------------------------------------- progress


@contextlib.contextmanager
def progress_display(title: str, shown: bool | None = None) -> Generator[Report, None, None]:
    """Show a bar on the standard error stream, and yield what moves it.

    Parameters
    ----------
    title : str
    shown : bool, optional
        By default, if the stream is a terminal.
    """
    if not (is_terminal(sys.stderr) if shown is None else shown):
        yield lambda done, total, text: None
        return
    # rich takes some 50 ms to import, which a command without a bar need not pay.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn())
    said = TextColumn("{task.fields[text]}", markup=False)
    console = Console(stderr=True)
    with Progress(*columns, said, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None, text="")

        def report(done: int, total: int, text: str) -> None:
            # What does not fit on the line would break the bar into two.
            room = max(console.width - len(title) - 45, 0)
            bar.update(task, completed=done, total=total, text=text[:room])

        yield report


# ---------------------------------------------------------------- files


def writable(path: str | Path, endings: Sequence[str] = ()) -> Path:
    """Return the path of a file to be written, or refuse it before any work is done.

    Raises
    ------
    DataError
        If its folder is not there, it cannot be written to, or the ending is not one of `endings`.
    """
    path = Path(path).expanduser()
    folder = path.parent
    if endings and path.suffix.lower() not in endings:
        got = f"not {path.suffix}" if path.suffix else "but it has no ending"
        raise DataError(f"cannot write {path}: its name must end in {_either(endings)}, {got}.")
    if path.is_dir():
        raise DataError(f"cannot write {path}: it is a folder; give the name of a file.")
    if not folder.is_dir():
        raise DataError(f"cannot write {path}: there is no folder {folder}.")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise DataError(f"cannot write {path}: permission denied.")
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8, whole or not at all."""
    if path.exists() and not path.is_file():  # /dev/stdout and the like, which nothing may replace
        path.write_text(text, encoding="utf-8")
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
