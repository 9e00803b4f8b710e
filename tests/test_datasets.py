"""The paper's data sets, from files, gzipped or not, and from openml.org."""

import gzip
import struct
import urllib.error

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
from sklearn.utils import Bunch

from pyrobbb import datasets

IMAGES = np.random.default_rng(0).integers(256, size=(5, 3, 3), dtype=np.uint8)
LABELS = np.array([4, 0, 9, 1, 1], dtype=np.uint8)
MUSHROOMS = [
    "p,x,s,n,t,p,f,c,n,k,e,e,s,s,w,w,p,w,o,p,k,s,u",
    "e,x,s,y,t,a,f,c,b,k,e,?,s,s,w,w,p,w,o,p,n,n,g",
    "e,b,s,w,t,l,f,c,b,n,e,c,s,s,w,w,p,w,o,p,n,n,m",
]


def idx(values):
    header = struct.pack(">BBBB", 0, 0, 8, values.ndim) + struct.pack(
        f">{values.ndim}i", *values.shape
    )
    return header + values.tobytes()


def write_images(folder, part="t10k", pack=gzip.compress, end=".gz", labels=LABELS):
    folder.mkdir(exist_ok=True)
    (folder / f"{part}-images-idx3-ubyte{end}").write_bytes(pack(idx(IMAGES)))
    (folder / f"{part}-labels-idx1-ubyte{end}").write_bytes(pack(idx(labels)))


@pytest.mark.parametrize("load", [datasets.load_mnist, datasets.load_fashion_mnist])
@pytest.mark.parametrize(("pack", "end"), [(gzip.compress, ".gz"), (bytes, "")])
def test_images_are_rows_of_bytes_from_files_gzipped_or_not(load, pack, end, tmp_path):
    write_images(tmp_path, "t10k", pack, end)
    x, y = load("test", tmp_path)
    np.testing.assert_array_equal(x, IMAGES.reshape((5, 9)))
    np.testing.assert_array_equal(y, LABELS)
    assert (x.dtype, y.dtype) == (np.uint8, np.int64)


def test_the_files_may_be_in_a_folder_named_after_the_data_set(tmp_path):
    write_images(tmp_path / "mnist", "train")
    assert len(datasets.load_mnist("train", str(tmp_path))[0]) == 5


def test_an_unknown_part_and_missing_files_are_reported(tmp_path):
    write_images(tmp_path, "t10k")
    with pytest.raises(FileNotFoundError, match="`folder` must contain train-images-idx3-ubyte"):
        datasets.load_mnist("train", tmp_path)
    with pytest.raises(ValueError, match="`part` must be one of train, test, got 'valid'"):
        datasets.load_mnist("valid", tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-1], r"is damaged: its size does not match the shape \(5,\)"),
        (lambda raw: raw[:6], "is damaged"),
        (lambda raw: raw + b"1", "is damaged"),
        (lambda raw: b"\0\0\x0d" + raw[3:], "must be an IDX file of unsigned bytes"),
        (lambda raw: b"", "must be an IDX file of unsigned bytes"),
        (lambda raw: gzip.compress(raw)[:-9], "is damaged"),
    ],
    ids=["short", "no header", "long", "floats", "empty", "truncated gzip"],
)
def test_a_damaged_file_is_reported(damage, message, tmp_path):
    write_images(tmp_path, pack=bytes, end="")
    path = tmp_path / "t10k-labels-idx1-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"labels-idx1-ubyte {message}"):
        datasets.load_mnist("test", tmp_path)


def test_images_and_labels_must_have_the_same_length(tmp_path):
    write_images(tmp_path, labels=LABELS[:4])
    with pytest.raises(ValueError, match="contains 5 images but 4 labels"):
        datasets.load_mnist("test", tmp_path)


def test_mushrooms_have_one_column_per_value_of_each_attribute(tmp_path):
    (tmp_path / "agaricus-lepiota.data").write_text("\n".join(MUSHROOMS) + "\n")
    x, is_edible = datasets.load_mushroom(tmp_path)
    np.testing.assert_array_equal(is_edible, [0, 1, 1])
    cells = np.array([line.split(",")[1:] for line in MUSHROOMS])
    assert x.shape == (3, sum(len(set(column)) for column in cells.T))
    np.testing.assert_array_equal(x.sum(1), 22)
    np.testing.assert_array_equal(x[:, :2], [[0, 1], [0, 1], [1, 0]])  # b, x
    assert x.dtype == np.float32


def test_lines_must_have_the_same_number_of_cells(tmp_path):
    (tmp_path / "agaricus-lepiota.data").write_text("p,x,s\n")
    with pytest.raises(ValueError, match="must have 23 columns in every line"):
        datasets.load_mushroom(tmp_path)


def test_openml_has_the_same_mushrooms_as_the_file(tmp_path, monkeypatch):
    (tmp_path / "agaricus-lepiota.data").write_text("\n".join(MUSHROOMS))
    cells = np.array([line.split(",") for line in MUSHROOMS], dtype=object)
    cells[cells == "?"] = None  # as on openml.org
    frame = pd.DataFrame(cells[:, 1:]).astype("category")
    bunch = Bunch(data=frame, target=pd.Series(cells[:, 0]))
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", lambda *args, **kwargs: bunch)
    for fetched, read in zip(
        datasets.load_mushroom(), datasets.load_mushroom(tmp_path), strict=True
    ):
        np.testing.assert_array_equal(fetched, read)


def test_openml_has_the_training_images_first(monkeypatch):
    monkeypatch.setattr(datasets, "N_TRAIN", 3)
    bunch = Bunch(data=IMAGES.reshape((5, 9)).astype(float), target=LABELS.astype(str))
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", lambda *args, **kwargs: bunch)
    x, y = datasets.load_mnist("test")
    np.testing.assert_array_equal(x, IMAGES.reshape((5, 9))[3:])
    np.testing.assert_array_equal(y, LABELS[3:])
    assert (x.dtype, y.dtype) == (np.uint8, np.int64)
    assert len(datasets.load_mnist("train")[0]) == 3


def test_the_error_without_a_connection_names_the_remedy(monkeypatch):
    def fail(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fail)
    with pytest.raises(ConnectionError, match=r"could not be downloaded .* pass the `folder`"):
        datasets.load_mnist("test")
