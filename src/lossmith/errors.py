"""What lossmith raises: one family, each message saying what was got, what was expected and how to mend it."""

from __future__ import annotations


class LossmithError(Exception):
    """Base of every error that lossmith raises on purpose."""


class FormulaError(LossmithError, ValueError):
    """A loss that cannot be read: bad text, an unknown name, shapes that do not fit.

    Parameters
    ----------
    message : str
        What is wrong, in one sentence.
    text : str, optional
        The formula, as the user wrote it.
    line, column : int, optional
        Where, both counted from 1; the message then shows that line with a caret below it.
    hint : str, optional
        How to mend it.
    """

    def __init__(
        self,
        message: str,
        *,
        text: str | None = None,
        line: int | None = None,
        column: int | None = None,
        hint: str | None = None,
    ) -> None:
        self.message, self.text, self.line, self.column, self.hint = message, text, line, column, hint
        super().__init__(self._render())

    def _render(self) -> str:
        parts = [self.message]
        if self.text is not None and self.line is not None and self.column is not None:
            source = self.text.splitlines()[self.line - 1] if self.text else ""
            # A long line is cut around the caret, so that the caret stays under what it means.
            start = max(0, self.column - 61)
            shown = source[start : start + 100]
            lead = "… " if start else ""
            parts[0] += f" (line {self.line}, column {self.column})"
            parts += [f"    {lead}{shown}", "    " + " " * (len(lead) + self.column - 1 - start) + "^"]
        if self.hint:
            parts.append(self.hint)
        return "\n".join(parts)


class ShapeError(LossmithError, ValueError):
    """Arrays whose shapes or dtypes do not fit the loss."""


class LabelError(LossmithError, ValueError):
    """A label outside [0, K), or of a type that is no label."""


class DomainError(LossmithError, ValueError):
    """A value outside the domain of the loss: a negative weight, targets that are no distribution."""


class DataError(LossmithError, ValueError):
    """A table that cannot be used: a missing file or column, missing values, text where numbers go."""


class UnsupportedError(LossmithError):
    """Something that the loss does not have, such as a low-rank Hessian of a sum over class pairs."""
