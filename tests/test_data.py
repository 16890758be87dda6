"""Tables: what each kind of source gives, and the sentence that each kind of bad source gets."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lossmith.data import BUNDLED, Table, load_table
from lossmith.errors import DataError

Writer = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    def write_text(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_text


def refused(source: object, **options: object) -> str:
    """Return the sentence that loading gives."""
    with pytest.raises(DataError) as caught:
        load_table(source, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert message[-1] in ".?"
    return message


def idx(array: np.ndarray, code: int = 0x08) -> bytes:
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


# ------------------------------------------------------------------ bundled data sets


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("digits", (1797, 64), 10),
        ("iris", (150, 4), 3),
        ("wine", (178, 13), 3),
        ("breast_cancer", (569, 30), 2),
        ("diabetes", (442, 10), None),
    ],
)
def test_bundled_data_sets(name: str, shape: tuple[int, int], classes: int | None) -> None:
    table = load_table(name, task="regression" if classes is None else "classification")
    assert (table.name, table.X.shape, table.X.dtype) == (name, shape, np.float64)
    assert len(table.feature_names) == shape[1]
    assert table.target.shape == shape[:1]
    if classes is not None:
        assert np.unique(table.target).size == classes
    assert name in BUNDLED


def test_digits_are_the_default_and_lie_in_the_unit_interval() -> None:
    table = load_table()
    assert (table.X.min(), table.X.max()) == (0.0, 1.0)
    assert set(table.target) == set(range(10))
    assert set(load_table("iris").target) == {"setosa", "versicolor", "virginica"}


# ------------------------------------------------------------------ CSV and Parquet


def test_csv_with_header(write: Writer) -> None:
    table = load_table(write("a.csv", "height,kind,width\n1,a,2.5\n3,b,4\n"), target="kind")
    assert isinstance(table, Table)
    np.testing.assert_array_equal(table.X, [[1, 2.5], [3, 4]])
    assert list(table.target) == ["a", "b"]
    assert table.feature_names == ("height", "width")
    assert table.name == "a.csv"


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
def test_delimiter_is_found(write: Writer, sep: str) -> None:
    text = f'x{sep}"y, or ; what"{sep}z\n1{sep}2{sep}3\n4{sep}5{sep}6\n'
    table = load_table(write("a.csv", text), target="z")
    assert table.feature_names == ("x", "y, or ; what")
    np.testing.assert_array_equal(table.target, [3, 6])


@pytest.mark.parametrize("target", [-1, "-1", 2, "2"])
def test_csv_without_header(write: Writer, target: str | int) -> None:
    table = load_table(write("a.csv", "5.1,3.5,setosa\n4.9,3,virginica\n"), target=target)
    np.testing.assert_array_equal(table.X, [[5.1, 3.5], [4.9, 3]])
    assert list(table.target) == ["setosa", "virginica"]
    assert table.feature_names == ("0", "1")


@pytest.mark.parametrize(
    ("first", "header"),
    [
        ("a,b,c", True),
        ("Letter,1,2", True),
        ("0,1,2", True),
        ("1,2,3", True),
        ("2,3,4", False),
        ("7,0,1", False),
        ("T,2,2", False),
        ("-1,x,y", False),
        ("1.5,x,y", False),
        ("nan,0,x", False),
    ],
)
def test_header_is_told_from_data(write: Writer, first: str, header: bool) -> None:
    path = write("a.csv", f"{first}\n" + "5,6,7\n" * 3)
    message = refused(path, target="no such column")
    assert ("has no header" in message) == (not header)


def test_letters_as_published_without_header(write: Writer) -> None:
    table = load_table(write("letters.data", "T,2,8,3,5,1,8,13\nI,5,12,3,7,2,10,5\n"), target=0)
    assert table.X.shape == (2, 7)
    assert list(table.target) == ["T", "I"]


def test_compressed_csv_and_parquet_agree_with_csv(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": [1.5, 2, 3], "b": [True, False, True], "y": ["u", "v", "u"]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_csv(tmp_path / "t.csv.gz", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    tables = [load_table(tmp_path / f"t.{end}", target="y") for end in ("csv", "csv.gz", "parquet")]
    for table in tables:
        np.testing.assert_array_equal(table.X, [[1.5, 1], [2, 0], [3, 1]])
        assert list(table.target) == ["u", "v", "u"]
        assert table.X.dtype == np.float64


def test_nullable_and_categorical_columns(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(
        {
            "a": pd.array([1, 2, 3], dtype="Int64"),
            "y": pd.Categorical(["u", "v", "u"]),
            "n": pd.array([3, 1, 2], dtype="Int64"),
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    assert "column 'y' of t.parquet is not numeric" in refused(tmp_path / "t.parquet", target="n")
    frame[["a", "n"]].to_parquet(tmp_path / "n.parquet")
    target = load_table(tmp_path / "n.parquet", target="n").target
    assert (target.dtype.kind, list(target)) == ("i", [3, 1, 2])
    table = load_table(tmp_path / "t.parquet", target="y")
    np.testing.assert_array_equal(table.X, [[1, 3], [2, 1], [3, 2]])
    assert table.target.dtype.kind == "U"


def test_constant_columns_are_kept(write: Writer) -> None:
    table = load_table(write("a.csv", "a,b,y\n1,7,0\n2,7,1\n"), target="y", task="classification")
    np.testing.assert_array_equal(table.X[:, 1], [7, 7])


def test_letters(data_dir: Path) -> None:
    table = load_table(data_dir / "letter-recognition.csv", target="Letter", task="classification")
    assert table.X.shape == (20000, 16)
    assert list(table.target[:4]) == ["T", "I", "D", "N"]
    assert np.unique(table.target).size == 26


# ------------------------------------------------------------------ arrays and images


@pytest.mark.parametrize("names", [("X", "y"), ("x", "y"), ("data", "target"), ("images", "labels")])
def test_npz(tmp_path: Path, names: tuple[str, str]) -> None:
    path = tmp_path / "a.npz"
    X, y = np.array([[1.0, 2], [3, 4], [5, 6]], np.float32), np.array(["b", "a", "b"])
    np.savez(path, **{names[0]: X, names[1]: y[:, None]})
    table = load_table(path)
    assert table.X.dtype == np.float32
    np.testing.assert_array_equal(table.X, X)
    np.testing.assert_array_equal(table.target, y)


def test_npz_images_are_flattened_and_scaled(tmp_path: Path) -> None:
    images = np.array([[[0, 255], [51, 102]], [[1, 2], [3, 4]]], np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.array([3, 1]))
    table = load_table(tmp_path / "a.npz")
    assert table.X.dtype == np.float32
    np.testing.assert_array_equal(table.X[0], np.float32([0, 255, 51, 102]) / np.float32(255))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("start", ["images", "labels"])
def test_idx(tmp_path: Path, packed: bool, start: str) -> None:
    images = np.arange(24, dtype=np.uint8).reshape(4, 3, 2) * 10
    labels = np.array([1, 0, 2, 1], np.uint8)
    for array, name in ((images, "t-images-idx3-ubyte"), (labels, "t-labels-idx1-ubyte")):
        content = gzip.compress(idx(array)) if packed else idx(array)
        (tmp_path / (name + ".gz" * packed)).write_bytes(content)
    number = {"images": "idx3", "labels": "idx1"}[start]
    table = load_table(tmp_path / f"t-{start}-{number}-ubyte{'.gz' * packed}")
    np.testing.assert_array_equal(table.X, images.reshape(4, 6).astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(table.target, labels)


def test_idx_floats_are_big_endian_and_not_scaled(tmp_path: Path) -> None:
    images = np.array([[[1.5, -2]], [[3, 4]]], np.float32)
    (tmp_path / "images-idx3").write_bytes(idx(images, 0x0D))
    (tmp_path / "labels-idx1").write_bytes(idx(np.array([0, 300], np.int16), 0x0B))
    table = load_table(tmp_path / "images-idx3")
    np.testing.assert_array_equal(table.X, images[:, 0])
    assert table.X.dtype == np.float32
    assert list(table.target) == [0, 300]


def test_mnist(data_dir: Path) -> None:
    table = load_table(data_dir / "mnist-t10k-images-idx3-ubyte.gz", task="classification")
    assert table.X.shape == (10000, 784)
    assert (table.X.min(), table.X.max()) == (0, 1)
    assert list(table.target[:4]) == [7, 2, 1, 0]


# ------------------------------------------------------------------ what is refused, and how


def test_missing_file_suggests_names(write: Writer, tmp_path: Path) -> None:
    write("letters.csv", "a\n")
    assert "did you mean 'letters.csv'?" in refused(tmp_path / "leters.csv")
    assert "did you mean 'digits'?" in refused("digit")
    assert "no folder" in refused(tmp_path / "nowhere" / "a.csv")
    assert "is a folder" in refused(tmp_path)


def test_unknown_kind_and_empty_files(write: Writer) -> None:
    assert "expected a CSV file" in refused(write("a.docx", "x"))
    assert "empty (0 bytes)" in refused(write("a.csv", ""), target="x")
    assert "cannot read" in refused(write("blank.csv", "\n\n"), target="x")
    assert "0 rows" in refused(write("head.csv", "a,b\n"), target="a")


def test_missing_column_suggests_names(write: Writer) -> None:
    path = write("a.csv", "height,width,species\n1,2,a\n")
    assert "no column 'specis'; did you mean 'species'?" in refused(path, target="specis")
    assert "did you mean 'species'" in refused(path, target="Species")
    assert "'height', 'width' or 'species'" in refused(path)
    assert "include 'height', 'width' or 'species'" in refused(path, target="qqq")


def test_missing_column_without_header(write: Writer) -> None:
    path = write("a.csv", "1.5,2,3\n4,5,6\n")
    assert "its 3 columns are numbered 0 to 2: name the target" in refused(path)
    assert "no column 3" in refused(path, target=3)
    assert "no column 'y'" in refused(path, target="y")


def test_missing_values_are_counted_and_placed(write: Writer) -> None:
    path = write("a.csv", "a,b,y\n1,2,0\n3,,1\n5,NA,0\n7,8,\n")
    message = refused(path, target="a")
    assert "column 'b' of a.csv has missing values: 2 of 4 rows, the first in row 2" in message
    message = refused(path, target="y")
    assert "the target 'y' of a.csv has missing values: 1 of 4 rows, the first in row 4" in message


def test_text_column_is_named_with_its_first_value(write: Writer) -> None:
    path = write("a.csv", "a,colour,y\n1,2,0\n3,red,1\n5,blue,1\n")
    message = refused(path, target="y")
    assert "column 'colour' of a.csv is not numeric: row 2 holds 'red' (and 1 more)" in message
    assert "get_dummies" in message


def test_dates_are_not_numbers(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"day": pd.to_datetime(["2020-01-01", "2020-01-02"]), "y": [0, 1]})
    frame.to_parquet(tmp_path / "t.parquet")
    assert "column 'day' of t.parquet is not numeric" in refused(tmp_path / "t.parquet", target="y")


def test_infinite_values(write: Writer) -> None:
    message = refused(write("a.csv", "a,b,y\n1,2,0\n3,inf,1\n"), target="y")
    assert "inf in row 2, column 'b'" in message
    message = refused(write("b.csv", "a,b,y\n1,2,0\n3,4,-inf\n"), target="y")
    assert "-inf in row 2" in message


def test_target_must_fit_the_task(write: Writer) -> None:
    path = write("a.csv", "a,one,real,text\n1,x,0.5,u\n2,x,1.5,v\n")
    frame = pd.read_csv(path)
    for target in ("one", "real", "text"):
        frame[["a", target]].to_csv(path.with_name(f"{target}.csv"), index=False)
    folder = path.parent
    message = refused(folder / "one.csv", target="one", task="classification")
    assert "one class only, 'x', in all 2 rows" in message
    message = refused(folder / "real.csv", target="real", task="classification")
    assert "0.5 in row 1" in message
    message = refused(folder / "text.csv", target="text", task="regression")
    assert "'u' in row 1; regression needs numbers" in message
    assert load_table(folder / "real.csv", target="real", task="regression").target[1] == 1.5


def test_only_a_target_column(write: Writer) -> None:
    assert "only the target column 'y'" in refused(write("a.csv", "y\n1\n2\n"), target="y")


def test_target_column_belongs_to_tables_only() -> None:
    assert "digits brings its own targets" in refused("digits", target="y")


def test_ragged_csv_and_wrong_parquet(write: Writer) -> None:
    assert "cannot read" in refused(write("a.csv", "a,b\n1,2\n3,4,5,6\n"), target="a")
    pytest.importorskip("pyarrow")
    assert "as Parquet" in refused(write("a.parquet", "no"), target="a")


def test_bad_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"nonsense")
    assert "cannot read" in refused(path)
    np.savez(path, weights=np.ones(3))
    assert "holds weights; expected arrays named x and y" in refused(path)
    np.savez(path, X=np.ones((3, 2)), y=np.ones(2))
    assert "(3, 2) with targets of shape (2,)" in refused(path)
    np.savez(path, X=np.array(["a", "b"]), y=np.ones(2))
    assert "expected numbers" in refused(path)
    np.savez(path, X=np.array([1, None]), y=np.ones(2))
    assert "cannot read" in refused(path)
    np.savez(path, X=np.ones((0, 2)), y=np.ones(0))
    assert "shape (0, 2)" in refused(path)


def test_bad_idx(tmp_path: Path) -> None:
    images, labels = tmp_path / "t-images-idx3-ubyte", tmp_path / "t-labels-idx1-ubyte"
    good = idx(np.zeros((2, 2, 2), np.uint8))
    images.write_bytes(good)
    assert "needs its neighbour t-labels-idx1-ubyte" in refused(images)
    labels.write_bytes(idx(np.array([0, 1, 2], np.uint8)))
    assert "targets of shape (3,)" in refused(images)
    for broken in (good[:-1], good + b"x", good[:9]):
        images.write_bytes(broken)
        assert "damaged" in refused(images)
    for broken in (b"PK\x03\x04", b"\x00\x00", b"\x00\x00\x07\x01" + b"\x00" * 8):
        images.write_bytes(broken)
        assert "not an IDX file" in refused(images)
    images.write_bytes(gzip.compress(good)[:-9])
    assert "cannot read" in refused(images)
    (tmp_path / "strange-idx3").write_bytes(good)
    assert "should have 'images' in its name" in refused(tmp_path / "strange-idx3")


def test_table_is_frozen() -> None:
    with pytest.raises(AttributeError):
        load_table("iris").name = "other"  # type: ignore[misc]
