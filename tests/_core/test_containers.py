"""Data in the containers of other libraries: converted, or refused in one line with the place."""

import datetime
import re

import numpy as np
import pandas as pd
import polars as pl
import pyarrow
import pytest
import torch
import xarray as xr
from scipy import sparse
from torch import nn

from pyrobbb._core.arrays import as_tensor, converted

ROWS = np.arange(12.0).reshape(4, 3)
FRAME = pd.DataFrame(ROWS, columns=list("abc"))
BATCH = torch.tensor(ROWS)


def masked(rows, *place):
    array = np.ma.masked_array(rows.copy())
    array[place] = np.ma.masked
    return array


def with_missing(dtype, missing=pd.NA):
    frame = (FRAME > 1 if dtype == "boolean" else FRAME).astype(dtype)
    frame.iloc[2, 1] = missing
    return frame


@pytest.mark.parametrize(
    "rows",
    [
        np.ma.masked_array(ROWS),
        list(np.ma.masked_array(ROWS)),
        FRAME.astype("Float64"),
        FRAME.astype("Int64"),
        FRAME.astype("double[pyarrow]"),
        pl.DataFrame(FRAME.to_dict("list")),
        pyarrow.table(FRAME),
        xr.DataArray(ROWS),
        list(BATCH),
        tuple(BATCH.clone().requires_grad_()),
        [list(row) for row in BATCH],
        nn.Parameter(BATCH),
        BATCH.clone().requires_grad_() * 1,
        np.matrix(ROWS),
        memoryview(ROWS),
        ROWS.astype(object),
    ],
    ids=lambda rows: type(rows).__name__,
)
def test_numbers_are_read_and_carry_no_graph(rows):
    tensor = as_tensor("x", rows)
    assert tensor.tolist() == ROWS.tolist()
    assert not tensor.requires_grad


def test_a_memory_mapped_file_is_read_and_not_changed(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS)
    as_tensor("x", np.load(tmp_path / "rows.npy", mmap_mode="r+")).zero_()
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), ROWS)


def test_a_tensor_of_inference_mode_can_take_part_in_a_graph():
    with torch.inference_mode():
        rows = BATCH.clone()
    weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
    (as_tensor("x", rows) @ weight).sum().backward()
    assert weight.grad.tolist() == ROWS.sum(0).tolist()


@pytest.mark.parametrize(
    "rows",
    [
        with_missing("Float64"),
        with_missing("Int64"),
        with_missing("boolean"),
        with_missing(object, None),
        with_missing("float64", np.nan),
        with_missing("double[pyarrow]"),
        pl.DataFrame({"a": [1.0] * 4, "b": [1, 2, None, 3], "c": [1] * 4}),
        pyarrow.table({"a": [1.0] * 4, "b": [1, 2, None, 3], "c": [1] * 4}),
        xr.DataArray(np.where(ROWS == 7, np.nan, ROWS)),
        [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, None, 8.0], [9.0, 10.0, 11.0]],
    ],
    ids=lambda rows: type(rows).__name__,
)
def test_a_missing_number_is_located(rows):
    message = r"^`x` has 1 value\(s\) that are NaN or infinite, the first at row 2, column 1\. Drop"
    with pytest.raises(ValueError, match=message):
        as_tensor("x", rows)


@pytest.mark.parametrize("rows", [masked(ROWS, 2, 1), list(masked(ROWS, 2, 1))], ids=["", "list"])
def test_a_masked_number_is_located(rows):
    with pytest.raises(
        ValueError, match=r"^`y` has 1 masked value\(s\), .* row 2, column 1\. Drop"
    ):
        as_tensor("y", rows)


DAYS = [[datetime.date(2020, 1, 1)]]
REFUSED = {
    "sparse": (
        lambda: BATCH.to_sparse(),
        "a dense tensor, got one that is sparse: pass `tensor.to_dense",
    ),
    "csr": (lambda: BATCH.to_sparse_csr(), "a dense tensor, got one that is sparse"),
    "mkldnn": (lambda: BATCH.float().to_mkldnn(), "a dense tensor, got one that is sparse"),
    "nested": (
        lambda: torch.nested.nested_tensor([torch.ones(3)] * 4, layout=torch.jagged),
        "a dense tensor, got one that is nested: pad or stack",
    ),
    "meta": (lambda: BATCH.to("meta"), "a dense tensor, got one that is on the meta device"),
    "quantised": (
        lambda: torch.quantize_per_tensor(BATCH.float(), 0.1, 0, torch.qint8),
        "a dense tensor, got one that is quantised: pass `tensor.dequantize()`",
    ),
    "float8": (
        lambda: BATCH.to(torch.float8_e5m2),
        "a dense tensor, got one that is of torch.float8_e5m2",
    ),
    "scipy": (
        lambda: sparse.csr_matrix(ROWS),
        "an array of numbers, got a sparse matrix (csr_matrix)",
    ),
    "coo": (lambda: sparse.coo_array(ROWS), "an array of numbers, got a sparse matrix (coo_array)"),
    "lazy": (
        lambda: pl.DataFrame(FRAME.to_dict("list")).lazy(),
        "got a LazyFrame: pass `x.collect()`",
    ),
    "dataset": (
        lambda: xr.Dataset({"a": ("row", ROWS[:, 0])}),
        "got a Dataset of several variables",
    ),
    "dict": (lambda: {"a": ROWS}, "an array of numbers, got a dict: pass its values"),
    "set": (lambda: {1.0, 2.0}, "an array of numbers, got a set: pass a list"),
    "generator": (
        lambda: (row for row in ROWS),
        "an array of numbers, got a generator: pass a list",
    ),
    "map": (lambda: map(list, ROWS), "an array of numbers, got a map: pass a list"),
    "module": (lambda: nn.Linear(3, 1), "an array of numbers, got a Linear"),
    "text": (
        lambda: FRAME.assign(b="u"),
        "hold numbers, got object (such as 'u') in row 0, column 1.",
    ),
    "category": (
        lambda: FRAME.assign(c=pd.Categorical(list("uvuv"))),
        "hold numbers, got object (such as 'u') in row 0, column 2. Encode it: class labels",
    ),
    "numbers as text": (
        lambda: ROWS.astype(str),
        "hold numbers, got <U32 (such as '0.0') in row 0, col",
    ),
    "days": (
        lambda: DAYS,
        "(such as '2020-01-01') in row 0, column 0. Encode it: times as numbers",
    ),
    "times": (
        lambda: FRAME.assign(a=pd.Timestamp("2020-01-01")),
        "Encode it: times as numbers, such as",
    ),
    "records": (lambda: FRAME.to_records(), "Pass its fields as the columns of an array."),
    "one text in a long list": (lambda: [[0.0, 1.0]] * 40 + [["a", "b"]], "hold numbers, got <U"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_what_is_no_array_of_numbers_is_refused_in_one_short_line(make, message):
    rows = make()
    with pytest.raises(TypeError, match=rf"^`x` must .*{re.escape(message)}") as refused:
        as_tensor("x", rows)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(
    "rows", [[torch.ones(3), torch.ones(2)], [np.ones(3), np.ones(2)], [[1, 2], [3]]]
)
def test_rows_of_different_lengths_are_refused(rows):
    with pytest.raises(ValueError, match=r"^`x` is ragged: its rows differ in length"):
        as_tensor("x", rows)


def test_an_integer_too_large_for_double_precision_is_located():
    with pytest.raises(ValueError, match=r"^`x` holds a number in row 1, column 0 that is too"):
        as_tensor("x", [[1, 2], [10**400, 3]])


@pytest.mark.parametrize("value", [1e39, -1e300])
def test_a_number_too_large_for_the_dtype_is_located(value):
    rows = BATCH.clone()
    rows[3, 2] = value
    message = f"`x` holds {value:g} in row 3, column 2, which is too large for torch.float32"
    with pytest.raises(ValueError, match=re.escape(message)):
        converted("x", rows, torch.float32)
    assert torch.equal(converted("x", rows, torch.float64), rows)


def test_integers_that_lose_digits_are_logged(caplog):
    rows = torch.tensor([[3], [2**24 + 1]])
    converted("x", rows, torch.float32)
    assert [r.getMessage() for r in caplog.records] == [
        "`x` holds integers that torch.float32 rounds, such as 16777217: subtract an offset or "
        "rescale them."
    ]
    caplog.clear()
    converted("x", rows, torch.float64)
    converted("x", rows[:1], torch.float32)
    assert not caplog.records
