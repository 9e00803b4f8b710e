"""k-hat of known ratios, and leave-one-out densities against a closed form."""

import math

import numpy as np
import pytest
import torch
from conjugate import LinearRegression

from pyrobbb.diagnostics.importance import (
    khat_of_chains,
    khat_threshold,
    log_ratios,
    loo,
    pareto_khat,
)

pytestmark = pytest.mark.arviz


@pytest.mark.parametrize(("n", "error"), [(1_000, 0.1), (10_000, 0.05), (100_000, 0.03)])
def test_khat_of_a_pareto_tail_tends_to_its_shape(n, error):
    rng = np.random.default_rng(0)
    # Ratios U^-0.5 have a Pareto tail of shape 1/2.
    fits = [pareto_khat(-0.5 * np.log(rng.uniform(size=n))) for _ in range(20)]
    assert np.mean([fit.khat for fit in fits]) == pytest.approx(0.5, abs=error)
    assert np.logaddexp.reduce(fits[0].log_weights) == pytest.approx(0, abs=1e-9)


def test_khat_does_not_depend_on_a_constant():
    ratios = -0.4 * np.log(np.random.default_rng(0).uniform(size=500))
    moved = pareto_khat(ratios + 12_345.0)
    assert moved.khat == pytest.approx(pareto_khat(ratios).khat, abs=1e-6)


@pytest.mark.parametrize("sd", [60.0, 400.0, 5_000.0])
def test_extreme_ratios_never_have_a_good_khat(sd):
    fit = pareto_khat(sd * np.random.default_rng(0).normal(size=1000))
    assert fit.khat > 0.7
    assert not fit.ok


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e13])
def test_ratios_that_are_not_finite_or_too_large_have_an_infinite_khat(bad):
    ratios = np.zeros(100)
    ratios[3] = bad
    fit = pareto_khat(ratios)
    assert fit.khat == math.inf
    assert np.isnan(fit.log_weights).all()


def test_khat_of_equal_ratios_is_minus_infinity():
    fit = pareto_khat(torch.full((50,), 7.0))
    assert fit.khat == -math.inf
    assert fit.ok
    assert np.exp(fit.log_weights).sum() == pytest.approx(1)


def test_a_tail_of_equal_values_has_no_good_khat():
    ratios = np.zeros(1000)
    ratios[:400] = 5.0
    assert not pareto_khat(ratios).ok


def test_too_few_draws_raise():
    with pytest.raises(ValueError, match="`log_ratios` needs at least 25 draws, got 24"):
        pareto_khat(np.zeros(24))


@pytest.mark.parametrize(("n", "threshold"), [(100, 0.5), (1000, 2 / 3), (10**6, 0.7)])
def test_the_threshold_is_that_of_vehtari_et_al(n, threshold):
    assert khat_threshold(n) == pytest.approx(threshold)


@pytest.fixture(scope="module")
def exact():
    return LinearRegression.simulate(n=40, seed=0)


def test_an_exact_posterior_has_a_small_khat(exact):
    tree = exact.posterior().to_arviz(exact.x, exact.y, n_draws=1000, seed=0)
    (fit,) = khat_of_chains(tree)
    assert fit.khat < 0.3
    log_evidence = tree["sample_stats"]["log_weight"].values
    np.testing.assert_allclose(log_evidence, exact.log_evidence(), atol=1e-6)


def test_log_ratios_agree_with_those_of_the_tree(exact):
    posterior = exact.posterior(width=1.3)
    tree = posterior.to_arviz(exact.x, exact.y, n_draws=50, seed=2)
    ratios = log_ratios(posterior.chains, exact.x, exact.y, n_draws=50, seed=2)
    np.testing.assert_allclose(ratios, tree["sample_stats"]["log_weight"].values[0], rtol=1e-12)


@pytest.mark.parametrize("width", [1.0, 1.2, 1.6])
def test_loo_agrees_with_the_exact_leave_one_out_density(exact, width):
    # The weights correct a posterior that is wider than the exact one.
    posterior = exact.posterior(width=width)
    tree = posterior.to_arviz(exact.x, exact.y, n_draws=4000, seed=0)
    estimate = loo(tree)
    np.testing.assert_allclose(estimate.elpd_i, exact.loo(), atol=0.12)
    # The error of the sum is far below its standard error over rows.
    assert estimate.elpd == pytest.approx(exact.loo().sum(), abs=0.3)
    assert estimate.n_data_points == 40


def test_loo_without_the_correction_is_wrong_for_a_posterior_that_is_too_wide(exact):
    import arviz_stats

    tree = exact.posterior(width=3.0).to_arviz(exact.x, exact.y, n_draws=4000, seed=0)
    with pytest.warns(UserWarning, match="Pareto"):
        plain = arviz_stats.loo(tree, reff=1.0)
    corrected = abs(loo(tree).elpd - exact.loo().sum())
    assert corrected < 0.5 * abs(plain.elpd - exact.loo().sum())


def test_a_tree_without_log_weights_raises(exact):
    tree = exact.posterior().to_arviz(exact.x, exact.y, n_draws=30, seed=0)
    del tree["sample_stats"]
    with pytest.raises(ValueError, match="`tree` has no `log_weight` in the group `sample_stats`"):
        loo(tree)


def test_rows_whose_ratios_are_nan_have_an_infinite_khat(exact):
    tree = exact.posterior().to_arviz(exact.x, exact.y, n_draws=100, seed=0)
    tree["log_likelihood"]["y"][0, 5, 3] = np.nan
    with pytest.warns(UserWarning, match="Pareto"):
        estimate = loo(tree)
    assert estimate.pareto_k.values[3] == math.inf
    assert np.isfinite(np.delete(estimate.pareto_k.values, 3)).all() or (
        estimate.pareto_k.values[0] == -math.inf
    )
