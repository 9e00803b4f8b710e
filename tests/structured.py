"""Shared by tests of structured inputs: the same small network with its columns in several forms.

All forms have the same parameters and the same operations on one joined array, so that a fit to any
of them is bitwise that of `Joined` to the array.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyrobbb import BayesianNetwork, mlp


class Joined(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = mlp(3, [4], 1, "tanh", seed=0).double()

    def forward(self, x):
        return self.layers(x)

    def of(self, *parts):
        return self.layers(torch.cat(parts, -1))


class ByKeyword(Joined):
    def forward(self, b, a):
        return self.of(a, b)


class ByPosition(Joined):
    def forward(self, a, b):
        return self.of(a, b)


class OfMapping(Joined):
    def forward(self, batch):
        return self.of(batch["a"], batch["rest"][0])


class OfPair(Joined):
    def forward(self, pair):
        return self.of(*pair)


@dataclass
class Result:
    loss: None
    logits: Tensor


class OfResult(Joined):
    def forward(self, a, rest):
        return Result(None, self.of(a, rest["b"]))


FORMS = {
    "keywords": (ByKeyword, lambda a, b: {"a": a, "b": b}, None),
    "positions": (ByPosition, lambda a, b: (a, b), None),
    "a mapping": (OfMapping, lambda a, b: {"a": a, "rest": (b,)}, None),
    "a tuple": (OfPair, lambda a, b: (a, b), None),
    "a mapping in a tuple": (OfMapping, lambda a, b: ({"a": a, "rest": (b,)},), None),
    "a named output": (OfResult, lambda a, b: {"a": a, "rest": {"b": b}}, "logits"),
}


def joined(**parts):
    """Return the network of one array."""
    return BayesianNetwork(Joined(), **parts)


def network_of(form, **parts):
    """Return the network of a form."""
    net, _, output = FORMS[form]
    return BayesianNetwork(net(), output=output, **parts)


def arranged(form, x):
    """Return three columns in a form."""
    return FORMS[form][1](x[:, :2], x[:, 2:])
