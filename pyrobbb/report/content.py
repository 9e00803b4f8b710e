"""Contents of the templates of a report: sections, tables, and numbers as text."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_CELL = 80
"""Maximum number of characters shown of a cell of the user's table."""
MINUS, UNKNOWN = "\u2212", "\u2013"


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes
    ----------
    content : object
        Shown as text. For the kind ``"meter"``, the length of a bar in percent.
    kind : str
        CSS class.
    """

    content: Any
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table: one header per column, and the rows.

    Attributes
    ----------
    headers : tuple of Cell
    rows : tuple of tuples of Cell
    kind : str
        CSS class.
    """

    headers: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    kind: str = ""

    @classmethod
    def of(cls, headers: Sequence[Any], rows: Iterable[Sequence[Any]], kind: str = "") -> Table:
        """Return a table; values that are not a `Cell` get the kind of their column's header."""
        columns = tuple(header if isinstance(header, Cell) else Cell(header) for header in headers)
        cells = (
            tuple(
                value if isinstance(value, Cell) else Cell(value, column.kind)
                for column, value in zip(columns, row, strict=True)
            )
            for row in rows
        )
        return cls(columns, tuple(cells), kind)

    @property
    def has_headers(self) -> bool:
        """Whether any column has a header."""
        return any(header.content != "" for header in self.headers)


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading.

    Attributes
    ----------
    anchor : str
        Also the name of the template.
    title : str
    content : mapping of str to object
        Variables of the template.
    """

    anchor: str
    title: str
    content: Mapping[str, Any]


def number(value: float) -> str:
    """Format a number with four significant digits, or in full from 1,000 to 10^12."""
    value = float(value)
    if not math.isfinite(value):
        return UNKNOWN
    plain = f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.4g}"
    return plain.replace("-", MINUS)


def aligned(values: Collection[float]) -> list[str]:
    """Format numbers with equally many decimals: four significant digits of the largest."""
    largest = max((abs(float(value)) for value in values if math.isfinite(value)), default=0.0)
    if not 1e-4 <= largest < 1e12:
        return [number(value) for value in values]
    decimals = max(3 - math.floor(math.log10(largest)), 0)
    return [
        f"{float(value):,.{decimals}f}".replace("-", MINUS) if math.isfinite(value) else UNKNOWN
        for value in values
    ]


def percentage(value: float, digits: int = 0) -> str:
    """Format a share as a percentage."""
    return f"{100 * float(value):.{digits}f}%" if math.isfinite(value) else UNKNOWN


def cell_text(value: Any) -> str:
    """Return the text of a cell of the user's table, at most 80 characters."""
    text = "" if value is None else str(value)
    if text in ("", "nan", "NaT", "<NA>"):
        return "(missing)"
    return text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 1]}…"
