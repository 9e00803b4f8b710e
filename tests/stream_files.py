"""Rows in files, in chunks of 50, and fits to them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import support
import torch

RNG = np.random.default_rng(0)
X = RNG.normal(size=(1003, 3)).astype(np.float32)
Y = (X.sum(1, keepdims=True) + RNG.normal(size=(1003, 1))).astype(np.float32)
MAPPED_CHUNK_BYTES = 50 * 3 * 4


def write_arrays(folder):
    """Write x and y to files, and return them memory-mapped."""
    np.save(folder / "x.npy", X)
    np.save(folder / "y.npy", Y)
    return tuple(np.load(folder / f"{name}.npy", mmap_mode="r") for name in "xy")


def write_parquet(folder):
    """Write a parquet file with row groups of 50 rows, and return its path."""
    path = folder / "table.parquet"
    columns = {name: X[:, i] for i, name in enumerate("abc")}
    pq.write_table(pa.table({**columns, "y": Y[:, 0]}), path, row_group_size=50)
    return path


def network():
    return support.small_network(dtype=torch.float32)


def fit_rows(x, y=None, **options):
    return support.quick_fit(network(), x, y, **{"batch_size": 20, **options})
