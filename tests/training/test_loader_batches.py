"""Batches of a DataLoader: the rows are checked and counted."""

import itertools

import numpy as np
import pytest
import torch
from ragged_fits import X, Y, quick_fit
from torch.utils.data import DataLoader, IterableDataset, TensorDataset


def test_loader_has_the_same_steps_as_arrays():
    data = TensorDataset(torch.as_tensor(X), torch.as_tensor(Y))
    loader = DataLoader(data, batch_size=23)
    by_loader = quick_fit(x=loader, y=None, n_data=23)
    by_array = quick_fit(batch_size=23)
    np.testing.assert_array_equal(by_loader.history.n_rows, by_array.history.n_rows)
    np.testing.assert_allclose(by_loader.history.nll[0], by_array.history.nll[0], rtol=0.5)
    ragged = quick_fit(x=DataLoader(data, batch_size=7, shuffle=True), y=None, n_data=23)
    np.testing.assert_array_equal(ragged.history.n_rows, [7, 7, 7, 2] * 3)
    again = quick_fit(x=DataLoader(data, batch_size=7, shuffle=True), y=None, n_data=23)
    assert torch.equal(ragged.guide.loc, again.guide.loc)


def test_infinite_iterable_is_refused():
    class Stream(IterableDataset):
        def __init__(self, n):
            self.n = n

        def __iter__(self):
            endless = iter(lambda: (torch.randn(3), torch.randn(1)), None)
            return itertools.islice(endless, self.n)

    with pytest.raises(ValueError, match=r"`n_data` is 20, .* yields more rows .*islice"):
        quick_fit(x=DataLoader(Stream(None), batch_size=8), y=None, n_data=20)
    posterior = quick_fit(x=DataLoader(Stream(20), batch_size=8), y=None, n_data=20)
    np.testing.assert_array_equal(posterior.history.n_rows, [8, 8, 4] * 3)


def test_non_finite_row_of_a_loader_is_named():
    x = torch.as_tensor(X).clone()
    x[11, 1] = torch.nan
    loader = DataLoader(TensorDataset(x, torch.as_tensor(Y)), batch_size=7)
    with pytest.raises(ValueError, match=r"`x` has 1 value\(s\) that are NaN .* row 4, column 1"):
        quick_fit(x=loader, y=None, n_data=23)
