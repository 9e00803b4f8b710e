"""How inputs are passed to `forward`, against calls written out."""

import re

import pytest
import torch
from torch import nn

from pyrobbb import BayesianNetwork
from pyrobbb.model.arguments import call_module

A, B = torch.ones(2, 1), torch.zeros(2, 1)


def module(function):
    class Module(nn.Module):
        forward = function

    return Module()


@pytest.mark.parametrize(
    ("net", "x", "expected"),
    [
        (module(lambda self, x: ("x", x)), A, ("x", A)),
        (module(lambda self, a, b: ("a, b", a, b)), (A, B), ("a, b", A, B)),
        (module(lambda self, a, b: ("a, b", a, b)), {"b": B, "a": A}, ("a, b", A, B)),
        (module(lambda self, a, mask=None: ("a", a, mask)), {"a": A}, ("a", A, None)),
        (module(lambda self, **named: ("named", named)), {"a": A}, ("named", {"a": A})),
        (module(lambda self, *several: ("several", several)), (A, B), ("several", (A, B))),
        (module(lambda self, batch: ("batch", batch)), {"a": A}, ("batch", {"a": A})),
        (module(lambda self, pair: ("pair", pair)), (A, B), ("pair", (A, B))),
        (module(lambda self, x, scale=1: ("x", x, scale)), {"a": A}, ("x", {"a": A}, 1)),
        # One argument, even if `forward` accepts keywords.
        (module(lambda self, a, **named: ("a", a, named)), ({"a": A},), ("a", {"a": A}, {})),
        (module(lambda self, a, *, b: ("a", a, b)), {"a": (A,), "b": B}, ("a", (A,), B)),
    ],
)
def test_inputs_are_arguments_if_forward_accepts_them_and_else_one(net, x, expected):
    assert call_module(net, x) == expected


def test_a_forward_that_is_an_attribute_is_called_by_its_own_signature():
    net = nn.Identity()
    net.forward = lambda a, b: (a, b)
    assert call_module(net, {"a": A, "b": B}) == (A, B)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            {"ids": A, "msk": A},
            "`x` with rows of x['ids'] (1,) torch.float32, x['msk'] (1,) torch.float32 does not "
            "fit the network. Its error for 2 rows: a mapping of ids, msk is neither its keywords "
            "nor its only argument. Its forward takes (ids, mask).",
        ),
        (
            {"ids": A.long(), "mask": A.long()},
            "Integers among several arrays stay integers: pass numbers as floats.",
        ),
        ((A, A, A), "a tuple of 3 is neither its arguments nor the only one. Its forward takes"),
    ],
)
def test_inputs_that_forward_does_not_accept_are_refused(x, message):
    class Masked(nn.Linear):
        def forward(self, ids, mask):
            return super().forward(ids * mask)

    with pytest.raises(ValueError, match=re.escape(message)):
        BayesianNetwork(Masked(1, 1)).prepare_inputs(x)


def test_integers_and_booleans_stay_beside_other_arrays():
    class Masked(nn.Linear):
        def forward(self, x, mask, length):
            assert (mask.dtype, length.dtype) == (torch.bool, torch.int64)
            return super().forward(x) * mask[:, None] / length[:, None]

    x = {"x": A.double(), "mask": torch.tensor([True, False]), "length": torch.tensor([1, 2])}
    prepared = BayesianNetwork(Masked(1, 1)).prepare_inputs(x)
    dtypes = [array.dtype for array in prepared.values()]
    assert dtypes == [torch.float32, torch.bool, torch.int64]
