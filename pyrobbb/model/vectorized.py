"""Running a module under many draws of its parameters."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .._core.global_state import without_vmap_warnings
from .._core.trees import Inputs, n_rows, rows_of, split
from .functional import FunctionalCall
from .jit import as_constants
from .outputs import Selection
from .sequential import layers_of, run_layers
from .trial import explained

logger = logging.getLogger(__name__)


class VectorizedCall:
    """Runs a module under many draws of its parameters.

    Draws are mapped by `torch.vmap`, or by matrix products for the layers that
    `pyrobbb.model.sequential` covers. Where vmap fails, they run one at a time; the failure is
    remembered for each mode (training or evaluation) of the module.

    Parameters
    ----------
    select : Selection, optional
        Takes a part of the output. None: all of it.
    """

    def __init__(self, select: Selection | None = None) -> None:
        self._select = select
        self._modes_without_vmap: set[bool] = set()

    def over_draws(
        self,
        net: nn.Module,
        values: Mapping[str, Tensor],
        x: Inputs,
        *,
        x_per_draw: bool = False,
        rows_at_once: int | None = None,
    ) -> Tensor:
        """Run the module under draws stacked along the first dimension.

        Parameters
        ----------
        net : nn.Module
        values : mapping of str to Tensor of shape (n_draws, *parameter)
        x : Inputs of shape (n, ...), or (n_draws, n, ...) with `x_per_draw`
        x_per_draw, rows_at_once
            As for `BayesianNetwork.output`.

        Returns
        -------
        Tensor of shape (n_draws, n, ...)
        """
        layers = layers_of(net, self._select)
        if layers is not None and isinstance(x, Tensor) and x.dim() == 2 + x_per_draw:
            tiles = x.split(rows_at_once or x.shape[-2], -2)
            return torch.cat([run_layers(layers, values, tile) for tile in tiles], -2)
        call = FunctionalCall(net, values, select=self._select)
        if x_per_draw:
            return self._map(net, call, (values, x))
        # The loop over tiles is inside the mapped call, as entering vmap takes as long as a tile.
        parts = split(x, rows_at_once or n_rows(x))
        return self._map(net, lambda draw: join([call(draw, part) for part in parts]), (values,))

    def over_batch(
        self,
        net: nn.Module,
        weights: Mapping[str, Tensor],
        points: Mapping[str, Tensor],
        x: Inputs,
    ) -> tuple[Tensor, int]:
        """Run the module under weights that Pyro has drawn with batch dimensions.

        Parameters
        ----------
        net : nn.Module
        weights : mapping of str to Tensor of shape (*batch, *parameter)
            The batch shapes are broadcast.
        points : mapping of str to Tensor
            Values of further parameters, without batch dimensions.
        x : Inputs of shape (n, ...)

        Returns
        -------
        output : Tensor of shape (*batch, n, ...)
        n_batch : int
            Number of batch dimensions.
        """
        with as_constants():
            parameters = dict(net.named_parameters())
            shapes = {name: parameters[name].shape for name in weights}
        leads = {
            name: without_data_dim(value.shape[: value.dim() - len(shapes[name])])
            for name, value in weights.items()
        }
        batch = torch.broadcast_shapes(*leads.values())
        aligned = {
            name: value.reshape((*leads[name], *shapes[name])).expand((*batch, *shapes[name]))
            for name, value in weights.items()
        }

        functional = FunctionalCall(net, [*points, *weights], select=self._select)

        def call(draw: Mapping[str, Tensor]) -> Tensor:
            return functional({**points, **draw}, x)

        with explained(net, x, self._select):
            if not batch:
                return call(aligned), 0
            flat = {name: value.reshape((-1, *shapes[name])) for name, value in aligned.items()}
            output = self._map(net, call, (flat,))
        return output.reshape((*batch, *output.shape[1:])), len(batch)

    def _map(
        self, net: nn.Module, call: Callable[..., Tensor], arguments: tuple[Any, ...]
    ) -> Tensor:
        """Map a call over the first dimension of a mapping of draws, and of further inputs."""
        error = None
        if net.training not in self._modes_without_vmap:
            buffers = [(b, b.clone()) for b in net.buffers()] if net.training else []
            try:
                with without_vmap_warnings():  # of operations that it runs in a loop
                    return torch.vmap(call, randomness="different")(*arguments)
            except Exception as raised:  # recurrent layers, batch norm in training
                error = raised
                for buffer, before in buffers:  # the failed call may have updated some of them
                    buffer.copy_(before)
        looped = [
            call(*(rows_of(argument, i) for argument in arguments))
            for i in range(n_rows(arguments[0]))
        ]
        if error is not None:
            self._modes_without_vmap.add(net.training)
            reason = str(error).strip().splitlines()[0]
            logger.info("Draws run one at a time: torch.vmap fails for this module (%s)", reason)
        return torch.stack(looped)


def join(tiles: list[Tensor]) -> Tensor:
    """Concatenate the outputs of consecutive rows."""
    return tiles[0] if len(tiles) == 1 else torch.cat(tiles)


def without_data_dim(batch: torch.Size) -> torch.Size:
    """Return the batch shape of a vectorised draw without the dimension of the data plate.

    The model's plate "data" is dimension -1. Vectorised draws of a weight are outside the plate and
    have size 1 there; Pyro's Predictive omits the dimension.
    """
    return batch[:-1] if batch and batch[-1] == 1 else batch
