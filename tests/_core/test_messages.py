"""Values in messages: one short line for each, whatever a user has passed."""

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyrobbb._core.messages import first_line, shown


class Broken:
    def __repr__(self):
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    "value", [None, True, 3, -2.5, "relu", [1.0], (1, 2), {"a": 1}, np.float64(2), torch.tensor(1)]
)
def test_a_short_value_is_shown_by_its_repr(value):
    assert shown(value) == repr(value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros((40, 3)), "a ndarray of shape (40, 3)"),
        (torch.zeros(40, 3), "a Tensor of shape (40, 3)"),
        (pd.DataFrame(np.zeros((40, 3))), "a DataFrame of shape (40, 3)"),
        ([np.zeros(40)] * 40, "a list of length 40"),
        ((nn.Sequential(nn.Linear(3, 4), nn.ReLU()),), "a tuple of length 1"),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU()), "a Sequential"),
        (dist.Normal(torch.zeros(9), torch.ones(9)).to_event(1), None),
        (Broken(), None),
        (10**6000, "a int"),
        ("long " * 1000, None),
        ("lines\n" * 3, None),
        (list(range(10**6)), "[0, 1, 2, 3, ...]"),
        (dict.fromkeys(range(9), "x" * 500), "a dict of length 9"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_long_value_is_shown_by_its_type_and_size(value, words):
    text = shown(value)
    assert words is None or text == words
    assert len(text) <= 80
    assert "\n" not in text


def test_the_first_line_of_an_error_is_cut():
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(KeyError()) == "KeyError"
    assert len(first_line(ValueError("x" * 1000))) == 160
