"""from_pyro with observations that are masked, scaled, subsampled, or outside plates."""

import logging

import arviz_base
import arviz_stats
import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import MCMC, NUTS, Predictive
from pyro.infer.autoguide import AutoNormal

from pyrobbb import BayesianNetwork, from_pyro, mlp, priors

pytestmark = pytest.mark.arviz

N_DRAWS = 60
MU = torch.randn(N_DRAWS, generator=torch.Generator().manual_seed(1)) * 0.3 + 1
Y = torch.linspace(-1, 3, 12)
COUNTS = torch.arange(12) % 3 > 0
PAIRS = torch.stack([Y, Y + 0.5], -1)
BY_COLUMN = torch.tensor([True, False, True]).expand(4, 3)
ANY = torch.arange(12).reshape(4, 3) % 5 > 0


def in_a_plate(observe):
    def model(y=Y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(y)):
            observe(mu, y)

    return model


def in_two_plates(mask):
    def model():
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        rows, columns = pyro.plate("row", 4, dim=-2), pyro.plate("column", 3, dim=-1)
        with rows, columns, poutine.mask(mask=mask):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=Y.reshape(4, 3))

    return model


def by_obs_mask(mu, y):
    pyro.sample("y", dist.Normal(mu, 1.0), obs=y, obs_mask=COUNTS)


def by_mask(mu, y):
    with poutine.mask(mask=COUNTS):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def by_distribution(mu, y):
    pyro.sample("y", dist.Normal(mu, torch.ones(12)).mask(COUNTS), obs=y)


def by_two_masks(mu, y):
    with poutine.mask(mask=COUNTS | (Y > 0)):
        pyro.sample("y", dist.Normal(mu, torch.ones(12)).mask(COUNTS | (Y < 0)), obs=y)


def by_event(mu, y):
    pyro.sample(
        "y",
        dist.Normal(mu[..., None], torch.ones(12, 2)).mask(COUNTS[:, None]).to_event(1),
        obs=PAIRS,
    )


def by_scalar(mu, y):
    with poutine.mask(mask=True):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def with_a_vector(mu, y):
    pyro.deterministic("mean", mu + 0 * y, event_dim=0)
    by_mask(mu, y)


# Model, the observed site, the rows that count, and the names of the dimensions.
MASKED = {
    "obs_mask": (in_a_plate(by_obs_mask), "y_observed", COUNTS, ["y_observed_row"]),
    "poutine.mask": (in_a_plate(by_mask), "y", COUNTS, ["row"]),
    "fn.mask": (in_a_plate(by_distribution), "y", COUNTS, ["row"]),
    "two masks": (in_a_plate(by_two_masks), "y", COUNTS, ["row"]),
    "event": (in_a_plate(by_event), "y", COUNTS, ["row"]),
    "nothing masked": (in_a_plate(by_scalar), "y", COUNTS | True, ["row"]),
    "plate of another site": (in_a_plate(with_a_vector), "y", COUNTS, ["y_row"]),
    "a column": (in_two_plates(BY_COLUMN), "y", BY_COLUMN, ["row", "column"]),
    "a row": (
        in_two_plates(BY_COLUMN.reshape(3, 4).T.bool()),
        "y",
        BY_COLUMN.reshape(3, 4).T,
        None,
    ),
    "any cells": (in_two_plates(ANY), "y", ANY, ["y_dim_0"]),
}


@pytest.mark.filterwarnings("ignore:Estimated shape parameter")
@pytest.mark.parametrize("name", MASKED)
def test_masked_observations_are_left_out_of_scores(name, caplog):
    model, site, counts, dims = MASKED[name]
    draws = {"mu": MU, "y_unobserved": torch.zeros(N_DRAWS, 12)}
    if name != "obs_mask":
        del draws["y_unobserved"]
    with caplog.at_level(logging.WARNING):
        tree = from_pyro(draws, model=model, seed=0)
    n_masked = int((~counts).sum())
    is_logged = f"{n_masked} of 12 observations of '{site}' are left out" in caplog.text
    assert is_logged == (n_masked > 0)
    y = PAIRS if name == "event" else Y.reshape(counts.shape)
    log_lik = dist.Normal(MU.reshape(-1, *(1,) * y.dim()), 1.0).log_prob(y)
    log_lik = (log_lik.sum(-1) if name == "event" else log_lik)[:, counts]
    actual = tree["log_likelihood"][site]
    assert dims is None or list(actual.dims[2:]) == dims
    np.testing.assert_allclose(actual.values.reshape(N_DRAWS, -1), log_lik, rtol=1e-5)
    by_hand = arviz_base.from_dict(
        {"posterior": {"mu": MU[None]}, "log_likelihood": {"y": log_lik[None]}}
    )
    loo = arviz_stats.loo(tree)
    assert loo.elpd == pytest.approx(arviz_stats.loo(by_hand).elpd, rel=1e-5)
    assert loo.n_data_points == int(counts.sum())
    observed = tree["observed_data"][site].values
    np.testing.assert_array_equal(observed.reshape(-1), y[counts].reshape(-1))
    for group in ("posterior_predictive", "prior_predictive"):
        assert tree[group][site].shape[2:] == observed.shape
    assert tree["sample_stats"]["lp"].values[0, 3] == pytest.approx(
        log_joint(model, draws, 3), rel=1e-5
    )


def log_joint(model, draws, i):
    values = {name: value[i] for name, value in draws.items()}
    trace = poutine.trace(poutine.condition(model, data=values)).get_trace()
    return float(trace.log_prob_sum())


def test_labels_are_those_of_the_remaining_observations():
    labels = list("abcdefghijkl")
    expected = [label for label, is_kept in zip(labels, COUNTS, strict=True) if is_kept]
    for name in ("poutine.mask", "obs_mask", "plate of another site"):
        model, site, _, dims = MASKED[name]
        draws = {"mu": MU, "y_unobserved": torch.zeros(N_DRAWS, 12)}
        tree = from_pyro(draws, model=model, coords={"row": labels})
        for group in ("log_likelihood", "observed_data", "posterior_predictive"):
            assert list(tree[group][site].coords[dims[0]].values) == expected
        numbered = from_pyro(draws, model=model, index_origin=1, dims={site: ["unit"]})
        numbers = numbered["log_likelihood"][site].coords["unit"].values
        np.testing.assert_array_equal(numbers, COUNTS.nonzero()[:, 0] + 1)
    assert list(tree["posterior"]["mean"].coords["row"].values) == labels


def test_given_draws_of_masked_observations_are_selected_too():
    draws = {"mu": MU, "y": Y.expand(N_DRAWS, 12)}
    model = in_a_plate(by_mask)
    for tree in (
        from_pyro(draws, model=model),
        from_pyro({"mu": MU}, model=model, posterior_predictive={"y": draws["y"]}),
        from_pyro({"mu": MU}, model=model, posterior_predictive={"y": draws["y"].numpy()[:, None]}),
    ):
        values = tree["posterior_predictive"]["y"].values
        np.testing.assert_array_equal(values[0], Y[COUNTS].expand(N_DRAWS, -1))
        assert tree["posterior_predictive"]["y"].dims == ("chain", "draw", "row")
    assert arviz_stats.loo_pit(tree)["y"].shape == (8,)


@pytest.mark.parametrize("n_left", [0, 1])
def test_a_site_that_is_masked_entirely_is_left_out(n_left, caplog):
    counts = torch.arange(12) < n_left

    def observe(mu, y):
        with poutine.mask(mask=counts if n_left else False):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    with caplog.at_level(logging.WARNING):
        tree = from_pyro({"mu": MU}, model=in_a_plate(observe))
    assert f"{12 - n_left} of 12 observations of 'y' are left out" in caplog.text
    assert ("log_likelihood" in tree.children) == ("observed_data" in tree.children) == bool(n_left)


@pytest.mark.parametrize("is_vectorisable", [True, False])
def test_a_mask_that_differs_between_draws_leaves_no_log_likelihood(is_vectorisable, caplog):
    def observe(mu, y):
        if not is_vectorisable:
            float(mu)
        with poutine.mask(mask=(mu > 1).expand(torch.broadcast_shapes(mu.shape, y.shape))):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    with caplog.at_level(logging.WARNING):
        tree = from_pyro({"mu": MU}, model=in_a_plate(observe))
    assert "No log-likelihood of 'y': its mask differs between draws" in caplog.text
    assert "log_likelihood" not in tree.children
    assert tree["posterior_predictive"]["y"].shape == (1, N_DRAWS, 12)


def test_a_row_weight_of_zero_leaves_the_row_out_and_others_do_not_scale():
    network = BayesianNetwork(mlp(2, [3], 1, seed=0), priors.Normal(1.0))
    x, y, weight = torch.randn(6, 2), torch.randn(6, 1), torch.tensor([1.0, 0, 2.5, 0, 1, 0.5])
    guide = AutoNormal(poutine.block(network, hide=["y"]))
    arguments = {"args": (x, y), "num_draws": 20, "seed": 0, "guide": guide}
    guide(x, y)
    tree = from_pyro(model=lambda *a: network(*a, row_weight=weight), **arguments)
    plain = from_pyro(model=network, **arguments)
    expected = plain["log_likelihood"]["y"].values[..., weight > 0]
    np.testing.assert_allclose(tree["log_likelihood"]["y"].values, expected, rtol=1e-5)


def test_scales_have_no_effect_on_the_log_likelihood_but_on_lp():
    def observe(mu, y):
        with poutine.scale(scale=torch.full((12,), 2.5)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    model = in_a_plate(observe)
    tree = from_pyro({"mu": MU}, model=model)
    expected = dist.Normal(MU[:, None], 1.0).log_prob(Y)
    np.testing.assert_allclose(tree["log_likelihood"]["y"].values[0], expected, rtol=1e-5)
    expected = log_joint(model, {"mu": MU}, 5)
    assert float(tree["sample_stats"]["lp"][0, 5]) == pytest.approx(expected, rel=1e-5)


def subsampling(subsample_size):
    def model(y=Y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(y), subsample_size=subsample_size) as index:
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y[index])

    return model


def subsampling_guide(y=Y):
    pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(y), subsample_size=5):
        pass


@pytest.mark.parametrize(
    "arguments",
    [
        {"posterior": {"mu": MU}, "model": subsampling(5)},
        {"model": subsampling(11)},
        {"model": subsampling(5), "guide": AutoNormal(poutine.block(subsampling(5), hide=["y"]))},
        {"model": subsampling(None), "guide": subsampling_guide},
    ],
)
def test_random_subsamples_raise_with_the_remedy(arguments):
    message = r"The plate 'row' draws \d+ of its 12 rows at random .* subsample_size=None\.$"
    with pytest.raises(ValueError, match=message):
        from_pyro(**arguments)


@pytest.mark.parametrize("subsample_size", [None, 12])
def test_plates_of_all_rows_are_accepted(subsample_size):
    tree = from_pyro({"mu": MU}, model=subsampling(subsample_size))
    np.testing.assert_array_equal(tree["observed_data"]["y"], Y)


# Observations outside plates


def alone(y):
    pyro.sample("y", dist.Normal(pyro.sample("mu", dist.Normal(0.0, 1.0)), 1.0), obs=y)


def constant(y):
    pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(0.0, 1.0), obs=y)


def several(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("scalar", dist.Normal(mu, 1.0), obs=y[0])
    pyro.sample("pairs", dist.Normal(mu, 1.0), obs=y.reshape(6, 2))
    with pyro.plate("row", 12):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def with_events(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    mean = mu[..., None].expand((*mu.shape, 2))
    pyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=PAIRS)


def in_a_plate_of_columns(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("column", 3):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y.reshape(4, 3))


OUTSIDE = {
    "alone": (alone, {"y": ["y_dim_0"]}),
    "constant": (constant, {"y": ["y_dim_0"]}),
    "several": (several, {"scalar": [], "pairs": ["pairs_dim_0", "pairs_dim_1"], "y": ["row"]}),
    "events": (with_events, {"y": ["y_dim_0", "y_dim_1"]}),
    "a plate, too": (in_a_plate_of_columns, {"y": ["y_dim_0", "column"]}),
}


@pytest.mark.parametrize("n_draws", [12, N_DRAWS])  # 12: as many as observations
@pytest.mark.parametrize("name", OUTSIDE)
def test_observations_outside_plates_are_those_of_pyro(name, n_draws, caplog):
    model, dims = OUTSIDE[name]
    with caplog.at_level(logging.INFO, logger="pyrobbb"):
        tree = from_pyro({"mu": MU[:n_draws]}, model=model, args=(Y,), seed=0)
    assert "cannot be vectorised" not in caplog.text
    trace = poutine.trace(poutine.condition(model, data={"mu": MU[7]})).get_trace(Y)
    trace.compute_log_prob()
    for site, names in dims.items():
        node = trace.nodes[site]
        assert list(tree["observed_data"][site].dims) == names
        np.testing.assert_array_equal(tree["observed_data"][site], node["value"])
        actual = tree["log_likelihood"][site][0, 7].values
        np.testing.assert_allclose(actual, node["unscaled_log_prob"], rtol=1e-5)
        for group in ("posterior_predictive", "prior_predictive"):
            assert list(tree[group][site].dims) == ["chain", "draw", *names]
    lp = float(tree["sample_stats"]["lp"][0, 7])
    assert lp == pytest.approx(float(trace.log_prob_sum()), rel=1e-5)


def test_predictions_of_observations_outside_plates_are_independent():
    tree = from_pyro({"mu": torch.ones(4000)}, model=alone, args=(Y[:2],), seed=0)
    noise = tree["posterior_predictive"]["y"].values[0] - 1
    z = np.corrcoef(noise.T)[0, 1] * 4000**0.5
    assert abs(z) < 4
    np.testing.assert_allclose(noise.std(0), 1, atol=5 / 8000**0.5)


def test_a_run_of_mcmc_with_observations_outside_plates_is_converted():
    pyro.set_rng_seed(0)
    mcmc = MCMC(NUTS(alone), num_samples=30, warmup_steps=30, disable_progbar=True)
    mcmc.run(Y)
    tree = from_pyro(mcmc)
    mu = mcmc.get_samples()["mu"]
    expected = dist.Normal(mu[:, None], 1.0).log_prob(Y)
    np.testing.assert_allclose(tree["log_likelihood"]["y"].values[0], expected, rtol=1e-5)


# Predictions


def regression(x, y=None):
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(x)):
        mean = pyro.deterministic("mean", slope * x, event_dim=0)
        return pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


@pytest.mark.parametrize("parallel", [True, False])
def test_dims_of_predictions_are_those_of_the_sites(parallel):
    x = torch.linspace(0, 1, 12)
    draws = {"slope": MU}
    sites = ["mean", "y"]
    new = Predictive(regression, draws, return_sites=sites, parallel=parallel)(x[:5])
    labels = list("abcdefghijkl")
    arguments = {"model": regression, "args": (x, Y), "predictions": new, "coords": {"row": labels}}
    tree = from_pyro(draws, **arguments)
    for site in sites:
        assert tree["predictions"][site].dims == ("chain", "draw", "row")
        np.testing.assert_array_equal(tree["predictions"][site].values[0], new[site].reshape(-1, 5))
    assert list(tree["predictions"].coords["row"].values) == [0, 1, 2, 3, 4]
    assert list(tree["observed_data"].coords["row"].values) == labels
    named = from_pyro(draws, **arguments, pred_dims={"y": ["new"]})
    assert named["predictions"]["y"].dims == ("chain", "draw", "new")
    same = Predictive(regression, draws, return_sites=sites, parallel=parallel)(x)
    tree = from_pyro(draws, **{**arguments, "predictions": same})
    assert list(tree["predictions"].coords["row"].values) == labels
    other = {"y": new["y"], "extra": torch.zeros(N_DRAWS, 2)}
    tree = from_pyro(draws, **{**arguments, "predictions": other})
    assert tree["predictions"]["extra"].dims == ("chain", "draw", "extra_dim_0")
