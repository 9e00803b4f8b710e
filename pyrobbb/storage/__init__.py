"""A posterior on disk: its format, writing it atomically, and reading it with every check."""

from .reading import read, read_extra
from .writing import write

__all__ = ["read", "read_extra", "write"]
