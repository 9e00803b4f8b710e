"""Structured inputs: their rows, names and messages, against the same operations on one array."""

import re
from collections import OrderedDict, namedtuple
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
import torch

from pyrobbb._core import trees

WHOLE = torch.arange(24.0).reshape(6, 4)
Pair = namedtuple("Pair", "left right")
STRUCTURES = {
    "one array": lambda x: x,
    "a dict": lambda x: {"a": x[:, :1], "b": x[:, 1:]},
    "a tuple": lambda x: (x[:, :3], x[:, 3:]),
    "nested": lambda x: {"a": (x[:, :1], {"b": x[:, 1:2]}), "c": x[:, 2:]},
}


def join(x):
    return torch.cat(trees.arrays_of(x), -1)


@pytest.fixture(params=STRUCTURES)
def make(request):
    return STRUCTURES[request.param]


def test_rows_are_those_of_the_joined_array(make):
    x = trees.as_inputs("x", make(WHOLE.clone()))
    assert trees.n_rows(x) == 6
    assert trees.row_size(x) == 4
    assert trees.row_bytes(x) == 16
    for index in (slice(2), 3, torch.tensor([[4, 0], [1, 1]]), [5, 2]):
        torch.testing.assert_close(join(trees.rows_of(x, index)), WHOLE[index], rtol=0, atol=0)
    parts = trees.split(x, 4)
    assert [trees.n_rows(part) for part in parts] == [4, 2]
    torch.testing.assert_close(join(trees.concatenate(parts)), WHOLE, rtol=0, atol=0)
    copied = trees.clone(x)
    trees.arrays_of(x)[0].zero_()
    assert bool((join(copied)[1:, 0] != 0).all())


def test_mappings_become_dicts_and_tuples_stay():
    a = np.ones((2, 1))
    given = OrderedDict(a=a, b=MappingProxyType({"c": Pair(a, [[1], [2]])}))
    x = trees.as_inputs("x", given)
    assert type(x) is dict
    assert type(x["b"]) is dict
    assert type(x["b"]["c"]) is tuple
    assert [name for name, _ in trees.named_arrays("x", x)] == [
        "x['a']",
        "x['b']['c'][0]",
        "x['b']['c'][1]",
    ]
    assert list(trees.labelled_arrays("x", x)) == ["x.a", "x.b.c.0", "x.b.c.1"]


@pytest.mark.parametrize(
    "x", [[[1.0], [2.0]], ([1.0], [2.0]), ((1.0,), (2.0,)), [torch.ones(1), torch.ones(1)]]
)
def test_lists_and_tuples_of_numbers_are_one_array(x):
    assert trees.as_inputs("x", x).shape == (2, 1)


def test_labels_with_dots_that_would_be_equal_are_written_as_keys():
    x = {"a.b": WHOLE, "a": {"b": WHOLE}}
    assert list(trees.labelled_arrays("x", x)) == ["x['a.b']", "x['a']['b']"]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({}, "`x` holds no array, got {}: pass at least one."),
        ({"a": {}}, "`x` holds no array, got {'a': {}}: pass at least one."),
        (
            {"ids": np.ones((32, 2)), "mask": np.ones((31, 2))},
            "`x['mask']` has 31 rows where `x['ids']` has 32: pass a row per observation in each.",
        ),
        ((np.ones(4), (np.ones(4), np.ones(3))), "`x[1][1]` has 3 rows where `x[0]` has 4"),
        ({"a": np.ones(3), "flag": 2.5}, "`x['flag']` must have a row per observation, got the"),
        ({"a": np.array([[1.0], [np.nan]])}, "`x['a']` has 1 value(s) that are NaN or infinite"),
        ({"a": (np.ones(2), np.ones((2, 0)))}, "`x['a'][1]` is empty: it has shape (2, 0)."),
    ],
)
def test_a_message_names_the_array(x, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        trees.as_inputs("x", x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({"a": np.array(["Ulm", "Bonn"])}, "`x['a']` must hold numbers, got <U4"),
        ({"a": np.ones(2), "mask": None}, "`x['mask']` must be an array of numbers, got None."),
        ({"a": np.ones(2) + 1j}, "`x['a']` must hold"),
        (
            {"a": torch.ones(2, device="meta")},
            "`x['a']` must be a dense tensor, got one that is on",
        ),
        ({"a": {3: np.ones(2)}}, "`x['a']` must have strings as keys, got 3."),
        ({"a": {1.0, 2.0}}, "`x['a']` must be an array of numbers, got a set"),
    ],
)
def test_a_message_names_the_array_of_another_type(x, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        trees.as_inputs("x", x)


def test_data_frames_are_arrays():
    x = trees.as_inputs(
        "x", {"a": pd.DataFrame({"u": [1, 2], "v": [3, 4]}), "b": pd.Series([1, 2])}
    )
    assert (x["a"].shape, x["b"].shape) == ((2, 2), (2,))
