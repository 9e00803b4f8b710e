"""Medians, quartiles and ratios of rows, and tables of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from harness import Row


@dataclass(frozen=True)
class Spread:
    """The middle of some samples."""

    median: float
    lower: float
    upper: float
    n: int


def spread(samples: Sequence[float]) -> Spread:
    """Return median and quartiles."""
    lower, middle, upper = np.quantile(samples, [0.25, 0.5, 0.75]).tolist()
    return Spread(middle, lower, upper, len(samples))


def select(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """Keep the rows that have these values."""
    return [r for r in rows if all(r.get(name) == value for name, value in wanted.items())]


def pooled(rows: Iterable[Row], of: str = "seconds") -> list[float]:
    """Put the samples of all rows together."""
    samples: list[float] = []
    for row in rows:
        value = row.get(of)
        samples += value if isinstance(value, list) else [] if value is None else [value]
    return samples


def failure(rows: Iterable[Row]) -> str:
    """Return why there are no samples."""
    return next((row["failed"] for row in rows if "failed" in row), "not run")


def ratio(above: Iterable[Row], below: Iterable[Row], of: str = "seconds") -> str:
    """Return the ratio of two medians, and the lowest and highest of the rounds.

    The rounds lie apart in time: what slows the machine down for a while is in both of a round.
    """
    above, below = list(above), list(below)
    if not pooled(above, of) or not pooled(below, of):
        return "-"
    each = []
    for number in sorted({row["round"] for row in above}):
        pair = [pooled(select(rows, round=number), of) for rows in (above, below)]
        if all(pair):
            each.append(median(pair[0]) / median(pair[1]))
    whole = median(pooled(above, of)) / median(pooled(below, of))
    text = significant(whole)
    if len(each) > 1:
        text += f" ({significant(min(each))} to {significant(max(each))})"
    return text


def significant(value: float, digits: int = 3) -> str:
    """Write a number with so many significant digits, and no exponent."""
    if value == 0 or not np.isfinite(value):
        return f"{value:g}"
    decimals = max(0, digits - 1 - int(np.floor(np.log10(abs(value)))))
    return f"{value:,.{decimals}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown, the columns after the first to the right."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    rule = [f":{'-' * max(2, widths[0] - 1)}", *(f"{'-' * max(2, w - 1)}:" for w in widths[1:])]
    lines = [cells[0], rule, *cells[1:]]
    return "\n".join(
        "| "
        + " | ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        + " |"
        for line in lines
    )


def spread_cells(samples: Sequence[float], unit: float) -> list[str]:
    """Return median and quartiles in a unit, as two cells."""
    middle = spread([sample / unit for sample in samples])
    return [
        significant(middle.median),
        f"{significant(middle.lower)} to {significant(middle.upper)}",
    ]


MS, S, MIB = 1e-3, 1.0, 2.0**20
