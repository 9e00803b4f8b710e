"""Compressed tables, which may expand only to a multiple of their size."""

from __future__ import annotations

import gzip
import io
from typing import IO, Any

from ..columns.errors import TableError

__all__ = ["MAX_CHUNK_BYTES", "MAX_EXPANSION", "GzipReader", "check_expansion", "skip_to_check"]

MAX_EXPANSION = 100
"""Tables of measurements shrink to a tenth, those with many equal rows to a hundredth."""
MIN_BYTES = 1 << 26
"""A table that expands to less is not refused."""
MAX_CHUNK_BYTES = 1 << 30
"""Rows that are read at once may not be larger; equal strings are stored once, but read often."""


def check_expansion(n_bytes: int, n_compressed: int, max_expansion: int) -> None:
    """Raise if a table expands to more than a multiple of its size.

    Parameters
    ----------
    n_bytes : int
        Size of the table in memory, or of what has been read of it.
    n_compressed : int
        Size of the file, or of what has been read of it.
    max_expansion : int
        The largest ratio of the two.
    """
    if n_bytes > max(MIN_BYTES, max_expansion * n_compressed):
        raise TableError(
            f"expands from {n_compressed:,} to at least {n_bytes:,} bytes, more than "
            f"{max_expansion} times its size. If this is right, raise --max-expansion."
        )


def skip_to_check(file: IO[bytes]) -> None:
    """Read beyond the bytes that are not checked: reading bytes is faster than reading rows."""
    n_bytes = 0
    while n_bytes <= MIN_BYTES and (block := file.read(1 << 16)):
        n_bytes += len(block)


class GzipReader(io.RawIOBase):
    """The uncompressed bytes of a file.

    Parameters
    ----------
    path : str
    max_expansion : int
        See `check_expansion`.
    """

    def __init__(self, path: str, max_expansion: int) -> None:
        self._gzip: Any = gzip.GzipFile(path)
        self._max_expansion = max_expansion
        self._n_read = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read bytes into a buffer, and return their number."""
        n_bytes = self._gzip.readinto(buffer)
        self._n_read += n_bytes
        check_expansion(self._n_read, self._gzip.fileobj.tell(), self._max_expansion)
        return n_bytes

    def close(self) -> None:
        """Close the file."""
        self._gzip.close()
        super().close()
