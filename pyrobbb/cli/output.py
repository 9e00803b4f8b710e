"""Output of the command line: rich tables for people, one JSON object for programs."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..tables.safe_text import printable

if TYPE_CHECKING:
    from ..diagnostics import Check
    from ..tables.held_out import HeldOutScores

__all__ = ["Output", "make_checks", "make_facts", "make_scores", "make_table"]

MAX_NOTES = 10
STYLES = {"good": "green", "doubtful": "yellow", "bad": "bold red", "not measured": "dim"}


class Output:
    """Output of one command: results on stdout, everything else on stderr.

    Notes are held back until the command has succeeded, unless stderr is a terminal: a command that
    fails prints a single line.

    Parameters
    ----------
    command : str
        Name of the command, printed before each message.

    Attributes
    ----------
    notes : list of str
    max_notes : int or None
        Number of notes that are printed, the first ones. None: all.
    shows_traceback : bool
        Whether the traceback of a user's mistake is printed too.
    """

    def __init__(self, command: str) -> None:
        self.command = command
        self.notes: list[str] = []
        self.max_notes: int | None = MAX_NOTES
        self.shows_traceback = False
        self._n_printed = 0

    def note(self, *lines: str) -> None:
        """Record what was inferred, assumed or left out, to be printed on stderr."""
        self.notes += lines
        if sys.stderr.isatty():
            self._print_notes()

    def flush(self) -> None:
        """Print the notes that have been held back, and how many more there are."""
        self._print_notes()
        n_more = len(self.notes) - self._n_printed
        if n_more:
            self._print_line(f"note: and {n_more} more; --verbose prints all.")
        self._n_printed = len(self.notes)

    def _print_notes(self) -> None:
        printed = self.notes[self._n_printed : self.max_notes]
        for line in printed:
            self._print_line(f"note: {line}")
        self._n_printed += len(printed)

    def announce(self, line: str) -> None:
        """Print at once, on stderr, what the command does in the following seconds or minutes."""
        self._print_line(f"{line} ...")
        sys.stderr.flush()

    def fail(self, message: str, error: Exception | None = None) -> None:
        """Print on stderr, in one line, why the command failed.

        Parameters
        ----------
        message : str
        error : Exception, optional
            Its traceback is printed before the line if `shows_traceback` is set.
        """
        if error is not None and self.shows_traceback:
            self._print_traceback(error)
        self._print_line(message)

    def report_bug(self, error: Exception) -> None:
        """Print the traceback of an unexpected error, and ask the user to report it."""
        self._print_traceback(error)
        self._print_line("this is a bug in pyrobbb. Please report it with the traceback above.")

    def result(self, data: Mapping[str, Any], *tables: Table, as_json: bool) -> None:
        """Print the result on stdout: data and notes as JSON, or tables."""
        if as_json:
            plain = _to_strict_json({**data, "notes": self.notes})
            sys.stdout.write(json.dumps(plain, allow_nan=False) + "\n")
            return
        if isinstance(sys.stdout, io.TextIOWrapper):  # for names outside the terminal's encoding
            sys.stdout.reconfigure(errors="backslashreplace")
        console = Console(file=sys.stdout, highlight=False)
        for table in tables:
            console.print(table)

    @contextlib.contextmanager
    def warnings_as_notes(self) -> Iterator[None]:
        """Record warnings, also those of loggers, as notes, without the line that issued them."""

        def record(message: Warning | str, *_: Any, **__: Any) -> None:
            self.note(" ".join(str(message).split()))

        handler = _Handler(record)
        logger = logging.getLogger("pyrobbb")
        logger.addHandler(handler)
        try:
            with warnings.catch_warnings():
                warnings.showwarning = record
                yield
        finally:
            logger.removeHandler(handler)

    def _print_line(self, text: str) -> None:
        name = f"pyrobbb {self.command}".strip()
        self._write(f"{name}: {printable(' '.join(text.split()))}\n")

    def _print_traceback(self, error: Exception) -> None:
        lines = "".join(traceback.format_exception(error)).splitlines()
        self._write("".join(f"{printable(line)}\n" for line in lines))

    def _write(self, text: str) -> None:
        encoding = sys.stderr.encoding or "utf-8"
        sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding))


class _Handler(logging.Handler):
    """Pass the messages of warnings and errors to a function."""

    def __init__(self, record: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._record = record

    def emit(self, record: logging.LogRecord) -> None:
        self._record(record.getMessage())


def make_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, n_right: int = 0
) -> Table:
    """Return a table whose last `n_right` columns are right-aligned numbers.

    Cells are not parsed as markup, so that names in brackets are shown as they are, and control
    characters are escaped.
    """
    table = Table(title=Text(printable(title), "bold"), title_justify="left", box=box.SIMPLE_HEAD)
    for i, column in enumerate(columns):
        is_number = i >= len(columns) - n_right
        justify: Literal["left", "right"] = "right" if is_number else "left"
        table.add_column(Text(printable(column)), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell)), STYLES.get(str(cell), "")) for cell in row))
    return table


def make_facts(title: str, values: Mapping[str, Any]) -> Table:
    """Return a table of names and values."""
    table = make_table(title, ["", ""], list(values.items()))
    table.show_header = False
    return table


def make_checks(title: str, checks: Iterable[Check]) -> Table:
    """Return a table of checks: the verdict, and beside it name, value, meaning and advice."""
    table = make_table(title, ["", ""], [])
    table.show_header = False
    for check in checks:
        words = Text(printable(check.name), "bold")
        words.append(f"  {printable(check.value)}\n", "not bold")
        words.append(printable(f"{check.meaning} {check.advice}".strip()), "not bold")
        table.add_row(Text(check.verdict, STYLES.get(check.verdict, "")), words)
    return table


def make_scores(scores: HeldOutScores, task: str) -> Table:
    """Return a table of held-out scores: of the model, with standard errors, and of a yardstick."""
    errors = scores.standard_error
    rows = [
        [
            name,
            f"{value:.4g}" + (f" +- {errors[name]:.2g}" if name in errors else ""),
            f"{scores.linear[name]:.4g}",
        ]
        for name, value in scores.model.items()
    ]
    linear = "ridge regression" if task == "regression" else "logistic regression"
    return make_table(f"Scores of {scores.title}", ["", "model", linear], rows, n_right=2)


def _to_strict_json(value: Any) -> Any:
    """Return data that strict JSON can hold; numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(name): _to_strict_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_strict_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
