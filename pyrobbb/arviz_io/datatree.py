"""Arrays into an xarray DataTree that ArviZ reads, of the 0.8 and of the 1.x generation alike."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.arrays import ArrayLike, to_numpy

if TYPE_CHECKING:
    import xarray

logger = logging.getLogger(__name__)

Groups = Mapping[str, Mapping[str, ArrayLike]]
Dims = Mapping[str, Sequence[str]]
Coords = Mapping[str, Sequence[Any]]

SAMPLE_DIMS = ("chain", "draw")
"""Of these names only: much of ArviZ does not work with a single dimension of draws."""


def build_tree(
    groups: Groups,
    *,
    dims: Dims | None = None,
    coords: Coords | None = None,
    pred_dims: Dims | None = None,
    pred_coords: Coords | None = None,
    index_origin: int | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xarray.DataTree:
    """Build a DataTree; groups and variables that hold nothing are left out.

    Parameters
    ----------
    groups : mapping of group to mapping of variable to array
        Of shape (n_chains, n_draws, ...), but in groups of data, whose names end in ``_data``.
    dims, pred_dims : mapping of variable to names of its further dimensions
        The latter are of the groups of predictions.
    coords, pred_coords : mapping of dimension to labels
    index_origin : int, optional
        Where the numbering of dimensions without labels starts; None: as ArviZ is set.
    attrs : mapping
        Of the tree and of each group.

    Raises
    ------
    ValueError
        If one dimension has two lengths. ArviZ would fill up with NaN.
    """
    import arviz_base

    data = {
        group: {_allowed(name): to_numpy(value) for name, value in variables.items()}
        for group, variables in groups.items()
        if variables
    }
    known = {_allowed(name): list(own) for name, own in (dims or {}).items()}
    known_pred = {_allowed(name): list(own) for name, own in (pred_dims or {}).items()}
    sizes: dict[bool, dict[str, int]] = {
        False: {name: len(labels) for name, labels in (coords or {}).items()},
        True: {name: len(labels) for name, labels in (pred_coords or {}).items()},
    }
    for group, variables in data.items():
        is_pred = group.startswith("predictions")
        n_sample = 0 if group.endswith("_data") else len(SAMPLE_DIMS)
        own_dims = known_pred if is_pred else known
        _check_dims(group, variables, own_dims, sizes[is_pred], n_sample)
    written = _writable(
        {
            "inference_library": "pyrobbb",
            "inference_library_version": version("pyrobbb"),
            **(attrs or {}),
        }
    )
    return arviz_base.from_dict(
        data,
        dims=known,
        coords=dict(coords or {}),
        pred_dims=known_pred,
        pred_coords=dict(pred_coords or {}),
        sample_dims=list(SAMPLE_DIMS),
        index_origin=index_origin,
        attrs={"/": written, **dict.fromkeys(data, written)},
    )


def _check_dims(
    group: str,
    variables: Mapping[str, np.ndarray],
    dims: Dims,
    sizes: dict[str, int],
    n_sample: int,
) -> None:
    for name, array in variables.items():
        own = dims.get(name, ())
        # Log-likelihoods have the dimensions of the observations but for those of an event.
        if len(own) > array.ndim - n_sample and group != "log_likelihood":
            raise ValueError(
                f"`dims` names {len(own)} dimension(s) of {name!r}, {', '.join(own)}, but in the "
                f"group {group!r} it has {max(array.ndim - n_sample, 0)}."
            )
        for dim, n in zip(own, array.shape[n_sample:], strict=False):
            if sizes.setdefault(dim, n) != n:
                raise ValueError(
                    f"The dimension {dim!r} has length {sizes[dim]}, but of {name!r} in the group "
                    f"{group!r} it is {n}: give one of them another name in `dims`."
                )


def _allowed(name: str) -> str:
    """Give a name without slashes, by which a DataTree separates its groups."""
    if "/" in name:
        logger.info("The variable %r is called %r in the DataTree.", name, name.replace("/", "."))
    return name.replace("/", ".")


def _writable(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Give attributes that netCDF and zarr can hold: numbers, text and lists of them."""
    written: dict[str, Any] = {}
    for name, value in attrs.items():
        if isinstance(value, bool | np.bool_):
            written[name] = int(value)
        elif isinstance(value, np.generic):
            written[name] = value.item()
        elif isinstance(value, int | float | str):
            written[name] = value
        elif isinstance(value, list | tuple) and value:
            written[name] = list(value)
        elif value is not None:
            written[name] = repr(value)
    return written
