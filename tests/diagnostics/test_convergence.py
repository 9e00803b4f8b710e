"""The gain of a longer fit against closed forms; R-hat and ESS of fits that agree or differ."""

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from conjugate import LinearRegression
from support import noisy_sine

from pyrobbb import BayesianNetwork, Posterior, fit, mlp
from pyrobbb.diagnostics import elbo_gain, ess, rhat
from pyrobbb.diagnostics.convergence import elbo_gains

pytestmark = pytest.mark.arviz

X, Y = noisy_sine()


def test_the_gain_of_a_longer_fit_has_a_standard_error(short, good):
    gain = elbo_gain(short, X, Y, seed=0)
    assert gain.matters
    assert gain.gain > 10 * gain.standard_error > 0
    assert gain.epochs == 1000  # steps, of one batch an epoch
    before = short.guide.loc.clone()
    elbo_gain(short, X, Y, seed=0)
    assert torch.equal(short.guide.loc, before)
    assert not elbo_gain(Posterior(good.chains[:1]), X, Y, seed=0).matters


def test_a_fit_at_its_closed_form_optimum_gains_nothing():
    exact = LinearRegression.simulate(n=40, seed=0)
    posterior = fit(exact.network, exact.x, exact.y, epochs=2000, seed=0, progress=False)
    gain = elbo_gain(posterior, exact.x, exact.y, seed=0)
    assert abs(gain.gain) < 0.1
    assert not gain.matters


def test_a_fit_with_a_callable_kl_weight_is_not_continued():
    network = BayesianNetwork(mlp(1, [3], 1, seed=0))
    posterior = fit(
        network, X, Y, kl_weight=lambda batch, m: 0.1 / m, epochs=2, seed=0, progress=False
    )
    with pytest.raises(ValueError, match="a `kl_weight` that is not a callable"):
        elbo_gain(posterior, X, Y)


def test_a_cold_posterior_gains_nothing_at_the_optimum_of_its_objective():
    """In closed form, a KL weight of c is the posterior of each row observed 1 / c times."""
    exact = LinearRegression.simulate(n=40, seed=0)
    posterior = fit(
        exact.network, exact.x, exact.y, kl_weight=0.5, epochs=2000, seed=0, progress=False
    )
    mean, covariance = LinearRegression(*(torch.cat([t, t]) for t in (exact.x, exact.y))).exact()
    scale = torch.linalg.inv(covariance).diagonal().rsqrt()  # the mean-field optimum
    torch.testing.assert_close(posterior.guide.loc.detach(), mean, atol=0.02, rtol=0.02)
    # With each row observed once, the scales would be 1.4 times as large.
    torch.testing.assert_close(posterior.guide.scale.detach(), scale, atol=0.0, rtol=0.15)
    assert abs(elbo_gain(posterior, exact.x, exact.y, seed=0).gain) < 0.1


def test_rhat_compares_functions_of_independent_fits(good, short):
    tree = good.to_arviz(X, Y, n_draws=200, seed=0)
    by_name = rhat(tree)
    assert set(by_name.data_vars) == {"mean"}
    one = tree["posterior"]["mean"].values[:, :, 3]
    assert float(by_name["mean"][3]) == pytest.approx(float(array_stats.rhat(one)))
    single = short.to_arviz(X, Y, n_draws=30, seed=0)
    for measure in (rhat, ess):
        with pytest.raises(ValueError, match="R-hat and ESS compare independent fits"):
            measure(single)


def test_ess_is_the_number_of_draws_if_the_fits_agree(good):
    tree = good.to_arviz(X, Y, n_draws=500, seed=0)
    same = tree["posterior"]["mean"].values.copy()
    same[1] = np.random.default_rng(0).permutation(same[0])
    tree["posterior"]["mean"].values[:] = same
    assert float(ess(tree)["mean"].median()) == pytest.approx(1000, rel=0.2)
    tree["posterior"]["mean"].values[1] += 1.0
    assert float(ess(tree)["mean"].max()) < 20


def test_chains_with_different_settings_are_continued_one_by_one(short):
    network = BayesianNetwork(mlp(1, [20], 1, "tanh", seed=0))
    other = fit(network, X, Y, epochs=50, batch_size=50, lr=0.02, seed=1, progress=False)
    posterior = Posterior(short.chains + other.chains)
    gains = elbo_gains(posterior.chains, X, Y, n_draws=100, seed=0)
    alone = [elbo_gain(part, X, Y, n_draws=100, seed=0) for part in (short, other)]
    assert gains == alone
    assert [gain.epochs for gain in gains] == [1000, 500]
    largest = max(gains, key=lambda gain: gain.gain)
    assert elbo_gain(posterior, X, Y, n_draws=100, seed=0) == largest
