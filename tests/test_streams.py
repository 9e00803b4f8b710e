"""Rows read from files: parquet, memory-mapped arrays, and predictions of their chunks."""

import subprocess
import sys
import weakref

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stream_files import MAPPED_CHUNK_BYTES, X, Y, fit_rows, write_arrays, write_parquet

from pyrobbb import BayesianNetwork, fit, likelihoods, mlp, streams
from pyrobbb.streams import Parquet


@pytest.fixture
def mapped(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "CHUNK_BYTES", MAPPED_CHUNK_BYTES)
    return write_arrays(tmp_path)


@pytest.fixture
def table(tmp_path):
    return write_parquet(tmp_path)


def test_integer_targets_in_files_are_class_labels(tmp_path):
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
        Parquet, "_pieces", lambda rows, i, g, names: read.append(g) or pieces(rows, i, g, names)
    )
    (chunk,) = rows.in_order(30, (2, 3))
    assert read == [6, 7, 8]
    np.testing.assert_array_equal(chunk, whole[2])
    read.clear()
    chunks = list(rows.in_order(15, (1, 2)))
    assert read == [1, 2, 4, 5, 7, 8]
    np.testing.assert_array_equal(np.concatenate(chunks)[:, 0] // 15 % 2, np.ones(45))


@pytest.mark.parametrize("kind", ["array", "mapped", "parquet", "iterable", "frame"])
def test_predictions_of_chunks_equal_those_of_the_whole(mapped, table, kind):
    posterior = fit_rows(X, Y)
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


def test_predictions_of_chunks_do_not_depend_on_the_memory_bound(mapped, table):
    posterior = fit_rows(X, Y)
    whole = posterior.predict(X, n_draws=20, seed=3).mean
    for x in (X, mapped[0], Parquet(table, columns=["a", "b", "c"])):
        chunks = list(posterior.predict_chunks(x, n_draws=20, seed=3, max_memory=2**13))
        assert len(chunks) > 2
        np.testing.assert_allclose(np.concatenate([p.mean for p in chunks]), whole, rtol=1e-5)


def test_a_prediction_does_not_keep_its_inputs():
    x = np.array(X)
    last = weakref.ref(x)
    prediction = fit_rows(X, Y).predict(x, n_draws=2, seed=0)
    del x
    assert last() is None
    assert isinstance(prediction.mean, np.ndarray)


def test_shards_add_up_to_the_whole():
    posterior = fit_rows(X, Y)
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


def test_pyarrow_is_imported_only_for_files():
    code = "import sys, pyrobbb; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_that_is_not_parquet_is_rejected(tmp_path):
    (tmp_path / "no.parquet").write_text("no")
    with pytest.raises(ValueError, match=r"no\.parquet' is not a parquet file"):
        Parquet(tmp_path / "no.parquet")
