"""Linear layers and activations, one after another: many draws at once, and slopes by hand.

`torch.vmap` and autograd do this for any module, but for small perceptrons vmap takes half as long
again, as it adds biases in a pass of their own, and autograd takes longer than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

aten = torch.ops.aten

SLOPES: dict[type[nn.Module], Callable[[Any, Tensor, Tensor, Tensor], Tensor]] = {
    nn.ReLU: lambda _, slope, before, after: aten.threshold_backward(slope, after, 0),
    nn.Tanh: lambda _, slope, before, after: aten.tanh_backward(slope, after),
    nn.Sigmoid: lambda _, slope, before, after: aten.sigmoid_backward(slope, after),
    nn.GELU: lambda layer, slope, before, after: aten.gelu_backward(
        slope, before, approximate=layer.approximate
    ),
    nn.SiLU: lambda _, slope, before, after: aten.silu_backward(slope, before),
    nn.ELU: lambda layer, slope, before, after: aten.elu_backward(
        slope, layer.alpha, 1, 1, False, before
    ),
    nn.Softplus: lambda layer, slope, before, after: aten.softplus_backward(
        slope, before, layer.beta, layer.threshold
    ),
    nn.LeakyReLU: lambda layer, slope, before, after: aten.leaky_relu_backward(
        slope, before, layer.negative_slope, False
    ),
    nn.Hardtanh: lambda layer, slope, before, after: aten.hardtanh_backward(
        slope, before, layer.min_val, layer.max_val
    ),
    nn.LogSigmoid: lambda _, slope, before, after: slope * torch.sigmoid(-before),
    nn.Identity: lambda _, slope, before, after: slope,
}
"""For each elementwise layer: the slope of a loss in its input, from the slope in its output, the
input and the output."""

IN_PLACE: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.ReLU: torch.relu_,
    nn.Tanh: torch.tanh_,
    nn.Sigmoid: torch.sigmoid_,
}

Layers = list[tuple[str, nn.Module]]


def layers_of(net: nn.Module) -> Layers | None:
    """Give the named layers of a `nn.Sequential` of linear and elementwise ones; None for others.

    Layers with hooks are others: those see one draw at a time. So are layers that write over their
    input, and parameters that stand in two places.
    """
    if type(net) is not nn.Sequential or _has_hooks(net):
        return None
    layers = list(net._modules.items())  # one that stands in two places has two names here
    for _, layer in layers:
        known = type(layer) is nn.Linear or type(layer) in SLOPES
        if not known or _has_hooks(layer) or getattr(layer, "inplace", False):
            return None
    in_places = list(net.named_parameters(remove_duplicate=False))
    if len(in_places) > len(list(net.parameters())):
        return None
    return layers


def run_layers(
    layers: Layers,
    values: Mapping[str, Tensor],
    x: Tensor,
    *,
    hidden: list[Tensor] | None = None,
) -> Tensor:
    """Run layers under one draw of their weights, or under many.

    Units come before rows inside: products are faster so, by half on some processors, and all draws
    of a first layer are a single one. With nothing to keep, activations are written over.

    Parameters
    ----------
    layers : list of (name, module)
        As `layers_of` gives them.
    values : mapping of str to Tensor of shape (n_draws, *parameter), or parameter
        Draws of parameters, by their names in the network; the others are the layers' own.
    x : Tensor of shape (n, n_in) or (n_draws, n, n_in)
    hidden : list of Tensor, optional
        Is given the input of every layer and the output, with units before rows, for
        `slopes_of_layers`.

    Returns
    -------
    Tensor of shape (n_draws, n, n_out), or (n, n_out)
    """
    draws = _draws(layers, values)
    is_kept = hidden is not None or torch.is_grad_enabled()
    now, is_ours = x.mT, False
    if hidden is not None:
        hidden.append(now)
    for name, layer in layers:
        if isinstance(layer, nn.Linear):
            now, is_ours = _linear(*_parameters(layer, name, values), now, draws), True
        elif is_ours and not is_kept and type(layer) in IN_PLACE:
            IN_PLACE[type(layer)](now)
        else:
            now = layer(now)
        if hidden is not None:
            hidden.append(now)
    return now.expand((*draws, *now.shape[-2:])).mT


def slopes_of_layers(
    layers: Layers, values: Mapping[str, Tensor], hidden: list[Tensor], slope: Tensor
) -> dict[str, Tensor]:
    """Give the slopes of a loss in the values of the parameters, by backpropagation.

    Parameters
    ----------
    layers, values, hidden
        As of `run_layers`.
    slope : Tensor of shape (n_draws, n, n_out), or (n, n_out)
        Of the loss in the output.

    Returns
    -------
    dict of str to Tensor
        In the shapes of the values.
    """
    slopes = {}
    learnt = [f"{name}.weight" in values or f"{name}.bias" in values for name, _ in layers]
    first = learnt.index(True)
    draws, slope = slope.shape[:-2], slope.mT
    for i in range(len(layers) - 1, first - 1, -1):
        name, layer = layers[i]
        if not isinstance(layer, nn.Linear):
            slope = SLOPES[type(layer)](layer, slope, hidden[i], hidden[i + 1])
            continue
        weight, _ = _parameters(layer, name, values)
        is_sum = _is_sum(weight, draws)
        if f"{name}.weight" in values:
            before = hidden[i]
            slopes[f"{name}.weight"] = (
                (slope * before).sum(-1)[None] if is_sum else slope @ before.mT
            )
        if f"{name}.bias" in values:
            slopes[f"{name}.bias"] = slope.sum(-1)
        if i > first:
            slope = weight.mT * slope if is_sum else weight.mT @ slope
    return slopes


def _parameters(
    layer: nn.Linear, name: str, values: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor | None]:
    weight = values.get(f"{name}.weight", layer.weight)
    return weight, None if layer.bias is None else values.get(f"{name}.bias", layer.bias)


def _linear(weight: Tensor, bias: Tensor | None, x: Tensor, draws: torch.Size) -> Tensor:
    """Give a layer's output of shape (*draws, n_out, n) at x of shape ([*draws,] n_in, n)."""
    weight = weight.expand((*draws, *weight.shape[-2:]))
    bias = None if bias is None else bias.expand((*draws, bias.shape[-1]))[..., None]
    if not draws:
        if _is_sum(weight, draws):
            output = (weight.mT * x).sum(-2, keepdim=True)
            return output if bias is None else output + bias
        return torch.mm(weight, x) if bias is None else torch.addmm(bias, weight, x)
    if x.dim() == 3:
        return torch.bmm(weight, x) if bias is None else torch.baddbmm(bias, weight, x)
    n_in, n_rows = x.shape
    if bias is not None and n_in < n_rows:  # a copy of the weights is less than one of the output
        weight, x = torch.cat([weight, bias], -1), torch.cat([x, torch.ones_like(x[:1])])
        bias = None
    flat = weight.flatten(0, 1)
    output = torch.mm(flat, x) if bias is None else torch.addmm(bias.flatten(0, 1), flat, x)
    return output.unflatten(0, (*draws, -1))


def _is_sum(weight: Tensor, draws: torch.Size) -> bool:
    """Say whether a layer is taken as a sum of products.

    With one unit the compiler joins it to what comes before and after, where a matrix product is a
    call of its own: a tenth of a small net's compiled step.
    """
    return not draws and len(weight) == 1


def _draws(layers: Layers, values: Mapping[str, Tensor]) -> torch.Size:
    """Give the shape of the draws: what the values have beyond the parameters."""
    for name, layer in layers:
        for kind, parameter in layer._parameters.items():
            value = values.get(f"{name}.{kind}")
            if value is not None and parameter is not None:
                return value.shape[: value.dim() - parameter.dim()]
    return torch.Size()


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
