"""Construction of an xarray DataTree from arrays, for both ArviZ 0.8 and 1.x."""

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

Variables = Mapping[str, ArrayLike]
Groups = Mapping[str, Variables]
Dims = Mapping[str, Sequence[str]]
Coords = Mapping[str, Sequence[Any]]

SAMPLE_DIMS = ("chain", "draw")
"""Two dimensions, because much of ArviZ does not support a single sample dimension."""


def split_chains(variables: Variables, num_chains: int) -> dict[str, np.ndarray]:
    """Split the first dimension of arrays into chain and draw.

    Parameters
    ----------
    variables : mapping of str to array of shape (num_chains * n, ...)
        All draws of the first chain come first.
    num_chains : int

    Returns
    -------
    dict of str to ndarray of shape (num_chains, n, ...)

    Raises
    ------
    ValueError
        If the number of draws is not a multiple of `num_chains`.
    """
    split = {}
    for name, value in variables.items():
        array = to_numpy(value)
        if not array.ndim or len(array) % num_chains:
            raise ValueError(
                f"{name!r} has shape {array.shape}, whose first dimension is not a multiple of "
                f"`num_chains`, {num_chains}."
            )
        split[name] = array.reshape((num_chains, -1, *array.shape[1:]))
    return split


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
    """Build a DataTree without empty groups.

    Parameters
    ----------
    groups : mapping of group to mapping of variable to array
        Arrays have shape (n_chains, n_draws, ...), except in groups whose names end in ``_data``.
    dims, pred_dims : mapping of variable to names of its other dimensions
        The latter apply to the groups of predictions.
    coords, pred_coords : mapping of dimension to labels
    index_origin : int, optional
        First index of dimensions without labels. None: ArviZ's setting.
    attrs : mapping
        Attributes of the tree and of each group.

    Raises
    ------
    ValueError
        If a dimension has two lengths, which ArviZ would pad with NaN.
    """
    import arviz_base

    data = {
        group: {_variable_name(name): to_numpy(value) for name, value in variables.items()}
        for group, variables in groups.items()
        if variables
    }
    dims = {_variable_name(name): list(names) for name, names in (dims or {}).items()}
    pred_dims = {_variable_name(name): list(names) for name, names in (pred_dims or {}).items()}
    coords, pred_coords = dict(coords or {}), dict(pred_coords or {})
    sizes = {dim: len(labels) for dim, labels in coords.items()}
    pred_sizes = {dim: len(labels) for dim, labels in pred_coords.items()}
    for group, variables in data.items():
        if group.startswith("predictions"):
            _check_dims(group, variables, pred_dims, pred_sizes)
        else:
            _check_dims(group, variables, dims, sizes)
    attributes = _serialisable(
        {
            "inference_library": "pyrobbb",
            "inference_library_version": version("pyrobbb"),
            **(attrs or {}),
        }
    )
    return arviz_base.from_dict(
        data,
        dims=dims,
        coords=coords,
        pred_dims=pred_dims,
        pred_coords=pred_coords,
        sample_dims=list(SAMPLE_DIMS),
        index_origin=index_origin,
        attrs={"/": attributes, **dict.fromkeys(data, attributes)},
    )


def _check_dims(
    group: str, variables: Mapping[str, np.ndarray], dims: Dims, sizes: dict[str, int]
) -> None:
    """Raise if the dimensions of a group do not agree with `sizes`, and add them to it."""
    n_sample = 0 if group.endswith("_data") else len(SAMPLE_DIMS)
    for name, array in variables.items():
        names = dims.get(name, ())
        # A log-likelihood lacks the event dimensions of the observations.
        if len(names) > array.ndim - n_sample and group != "log_likelihood":
            raise ValueError(
                f"`dims` names {len(names)} dimension(s) of {name!r}, {', '.join(names)}, but in "
                f"the group {group!r} it has {max(array.ndim - n_sample, 0)}."
            )
        for dim, n in zip(names, array.shape[n_sample:], strict=False):
            if sizes.setdefault(dim, n) != n:
                raise ValueError(
                    f"The dimension {dim!r} has length {sizes[dim]}, but {name!r} in the group "
                    f"{group!r} has length {n}: rename one of them in `dims`."
                )


def _variable_name(name: str) -> str:
    """Replace slashes, which separate the groups of a DataTree."""
    if "/" in name:
        logger.info("The variable %r is called %r in the DataTree.", name, name.replace("/", "."))
    return name.replace("/", ".")


def _serialisable(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Convert attributes to what netCDF and zarr can store: numbers, text and lists of them."""
    converted: dict[str, Any] = {}
    for name, value in attrs.items():
        if isinstance(value, bool | np.bool_):
            converted[name] = int(value)
        elif isinstance(value, np.generic):
            converted[name] = value.item()
        elif isinstance(value, int | float | str):
            converted[name] = value
        elif isinstance(value, list | tuple) and value:
            converted[name] = list(value)
        elif value is not None:
            converted[name] = repr(value)
    return converted
