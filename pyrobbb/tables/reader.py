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
from .errors import TableError, prefix_errors, translate_os_errors

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TableFile"]

CHUNK_ROWS = 10_000
UNSUPPORTED_FORMATS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"%PDF": "a PDF",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
}


@dataclass(frozen=True)
class TableFile:
    """A table on disk whose header has been read.

    Attributes
    ----------
    path : str
    columns : tuple of str
    notes : tuple of str
        Assumptions that the user should know about.
    text : DelimitedText, optional
        None: the file is parquet.
    decimal : {".", ","}
        Decimal separator of a text file.
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
        """Detect the format, encoding and delimiter of a file, and read its header.

        Parameters
        ----------
        path : path-like
        encoding : str, optional
            None: UTF-8, or as declared by the byte order mark.
        delimiter : str, optional
            None: a tab in a file named .tsv, otherwise whichever of comma, semicolon, tab and
            vertical bar splits most of the first lines into the same number of fields.
        decimal : {".", ","}

        Raises
        ------
        TableError
            If the file is not a table.
        """
        path = os.fspath(path)
        with prefix_errors(path):
            if decimal not in (".", ","):
                raise TableError(f"`decimal` must be '.' or ',', got {decimal!r}.")
            start = _first_bytes(path)
            for magic, kind in UNSUPPORTED_FORMATS.items():
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
            names, notes = _read_header(text)
            return cls(path, names, notes, text, decimal)

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
            frame = pd.DataFrame(cells, index=index, columns=list(self.columns), dtype=object)
            yield _replace_decimal_commas(frame) if self.decimal == "," else frame

    def _parquet_frames(self, n_rows: int) -> Iterator[pd.DataFrame]:
        import pandas as pd

        with _open_parquet(self.path) as file:
            start = 1
            for batch in file.iter_batches(batch_size=n_rows, columns=list(self.columns)):
                # Integers stay integers in columns with missing cells, so that long identifiers
                # are not rounded.
                frame = batch.to_pandas(ignore_metadata=True, integer_object_nulls=True)
                if len(frame):
                    frame.index = pd.RangeIndex(start, start + len(frame), name="row")
                    start += len(frame)
                    yield frame


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


def _replace_decimal_commas(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with decimal points in place of decimal commas in numbers."""
    for name in frame.columns:
        cells = frame[name]
        has_point = cells.str.fullmatch(r"\s*[+-]?\d*\.\d+([eE][+-]?\d+)?\s*")
        if has_point.any():
            line = has_point.idxmax()
            raise TableError(
                f"line {line}, column {name!r}: {cells[line].strip()!r} has a decimal point, but "
                "--decimal is a comma. Use one separator in all numbers."
            )
        is_number = cells.str.fullmatch(r"\s*[+-]?\d*,\d+([eE][+-]?\d+)?\s*")
        frame[name] = cells.where(~is_number, cells.str.replace(",", "."))
    return frame


@contextlib.contextmanager
def _open_parquet(path: str) -> Iterator[Any]:
    """Open a file with pyarrow; raise a `TableError` if it is damaged."""
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise TableError("is parquet, which needs pip install 'pyrobbb[parquet]'.") from error
    try:
        with translate_os_errors(), parquet.ParquetFile(path) as file:
            yield file
    except arrow.ArrowException as error:
        raise TableError(f"is damaged: {error}") from error


def _parquet_columns(path: str) -> tuple[str, ...]:
    with _open_parquet(path) as file:
        names = tuple(file.schema_arrow.names)
    _check_unique(names)
    return names
