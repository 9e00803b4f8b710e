"""Updating: the posterior of earlier rows as the prior of further rows."""

import copy

import pytest
import torch
from conjugate import LinearRegression
from support import X, Y, assert_same_fit, shared_fit

from pyrobbb import BayesianNetwork, MeanFieldGuide, fit, likelihoods, mlp, priors, prune, update
from pyrobbb.posterior.updating import as_prior

OPTIONS = {"seed": 0, "progress": False}


@pytest.fixture(scope="module")
def halves():
    """Return two sets of rows with orthogonal columns, for which mean field is exact."""
    made = LinearRegression.simulate(n=40, seed=1)
    parts = []
    for rows in (slice(0, 20), slice(20, 40)):
        with_ones = torch.cat([torch.ones(20, 1).double(), made.x[rows]], 1)
        q, _ = torch.linalg.qr(with_ones)  # its first column is constant
        x = 20**0.5 * q[:, 1:]
        noise = made.y[rows] - made.y[rows].mean()
        parts.append(LinearRegression(x, x @ torch.tensor([[1.0], [-0.5], [0.2]]).double() + noise))
    return parts


def test_update_with_the_second_half_is_the_posterior_of_all_rows(halves):
    first, second = halves
    both = LinearRegression(torch.cat([first.x, second.x]), torch.cat([first.y, second.y]))
    mean, covariance = both.exact()
    torch.testing.assert_close(covariance, covariance.diagonal().diag(), atol=1e-9, rtol=0)
    posterior = fit(first.network, first.x, first.y, epochs=4000, **OPTIONS)
    posterior = update(posterior, second.x, second.y, epochs=4000, **OPTIONS)
    torch.testing.assert_close(posterior.guide.loc.detach(), mean, atol=0.02, rtol=0)
    sd = covariance.diagonal().sqrt()
    torch.testing.assert_close(posterior.guide.scale.detach(), sd, atol=0, rtol=0.15)
    alone = LinearRegression(second.x, second.y).exact()[1].diagonal().sqrt()
    assert (alone / sd > 1.3).all()  # those of a fit to the second half alone


def test_update_keeps_the_prior_and_does_not_change_the_posterior(halves):
    first, second = halves
    posterior = fit(first.network, first.x, first.y, epochs=5, restarts=2, **OPTIONS)
    before = copy.deepcopy([chain.guide.state_dict() for chain in posterior.chains])
    later = update(posterior, second.x, second.y, epochs=5, **OPTIONS)
    for chain in (*later.chains, *posterior.chains):
        assert chain.network.prior == priors.Normal(1.0)
    assert len(later.chains) == 2
    for chain, state in zip(posterior.chains, before, strict=True):
        torch.testing.assert_close(chain.guide.state_dict(), state, atol=0, rtol=0)


def test_learned_scales_keep_their_posterior_in_an_update(tmp_path):
    prior = priors.ByName({"0.weight": priors.Normal("learned")}, default=priors.Normal())
    network = BayesianNetwork(mlp(3, [4], 1, seed=0).double(), prior)
    posterior = fit(network, X, Y, epochs=5, restarts=2, **OPTIONS)
    later = update(posterior, X, Y, epochs=5, **OPTIONS)
    for before, after in zip(posterior.chains, later.chains, strict=True):
        assert after.network.prior == prior
        assert list(after.guide.shapes) == list(before.guide.shapes)
        for part in ("loc", "rho"):
            old, new = (c.guide.split(getattr(c.guide, part)) for c in (before, after))
            for site in old:
                assert torch.equal(old[site], new[site]) == (site == "0.weight_scale")
    later.save(tmp_path / "model")
    loaded = type(later).load(tmp_path / "model")
    assert (loaded.predict(X, 20, seed=0).mean == later.predict(X, 20, seed=0).mean).all()
    fit(network, X, Y, epochs=1, start=later, **OPTIONS)


def test_fitted_noise_scale_becomes_a_prior():
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    network = BayesianNetwork(mlp(2, [], 1, seed=0), priors.Normal(), likelihoods.Gaussian())
    posterior = fit(network, x, x[:, :1], epochs=300, **OPTIONS)
    prior = as_prior(posterior.chains[0]).likelihood.latents["noise_scale"]
    loc = posterior.guide.split(posterior.guide.loc)["noise_scale"]
    scale = posterior.guide.split(posterior.guide.scale)["noise_scale"]
    torch.testing.assert_close((prior.loc, prior.scale), (loc.detach(), scale.detach()))
    network = as_prior(posterior.chains[0])
    guide = MeanFieldGuide(network)
    guide.load_state_dict(posterior.guide.state_dict())
    draws = {name: value[None] for name, value in guide(x).items()}
    log_q = sum(
        guide._site_distribution(name, *(guide.split(v)[name] for v in (guide.loc, guide.scale)))
        .log_prob(draws[name][0])
        .sum()
        for name in draws
    )
    torch.testing.assert_close(network.log_prior(draws, x).float()[0], log_q, rtol=1e-4, atol=0)


def test_update_refuses_other_guides_and_likelihoods():
    x = torch.randn(10, 1)
    posterior = fit(BayesianNetwork(mlp(1, [], 1)), x, x, guide="auto_normal", epochs=1, **OPTIONS)
    with pytest.raises(TypeError, match="must have a MeanFieldGuide to become a prior"):
        update(posterior, x, x)
    custom = BayesianNetwork(
        mlp(1, [], 1), likelihood=lambda output: likelihoods.Gaussian(1.0)(output)
    )
    posterior = fit(custom, x, x, epochs=1, **OPTIONS)
    with pytest.raises(TypeError, match=r"must have one of pyrobbb\.likelihoods"):
        update(posterior, x, x)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((None, X, Y), {}, TypeError, "`posterior` must be a Posterior, got NoneType"),
        ((shared_fit().chains[0], X, Y), {}, TypeError, "must be a Posterior, got FittedChain"),
        ((prune(shared_fit(), 0.5), X, Y), {}, ValueError, "`posterior` is pruned and cannot be"),
        ((shared_fit(), 3.0, Y), {}, TypeError, "`x` must be array-like, .*, got a float"),
        ((shared_fit(), X[:0], Y[:0]), {}, ValueError, "`x` is empty"),
        ((shared_fit(), X, Y[:5]), {}, ValueError, "`x` and `y` must have the same number"),
        ((shared_fit(), X, Y), {"batch_size": 0}, ValueError, "`batch_size` must be at least 1"),
        ((shared_fit(), X, Y), {"start": shared_fit()}, TypeError, "`start` is not an option of"),
        ((shared_fit(), X, Y), {"restarts": 2}, TypeError, "`restarts` is not an option of"),
        ((shared_fit(), X, Y), {"kl_warmup": 0.5}, TypeError, "`kl_warmup` is not an option of"),
        ((shared_fit(), X, Y), {"guide": "mean_field"}, TypeError, "`guide` is not an option of"),
    ],
)
def test_update_names_an_invalid_argument(arguments, options, error, message):
    with pytest.raises(error, match=message):
        update(*arguments, progress=False, **options)


def test_the_chains_of_an_update_have_separate_checkpoints(tmp_path):
    options = {"epochs": 2, "seed": 3, "progress": False}
    posterior = shared_fit(restarts=2)
    first = update(posterior, X, Y, checkpoint=tmp_path, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chain-1", "chain-2"]
    assert_same_fit(first, update(posterior, X, Y, **options))
    assert_same_fit(first, update(posterior, X, Y, checkpoint=tmp_path, **options))
