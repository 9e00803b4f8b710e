"""Tables in csv, tsv and parquet files: read, encoded, fitted and written."""

from typing import TYPE_CHECKING, Any

from ..columns.errors import TableError, UserError
from .reader import TableFile
from .schema import Schema

if TYPE_CHECKING:
    from .fitting import TableFit, fit_table
    from .model import TableModel

__all__ = [
    "Schema",
    "TableError",
    "TableFile",
    "TableFit",
    "TableModel",
    "UserError",
    "fit_table",
]


def __getattr__(name: str) -> Any:
    """Import what only a fit needs on first use."""
    if name in ("TableFit", "fit_table"):
        from . import fitting

        return getattr(fitting, name)
    if name == "TableModel":
        from .model import TableModel

        return TableModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
