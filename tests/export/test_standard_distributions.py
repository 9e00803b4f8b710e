"""Fitted distribution functions and quantiles of mixtures, compared with SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from pyrobbb.export.mixture_quantiles import location_scale_quantiles
from pyrobbb.export.standard_distributions import standard_normal, student_t

FAMILIES = {
    "normal": (lambda: standard_normal(fitted=True), stats.norm()),
    "torch's normal": (lambda: standard_normal(fitted=False), stats.norm()),
    **{f"t {df}": (lambda df=df: student_t(df), stats.t(df)) for df in (2.1, 3.0, 4.0, 7.5, 60.0)},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_distribution_functions_are_those_of_scipy(name):
    made, expected = FAMILIES[name]
    standard, z = made(), np.linspace(-8, 8, 1001)
    cdf, density = (f(torch.as_tensor(z)).numpy() for f in (standard.cdf, standard.density))
    np.testing.assert_allclose(cdf, expected.cdf(z), rtol=1e-8, atol=1e-16)
    np.testing.assert_allclose(density, expected.pdf(z), rtol=1e-10)
    assert standard.quantile(0.01) == pytest.approx(expected.ppf(0.01))


def test_tails_that_cannot_be_fitted_are_refused():
    with pytest.raises(NotImplementedError, match="1000 degrees"):
        student_t(1000.0)


@pytest.mark.parametrize("name", ["normal", "t 4.0"])
def test_quantiles_of_mixtures_solve_the_equation_also_far_from_the_start(name):
    made, expected = FAMILIES[name]
    rng = np.random.default_rng(0)
    loc, scale = rng.normal(size=(9, 5)), rng.uniform(0.1, 2, (9, 5))
    loc[0], scale[0] = 1e4, 1e3  # one draw with another opinion
    scale[:, 1] = 1e-3  # several modes
    levels = [1e-4, 0.05, 0.5, 0.95, 1 - 1e-6]
    found = location_scale_quantiles(made(), torch.tensor(loc), torch.tensor(scale), levels)
    for row in range(5):
        for level, value in zip(levels, found[:, row].tolist(), strict=True):

            def excess(v, row=row, level=level):
                return expected.cdf((v - loc[:, row]) / scale[:, row]).mean() - level

            root = optimize.brentq(excess, -1e6, 1e6, xtol=1e-13, rtol=1e-14)
            assert math.isclose(value, root, rel_tol=1e-6, abs_tol=1e-6)
