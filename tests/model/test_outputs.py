"""`output=`: the part of what a module returns that the likelihood is applied to."""

import re
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from structured import Joined, joined
from support import X, Y, assert_same_fit, quick_fit
from torch import Tensor, nn

from pyrobbb import BayesianNetwork, mlp

Named = namedtuple("Named", "loss logits")


@dataclass
class Result:
    loss: Tensor | None
    logits: Tensor


class ModelOutput(OrderedDict):
    """A mapping with attributes that leaves out what is None, as that of Hugging Face."""

    def __init__(self, **parts):
        super().__init__({name: part for name, part in parts.items() if part is not None})
        vars(self).update(parts)


class Returns(Joined):
    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, x):
        return self.change(self.layers(x))


CASES = {
    "mapping": (lambda out: {"loss": out.sum(), "logits": out}, "logits"),
    "dataclass": (lambda out: Result(None, out), "logits"),
    "model output": (lambda out: ModelOutput(loss=None, logits=out), "logits"),
    "named tuple": (lambda out: Named(None, out), "logits"),
    "tuple": (lambda out: (out, (out, out)), lambda parts: parts[0]),
    "tensor": (lambda out: torch.cat([out, out], -1), lambda out: out[:, :1]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("engine", ["svi", "fused"])
def test_a_fit_is_that_of_the_module_that_returns_the_part(case, engine):
    change, output = CASES[case]
    posterior = quick_fit(BayesianNetwork(Returns(change), output=output), engine=engine)
    expected = quick_fit(joined(), engine=engine)
    assert_same_fit(posterior, expected)
    means = [p.predict(X, 20, seed=1).mean for p in (posterior, expected)]
    np.testing.assert_array_equal(*means)


def test_a_part_of_the_output_of_a_plain_sequence_is_taken():
    part = BayesianNetwork(mlp(3, [4], 2, seed=0).double(), output=lambda out: out[:, 1:])
    expected = BayesianNetwork(Returns(lambda out: out[:, 1:]))
    expected.net.layers = mlp(3, [4], 2, seed=0).double()
    one, other = quick_fit(part), quick_fit(expected)
    np.testing.assert_allclose(one.history.nelbo, other.history.nelbo, rtol=1e-12)
    np.testing.assert_allclose(
        one.predict(X, 5, seed=1).mean, other.predict(X, 5, seed=1).mean, rtol=1e-12
    )


@pytest.mark.parametrize(
    ("change", "output", "message"),
    [
        (CASES["mapping"][0], None, "Choose loss or logits: BayesianNetwork(..., output='loss')."),
        (
            CASES["dataclass"][0],
            None,
            "Choose loss or logits: BayesianNetwork(..., output='loss').",
        ),
        (CASES["tuple"][0], None, "BayesianNetwork(..., output=lambda parts: parts[0])."),
        (
            CASES["mapping"][0],
            "logit",
            "`output` is 'logit', but the network returns a dict of loss",
        ),
        (
            CASES["dataclass"][0],
            "logit",
            "`output` is 'logit', but the network returns a Result of",
        ),
        (CASES["tensor"][0], "shape", "`output` is 'shape', but the network returns a tensor of"),
        (CASES["tuple"][0], lambda out: out[2], "`output` fails for the network's output, a tuple"),
        (
            CASES["dataclass"][0],
            "loss",
            "must return a tensor with one row for each row of x: for 2",
        ),
        (CASES["tensor"][0], lambda out: out.mean(), "for 2 rows it returned shape ()."),
    ],
)
def test_an_output_without_the_part_is_refused(change, output, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        BayesianNetwork(Returns(change), output=output).prepare(X, Y)


def test_output_must_be_a_name_or_a_function():
    with pytest.raises(TypeError, match="`output` must be the name of a part"):
        BayesianNetwork(nn.Linear(1, 1), output=1)
