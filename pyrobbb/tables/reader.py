"""Tables on disk: csv, tsv and parquet files, read whole or in chunks of rows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .delimited import DelimitedText
from .errors import TableError, naming, readable

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TableError", "TableFile", "naming"]

CHUNK_ROWS = 10_000
OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"%PDF": "a PDF",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
}


@dataclass(frozen=True)
class TableFile:
    """A table on disk, of which the header has been read.

    Attributes
    ----------
    path : str
    columns : tuple of str
    notes : tuple of str
        What was taken for granted, in words.
    text : DelimitedText, optional
        None: it is parquet.
    decimal : {".", ","}
        Of a text.
    """

    path: str
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()
    text: DelimitedText | None = None
    decimal: str = "."

    @classmethod
    def of(
        cls,
        path: str | os.PathLike[str],
        *,
        encoding: str | None = None,
        delimiter: str | None = None,
        decimal: str = ".",
    ) -> TableFile:
        """Look at a file: its format, encoding, delimiter and header.

        Parameters
        ----------
        path : path-like
        encoding : str, optional
            None: UTF-8, or what the byte order mark says.
        delimiter : str, optional
            None: a tab in a file named .tsv, otherwise the one of comma, semicolon, tab and bar
            that cuts the first lines into the same number of fields.
        decimal : {".", ","}

        Raises
        ------
        TableError
            If it is no table.
        """
        path = os.fspath(path)
        with naming(path):
            if decimal not in (".", ","):
                raise TableError(f"`decimal` must be '.' or ',', got {decimal!r}.")
            start = _first_bytes(path)
            for magic, kind in OTHER_FORMATS.items():
                if start.startswith(magic):
                    raise TableError(f"is {kind}; save the table as csv, tsv or parquet.")
            if start.startswith(b"PAR1"):
                return cls(path, _parquet_columns(path))
            text = DelimitedText.of(
                path,
                is_compressed=start.startswith(b"\x1f\x8b"),
                encoding=encoding,
                delimiter=delimiter,
            )
            names, notes = _header(text)
            return cls(path, names, notes, text, decimal)

    def read(self) -> pd.DataFrame:
        """Give all rows; see `chunks`."""
        import pandas as pd

        return pd.concat(list(self.chunks()))

    def chunks(self, n_rows: int = CHUNK_ROWS) -> Generator[pd.DataFrame, None, None]:
        """Give the rows in frames of n_rows, of which one at a time is in memory.

        Returns
        -------
        iterator of DataFrame
            The cells of a text are strings as they stand there. The index holds the numbers by
            which a person finds a row, and its name what they count: lines of a text from 1, which
            is the header, or rows of a parquet file.

        Raises
        ------
        TableError
            If there are no rows, or where one cannot be read.
        """
        with naming(self.path):
            is_empty = True
            frames = self._parquet(n_rows) if self.text is None else self._text(self.text, n_rows)
            for frame in frames:
                is_empty = False
                yield frame
            if is_empty:
                raise TableError("holds a header and no rows.")

    def _text(self, text: DelimitedText, n_rows: int) -> Iterator[pd.DataFrame]:
        import pandas as pd

        records = text.records()
        next(records)  # the header
        while chunk := list(islice(records, n_rows)):
            index = pd.Index([line for line, _ in chunk], name="line")
            cells = [record for _, record in chunk]
            frame = pd.DataFrame(cells, index=index, columns=list(self.columns), dtype=object)
            yield _with_points(frame) if self.decimal == "," else frame

    def _parquet(self, n_rows: int) -> Iterator[pd.DataFrame]:
        import pandas as pd

        with _reading_parquet() as parquet, parquet.ParquetFile(self.path) as file:
            start = 1
            for batch in file.iter_batches(batch_size=n_rows, columns=list(self.columns)):
                # Integers stay integers beside missing ones: identifiers are not rounded.
                frame = batch.to_pandas(ignore_metadata=True, integer_object_nulls=True)
                if len(frame):
                    frame.index = pd.RangeIndex(start, start + len(frame), name="row")
                    start += len(frame)
                    yield frame


def _first_bytes(path: str) -> bytes:
    with readable():
        if Path(path).is_dir():
            raise TableError("is a folder; name a csv, tsv or parquet file.")
        if Path(path).exists() and not Path(path).is_file():
            raise TableError("is no regular file, and it is read twice; save it as one first.")
        with Path(path).open("rb") as file:
            start = file.read(16)
    if not start:
        raise TableError("is empty; it must begin with a line of column names.")
    return start


def _header(text: DelimitedText) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give the names of the columns, and what there is to say of them."""
    notes = []
    if text.is_guessed and text.delimiter != ",":
        notes.append(f"The delimiter is taken to be the {text.delimiter_name}.")
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


def _with_points(frame: pd.DataFrame) -> pd.DataFrame:
    """Give a frame whose numbers have a decimal point instead of a comma."""
    for name in frame.columns:
        cells = frame[name]
        has_point = cells.str.fullmatch(r"\s*[+-]?\d*\.\d+([eE][+-]?\d+)?\s*")
        if has_point.any():
            line = has_point.idxmax()
            raise TableError(
                f"line {line}, column {name!r}: {cells[line].strip()!r} has a decimal point, and "
                "--decimal is the comma. Write all numbers in one way."
            )
        is_number = cells.str.fullmatch(r"\s*[+-]?\d*,\d+([eE][+-]?\d+)?\s*")
        frame[name] = cells.where(~is_number, cells.str.replace(",", "."))
    return frame


@contextlib.contextmanager
def _reading_parquet() -> Iterator[Any]:
    """Give pyarrow's parquet module; what goes wrong in its hands becomes a `TableError`."""
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise TableError("is parquet, which needs pip install 'pyrobbb[parquet]'.") from error
    try:
        with readable():
            yield parquet
    except arrow.ArrowException as error:
        raise TableError(f"is damaged: {error}") from error


def _parquet_columns(path: str) -> tuple[str, ...]:
    with _reading_parquet() as parquet, parquet.ParquetFile(path) as file:
        names = tuple(file.schema_arrow.names)
    _check_unique(names)
    return names
