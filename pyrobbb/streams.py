"""Data larger than memory: rows read from files in chunks and shuffled in a buffer."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ._core import trees
from ._core.arrays import ArrayLike, as_count
from ._core.messages import shown

logger = logging.getLogger(__name__)

CHUNK_BYTES = 2**22
"""Size of a chunk of a memory-mapped array: large enough to read fast, small enough to shuffle."""
PIECE_ROWS = 2**13
"""Number of rows of a parquet file that are read at a time before they go into the buffer."""
READER_BYTES, COLUMN_BYTES, PAGE_BYTES = 2**26, 2**18, 2**20
"""Measured memory use of pyarrow, fixed and per column, and its default page size."""
CHUNK_ROWS = 2**16
"""Maximum number of rows per chunk of a prediction."""
CHUNK_COPIES = 3
"""Copies of a chunk of x in memory: as read, in the prediction, and in the previous prediction,
which the caller may still hold."""

N_SAMPLES, SAMPLE_BYTES = 16, 2**16
"""Number and size of the parts of a file that represent its content."""

Pair = tuple[Any, np.ndarray]  # x, an array or nested tuples and dicts of arrays, and y


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
        """Yield the rows of a chunk in pieces, each with its description for messages."""
        ...

    def content(self) -> dict[str, Any]:
        """Return samples of the rows or files, and the times of the files."""
        ...


class MappedRows:
    """Rows of arrays in files, such as those of ``np.load(file, mmap_mode="r")``.

    Parameters
    ----------
    x, y : array of shape (n, ...); x also nested tuples and dicts of them
        Arrays whose slices are NumPy arrays.
    """

    def __init__(self, x: Any, y: Any) -> None:
        trees.check_equal_rows("x", x)
        trees.check_same_length(x, y)
        if not trees.n_rows(x):
            raise ValueError("`x` is empty: pass at least one row.")
        self.x, self.y = x, y
        self._n = trees.n_rows(x)
        row_bytes = max(trees.row_bytes(x), 1)
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
        """Yield the rows of a chunk."""
        first = chunk * self._chunk
        end = min(first + self._chunk, self.n_data)
        x = trees.map_arrays(np.array, trees.rows_of(self.x, slice(first, end)))
        pair = x, np.array(self.y[first:end])
        yield f"rows {first} to {end - 1}", pair

    def content(self) -> dict[str, Any]:
        """Return rows of x and y, and the sizes and times of files of which not all rows are."""
        times = []

        def sampled(array: Any) -> Any:
            if not isinstance(array, np.memmap):
                return array
            size = max(SAMPLE_BYTES * len(array) // max(array.nbytes, 1), 1)
            parts = _samples(len(array), size)
            if len(parts) > 1 and array.filename is not None:
                times.append(_size_and_time(Path(array.filename)))
            return [np.array(array[part]) for part in parts]

        x, y = trees.map_arrays(sampled, self.x), sampled(self.y)
        return {"x": x, "y": y, "files of x": times}


class Parquet:
    """Rows of parquet files, for `fit` and `Posterior.predict_chunks`; needs pyarrow.

    Parameters
    ----------
    paths : path-like or sequence of path-like
        Files with the same columns.
    target : str or sequence of str, optional
        Name of the column of y, for y of shape (n,), or names of the columns, for y of shape
        (n, k). Required by `fit`.
    columns : sequence of str, optional
        Names of the columns of x, in this order. None: all but the target.

    Attributes
    ----------
    n_data : int
        Number of rows in all files, from their metadata.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    ValueError
        If a file is not a parquet file, lacks a column, or has a column that is not numeric.
    """

    def __init__(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        target: str | Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        as_list = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        if not as_list:
            raise ValueError("`paths` must name at least one file, got none.")
        self.paths = [Path(path) for path in as_list]
        self.target = target
        targets = [] if target is None else [target] if isinstance(target, str) else list(target)
        self._chunks: list[tuple[int, int, int]] = []  # file, row group, rows
        self._metadata: list[Any] = []  # of each file
        for i, path in enumerate(self.paths):
            file = self._open(path)
            self._metadata.append(file.metadata)
            names = file.schema_arrow.names
            if i == 0:
                others = [name for name in names if name not in targets]
                self.columns = list(others if columns is None else columns)
            for name in (*self.columns, *targets):
                if name not in names:
                    raise ValueError(f"`paths`: {str(path)!r} has no column {name!r}.")
                _check_numeric(path, name, file.schema_arrow.field(name).type)
            for group in range(file.num_row_groups):
                if n_rows := file.metadata.row_group(group).num_rows:
                    self._chunks.append((i, group, n_rows))
        self.n_data = sum(n_rows for _, _, n_rows in self._chunks)
        self._targets = targets
        if not self.n_data:
            raise ValueError(f"`paths`: {', '.join(map(str, self.paths))} have no rows.")

    @property
    def n_chunks(self) -> int:
        """Number of row groups."""
        return len(self._chunks)

    @property
    def reader_bytes(self) -> int:
        """Estimated memory use of pyarrow while it reads x: page and dictionary of each column."""
        largest = 0
        for i, group, _ in self._chunks:
            metadata = self._metadata[i]
            per_column = metadata.row_group(group).total_byte_size // metadata.num_columns
            largest = max(largest, per_column)
        return READER_BYTES + len(self.columns) * (COLUMN_BYTES + 2 * min(largest, PAGE_BYTES))

    def check_target(self, y: Tensor) -> None:
        """Raise unless the target has as many dimensions as the network's y."""
        n_dims = 1 if isinstance(self.target, str) else 2
        if n_dims != y.dim():
            first = self._targets[0]
            requirement, shape, remedy = (
                ("a list of columns", "(n, k)", [first])
                if n_dims == 1
                else ("the name of one column", "(n,)", first)
            )
            raise ValueError(
                f"`target` of Parquet must be {requirement}, as the network's y has shape {shape}, "
                f"got {self.target!r}: pass target={remedy!r}."
            )

    def read(self, chunk: int) -> Iterator[tuple[str, Pair]]:
        """Yield the rows of a row group in pieces."""
        i, group, _ = self._chunks[chunk]
        first = 0
        for values in self._pieces(i, group, [*self.columns, *self._targets]):
            y = values[:, len(self.columns) :]
            pair = values[:, : len(self.columns)], y[:, 0] if isinstance(self.target, str) else y
            last = first + len(values) - 1
            yield f"{str(self.paths[i])!r}, row group {group}, rows {first} to {last}", pair
            first = last + 1

    def content(self) -> dict[str, Any]:
        """Return the columns, and bytes, sizes and times of the files."""
        parts, times = [], []
        for path in self.paths:
            with path.open("rb") as file:
                slices = _samples(path.stat().st_size, SAMPLE_BYTES)
                for part in slices:
                    file.seek(part.start)
                    parts.append(file.read(part.stop - part.start))
            if len(slices) > 1:
                times.append(_size_and_time(path))
        return {"x": [self.columns, self.target, parts], "files of x": times}

    def in_order(self, n_rows: int, shard: tuple[int, int] = (0, 1)) -> Iterator[np.ndarray]:
        """Yield the chunks of x in file order; a shard (i, n) has the i-th of every n chunks."""
        part, n_parts = shard
        pieces: list[np.ndarray] = []
        at = 0  # the number of rows before the current one
        for i, group, n_in_group in self._chunks:
            chunks = range(at // n_rows, -(-(at + n_in_group) // n_rows))
            if all(chunk % n_parts != part for chunk in chunks):
                at += n_in_group  # the row group is not read
                continue
            for piece in self._pieces(i, group, self.columns):
                while len(piece):
                    n = min(n_rows - at % n_rows, len(piece))
                    if at // n_rows % n_parts == part:
                        pieces.append(piece[:n])
                    piece, at = piece[n:], at + n
                    if pieces and (at % n_rows == 0 or at == self.n_data):
                        yield _joined(pieces)

    def _pieces(self, i: int, group: int, names: list[str]) -> Iterator[np.ndarray]:
        # Open the file anew for each row group, because pyarrow keeps those it has read in memory,
        # and read it through a buffer, so that a row group is not loaded as a whole.
        file = self._open(self.paths[i], metadata=self._metadata[i], buffer_size=2**16)
        for batch in file.iter_batches(PIECE_ROWS, row_groups=[group], columns=names):
            for name in names:
                if batch.column(name).null_count:
                    raise ValueError(
                        f"`paths`: {str(self.paths[i])!r} has missing values in the column "
                        f"{name!r}: fill them in or drop their rows."
                    )
            by_column = [batch.column(name).to_numpy(zero_copy_only=False) for name in names]
            yield np.stack(by_column, axis=1)

    def _open(self, path: Path, **options: Any) -> Any:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise ImportError(
                'Parquet files need pyarrow: pip install "pyrobbb[parquet]".'
            ) from error
        try:
            return pyarrow.parquet.ParquetFile(path, pre_buffer=False, **options)
        except pyarrow.ArrowInvalid as error:
            raise ValueError(f"`paths`: {str(path)!r} is not a parquet file ({error}).") from error


def _samples(n: int, size: int) -> list[slice]:
    """Return parts of n items, among them the first and the last; one part if they are few."""
    if n <= N_SAMPLES * size:
        return [slice(0, n)]
    starts = np.linspace(0, n - size, N_SAMPLES).astype(int).tolist()
    return [slice(start, start + size) for start in starts]


def _size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _joined(pieces: list[np.ndarray]) -> np.ndarray:
    """Concatenate pieces, and clear the list to free their memory."""
    whole = np.concatenate(pieces)
    pieces.clear()
    return whole


def _check_numeric(path: Path, name: str, kind: Any) -> None:
    import pyarrow.types as types

    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise ValueError(
            f"`paths`: the column {name!r} of {str(path)!r} must be numeric, got {kind}: "
            "encode it, or exclude it with `columns`."
        )


class Shuffle:
    """A random order of rows: chunks enter a buffer in random order, and rows in it are shuffled.

    A row can share a batch only with rows of chunks that are in the buffer at the same time. Chunks
    are contiguous in the file, so rows that are sorted by a relevant variable should be written in
    random order first, or need a buffer that holds a large part of them.

    Parameters
    ----------
    rows : Rows
    seed : sequence of int
        Determines the order.
    """

    def __init__(self, rows: Rows, seed: Sequence[int]) -> None:
        self._rows = rows
        self._random = np.random.default_rng(seed)

    def pieces(self) -> Iterator[tuple[str, Pair]]:
        """Yield all rows, chunk by chunk."""
        for chunk in self._random.permutation(self._rows.n_chunks):
            yield from self._rows.read(int(chunk))

    def permutation(self, n: int) -> np.ndarray:
        """Return a random order of the rows in the buffer."""
        return self._random.permutation(n)


def check_shard(shard: tuple[int, int]) -> tuple[int, int]:
    """Return `shard` as integers, or raise unless it is a pair (i, n) with 0 <= i < n."""
    if not isinstance(shard, tuple | list) or len(shard) != 2:
        raise ValueError(f"`shard` must be (i, n), the i-th of n parts, got {shown(shard)}.")
    n_parts = as_count("shard[1]", shard[1])
    part = as_count("shard[0]", shard[0], least=0)
    if part >= n_parts:
        raise ValueError(f"`shard` must be (i, n) with i below n, got {shard}.")
    return part, n_parts


def plan_chunks(x: Any, rows: int | None, max_memory: int) -> tuple[int, int]:
    """Return the number of rows per chunk, and the memory that remains for their prediction.

    If `rows` is None, the copies of a chunk take a quarter of the memory, and a chunk has at most
    65,536 rows. The size of an iterable is unknown and not accounted for.
    """
    if (n_data := n_known_rows(x)) is None:
        return rows or CHUNK_ROWS, max_memory
    if isinstance(x, Parquet):
        per_row, reader = 8 * len(x.columns), x.reader_bytes
    else:
        per_row, reader = trees.row_bytes(trees.structured("x", x)), 0
    per_row = CHUNK_COPIES * max(per_row, 1)
    least = max(max_memory // 4, 1)  # always remains for the prediction
    if rows is None:
        rows = min(max(max(max_memory - reader, least) // 4 // per_row, 1), CHUNK_ROWS)
    used = reader + min(rows, n_data) * per_row
    if max_memory - used < least:
        logger.warning(
            "`max_memory` is %.0f MiB, but reading x takes about %.0f MiB and chunks of %d rows "
            "%.0f MiB: increase it, or decrease `rows`.",
            max_memory / 2**20,
            reader / 2**20,
            rows,
            (used - reader) / 2**20,
        )
    return rows, max(max_memory - used, least)


def n_known_rows(x: Any) -> int | None:
    """Return the number of rows of files or arrays; None for an iterable of chunks."""
    if isinstance(x, Parquet):
        return x.n_data
    if trees.is_structured(x) or (hasattr(x, "shape") and hasattr(x, "__getitem__")):
        trees.check_equal_rows("x", tree := trees.structured("x", x))
        return trees.n_rows(tree)
    return None


def chunks_of(x: Any, size: int, shard: tuple[int, int] = (0, 1)) -> Iterator[ArrayLike]:
    """Return chunks of rows in order: of an array, of files, or of an iterable of arrays.

    A shard (i, n) contains the i-th of every n chunks.
    """
    part, n_parts = shard
    if isinstance(x, Parquet):
        return x.in_order(size, shard)
    if (n_data := n_known_rows(x)) is not None:
        tree = trees.structured("x", x)
        starts = range(part * size, n_data, n_parts * size)
        pieces = (trees.rows_of(tree, slice(start, start + size)) for start in starts)
        return (trees.map_arrays(_in_memory, piece) for piece in pieces)
    return itertools.islice(x, part, None, n_parts)


def _in_memory(array: Any) -> Any:
    return np.array(array) if isinstance(array, np.memmap) else array
