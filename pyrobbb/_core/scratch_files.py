"""Files that are locked while they are written, and removed later if their process was killed."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # on Windows, where an open file cannot be replaced or removed
    fcntl = None  # type: ignore[assignment]

MIN_AGE = 3600.0
"""Age, in seconds, from which a file is assumed to be abandoned where files cannot be locked."""


@contextmanager
def locked_file(path: Path) -> Iterator[IO[bytes]]:
    """Create a file, which is locked until the end of the block; the system unlocks it if we die.

    Raises
    ------
    FileExistsError
        If the path exists.
    """
    while True:
        with open(path, "xb") as stream:
            _lock(stream.fileno())
            if _is_file_at(path, stream):
                yield stream
                return
        # Another process has removed it before it was locked.


def remove_abandoned(path: Path, *others: Path) -> None:
    """Remove a file, and others that belong to it, unless a process is writing the first."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return
    try:
        if not _lock(handle) and time.time() - os.fstat(handle).st_mtime < MIN_AGE:
            return
        for each in (path, *others):
            with suppress(OSError):  # a later call removes what cannot be removed now
                each.unlink(missing_ok=True)
    except BlockingIOError:
        pass
    finally:
        os.close(handle)


@contextmanager
def replacing(target: Path) -> Iterator[IO[bytes]]:
    """Write a file beside the target, which it replaces at the end of the block unless it fails.

    What killed processes have left of earlier attempts is removed.
    """
    leftover = re.compile(rf"\.{re.escape(target.name)}-[0-9a-f]{{16}}")
    with suppress(OSError):  # the folder may not be readable
        for entry in target.parent.iterdir():
            if leftover.fullmatch(entry.name):
                remove_abandoned(entry)
    scratch = target.parent / f".{target.name}-{secrets.token_hex(8)}"
    try:
        with locked_file(scratch) as stream:
            yield stream
            stream.flush()
            if fcntl is not None:
                scratch.replace(target)
        if fcntl is None:
            scratch.replace(target)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def _lock(handle: int) -> bool:
    """Lock a file; return False where files cannot be locked, and raise if another process has."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # some network file systems
        return False
    return True


def _is_file_at(path: Path, stream: IO[Any]) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.lstat(path))
    except FileNotFoundError:
        return False
