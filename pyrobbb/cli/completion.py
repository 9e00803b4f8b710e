"""Completion of the names of columns in a shell, from the header of the table that is named."""

from __future__ import annotations

import typer

from ..columns.errors import UserError
from ..tables.reader import TableFile

__all__ = ["complete_column", "complete_columns"]


def complete_column(context: typer.Context, incomplete: str) -> list[str]:
    """Return the columns of the table whose names begin with a text; none if there is no table."""
    given = {
        name: context.params[name]
        for name in ("encoding", "delimiter", "max_expansion")
        if context.params.get(name) is not None
    }
    data = _data_of(context)
    if data is None:
        return []
    try:
        names = TableFile.of(data, **given).columns
    except (UserError, OSError):
        return []
    return [name for name in names if name.startswith(incomplete) and name.isprintable()]


def complete_columns(context: typer.Context, incomplete: str) -> list[str]:
    """Return completions of a comma-separated list of columns by one that is not in it yet."""
    before, comma, last = incomplete.rpartition(",")
    chosen = set(before.split(","))
    return [
        f"{before}{comma}{name}"
        for name in complete_column(context, last)
        if name not in chosen and "," not in name
    ]


def _data_of(context: typer.Context) -> str | None:
    """Return the argument DATA, if it is already there.

    While an option has no value yet, arguments are parsed, but not assigned to their names.
    """
    if context.params.get("data") is not None:
        return str(context.params["data"])
    arguments = [p.name for p in context.command.params if p.param_type_name == "argument"]
    given = dict(zip(arguments, context.args, strict=False))
    return given.get("data")
