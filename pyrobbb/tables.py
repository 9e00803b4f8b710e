"""Tables on disk: csv, tsv and parquet files, read whole or in chunks of rows."""

from __future__ import annotations

import contextlib
import csv
import gzip
import os
import zlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TableError", "TableFile", "naming"]

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
CHUNK_ROWS = 10_000
SNIFFED_LINES = 50
SNIFFED_CHARACTERS = 1 << 20
OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"%PDF": "a PDF",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
}
BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


class TableError(ValueError):
    """A table cannot be used: says where and why, and what to do, in one line.

    Parameters
    ----------
    message : str
    file : str, optional
        Which file it is about; put before the message.
    """

    def __init__(self, message: str, file: str | None = None) -> None:
        super().__init__(message if file is None else f"{file}: {message}")
        self.file = file


@contextlib.contextmanager
def naming(file: str | os.PathLike[str]) -> Iterator[None]:
    """Name a file in what is raised about the rows that were read from it."""
    try:
        yield
    except TableError as error:
        if error.file is None:
            raise TableError(str(error), os.fspath(file)) from error
        raise


@dataclass(frozen=True)
class TableFile:
    """A table on disk, of which the header has been read.

    Attributes
    ----------
    path : str
    format : {"text", "parquet"}
    columns : tuple of str
    encoding, delimiter, decimal : str
        Of a text.
    is_compressed : bool
        By gzip.
    notes : tuple of str
        What was taken for granted, in words.
    """

    path: str
    format: str
    columns: tuple[str, ...]
    encoding: str = "utf-8"
    delimiter: str = ","
    decimal: str = "."
    is_compressed: bool = False
    notes: tuple[str, ...] = ()

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
            _check_options(encoding, delimiter, decimal)
            if Path(path).is_dir():
                raise TableError("is a folder; name a csv, tsv or parquet file.")
            if Path(path).exists() and not Path(path).is_file():
                raise TableError("is no regular file, and it is read twice; save it as one first.")
            start = _first_bytes(path)
            for magic, kind in OTHER_FORMATS.items():
                if start.startswith(magic):
                    raise TableError(f"is {kind}; save the table as csv, tsv or parquet.")
            if start.startswith(b"PAR1"):
                return cls(path, "parquet", _parquet_columns(path))
            is_compressed = start.startswith(b"\x1f\x8b")
            text = cls(path, "text", (), decimal=decimal, is_compressed=is_compressed)
            with _reading(text), text._open_bytes() as file:
                start = file.read(4)
            if start == b"PAR1":
                raise TableError("is parquet within gzip; unpack it.")
            text = replace(text, encoding=encoding or _encoding(start))
            return text._with_header(delimiter)

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
            is_parquet = self.format == "parquet"
            frames = self._parquet_chunks(n_rows) if is_parquet else self._rows(n_rows)
            is_empty = True
            for frame in frames:
                is_empty = False
                yield frame
            if is_empty:
                raise TableError("holds a header and no rows.")

    def _rows(self, n_rows: int) -> Iterator[pd.DataFrame]:
        import pandas as pd

        with _reading(self), self._open_text() as text:
            records = self._records(text)
            next(records)  # the header
            while chunk := list(islice(records, n_rows)):
                index = pd.Index([line for line, _ in chunk], name="line")
                cells = [record for _, record in chunk]
                frame = pd.DataFrame(cells, index=index, columns=list(self.columns), dtype=object)
                yield _with_points(frame) if self.decimal == "," else frame

    def _parquet_chunks(self, n_rows: int) -> Iterator[pd.DataFrame]:
        import pandas as pd

        with _reading_parquet() as parquet, parquet.ParquetFile(self.path) as file:
            start = 1
            for batch in file.iter_batches(batch_size=n_rows, columns=list(self.columns)):
                frame = batch.to_pandas(ignore_metadata=True)
                if len(frame):
                    frame.index = pd.RangeIndex(start, start + len(frame), name="row")
                    start += len(frame)
                    yield frame

    def _with_header(self, delimiter: str | None) -> TableFile:
        """Give itself with delimiter and columns, from the first lines."""
        with _reading(self), self._open_text() as text:
            lines = list(_first_lines(text))
        notes = []
        if not any(line.strip() for line in lines):
            raise TableError("is empty; it must begin with a line of column names.")
        if delimiter is None:
            is_tsv = Path(self.path.removesuffix(".gz")).suffix.lower() == ".tsv"
            delimiter = "\t" if is_tsv else _sniff(lines)
            if not is_tsv and delimiter != ",":
                notes.append(f"The delimiter is taken to be the {DELIMITERS[delimiter]}.")
        found = replace(self, delimiter=delimiter)
        with _reading(self), self._open_text() as text:
            _, header = next(found._records(text, is_header=True))
        names = [name.strip() or f"column {i}" for i, name in enumerate(header, 1)]
        for i, name in enumerate(header):
            if not name.strip():
                notes.append(f"Column {i + 1} has no name; it is called {names[i]!r}.")
        _check_unique(names)
        if all(map(_is_number, names)):
            notes.append("All column names are numbers: is the line of column names missing?")
        return replace(found, columns=tuple(names), notes=tuple(notes))

    def _records(self, text: TextIO, *, is_header: bool = False) -> Iterator[tuple[int, list[str]]]:
        """Give the records, each with the line it begins in; blank lines are left out."""
        lines = _without_nul(text)
        reader = csv.reader(lines, delimiter=self.delimiter, skipinitialspace=True, strict=True)
        width, line = len(self.columns), 1
        while True:
            try:
                record = next(reader, None)
            except csv.Error as error:
                raise TableError(
                    f"line {line}: {_quoting(error)} Correct the quotes, or name the --delimiter."
                ) from error
            if record is None:
                return
            if record:
                if width and len(record) != width:
                    raise TableError(
                        f"line {line}: has {_fields(len(record))} where the header has {width}. "
                        "Correct the line, quote fields that hold the delimiter, or name the "
                        "--delimiter."
                    )
                yield line, record
                if is_header:
                    return
                width = width or len(record)
            line = reader.line_num + 1

    def _open_bytes(self) -> IO[bytes]:
        return cast(
            IO[bytes], gzip.open(self.path) if self.is_compressed else Path(self.path).open("rb")
        )

    def _open_text(self) -> TextIO:
        options: dict[str, Any] = {"encoding": self.encoding, "newline": ""}
        if self.is_compressed:
            return cast(TextIO, gzip.open(self.path, "rt", **options))
        return cast(TextIO, Path(self.path).open("r", **options))


def _check_options(encoding: str | None, delimiter: str | None, decimal: str) -> None:
    if encoding is not None:
        try:
            "".encode(encoding)
        except (LookupError, ValueError) as error:
            raise TableError(
                f"`encoding` must be one that Python knows, such as utf-8, latin-1 or utf-16, got "
                f"{encoding!r}."
            ) from error
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '\r\n"\0'):
        raise TableError(f"`delimiter` must be a single character, got {delimiter!r}.")
    if decimal not in (".", ","):
        raise TableError(f"`decimal` must be '.' or ',', got {decimal!r}.")


def _first_bytes(path: str) -> bytes:
    with _readable(), Path(path).open("rb") as file:
        start = file.read(16)
    if not start:
        raise TableError("is empty; it must begin with a line of column names.")
    return start


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise TableError("there is no such file.") from error
    except OSError as error:
        raise TableError(f"cannot be read: {error.strerror or error}.") from error


@contextlib.contextmanager
def _reading(file: TableFile) -> Iterator[None]:
    """Turn what goes wrong while a text is read into a `TableError`."""
    try:
        with _readable():
            yield
    except (EOFError, zlib.error) as error:
        raise TableError(f"is cut short or damaged: {error}. Compress it anew.") from error
    except UnicodeDecodeError as error:
        raise TableError(_undecodable(file)) from error
    except UnicodeError as error:  # UTF-16 without its mark
        raise TableError(f"is not {file.encoding}: {error}; name its --encoding.") from error


def _undecodable(file: TableFile) -> str:
    """Say which line and byte cannot be decoded: the decoder tells only where in its buffer."""
    is_wide = file.encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32"))
    with file._open_bytes() as lines:
        for number, line in enumerate(lines if not is_wide else (), 1):
            try:
                line.decode(file.encoding)
            except UnicodeDecodeError as error:
                return (
                    f"line {number}: byte {error.start + 1} of the line, 0x{line[error.start]:02x},"
                    f" is not {file.encoding.removesuffix('-sig').upper()}. Name the encoding of "
                    "the file, such as --encoding latin-1."
                )
    return f"is not {file.encoding}: name its --encoding, such as --encoding latin-1."


def _encoding(start: bytes) -> str:
    marked = (name for mark, name in BYTE_ORDER_MARKS.items() if start.startswith(mark))
    return next(marked, "utf-8")


def _first_lines(text: TextIO) -> Iterator[str]:
    n_characters = 0
    for line in islice(_without_nul(text), SNIFFED_LINES):
        yield line
        n_characters += len(line)
        if n_characters > SNIFFED_CHARACTERS:
            return


def _without_nul(text: TextIO) -> Iterator[str]:
    for number, line in enumerate(text, 1):
        if "\0" in line:
            raise TableError(
                f"line {number}: holds a NUL byte: it is no text, is damaged, or is in UTF-16 "
                "without a mark (--encoding utf-16-le)."
            )
        yield line


def _sniff(lines: Sequence[str]) -> str:
    """Give the delimiter that cuts the most lines into as many fields as the first."""
    best, best_score = ",", (0.0, 0)
    for delimiter in DELIMITERS:
        try:
            rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
        except csv.Error:
            continue
        width = len(rows[0]) if rows else 0
        if width < 2:
            continue
        score = (sum(len(row) == width for row in rows) / len(rows), width)
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _check_unique(names: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for i, name in enumerate(names, 1):
        if name in first:
            raise TableError(
                f"line 1: columns {first[name]} and {i} are both called {name!r}. Rename one."
            )
        first[name] = i


def _fields(n: int) -> str:
    return f"{n} field" if n == 1 else f"{n} fields"


def _quoting(error: csv.Error) -> str:
    words = str(error)
    if "unexpected end of data" in words:
        return "a quoted field begins in this line and does not end."
    if "field limit" in words:
        return f"a field is longer than {csv.field_size_limit()} characters: a quote is not closed."
    return f"{words}."


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
        with _readable():
            yield parquet
    except arrow.ArrowException as error:
        raise TableError(f"is damaged: {error}") from error


def _parquet_columns(path: str) -> tuple[str, ...]:
    with _reading_parquet() as parquet, parquet.ParquetFile(path) as file:
        names = tuple(file.schema_arrow.names)
    _check_unique(names)
    return names
