"""Data larger than memory: rows read from files in chunks, and shuffled through a buffer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .data import ArrayLike, check_count

CHUNK_BYTES = 2**22
"""Of a chunk of a memory-mapped array: large enough to be read fast, small enough to be mixed."""
PIECE_ROWS = 2**16
"""Rows of a parquet file that are held at once before they go into the buffer."""

Pair = tuple[np.ndarray, np.ndarray]


class Rows(Protocol):
    """Rows of x and y that are read chunk by chunk."""

    @property
    def n_data(self) -> int:
        """Number of rows."""
        ...

    @property
    def n_chunks(self) -> int:
        """Number of chunks."""
        ...

    def read(self, chunk: int) -> Iterator[tuple[str, Pair]]:
        """Give the rows of a chunk in pieces, each with what to call it in a message."""
        ...


class MappedRows:
    """Rows of arrays that lie in files, such as those of ``np.load(file, mmap_mode="r")``.

    Parameters
    ----------
    x, y : array of shape (n, ...)
        What slices give NumPy arrays.
    """

    def __init__(self, x: Any, y: Any) -> None:
        if len(x) != len(y):
            raise ValueError(f"`x` and `y` must have one row each: got {len(x)} and {len(y)} rows.")
        if not len(x):
            raise ValueError("`x` is empty: pass at least one row.")
        self.x, self.y = x, y
        self._n = len(x)
        row_bytes = max(int(np.prod(x.shape[1:])) * x.dtype.itemsize, 1)
        self._chunk = max(CHUNK_BYTES // row_bytes, 1)

    @property
    def n_data(self) -> int:
        """Number of rows."""
        return self._n

    @property
    def n_chunks(self) -> int:
        """Number of slices."""
        return -(-self._n // self._chunk)

    def read(self, chunk: int) -> Iterator[tuple[str, Pair]]:
        """Give the rows of a chunk."""
        first = chunk * self._chunk
        own = slice(first, min(first + self._chunk, self.n_data))
        yield f"rows {own.start} to {own.stop - 1}", (np.array(self.x[own]), np.array(self.y[own]))


class Parquet:
    """Rows of parquet files, for `fit` and `Posterior.predict_chunks`; needs pyarrow.

    Parameters
    ----------
    paths : path-like or sequence of path-like
        Files with the same columns.
    target : str or sequence of str, optional
        Column that y is, of shape (n,); or columns, of shape (n, k). Needed to fit.
    columns : sequence of str, optional
        Those that x is, in this order. None: all but the target.

    Attributes
    ----------
    n_data : int
        Rows in all files, from their metadata.

    Raises
    ------
    ImportError
        If pyarrow is not there.
    ValueError
        If a file is none, has other columns, or has columns that hold no numbers.
    """

    def __init__(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        target: str | Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        many = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        if not many:
            raise ValueError("`paths` must name at least one file, got none.")
        self.paths = [Path(path) for path in many]
        self.target = target
        targets = [] if target is None else [target] if isinstance(target, str) else list(target)
        self._chunks: list[tuple[int, int]] = []
        self.n_data = 0
        for i, path in enumerate(self.paths):
            file = self._open(path)
            names = file.schema_arrow.names
            if i == 0:
                given = [name for name in names if name not in targets]
                self.columns = list(given if columns is None else columns)
            for name in (*self.columns, *targets):
                if name not in names:
                    raise ValueError(f"`paths`: {str(path)!r} has no column {name!r}.")
                _check_numeric(path, name, file.schema_arrow.field(name).type)
            self._chunks += [(i, group) for group in range(file.num_row_groups)]
            self.n_data += file.metadata.num_rows
        self._targets = targets
        if not self.n_data:
            raise ValueError(f"`paths`: {', '.join(map(str, self.paths))} have no rows.")

    @property
    def n_chunks(self) -> int:
        """Number of row groups."""
        return len(self._chunks)

    def read(self, chunk: int) -> Iterator[tuple[str, Pair]]:
        """Give the rows of a row group in pieces."""
        if self.target is None:
            raise ValueError("`target` of Parquet must name the column to learn, got None.")
        i, group = self._chunks[chunk]
        first = 0
        for values in self._pieces(i, group, [*self.columns, *self._targets]):
            y = values[:, len(self.columns) :]
            pair = values[:, : len(self.columns)], y[:, 0] if isinstance(self.target, str) else y
            last = first + len(values) - 1
            yield f"{str(self.paths[i])!r}, row group {group}, rows {first} to {last}", pair
            first = last + 1

    def in_order(self, n_rows: int) -> Iterator[np.ndarray]:
        """Give x in the order of the files, some rows at a time."""
        held = np.empty((0, len(self.columns)), np.float32)
        for i, group in self._chunks:
            for piece in self._pieces(i, group, self.columns):
                held = np.concatenate([held, piece]) if len(held) else piece
                while len(held) >= n_rows:
                    yield held[:n_rows].copy()
                    held = held[n_rows:]
        if len(held):
            yield held.copy()

    def _pieces(self, i: int, group: int, names: list[str]) -> Iterator[np.ndarray]:
        # One row group of a file that is opened for it: pyarrow keeps what it has read of others.
        file = self._open(self.paths[i])
        for batch in file.iter_batches(PIECE_ROWS, row_groups=[group], columns=names):
            for name in names:
                if batch.column(name).null_count:
                    raise ValueError(
                        f"`paths`: {str(self.paths[i])!r} has missing values in the column "
                        f"{name!r}: fill them in or drop their rows."
                    )
            by_column = [batch.column(name).to_numpy(zero_copy_only=False) for name in names]
            yield np.stack(by_column, axis=1)

    def _open(self, path: Path) -> Any:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise ImportError(
                'Parquet files need pyarrow: pip install "pyrobbb[parquet]".'
            ) from error
        try:
            return pyarrow.parquet.ParquetFile(path)
        except pyarrow.ArrowInvalid as error:
            raise ValueError(f"`paths`: {str(path)!r} is no parquet file ({error}).") from error


def _check_numeric(path: Path, name: str, kind: Any) -> None:
    import pyarrow.types as types

    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise ValueError(
            f"`paths`: the column {name!r} of {str(path)!r} holds {kind}, no numbers: encode it, "
            "or leave it out by `columns`."
        )


class Shuffle:
    """An order of rows: chunks at random into a buffer, whose rows are given at random.

    A row may meet those of the chunks that are in the buffer with it. Chunks lie together in the
    file: rows sorted by what matters should be written in random order first, or be given a buffer
    that holds a good part of them.

    Parameters
    ----------
    rows : Rows
    seed : sequence of int
        The order depends on it alone.
    """

    def __init__(self, rows: Rows, seed: Sequence[int]) -> None:
        self._rows = rows
        self._random = np.random.default_rng(seed)

    def pieces(self) -> Iterator[tuple[str, Pair]]:
        """Give all rows, chunk after chunk."""
        for chunk in self._random.permutation(self._rows.n_chunks):
            yield from self._rows.read(int(chunk))

    def permutation(self, n: int) -> np.ndarray:
        """Give a random order of the rows in the buffer."""
        return self._random.permutation(n)


def chunks_of(x: Any, n_rows: int) -> Iterator[ArrayLike]:
    """Give rows in order, some at a time: of an array, of files, or of an iterable of arrays."""
    check_count("rows", n_rows)
    if isinstance(x, Parquet):
        yield from x.in_order(n_rows)
    elif hasattr(x, "shape") and hasattr(x, "__getitem__"):
        for first in range(0, len(x), n_rows):
            piece = x[first : first + n_rows]
            yield np.array(piece) if isinstance(piece, np.memmap) else piece
    else:
        yield from x
