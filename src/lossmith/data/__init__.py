"""Load a table: a CSV or Parquet file, NumPy arrays, IDX images, or a bundled data set.

Everything ends as one :class:`Table` of finite floats and a target, or as a
:class:`~lossmith.errors.DataError` that says what was found, what was expected, where, and how to
mend it.  pandas, and scikit-learn are imported only by the loader that needs them.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lossmith.data.arrays import load_arrays, load_idx
from lossmith.data.columns import load_csv, load_parquet
from lossmith.data.table import Table, Task, alternatives, checked
from lossmith.errors import DataError

__all__ = ["BUNDLED", "Table", "load_table"]

#: Data sets that ship with scikit-learn, and what their numbers are divided by.
BUNDLED: dict[str, float] = {
    "digits": 16.0,
    "iris": 1.0,
    "wine": 1.0,
    "breast_cancer": 1.0,
    "diabetes": 1.0,
}

_TEXT_ENDINGS = (".csv", ".tsv", ".txt", ".data")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_PARQUET_ENDINGS = (".parquet", ".pq")
_IDX_NAME = re.compile(r"idx[13]", re.IGNORECASE)
_KINDS = (
    "a CSV file (.csv, .tsv, .txt, .data, also compressed), a Parquet file (.parquet), NumPy "
    f"arrays (.npz), IDX images (…images-idx3…), or one of {', '.join(BUNDLED)}"
)


def load_table(
    source: str | os.PathLike[str] = "digits",
    *,
    target: str | int | None = None,
    task: Task | None = None,
) -> Table:
    """Load samples and targets from a file or from a bundled data set.

    Parameters
    ----------
    source : str or path, default "digits"
        One of

        - a CSV or Parquet file; `target` names the column to predict, all others are features.
          The delimiter (comma, semicolon, tab or bar) is the one most frequent in the first line;
        - an ``.npz`` file with arrays named X and y, data and target, or images and labels
          (upper or lower case).  Images are flattened; uint8 numbers are divided by 255;
        - an IDX file, ``…images-idx3…``, gzipped or not, whose labels lie beside it under the same
          name with ``labels-idx1``.  Pixels are divided by 255;
        - the name of a data set that ships with scikit-learn: digits (divided by 16), iris, wine,
          breast_cancer, diabetes.
    target : str or int, optional
        For CSV and Parquet: the column's name.  In a CSV file without a header, its number, counted
        from 0; negative numbers count from the end.  A CSV file has no header if its first row
        holds a decimal number, or one whole number twice, or nothing but numbers (other than
        0, 1, 2, … or 1, 2, 3, …).
    task : {"classification", "regression"}, optional
        What the target is for.  "classification" requires two classes at least and refuses numbers
        with a fractional part; "regression" requires numbers.

    Returns
    -------
    Table
        Its features are float64, except pixels and float32 arrays, which are float32.  Constant
        columns are kept.

    Raises
    ------
    DataError
        If the source, its target or any of its values cannot be used.  Rows are counted from 1,
        without the header; blank lines are not rows.

    Examples
    --------
    >>> table = load_table("iris")
    >>> table.X.shape, table.feature_names[0]
    ((150, 4), 'sepal length (cm)')
    """
    text = os.fspath(source)
    path = Path(text).expanduser()
    loader = None if text in BUNDLED else _loader_for(path)
    if loader is not None:
        table = loader(path, target)
    elif target is not None:
        raise DataError(_no_column_needed(text, target))
    elif text in BUNDLED:
        table = _load_bundled(text)
    elif path.suffix.lower() == ".npz":
        table = load_arrays(path)
    else:
        table = load_idx(path)
    return checked(table, task)


def _loader_for(path: Path) -> Callable[[Path, str | int | None], Table] | None:
    """Return the loader of a file whose target is a column; None for the other kinds of file."""
    if not path.exists():
        raise DataError(_missing_file(path))
    if path.is_dir():
        raise DataError(f"{path} is a folder; expected {_KINDS}.")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes); expected {_KINDS}.")
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    ending = suffixes[-1] if suffixes else ""
    if ending in _TEXT_ENDINGS:
        return load_csv
    if ending in _PARQUET_ENDINGS:
        return load_parquet
    if ending == ".npz" or _IDX_NAME.search(path.name):
        return None
    raise DataError(f"cannot tell from its name what kind of file {path.name} is; expected {_KINDS}.")


def _missing_file(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {folder}, so no file {path}; expected {_KINDS}."
    here = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    near = difflib.get_close_matches(path.name, [*BUNDLED, *here], n=3, cutoff=0.5)
    hint = f"did you mean {alternatives(near)}?" if near else f"expected {_KINDS}."
    return f"there is no file {path} and no bundled data set of that name; {hint}"


def _no_column_needed(source: str, target: str | int) -> str:
    return (
        f"a target column ({target!r}) goes with CSV and Parquet files only; {source} brings its "
        "own targets, so leave the column out."
    )


def _load_bundled(name: str) -> Table:
    from sklearn import datasets

    bunch: Any = getattr(datasets, f"load_{name}")()
    target = bunch.target
    if hasattr(bunch, "target_names") and name != "digits":
        target = np.asarray(bunch.target_names, dtype=str)[target]
    feature_names = tuple(str(column) for column in bunch.feature_names)
    return Table(bunch.data / BUNDLED[name], target, feature_names, name)
