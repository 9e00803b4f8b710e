"""The diagnosis: each failure that it is for is told as such, and nothing that was not measured."""

import copy
import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from conjugate import LinearRegression
from torch import nn

from pyrobbb import BayesianNetwork, fit, likelihoods, mlp, priors
from pyrobbb.diagnostics.checks import dead_units, diagnose, elbo_gain, ess, layers, rhat

pytestmark = pytest.mark.arviz


def sine(n=100, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (n, 1))
    return x, np.sin(2 * x) + 0.1 * rng.normal(size=x.shape)


X, Y = sine()


@pytest.fixture(scope="module")
def good():
    network = BayesianNetwork(mlp(1, [20], 1, "tanh", seed=0))
    return fit(network, X, Y, restarts=2, seed=0, engine="fused", progress=False)


@pytest.fixture(scope="module")
def collapsed():
    network = BayesianNetwork(mlp(1, [100], 1, seed=0), priors.FanInNormal())
    return fit(network, X, Y, kl_warmup=0.0, seed=0, engine="fused", progress=False)


@pytest.fixture(scope="module")
def short():
    network = BayesianNetwork(mlp(1, [20], 1, "tanh", seed=0))
    return fit(network, X, Y, epochs=200, seed=0, engine="fused", progress=False)


def test_a_good_fit_is_called_good(good):
    diagnosis = good.diagnose(X, Y, n_draws=500, seed=0)
    assert diagnosis.ok
    assert diagnosis["ELBO"].verdict == "good"
    assert diagnosis["fit against a constant"].verdict == "good"
    assert diagnosis["agreement of restarts"].verdict in ("good", "doubtful")
    assert diagnosis["k-hat of the weights"].verdict == "doubtful"
    assert diagnosis["90% intervals"].verdict in ("good", "doubtful")


def test_a_collapsed_posterior_is_told(collapsed):
    diagnosis = diagnose(collapsed, X, Y, n_draws=300, seed=0)
    assert not diagnosis.ok
    for name in ("fit against a constant", "dead hidden units"):
        assert diagnosis[name].verdict == "bad"
        assert "Collapsed" in diagnosis[name].meaning


def test_a_fit_that_was_too_short_is_told(short):
    diagnosis = diagnose(short, X, Y, n_draws=300, seed=0)
    check = diagnosis["ELBO"]
    assert check.verdict == "bad"
    assert "Not converged" in check.meaning
    assert "Fit longer" in check.advice


def test_ratios_that_are_nan_are_told(short):
    broken = copy.deepcopy(short)
    with torch.no_grad():
        broken.guide.loc[0] = math.inf
    diagnosis = diagnose(broken, X, Y, n_draws=100, seed=0)
    assert diagnosis["k-hat of the weights"].verdict == "bad"
    assert diagnosis["PSIS-LOO"].verdict == "not measured"
    assert not diagnosis.ok


def test_nothing_is_said_of_a_single_fits_agreement_with_others(short):
    check = diagnose(short, X, Y, n_draws=100, seed=0)["agreement of restarts"]
    assert check.verdict == "not measured"
    assert "restarts=4" in check.advice


def test_a_posterior_without_a_history_is_not_said_to_have_converged():
    exact = LinearRegression.made(n=40, seed=0)
    diagnosis = diagnose(exact.posterior(), exact.x, exact.y, n_draws=500, seed=0)
    assert diagnosis["ELBO"].verdict == "not measured"
    assert diagnosis["k-hat of the weights"].verdict == "good"
    assert diagnosis["PSIS-LOO"].verdict == "good"
    assert "converged" not in str(diagnosis).replace("Not converged", "")


def test_the_table_has_a_verdict_a_line(short):
    diagnosis = diagnose(short, X, Y, n_draws=100, seed=0)
    table = diagnosis.table
    assert list(table.columns) == ["value", "verdict", "meaning", "advice"]
    verdicts = {"good", "doubtful", "bad", "not measured", "told"}
    assert set(table["verdict"]) <= verdicts
    assert all(table["meaning"].str.endswith((".", "only.")))
    for name in table.index:
        assert name in str(diagnosis)
        assert name in diagnosis._repr_html_()


def test_it_repeats(short):
    one, other = (str(diagnose(short, X, Y, n_draws=100, seed=3)) for _ in range(2))
    assert one == other


def test_test_data_are_scored_in_the_place_of_those_of_the_fit(short):
    diagnosis = diagnose(short, X, Y, test=sine(seed=1), n_draws=100, seed=0)
    assert "(test data)" in diagnosis["90% intervals"].value
    with pytest.raises(ValueError, match="`y` has shape"):
        diagnose(short, X, Y, test=(X, Y[:, 0]), n_draws=100)


def test_classes_are_diagnosed_too():
    labels = (X[:, 0] > 0).astype(int)
    network = BayesianNetwork(mlp(1, [5], 2, seed=0), likelihood=likelihoods.Categorical())
    posterior = fit(network, X, labels, epochs=400, seed=0, engine="fused", progress=False)
    diagnosis = diagnose(posterior, X, labels, n_draws=200, seed=0)
    assert diagnosis["fit against a constant"].verdict == "good"
    assert "Brier" in diagnosis["scores"].value
    assert "calibration of classes" in diagnosis.table.index


def test_the_gain_of_going_on_is_told_with_its_error(short, good):
    gain = elbo_gain(short, X, Y, seed=0)
    assert gain.matters
    assert gain.gain > 10 * gain.standard_error > 0
    assert gain.epochs == 1000  # steps, of one batch an epoch
    before = short.guide.loc.clone()
    elbo_gain(short, X, Y, seed=0)
    assert torch.equal(short.guide.loc, before)
    assert not elbo_gain(good.chains[0], X, Y, seed=0).matters


def test_a_fit_at_its_closed_form_optimum_gains_nothing():
    exact = LinearRegression.made(n=40, seed=0)
    posterior = fit(exact.network, exact.x, exact.y, epochs=2000, seed=0, progress=False)
    gain = elbo_gain(posterior, exact.x, exact.y, seed=0)
    assert abs(gain.gain) < 0.1
    assert not gain.matters


def test_a_cold_posterior_is_not_gone_on_with():
    network = BayesianNetwork(mlp(1, [3], 1, seed=0))
    posterior = fit(
        network, X, Y, kl_weight=lambda batch, m: 0.1 / m, epochs=2, seed=0, progress=False
    )
    with pytest.raises(ValueError, match="a KL weight that is no callable"):
        elbo_gain(posterior, X, Y)


def test_a_colder_fit_gains_nothing_at_the_optimum_of_its_own_objective():
    """By the closed form: a KL weight of c is the posterior of each row seen 1 / c times."""
    exact = LinearRegression.made(n=40, seed=0)
    posterior = fit(
        exact.network, exact.x, exact.y, kl_weight=0.5, epochs=2000, seed=0, progress=False
    )
    mean, covariance = LinearRegression(*(torch.cat([t, t]) for t in (exact.x, exact.y))).exact()
    scale = torch.linalg.inv(covariance).diagonal().rsqrt()  # the mean-field optimum
    torch.testing.assert_close(posterior.guide.loc.detach(), mean, atol=0.02, rtol=0.02)
    # With each row seen once they would be 1.4 times as large.
    torch.testing.assert_close(posterior.guide.scale.detach(), scale, atol=0.0, rtol=0.15)
    assert abs(elbo_gain(posterior, exact.x, exact.y, seed=0).gain) < 0.1


@pytest.mark.parametrize(
    "prior",
    [
        priors.Normal(0.7),
        priors.FanInNormal(),
        priors.ScaleMixture(0.5, 1.0, 0.1),
        priors.Laplace(0.5),
    ],
)
def test_the_kl_divergence_of_a_layer_is_that_of_its_weights(prior):
    network = BayesianNetwork(mlp(2, [4], 1, seed=0), prior)
    posterior = fit(network, np.ones((10, 2)), np.ones((10, 1)), epochs=20, seed=0, progress=False)
    table = layers(posterior)
    assert list(table.index) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    loc, scale = (
        posterior.guide.split(v.detach().double())
        for v in (posterior.guide.loc, posterior.guide.scale)
    )
    for name, parameter in posterior.network.bayesian_parameters():
        q = dist.Normal(loc[name], scale[name])
        draws = q.sample((20_000,))
        base = prior(name, parameter.double()).base_dist
        ratios = q.log_prob(draws) - base.log_prob(draws)
        error = float(ratios.mean(tuple(range(1, ratios.dim()))).std() / 20_000**0.5)
        assert table.loc[name, "kl"] == pytest.approx(float(ratios.mean()), abs=5 * error + 2e-3)
        snr = loc[name].abs() / scale[name]
        assert table.loc[name, "snr"] == pytest.approx(float(snr.median()), rel=1e-6)
        assert table.loc[name, "below_1"] == pytest.approx(float((snr < 1).double().mean()))


def test_weights_at_the_prior_are_counted():
    network = BayesianNetwork(mlp(2, [4], 1, seed=0), priors.Normal(1.0))
    posterior = fit(network, np.ones((5, 2)), np.ones((5, 1)), epochs=1, seed=0, progress=False)
    with torch.no_grad():
        posterior.guide.loc[:8] = 0.0
        posterior.guide.rho[:8] = math.log(math.e - 1)  # scale 1
        posterior.guide.rho[8:] = -5.0
    table = layers(posterior)
    assert list(table["at_prior"]) == [1.0, 0.0, 0.0, 0.0]
    assert table.loc["0.weight", "kl"] == pytest.approx(0, abs=1e-6)


def test_units_are_dead_if_nothing_they_pass_on_stands_out_of_its_noise():
    network = BayesianNetwork(mlp(2, [4], 3, seed=0), priors.Normal(1.0))
    posterior = fit(network, np.ones((5, 2)), np.ones((5, 3)), epochs=1, seed=0, progress=False)
    with torch.no_grad():
        loc = posterior.guide.split(posterior.guide.loc)["2.weight"]
        posterior.guide.rho.fill_(-3.0)
        loc.fill_(0.0)
        loc[1, 2] = 0.5  # one outgoing weight of one of four units
    assert dead_units(posterior) == 0.75
    single = BayesianNetwork(nn.Linear(2, 1))
    fitted = fit(single, np.ones((5, 2)), np.ones((5, 1)), epochs=1, seed=0, progress=False)
    assert dead_units(fitted) is None


def test_rhat_is_that_of_functions_and_only_between_fits(good, short):
    import arviz_stats

    tree = good.to_arviz(X, Y, n_draws=200, seed=0)
    found = rhat(tree)
    assert set(found.data_vars) == {"mean"}
    one = tree["posterior"]["mean"].values[:, :, 3]
    from arviz_stats.base import array_stats

    assert float(found["mean"][3]) == pytest.approx(float(array_stats.rhat(one)))
    assert arviz_stats
    single = short.to_arviz(X, Y, n_draws=30, seed=0)
    for measure in (rhat, ess):
        with pytest.raises(ValueError, match="R-hat and ESS say something on independent fits"):
            measure(single)


def test_the_draws_of_fits_that_agree_are_worth_their_number(good):
    tree = good.to_arviz(X, Y, n_draws=500, seed=0)
    same = tree["posterior"]["mean"].values.copy()
    same[1] = np.random.default_rng(0).permutation(same[0])
    tree["posterior"]["mean"].values[:] = same
    assert float(ess(tree)["mean"].median()) == pytest.approx(1000, rel=0.2)
    tree["posterior"]["mean"].values[1] += 1.0  # and those of fits that do not, little
    assert float(ess(tree)["mean"].max()) < 20
