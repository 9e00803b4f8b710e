"""The data sets of the paper's experiments, from local files or from openml.org.

The package contains no data. With a `folder`, files in their standard format are read, gzipped or
not, from it or from its subfolder named after the data set. Without one, scikit-learn downloads the
data set from openml.org and caches it in ``sklearn.datasets.get_data_home()``.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

Part = Literal["train", "test"]
Array = np.ndarray[Any, Any]

N_TRAIN = 60_000
_PREFIXES = {"train": "train", "test": "t10k"}
_UNSIGNED_BYTES = 0x08
_MUSHROOM_COLUMNS = 23


def load_mnist(part: Part, folder: str | os.PathLike[str] | None = None) -> tuple[Array, Array]:
    """Load the MNIST images of handwritten digits: 60,000 for training, 10,000 for testing.

    Parameters
    ----------
    part : {"train", "test"}
    folder : path, optional
        Contains ``train-images-idx3-ubyte`` and the other files, gzipped or not, directly or in a
        subfolder ``mnist``. None: download from openml.org.

    Returns
    -------
    x : ndarray of shape (n, 784), uint8
        Grey values from 0 to 255. Blundell et al. divide them by 126.
    y : ndarray of shape (n,), int64

    Raises
    ------
    FileNotFoundError
        If the folder lacks a file.
    ValueError
        If a file is damaged or has another format.
    ConnectionError
        If the data set cannot be downloaded.

    References
    ----------
    LeCun et al. (1998), "Gradient-based learning applied to document recognition".
    """
    return _images("mnist", "mnist_784", part, folder)


def load_fashion_mnist(
    part: Part, folder: str | os.PathLike[str] | None = None
) -> tuple[Array, Array]:
    """Load the images of clothes, which have the format of MNIST; see `load_mnist`.

    References
    ----------
    Xiao et al. (2017), "Fashion-MNIST: a novel image dataset for benchmarking machine learning".
    """
    return _images("fashion-mnist", "Fashion-MNIST", part, folder)


def load_mushroom(folder: str | os.PathLike[str] | None = None) -> tuple[Array, Array]:
    """Load the UCI mushroom data set: 22 attributes and the edibility of 8,124 mushrooms.

    Parameters
    ----------
    folder : path, optional
        Contains ``agaricus-lepiota.data``, gzipped or not, directly or in a subfolder
        ``mushroom``. None: download from openml.org.

    Returns
    -------
    x : ndarray of shape (8124, 117), float32
        One column per value that occurs: attribute by attribute, values in alphabetical order.
        A missing value, ``?``, is a category.
    is_edible : ndarray of shape (8124,), int64
        1 if the mushroom is edible.

    Raises
    ------
    FileNotFoundError, ValueError, ConnectionError
        As for `load_mnist`.
    """
    if folder is None:
        frame, kinds = _fetch("mushroom")
        rows = np.column_stack([np.asarray(kinds, dtype=str), *_texts(frame)])
    else:
        path = _find(Path(folder), "mushroom", "agaricus-lepiota.data")
        lines = _read(path).decode("ascii", errors="replace").splitlines()
        cells = [line.strip().split(",") for line in lines if line.strip()]
        if not cells or {len(row) for row in cells} != {_MUSHROOM_COLUMNS}:
            raise ValueError(f"{path} must have {_MUSHROOM_COLUMNS} columns in every line.")
        rows = np.array(cells)
    kinds, attributes = rows[:, 0], rows[:, 1:]
    is_edible = np.isin(kinds, ["e", "edible"])
    columns = [column[:, None] == np.unique(column) for column in attributes.T]
    return np.concatenate(columns, 1).astype(np.float32), is_edible.astype(np.int64)


def _images(
    name: str, openml_name: str, part: Part, folder: str | os.PathLike[str] | None
) -> tuple[Array, Array]:
    if part not in get_args(Part):
        raise ValueError(f"`part` must be one of {', '.join(get_args(Part))}, got {part!r}.")
    if folder is None:
        x, y = _fetch(openml_name)
        rows = slice(N_TRAIN) if part == "train" else slice(N_TRAIN, None)
        return np.asarray(x)[rows].astype(np.uint8), np.asarray(y)[rows].astype(np.int64)
    images, labels = (
        read_idx(_find(Path(folder), name, f"{_PREFIXES[part]}-{kind}-ubyte"))
        for kind in ("images-idx3", "labels-idx1")
    )
    if len(images) != len(labels):
        raise ValueError(f"{folder} contains {len(images)} images but {len(labels)} labels.")
    return images.reshape((len(images), -1)), labels.astype(np.int64)


def read_idx(path: str | os.PathLike[str]) -> Array:
    """Read an IDX file of unsigned bytes, gzipped or not: a header with the shape, then the values.

    Parameters
    ----------
    path : path

    Returns
    -------
    ndarray, uint8
        Of the shape given in the header.

    Raises
    ------
    ValueError
        If the file has another format or is truncated.
    """
    raw = _read(Path(path))
    if len(raw) < 4 or raw[:3] != bytes([0, 0, _UNSIGNED_BYTES]):
        raise ValueError(f"{path} must be an IDX file of unsigned bytes, but its header differs.")
    header, values = raw[4 : 4 + 4 * raw[3]], raw[4 + 4 * raw[3] :]
    shape = tuple(size for (size,) in struct.iter_unpack(">i", header[: len(header) // 4 * 4]))
    if len(shape) != raw[3] or len(values) != math.prod(shape):
        raise ValueError(
            f"{path} is damaged: its size does not match the shape {shape} in its header."
        )
    return np.frombuffer(values, dtype=np.uint8).reshape(shape).copy()


def _find(folder: Path, name: str, file: str) -> Path:
    for place in (folder, folder / name):
        for path in (place / f"{file}.gz", place / file):
            if path.is_file():
                return path
    raise FileNotFoundError(
        f"`folder` must contain {file} or {file}.gz, directly or in a subfolder {name!r}, got "
        f"{folder}. Omit `folder` to download the data set from openml.org."
    )


def _read(path: Path) -> bytes:
    raw = path.read_bytes()
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}.") from error


def _fetch(name: str) -> tuple[Any, Any]:
    """Download the columns and the target of a data set from openml.org."""
    from sklearn.datasets import fetch_openml

    try:
        bunch = fetch_openml(name, version=1, as_frame=name == "mushroom", parser="auto")
    except OSError as error:  # includes the errors of urllib
        raise ConnectionError(
            f"{name!r} could not be downloaded from openml.org ({error}). Offline, pass the "
            "`folder` with its files."
        ) from error
    return bunch.data, bunch.target


def _texts(frame: Any) -> Sequence[Array]:
    """Return the columns of a frame as strings, missing values as ``?``."""
    return [frame[name].astype(object).fillna("?").to_numpy().astype(str) for name in frame]
