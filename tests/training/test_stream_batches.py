"""Batches of rows in files: each row once per epoch, in constant memory, for equally good fits."""

import tracemalloc

import numpy as np
import pytest
import torch
from stream_files import (
    MAPPED_CHUNK_BYTES,
    X,
    Y,
    fit_rows,
    network,
    write_arrays,
    write_parquet,
)
from support import Crash, assert_equal, crash_at

from pyrobbb import BayesianNetwork, mlp, streams
from pyrobbb._core.distributed import Team
from pyrobbb.streams import MappedRows, Parquet
from pyrobbb.training import stream_batches
from pyrobbb.training.stream_batches import StreamBatches


@pytest.fixture
def mapped(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "CHUNK_BYTES", MAPPED_CHUNK_BYTES)
    return write_arrays(tmp_path)


@pytest.fixture
def table(tmp_path):
    return write_parquet(tmp_path)


@pytest.fixture
def small_buffer(monkeypatch):
    monkeypatch.setattr(stream_batches, "BUFFER_ROWS", 210)


def rows_of(stream, epoch, seed=1):
    """Return the rows of each batch of an epoch."""
    generators = [torch.Generator().manual_seed(seed)]
    return [
        np.hstack([batches.x[rows[:n]], batches.y[rows[:n]]])
        # A list, because batches are still in use when later ones are read.
        for batches in list(stream.epochs(range(epoch, epoch + 1), generators))
        for rows, n in zip(batches.rows, batches.n_rows, strict=True)
    ]


@pytest.mark.parametrize("kind", ["mapped", "parquet"])
def test_an_epoch_contains_each_row_once(mapped, table, small_buffer, kind):
    rows = MappedRows(*mapped) if kind == "mapped" else Parquet(table, ["y"])
    stream = StreamBatches(network(), rows, 20)
    epoch = rows_of(stream, 0)
    assert [len(batch) for batch in epoch] == [20] * 50 + [3]
    whole = np.vstack(epoch)
    np.testing.assert_array_equal(np.unique(whole, axis=0), np.unique(np.hstack([X, Y]), axis=0))
    again, other, seed = rows_of(stream, 0), rows_of(stream, 1), rows_of(stream, 0, seed=2)
    np.testing.assert_array_equal(whole, np.vstack(again))
    for another in (other, seed, [np.hstack([X, Y])]):
        assert (whole != np.vstack(another)).any(1).mean() > 0.9


def test_a_batch_mixes_rows_of_many_chunks(mapped, small_buffer):
    places = {tuple(row): i // 50 for i, row in enumerate(np.hstack([X, Y]))}
    epoch = rows_of(StreamBatches(network(), MappedRows(*mapped), 20), 0)
    assert np.mean([len({places[tuple(row)] for row in batch}) for batch in epoch[:-1]]) > 3
    first = {places[tuple(row)] for batch in epoch[:10] for row in batch}  # a buffer
    assert len(first) <= 5
    assert max(first) - min(first) > 5


@pytest.mark.parametrize(
    "engine", ["fused", "svi", pytest.param("compiled", marks=pytest.mark.slow)]
)
def test_both_file_formats_have_the_same_fit(mapped, table, engine):
    options = {"engine": engine, "epochs": 2 if engine == "svi" else 6}
    assert_equal(fit_rows(*mapped, **options), fit_rows(Parquet(table, ["y"]), **options))


def test_a_fit_from_files_is_as_good_as_one_in_memory(mapped, small_buffer):
    options = {"epochs": 40, "lr": 0.02}
    from_files, in_memory = fit_rows(*mapped, **options), fit_rows(X, Y, **options)
    assert from_files.settings["n_data"] == 1003
    both = [p.predict(X[:100], n_draws=300, seed=0).mean for p in (from_files, in_memory)]
    assert np.abs(both[0] - both[1]).max() < 0.3
    for posterior in (from_files, in_memory):
        late = posterior.history.nelbo[-500:].mean()
        np.testing.assert_allclose(late, in_memory.history.nelbo[-500:].mean(), rtol=0.02)


def test_steps_are_compiled_once_although_buffers_change(mapped, small_buffer):
    compiled = fit_rows(*mapped, engine="compiled", epochs=3)
    assert compiled.settings["engine"] == "compiled"
    fused = fit_rows(*mapped, epochs=3)
    np.testing.assert_allclose(compiled.history.nelbo, fused.history.nelbo, rtol=1e-4)


@pytest.mark.parametrize("engine", ["fused", pytest.param("compiled", marks=pytest.mark.slow)])
def test_a_crashed_fit_resumes(mapped, small_buffer, tmp_path, monkeypatch, engine):
    expected = fit_rows(*mapped, engine=engine)
    with monkeypatch.context() as patch:
        crash_at(patch, 90)
        with pytest.raises(Crash):
            fit_rows(*mapped, engine=engine, checkpoint=tmp_path / "c", every=7)
    assert_equal(fit_rows(*mapped, engine=engine, checkpoint=tmp_path / "c"), expected)


def test_each_process_uses_a_part_of_each_batch(mapped, small_buffer):
    whole = rows_of(StreamBatches(network(), MappedRows(*mapped), 20), 0)
    parts = [
        rows_of(StreamBatches(network(), MappedRows(*mapped), 20, Team(rank, 3)), 0)
        for rank in range(3)
    ]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert sorted(map(tuple, batch)) == sorted(map(tuple, np.vstack(shares)))


def test_a_row_with_a_non_finite_value_is_reported(tmp_path, mapped):
    x = np.array(X)
    x[777, 1] = np.inf
    np.save(tmp_path / "bad.npy", x)
    with pytest.raises(ValueError, match=r"rows 750 to 799: `x` has 1 .* row 27, column 1"):
        fit_rows(np.load(tmp_path / "bad.npy", mmap_mode="r"), mapped[1])


def test_a_file_is_never_in_memory_as_a_whole(tmp_path, monkeypatch):
    n = 200_000
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (n, 50))
    x[:] = 0
    y = np.zeros((n, 1), np.float32)
    monkeypatch.setattr(stream_batches, "BUFFER_ROWS", 2**13)
    stream = StreamBatches(BayesianNetwork(mlp(50, [4], 1)), MappedRows(x, y), 1024)
    tracemalloc.start()  # covers NumPy's memory only; that of torch's buffers is added below
    held = 0
    for batches in stream.epochs(range(1), [torch.Generator().manual_seed(0)]):
        held = max(held, batches.x.numel() * 4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held <= 2**13 * 50 * 4
    assert peak < 0.6 * x.nbytes
