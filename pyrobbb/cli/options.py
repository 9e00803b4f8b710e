"""Options that several commands share, and the parsing of comma-separated lists."""

from __future__ import annotations

import csv
from typing import Annotated, Literal

import typer

from .errors import UsageError

__all__ = [
    "AsJson",
    "Data",
    "Decimal",
    "Delimiter",
    "Encoding",
    "MaxExpansion",
    "Model",
    "Seed",
    "ShowTraceback",
    "Verbose",
    "parse_hidden",
    "parse_names",
    "parse_probabilities",
]


def _unescape_tab(delimiter: str | None) -> str | None:
    return "\t" if delimiter in ("tab", "\\t") else delimiter


def _set_traceback(context: typer.Context, is_set: bool) -> bool:
    if is_set:
        context.obj.shows_traceback = True
    return is_set


def _set_verbose(context: typer.Context, is_set: bool) -> bool:
    if is_set:
        context.obj.max_notes = None
    return is_set


Data = Annotated[str, typer.Argument(help="csv, tsv (also .gz) or parquet file.", metavar="DATA")]
Model = Annotated[str, typer.Argument(help="Folder written by `pyrobbb fit`.", metavar="MODEL")]
Encoding = Annotated[
    str | None,
    typer.Option(help="Text encoding; by default that of the byte order mark, or UTF-8."),
]
Delimiter = Annotated[
    str | None,
    typer.Option(callback=_unescape_tab, help="Field delimiter (detected if omitted)."),
]
Decimal = Annotated[
    Literal[".", ","] | None,
    typer.Option(help="Decimal separator (by default inferred by fit, and stored in the model)."),
]
MaxExpansion = Annotated[
    int,
    typer.Option(min=1, help="How many times its size a .gz or parquet file may expand to."),
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed, for repeatable results.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")
]
ShowTraceback = Annotated[
    bool,
    typer.Option(
        "--traceback", callback=_set_traceback, help="Also show the traceback of an error."
    ),
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", callback=_set_verbose, help="Print all notes, not only ten."),
]


def parse_names(text: str) -> list[str]:
    """Return the names in a comma-separated list; names that contain a comma are quoted."""
    fields = next(csv.reader([text], skipinitialspace=True), [])
    return [name.strip() for name in fields if name.strip()]


def parse_hidden(text: str) -> tuple[int, ...] | Literal["auto"]:
    """Return the number of units of each hidden layer; "0" means no hidden layers."""
    if text.strip() == "auto":
        return "auto"
    if text.strip() == "0":
        return ()
    try:
        units = tuple(int(part) for part in text.split(","))
    except ValueError:
        units = (0,)
    if min(units) < 1:
        raise UsageError(f"--hidden must be positive integers such as 50,50, got {text!r}.")
    return units


def parse_probabilities(text: str) -> tuple[float, ...]:
    """Return the probabilities of quantiles in a comma-separated list."""
    try:
        levels = tuple(float(part) for part in text.split(","))
    except ValueError:
        levels = (0.0,)
    if not all(0 < level < 1 for level in levels) or len(set(levels)) < len(levels):
        raise UsageError(
            "--quantiles must be distinct probabilities in (0, 1) such as 0.05,0.5,0.95, got "
            f"{text!r}."
        )
    return levels
