"""Networks with learned prior scales in everything that takes a posterior."""

import math

import numpy as np
import pytest
import torch
from support import X, Y, learned, quick_fit, small_network

from pyrobbb import (
    BayesianNetwork,
    BBBRegressor,
    compare_with_nuts,
    crosscheck,
    from_pyro,
    mlp,
    priors,
    sbc,
)
from pyrobbb.diagnostics import layers
from pyrobbb.plots import plot_weights

PRIOR = priors.ByName({"0.*": priors.ScaleMixture(scale1="learned", scale2=0.1)}, priors.Laplace())
SITES = ["0.weight_scale1", "0.bias_scale1"]


def network():
    return small_network(prior=PRIOR)


@pytest.fixture(scope="module")
def posterior():
    return quick_fit(network(), restarts=2)


def test_draws_and_predictions_are_those_of_the_weights_alone(posterior):
    chain = posterior.chains[0]
    draws = posterior.draws(40, seed=1)
    assert [name for name in draws if name not in dict(chain.network.net.named_parameters())] == [
        *SITES,
        "noise_scale",
    ]
    assert (draws[SITES[0]] > 0).all()
    mean = chain.network.output(draws, torch.as_tensor(X)).mean(0).numpy()
    np.testing.assert_allclose(posterior.predict(X, n_draws=40, seed=1).mean, mean)


def test_log_prior_is_the_joint_density_of_scales_and_weights(posterior):
    chain = posterior.chains[0]
    draws = posterior.draws(4, seed=1)
    expected = torch.distributions.LogNormal(math.log(0.5), 1.0).log_prob(draws["noise_scale"])
    for name, _ in chain.network.bayesian_parameters():
        for i in range(4):
            w = draws[name][i]
            if name.startswith("0."):
                s = draws[f"{name}_scale1"][i]
                components = torch.stack([torch.distributions.Normal(0, s).log_prob(w)] * 2)
                components[1] = torch.distributions.Normal(0, 0.1 * s).log_prob(w)
                expected[i] += (components.logsumexp(0) - math.log(2)).sum()
                expected[i] += torch.distributions.LogNormal(0.0, 1.0).log_prob(s)
            else:
                expected[i] += torch.distributions.Laplace(0.0, 1.0).log_prob(w).sum()
    log_prior = chain.network.log_prior(draws, torch.as_tensor(X))
    torch.testing.assert_close(log_prior, expected)


@pytest.mark.arviz
def test_the_tree_has_scales_in_posterior_and_prior(posterior):
    tree = posterior.to_arviz(X, Y, n_draws=200, seed=0)
    for group in ("posterior", "prior"):
        for site in SITES:
            assert tree[group][site].dims == ("chain", "draw")
    logs = np.log(tree["prior"][SITES[0]].values)
    assert logs.mean() == pytest.approx(0, abs=4 / math.sqrt(logs.size))
    assert np.isfinite(tree["sample_stats"]["lp"].values).all()


@pytest.mark.arviz
def test_a_network_as_a_pyro_model_is_converted(posterior):
    chain = posterior.chains[0]
    tensors = torch.as_tensor(X), torch.as_tensor(Y)
    tree = from_pyro(model=chain.network, guide=chain.guide, args=tensors, num_draws=10)
    assert set(SITES) <= set(tree["posterior"].data_vars)


@pytest.mark.arviz
def test_a_diagnosis_has_all_measurements(posterior):
    assert "nan" not in str(posterior.diagnose(X, Y, n_draws=100, seed=0)).lower()


def test_the_divergence_of_a_layer_is_that_at_the_median_of_its_scale(posterior):
    table = layers(posterior)["kl"]
    chains = []
    for chain in posterior.chains:
        median = float(chain.guide.split(chain.guide.loc.detach())[SITES[0]].exp())
        fixed = BayesianNetwork(chain.network.net, priors.ScaleMixture(0.5, median, 0.1 * median))
        chains.append((chain, fixed))
    expected = []
    for chain, fixed in chains:
        parameter = dict(fixed.bayesian_parameters())["0.weight"]
        loc, scale = (
            chain.guide.split(v.detach())["0.weight"] for v in (chain.guide.loc, chain.guide.scale)
        )
        q = torch.distributions.Normal(loc, scale)
        w = q.sample((4000,))
        base = fixed.prior("0.weight", parameter).base_dist
        expected.append(float((q.log_prob(w) - base.log_prob(w)).mean()))
    assert table["0.weight"] == pytest.approx(np.mean(expected), rel=0.1)


def test_the_prior_of_a_plot_is_averaged_over_the_scale(posterior):
    ax = plot_weights(posterior, "0.weight")
    (line,) = (line for line in ax.lines if line.get_label() == "prior")
    scales = posterior.draws(100, seed=0)[SITES[0]]
    w = torch.as_tensor(line.get_xdata())[:, None]
    densities = [torch.distributions.Normal(0.0, f * scales).log_prob(w).exp() for f in (1, 0.1)]
    np.testing.assert_allclose(line.get_ydata(), sum(densities).mean(1) / 2, rtol=1e-5)


def test_all_routes_of_the_cross_check_agree():
    report = crosscheck(network(), X, Y, n_draws=30, n_steps=5)
    assert report.ok, str(report)
    learned = BayesianNetwork(mlp(3, [4], 1), priors.Normal("learned"))
    report = crosscheck(learned, X, Y, n_draws=30, n_steps=5)
    assert report.ok, str(report)
    assert "it does not implement learned scales" in report.notes[0]


def test_nuts_runs_on_the_same_model(posterior):
    report = compare_with_nuts(
        network(), X, Y, posterior=posterior, n_draws=5, n_warmup=5, n_chains=1, progress=False
    )
    assert set(SITES) <= report.mcmc.keys()


def test_scales_are_ranked_in_simulation_based_calibration():
    ranks = sbc(network(), X, 2, n_draws=5, epochs=1, seed=0, progress=False).ranks
    assert ranks.keys() == {*SITES, "noise_scale", "output", "lp"}


@pytest.mark.parametrize("estimator", ["local", "flipout"])
def test_estimators_with_a_draw_per_row_have_the_same_expected_gradient(estimator):
    """The gradient of a scale does not depend on the rows: it is that of shared draws."""
    fits = [quick_fit(network(), epochs=1, estimator=e) for e in ("reparam", estimator)]
    scales = [
        posterior.guide.split(posterior.guide.loc)[site].detach()
        for posterior in fits
        for site in SITES
    ]
    # The first step has the same noise, and Adam's first step has the size of the learning rate.
    torch.testing.assert_close(scales[:2], scales[2:], rtol=0, atol=0.02)


def test_an_estimator_takes_and_stores_a_prior_with_learned_scales(tmp_path):
    model = BBBRegressor(prior=priors.FanInNormal("learned"), epochs=2, random_state=0)
    model.fit(X, Y[:, 0])
    model.save(tmp_path / "model")
    loaded = BBBRegressor.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert loaded.prior == model.prior


def test_a_warm_start_needs_the_same_scales(posterior):
    quick_fit(network(), start=posterior, epochs=1)
    with pytest.raises(ValueError, match="`start` must have the same sites of the guide"):
        quick_fit(small_network(), start=posterior, epochs=1)
    assert len(learned(posterior.chains[0])[0]) == 12 + 4 + 4 + 1 + 2 + 1
