"""Standardizer, also with columns that must not be divided by their standard deviation."""

import numpy as np
import pytest
import torch

from pyrobbb import Standardizer


def test_columns_have_mean_0_and_standard_deviation_1():
    x = np.random.default_rng(0).normal([5.0, -3.0], [10.0, 0.01], size=(200, 2))
    z = Standardizer.of(x).transform(x)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(z.std(0), 1)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e8 + 0.1, 1e-300, -7.3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_column_stays_finite_although_its_computed_sd_is_not_0(value, dtype):
    """The computed mean of n times 0.1 is not 0.1, so that the computed sd is 1e-17."""
    x = np.full((1003, 1), value, dtype=dtype)
    scaling = Standardizer.of(x)
    assert float(scaling.scale) == 1
    assert np.abs(scaling.transform(x)).max() <= 1e-6 * max(abs(value), 1)
    assert float(scaling.transform(x + dtype(1))[0, 0]) == pytest.approx(1, abs=10)


def test_a_column_constant_up_to_rounding_is_constant():
    x = np.full((100, 1), 0.3)
    x[::2] = np.nextafter(0.3, 1)
    assert float(Standardizer.of(x).scale) == 1


def test_a_column_with_a_small_standard_deviation_is_scaled():
    x = 1 + 1e-9 * np.random.default_rng(0).normal(size=(100, 1))
    assert float(Standardizer.of(x).scale) == pytest.approx(1e-9, rel=0.3)


def test_single_precision_is_kept():
    x = torch.randn(10, 3)
    scaling = Standardizer.of(x)
    assert scaling.transform(x).dtype == scaling.inverse(x).dtype == torch.float32


def test_inverse_undoes_transform_and_keeps_the_type():
    x = torch.randn(10, 3, dtype=torch.float64) * 4 + 2
    scaling = Standardizer.of(x)
    torch.testing.assert_close(scaling.inverse(scaling.transform(x)), x)
    assert isinstance(scaling.transform(x.numpy()), np.ndarray)


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1.0, 1e160, 1e300])
def test_columns_whose_squares_overflow_or_underflow_are_scaled(size):
    x = size * np.random.default_rng(0).normal(3, 2, size=(100, 1))
    z = Standardizer.of(x).transform(x)
    np.testing.assert_allclose([z.mean(), z.std()], [0, 1], atol=1e-12)


def test_a_huge_column_constant_up_to_rounding_becomes_small():
    x = np.full((100, 1), 1e300)
    x[::2] = np.nextafter(1e300, 2e300)
    assert np.abs(Standardizer.of(x).transform(x)).max() <= 1


def test_a_weighted_row_equals_repeated_rows():
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(30, 2)), rng.integers(0, 4, size=30)
    weighted, repeated = Standardizer.of(x, weight), Standardizer.of(np.repeat(x, weight, axis=0))
    torch.testing.assert_close(weighted.loc, repeated.loc)
    torch.testing.assert_close(weighted.scale, repeated.scale)
