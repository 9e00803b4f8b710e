"""Writing tables in pieces: the file appears when it is complete, or not at all."""

from __future__ import annotations

import contextlib
import gzip
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .errors import TableError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ENDINGS", "check_file", "check_folder", "writing"]

SEPARATORS = {".csv": ",", ".tsv": "\t"}
ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
STDOUT = "-"


def check_file(path: str | os.PathLike[str], endings: tuple[str, ...] = ()) -> None:
    """See that a file can be written, before anything is computed for it.

    Parameters
    ----------
    path : path-like
        "-" is stdout. What is there and is no file, such as /dev/stdout, is written to as it is.
    endings : tuple of str
        Those of which it must have one.

    Raises
    ------
    TableError
        If it cannot be.
    """
    path = os.fspath(path)
    if path == STDOUT or _is_device(path):
        return
    target = Path(path).resolve()
    if endings and not path.lower().endswith(endings):
        raise TableError(f"must end in {', '.join(endings[:-1])} or {endings[-1]}.", path)
    if target.is_dir():
        raise TableError("is a folder; name a file.", path)
    if not target.parent.is_dir():
        raise TableError(f"cannot be written: there is no folder {str(target.parent)!r}.", path)
    _check_creatable(target.parent, path)


def check_folder(path: str | os.PathLike[str]) -> None:
    """See that a model can be written to a folder, before it is fitted.

    Raises
    ------
    TableError
        If it cannot be, or if something else is there.
    """
    path, target = os.fspath(path), Path(path).absolute()
    is_free = not target.exists() or (target.is_dir() and not any(target.iterdir()))
    if not is_free and not (target / "posterior.json").is_file():
        raise TableError("exists and is no model; name another folder, or remove it.", path)
    nearest = next(own for own in target.parents if own.exists())
    if not nearest.is_dir():
        raise TableError(f"cannot be written: {str(nearest)!r} is a file.", path)
    _check_creatable(nearest, path)


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Give a function that writes frames below each other.

    The rows go to a temporary file in the same folder, which takes the place of the target at the
    end.

    Parameters
    ----------
    path : path-like
        .csv or .tsv, which ".gz" may follow, or .parquet; "-" is csv on stdout.

    Raises
    ------
    TableError
        If it cannot be written, or not to the end.
    """
    path = os.fspath(path)
    check_file(path, ENDINGS)
    if path == STDOUT:
        with _pieces(sys.stdout.buffer if hasattr(sys.stdout, "buffer") else None, ".csv") as write:
            yield write
        sys.stdout.flush()
        return
    try:
        with _writing_file(path) as write:
            yield write
    except OSError as error:
        raise TableError(f"cannot be written: {error.strerror or error}.", path) from error


@contextlib.contextmanager
def _writing_file(path: str) -> Iterator[Callable[[pd.DataFrame], None]]:
    is_compressed = path.lower().endswith(".gz")
    ending = Path(path[:-3] if is_compressed else path).suffix.lower()
    if _is_device(path):
        with Path(path).open("wb", buffering=0) as device, _pieces(device, ending) as write:
            yield write
        return
    target = Path(path).resolve()
    scratch = target.parent / f".{target.name}-{secrets.token_hex(8)}"
    try:
        with scratch.open("wb") as file, contextlib.ExitStack() as stack:
            inner: Any = file
            if is_compressed:
                inner = stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0))
            yield stack.enter_context(_pieces(inner, ending))
        if _is_device(path):
            raise TableError("has become something that is no file; it is left alone.", path)
        scratch.replace(target)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _pieces(file: IO[bytes] | None, ending: str) -> Iterator[Callable[[pd.DataFrame], None]]:
    if ending == ".parquet" and file is not None:
        with _parquet_pieces(file) as write:
            yield write
    else:
        yield _text_pieces(file, SEPARATORS.get(ending, ","))


def _text_pieces(file: IO[bytes] | None, separator: str) -> Callable[[pd.DataFrame], None]:
    is_first = True

    def write(frame: pd.DataFrame) -> None:
        nonlocal is_first
        text = frame.to_csv(index=False, header=is_first, sep=separator, lineterminator="\n")
        is_first = False
        if file is None:  # a stdout without bytes
            sys.stdout.write(text)
        else:
            file.write(text.encode())

    return write


@contextlib.contextmanager
def _parquet_pieces(file: IO[bytes]) -> Iterator[Callable[[pd.DataFrame], None]]:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise TableError("A parquet file needs pip install 'pyrobbb[parquet]'.") from error
    writer: Any = None

    def write(frame: pd.DataFrame) -> None:
        nonlocal writer
        if writer is None:
            schema = arrow.Schema.from_pandas(frame, preserve_index=False)
            for i, own in enumerate(schema):
                if arrow.types.is_null(own.type):  # a further piece may have words
                    schema = schema.set(i, own.with_type(arrow.string()))
            writer = parquet.ParquetWriter(file, schema)
        writer.write_table(
            arrow.Table.from_pandas(frame, schema=writer.schema, preserve_index=False)
        )

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


def _is_device(path: str) -> bool:
    return Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir()


def _check_creatable(folder: Path, path: str) -> None:
    try:
        Path(tempfile.mkdtemp(prefix=".pyrobbb-", dir=folder)).rmdir()
    except OSError as error:
        reason = error.strerror or error
        raise TableError(f"cannot be written in {str(folder)!r}: {reason}.", path) from error
