"""Delimited text files (csv, tsv and the like): encoding, delimiter and records with line numbers.

Records are read by the csv module of the standard library. The readers of pandas and pyarrow are
faster, but neither reports the line in which a record begins, and both accept malformed quotes.
"""

from __future__ import annotations

import contextlib
import csv
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, TextIO, cast

from .._core.display import count_of
from ..columns.errors import TableError, translate_os_errors
from .compressed import MAX_EXPANSION, GzipReader, skip_to_check
from .safe_text import unescape_formula

__all__ = ["UNSUPPORTED_FORMATS", "DelimitedText"]

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
UNSUPPORTED_FORMATS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"%PDF": "a PDF",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
}
MAX_LINE = 1 << 24
"""In characters. Without a limit, a file without line ends would be read into memory."""
SNIFFED_LINES = 50
SNIFFED_CHARACTERS = 1 << 20
BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


@dataclass(frozen=True)
class DelimitedText:
    """A delimited text file.

    Attributes
    ----------
    path : str
    is_compressed : bool
        Whether the file is compressed by gzip.
    encoding, delimiter : str
    is_detected : bool
        Whether the delimiter was detected rather than given.
    max_expansion : int
        How many times its size a compressed file may expand to.
    """

    path: str
    is_compressed: bool
    encoding: str = "utf-8"
    delimiter: str = ","
    is_detected: bool = False
    max_expansion: int = MAX_EXPANSION

    @classmethod
    def of(
        cls,
        path: str,
        *,
        is_compressed: bool,
        encoding: str | None,
        delimiter: str | None,
        max_expansion: int,
    ) -> DelimitedText:
        """Detect the options that are None from the beginning of the file; see `TableFile.of`."""
        _check_options(encoding, delimiter)
        text = cls(path, is_compressed, max_expansion=max_expansion)
        with text._translate_errors(), text._open_bytes() as file:
            start = file.read(16)
            if is_compressed:
                skip_to_check(file)
        inner = {b"PAR1": "a parquet file", b"\x1f\x8b": "a gzip file", **UNSUPPORTED_FORMATS}
        for magic, kind in inner.items() if is_compressed else ():
            if start.startswith(magic):
                raise TableError(f"is {kind} compressed by gzip; decompress it.")
        text = replace(text, encoding=encoding or _detect_encoding(start))
        with text._translate_errors(), text._open_text() as stream:
            lines = list(_first_lines(stream))
        if not any(line.strip() for line in lines):
            raise TableError("is empty; it must begin with a line of column names.")
        if delimiter is not None:
            return replace(text, delimiter=delimiter)
        if path.lower().removesuffix(".gz").endswith(".tsv"):
            return replace(text, delimiter="\t")
        return replace(text, delimiter=_detect_delimiter(lines), is_detected=True)

    @property
    def delimiter_name(self) -> str:
        """Name of the delimiter."""
        return DELIMITERS.get(self.delimiter, repr(self.delimiter))

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the records, the header first, each with the number of its first line.

        Blank lines are skipped. Fields are as they were before `escape_formula`.

        Raises
        ------
        TableError
            If a record does not have as many fields as the header, or cannot be read.
        """
        with self._translate_errors(), self._open_text() as stream:
            reader = csv.reader(
                _lines(stream), delimiter=self.delimiter, skipinitialspace=True, strict=True
            )
            width, line = 0, 1
            while True:
                try:
                    record = next(reader, None)
                except csv.Error as error:
                    raise TableError(
                        f"line {line}: {_describe(error)} Correct the quotes, or set --delimiter."
                    ) from error
                if record is None:
                    return
                if record:
                    width = width or len(record)
                    if len(record) != width:
                        raise TableError(
                            f"line {line}: has {count_of(len(record), 'field')}, but the header "
                            f"has {width}. Correct the line, quote fields that contain the "
                            "delimiter, or set --delimiter."
                        )
                    yield line, [unescape_formula(f) if f[:1] == "'" else f for f in record]
                line = reader.line_num + 1

    def _open_bytes(self) -> IO[bytes]:
        if self.is_compressed:
            reader = GzipReader(self.path, self.max_expansion)
            return cast(IO[bytes], io.BufferedReader(reader, 1 << 17))
        return Path(self.path).open("rb")

    def _open_text(self) -> TextIO:
        # With newline="", the csv module detects line ends, including those within quotes.
        return io.TextIOWrapper(self._open_bytes(), encoding=self.encoding, newline="")

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise a `TableError` in place of an error raised while the file is read."""
        try:
            with translate_os_errors():
                yield
        except (EOFError, zlib.error) as error:
            raise TableError(f"is truncated or damaged: {error}. Compress it again.") from error
        except UnicodeDecodeError as error:
            raise TableError(self._locate_undecodable()) from error
        except UnicodeError as error:  # UTF-16 without a byte order mark
            raise TableError(f"is not {self.encoding}: {error}; set --encoding.") from error

    def _locate_undecodable(self) -> str:
        """Return a message with the line and byte; the decoder's position is in its buffer."""
        is_wide = self.encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32"))
        with self._translate_errors(), self._open_bytes() as file:
            lines = iter(partial(file.readline, MAX_LINE), b"")
            for number, line in enumerate(lines if not is_wide else (), 1):
                if b"\0" in line:
                    raise TableError(_nul_message(number))
                try:
                    line.decode(self.encoding)
                except UnicodeDecodeError as error:
                    return (
                        f"line {number}: byte {error.start + 1} of the line, "
                        f"0x{line[error.start]:02x}, is not "
                        f"{self.encoding.removesuffix('-sig').upper()}. Set the encoding of the "
                        "file, such as --encoding latin-1."
                    )
        return f"is not {self.encoding}: set --encoding, such as --encoding latin-1."


def _check_options(encoding: str | None, delimiter: str | None) -> None:
    if encoding is not None:
        try:
            "".encode(encoding)
        except (LookupError, ValueError) as error:
            raise TableError(
                "`encoding` must be a text encoding of Python, such as utf-8, latin-1 or utf-16, "
                f"got {encoding!r}."
            ) from error
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '\r\n"\0 '):
        raise TableError(
            f"`delimiter` must be a single character such as ; and not a space, got {delimiter!r}."
        )


def _detect_encoding(start: bytes) -> str:
    marked = (name for mark, name in BYTE_ORDER_MARKS.items() if start.startswith(mark))
    return next(marked, "utf-8")


def _first_lines(stream: TextIO) -> Iterator[str]:
    n_characters = 0
    for line in islice(_lines(stream), SNIFFED_LINES):
        yield line
        n_characters += len(line)
        if n_characters > SNIFFED_CHARACTERS:
            return


def _lines(stream: TextIO) -> Iterator[str]:
    """Yield the lines; raise at the first that is too long or has a NUL byte."""
    for number, line in enumerate(iter(partial(stream.readline, MAX_LINE), ""), 1):
        if "\0" in line:
            raise TableError(_nul_message(number))
        if len(line) == MAX_LINE:
            raise TableError(f"line {number}: is longer than {MAX_LINE:,} characters.")
        yield line


def _nul_message(number: int) -> str:
    return (
        f"line {number}: contains a NUL byte: the file is not text, is damaged, or is UTF-16 "
        "without a byte order mark (--encoding utf-16-le)."
    )


def _detect_delimiter(lines: Sequence[str]) -> str:
    """Return the delimiter that splits most lines into as many fields as the first."""
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


def _describe(error: csv.Error) -> str:
    message = str(error)
    if "unexpected end of data" in message:
        return "a quoted field begins in this line and does not end."
    if "field limit" in message:
        return f"a field is longer than {csv.field_size_limit()} characters, or is not closed."
    return f"{message}."
