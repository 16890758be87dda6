"""CSV and Parquet files: one column is the target, the others are features."""

from __future__ import annotations

import difflib
import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lossmith.data.table import Table, alternatives, one_line
from lossmith.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def load_csv(path: Path, target: str | int | None) -> Table:
    import pandas as pd

    try:
        # Reading one row with each delimiter, rather than counting characters, respects quotes.
        rows = {
            sep: pd.read_csv(path, sep=sep, header=None, nrows=1, dtype=str, keep_default_na=False) for sep in ",;\t|"
        }
        delimiter = max(rows, key=lambda sep: rows[sep].shape[1])
        header = _is_header([str(cell) for cell in rows[delimiter].iloc[0]])
        frame = pd.read_csv(path, sep=delimiter, header=0 if header else None, index_col=False, low_memory=False)
    except (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read {path} as CSV: {one_line(error)}.") from error
    return _from_frame(frame, path, target, numbered=not header)


def _is_header(cells: Sequence[str]) -> bool:
    """Tell a row of column names from a row of data (the rule is in `load_table`)."""
    numbers = [cell.strip() for cell in cells if _is_number(cell)]
    if any(not number.isdigit() for number in numbers) or len(set(numbers)) < len(numbers):
        return False
    if len(numbers) < len(cells):
        return True
    first = int(numbers[0])
    return len(numbers) > 1 and first in (0, 1) and numbers == [str(k) for k in range(first, first + len(numbers))]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def load_parquet(path: Path, target: str | int | None) -> Table:
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except ImportError as error:
        raise DataError(f"reading {path} needs pyarrow: pip install pyarrow.") from error
    except (ValueError, OSError) as error:  # pyarrow.ArrowInvalid is a ValueError
        raise DataError(f"cannot read {path} as Parquet: {one_line(error)}.") from error
    return _from_frame(frame, path, target, numbered=False)


def _from_frame(frame: pd.DataFrame, path: Path, target: str | int | None, *, numbered: bool) -> Table:
    """Split a frame into features and target."""
    names = [str(column) for column in frame.columns]
    if frame.empty:
        raise DataError(f"{path} has no rows of data: found {len(names)} columns and {len(frame)} rows.")
    position = _target_position(names, path, target, numbered=numbered)
    features = frame.iloc[:, [k for k in range(len(names)) if k != position]]
    if features.shape[1] == 0:
        raise DataError(f"{path} has only the target column {names[position]!r}; expected one feature at least.")
    labels = frame.iloc[:, position]
    _refuse_missing(np.asarray(labels.isna(), dtype=bool), f"the target {names[position]!r}", path.name)
    X = np.empty(features.shape, dtype=np.float64, order="C")
    for k in range(features.shape[1]):
        X[:, k] = _numbers(features.iloc[:, k], path.name)
    feature_names = tuple(name for k, name in enumerate(names) if k != position)
    return Table(X, _plain_target(labels), feature_names, path.name)


def _target_position(names: Sequence[str], path: Path, target: str | int | None, *, numbered: bool) -> int:
    """Find the target column, by name or, in a file without header, by number."""
    count = len(names)
    if numbered:
        having = f"{path.name} has no header, so its {count} columns are numbered 0 to {count - 1}"
        try:
            number = count - 1 if target is None else int(target)
        except ValueError:
            number = count
        if target is None or not -count <= number < count:
            got = "name the target" if target is None else f"there is no column {target!r}; name one"
            raise DataError(f"{having}: {got} by its number (the last is {count - 1}).")
        return number % count
    if target is None:
        listed = alternatives(names if count <= 12 else [*names[:6], "…", *names[-3:]])
        raise DataError(f"{path.name} needs a target column; it has {listed}.")
    wanted = str(target)
    if wanted in names:
        return names.index(wanted)
    lower = {name.strip().casefold(): name for name in names}
    near = difflib.get_close_matches(wanted.strip().casefold(), lower, n=3, cutoff=0.4)
    listed = alternatives([lower[key] for key in near] if near else names[:8])
    hint = f"did you mean {listed}?" if near else f"its {count} columns include {listed}."
    raise DataError(f"{path.name} has no column {wanted!r}; {hint}")


def _numbers(column: Any, source: str) -> NDArray[np.float64]:
    """Return a column as floats; a cell that is no number is an error."""
    import pandas as pd

    values = column
    if not (pd.api.types.is_numeric_dtype(column.dtype) and column.dtype.kind != "c"):
        empty = np.asarray(column.isna(), dtype=bool)
        converted: Any = pd.to_numeric(column.astype(object), errors="coerce")
        timelike = getattr(column.dtype, "kind", "O") in "mM"
        bad = np.flatnonzero(~empty & (timelike | np.asarray(converted.isna(), dtype=bool)))
        if bad.size:
            row = int(bad[0])
            more = f" (and {bad.size - 1} more)" if bad.size > 1 else ""
            raise DataError(
                f"column {column.name!r} of {source} is not numeric: row {row + 1} holds "
                f"{str(column.iat[row])!r}{more}; encode it as numbers (for example with "
                "pandas.get_dummies) or leave the column out."
            )
        values = converted
    floats = values.to_numpy(dtype=np.float64, na_value=math.nan)
    _refuse_missing(np.isnan(floats), f"column {column.name!r}", source)
    return floats


def _refuse_missing(missing: NDArray[np.bool_], what: str, source: str) -> None:
    rows = np.flatnonzero(missing)
    if rows.size:
        raise DataError(
            f"{what} of {source} has missing values: {rows.size} of {missing.size} rows, the first "
            f"in row {rows[0] + 1}; fill them in or drop them (pandas.DataFrame.fillna, dropna)."
        )


def _plain_target(labels: Any) -> NDArray[Any]:
    """Return a target column as an array that sorts: numbers, booleans, or strings."""
    kind = getattr(labels.dtype, "kind", "O")
    if kind in "biuf" and isinstance(labels.dtype, np.dtype):
        return labels.to_numpy()
    values = labels.to_numpy(dtype=object)
    for numeric in (bool, int, float):  # pandas' nullable numbers arrive as Python's
        if all(type(value) is numeric for value in values):
            return values.astype(numeric)
    return values.astype(str)
