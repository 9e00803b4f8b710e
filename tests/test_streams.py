"""Rows read from files: once per epoch, in constant memory, with the same fit as in memory."""

import subprocess
import sys
import tracemalloc
import weakref

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support import Crash, assert_equal, crash_at
from torch import nn
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

from pyrobbb import BayesianNetwork, fit, likelihoods, mlp, streams
from pyrobbb._core.distributed import Team
from pyrobbb.streams import MappedRows, Parquet
from pyrobbb.training import stream_batches
from pyrobbb.training.loader_batches import loader_batches
from pyrobbb.training.stream_batches import StreamBatches

RNG = np.random.default_rng(0)
X = RNG.normal(size=(1003, 3)).astype(np.float32)
Y = (X.sum(1, keepdims=True) + RNG.normal(size=(1003, 1))).astype(np.float32)


@pytest.fixture
def mapped(tmp_path, monkeypatch):
    """Return x and y in files, in chunks of 50 rows."""
    monkeypatch.setattr(streams, "CHUNK_BYTES", 50 * 3 * 4)
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    return tuple(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy")


@pytest.fixture
def table(tmp_path):
    """Return a parquet file with row groups of 50 rows."""
    path = tmp_path / "table.parquet"
    columns = {name: X[:, i] for i, name in enumerate("abc")}
    pq.write_table(pa.table({**columns, "y": Y[:, 0]}), path, row_group_size=50)
    return path


@pytest.fixture
def small_buffer(monkeypatch):
    monkeypatch.setattr(stream_batches, "BUFFER_ROWS", 210)


def network():
    return BayesianNetwork(mlp(3, [4], 1, "tanh", seed=0))


def a_fit(x, y=None, **options):
    options = {"epochs": 4, "batch_size": 20, "seed": 1, "engine": "fused", **options}
    return fit(network(), x, y, progress=False, **options)


def rows_of(stream, epoch, seed=1):
    """Return the rows of each batch of an epoch."""
    generators = [torch.Generator().manual_seed(seed)]
    return [
        np.hstack([some.x[rows[:n]], some.y[rows[:n]]])
        # Some batches are still in use when later ones are read.
        for some in list(stream.epochs(range(epoch, epoch + 1), generators))
        for rows, n in zip(some.rows, some.n_rows, strict=True)
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


@pytest.mark.parametrize("engine", ["fused", "svi", "compiled"])
def test_both_file_formats_have_the_same_fit(mapped, table, engine):
    options = {"engine": engine, "epochs": 2 if engine == "svi" else 6}
    assert_equal(a_fit(*mapped, **options), a_fit(Parquet(table, ["y"]), **options))


def test_a_fit_from_files_is_as_good_as_one_in_memory(mapped, small_buffer):
    options = {"epochs": 40, "lr": 0.02}
    from_files, in_memory = a_fit(*mapped, **options), a_fit(X, Y, **options)
    assert from_files.settings["n_data"] == 1003
    both = [own.predict(X[:100], n_draws=300, seed=0).mean for own in (from_files, in_memory)]
    assert np.abs(both[0] - both[1]).max() < 0.3
    for own in (from_files, in_memory):
        late = own.history.nelbo[-500:].mean()
        np.testing.assert_allclose(late, in_memory.history.nelbo[-500:].mean(), rtol=0.02)


def test_steps_are_compiled_once_although_buffers_change(mapped, small_buffer):
    compiled = a_fit(*mapped, engine="compiled", epochs=3)
    assert compiled.settings["engine"] == "compiled"
    fused = a_fit(*mapped, epochs=3)
    np.testing.assert_allclose(compiled.history.nelbo, fused.history.nelbo, rtol=1e-4)


@pytest.mark.parametrize("engine", ["fused", "compiled"])
def test_a_crashed_fit_resumes(mapped, small_buffer, tmp_path, monkeypatch, engine):
    expected = a_fit(*mapped, engine=engine)
    with monkeypatch.context() as patch:
        crash_at(patch, 90)
        with pytest.raises(Crash):
            a_fit(*mapped, engine=engine, checkpoint=tmp_path / "c", every=7)
    assert_equal(a_fit(*mapped, engine=engine, checkpoint=tmp_path / "c"), expected)


def test_each_process_uses_a_part_of_each_batch(mapped, small_buffer):
    whole = rows_of(StreamBatches(network(), MappedRows(*mapped), 20), 0)
    parts = [
        rows_of(StreamBatches(network(), MappedRows(*mapped), 20, Team(rank, 3)), 0)
        for rank in range(3)
    ]
    for batch, *own in zip(whole, *parts, strict=True):
        assert sorted(map(tuple, batch)) == sorted(map(tuple, np.vstack(own)))


def test_integers_in_files_are_classes(tmp_path):
    label = (X[:, 0] > 0).astype(np.int64)
    path = tmp_path / "classes.parquet"
    pq.write_table(pa.table({"label": label, "a": X[:, 0], "b": X[:, 1]}), path)
    net = BayesianNetwork(mlp(2, [4], 2, seed=0), likelihood=likelihoods.Categorical())
    posterior = fit(net, Parquet(path, "label"), epochs=20, seed=0, progress=False)
    (prediction,) = posterior.predict_chunks(Parquet(path, columns=["a", "b"]), seed=0)
    assert (prediction.label == label).mean() > 0.95


def test_several_files_are_read_as_one(table, tmp_path):
    assert Parquet([table, table], ["y"]).n_data == 2006
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1.0]}), other)
    with pytest.raises(ValueError, match=r"other.parquet' has no column 'b'"):
        Parquet([table, other], ["y"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": ["x"], "y": [1.0]}, "column 'a' .* must be numeric, got string"),
        ({"a": [1.0, None], "y": [1.0, 2.0]}, "missing values in the column 'a'"),
        ({"a": [1.0, np.nan], "y": [1.0, 2.0]}, r"row group 0, rows 0 to 1: `x` has 1 value"),
        ({"a": [np.nan, 1.0], "y": [1.0, 2.0]}, r"row group 0, rows 0 to 1: `x` has 1 value"),
        ({"a": np.empty(0), "y": np.empty(0)}, "have no rows"),
    ],
)
def test_invalid_contents_of_a_file_raise(tmp_path, columns, message):
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(ValueError, match=message):
        fit(BayesianNetwork(mlp(1, [2], 1)), Parquet(path, ["y"]), epochs=1, progress=False)


def test_a_row_with_a_non_finite_value_is_reported(tmp_path, mapped):
    x = np.array(X)
    x[777, 1] = np.inf
    np.save(tmp_path / "bad.npy", x)
    with pytest.raises(ValueError, match=r"rows 750 to 799: `x` has 1 .* row 27, column 1"):
        a_fit(np.load(tmp_path / "bad.npy", mmap_mode="r"), mapped[1])


class Endless(IterableDataset):
    def __iter__(self):
        yield from iter([])


class Short(IterableDataset):
    """25 rows, of which each of several workers yields its part."""

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for i in range(first, 25, step):
            yield torch.full((3,), i / 25), torch.full((1,), float(i))


# Other tests may have imported JAX, which warns about forked workers; they do not use it.
forks = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")

ROWS = TensorDataset(torch.as_tensor(X), torch.as_tensor(Y))


@pytest.mark.parametrize("n_data", [1002, 51, 20])
def test_a_wrong_number_of_rows_raises(n_data):
    with pytest.raises(ValueError, match=f"`n_data` is {n_data}, but the DataLoader has 1003"):
        a_fit(DataLoader(ROWS, batch_size=20), n_data=n_data)


@pytest.mark.parametrize(
    ("sampler", "n_data"),
    [
        (SubsetRandomSampler(range(0, 1000, 2)), 500),
        (RandomSampler(ROWS, num_samples=300), 1003),
        (WeightedRandomSampler(torch.rand(1003), 2000), 1003),
    ],
)
@pytest.mark.parametrize("is_batched", [False, True])
def test_the_number_of_rows_counts_different_rows(sampler, n_data, is_batched):
    by = {"sampler": sampler, "batch_size": 50}
    if is_batched:
        by = {"batch_sampler": BatchSampler(sampler, 50, False)}
    a_fit(DataLoader(ROWS, **by), n_data=n_data)
    with pytest.raises(ValueError, match=f"but the DataLoader has {n_data} rows"):
        a_fit(DataLoader(ROWS, **by), n_data=1503 - n_data)


@forks
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
        a_fit(DataLoader(Short(), batch_size=5, num_workers=n_workers), n_data=n_data)


@forks
@pytest.mark.parametrize("n_workers", [0, 2])
def test_the_smaller_last_batches_of_workers_are_completed(n_workers):
    posterior = a_fit(DataLoader(Short(), batch_size=4, num_workers=n_workers), n_data=25)
    np.testing.assert_array_equal(posterior.history.n_rows[:7], [4, 4, 4, 4, 4, 4, 1])
    loader = DataLoader(Short(), batch_size=4, num_workers=n_workers)
    data = loader_batches(BayesianNetwork(mlp(3, [4], 1)), loader, 25)
    generators = [torch.Generator().manual_seed(0)]
    seen = torch.cat([some.y for some in data.epochs(range(1), generators)])
    assert sorted(seen.flatten().tolist()) == list(range(25))


class ReadyMade(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        if i == 3:
            raise IndexError
        n = 5 + i
        return torch.full((n, 3), float(i)), torch.zeros((n, 1))


def test_the_rows_of_ready_made_batches_are_counted():
    posterior = a_fit(DataLoader(ReadyMade(), batch_size=None, shuffle=True), n_data=18)
    assert sorted(posterior.history.n_rows[:3]) == [5, 6, 7]
    with pytest.raises(ValueError, match="`n_data` is 3, but the DataLoader yields 18 rows"):
        a_fit(DataLoader(ReadyMade(), batch_size=None), n_data=3)


def test_rows_that_drop_last_omits():
    with pytest.raises(ValueError, match="leaves out the same 3 rows in each epoch: shuffle"):
        a_fit(DataLoader(ROWS, batch_size=20, drop_last=True), n_data=1003)
    posterior = a_fit(DataLoader(ROWS, 20, shuffle=True, drop_last=True), n_data=1003)
    assert set(posterior.history.n_rows) == {20}
    with pytest.raises(ValueError, match="a DataLoader without a batch"):
        a_fit(DataLoader(ROWS, 2000, shuffle=True, drop_last=True), n_data=1003)


@pytest.mark.parametrize("batch_size", [167, 1])
def test_a_last_batch_of_one_row_raises_for_batch_norm(mapped, batch_size):
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    for x, y in (mapped, (X, Y)):
        with pytest.raises(ValueError, match=f"`batch_size` {batch_size} leaves a last batch of 1"):
            fit(BayesianNetwork(net), x, y, batch_size=batch_size, epochs=1)


@pytest.mark.parametrize(
    ("likelihood", "n_outputs", "target", "remedy"),
    [
        (likelihoods.Gaussian(1.0), 1, "y", r"\(n, k\), got 'y': pass target=\['y'\]"),
        (likelihoods.Categorical(), 2, ["y"], r"\(n,\), got \['y'\]: pass target='y'"),
    ],
)
def test_a_target_of_other_dimensions_raises_with_the_remedy(
    table, likelihood, n_outputs, target, remedy
):
    network = BayesianNetwork(mlp(3, [4], n_outputs), likelihood=likelihood)
    with pytest.raises(
        ValueError, match=f"`target` of Parquet must be .*, as the network's y has shape {remedy}"
    ):
        fit(network, Parquet(table, target), epochs=1)


def test_an_empty_row_group_is_skipped(tmp_path):
    whole = pa.table({"a": [1.0, 2.0, 3.0], "y": [1.0, 2.0, 3.0]})
    with pq.ParquetWriter(tmp_path / "rows.parquet", whole.schema) as writer:
        for part in (whole[:0], whole[:2], whole[2:]):
            writer.write_table(part)
    rows = Parquet(tmp_path / "rows.parquet", ["y"])
    assert (rows.n_data, rows.n_chunks) == (3, 2)
    assert [len(chunk) for chunk in rows.in_order(2)] == [2, 1]


def test_a_shard_does_not_read_the_row_groups_of_others(tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"a": np.arange(100.0)}), path, row_group_size=10)
    rows = Parquet(path)
    whole = list(rows.in_order(30))
    read = []
    pieces = Parquet._pieces
    monkeypatch.setattr(
        Parquet, "_pieces", lambda own, i, g, names: read.append(g) or pieces(own, i, g, names)
    )
    (chunk,) = rows.in_order(30, (2, 3))
    assert read == [6, 7, 8]
    np.testing.assert_array_equal(chunk, whole[2])
    read.clear()
    chunks = list(rows.in_order(15, (1, 2)))
    assert read == [1, 2, 4, 5, 7, 8]
    np.testing.assert_array_equal(np.concatenate(chunks)[:, 0] // 15 % 2, np.ones(45))


def test_invalid_arguments_raise(mapped, table, tmp_path):
    (tmp_path / "no.parquet").write_text("no")
    with pytest.raises(ValueError, match=r"no\.parquet' is not a parquet file"):
        Parquet(tmp_path / "no.parquet")
    with pytest.raises(ValueError, match="`n_data` is 5, but x has 1003 rows"):
        a_fit(*mapped, n_data=5)
    with pytest.raises(ValueError, match="`sample_weight` needs x and y in memory"):
        a_fit(*mapped, sample_weight=np.ones(1003))
    with pytest.raises(ValueError, match="`restarts` needs x and y in memory, got a memmap"):
        a_fit(*mapped, restarts=2)
    with pytest.raises(ValueError, match="`y` must be left out where `x` is Parquet"):
        a_fit(Parquet(table, "y"), Y)
    with pytest.raises(ValueError, match="`target` of Parquet must name the column"):
        a_fit(Parquet(table))
    with pytest.raises(ValueError, match="must have the same number of rows, got 1003 and 1002"):
        a_fit(mapped[0], Y[:-1])
    with pytest.raises(TypeError, match="is an IterableDataset: wrap it"):
        a_fit(Endless(), n_data=10)


@pytest.mark.parametrize("kind", ["array", "mapped", "parquet", "iterable", "frame"])
def test_predictions_of_chunks_equal_those_of_the_whole(mapped, table, kind):
    posterior = a_fit(X, Y)
    x = {
        "array": X,
        "mapped": mapped[0],
        "parquet": Parquet(table, columns=["a", "b", "c"]),
        "iterable": np.array_split(X, 7),
        "frame": pd.DataFrame(X),
    }[kind]
    whole = posterior.predict(X, n_draws=20, seed=3)
    chunks = list(posterior.predict_chunks(x, n_draws=20, seed=3, rows=150))
    assert len(chunks) == 7
    np.testing.assert_allclose(np.concatenate([p.mean for p in chunks]), whole.mean, rtol=1e-5)
    np.testing.assert_allclose(np.concatenate([p.sd for p in chunks]), whole.sd, rtol=1e-4)


@pytest.mark.parametrize("rows", [None, 3, 500])
def test_predictions_use_the_memory_that_chunks_leave(rows):
    x = np.zeros((10**5, 50), np.float32)
    n_rows, left = streams.plan_chunks(x, rows, 2**22)
    assert n_rows == (rows or 2**20 // (3 * 200))
    assert left == 2**22 - 3 * 200 * n_rows
    assert streams.plan_chunks(x, None, 2**30)[0] == streams.CHUNK_ROWS
    assert streams.plan_chunks(x[:2], 500, 2**22)[1] == 2**22 - 3 * 200 * 2
    assert streams.plan_chunks(iter([x]), rows, 2**22)[1] == 2**22


def test_the_memory_of_the_reader_is_accounted_for(table, caplog):
    rows = Parquet(table, columns=["a", "b", "c"])
    assert (
        streams.READER_BYTES
        < rows.reader_bytes
        < streams.READER_BYTES + 3 * (2**18 + 2 * streams.PAGE_BYTES)
    )
    n_rows, left = streams.plan_chunks(rows, None, 2**28)
    assert n_rows == streams.CHUNK_ROWS
    assert left == 2**28 - rows.reader_bytes - 3 * 24 * len(X)
    assert not caplog.records
    assert streams.plan_chunks(rows, None, 2**20) == (2**18 // 4 // 72, 2**18)
    assert "`max_memory` is 1 MiB, but reading x takes about 65 MiB" in caplog.text


def test_chunks_of_any_memory_bound_have_the_same_predictions(mapped, table):
    posterior = a_fit(X, Y)
    whole = posterior.predict(X, n_draws=20, seed=3).mean
    for x in (X, mapped[0], Parquet(table, columns=["a", "b", "c"])):
        chunks = list(posterior.predict_chunks(x, n_draws=20, seed=3, max_memory=2**13))
        assert len(chunks) > 2
        np.testing.assert_allclose(np.concatenate([p.mean for p in chunks]), whole, rtol=1e-5)


def test_a_prediction_does_not_keep_its_inputs():
    x = np.array(X)
    last = weakref.ref(x)
    prediction = a_fit(X, Y).predict(x, n_draws=2, seed=0)
    del x
    assert last() is None
    assert isinstance(prediction.mean, np.ndarray)


def test_shards_add_up_to_the_whole():
    posterior = a_fit(X, Y)
    whole = list(posterior.predict_chunks(X, n_draws=5, seed=3, rows=150))
    parts = [
        list(posterior.predict_chunks(X, n_draws=5, seed=3, rows=150, shard=(i, 3)))
        for i in range(3)
    ]
    assert [len(part) for part in parts] == [3, 2, 2]
    for i, chunk in enumerate(whole):
        np.testing.assert_array_equal(parts[i % 3][i // 3].mean, chunk.mean)
    with pytest.raises(ValueError, match=r"`shard` must be \(i, n\) with i below n"):
        posterior.predict_chunks(X, seed=0, shard=(3, 3))
    with pytest.raises(ValueError, match=r"`shard` must be \(i, n\), the i-th of n parts, got 3"):
        posterior.predict_chunks(X, seed=0, shard=3)
    with pytest.raises(ValueError, match="`shard` needs a `seed`"):
        posterior.predict_chunks(X, shard=(0, 3))
    with pytest.raises(ValueError, match="`n_draws` must be at least 1"):
        posterior.predict_chunks(X, n_draws=0)


def test_a_file_is_never_in_memory_as_a_whole(tmp_path, monkeypatch):
    n = 200_000
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (n, 50))
    x[:] = 0
    y = np.zeros((n, 1), np.float32)
    monkeypatch.setattr(stream_batches, "BUFFER_ROWS", 2**13)
    stream = StreamBatches(BayesianNetwork(mlp(50, [4], 1)), MappedRows(x, y), 1024)
    tracemalloc.start()  # covers NumPy's memory only; that of torch's buffers is added below
    held = 0
    for some in stream.epochs(range(1), [torch.Generator().manual_seed(0)]):
        held = max(held, some.x.numel() * 4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held <= 2**13 * 50 * 4
    assert peak < 0.6 * x.nbytes


def test_pyarrow_is_imported_only_for_files():
    code = "import sys, pyrobbb; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
