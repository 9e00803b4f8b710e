"""What the commands have in common: their options, and lists written with commas."""

from __future__ import annotations

import csv
from typing import Annotated, Literal

import typer

from ..tables.errors import TableError

Data = Annotated[str, typer.Argument(help="csv, tsv (also .gz) or parquet file.", metavar="DATA")]
Model = Annotated[str, typer.Argument(help="Folder written by `pyrobbb fit`.", metavar="MODEL")]
Encoding = Annotated[
    str | None, typer.Option(help="Encoding of the text; UTF-8 if no byte order mark says another.")
]
Delimiter = Annotated[
    str | None, typer.Option(help="What stands between cells; found by looking at the first lines.")
]
Decimal = Annotated[Literal[".", ","], typer.Option(help="Decimal point or comma in the table.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Makes it repeatable.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def names_in(words: str) -> list[str]:
    """Give the names in a list with commas; one with a comma of its own is quoted."""
    fields = next(csv.reader([words], skipinitialspace=True), [])
    return [name.strip() for name in fields if name.strip()]


def units_in(words: str) -> tuple[int, ...] | Literal["auto"]:
    """Give the units of hidden layers: none for "0"."""
    if words.strip() == "auto":
        return "auto"
    if words.strip() == "0":
        return ()
    try:
        units = tuple(int(word) for word in words.split(","))
    except ValueError:
        units = (0,)
    if min(units) < 1:
        raise TableError(f"--hidden must be positive whole numbers such as 50,50, got {words!r}.")
    return units


def probabilities_in(words: str) -> tuple[float, ...]:
    """Give the probabilities of quantiles."""
    try:
        levels = tuple(float(word) for word in words.split(","))
    except ValueError:
        levels = (0.0,)
    if not all(0 < level < 1 for level in levels) or len(set(levels)) < len(levels):
        raise TableError(
            f"--quantiles must be distinct probabilities in (0, 1) such as 0.05,0.5,0.95, got "
            f"{words!r}."
        )
    return levels
