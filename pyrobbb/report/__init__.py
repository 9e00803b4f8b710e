"""A report on a fit: one page of HTML that needs nothing beside it."""

from .report import write

__all__ = ["write"]
