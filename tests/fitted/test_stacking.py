"""Stacking weights, and the draws that each chain gets by them."""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp
from support import X, Y, quick_fit, shared_fit

from pyrobbb import Posterior, fit, stack, update
from pyrobbb.fitted.stacking import PRIOR_ROWS, mixture_log_density, share_draws, stacking_weights

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n_chains", [2, 3, 5])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_the_weights_maximise_the_penalised_log_density(n_chains, is_weighted):
    log_density = 2 * RNG.normal(size=(n_chains, 12))
    row_weight = RNG.uniform(0.5, 3, 12) if is_weighted else np.ones(12)

    def objective(logits):
        log_w = log_softmax(np.append(logits, 0.0))
        of_rows = logsumexp(log_density + log_w[:, None], axis=0)
        return -(row_weight @ of_rows + PRIOR_ROWS * log_w.sum())

    best = minimize(objective, np.zeros(n_chains - 1), tol=1e-12).x
    expected = np.exp(log_softmax(np.append(best, 0.0)))
    actual = stacking_weights(log_density, row_weight if is_weighted else None)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_a_chain_that_predicts_no_row_has_the_weight_of_the_prior():
    log_density = np.array([[-1.0] * 10, [-5_000.0] * 10])
    expected = np.array([10 + PRIOR_ROWS, PRIOR_ROWS]) / (10 + 2 * PRIOR_ROWS)
    np.testing.assert_allclose(stacking_weights(log_density), expected)


def test_chains_that_predict_alike_have_equal_weights():
    log_density = np.tile(RNG.normal(size=7), (4, 1))
    np.testing.assert_allclose(stacking_weights(log_density), 0.25)


def test_the_log_density_of_a_mixture_is_that_of_its_parts():
    densities, weights = RNG.uniform(size=(3, 5)), np.array([1.0, 2.0, 5.0])
    expected = np.log((weights[:, None] * densities).sum(0) / 8)
    np.testing.assert_allclose(mixture_log_density(np.log(densities), weights), expected)


@pytest.mark.parametrize("n", [1, 2, 7, 200, 1001])
def test_draws_are_shared_in_proportion_to_the_weights(n):
    for n_chains in (2, 3, 4, 6):
        weights = RNG.dirichlet(np.ones(n_chains))
        sizes = share_draws(n, weights)
        assert sum(sizes) == n
        assert np.abs(sizes - n * weights).max() < 1
        equally = [len(part) for part in np.array_split(np.arange(n), n_chains)]
        assert share_draws(n, np.full(n_chains, 1 / n_chains)) == equally


@pytest.fixture(scope="module")
def stacked():
    """Three chains, the second of which has fitted other targets, weighted by the rows."""
    chains = (*shared_fit(restarts=2).chains, *quick_fit(y=-20 * Y, epochs=400).chains)
    return stack(Posterior((chains[0], chains[2], chains[1])), X, Y, seed=0)


def test_a_chain_that_predicts_badly_has_little_weight(stacked):
    weights = [chain.settings["stacking_weight"] for chain in stacked.chains]
    assert np.mean(weights) == pytest.approx(1, abs=1e-3)
    assert weights[1] < 0.6 < min(weights[0], weights[2])


def test_predictions_are_shared_among_the_chains(stacked):
    sizes = [source.n_draws for source in stacked.sources(100, 0)]
    weights = np.array([chain.settings["stacking_weight"] for chain in stacked.chains])
    assert np.abs(sizes - 100 * weights / weights.sum()).max() < 1
    alone = [Posterior((chain,)).predict(X, 4_000, seed=1).mean for chain in stacked.chains]
    expected = np.tensordot(weights / weights.sum(), alone, 1)
    np.testing.assert_allclose(stacked.predict(X, 20_000, seed=2).mean, expected, atol=0.1)


@pytest.mark.parametrize("weights", [(0.0, 2.0), (2.0, 0.0)])
def test_a_chain_whose_weight_is_rounded_to_0_has_no_draws(weights):
    chains = weighted_chains(weights)
    (source,) = Posterior(chains).sources(7, 0)
    assert source.n_draws == 7
    assert source.guide is chains[int(np.argmax(weights))].guide


@pytest.mark.parametrize("weights", [(0.0, 0.0), (None, None)])
def test_chains_without_weights_have_equally_many_draws(weights):
    assert [s.n_draws for s in Posterior(weighted_chains(weights)).sources(10, 0)] == [5, 5]


def weighted_chains(weights):
    """Return chains of the same fit with the given stacking weights."""
    return tuple(
        dataclasses.replace(c, settings=dataclasses.replace(c.settings, stacking_weight=weight))
        for c, weight in zip(shared_fit(restarts=2).chains, weights, strict=True)
    )


def test_weights_are_stored(stacked, tmp_path):
    stacked.save(tmp_path / "posterior")
    loaded = Posterior.load(tmp_path / "posterior")
    for chain, other in zip(stacked.chains, loaded.chains, strict=True):
        assert chain.settings["stacking_weight"] == other.settings["stacking_weight"]
    np.testing.assert_array_equal(loaded.predict(X, seed=1).mean, stacked.predict(X, seed=1).mean)


def test_further_fits_keep_the_weights(stacked):
    before = [chain.settings["stacking_weight"] for chain in stacked.chains]
    options = {"epochs": 2, "batch_size": 10, "engine": "fused", "seed": 0, "progress": False}
    further = fit(stacked.chains[0].network, X, Y, start=stacked, kl_warmup=0, **options)
    for posterior in (further, update(stacked, X, Y, **options)):
        assert [chain.settings["stacking_weight"] for chain in posterior.chains] == before


def test_a_summary_weights_the_chains(stacked):
    table = stacked.summary("0.bias", n_draws=3_000, seed=0)
    draws = stacked.draws(3_000, seed=0)["0.bias"].numpy()
    np.testing.assert_allclose(table["mean"], draws.mean(0), rtol=1e-6)
    assert len(stacked.summary(n_draws=6, seed=0)) == len(stacked.draws(1))


def test_a_datatree_has_equally_many_draws_and_the_weights(stacked):
    tree = stacked.to_arviz(X, Y, n_draws=5, seed=0)
    assert dict(tree["posterior"].sizes)["draw"] == 5
    weights = [chain.settings["stacking_weight"] for chain in stacked.chains]
    np.testing.assert_allclose(tree.attrs["stacking_weight"], weights)


def test_a_single_chain_cannot_be_stacked():
    with pytest.raises(ValueError, match="`posterior` must have several chains to weight, got one"):
        stack(shared_fit(), X, Y)
