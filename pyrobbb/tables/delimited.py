"""Texts of records: csv, tsv and the like, whatever their encoding; each record has its line."""

from __future__ import annotations

import contextlib
import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, TextIO, cast

from .errors import TableError, readable

__all__ = ["DelimitedText"]

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
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
    """A text of records.

    Attributes
    ----------
    path : str
    is_compressed : bool
        By gzip.
    encoding, delimiter : str
    is_guessed : bool
        Whether the delimiter is.
    """

    path: str
    is_compressed: bool
    encoding: str = "utf-8"
    delimiter: str = ","
    is_guessed: bool = False

    @classmethod
    def of(
        cls, path: str, *, is_compressed: bool, encoding: str | None, delimiter: str | None
    ) -> DelimitedText:
        """Look at the beginning of a text for what is not given; see `TableFile.of`."""
        _check_options(encoding, delimiter)
        text = cls(path, is_compressed)
        with text._reading(), text._open_bytes() as file:
            start = file.read(4)
        if start == b"PAR1":
            raise TableError("is parquet within gzip; unpack it.")
        text = replace(text, encoding=encoding or _encoding(start))
        with text._reading(), text._open_text() as stream:
            lines = list(_first_lines(stream))
        if not any(line.strip() for line in lines):
            raise TableError("is empty; it must begin with a line of column names.")
        if delimiter is not None:
            return replace(text, delimiter=delimiter)
        if path.lower().removesuffix(".gz").endswith(".tsv"):
            return replace(text, delimiter="\t")
        return replace(text, delimiter=_sniff(lines), is_guessed=True)

    @property
    def delimiter_name(self) -> str:
        """The delimiter in words."""
        return DELIMITERS.get(self.delimiter, repr(self.delimiter))

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """Give the records, the header first, each with the line it begins in.

        Blank lines are left out.

        Raises
        ------
        TableError
            For a record that has not as many fields as the header, or cannot be read.
        """
        with self._reading(), self._open_text() as stream:
            reader = csv.reader(
                _without_nul(stream), delimiter=self.delimiter, skipinitialspace=True, strict=True
            )
            width, line = 0, 1
            while True:
                try:
                    record = next(reader, None)
                except csv.Error as error:
                    raise TableError(
                        f"line {line}: {_quoting(error)} Correct the quotes, or name the "
                        "--delimiter."
                    ) from error
                if record is None:
                    return
                if record:
                    width = width or len(record)
                    if len(record) != width:
                        raise TableError(
                            f"line {line}: has {_fields(len(record))} where the header has "
                            f"{width}. Correct the line, quote fields that hold the delimiter, or "
                            "name the --delimiter."
                        )
                    yield line, record
                line = reader.line_num + 1

    def _open_bytes(self) -> IO[bytes]:
        path = Path(self.path)
        return cast(IO[bytes], gzip.open(path)) if self.is_compressed else path.open("rb")

    def _open_text(self) -> TextIO:
        # newline="": the csv module finds the ends of lines itself, those within quotes too.
        if self.is_compressed:
            return cast(TextIO, gzip.open(self.path, "rt", encoding=self.encoding, newline=""))
        return Path(self.path).open(encoding=self.encoding, newline="")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn what goes wrong while it is read into a `TableError`."""
        try:
            with readable():
                yield
        except (EOFError, zlib.error) as error:
            raise TableError(f"is cut short or damaged: {error}. Compress it anew.") from error
        except UnicodeDecodeError as error:
            raise TableError(self._undecodable()) from error
        except UnicodeError as error:  # UTF-16 without its mark
            raise TableError(f"is not {self.encoding}: {error}; name its --encoding.") from error

    def _undecodable(self) -> str:
        """Say which line and byte cannot be decoded: the decoder tells only where in its buffer."""
        is_wide = self.encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32"))
        with self._open_bytes() as lines:
            for number, line in enumerate(lines if not is_wide else (), 1):
                try:
                    line.decode(self.encoding)
                except UnicodeDecodeError as error:
                    return (
                        f"line {number}: byte {error.start + 1} of the line, "
                        f"0x{line[error.start]:02x}, is not "
                        f"{self.encoding.removesuffix('-sig').upper()}. Name the encoding of the "
                        "file, such as --encoding latin-1."
                    )
        return f"is not {self.encoding}: name its --encoding, such as --encoding latin-1."


def _check_options(encoding: str | None, delimiter: str | None) -> None:
    if encoding is not None:
        try:
            "".encode(encoding)
        except (LookupError, ValueError) as error:
            raise TableError(
                f"`encoding` must be one that Python knows, such as utf-8, latin-1 or utf-16, got "
                f"{encoding!r}."
            ) from error
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '\r\n"\0 '):
        raise TableError(
            f"`delimiter` must be a single character such as ; and no space, got {delimiter!r}."
        )


def _encoding(start: bytes) -> str:
    marked = (name for mark, name in BYTE_ORDER_MARKS.items() if start.startswith(mark))
    return next(marked, "utf-8")


def _first_lines(stream: TextIO) -> Iterator[str]:
    n_characters = 0
    for line in islice(_without_nul(stream), SNIFFED_LINES):
        yield line
        n_characters += len(line)
        if n_characters > SNIFFED_CHARACTERS:
            return


def _without_nul(stream: TextIO) -> Iterator[str]:
    for number, line in enumerate(stream, 1):
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


def _fields(n: int) -> str:
    return f"{n} field" if n == 1 else f"{n} fields"


def _quoting(error: csv.Error) -> str:
    words = str(error)
    if "unexpected end of data" in words:
        return "a quoted field begins in this line and does not end."
    if "field limit" in words:
        return f"a field is longer than {csv.field_size_limit()} characters: a quote is not closed."
    return f"{words}."
