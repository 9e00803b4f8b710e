"""A folder of a JSON header and tensors: written at once or not at all, read with every check.

The header, ``posterior.json``, names the one file of tensors that belongs to it, with its size and
its hash. New tensors are written beside the old ones; the moment at which the new header takes the
place of the old one is the moment at which the folder changes.
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
PATIENCE = 3600.0
"""Seconds after which a file without a header is what a crash has left, not what another process is
writing at this moment. The tensors of the header that is replaced go at once."""

SCRATCH = re.compile(r"\.posterior-[0-9a-f]{16}\.json")


def write_folder(
    path: str | os.PathLike[str], header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a header and tensors in the place of those that the folder holds, if any.

    A crash at any moment leaves either the old ones or the new ones, whole; so does an error.

    Parameters
    ----------
    path : path-like
    header : mapping
        What JSON can hold. `format` and `tensors` are added.
    tensors : mapping of str to Tensor

    Raises
    ------
    FileExistsError
        If the path is a file, or a folder that holds other things.
    OSError
        If the folder cannot be written: its subclass says why.
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
        _check_free(folder)
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


def remove_strays(path: str | os.PathLike[str]) -> None:
    """Remove what a crash has left beside the tensors of the header.

    Only for the one process that writes into the folder: what another is writing at this moment is
    a stray too.

    Parameters
    ----------
    path : path-like
    """
    folder = Path(path)
    if folder.is_dir():
        for entry in _beside(folder, _named_in(folder / HEADER)):
            entry.unlink(missing_ok=True)


def _check_free(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(errno.EEXIST, "it is a file. Give a folder")
    if not folder.exists() or (folder / HEADER).is_file():
        return
    foreign = [entry.name for entry in folder.iterdir() if not _is_ours(entry.name)]
    if foreign:
        raise FileExistsError(
            errno.EEXIST,
            f"it exists and holds no posterior, but {min(foreign)!r}. Give an empty folder or a "
            "new one",
        )


def _is_ours(name: str) -> bool:
    return bool(TENSORS.fullmatch(name) or SCRATCH.fullmatch(name))


def _beside(folder: Path, name: str | None) -> list[Path]:
    """List the files of ours that are not the tensors of this name, and no header."""
    return [entry for entry in folder.iterdir() if _is_ours(entry.name) and entry.name != name]


def _replace(folder: Path, tensors: Path, body: bytes, scratch: Path, text: bytes) -> None:
    try:
        _write_through(tensors, body)
        _write_through(scratch, text)
        _sync(folder)  # the names of both, before a header says that they are there
        old = _named_in(folder / HEADER)
        os.replace(scratch, folder / HEADER)
    except BaseException:
        if _named_in(folder / HEADER) != tensors.name:  # Ctrl-C may come just after the replacement
            for new in (tensors, scratch):
                with suppress(OSError):
                    new.unlink()
        raise
    _sync(folder)
    with suppress(OSError):  # what cannot be removed now is removed by a later call
        for entry in _beside(folder, tensors.name):
            if entry.name == old or time.time() - entry.stat().st_mtime > PATIENCE:
                entry.unlink()


def _write_through(file: Path, content: bytes) -> None:
    with open(file, "xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    with suppress(OSError):  # not every system can
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _named_in(header: Path) -> str | None:
    """Give the name of the tensors that a header names, however damaged it is otherwise."""
    try:
        found = TENSORS.findall(header.read_bytes().decode(errors="replace"))
    except FileNotFoundError:
        return None
    return found[-1] if found else None  # that of the last field


def read_folder(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the header and the tensors of a folder. No code in them is run.

    Returns
    -------
    header : dict
        Its fields, but for `format` and `tensors`, are as they stand in the file.
    tensors : dict of str to Tensor
        As they were written: file and hash agree.

    Raises
    ------
    FileNotFoundError
        If there is no folder, or no header in it.
    ValueError
        If it is damaged or of another format.
    """
    folder = Path(path)
    before, header = None, _read_header(folder)
    while header != before:  # who saves now takes away the tensors of the header just read
        with prefix_errors(f"`path` {str(folder)!r} is damaged"):
            reference = check_fields(
                "'tensors'", header.get("tensors"), {"file": str, "bytes": int, "sha256": str}
            )
            if not TENSORS.fullmatch(reference["file"]):  # such as ../../elsewhere
                raise ValueError(
                    f"its 'tensors' names the file {reprlib.repr(reference['file'])}, must be "
                    "posterior-<16 hexadecimal digits>.safetensors."
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
            raise ValueError(f"its {HEADER} has the 'format' {reprlib.repr(number)}, not a number.")
    if number != FORMAT:
        remedy = (
            "Read it with the version that wrote it or a later one"
            if number > FORMAT
            else "It is older than the first release: fit and save once more"
        )
        wrote = header.get("versions")
        wrote = wrote.get("pyrobbb") if isinstance(wrote, dict) else None
        raise ValueError(
            f"`path` {str(folder)!r} has format {reprlib.repr(number)}, written by pyrobbb "
            f"{reprlib.repr(wrote)}; this version of pyrobbb reads format {FORMAT}. {remedy}."
        )
    return header


def _read_tensors(folder: Path, reference: Mapping[str, Any]) -> dict[str, Tensor] | None:
    name = reference["file"]
    file = folder / name
    if file.exists() and not file.is_file():
        raise ValueError(f"its {name!r} is no file.")
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
    except Exception as error:  # the reader has errors of its own for what is no such file
        raise ValueError(f"its file {name!r} holds no tensors ({error}).") from error
