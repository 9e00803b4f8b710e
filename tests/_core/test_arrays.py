"""Conversion of arrays of every type to tensors, and messages about invalid data."""

import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pyrobbb._core.arrays import as_tensor, check_count, check_number, check_positive, like

reproducibly = settings(max_examples=150, deadline=None, derandomize=True)
SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, max_side=4)
DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?"),
)
VIEWS = {
    "whole": lambda a: a,
    "reversed": lambda a: a[::-1],
    "last dimension reversed": lambda a: a[..., ::-1],
    "transposed": lambda a: a.T,
    "every other row": lambda a: a[::2],
    "Fortran order": np.asfortranarray,
    "one row repeated": lambda a: np.broadcast_to(a[:1], a.shape),
}


@st.composite
def finite_arrays(draw):
    dtype = draw(DTYPES)
    elements = {}
    if dtype.kind == "f":
        elements = {"allow_nan": False, "allow_infinity": False}
    elif dtype.kind == "u" and dtype.itemsize == 8:
        elements = {"max_value": 2**63 - 1}
    return draw(hnp.arrays(dtype, SHAPES, elements=elements))


@reproducibly
@given(finite_arrays(), st.sampled_from(sorted(VIEWS)), st.booleans())
def test_values_and_shape_are_kept_and_the_input_is_unchanged(whole, view, writeable):
    array = VIEWS[view](whole)
    if not writeable:
        array.flags.writeable = False
    before = array.copy()
    tensor = as_tensor("x", array)
    np.testing.assert_array_equal(tensor.numpy(), before)
    tensor.zero_()
    np.testing.assert_array_equal(array, before)


@reproducibly
@given(finite_arrays())
def test_the_dtype_is_kept_unless_torch_has_few_operations_for_it(array):
    wide_unsigned = array.dtype.kind == "u" and array.dtype.itemsize > 1
    expected = np.int64 if wide_unsigned else array.dtype.newbyteorder("=")
    assert as_tensor("x", array).numpy().dtype == expected


@reproducibly
@given(hnp.arrays(np.float64, SHAPES, elements=st.floats(-1e6, 1e6)))
def test_nested_lists_equal_the_array(array):
    tensor = as_tensor("x", array.tolist())
    torch.testing.assert_close(tensor, torch.from_numpy(array), rtol=0, atol=0)


@reproducibly
@given(
    hnp.arrays(np.float32, SHAPES, elements=st.floats(-10, 10, width=32)),
    st.sampled_from([np.nan, np.inf, -np.inf]),
    st.data(),
)
def test_the_first_non_finite_value_is_located_and_all_are_counted(array, bad, data):
    places = st.lists(st.integers(0, array.size - 1), min_size=1, unique=True)
    where = data.draw(places)
    array.flat[where] = bad
    row, *column = np.unravel_index(min(where), array.shape)
    position = f"row {row}" + (f", column {', '.join(map(str, column))}" if column else "")
    message = (
        f"`x` has {len(where)} value(s) that are NaN or infinite, the first at {position}. Drop"
    )
    for values in (array, torch.from_numpy(array), array.tolist()):
        with pytest.raises(ValueError, match=re.escape(message)):
            as_tensor("x", values)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(3, 2, dtype=torch.bfloat16),
        torch.arange(6).reshape(3, 2).T,
        torch.ones(2, dtype=torch.bool),
    ],
)
def test_a_tensor_is_returned_unchanged(tensor):
    assert as_tensor("x", tensor) is tensor


def test_a_tensor_of_a_graph_is_detached():
    leaf = torch.ones(3, requires_grad=True)
    for tensor in (leaf, 2 * leaf):
        detached = as_tensor("x", tensor)
        assert not detached.requires_grad
        assert detached.data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize(
    ("frame", "dtype", "values"),
    [
        (pd.DataFrame({"a": [1, 2], "b": [1.5, 2.5]}), torch.float64, [[1, 1.5], [2, 2.5]]),
        (pd.DataFrame({"a": [1, 2], "b": [True, False]}), torch.float64, [[1, 1], [2, 0]]),
        (pd.DataFrame({"a": [1, 2]}, index=["u", "v"]), torch.int64, [[1], [2]]),
        (pd.Series([0.5, 1.5], dtype="float32"), torch.float32, [0.5, 1.5]),
        (pd.Series([1, 2], dtype="Int64"), torch.int64, [1, 2]),
        (pd.DataFrame({"a": [1], "b": [0.5]}).astype({"a": "Int64"}), torch.float64, [[1, 0.5]]),
        (pd.Series([3, 4], dtype="category"), torch.int64, [3, 4]),
    ],
)
def test_pandas_frames_and_series_are_converted(frame, dtype, values):
    torch.testing.assert_close(as_tensor("x", frame), torch.tensor(values, dtype=dtype))


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (np.array([65535, 1], dtype=np.uint16), [65535, 1]),
        (np.array([1, 258], dtype=">i2"), [1, 258]),
        (np.array([1, 258], dtype=">u2"), [1, 258]),
        (np.array([0.5, 1e30], dtype=">f8"), [0.5, 1e30]),
        (np.array([1, 2.5, True], dtype=object), [1, 2.5, 1]),
        (np.array([Decimal("1.5"), Fraction(1, 4)], dtype=object), [1.5, 0.25]),
        (np.array([0.5, -2], dtype=np.longdouble), [0.5, -2]),
        (range(3), [0, 1, 2]),
        ((2, 3), [2, 3]),
        ([np.array([1.0, 2.0]), np.array([3.0, 4.0])], [[1, 2], [3, 4]]),
        ([torch.tensor([1.0]), torch.tensor([3.0])], [[1], [3]]),
    ],
    ids=str,
)
def test_other_containers_of_numbers_are_converted(values, numbers):
    assert as_tensor("x", values).tolist() == numbers


@pytest.mark.parametrize(
    ("values", "example"),
    [
        (["a", "b"], "a"),
        ("abc", "abc"),
        ([1.0, "b"], "1.0"),
        (np.array([1, "b"], dtype=object), "b"),
        (np.array(["1", "2"], dtype=object), "1"),
        (np.array([b"1"]), "b'1'"),
        ([1j], "1j"),
        (np.array([2, 1j], dtype=object), "1j"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "2020-01-01"),
        (np.array([3], dtype="timedelta64[s]"), "3 seconds"),
        (pd.DataFrame({"a": [1, 2], "b": ["u", "v"]}), "u"),
        (pd.DataFrame({"a": ["1", "2"]}), "1"),
        (pd.Series(["u", "v"], dtype="category"), "u"),
    ],
    ids=repr,
)
def test_values_that_are_not_numbers_raise_with_an_example(values, example):
    such = re.escape(repr(example))
    message = rf"`x` must hold numbers, got .* \(such as {such}\)( in row .*)?\. Encode it"
    with pytest.raises(TypeError, match=message):
        as_tensor("x", values)


def test_none_raises():
    with pytest.raises(TypeError, match="`y` must be an array of numbers, got None"):
        as_tensor("y", None)


@pytest.mark.parametrize("values", [[1.0, None], pd.Series([1, None], dtype="Int64")])
def test_missing_values_are_located(values):
    with pytest.raises(ValueError, match=r"1 value\(s\) that are NaN or infinite.* at row 1\."):
        as_tensor("x", values)


def test_complex_tensors_raise():
    with pytest.raises(TypeError, match=r"`x` must hold real numbers, got torch\.complex64"):
        as_tensor("x", torch.tensor([1j]))


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        ([], (0,)),
        (np.zeros((0, 3)), (0, 3)),
        (np.zeros((3, 0)), (3, 0)),
        (torch.zeros(0, 2), (0, 2)),
        (pd.DataFrame({"a": []}), (0, 1)),
    ],
    ids=repr,
)
def test_an_empty_array_raises(values, shape):
    with pytest.raises(ValueError, match=re.escape(f"`x` is empty: it has shape {shape}. Pass")):
        as_tensor("x", values)


@pytest.mark.parametrize("value", [3.5, np.float32(3.5), np.array(3.5), torch.tensor(3.5)])
def test_a_single_number_raises(value):
    with pytest.raises(ValueError, match=r"`x` must have a row per observation, got .*3\.5"):
        as_tensor("x", value)


def test_ragged_rows_raise():
    with pytest.raises(ValueError, match="`x` is ragged: its rows differ in length"):
        as_tensor("x", [[1.0, 2.0], [3.0]])


def test_an_unsigned_integer_beyond_int64_raises():
    values = np.array([1, 2**63], dtype=np.uint64)
    with pytest.raises(ValueError, match="`x` holds 9223372036854775808, which is too large"):
        as_tensor("x", values)


@pytest.mark.parametrize("value", [1, 0.5, -2.0, np.float32(3), np.int8(4), Fraction(1, 3)])
def test_check_number_accepts_finite_numbers(value):
    assert check_number("scale", value) is None


@pytest.mark.parametrize("value", [True, "1", None, [1.0], 1j, np.bool_(True), torch.tensor(1.0)])
@pytest.mark.parametrize("check", [check_number, check_positive])
def test_check_number_reports_a_value_that_is_not_a_number(check, value):
    message = re.escape(f"`scale` must be a number, got {value!r}.")
    with pytest.raises(TypeError, match=message):
        check("scale", value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float32("nan")])
@pytest.mark.parametrize("check", [check_number, check_positive])
def test_check_number_reports_a_number_that_is_not_finite(check, value):
    with pytest.raises(ValueError, match=f"`scale` must be finite, got {value}"):
        check("scale", value)


@pytest.mark.parametrize("value", [0, 0.0, -1e-9])
def test_check_positive_raises_for_zero_and_negative_numbers(value):
    with pytest.raises(ValueError, match=f"`scale` must be positive, got {value}"):
        check_positive("scale", value)


@pytest.mark.parametrize(("value", "least"), [(1, 1), (np.int64(3), 1), (0, 0)])
def test_check_count_accepts_integers(value, least):
    assert check_count("n_draws", value, least=least) is None


@pytest.mark.parametrize(("value", "least"), [(0, 1), (-1, 0), (1, 2)])
def test_check_count_raises_below_the_minimum(value, least):
    with pytest.raises(ValueError, match=f"`n_draws` must be at least {least}, got {value}"):
        check_count("n_draws", value, least=least)


@pytest.mark.parametrize("value", [1.0, True, "2", None, np.float64(2)])
def test_check_count_raises_for_other_types(value):
    message = re.escape(f"`n_draws` must be a whole number, got {value!r}.")
    with pytest.raises(TypeError, match=message):
        check_count("n_draws", value)


@pytest.mark.parametrize(
    ("original", "kind"),
    [(torch.ones(1), torch.Tensor), (np.ones(1), np.ndarray), ([1.0], np.ndarray)],
)
def test_results_have_the_array_type_of_the_input_and_are_detached(original, kind):
    result = like(original, torch.ones(2, requires_grad=True) * 3)
    assert isinstance(result, kind)
    assert result.tolist() == [3, 3]
    assert not getattr(result, "requires_grad", False)
