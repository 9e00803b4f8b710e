"""Multilayer perceptrons: building them, and recognising their architecture."""

from __future__ import annotations

import itertools
import numbers
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import nn

from .._core.arrays import as_count
from .._core.messages import is_one_of, not_one_of, shown
from .._core.random_state import as_seed, seeded
from .._core.signatures import suggests_arguments
from .input_scale import InputScale

Activation = Literal["relu", "tanh", "sigmoid", "gelu", "silu", "elu", "softplus"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
}
INPUT_SCALE = "inputs"
"""Name of the `InputScale` in an `mlp`."""


@suggests_arguments()
def mlp(
    n_in: int,
    hidden: int | Sequence[int],
    n_out: int,
    activation: Activation = "relu",
    *,
    input_scale: bool = False,
    seed: int | None = None,
) -> nn.Sequential:
    """Build a multilayer perceptron: a plain `nn.Sequential` of Linear layers and activations.

    Parameters
    ----------
    n_in, n_out : int
        Number of inputs and of outputs.
    hidden : int or sequence of int
        Number of units of each hidden layer; empty for a linear model, a number for one layer.
    activation : {"relu", "tanh", "sigmoid", "gelu", "silu", "elu", "softplus"}
    input_scale : bool
        Whether an `InputScale` precedes the layers. Its parameter is ``"inputs.log_scale"``; the
        names of the others do not depend on it.
    seed : int, optional
        Seed of the initial weights. torch's global random state is then neither used nor changed.

    Returns
    -------
    nn.Sequential
        Maps x of shape (n, n_in) to an output of shape (n, n_out).
    """
    if not is_one_of(activation, ACTIVATIONS):
        raise ValueError(not_one_of("activation", activation, ACTIVATIONS))
    sizes = [as_count("n_in", n_in), *as_layers("hidden", hidden), as_count("n_out", n_out)]
    layers: list[nn.Module] = []
    with nullcontext() if seed is None else seeded(as_seed(seed)):
        for n_inputs, n_outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(n_inputs, n_outputs), ACTIVATIONS[activation]()]
    named = OrderedDict((str(i), layer) for i, layer in enumerate(layers[:-1]))
    scale = {INPUT_SCALE: InputScale(sizes[0])} if input_scale else {}
    return nn.Sequential(OrderedDict(**scale, **named))


def as_layers(argument: str, hidden: Any) -> tuple[int, ...]:
    """Return the units of hidden layers as integers, or raise; a number stands for one layer."""
    if isinstance(hidden, numbers.Real) and not isinstance(hidden, bool):
        hidden = (hidden,)
    if not (isinstance(hidden, Sequence) or np.ndim(hidden) == 1) or isinstance(hidden, str):
        raise TypeError(f"`{argument}` must be a sequence such as [50, 50], got {shown(hidden)}.")
    return tuple(as_count(argument, n_units) for n_units in hidden)


@dataclass(frozen=True)
class MLPSpec:
    """The arguments of a call to `mlp`."""

    n_in: int
    hidden: tuple[int, ...]
    n_out: int
    activation: Activation
    input_scale: bool = False


def mlp_spec(net: nn.Module) -> MLPSpec | None:
    """Return the arguments with which `mlp` builds the same network; None if there are none."""
    if type(net) is not nn.Sequential:
        return None
    layers = list(net)  # a layer that is used twice is in it twice
    scale = layers.pop(0) if next(iter(net._modules), None) == INPUT_SCALE else None
    if not len(layers) % 2:
        return None
    linears = [layer for layer in layers[::2] if type(layer) is nn.Linear]
    activations = layers[1::2]
    if len(linears) != len(activations) + 1 or any(layer.bias is None for layer in linears):
        return None
    kinds = {type(layer) for layer in activations} or {nn.ReLU}
    names: list[Activation] = [name for name, kind in ACTIVATIONS.items() if kinds == {kind}]
    if not names or any(repr(layer) != repr(type(layer)()) for layer in activations):
        return None
    sizes = [linears[0].in_features, *(layer.out_features for layer in linears)]
    if scale is not None and (type(scale), repr(scale)) != (InputScale, f"InputScale({sizes[0]})"):
        return None
    return MLPSpec(sizes[0], tuple(sizes[1:-1]), sizes[-1], names[0], scale is not None)
