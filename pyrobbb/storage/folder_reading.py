"""Reading a folder that `write_folder` has written, after checks of its files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import reprlib
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from safetensors.torch import load
from torch import Tensor

from .layout import FORMAT, HEADER, TENSORS, hash_of_header
from .strict_json import check_fields, parse_object, prefix_errors

FORMATS = (2, FORMAT)
MAX_HEADER_BYTES = 2**28
CHUNK_BYTES = 2**20


def read_folder(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the header and the tensors of a folder. No code in them is run.

    Returns
    -------
    header : dict
        Of its fields, only `format` and `tensors` have been checked.
    tensors : dict of str to Tensor
        The two have the hash in the header; in format 2, the tensors have it.

    Raises
    ------
    FileNotFoundError
        If there is no folder, or no header in it.
    ValueError
        If it is damaged, in another format, or a symbolic link.
    """
    folder = Path(path)
    if folder.is_symlink():
        raise ValueError(
            f"`path` {str(folder)!r} is a symbolic link, which is not followed: pass the folder "
            "itself."
        )
    before, header = None, _read_header(folder)
    while header != before:  # a concurrent save removes the tensors of the header just read
        with prefix_errors(f"`path` {str(folder)!r} is damaged"):
            reference = check_fields(
                "'tensors'", header.get("tensors"), {"file": str, "bytes": int, "sha256": str}
            )
            if not TENSORS.fullmatch(reference["file"]):  # such as ../../elsewhere
                raise ValueError(
                    "'file' in its 'tensors' must be posterior-<16 hexadecimal digits>.safetensors,"
                    f" got {reprlib.repr(reference['file'])}."
                )
            tensors = _read_tensors(folder, header)
        if tensors is not None:
            return header, tensors
        before, header = header, _read_header(folder)
    raise ValueError(
        f"`path` {str(folder)!r} is damaged: its file {reference['file']!r} is missing."
    )


def _read_header(folder: Path) -> dict[str, Any]:
    missing = FileNotFoundError(f"`path` {str(folder)!r} holds no posterior (no {HEADER}).")
    with prefix_errors(f"`path` {str(folder)!r} is damaged"):
        try:
            with opened(folder / HEADER) as file:
                size = os.fstat(file.fileno()).st_size
                if size > MAX_HEADER_BYTES:
                    raise ValueError(f"its {HEADER} has {size} bytes, at most {MAX_HEADER_BYTES}.")
                content = file.read(MAX_HEADER_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            raise missing from None
        header = parse_object(HEADER, content)
        number = header.get("format")
        if isinstance(number, bool) or not isinstance(number, int):
            raise ValueError(
                f"'format' in its {HEADER} must be a whole number, got {reprlib.repr(number)}."
            )
    if number not in FORMATS:
        remedy = (
            "Read it with the version that wrote it, or a later one"
            if number > FORMAT
            else "It is older than the first release: fit and save again"
        )
        versions = header.get("versions")
        writer = versions.get("pyrobbb") if isinstance(versions, dict) else None
        raise ValueError(
            f"`path` {str(folder)!r} has format {reprlib.repr(number)}, written by pyrobbb "
            f"{reprlib.repr(writer)}; this version of pyrobbb reads formats "
            f"{' and '.join(map(str, FORMATS))}. {remedy}."
        )
    return header


def _read_tensors(folder: Path, header: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Read the file of tensors; return None if it does not exist."""
    reference = header["tensors"]
    name, n_bytes = reference["file"], reference["bytes"]
    try:
        with opened(folder / name) as file:
            size = os.fstat(file.fileno()).st_size
            if size < n_bytes:
                raise ValueError(
                    f"its file {name!r} is truncated: it has {size} of {n_bytes} bytes."
                )
            changed = ValueError(
                f"its file {name!r} or its {HEADER} has been changed: they are not the ones that "
                "were written together."
            )
            if size > n_bytes:
                raise changed
            _check_layout(name, file, size)
            hashed = hashlib.sha256() if header["format"] == 2 else hash_of_header(header)
            file.seek(0)
            while chunk := file.read(CHUNK_BYTES):
                hashed.update(chunk)
            if hashed.hexdigest() != reference["sha256"]:
                raise changed
            file.seek(0)
            body = file.read(size)
    except FileNotFoundError:
        return None
    try:
        return load(body)
    except Exception as error:  # safetensors has its own exception class
        raise ValueError(f"its file {name!r} is not a safetensors file ({error}).") from error


def _check_layout(name: str, file: IO[bytes], size: int) -> None:
    """Raise unless the tensors in a safetensors file fill it, before it is read as a whole."""
    n = int.from_bytes(file.read(8), "little")
    damaged = f"its file {name!r} is not a safetensors file"
    if not 2 <= n <= min(size - 8, MAX_HEADER_BYTES):
        raise ValueError(f"{damaged} (a header of {n} bytes in {size}).")
    try:
        entries = json.loads(file.read(n))
        ends = [entry["data_offsets"][1] for k, entry in entries.items() if k != "__metadata__"]
        is_full = max(ends, default=0) == size - 8 - n
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(f"{damaged} ({type(error).__name__}: {error}).") from error
    if not is_full:
        raise ValueError(f"{damaged} (its tensors do not fill it).")


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file for reading; raise a ValueError if it is a link, a folder or a pipe."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path, flags | getattr(os, "O_BINARY", 0))
    except OSError as error:
        if error.errno == errno.ELOOP or path.is_symlink():
            raise ValueError(
                f"its {path.name!r} is a symbolic link, which is not followed."
            ) from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError(f"its {path.name!r} is not a file.")
    with os.fdopen(handle, "rb") as file:
        yield file
