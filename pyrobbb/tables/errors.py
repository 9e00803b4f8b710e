"""What a bad table raises: one line that says where and why, and what to do."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


class TableError(ValueError):
    """A table cannot be used: says where and why, and what to do, in one line.

    Parameters
    ----------
    message : str
    file : str, optional
        Which file it is about; put before the message.
    """

    def __init__(self, message: str, file: str | None = None) -> None:
        super().__init__(message if file is None else f"{file}: {message}")
        self.file = file


@contextlib.contextmanager
def naming(file: str | os.PathLike[str]) -> Iterator[None]:
    """Name a file in what is raised about the rows that were read from it."""
    try:
        yield
    except TableError as error:
        if error.file is None:
            raise TableError(str(error), os.fspath(file)) from error
        raise


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Turn what the operating system says of a file that is read into a `TableError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise TableError("there is no such file.") from error
    except OSError as error:
        raise TableError(f"cannot be read: {error.strerror or error}.") from error
