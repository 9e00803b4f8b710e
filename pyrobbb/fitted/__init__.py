"""The result of one fit, which training, storage and diagnostics share."""

from .history import History

__all__ = ["History"]
