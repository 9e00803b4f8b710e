"""to_arviz: the contents of the tree against densities by Pyro, and their use by ArviZ."""

import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
import xarray
from torch import nn

from pyrobbb import BayesianNetwork, fit, likelihoods, mlp, priors

pytestmark = pytest.mark.arviz

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 3))
Y = X[:, :1] - X[:, 1:2] + 0.1 * RNG.normal(size=(30, 1))
LABELS = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
QUICK = {"epochs": 30, "batch_size": 15, "seed": 0, "progress": False, "engine": "fused"}


def fitted(likelihood=None, n_out=1, y=Y, **options):
    network = BayesianNetwork(mlp(3, [4], n_out, seed=0), likelihood=likelihood)
    return fit(network, X, y, **{**QUICK, **options})


@pytest.fixture(scope="module")
def posterior():
    return fitted()


@pytest.fixture(scope="module")
def tree(posterior):
    return posterior.to_arviz(X, Y, x_new=X[:5], n_draws=100, seed=0)


@pytest.fixture(scope="module")
def classifier():
    return fitted(likelihoods.Categorical(), 3, LABELS)


def test_the_tree_has_every_group(tree):
    assert set(tree.children) == {
        "posterior",
        "prior",
        "posterior_predictive",
        "prior_predictive",
        "log_likelihood",
        "sample_stats",
        "observed_data",
        "constant_data",
        "predictions",
        "predictions_constant_data",
    }


def test_dimensions_have_descriptive_names(tree):
    dims = {name: variable.dims[2:] for name, variable in tree["posterior"].data_vars.items()}
    assert dims == {
        "0.weight": ("0.weight_out", "0.weight_in"),
        "0.bias": ("0.bias_out",),
        "2.weight": ("2.weight_out", "2.weight_in"),
        "2.bias": ("2.bias_out",),
        "noise_scale": (),
        "mean": ("obs",),
    }
    assert tree["constant_data"]["x"].dims == ("obs", "feature")
    assert tree["observed_data"]["y"].dims == ("obs",)
    assert tree["predictions"]["y"].dims == ("chain", "draw", "obs_new")
    assert tree["predictions_constant_data"]["x"].dims == ("obs_new", "feature")
    for group in ("posterior", "posterior_predictive", "log_likelihood", "sample_stats"):
        assert (tree[group].sizes["chain"], tree[group].sizes["draw"]) == (1, 100)


def test_draws_and_predictions_agree_with_those_of_the_posterior(posterior, tree):
    draws = posterior.draws(100, seed=0)
    for name, value in draws.items():
        np.testing.assert_array_equal(tree["posterior"][name].values[0], value.numpy())
    prediction = posterior.predict(X, n_draws=100, seed=0)
    np.testing.assert_allclose(
        tree["posterior"]["mean"].values.mean((0, 1)), prediction.mean[:, 0], rtol=1e-4, atol=1e-5
    )
    log_mean = np.logaddexp.reduce(tree["log_likelihood"]["y"].values[0]) - np.log(100)
    np.testing.assert_allclose(log_mean, prediction.log_prob(Y), rtol=1e-4, atol=1e-5)
    new = posterior.predict(X[:5], n_draws=100, seed=0)
    np.testing.assert_allclose(
        tree["predictions"]["mean"].values.mean((0, 1)), new.mean[:, 0], rtol=1e-4, atol=1e-5
    )


def hierarchical_noise(output):
    scale = pyro.sample("spread", dist.LogNormal(-1.0, 0.5))
    shift = pyro.sample("shift", dist.Normal(scale, 1.0))  # Depends on another latent site.
    return dist.Normal(output + shift, scale)


@pytest.mark.parametrize("guide", ["mean_field", "auto_normal"])
@pytest.mark.parametrize(
    "likelihood",
    [likelihoods.Gaussian(), likelihoods.StudentT(scale=0.3), hierarchical_noise],
    ids=["latent scale", "fixed scale", "latent scale and shift"],
)
def test_densities_agree_with_pyro_at_the_same_draws(guide, likelihood):
    posterior = fitted(likelihood, guide=guide, epochs=5)
    tree = posterior.to_arviz(X, Y, n_draws=30, seed=3)
    draws = posterior.draws(30, seed=3)
    x, y = posterior.network.prepare(X, Y)
    for i in (0, 7, 29):
        values = {name: value[i] for name, value in draws.items()}
        model = poutine.trace(poutine.condition(posterior.network, data=values))
        log_joint = model.get_trace(x, y).log_prob_sum()
        stats = tree["sample_stats"].isel(chain=0, draw=i)
        assert float(stats["lp"]) == pytest.approx(float(log_joint), rel=1e-4, abs=1e-3)
        if guide == "mean_field":
            trace = poutine.trace(poutine.condition(posterior.guide, data=values)).get_trace(x)
            log_q = float(trace.log_prob_sum().detach())
        else:  # Its sites are deltas: the densities are those of auxiliary sites.
            log_q = 0.0
            for name, value in values.items():
                q = dist.Normal(*posterior.guide._get_loc_and_scale(name))
                positive = name in ("noise_scale", "spread")
                log_q += float(q.log_prob(value.log() if positive else value).sum().detach())
                log_q -= float(value.log()) if positive else 0.0
        assert float(stats["logq"]) == pytest.approx(log_q, rel=1e-4, abs=1e-3)
        weight = float(stats["lp"]) - float(stats["logq"])
        assert float(stats["log_weight"]) == pytest.approx(weight, rel=1e-12)


def test_densities_are_float64(tree):
    assert {v.dtype for v in tree["sample_stats"].data_vars.values()} == {np.dtype("float64")}
    assert tree["log_likelihood"]["y"].dtype == np.float64


def test_prior_draws_have_the_moments_of_the_network_prior():
    posterior = fitted(likelihoods.Gaussian(noise_median=2.0, noise_log_sd=0.1))
    tree = posterior.to_arviz(X, Y, n_draws=4000, seed=0)
    prior = tree["prior"]
    assert prior.sizes["chain"] == 1
    expected = posterior.network.prior("0.weight", posterior.network.net[0].weight).stddev
    assert float(prior["0.weight"].std()) == pytest.approx(float(expected.mean()), rel=0.05)
    assert float(np.log(prior["noise_scale"]).mean()) == pytest.approx(np.log(2.0), abs=0.02)
    noise = tree["prior_predictive"]["y"].values[0] - prior["mean"].values[0]
    assert np.sqrt((noise**2).mean()) == pytest.approx(2.0, rel=0.05)


def test_restarts_become_chains():
    posterior = fitted(restarts=3)
    tree = posterior.to_arviz(X, Y, n_draws=40, seed=0)
    assert tree["posterior"].sizes["chain"] == 3
    assert tree["sample_stats"].sizes["chain"] == 3
    for i, fitted_chain in enumerate(posterior.chains):
        guide = fitted_chain.guide
        loc = guide.split(guide.loc.detach())["2.bias"]
        scale = guide.split(guide.scale.detach())["2.bias"]
        gap = tree["posterior"]["2.bias"].values[i].mean(0) - loc.numpy()
        assert (np.abs(gap) < 5 * scale.numpy() / 40**0.5).all()
    assert len(tree.attrs["nelbo"]) == 3
    assert tree.attrs["seed"] == [0, 1, 2]


def test_attributes_describe_the_fit(posterior, tree):
    assert tree.attrs["inference_library"] == "pyrobbb"
    assert tree.attrs["inference_library_version"]
    assert tree.attrs["guide"] == "MeanFieldGuide"
    assert tree.attrs["objective"] == "trace"
    assert tree.attrs["steps"] == 60
    assert tree.attrs["seed"] == 0
    assert tree.attrs["nelbo"] == pytest.approx(posterior.history.nelbo[-2:].mean())
    assert tree["posterior"].attrs["guide"] == "MeanFieldGuide"


def test_classes_have_probabilities_and_labels(classifier):
    tree = classifier.to_arviz(X, LABELS, n_draws=50, class_names=["none", "one", "both"], seed=0)
    probs = tree["posterior"]["probs"]
    assert probs.dims == ("chain", "draw", "obs", "class")
    assert list(probs.coords["class"].values) == ["none", "one", "both"]
    np.testing.assert_allclose(probs.sum("class"), 1, rtol=1e-5)
    assert list(tree["posterior"].coords["2.weight_out"].values) == ["none", "one", "both"]
    assert tree["posterior_predictive"]["y"].dims == ("chain", "draw", "obs")


def test_a_binary_outcome_has_one_probability():
    posterior = fitted(likelihoods.Bernoulli(), 1, (Y > 0).astype(float))
    tree = posterior.to_arviz(X, (Y > 0).astype(float), n_draws=50, seed=0)
    assert tree["posterior"]["probs"].dims == ("chain", "draw", "obs")
    assert set(np.unique(tree["posterior_predictive"]["y"])) == {0.0, 1.0}


def test_columns_of_data_frames_become_labels():
    frame = pd.DataFrame(X, columns=["age", "height", "weight"])
    targets = pd.DataFrame({"a": Y[:, 0], "b": -Y[:, 0]})
    network = BayesianNetwork(mlp(3, [4], 2, seed=0), likelihood=likelihoods.Gaussian())
    posterior = fit(network, frame, targets, **QUICK)
    tree = posterior.to_arviz(frame, targets, n_draws=30, seed=0)
    assert tree["observed_data"]["y"].dims == ("obs", "target")
    assert tree["posterior"]["mean"].dims == ("chain", "draw", "obs", "target")
    assert tree["log_likelihood"]["y"].dims == ("chain", "draw", "obs")
    assert list(tree["constant_data"].coords["feature"].values) == ["age", "height", "weight"]
    assert list(tree["posterior"].coords["0.weight_in"].values) == ["age", "height", "weight"]
    assert list(tree["posterior"].coords["2.bias_out"].values) == ["a", "b"]


def test_images_keep_their_dimensions():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 1))
    x = RNG.normal(size=(6, 1, 4, 4))
    posterior = fit(BayesianNetwork(net), x, Y[:6], **QUICK)
    tree = posterior.to_arviz(x, Y[:6], n_draws=30, seed=0)
    assert tree["constant_data"]["x"].shape == (6, 1, 4, 4)
    assert tree["posterior"]["0.weight"].dims[2:] == (
        "0.weight_out",
        "0.weight_in",
        "0.weight_k0",
        "0.weight_k1",
    )


def test_functions_of_the_weights_replace_sites(posterior):
    tree = posterior.to_arviz(
        X,
        Y,
        sites=[],
        functions={"norm": lambda draws: draws["0.weight"].flatten(1).norm(dim=1)},
        n_draws=40,
        seed=0,
    )
    assert set(tree["posterior"].data_vars) == {"norm", "mean"}
    assert set(tree["prior"].data_vars) == {"norm", "mean"}
    norms = posterior.draws(40, seed=0)["0.weight"].flatten(1).norm(dim=1)
    np.testing.assert_allclose(tree["posterior"]["norm"].values[0], norms.numpy(), rtol=1e-6)


def test_a_tree_beyond_max_memory_raises(posterior):
    with pytest.raises(ValueError, match=r"`max_memory` is .* GiB of weights and .*`sites`"):
        posterior.to_arviz(X, Y, n_draws=10_000, max_memory=2**20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sites": ["w"]}, r"`sites` must be among 0.weight, .*, got \['w'\]"),
        ({"sites": "0.weight"}, "`sites` must be a list of names, got the string '0.weight'"),
        (
            {"functions": {"f": lambda draws: 1.0}},
            "`functions`: 'f' must return a tensor with a row",
        ),
        (
            {"functions": {"mean": lambda d: d["2.bias"]}},
            r"not have names of other variables, got \['mean'\]",
        ),
        ({"feature_names": ["a"]}, "`feature_names` must name 3 columns, got 1 names"),
        ({"class_names": ["a"]}, "`class_names` must name no columns, got 1 names"),
        ({"n_draws": 0}, "`n_draws` must be at least 1, got 0"),
    ],
)
def test_invalid_arguments_raise(posterior, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        posterior.to_arviz(X, Y, **options)


@pytest.mark.parametrize("restarts", [1, 2])
@pytest.mark.parametrize("engine", ["h5netcdf", "zarr"])
def test_netcdf_and_zarr_files_preserve_the_tree(tmp_path, restarts, engine):
    if engine == "zarr":  # which is no dependency, and needs a newer xarray than the oldest
        pytest.importorskip("zarr", reason="zarr is not installed")
    tree = fitted(restarts=restarts).to_arviz(X, Y, x_new=X[:3], n_draws=30, seed=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata")
        if engine == "zarr":
            tree.to_zarr(tmp_path / "tree")
        else:
            tree.to_netcdf(tmp_path / "tree", engine=engine)
        with xarray.open_datatree(tmp_path / "tree", engine=engine) as opened:
            stored = opened.load()
    assert set(stored.children) == set(tree.children)
    for group in tree.children:
        xarray.testing.assert_equal(stored[group].to_dataset(), tree[group].to_dataset())
    for name, value in tree.attrs.items():
        np.testing.assert_array_equal(stored.attrs[name], value)


@pytest.mark.filterwarnings(
    "ignore:Estimated shape parameter of Pareto"
)  # As expected for a network.
@pytest.mark.filterwarnings("ignore:The inplace keyword")  # ArviZ 0.8 with pandas 3.
def test_arviz_functions_accept_the_tree(posterior, classifier, tree):
    import arviz_plots
    import arviz_stats

    table = arviz_stats.summary(tree, round_to="none")
    assert {"0.weight[0, 0]", "noise_scale", "mean[0]"} <= set(table.index)
    one = arviz_stats.loo(tree, pointwise=True)
    other = arviz_stats.loo(fitted(epochs=3).to_arviz(X, Y, n_draws=100, seed=0), pointwise=True)
    assert list(arviz_stats.compare({"long": one, "short": other}).index) == ["long", "short"]
    pit = arviz_stats.loo_pit(tree)
    assert pit["y"].shape == (30,)
    arviz_plots.plot_ppc_dist(tree, backend="matplotlib")
    arviz_plots.plot_khat(one, backend="matplotlib")
    arviz_plots.plot_forest(tree, var_names=["noise_scale"], backend="matplotlib")
    arviz_plots.plot_prior_posterior(tree, var_names=["noise_scale"], backend="matplotlib")
    import matplotlib.pyplot as plt

    plt.close("all")
    of_classes = classifier.to_arviz(X, LABELS, n_draws=100, seed=0)
    assert np.isfinite(float(arviz_stats.loo(of_classes).elpd))


def test_the_global_random_state_is_unchanged(posterior):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    posterior.to_arviz(X, Y, n_draws=10, seed=0)
    assert torch.equal(torch.rand(1), expected)
    assert not pyro.get_param_store().keys()


def test_point_parameters_are_not_in_the_tree():
    network = BayesianNetwork(
        mlp(3, [4], 1, seed=0), priors.ByName({"2.*": None}, default=priors.Laplace(1.0))
    )
    posterior = fit(network, X, Y, **QUICK)
    tree = posterior.to_arviz(X, Y, n_draws=30, seed=0)
    assert set(tree["posterior"].data_vars) == {"0.weight", "0.bias", "noise_scale", "mean"}
