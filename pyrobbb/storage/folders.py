"""A folder that holds a JSON header and tensors, replaced atomically.

The header, ``posterior.json``, names the file of tensors that belongs to it, with its size and a
hash of both. New tensors are written to a new file, and the folder changes its content at the
moment when the new header replaces the old one. Symbolic links are not followed.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from safetensors.torch import save
from torch import Tensor

from .._core.scratch_files import locked_file, remove_abandoned
from .layout import (
    FORMAT,
    HEADER,
    TENSORS,
    hash_of_header,
    scratch_name,
    tensors_name,
    token_of,
)


def write_folder(
    path: str | os.PathLike[str], header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a header and tensors, replacing those that the folder holds.

    After a crash or an error at any moment, the folder holds either the old or the new ones. What
    killed processes have left in it is removed.

    Parameters
    ----------
    path : path-like
    header : mapping
        JSON values. `format` and `tensors` are added.
    tensors : mapping of str to Tensor

    Raises
    ------
    FileExistsError
        If the path is a file, or a folder with other contents.
    OSError
        If the folder cannot be written, or is a symbolic link; the subclass depends on the reason.
    """
    folder, token = Path(path), secrets.token_hex(8)
    body = save({n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()})
    reference: dict[str, Any] = {"file": (name := tensors_name(token)), "bytes": len(body)}
    whole = {"format": FORMAT, **header, "tensors": reference}
    hashed = hash_of_header(whole)
    hashed.update(body)
    reference["sha256"] = hashed.hexdigest()
    text = json.dumps(whole, indent=2, allow_nan=False).encode()
    missing: list[Path] = []
    try:
        _check_replaceable(folder)
        missing += [p for p in (folder, *folder.parents) if not p.exists()]
        for new in reversed(missing):
            new.mkdir(exist_ok=True)
            _sync(new.parent)
        _replace(folder, folder / name, body, folder / scratch_name(token), text)
    except BaseException as error:
        for new in missing:
            with suppress(OSError):  # it is not empty
                new.rmdir()
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or str(error)
        raise OSError(
            error.errno or errno.EIO, f"`path` {str(folder)!r} cannot be written: {reason}"
        ) from error


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove the files that killed processes have left in a folder.

    Parameters
    ----------
    path : path-like
    """
    folder = Path(path)
    if not folder.is_dir():
        return
    tokens = {token for entry in folder.iterdir() if (token := token_of(entry.name))}
    for token in tokens:
        tensors, scratch = folder / tensors_name(token), folder / scratch_name(token)
        if not tensors.exists():  # they are written first
            remove_abandoned(scratch)
        elif tensors_named_in(folder / HEADER) != tensors.name:
            remove_abandoned(tensors, scratch)


def _check_replaceable(folder: Path) -> None:
    """Raise unless the folder is new, empty or written by this module."""
    if folder.is_symlink():
        raise OSError(
            errno.ELOOP, "it is a symbolic link, which is not followed. Pass the folder itself"
        )
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(errno.EEXIST, "it is a file. Pass a folder")
    if not folder.exists():
        return
    entries = list(folder.iterdir())
    for entry in entries:
        if entry.is_symlink() and (entry.name == HEADER or token_of(entry.name)):
            raise OSError(
                errno.ELOOP,
                f"its {entry.name!r} is a symbolic link, which is not followed. Remove it",
            )
    if (folder / HEADER).is_file():
        return
    foreign = [entry.name for entry in entries if not token_of(entry.name)]
    if foreign:
        raise FileExistsError(
            errno.EEXIST,
            f"it exists and holds no posterior, but {min(foreign)!r}. Pass a new or an empty "
            "folder",
        )


def _replace(folder: Path, tensors: Path, body: bytes, scratch: Path, text: bytes) -> None:
    try:
        # The tensors are locked until the header names them.
        with locked_file(tensors) as stream:
            _write_through(stream, body)
            with open(scratch, "xb") as stream:
                _write_through(stream, text)
            _sync(folder)  # both files must be in the directory before a header refers to them
            old = tensors_named_in(folder / HEADER)
            os.replace(scratch, folder / HEADER)
    except BaseException:
        # Ctrl-C may arrive just after the replacement.
        if tensors_named_in(folder / HEADER) != tensors.name:
            for new in (tensors, scratch):
                with suppress(OSError):
                    new.unlink()
        raise
    _sync(folder)
    if old is not None and old != tensors.name:
        with suppress(OSError):  # a later call removes what cannot be removed now
            (folder / old).unlink()
    with suppress(OSError):
        remove_leftovers(folder)


def _write_through(stream: IO[bytes], content: bytes) -> None:
    stream.write(content)
    stream.flush()
    os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    with suppress(OSError):  # not every system supports it
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def tensors_named_in(header: Path) -> str | None:
    """Return the name of the tensors' file in a header, even if the header is damaged."""
    try:
        content = header.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return None
    names = [match[0] for match in TENSORS.finditer(content)]
    return names[-1] if names else None  # `tensors` is the last field
