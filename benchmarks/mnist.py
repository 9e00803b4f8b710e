"""Read MNIST from a folder of IDX files, gzipped or not."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Literal

import numpy as np

UNSIGNED_BYTES = 0x08
PREFIXES = {"train": "train", "test": "t10k"}


def read_mnist(folder: Path, part: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """Read the images and labels of one part.

    Parameters
    ----------
    folder : path
        Holds `train-images-idx3-ubyte.gz` and so on, or a folder `mnist` that does.
    part : {"train", "test"}

    Returns
    -------
    x : ndarray of shape (n, 784), float32, in [0, 1]
    y : ndarray of shape (n,), int64
    """
    if (folder / "mnist").is_dir():
        folder = folder / "mnist"
    images = read_idx(_find(folder, f"{PREFIXES[part]}-images-idx3-ubyte"))
    labels = read_idx(_find(folder, f"{PREFIXES[part]}-labels-idx1-ubyte"))
    return images.reshape(len(images), -1).astype(np.float32) / 255, labels.astype(np.int64)


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes: a header that gives the shape, then the values."""
    raw = path.read_bytes()
    if path.suffix == ".gz":
        raw = gzip.decompress(raw)
    if raw[:2] != b"\0\0" or raw[2] != UNSIGNED_BYTES:
        raise ValueError(f"{path.name} is no IDX file of unsigned bytes.")
    n_dims = raw[3]
    shape = np.frombuffer(raw, dtype=">i4", count=n_dims, offset=4)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * n_dims).reshape(shape)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.exists():
            return path
    raise FileNotFoundError(f"`--data` must be a folder that holds {name}.gz.")
