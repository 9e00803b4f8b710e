"""Sequences of linear, scaling and elementwise layers: many draws at once, explicit gradients.

`torch.vmap` and autograd do the same for any module. For small perceptrons, however, vmap takes
50 % longer, as it adds biases in a separate pass, and autograd takes longer than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .input_scale import InputScale
from .outputs import Selection

aten = torch.ops.aten

BACKWARD: dict[type[nn.Module], Callable[[Any, Tensor, Tensor, Tensor], Tensor]] = {
    nn.ReLU: lambda _, grad, before, after: aten.threshold_backward(grad, after, 0),
    nn.Tanh: lambda _, grad, before, after: aten.tanh_backward(grad, after),
    nn.Sigmoid: lambda _, grad, before, after: aten.sigmoid_backward(grad, after),
    nn.GELU: lambda layer, grad, before, after: aten.gelu_backward(
        grad, before, approximate=layer.approximate
    ),
    nn.SiLU: lambda _, grad, before, after: aten.silu_backward(grad, before),
    nn.ELU: lambda layer, grad, before, after: aten.elu_backward(
        grad, layer.alpha, 1, 1, False, before
    ),
    nn.Softplus: lambda layer, grad, before, after: aten.softplus_backward(
        grad, before, layer.beta, layer.threshold
    ),
    nn.LeakyReLU: lambda layer, grad, before, after: aten.leaky_relu_backward(
        grad, before, layer.negative_slope, False
    ),
    nn.Hardtanh: lambda layer, grad, before, after: aten.hardtanh_backward(
        grad, before, layer.min_val, layer.max_val
    ),
    nn.LogSigmoid: lambda _, grad, before, after: grad * torch.sigmoid(-before),
    nn.Identity: lambda _, grad, before, after: grad,
}
"""For each elementwise layer: a function of the layer, the gradient with respect to its output, its
input and its output, which returns the gradient with respect to its input."""

IN_PLACE: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.ReLU: torch.relu_,
    nn.Tanh: torch.tanh_,
    nn.Sigmoid: torch.sigmoid_,
}

Layers = list[tuple[str, nn.Module]]


def layers_of(net: nn.Module, select: Selection | None = None) -> Layers | None:
    """Return the named layers of an `nn.Sequential` of linear, scaling and elementwise layers.

    Return None for other modules, and also if a layer has hooks, which must be called for one draw
    at a time, or modifies its input in place, or if two layers share a parameter, or if something
    is selected of the output.
    """
    if type(net) is not nn.Sequential or _has_hooks(net) or select is not None:
        return None
    layers = list(net._modules.items())  # a layer that is used twice has two names here
    for _, layer in layers:
        known = type(layer) in (nn.Linear, InputScale) or type(layer) in BACKWARD
        if not known or _has_hooks(layer) or getattr(layer, "inplace", False):
            return None
    n_uses = len(list(net.named_parameters(remove_duplicate=False)))
    if n_uses > len(list(net.parameters())):
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

    Internally the dimension of units precedes that of rows. Matrix products are faster this way, by
    half on some processors, and the first layer is a single product for all draws. Activations are
    computed in place unless they are needed for gradients.

    Parameters
    ----------
    layers : list of (name, module)
        As returned by `layers_of`.
    values : mapping of str to Tensor of shape (n_draws, *parameter), or parameter
        Draws of parameters, by their names in the network. Other parameters keep their values.
    x : Tensor of shape (n, n_in) or (n_draws, n, n_in)
    hidden : list of Tensor, optional
        The input of every layer and the output are appended to it, units before rows, for
        `gradients_of_layers`.

    Returns
    -------
    Tensor of shape (n_draws, n, n_out), or (n, n_out)
    """
    draws = _draws(layers, values)
    in_place = hidden is None and not torch.is_grad_enabled()
    now, is_new = x.mT, False
    if hidden is not None:
        hidden.append(now)
    for name, layer in layers:
        if isinstance(layer, nn.Linear):
            now, is_new = _linear(*_parameters(layer, name, values), now, draws), True
        elif isinstance(layer, InputScale):
            now, is_new = _factor(layer, name, values) * now, True
        elif in_place and is_new and type(layer) in IN_PLACE:
            IN_PLACE[type(layer)](now)
        else:
            now = layer(now)
        if hidden is not None:
            hidden.append(now)
    return now.expand((*draws, *now.shape[-2:])).mT


def gradients_of_layers(
    layers: Layers, values: Mapping[str, Tensor], hidden: list[Tensor], grad: Tensor
) -> dict[str, Tensor]:
    """Compute the gradients of a loss with respect to the parameters, by backpropagation.

    Parameters
    ----------
    layers, values, hidden
        As for `run_layers`.
    grad : Tensor of shape (n_draws, n, n_out), or (n, n_out)
        Gradient of the loss with respect to the output.

    Returns
    -------
    dict of str to Tensor
        Of the shapes of the values.
    """
    grads = {}
    learned = [any(f"{name}.{p}" in values for p in layer._parameters) for name, layer in layers]
    first = learned.index(True)
    draws, grad = grad.shape[:-2], grad.mT
    for i in range(len(layers) - 1, first - 1, -1):
        name, layer = layers[i]
        if isinstance(layer, InputScale):
            if f"{name}.log_scale" in values:
                grads[f"{name}.log_scale"] = (grad * hidden[i + 1]).sum(-1)
            if i > first:
                grad = _factor(layer, name, values) * grad
            continue
        if not isinstance(layer, nn.Linear):
            grad = BACKWARD[type(layer)](layer, grad, hidden[i], hidden[i + 1])
            continue
        weight, _ = _parameters(layer, name, values)
        is_sum = _is_sum(weight, draws)
        if f"{name}.weight" in values:
            before = hidden[i]
            grads[f"{name}.weight"] = (grad * before).sum(-1)[None] if is_sum else grad @ before.mT
        if f"{name}.bias" in values:
            grads[f"{name}.bias"] = grad.sum(-1)
        if i > first:
            grad = weight.mT * grad if is_sum else weight.mT @ grad
    return grads


def _parameters(
    layer: nn.Linear, name: str, values: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor | None]:
    weight = values.get(f"{name}.weight", layer.weight)
    return weight, None if layer.bias is None else values.get(f"{name}.bias", layer.bias)


def _factor(layer: InputScale, name: str, values: Mapping[str, Tensor]) -> Tensor:
    """Return the factors of an input of shape ([*draws,] n_in, n)."""
    return values.get(f"{name}.log_scale", layer.log_scale).exp()[..., None]


def _linear(weight: Tensor, bias: Tensor | None, x: Tensor, draws: torch.Size) -> Tensor:
    """Compute a layer's output of shape (*draws, n_out, n) at x of shape ([*draws,] n_in, n)."""
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
    if bias is not None and n_in < n_rows:  # copying the weights costs less than copying the output
        weight, x = torch.cat([weight, bias], -1), torch.cat([x, torch.ones_like(x[:1])])
        bias = None
    flat = weight.flatten(0, 1)
    output = torch.mm(flat, x) if bias is None else torch.addmm(bias.flatten(0, 1), flat, x)
    return output.unflatten(0, (*draws, -1))


def _is_sum(weight: Tensor, draws: torch.Size) -> bool:
    """Return whether a layer is computed as a sum of elementwise products.

    For a layer of one unit, the compiler fuses the sum with neighbouring operations, whereas a
    matrix product is a separate call, which takes a tenth of the compiled step of a small network.
    """
    return not draws and len(weight) == 1


def _draws(layers: Layers, values: Mapping[str, Tensor]) -> torch.Size:
    """Return the shape of the draws: the leading dimensions that parameters do not have."""
    for name, layer in layers:
        for kind, parameter in layer._parameters.items():
            value = values.get(f"{name}.{kind}")
            if value is not None and parameter is not None:
                return value.shape[: value.dim() - parameter.dim()]
    return torch.Size()


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
