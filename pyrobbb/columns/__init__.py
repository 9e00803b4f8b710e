"""Columns of a table: what they hold, inferred from their cells, and how they become inputs."""

from .encoder import ColumnEncoder
from .encoding import EncodingReport
from .errors import TableError, UserError

__all__ = ["ColumnEncoder", "EncodingReport", "TableError", "UserError"]
