"""Tables on disk: csv, tsv and parquet files, read whole or in chunks of rows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..columns.errors import TableError, prefix_errors, translate_os_errors
from .compressed import MAX_CHUNK_BYTES, MAX_EXPANSION, check_expansion
from .delimited import UNSUPPORTED_FORMATS, DelimitedText

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TableFile"]

CHUNK_ROWS = 10_000
PROBED_ROWS = 64


@dataclass(frozen=True)
class TableFile:
    """A table on disk whose header has been read.

    Attributes
    ----------
    path : str
    columns : tuple of str
    notes : tuple of str
        Assumptions that the user should know about.
    text : optional
        Encoding and delimiter of a text file. None: the file is parquet.
    """

    path: str
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()
    text: DelimitedText | None = None

    @classmethod
    def of(
        cls,
        path: str | os.PathLike[str],
        *,
        encoding: str | None = None,
        delimiter: str | None = None,
        max_expansion: int = MAX_EXPANSION,
    ) -> TableFile:
        """Detect the format, encoding and delimiter of a file, and read its header.

        Parameters
        ----------
        path : path-like
        encoding : str, optional
            None: UTF-8, or as declared by the byte order mark.
        delimiter : str, optional
            None: a tab in a file named .tsv, otherwise whichever of comma, semicolon, tab and
            vertical bar splits most of the first lines into the same number of fields.
        max_expansion : int
            How many times its size a gzip or parquet file may expand to; tables that expand to less
            than 64 MiB are always read.

        Raises
        ------
        TableError
            If the file is not a table.
        """
        path = os.fspath(path)
        with prefix_errors(path):
            if max_expansion < 1:
                raise TableError(f"`max_expansion` must be at least 1, got {max_expansion}.")
            start = _first_bytes(path)
            for magic, kind in UNSUPPORTED_FORMATS.items():
                if start.startswith(magic):
                    raise TableError(f"is {kind}; save the table as csv, tsv or parquet.")
            if start.startswith(b"PAR1"):
                return cls(path, _parquet_columns(path, max_expansion))
            text = DelimitedText.of(
                path,
                is_compressed=start.startswith(b"\x1f\x8b"),
                encoding=encoding,
                delimiter=delimiter,
                max_expansion=max_expansion,
            )
            names, notes = _read_header(text)
            return cls(path, names, notes, text)

    def read(self) -> pd.DataFrame:
        """Return all rows; see `chunks`."""
        import pandas as pd

        return pd.concat(list(self.chunks()))

    def chunks(self, n_rows: int = CHUNK_ROWS) -> Generator[pd.DataFrame, None, None]:
        """Yield the rows in frames of `n_rows` rows, one frame in memory at a time.

        Returns
        -------
        iterator of DataFrame
            The cells of a text file are strings as they are in the file. The index locates the
            rows in the file: it is named "line" and holds the numbers of lines, the header being
            line 1, or it is named "row" and holds the numbers of the rows of a parquet file.

        Raises
        ------
        TableError
            If there are no rows, or a row cannot be read.
        """
        with prefix_errors(self.path):
            is_empty = True
            frames = (
                self._parquet_frames(n_rows)
                if self.text is None
                else self._text_frames(self.text, n_rows)
            )
            for frame in frames:
                is_empty = False
                yield frame
            if is_empty:
                raise TableError("has a header but no rows.")

    def _text_frames(self, text: DelimitedText, n_rows: int) -> Iterator[pd.DataFrame]:
        import pandas as pd

        records = text.records()
        next(records)  # the header
        while chunk := list(islice(records, n_rows)):
            index = pd.Index([line for line, _ in chunk], name="line")
            cells = [record for _, record in chunk]
            yield pd.DataFrame(cells, index=index, columns=list(self.columns), dtype=object)

    def _parquet_frames(self, n_rows: int) -> Iterator[pd.DataFrame]:
        import pandas as pd

        columns = list(self.columns)
        with _open_parquet(self.path) as file:
            for batch in islice(file.iter_batches(batch_size=PROBED_ROWS, columns=columns), 1):
                _check_size(batch, min(n_rows, file.metadata.num_rows))
            start = 1
            for batch in file.iter_batches(batch_size=n_rows, columns=columns):
                _check_size(batch, batch.num_rows)
                # Integers stay integers in columns with missing cells, so that long identifiers
                # are not rounded.
                frame = batch.to_pandas(ignore_metadata=True, integer_object_nulls=True)
                if len(frame):
                    frame.index = pd.RangeIndex(start, start + len(frame), name="row")
                    start += len(frame)
                    yield frame


def _check_size(batch: Any, n_rows: int) -> None:
    """Raise if so many rows like those of a batch are too large to be read at once."""
    n_bytes = batch.nbytes * n_rows // max(batch.num_rows, 1)
    if n_bytes > MAX_CHUNK_BYTES:
        raise TableError(
            f"has {n_rows:,} rows of {n_bytes:,} bytes; at most {MAX_CHUNK_BYTES:,} can be read at "
            "once. Shorten the cells."
        )


def _first_bytes(path: str) -> bytes:
    with translate_os_errors():
        if Path(path).is_dir():
            raise TableError("is a folder; pass a csv, tsv or parquet file.")
        if Path(path).exists() and not Path(path).is_file():
            raise TableError(
                "is not a regular file. It would have to be read twice; save it as a file first."
            )
        with Path(path).open("rb") as file:
            start = file.read(16)
    if not start:
        raise TableError("is empty; it must begin with a line of column names.")
    return start


def _read_header(text: DelimitedText) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the columns, and notes about them."""
    notes = []
    if text.is_detected and text.delimiter != ",":
        notes.append(f"The detected delimiter is the {text.delimiter_name}.")
    _, header = next(text.records())
    names = tuple(name.strip() or f"column {i}" for i, name in enumerate(header, 1))
    for i, name in enumerate(header):
        if not name.strip():
            notes.append(f"Column {i + 1} has no name; it is called {names[i]!r}.")
    _check_unique(names)
    if all(map(_is_number, names)):
        notes.append("All column names are numbers: is the line of column names missing?")
    return names, tuple(notes)


def _check_unique(names: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for i, name in enumerate(names, 1):
        if name in first:
            raise TableError(
                f"line 1: columns {first[name]} and {i} are both called {name!r}. Rename one."
            )
        first[name] = i


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def _open_parquet(path: str) -> Iterator[Any]:
    """Open a file with pyarrow; raise a `TableError` if it is damaged."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise TableError('is parquet, which needs pip install "pyrobbb[parquet]".') from error
    try:
        with translate_os_errors(), parquet.ParquetFile(path) as file:
            yield file
    except (TableError, MemoryError):
        raise
    except Exception as error:  # pyarrow has no common base of what damaged bytes lead to
        raise TableError(f"is damaged: {' '.join(str(error).split())}") from error


def _parquet_columns(path: str, max_expansion: int) -> tuple[str, ...]:
    """Return the names of the columns, after checks of what can be known before rows are read."""
    with _open_parquet(path) as file:
        names = tuple(file.schema_arrow.names)
        metadata = file.metadata
        groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
        n_bytes = sum(group.total_byte_size for group in groups)
        # Equal cells are stored as their number: a cell is at least a byte in memory.
        n_bytes = max(n_bytes, metadata.num_rows * len(names))
    _check_unique(names)
    check_expansion(n_bytes, Path(path).stat().st_size, max_expansion)
    return names
