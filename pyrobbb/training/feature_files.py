"""Features of a frozen trunk in files, which later fits with the same trunk and rows use again."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from torch import Tensor

from .._core.digests import digest
from .._core.messages import first_line
from .._core.scratch_files import replacing
from ..model.trunk import Split

logger = logging.getLogger(__name__)


def check_folder(folder: Path) -> None:
    """Make a folder, or raise a ValueError if nothing can be written into it."""
    reason = "no permission to write into it"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_usable = os.access(folder, os.W_OK | os.X_OK)
    except FileExistsError:
        is_usable, reason = False, "it is a file"
    except OSError as error:
        is_usable, reason = False, error.strerror or first_line(error)
    if not is_usable:
        raise ValueError(
            f"`cache_features` must be the path of a folder for files, got {str(folder)!r} "
            f"({reason}): choose another."
        )


def file_name(split: Split, content: Any, sample: Tensor) -> str:
    """Return the name of the file of features.

    Parameters
    ----------
    split : Split
    content : object
        The rows, or samples of them and the times of their files.
    sample : Tensor of shape (m, ...)
        Features of some rows, which tell apart what the values of the trunk do not: its code.
    """
    values = [split.net.get_submodule(part).state_dict() for part in split.parts]
    return f"features-{digest([split.parts, split.n_calls, values, content, sample])}.npy"


def features_in_file(
    path: Path, n: int, like: Tensor, pieces: Callable[[], Iterator[Tensor]]
) -> np.ndarray:
    """Return the features of n rows as a memory-mapped array, computed unless the file exists.

    The file gets its name when it is complete.

    Parameters
    ----------
    path : Path
    n : int
    like : Tensor of shape (m, ...)
        Features of some rows.
    pieces : callable
        Returns features of consecutive rows.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    shape, dtype = (n, *like.shape[1:]), like[:0].cpu().numpy().dtype
    if path.exists():
        logger.info("The features of %d rows are those in %s.", n, path)
    else:
        with replacing(path) as stream:
            header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(stream, header)
            for piece in pieces():
                stream.write(np.ascontiguousarray(piece.cpu().numpy()).data)
    try:
        features: np.ndarray = np.load(path, mmap_mode="r")
        is_whole = features.shape == shape and features.dtype == dtype
    except (ValueError, OSError):  # cut off, or another file
        is_whole = False
    if not is_whole:
        raise ValueError(f"`cache_features` has the damaged file {str(path)!r}: delete it.")
    return features
