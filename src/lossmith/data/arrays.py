"""NumPy archives and IDX images."""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lossmith.data.table import Table, one_line
from lossmith.errors import DataError

_ARRAY_NAMES = (("x", "y"), ("data", "target"), ("images", "labels"))
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def load_arrays(path: Path) -> Table:
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {name.lower(): name for name in archive.files}
            pair = next((p for p in _ARRAY_NAMES if p[0] in found and p[1] in found), None)
            if pair is None:
                expected = "; ".join(" and ".join(p) for p in _ARRAY_NAMES)
                held = ", ".join(archive.files) or "nothing"
                raise DataError(f"{path.name} holds {held}; expected arrays named {expected}.")
            images, labels = (archive[found[name]] for name in pair)
    except DataError:
        raise
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"cannot read {path} as .npz: {one_line(error)}.") from error
    return _from_arrays(images, labels, path.name)


def _from_arrays(images: NDArray[Any], labels: NDArray[Any], name: str) -> Table:
    """Flatten, scale and pair two arrays."""
    if images.dtype.kind not in "biuf":
        raise DataError(f"the features of {name} are {images.dtype}; expected numbers.")
    if images.ndim < 1 or 0 in images.shape:
        raise DataError(f"the features of {name} have shape {images.shape}; expected (N, D) numbers.")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != images.shape[:1]:
        raise DataError(
            f"{name} pairs features of shape {images.shape} with targets of shape {labels.shape}; "
            f"expected ({images.shape[0]},) targets, one for each sample."
        )
    X = images.reshape(images.shape[0], -1)
    if images.dtype == np.uint8:
        X = X.astype(np.float32) / np.float32(255)
    elif images.dtype != np.float32:
        X = X.astype(np.float64)
    return Table(X, labels, tuple(f"x{k}" for k in range(X.shape[1])), name)


def load_idx(path: Path) -> Table:
    beside = _idx_neighbour(path)
    images_path, labels_path = (beside, path) if "idx1" in path.name.lower() else (path, beside)
    for missing in (images_path, labels_path):
        if not missing.exists():
            raise DataError(f"{path.name} needs its neighbour {missing.name}; put it beside it.")
    return _from_arrays(_read_idx(images_path), _read_idx(labels_path), images_path.name)


def _idx_neighbour(path: Path) -> Path:
    """Return the labels' path for images and the images' path for labels, gzipped or not."""
    name = path.name
    swaps = (("images", "labels"), ("idx3", "idx1"))
    if "idx1" in name.lower():
        swaps = (("labels", "images"), ("idx1", "idx3"))
    if not all(old in name for old, _ in swaps):
        raise DataError(
            f"the IDX file {name} should have {swaps[0][0]!r} in its name, as in "
            "train-images-idx3-ubyte.gz, for its neighbour to be found."
        )
    for old, new in swaps:
        name = name.replace(old, new)
    plain = name.removesuffix(".gz")
    options = (name, plain, plain + ".gz")
    return next((p for p in map(path.with_name, options) if p.exists()), path.with_name(name))


def _read_idx(path: Path) -> NDArray[Any]:
    """Read an IDX array (Y. LeCun, C. Cortes, C. Burges, "The MNIST database", file formats)."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as stream:
            content = stream.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {one_line(error)}.") from error
    dtype = _IDX_TYPES.get(content[2]) if len(content) >= 4 and content[:2] == b"\0\0" else None
    if dtype is None:
        raise DataError(
            f"{path.name} is not an IDX file: it begins with the bytes {content[:4].hex(' ')}; "
            "expected 00 00, a type code and the number of dimensions."
        )
    start = 4 + 4 * content[3]
    sizes = content[4 : min(start, len(content) // 4 * 4)]  # fewer than promised, if it ends early
    shape = tuple(int(n) for n in np.frombuffer(sizes, dtype=">u4"))
    need = start + math.prod(shape) * np.dtype(dtype).itemsize
    if len(shape) != content[3] or len(content) != need:
        raise DataError(
            f"{path.name} is damaged: its header promises shape {shape}, {need} bytes in all, but "
            f"it has {len(content)}; fetch it again."
        )
    array = np.frombuffer(content, dtype=dtype, offset=start).reshape(shape)
    return array.astype(array.dtype.newbyteorder("="))
