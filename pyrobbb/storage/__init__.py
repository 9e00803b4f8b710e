"""Posteriors on disk: the format, atomic writing, and validated reading."""

from .reading import read, read_extra
from .writing import write

__all__ = ["read", "read_extra", "write"]
