"""Linear layers and activations, one after another, under many draws of their weights at once.

`torch.vmap` does this for any module, but for small perceptrons it takes half as long again: it
adds biases in a pass of their own.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .architectures import ACTIVATIONS

ELEMENTWISE = (*ACTIVATIONS.values(), nn.Identity, nn.LeakyReLU, nn.LogSigmoid, nn.Hardtanh)


def layers_of(net: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """Give the named layers of a `nn.Sequential` of linear and elementwise ones; None for others.

    Layers with hooks are others: those see one draw at a time.
    """
    if type(net) is not nn.Sequential or _has_hooks(net):
        return None
    layers = list(net.named_children())
    known = all(type(layer) in (nn.Linear, *ELEMENTWISE) for _, layer in layers)
    if not known or any(_has_hooks(layer) for _, layer in layers):
        return None
    return layers


def run_layers(
    layers: list[tuple[str, nn.Module]], values: Mapping[str, Tensor], x: Tensor
) -> Tensor:
    """Run layers under draws of their weights.

    Parameters
    ----------
    layers : list of (name, module)
        As `layers_of` gives them.
    values : mapping of str to Tensor of shape (n_draws, *parameter)
        Draws of parameters, by their names in the network; the others are the layers' own.
    x : Tensor of shape (n, n_in) or (n_draws, n, n_in)

    Returns
    -------
    Tensor of shape (n_draws, n, n_out)
    """
    n_draws = len(next(iter(values.values())))
    hidden = x.expand((n_draws, *x.shape[-2:]))
    for name, layer in layers:
        if not isinstance(layer, nn.Linear):
            hidden = layer(hidden)
            continue
        weight = values.get(f"{name}.weight", layer.weight).expand((n_draws, *layer.weight.shape))
        if layer.bias is None:
            hidden = torch.bmm(hidden, weight.mT)
            continue
        bias = values.get(f"{name}.bias", layer.bias).expand((n_draws, *layer.bias.shape))
        hidden = torch.baddbmm(bias[:, None], hidden, weight.mT)
    return hidden


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
