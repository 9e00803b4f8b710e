"""The data of a fit: arrays and loaders are checked against the network."""

import numpy as np
import pytest
import torch
from ragged_fits import X, Y, quick_fit
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pyrobbb import BayesianNetwork, mlp


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (
            X,
            Y[:, 0],
            ValueError,
            r"`y` has shape \(23,\), .* Pass y.reshape\(-1, 1\)\.",
        ),
        (X, Y[:5], ValueError, "`x` and `y` must have the same number of rows, got 23 and 5"),
        (X[:, :2], Y, ValueError, r"`x` with rows of shape \(2,\) .* does not fit the network"),
        (X[:, 0], Y, ValueError, r"does not fit the network\. Pass x\.reshape\(-1, 1\) if"),
        (X * np.nan, Y, ValueError, r"`x` has 69 value\(s\) .* first at row 0, column 0"),
        (X, Y * np.inf, ValueError, r"`y` has 23 value\(s\) that are NaN or infinite"),
        (X, ["a"] * 23, TypeError, "`y` must hold numbers, got .*'a'"),
        (X[:0], Y[:0], ValueError, r"`x` is empty: it has shape \(0, 3\)"),
        (X, None, ValueError, "`y` is required, got None"),
    ],
)
def test_invalid_data_raise_a_one_line_error(x, y, error, message):
    with pytest.raises(error, match=message) as caught:
        quick_fit(x=x, y=y)
    assert "\n" not in str(caught.value)


def test_last_batch_of_one_row_is_refused_with_batch_norm():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    with pytest.raises(ValueError, match="`batch_size` 11 leaves a last batch of 1 of the 23 rows"):
        quick_fit(BayesianNetwork(net), batch_size=11)
    quick_fit(BayesianNetwork(net), batch_size=10, guide="auto_normal")


def test_loader_without_n_data_and_plain_module_are_refused():
    loader = DataLoader(TensorDataset(torch.as_tensor(X), torch.as_tensor(Y)))
    with pytest.raises(ValueError, match="`n_data`, the size of the data set, is required"):
        quick_fit(x=loader, y=None)
    with pytest.raises(ValueError, match="`y` must be left out"):
        quick_fit(x=loader, y=Y, n_data=23)
    with pytest.raises(TypeError, match=r"`x` must be a DataLoader of pairs"):
        quick_fit(x=DataLoader(torch.as_tensor(X)), y=None, n_data=23)
    with pytest.raises(TypeError, match=r"`network` must be a BayesianNetwork, got Sequential"):
        quick_fit(mlp(3, [4], 1))
