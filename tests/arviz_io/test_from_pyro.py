"""from_pyro against densities by Pyro, and against ArviZ's converter for NumPyro."""

import logging

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal

from pyrobbb import BayesianNetwork, from_pyro, mlp, priors

pytestmark = pytest.mark.arviz

EFFECTS = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def eight_schools(errors, effects=None):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(errors)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.deterministic("doubled", 2 * theta, event_dim=0)
        return pyro.sample("obs", dist.Normal(theta, errors), obs=effects)


def mcmc_of(model, *args, chains=1, draws=40):
    mcmc = MCMC(NUTS(model), num_samples=draws, warmup_steps=40, disable_progbar=True)
    mcmc.run(*args)
    if chains > 1:  # The state of a run with two processes.
        other = MCMC(NUTS(model), num_samples=draws, warmup_steps=40, disable_progbar=True)
        other.run(*args)
        mcmc._samples = {
            name: torch.cat([mcmc._samples[name], other._samples[name]]) for name in mcmc._samples
        }
        mcmc.num_chains, mcmc._diagnostics = 2, [*mcmc._diagnostics, *other._diagnostics]
    return mcmc


@pytest.fixture(scope="module")
def schools():
    pyro.set_rng_seed(0)
    return mcmc_of(eight_schools, ERRORS, EFFECTS, chains=2)


def fit_guide(model, guide, *args, steps=200):
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(steps):
        svi.step(*args)


def test_mcmc_has_chains_groups_and_plate_dimensions(schools):
    tree = from_pyro(schools, coords={"school": list("ABCDEFGH")}, seed=0)
    assert set(tree.children) == {
        "posterior",
        "prior",
        "posterior_predictive",
        "prior_predictive",
        "log_likelihood",
        "sample_stats",
        "observed_data",
    }
    assert {n: v.dims for n, v in tree["posterior"].data_vars.items()} == {
        "mu": ("chain", "draw"),
        "tau": ("chain", "draw"),
        "theta": ("chain", "draw", "school"),
        "doubled": ("chain", "draw", "school"),
    }
    assert dict(tree["posterior"].sizes) == {"chain": 2, "draw": 40, "school": 8}
    assert list(tree["posterior"].coords["school"].values) == list("ABCDEFGH")
    assert tree["observed_data"]["obs"].dims == ("school",)
    assert tree["prior"].sizes["chain"] == 1
    samples = schools.get_samples(group_by_chain=True)
    np.testing.assert_array_equal(tree["posterior"]["theta"], samples["theta"])
    np.testing.assert_allclose(tree["posterior"]["doubled"], 2 * samples["theta"], rtol=1e-6)
    assert tree.attrs["inference_method"] == "NUTS"
    assert tree.attrs["modeling_interface"] == "pyro"


def test_log_likelihood_and_lp_agree_with_the_model(schools):
    tree = from_pyro(schools, prior=False, posterior_predictive=False)
    samples = schools.get_samples(group_by_chain=True)
    expected = dist.Normal(samples["theta"], ERRORS).log_prob(EFFECTS)
    np.testing.assert_allclose(tree["log_likelihood"]["obs"], expected, rtol=1e-5)
    for chain, draw in ((0, 0), (1, 17)):
        values = {name: value[chain, draw] for name, value in samples.items()}
        trace = poutine.trace(poutine.condition(eight_schools, data=values))
        expected = float(trace.get_trace(ERRORS, EFFECTS).log_prob_sum())
        assert float(tree["sample_stats"]["lp"][chain, draw]) == pytest.approx(expected, rel=1e-5)


def test_diverging_marks_divergent_steps(schools):
    tree = from_pyro(schools, prior=False)
    diverging = tree["sample_stats"]["diverging"].values
    for chain, diagnostics in enumerate(schools._diagnostics):
        assert list(np.flatnonzero(diverging[chain])) == sorted(diagnostics["divergences"])


def test_posterior_predictive_and_prior_draws_have_the_right_moments(schools):
    tree = from_pyro(schools, num_draws=4000, seed=0)
    noise = tree["posterior_predictive"]["obs"] - tree["posterior"]["theta"]
    z = (noise.values / ERRORS.numpy()).reshape(-1)
    assert z.mean() == pytest.approx(0, abs=5 / z.size**0.5)
    assert z.std() == pytest.approx(1, rel=0.1)
    prior = from_pyro(model=eight_schools, args=(ERRORS, EFFECTS), num_draws=4000, seed=0)
    assert float(prior["prior"]["mu"].std()) == pytest.approx(5, rel=0.1)
    assert "posterior" not in prior.children


@pytest.mark.parametrize("is_function", [True, False], ids=["function", "AutoNormal"])
def test_log_weights_of_a_guide_agree_with_densities_from_pyro(is_function):
    def guide(errors, effects=None):
        loc = pyro.param("loc", torch.zeros(8))
        mu = pyro.sample("mu", dist.Normal(pyro.param("m", torch.tensor(0.0)), 1.0))
        pyro.sample("tau", dist.LogNormal(pyro.param("t", torch.tensor(0.0)), 0.5))
        with pyro.plate("school", len(errors)):
            pyro.sample("theta", dist.Normal(mu + loc, 1.0))

    chosen = (
        guide if is_function else AutoNormal(poutine.block(eight_schools, hide=["obs", "doubled"]))
    )
    fit_guide(eight_schools, chosen, ERRORS, EFFECTS)
    tree = from_pyro(
        model=eight_schools, guide=chosen, args=(ERRORS, EFFECTS), num_draws=50, seed=0
    )
    assert dict(tree["posterior"].sizes) == {"chain": 1, "draw": 50, "school": 8}
    posterior, stats = tree["posterior"], tree["sample_stats"]
    for draw in (0, 49):
        values = {
            name: torch.as_tensor(posterior[name].values[0, draw])
            for name in ("mu", "tau", "theta")
        }
        model = poutine.trace(poutine.condition(eight_schools, data=values))
        log_joint = float(model.get_trace(ERRORS, EFFECTS).log_prob_sum())
        assert float(stats["lp"][0, draw]) == pytest.approx(log_joint, rel=1e-4)
        if is_function:
            trace = poutine.trace(poutine.condition(guide, data=values)).get_trace(ERRORS)
            log_q = float(trace.log_prob_sum().detach())
        else:
            log_q = 0.0
            for name, value in values.items():
                q = dist.Normal(*chosen._get_loc_and_scale(name))
                log_q += float(q.log_prob(value.log() if name == "tau" else value).sum().detach())
            log_q -= float(values["tau"].log())
        assert float(stats["logq"][0, draw]) == pytest.approx(log_q, rel=1e-4, abs=1e-4)
        difference = float(stats["lp"][0, draw] - stats["logq"][0, draw])
        assert float(stats["log_weight"][0, draw]) == pytest.approx(difference)
    assert tree.attrs["guide"] == ("function" if is_function else "AutoNormal")


def test_guides_of_independent_fits_become_chains():
    def guide_at(loc):
        def guide(y):
            pyro.sample("mu", dist.Normal(loc, 0.01))

        return guide

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    guides = [guide_at(-1.0), guide_at(2.0)]
    tree = from_pyro(model=model, guide=guides, args=(torch.zeros(3),), num_draws=20, seed=0)
    assert tree["posterior"]["mu"].shape == (2, 20)
    np.testing.assert_allclose(tree["posterior"]["mu"].mean("draw"), [-1.0, 2.0], atol=0.02)
    assert tree["sample_stats"]["log_weight"].shape == (2, 20)


def hierarchical(x, group, n_groups, y=None):
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("group", n_groups, dim=-1):
        slopes = pyro.sample(
            "slopes",
            dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1),
            infer={"event_dims": ["feature"]},
        )
    with pyro.plate("row", len(x), dim=-1):
        mean = pyro.deterministic("mean", (x * slopes[..., group, :]).sum(-1), event_dim=0)
        return pyro.sample("y", dist.Normal(mean, scale), obs=y)


def test_dimensions_are_named_by_plates_and_event_dims():
    x, group = torch.randn(30, 2), torch.arange(30) % 3
    y = x.sum(1)
    mcmc = mcmc_of(hierarchical, x, group, 3, y, draws=20)
    tree = from_pyro(mcmc)
    assert tree["posterior"]["slopes"].dims == ("chain", "draw", "group", "feature")
    assert tree["posterior"]["mean"].dims == ("chain", "draw", "row")
    assert tree["log_likelihood"]["y"].dims == ("chain", "draw", "row")
    slopes = mcmc.get_samples()["slopes"]
    mean = (x * slopes[:, group]).sum(-1)
    np.testing.assert_allclose(tree["posterior"]["mean"].values[0], mean, rtol=1e-4, atol=1e-5)


def mixture(y):
    shares = pyro.sample("shares", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("component", 2):
        locs = pyro.sample("locs", dist.Normal(0.0, 5.0))
    with pyro.plate("row", len(y)):
        z = pyro.sample("z", dist.Categorical(shares), infer={"enumerate": "parallel"})
        pyro.sample("y", dist.Normal(locs[z], 1.0), obs=y)


def test_a_marginalised_discrete_site_is_sampled_for_predictions_only(caplog):
    y = torch.cat([torch.randn(10) - 4, torch.randn(10) + 4])
    kernel = NUTS(mixture, max_plate_nesting=1)
    mcmc = MCMC(kernel, num_samples=20, warmup_steps=50, disable_progbar=True)
    mcmc.run(y)
    with caplog.at_level(logging.WARNING):
        tree = from_pyro(mcmc, seed=0)
    assert "No log-likelihood: the draws lack the site(s) z" in caplog.text
    assert "log_likelihood" not in tree.children
    assert tree["posterior"]["shares"].dims == ("chain", "draw", "shares_dim_0")
    assert tree["posterior"]["locs"].dims == ("chain", "draw", "component")
    assert tree["posterior_predictive"]["y"].dims == ("chain", "draw", "row")
    assert tree["prior"]["z"].dims == ("chain", "draw", "row")


def test_draws_with_a_discrete_site_have_a_log_likelihood():
    y = torch.tensor([-4.0, 4.0])
    draws = {
        "shares": torch.tensor([[0.5, 0.5]] * 6),
        "locs": torch.tensor([[-4.0, 4.0]] * 6),
        "z": torch.tensor([[0, 1]] * 6),
    }
    tree = from_pyro(draws, model=mixture, args=(y,), num_chains=2)
    expected = float(dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.0)))
    np.testing.assert_allclose(tree["log_likelihood"]["y"], expected, rtol=1e-6)
    assert tree["posterior"]["z"].shape == (2, 3, 2)


def test_a_bayesian_network_is_converted_like_any_pyro_model():
    network = BayesianNetwork(mlp(2, [3], 1, seed=0), priors.Normal(1.0))
    x = torch.randn(12, 2)
    y = x[:, :1]
    guide = AutoNormal(poutine.block(network, hide=["y"]))
    fit_guide(network, guide, x, y, steps=20)
    tree = from_pyro(model=network, guide=guide, args=(x, y), num_draws=30, seed=0)
    assert tree["posterior"]["0.weight"].shape == (1, 30, 3, 2)
    assert tree["log_likelihood"]["y"].dims == ("chain", "draw", "data")
    assert tree["posterior_predictive"]["y"].shape == (1, 30, 12, 1)


def test_singleton_dimensions_of_predictive_are_removed():
    x, y = torch.randn(10, 2), torch.randn(10)
    group = torch.zeros(10, dtype=torch.long)
    guide = AutoNormal(poutine.block(hierarchical, hide=["y", "mean"]))
    fit_guide(hierarchical, guide, x, group, 3, y, steps=5)
    draws = Predictive(hierarchical, guide=guide, num_samples=16, parallel=True)(x, group, 3)
    latent = guide_draws(guide, x, group, y)
    tree = from_pyro({**latent, **draws}, model=hierarchical, args=(x, group, 3, y))
    assert tree["posterior"]["scale"].dims == ("chain", "draw")
    assert tree["posterior"]["slopes"].shape == (1, 16, 3, 2)
    assert tree["posterior_predictive"]["y"].shape == (1, 16, 10)
    np.testing.assert_array_equal(
        tree["posterior_predictive"]["y"].values[0], draws["y"].reshape(16, 10)
    )


def guide_draws(guide, x, group, y):
    return Predictive(guide, num_samples=16)(x, group, 3, y)


def test_draws_are_converted_without_a_model():
    tree = from_pyro(
        {"a": torch.randn(12, 3)},
        num_chains=3,
        dims={"a": ["place"]},
        coords={"place": ["x", "y", "z"]},
        predictions={"b": torch.randn(12, 5)},
        pred_dims={"b": ["new"]},
        constant_data={"c": np.arange(4)},
        predictions_constant_data={"d": np.arange(5)},
        index_origin=1,
    )
    assert tree["posterior"]["a"].shape == (3, 4, 3)
    assert list(tree["posterior"].coords["place"].values) == ["x", "y", "z"]
    assert tree["predictions"]["b"].dims == ("chain", "draw", "new")
    assert list(tree["constant_data"].coords["c_dim_0"].values) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "There is nothing to convert"),
        ({"posterior": 3}, "`posterior` must be a run of pyro.infer.MCMC or a mapping"),
        ({"guide": eight_schools}, "`guide` needs `model`"),
        (
            {"posterior": {"a": torch.zeros(5)}, "num_chains": 2},
            "`num_chains` is 2, which does not",
        ),
        (
            {
                "posterior": {"mu": torch.zeros(5), "tau": torch.ones(4)},
                "model": eight_schools,
                "args": (ERRORS,),
            },
            "`posterior` must have the same number of draws of each site",
        ),
        (
            {"posterior": {"theta": torch.zeros(5, 3)}, "model": eight_schools, "args": (ERRORS,)},
            r"'theta' of shape \(3,\), but in the model it has shape \(8,\)",
        ),
        (
            {
                "posterior": {"a": torch.zeros(5, 3), "b": torch.zeros(5, 4)},
                "dims": {"a": ["k"], "b": ["k"]},
            },
            "The dimension 'k' has length 3, but 'b' in the group 'posterior' has length 4",
        ),
        ({"posterior": {"a": torch.zeros(5)}, "dims": {"a": ["k"]}}, "`dims` names 1 dimension"),
        (
            {
                "posterior": {"a": torch.zeros(4)},
                "num_chains": 2,
                "predictions": {"b": torch.zeros(3)},
            },
            r"'b' has shape \(3,\), whose first dimension is not a multiple of `num_chains`, 2",
        ),
    ],
)
def test_invalid_arguments_raise(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        from_pyro(**arguments)


@pytest.mark.slow
def test_groups_and_values_agree_with_those_of_arviz_for_numpyro():
    numpyro = pytest.importorskip("numpyro", reason="numpyro is not installed")
    import arviz_base
    import jax
    import numpyro.distributions as ndist

    def model(errors, effects=None):
        mu = numpyro.sample("mu", ndist.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", ndist.HalfCauchy(5.0))
        with numpyro.plate("school", len(errors)):
            theta = numpyro.sample("theta", ndist.Normal(mu, tau))
            numpyro.deterministic("doubled", 2 * theta)
            numpyro.sample("obs", ndist.Normal(theta, errors), obs=effects)

    kernel = numpyro.infer.NUTS(model)
    mcmc = numpyro.infer.MCMC(kernel, num_warmup=40, num_samples=40, progress_bar=False)
    errors, effects = ERRORS.numpy(), EFFECTS.numpy()
    mcmc.run(jax.random.PRNGKey(0), errors, effects)
    samples = mcmc.get_samples()
    predictive = numpyro.infer.Predictive(model, samples)(jax.random.PRNGKey(1), errors)
    prior = numpyro.infer.Predictive(model, num_samples=40)(jax.random.PRNGKey(2), errors)
    theirs = arviz_base.from_numpyro(
        mcmc,
        prior=prior,
        posterior_predictive={"obs": predictive["obs"]},
        log_likelihood=True,
    )
    draws = {name: torch.as_tensor(np.array(value)) for name, value in samples.items()}
    ours = from_pyro(draws, model=eight_schools, args=(ERRORS, EFFECTS))
    assert set(theirs.children) <= set(ours.children)
    for group in theirs.children:
        for name, variable in theirs[group].data_vars.items():
            if group == "sample_stats" and name not in ours[group]:
                assert name == "diverging"  # A statistic of the sampler.
                continue
            actual = ours[group][name]
            assert actual.dims == variable.dims, (group, name)
            assert actual.shape == variable.shape, (group, name)
            if group in ("posterior", "log_likelihood", "observed_data"):
                np.testing.assert_allclose(actual, variable, rtol=1e-4, atol=1e-5)
