"""The data of a fit: arrays and loaders are checked against the network."""

import numpy as np
import pytest
import ragged_fits
import stream_files
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pyrobbb import BayesianNetwork, fit, mlp, streams
from pyrobbb.streams import Parquet


@pytest.fixture
def mapped(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "CHUNK_BYTES", stream_files.MAPPED_CHUNK_BYTES)
    return stream_files.write_arrays(tmp_path)


@pytest.fixture
def table(tmp_path):
    return stream_files.write_parquet(tmp_path)


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (
            ragged_fits.X,
            ragged_fits.Y[:, 0],
            ValueError,
            r"`y` has shape \(23,\), .* Pass y.reshape\(-1, 1\)\.",
        ),
        (
            ragged_fits.X,
            ragged_fits.Y[:5],
            ValueError,
            "`x` and `y` must have the same number of rows, got 23 and 5",
        ),
        (
            ragged_fits.X[:, :2],
            ragged_fits.Y,
            ValueError,
            r"`x` with rows of shape \(2,\) .* does not fit the network",
        ),
        (
            ragged_fits.X[:, 0],
            ragged_fits.Y,
            ValueError,
            r"does not fit the network\. Pass x\.reshape\(-1, 1\) if",
        ),
        (
            ragged_fits.X * np.nan,
            ragged_fits.Y,
            ValueError,
            r"`x` has 69 value\(s\) .* first at row 0, column 0",
        ),
        (
            ragged_fits.X,
            ragged_fits.Y * np.inf,
            ValueError,
            r"`y` has 23 value\(s\) that are NaN or infinite",
        ),
        (ragged_fits.X, ["a"] * 23, TypeError, "`y` must hold numbers, got .*'a'"),
        (ragged_fits.X[:0], ragged_fits.Y[:0], ValueError, r"`x` is empty: it has shape \(0, 3\)"),
        (ragged_fits.X, None, ValueError, "`y` is required, got None"),
    ],
)
def test_invalid_data_raise_a_one_line_error(x, y, error, message):
    with pytest.raises(error, match=message) as caught:
        ragged_fits.quick_fit(x=x, y=y)
    assert "\n" not in str(caught.value)


def test_last_batch_of_one_row_is_refused_with_batch_norm():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    with pytest.raises(ValueError, match="`batch_size` 11 leaves a last batch of 1 of the 23 rows"):
        ragged_fits.quick_fit(BayesianNetwork(net), batch_size=11)
    ragged_fits.quick_fit(BayesianNetwork(net), batch_size=10, guide="auto_normal")


def test_loader_without_n_data_and_plain_module_are_refused():
    loader = DataLoader(
        TensorDataset(torch.as_tensor(ragged_fits.X), torch.as_tensor(ragged_fits.Y))
    )
    with pytest.raises(ValueError, match="`n_data`, the size of the data set, is required"):
        ragged_fits.quick_fit(x=loader, y=None)
    with pytest.raises(ValueError, match="`y` must be left out"):
        ragged_fits.quick_fit(x=loader, y=ragged_fits.Y, n_data=23)
    with pytest.raises(TypeError, match=r"`x` must be a DataLoader of pairs"):
        ragged_fits.quick_fit(x=DataLoader(torch.as_tensor(ragged_fits.X)), y=None, n_data=23)
    with pytest.raises(TypeError, match=r"`network` must be a BayesianNetwork, got Sequential"):
        ragged_fits.quick_fit(mlp(3, [4], 1))


class Endless(IterableDataset):
    def __iter__(self):
        yield from iter([])


@pytest.mark.parametrize("batch_size", [167, 1])
def test_a_last_batch_of_one_row_raises_for_batch_norm(mapped, batch_size):
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    for x, y in (mapped, (stream_files.X, stream_files.Y)):
        with pytest.raises(ValueError, match=f"`batch_size` {batch_size} leaves a last batch of 1"):
            fit(BayesianNetwork(net), x, y, batch_size=batch_size, epochs=1)


def test_invalid_arguments_with_files_are_refused(mapped, table):
    with pytest.raises(ValueError, match="`n_data` is 5, but x has 1003 rows"):
        stream_files.fit_rows(*mapped, n_data=5)
    with pytest.raises(ValueError, match="`sample_weight` needs x and y in memory"):
        stream_files.fit_rows(*mapped, sample_weight=np.ones(1003))
    with pytest.raises(ValueError, match="`restarts` needs x and y in memory, got a memmap"):
        stream_files.fit_rows(*mapped, restarts=2)
    with pytest.raises(ValueError, match="`y` must be left out if `x` is Parquet"):
        stream_files.fit_rows(Parquet(table, "y"), stream_files.Y)
    with pytest.raises(ValueError, match="`target` of Parquet must name the column"):
        stream_files.fit_rows(Parquet(table))
    with pytest.raises(ValueError, match="must have the same number of rows, got 1003 and 1002"):
        stream_files.fit_rows(mapped[0], stream_files.Y[:-1])
    with pytest.raises(TypeError, match="is an IterableDataset: wrap it"):
        stream_files.fit_rows(Endless(), n_data=10)
