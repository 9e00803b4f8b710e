"""A report on a fit: one self-contained page of HTML."""

from .page import write

__all__ = ["write"]
