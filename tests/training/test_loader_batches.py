"""Batches of a DataLoader: the rows are checked and counted."""

import itertools

import numpy as np
import pytest
import ragged_fits
import torch
from stream_files import X, Y, fit_rows
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from pyrobbb import BayesianNetwork, mlp
from pyrobbb.training.loader_batches import loader_batches


def test_loader_has_the_same_steps_as_arrays():
    data = TensorDataset(torch.as_tensor(ragged_fits.X), torch.as_tensor(ragged_fits.Y))
    loader = DataLoader(data, batch_size=23)
    by_loader = ragged_fits.quick_fit(x=loader, y=None, n_data=23)
    by_array = ragged_fits.quick_fit(batch_size=23)
    np.testing.assert_array_equal(by_loader.history.n_rows, by_array.history.n_rows)
    np.testing.assert_allclose(by_loader.history.nll[0], by_array.history.nll[0], rtol=0.5)
    ragged = ragged_fits.quick_fit(
        x=DataLoader(data, batch_size=7, shuffle=True), y=None, n_data=23
    )
    np.testing.assert_array_equal(ragged.history.n_rows, [7, 7, 7, 2] * 3)
    again = ragged_fits.quick_fit(x=DataLoader(data, batch_size=7, shuffle=True), y=None, n_data=23)
    assert torch.equal(ragged.guide.loc, again.guide.loc)


def test_infinite_iterable_is_refused():
    class Stream(IterableDataset):
        def __init__(self, n):
            self.n = n

        def __iter__(self):
            endless = iter(lambda: (torch.randn(3), torch.randn(1)), None)
            return itertools.islice(endless, self.n)

    with pytest.raises(ValueError, match=r"`n_data` is 20, .* yields more rows .*islice"):
        ragged_fits.quick_fit(x=DataLoader(Stream(None), batch_size=8), y=None, n_data=20)
    posterior = ragged_fits.quick_fit(x=DataLoader(Stream(20), batch_size=8), y=None, n_data=20)
    np.testing.assert_array_equal(posterior.history.n_rows, [8, 8, 4] * 3)


def test_non_finite_row_of_a_loader_is_named():
    x = torch.as_tensor(ragged_fits.X).clone()
    x[11, 1] = torch.nan
    loader = DataLoader(TensorDataset(x, torch.as_tensor(ragged_fits.Y)), batch_size=7)
    with pytest.raises(ValueError, match=r"`x` has 1 value\(s\) that are NaN .* row 4, column 1"):
        ragged_fits.quick_fit(x=loader, y=None, n_data=23)


class Short(IterableDataset):
    """25 rows, of which each worker yields its share."""

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for i in range(first, 25, step):
            yield torch.full((3,), i / 25), torch.full((1,), float(i))


ROWS = TensorDataset(torch.as_tensor(X), torch.as_tensor(Y))


@pytest.mark.parametrize("n_data", [1002, 51, 20])
def test_a_wrong_number_of_rows_raises(n_data):
    with pytest.raises(ValueError, match=f"`n_data` is {n_data}, but the DataLoader has 1003"):
        fit_rows(DataLoader(ROWS, batch_size=20), n_data=n_data)


@pytest.mark.parametrize(
    ("sampler", "n_data"),
    [
        (SubsetRandomSampler(range(0, 1000, 2)), 500),
        (RandomSampler(ROWS, num_samples=300), 1003),
        (WeightedRandomSampler(torch.rand(1003), 2000), 1003),
    ],
)
@pytest.mark.parametrize("is_batched", [False, True])
def test_n_data_is_the_number_of_distinct_rows(sampler, n_data, is_batched):
    options = {"sampler": sampler, "batch_size": 50}
    if is_batched:
        options = {"batch_sampler": BatchSampler(sampler, 50, False)}
    fit_rows(DataLoader(ROWS, **options), n_data=n_data)
    with pytest.raises(ValueError, match=f"but the DataLoader has {n_data} rows"):
        fit_rows(DataLoader(ROWS, **options), n_data=1503 - n_data)


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize(
    ("n_data", "message"),
    [
        (24, "yields 25 rows"),
        (20, "yields more rows"),
        (26, "ended after 25 rows"),
        (50, "ended after 25 rows"),
    ],
)
def test_the_rows_of_a_stream_are_counted(n_data, message, n_workers):
    with pytest.raises(ValueError, match=f"`n_data` is {n_data}, but the DataLoader {message}"):
        fit_rows(DataLoader(Short(), batch_size=5, num_workers=n_workers), n_data=n_data)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_smaller_last_batches_of_workers_are_joined(n_workers):
    posterior = fit_rows(DataLoader(Short(), batch_size=4, num_workers=n_workers), n_data=25)
    np.testing.assert_array_equal(posterior.history.n_rows[:7], [4, 4, 4, 4, 4, 4, 1])
    loader = DataLoader(Short(), batch_size=4, num_workers=n_workers)
    data = loader_batches(BayesianNetwork(mlp(3, [4], 1)), loader, 25)
    generators = [torch.Generator().manual_seed(0)]
    seen = torch.cat([batches.y for batches in data.epochs(range(1), generators)])
    assert sorted(seen.flatten().tolist()) == list(range(25))


class BatchedDataset(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        if i == 3:
            raise IndexError
        n = 5 + i
        return torch.full((n, 3), float(i)), torch.zeros((n, 1))


def test_the_rows_of_a_data_set_of_batches_are_counted():
    posterior = fit_rows(DataLoader(BatchedDataset(), batch_size=None, shuffle=True), n_data=18)
    assert sorted(posterior.history.n_rows[:3]) == [5, 6, 7]
    with pytest.raises(ValueError, match="`n_data` is 3, but the DataLoader yields 18 rows"):
        fit_rows(DataLoader(BatchedDataset(), batch_size=None), n_data=3)


def test_drop_last_that_always_omits_the_same_rows_is_refused():
    with pytest.raises(
        ValueError, match="leaves out the same 3 rows in each epoch: pass shuffle=True"
    ):
        fit_rows(DataLoader(ROWS, batch_size=20, drop_last=True), n_data=1003)
    posterior = fit_rows(DataLoader(ROWS, 20, shuffle=True, drop_last=True), n_data=1003)
    assert set(posterior.history.n_rows) == {20}
    with pytest.raises(ValueError, match="a DataLoader without batches"):
        fit_rows(DataLoader(ROWS, 2000, shuffle=True, drop_last=True), n_data=1003)
