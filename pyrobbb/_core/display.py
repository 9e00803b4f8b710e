"""How results show themselves in a session: a few lines of text, or a plain HTML table."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

MAX_ROWS, MAX_CELL = 20, 60


@dataclass(frozen=True)
class Listing:
    """A title, a table and lines below it.

    Attributes
    ----------
    title : str
    header : tuple of str
    rows : sequence of tuple of str
        All of them; only the first 20 are shown.
    notes : tuple of str
    """

    title: str
    header: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = ()
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Return aligned columns below the title."""
        table = [[_short(cell) for cell in row] for row in self._table()]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  " + "  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        return "\n".join([self.title, *lines, *self._notes()])

    def html(self) -> str:
        """Return escaped HTML without colours, which those of the page may be dark or light."""
        rows = [
            "<tr>" + "".join(f"<{kind}>{html.escape(c)}</{kind}>" for c in row) + "</tr>"
            for i, row in enumerate(self._table())
            for kind in ["th" if self.header and i == 0 else "td"]
        ]
        table = f"<table>{''.join(rows)}</table>" if rows else ""
        notes = "".join(f"<div>{html.escape(note)}</div>" for note in self._notes())
        return f"<div><strong>{html.escape(self.title)}</strong>{table}{notes}</div>"

    def _table(self) -> list[tuple[str, ...]]:
        return [*([self.header] if self.header else []), *self.rows[:MAX_ROWS]]

    def _notes(self) -> list[str]:
        n_more = len(self.rows) - MAX_ROWS
        return [*([f"... and {n_more} more rows"] if n_more > 0 else []), *self.notes]


class Displayed(ABC):
    """A result that shows itself as a `Listing` of fewer than 30 lines."""

    @abstractmethod
    def _listing(self) -> Listing:
        """Return what is shown."""

    def __repr__(self) -> str:
        return self._listing().text()

    def _repr_html_(self) -> str:
        return self._listing().html()


def count_of(n: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, such as "1 chain", "2,000 chains"."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def _short(cell: str) -> str:
    line = " ".join(cell.split())
    return line if len(line) <= MAX_CELL else line[: MAX_CELL - 3] + "..."
