"""Names and labels of the dimensions of a network's inputs, outputs and weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .._core.arrays import ArrayLike
from ..model.network import BayesianNetwork

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Modules whose weights have the shape (outputs, inputs, *kernel)."""


def n_columns(values: Tensor) -> int | None:
    """Return the number of columns of a table with several columns, or None for other data."""
    return values.shape[1] if values.dim() == 2 and values.shape[1] > 1 else None


def data_dims(values: Tensor, column_dim: str) -> list[str]:
    """Return the names of the dimensions of data."""
    return ["obs"] if n_columns(values) is None else ["obs", column_dim]


def column_labels(
    argument: str, names: Sequence[str] | None, data: ArrayLike, n: int | None
) -> list[str] | None:
    """Return the labels of columns: `names`, or those of a data frame.

    Parameters
    ----------
    argument : str
        The argument that `names` was passed as, for the message.
    names : sequence of str, optional
    data : array-like
    n : int, optional
        The number of columns.

    Raises
    ------
    ValueError
        If the number of names is not that of the columns.
    """
    if names is None:
        columns = getattr(data, "columns", None)
        return None if columns is None or n is None else [str(column) for column in columns]
    if n is None or len(names) != n:
        raise ValueError(f"`{argument}` must name {n or 'no'} columns, got {len(names)} names.")
    return [str(name) for name in names]


def site_dims(network: BayesianNetwork) -> dict[str, list[str]]:
    """Return the names of the dimensions of each weight: outputs and inputs of layers."""
    layers = _layers(network)
    dims = {}
    for name, parameter in network.bayesian_parameters():
        layer, _, attribute = name.rpartition(".")
        if layer in layers and attribute in ("weight", "bias"):
            kernel = [f"{name}_k{i}" for i in range(parameter.dim() - 2)]
            dims[name] = [f"{name}_out", f"{name}_in", *kernel][: parameter.dim()]
        else:
            dims[name] = [f"{name}_dim_{i}" for i in range(parameter.dim())]
    return dims


def site_coords(
    network: BayesianNetwork, inputs: list[str] | None, outputs: list[str] | None
) -> dict[str, list[str]]:
    """Return the labels of the first layer's inputs and the last layer's outputs."""
    layers = _layers(network)
    if not layers:
        return {}
    first, last = layers[0], layers[-1]
    shapes = {name: parameter.shape for name, parameter in network.bayesian_parameters()}
    coords = {}
    for site, axis, dim, labels in (
        (f"{first}.weight", 1, "in", inputs),
        (f"{last}.weight", 0, "out", outputs),
        (f"{last}.bias", 0, "out", outputs),
    ):
        if labels is not None and site in shapes and shapes[site][axis] == len(labels):
            coords[f"{site}_{dim}"] = labels
    return coords


def _layers(network: BayesianNetwork) -> list[str]:
    return [name for name, module in network.net.named_modules() if isinstance(module, LAYERS)]
