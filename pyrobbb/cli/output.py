"""What the command line says: rich tables for people, one JSON object for machines."""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["Output", "facts", "table_of"]

STYLES = {"good": "green", "doubtful": "yellow", "bad": "bold red", "not measured": "dim"}


class Output:
    """Where the words of one call go: results to stdout, everything else to stderr.

    Notes wait until the call has succeeded, unless a person is watching: what fails says one line.

    Parameters
    ----------
    command : str
        Name of the command, for what is said on stderr.
    """

    def __init__(self, command: str) -> None:
        self.command = command
        self.notes: list[str] = []
        self._n_said = 0

    def note(self, *lines: str) -> None:
        """Say on stderr what was decided or left out."""
        self.notes += lines
        if sys.stderr.isatty():
            self.flush()

    def flush(self) -> None:
        """Say the notes that have waited."""
        for line in self.notes[self._n_said :]:
            self._say(f"note: {line}")
        self._n_said = len(self.notes)

    def fail(self, message: str) -> None:
        """Say on stderr, in one line, why the command ends here."""
        self._say(message)

    def report(self, data: Mapping[str, Any], *tables: Table, as_json: bool) -> None:
        """Give the result: data as JSON, with the notes, or tables to read."""
        if as_json:
            plain = _plain({**data, "notes": self.notes})
            sys.stdout.write(json.dumps(plain, allow_nan=False) + "\n")
            return
        if isinstance(sys.stdout, io.TextIOWrapper):  # names that a terminal's encoding lacks
            sys.stdout.reconfigure(errors="backslashreplace")
        console = Console(file=sys.stdout, highlight=False)
        for table in tables:
            console.print(table)

    @contextlib.contextmanager
    def warnings_as_notes(self) -> Iterator[None]:
        """Make a note of what is warned of, without the line of code that warns."""

        def take(message: Warning | str, *_: Any, **__: Any) -> None:
            self.note(" ".join(str(message).split()))

        with warnings.catch_warnings():
            warnings.showwarning = take
            yield

    def _say(self, words: str) -> None:
        line = " ".join(words.split())
        printable = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
        name = f"pyrobbb {self.command}".strip()
        encoding = sys.stderr.encoding or "utf-8"
        safe = printable.encode(encoding, "backslashreplace").decode(encoding)
        sys.stderr.write(f"{name}: {safe}\n")


def table_of(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, n_right: int = 0
) -> Table:
    """Make a table; the last n_right columns are numbers, flush right.

    Cells are shown as they are: a name in brackets is no markup.
    """
    table = Table(title=Text(title, "bold"), title_justify="left", box=box.SIMPLE_HEAD)
    for i, column in enumerate(columns):
        is_number = i >= len(columns) - n_right
        table.add_column(Text(column), justify="right" if is_number else "left")
    for row in rows:
        table.add_row(*(Text(str(cell), STYLES.get(str(cell), "")) for cell in row))
    return table


def facts(title: str, values: Mapping[str, Any]) -> Table:
    """Make a table of names and values."""
    table = table_of(title, ["", ""], list(values.items()))
    table.show_header = False
    return table


def _plain(value: Any) -> Any:
    """Give what strict JSON can hold; what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
