"""Errors in a user's table: one line with the place, the problem and the remedy."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

__all__ = ["TableError", "UserError", "prefix_errors", "translate_os_errors"]


class UserError(ValueError):
    """A mistake in a user's file or argument, as opposed to a bug of this library.

    The message is a single line that can be shown without a traceback.
    """


class TableError(UserError):
    """A table that cannot be used.

    Parameters
    ----------
    message : str
        The place, the problem and the remedy, in one line.
    file : str, optional
        The file concerned; prefixed to the message.
    """

    def __init__(self, message: str, file: str | None = None) -> None:
        super().__init__(message if file is None else f"{file}: {message}")
        self.file = file


@contextlib.contextmanager
def prefix_errors(file: str | os.PathLike[str]) -> Iterator[None]:
    """Prefix the message of a `TableError` raised in the block with the file's name."""
    try:
        yield
    except TableError as error:
        if error.file is None:
            raise TableError(str(error), os.fspath(file)) from error
        raise


@contextlib.contextmanager
def translate_os_errors() -> Iterator[None]:
    """Raise a `TableError` in place of an `OSError` raised while a file is read."""
    try:
        yield
    except FileNotFoundError as error:
        raise TableError("does not exist.") from error
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split()).rstrip(".")
        raise TableError(f"cannot be read: {reason}.") from error
