"""Writing of tables chunk by chunk; a file appears only when it is complete."""

from __future__ import annotations

import contextlib
import csv
import gzip
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .._core.scratch_files import replacing
from ..columns.errors import TableError
from .safe_text import escape_controls, escape_formula

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SUFFIXES", "check_file", "check_model", "check_model_folder", "open_writer"]

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
STDOUT = "-"
MODEL_HEADER = "posterior.json"


def check_file(path: str | os.PathLike[str], suffixes: tuple[str, ...] = ()) -> None:
    """Raise if a file cannot be written, before anything is computed for it.

    Parameters
    ----------
    path : path-like
        "-" is stdout. A path that exists and is not a regular file, such as /dev/stdout, is
        written to directly.
    suffixes : tuple of str
        Suffixes of which the path must have one.

    Raises
    ------
    TableError
        If the file cannot be written.
    """
    path = os.fspath(path)
    if path == STDOUT or _is_device(path):
        return
    target = Path(path).resolve()
    if suffixes and not path.lower().endswith(suffixes):
        raise TableError(f"must end in {', '.join(suffixes[:-1])} or {suffixes[-1]}.", path)
    if target.is_dir():
        raise TableError("is a folder; pass a file.", path)
    if not target.parent.is_dir():
        raise TableError(f"cannot be written: there is no folder {str(target.parent)!r}.", path)
    _check_creatable(target.parent, path)


def check_model_folder(path: str | os.PathLike[str]) -> None:
    """Raise if a model cannot be written to a folder, before the model is fitted.

    Raises
    ------
    TableError
        If the folder cannot be written, or the path exists and is not a model.
    """
    path, target = os.fspath(path), Path(path).absolute()
    if target.is_symlink():
        raise TableError("is a symbolic link, which is not followed; pass the folder.", path)
    is_free = not target.exists() or (target.is_dir() and not any(target.iterdir()))
    if not is_free and not (target / MODEL_HEADER).is_file():
        raise TableError("exists and is not a model; choose another folder, or remove it.", path)
    nearest = next(parent for parent in target.parents if parent.exists())
    if not nearest.is_dir():
        raise TableError(f"cannot be written: {str(nearest)!r} is a file.", path)
    _check_creatable(nearest, path)


def check_model(path: str | os.PathLike[str]) -> None:
    """Raise if a path is not the folder of a model, before the libraries that read it are imported.

    Raises
    ------
    TableError
        If there is no folder, or it holds no model.
    """
    if not (Path(path) / MODEL_HEADER).is_file():
        problem = f"holds no model (no {MODEL_HEADER})" if Path(path).exists() else "does not exist"
        raise TableError(f"{problem}. Pass a folder written by `pyrobbb fit`.", os.fspath(path))


@contextlib.contextmanager
def open_writer(path: str | os.PathLike[str]) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Return a function that appends a frame to the table.

    The rows are written to a temporary file in the same folder, which replaces the target at the
    end. In text, cells that a spreadsheet would take for formulas get an apostrophe, which
    `TableFile` removes; on stdout and terminals, control characters are escaped.

    Parameters
    ----------
    path : path-like
        .csv, .tsv, .csv.gz, .tsv.gz or .parquet; "-" is csv on stdout.

    Raises
    ------
    TableError
        If the table cannot be written completely.
    """
    path = os.fspath(path)
    check_file(path, SUFFIXES)
    if path == STDOUT:
        with _writer_to(getattr(sys.stdout, "buffer", None), ".csv", is_shown=True) as write:
            yield write
        sys.stdout.flush()
        return
    try:
        with _file_writer(path) as write:
            yield write
    except OSError as error:
        raise TableError(f"cannot be written: {error.strerror or error}.", path) from error


@contextlib.contextmanager
def _file_writer(path: str) -> Iterator[Callable[[pd.DataFrame], None]]:
    is_compressed = path.lower().endswith(".gz")
    suffix = Path(path[:-3] if is_compressed else path).suffix.lower()
    if _is_device(path):
        is_shown = Path(path).is_char_device()
        with (
            Path(path).open("wb", buffering=0) as device,
            _writer_to(device, suffix, is_shown=is_shown) as write,
        ):
            yield write
        return
    with replacing(Path(path).resolve()) as file:
        with contextlib.ExitStack() as stack:
            inner: Any = file
            if is_compressed:
                inner = stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0))
            yield stack.enter_context(_writer_to(inner, suffix))
        if _is_device(path):
            raise TableError("is no longer a regular file and was not replaced.", path)


@contextlib.contextmanager
def _writer_to(
    file: IO[bytes] | None, suffix: str, *, is_shown: bool = False
) -> Iterator[Callable[[pd.DataFrame], None]]:
    if suffix == ".parquet" and file is not None:
        with _parquet_writer(file) as write:
            yield write
    else:
        yield _text_writer(file, SEPARATORS.get(suffix, ","), is_shown)


def _text_writer(
    file: IO[bytes] | None, separator: str, is_shown: bool
) -> Callable[[pd.DataFrame], None]:
    is_first = True

    def write(frame: pd.DataFrame) -> None:
        nonlocal is_first
        safe = _without_formulas(frame)
        text = safe.to_csv(
            index=False,
            header=is_first,
            sep=separator,
            lineterminator="\n",
            quoting=csv.QUOTE_ALL if _has_carriage_return(safe) else csv.QUOTE_MINIMAL,
        )
        is_first = False
        if is_shown:
            text = escape_controls(text)
        if file is None:  # stdout has been replaced by a text stream
            sys.stdout.write(text)
        else:
            file.write(text.encode())

    return write


def _without_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with `escape_formula` applied to its text and to the names of columns."""
    safe = frame.copy(deep=False)
    for name in frame.columns:
        if frame[name].dtype.kind not in "biuf":
            safe[name] = frame[name].astype(object).map(_escape_text)
    return safe.rename(columns=escape_formula)


def _has_carriage_return(frame: pd.DataFrame) -> bool:
    """Return whether a cell or name has a line end that pandas does not quote by itself."""
    texts = (frame[name] for name in frame.columns if frame[name].dtype.kind not in "biuf")
    return any("\r" in name for name in frame.columns) or any(
        isinstance(cell, str) and "\r" in cell for text in texts for cell in text
    )


def _escape_text(cell: Any) -> Any:
    return escape_formula(cell) if isinstance(cell, str) else cell


@contextlib.contextmanager
def _parquet_writer(file: IO[bytes]) -> Iterator[Callable[[pd.DataFrame], None]]:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise TableError('Writing parquet needs pip install "pyrobbb[parquet]".') from error
    writer: Any = None

    def write(frame: pd.DataFrame) -> None:
        nonlocal writer
        if writer is None:
            schema = arrow.Schema.from_pandas(frame, preserve_index=False)
            for i, field in enumerate(schema):
                if arrow.types.is_null(field.type):  # a later chunk may hold strings
                    schema = schema.set(i, field.with_type(arrow.string()))
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
