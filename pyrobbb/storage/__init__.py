"""A posterior on disk. Loading runs no code from it."""

from .posteriors import read, read_extra, write

__all__ = ["read", "read_extra", "write"]
