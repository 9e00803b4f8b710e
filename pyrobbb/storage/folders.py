"""A folder that holds a JSON header and tensors, replaced atomically and checked when it is read.

The header, ``posterior.json``, names the file of tensors that belongs to it, with its size and
hash. New tensors are written to a new file, and the folder changes its content at the moment when
the new header replaces the old one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import reprlib
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from .strict_json import check_fields, parse_object, prefix_errors

FORMAT = 2
HEADER = "posterior.json"
TENSORS = re.compile(r"posterior-[0-9a-f]{16}\.safetensors")
SCRATCH = re.compile(r"\.posterior-[0-9a-f]{16}\.json")
MIN_LEFTOVER_AGE = 3600.0
"""Age, in seconds, from which a file that no header names is assumed to be left by a crash; a
younger file may belong to another process that is still writing. The tensors of the replaced
header are removed immediately."""


def write_folder(
    path: str | os.PathLike[str], header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a header and tensors, replacing those that the folder holds.

    After a crash or an error at any moment, the folder holds either the old or the new ones.

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
        If the folder cannot be written; the subclass depends on the reason.
    """
    folder, token = Path(path), secrets.token_hex(8)
    body = save({n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()})
    reference = {
        "file": (name := f"posterior-{token}.safetensors"),
        "bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    whole = {"format": FORMAT, **header, "tensors": reference}
    text = json.dumps(whole, indent=2, allow_nan=False).encode()
    missing: list[Path] = []
    try:
        _check_replaceable(folder)
        missing += [p for p in (folder, *folder.parents) if not p.exists()]
        for new in reversed(missing):
            new.mkdir(exist_ok=True)
            _sync(new.parent)
        _replace(folder, folder / name, body, folder / f".posterior-{token}.json", text)
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
    """Remove the files that a crash has left in a folder.

    Call it only in the one process that writes to the folder: a file that another process is
    writing would be removed too.

    Parameters
    ----------
    path : path-like
    """
    folder = Path(path)
    if folder.is_dir():
        for entry in _unreferenced(folder, _tensors_named_in(folder / HEADER)):
            entry.unlink(missing_ok=True)


def _check_replaceable(folder: Path) -> None:
    """Raise unless the folder is new, empty or written by this module."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(errno.EEXIST, "it is a file. Pass a folder")
    if not folder.exists() or (folder / HEADER).is_file():
        return
    foreign = [entry.name for entry in folder.iterdir() if not _is_ours(entry.name)]
    if foreign:
        raise FileExistsError(
            errno.EEXIST,
            f"it exists and holds no posterior, but {min(foreign)!r}. Pass a new or an empty "
            "folder",
        )


def _is_ours(name: str) -> bool:
    return bool(TENSORS.fullmatch(name) or SCRATCH.fullmatch(name))


def _unreferenced(folder: Path, name: str | None) -> list[Path]:
    """Return the files of this module in a folder, except the header and the named tensors."""
    return [entry for entry in folder.iterdir() if _is_ours(entry.name) and entry.name != name]


def _replace(folder: Path, tensors: Path, body: bytes, scratch: Path, text: bytes) -> None:
    try:
        _write_through(tensors, body)
        _write_through(scratch, text)
        _sync(folder)  # both files must be in the directory before a header refers to them
        old = _tensors_named_in(folder / HEADER)
        os.replace(scratch, folder / HEADER)
    except BaseException:
        # Ctrl-C may arrive just after the replacement.
        if _tensors_named_in(folder / HEADER) != tensors.name:
            for new in (tensors, scratch):
                with suppress(OSError):
                    new.unlink()
        raise
    _sync(folder)
    with suppress(OSError):  # a later call removes what cannot be removed now
        for entry in _unreferenced(folder, tensors.name):
            if entry.name == old or time.time() - entry.stat().st_mtime > MIN_LEFTOVER_AGE:
                entry.unlink()


def _write_through(file: Path, content: bytes) -> None:
    with open(file, "xb") as stream:
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


def _tensors_named_in(header: Path) -> str | None:
    """Return the name of the tensors' file in a header, even if the header is damaged."""
    try:
        names = TENSORS.findall(header.read_bytes().decode(errors="replace"))
    except FileNotFoundError:
        return None
    return names[-1] if names else None  # `tensors` is the last field


def read_folder(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the header and the tensors of a folder. No code in them is run.

    Returns
    -------
    header : dict
        Of its fields, only `format` and `tensors` have been checked.
    tensors : dict of str to Tensor
        The file has the size and the hash in the header.

    Raises
    ------
    FileNotFoundError
        If there is no folder, or no header in it.
    ValueError
        If it is damaged or in another format.
    """
    folder = Path(path)
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
            tensors = _read_tensors(folder, reference)
        if tensors is not None:
            return header, tensors
        before, header = header, _read_header(folder)
    raise ValueError(
        f"`path` {str(folder)!r} is damaged: its file {reference['file']!r} is missing."
    )


def _read_header(folder: Path) -> dict[str, Any]:
    if not (folder / HEADER).is_file():
        raise FileNotFoundError(f"`path` {str(folder)!r} holds no posterior (no {HEADER}).")
    content = (folder / HEADER).read_bytes()
    with prefix_errors(f"`path` {str(folder)!r} is damaged"):
        header = parse_object(HEADER, content)
        number = header.get("format")
        if isinstance(number, bool) or not isinstance(number, int):
            raise ValueError(
                f"'format' in its {HEADER} must be a whole number, got {reprlib.repr(number)}."
            )
    if number != FORMAT:
        remedy = (
            "Read it with the version that wrote it, or a later one"
            if number > FORMAT
            else "It is older than the first release: fit and save again"
        )
        versions = header.get("versions")
        writer = versions.get("pyrobbb") if isinstance(versions, dict) else None
        raise ValueError(
            f"`path` {str(folder)!r} has format {reprlib.repr(number)}, written by pyrobbb "
            f"{reprlib.repr(writer)}; this version of pyrobbb reads format {FORMAT}. {remedy}."
        )
    return header


def _read_tensors(folder: Path, reference: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Read the file of tensors; return None if it does not exist."""
    name = reference["file"]
    file = folder / name
    if file.exists() and not file.is_file():
        raise ValueError(f"its {name!r} is not a file.")
    try:
        body = file.read_bytes()
    except FileNotFoundError:
        return None
    if len(body) < reference["bytes"]:
        raise ValueError(
            f"its file {name!r} is truncated: it has {len(body)} of {reference['bytes']} bytes."
        )
    if len(body) > reference["bytes"] or hashlib.sha256(body).hexdigest() != reference["sha256"]:
        raise ValueError(
            f"its file {name!r} has been changed: it is not the one that {HEADER} was written for."
        )
    try:
        return load(body)
    except Exception as error:  # safetensors has its own exception class
        raise ValueError(f"its file {name!r} is not a safetensors file ({error}).") from error
