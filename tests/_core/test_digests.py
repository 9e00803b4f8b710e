"""Digests: equal for equal values and code, different for different ones."""

import functools
import re
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyrobbb._core.digests import NoDigestError, digest, digest_of_constants


@dataclass(frozen=True)
class Point:
    x: int


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


class Colour(Enum):
    RED, BLUE = 0, 1


Pair = namedtuple("Pair", "x y")


def recursive(depth):
    def call(n):
        return call(n - 1) if n else depth

    return call


def containing_itself(x):
    value = [x]
    value.append(value)
    return value


def spectral(seed):
    torch.manual_seed(seed)
    return nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2))


KINDS = {
    "integer": lambda v: v,
    "negative zero": lambda v: [0.0, -0.0][v],
    "type of a number": lambda v: [1, 1.0][v],
    "set of strings": lambda v: {"a", "b", "c", f"d{v}"},
    "dict": lambda v: {"a": {"b": [v]}},
    "ordered dict": lambda v: OrderedDict(a=v),
    "dataclass": Point,
    "slots": Slotted,
    "enum": lambda v: list(Colour)[v],
    "named tuple": lambda v: Pair(1, v),
    "cycle": containing_itself,
    "path": lambda v: Path(f"p{v}"),
    "pattern": lambda v: re.compile(f"p{v}"),
    "array": lambda v: np.array([1.0, v]),
    "shape": lambda v: np.zeros([(2, 3), (3, 2)][v]),
    "object array": lambda v: np.array([None, v], dtype=object),
    "random generator": np.random.default_rng,
    "tensor": lambda v: torch.tensor([1.0, v]),
    "dtype": lambda v: [torch.zeros(2), torch.zeros(2, dtype=torch.int32)][v],
    "sparse tensor": lambda v: torch.tensor([0.0, 1.0 + v]).to_sparse(),
    "complex tensor": lambda v: torch.tensor([1j * v]).conj(),
    "torch.dtype": lambda v: [torch.float32, torch.float64][v],
    "function of C": lambda v: [torch.tanh, torch.relu][v],
    "ufunc": lambda v: [np.tanh, np.exp][v],
    "class": lambda v: [nn.ReLU, nn.ELU][v],
    "lambda": lambda v: [lambda: 0, lambda: 1][v],
    "set in code": lambda v: [lambda a: a in {"x", "y"}, lambda a: a in {"x", "z"}][v],
    "attribute in code": lambda v: [lambda a: a.mean(), lambda a: a.sum()][v],
    "nested function": lambda v: lambda a: [a + v for _ in range(3)],
    "recursion": recursive,
    "partial": lambda v: functools.partial(sorted, key=lambda a: a, reverse=bool(v)),
    "bound method": lambda v: np.full(2, v).mean,
    "cached function": lambda v: functools.lru_cache([lambda: 0, lambda: 1][v]),
    "distribution": lambda v: dist.Normal(torch.zeros(2), 1.0 + v).to_event(1),
    "module": lambda v: nn.Dropout([0.1, 0.2][v]),
    "parametrized module": spectral,
    "class made at run time": lambda v: type("C", (), {"f": [lambda s: 0, lambda s: 1][v]}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_digests_are_equal_for_equal_values_only(kind):
    make = KINDS[kind]
    assert digest(make(0)) == digest(make(0)) != digest(make(1))


def test_names_and_places_of_code_do_not_count():
    def first(a):
        return a + 1

    def second(a):
        return a + 1

    assert digest(first) == digest(second)


def test_without_parameters_only_the_architecture_counts():
    def net(seed, width=2):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(1, width), nn.LSTM(width, 2))

    assert digest(net(0)) != digest(net(1))
    assert digest(net(0), with_parameters=False) == digest(net(1), with_parameters=False)
    assert digest(net(0), with_parameters=False) != digest(net(0, 3), with_parameters=False)


def test_hooks_count_and_their_numbers_do_not():
    def hooked(factor):
        net = nn.Linear(1, 1)
        net.register_forward_hook(lambda module, inputs, output: factor * output)
        return net

    nets = hooked(1.0), hooked(1.0), hooked(2.0)
    first, same, other = (digest(net, with_parameters=False) for net in nets)
    assert first == same != other


def test_the_training_mode_does_not_count():
    assert digest(nn.ReLU().eval()) == digest(nn.ReLU())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((i for i in range(3)), "a generator"),
        (nn.Linear(1, 1, device="meta"), "a tensor of torch.strided on meta"),
        (functools.reduce(lambda inner, _: [inner], range(5000), []), "deeply nested objects"),
    ],
)
def test_what_has_no_digest_is_named(value, message):
    with pytest.raises(NoDigestError, match=message):
        digest(value)


def test_constants_of_a_callable_count_and_its_records_do_not():
    class Recorder:
        def __init__(self, every):
            self.every, self.seen, self.file = every, [], (i for i in range(3))

        def __call__(self, end):
            self.seen.append(end)

    one = Recorder(1)
    before = digest_of_constants(one), digest_of_constants([one].__getitem__)
    one(3)
    assert before == (digest_of_constants(one), digest_of_constants([one].__getitem__))
    assert digest_of_constants(Recorder(2)) != before[0]
    assert digest_of_constants(one.__call__) != digest_of_constants(Recorder(2).__call__)


class Stepping(torch.optim.Optimizer):
    def __init__(self, parameters, lr=0.1):
        super().__init__(parameters, {"lr": lr})

    def step(self, closure=None):
        pass


class Inheriting(torch.optim.SGD):
    pass


@pytest.mark.parametrize("kind", [Stepping, Inheriting])
def test_the_digest_of_an_optimizer_does_not_change_when_it_is_made(kind):
    before = digest(kind)
    kind([torch.zeros(1, requires_grad=True)], lr=0.1)
    assert digest(kind) == before
