"""`posterior.summary()`: a table of sites or weights, against NumPy and ArviZ on the same draws."""

from functools import cache

import arviz_base
import arviz_stats
import numpy as np
import pytest
import torch
from support import X, Y, posterior_of, quick_fit, shared_fit, small_network

from pyrobbb import BayesianNetwork, MeanFieldGuide, mlp, priors, prune
from pyrobbb.fitted import History


def exact_posterior(network):
    """Return a posterior whose guide is set by hand, not fitted."""
    guide = MeanFieldGuide(network)
    with torch.no_grad():
        guide.loc.copy_(torch.linspace(-2, 2, len(guide.loc)))
        guide.rho.copy_(torch.linspace(-1, 1, len(guide.rho)))
    history = History(*np.empty((3, 0)), *np.empty((2, 0), int))
    return posterior_of(network, guide, history, torch.zeros(1, 3), None), guide


def test_each_weight_has_the_moments_of_its_normal_distribution():
    posterior, guide = exact_posterior(small_network())
    table = posterior.summary("?.*", n_draws=20_000, seed=0)
    n = len(table)
    loc, scale = guide.loc[:n].detach(), guide.scale[:n].detach()
    error = scale.numpy() / np.sqrt(20_000)
    np.testing.assert_array_less(abs(table["mean"] - loc.numpy()), 5 * error)
    np.testing.assert_array_less(abs(table["sd"] - scale.numpy()), 5 * error)
    normal = torch.distributions.Normal(loc, scale)
    for column, level in (("q05", 0.05), ("q95", 0.95)):
        quantile = normal.icdf(torch.tensor(level)).numpy()
        np.testing.assert_array_less(abs(table[column] - quantile), 12 * error)
    np.testing.assert_allclose(table["snr"], abs(table["mean"]) / table["sd"], rtol=1e-5)


@pytest.mark.parametrize("restarts", [1, 2])
def test_a_row_for_each_weight_has_the_label_and_the_moments_of_arviz(restarts):
    posterior = shared_fit(restarts=restarts)
    names = ["0.weight", "noise_scale"]
    table = posterior.summary(names, n_draws=100, seed=3)
    draws = posterior.draws(100, seed=3)
    tree = arviz_base.from_dict({"posterior": {name: draws[name].numpy()[None] for name in names}})
    expected = arviz_stats.summary(tree, kind="stats", ci_prob=0.9, ci_kind="eti", round_to="none")
    assert table.index.tolist() == expected.index.tolist()
    np.testing.assert_allclose(table["mean"], expected["mean"], rtol=1e-5)
    np.testing.assert_allclose(table["sd"], expected["sd"], rtol=0.01)
    np.testing.assert_allclose(table[["q05", "q95"]], expected.iloc[:, 2:4], rtol=0.2, atol=0.02)


def test_a_site_is_the_pool_of_its_weights():
    posterior = shared_fit()
    draws = posterior.draws(50, seed=1)
    table = posterior.summary(n_draws=50, seed=1, level=0.5)
    assert table.index.tolist() == list(draws)
    assert table.columns.tolist() == ["size", "mean", "sd", "q25", "q75", "snr"]
    for name, values in draws.items():
        row, pooled = table.loc[name], values.numpy().ravel()
        assert row["size"] == values[0].numel()
        quantiles = np.quantile(pooled, [0.25, 0.75])
        expected = [pooled.mean(), pooled.std(ddof=1), *quantiles]
        np.testing.assert_allclose(row[["mean", "sd", "q25", "q75"]].astype(float), expected, 1e-5)
        ratios = (values.mean(0).abs() / values.std(0)).numpy()
        np.testing.assert_allclose(row["snr"], np.median(ratios), rtol=1e-5)


def test_the_signal_to_noise_ratio_is_taken_within_each_chain():
    posterior = shared_fit(restarts=2)
    weights = posterior.draws(60, seed=2)["0.weight"].numpy().reshape(60, -1)
    ratios = [abs(part.mean(0)) / part.std(0, ddof=1) for part in (weights[:30], weights[30:])]
    table = posterior.summary(n_draws=60, seed=2)
    np.testing.assert_allclose(table.loc["0.weight", "snr"], np.median(ratios), rtol=1e-5)


def test_rows_are_sites_without_names_and_weights_with_them():
    posterior = shared_fit()
    assert posterior.summary(seed=0).index.tolist()[0] == "0.weight"
    assert posterior.summary("0.weight", seed=0).index.tolist()[:2] == [
        "0.weight[0, 0]",
        "0.weight[0, 1]",
    ]
    assert posterior.summary("*.bias", by="site").index.tolist() == ["0.bias", "2.bias"]
    assert len(posterior.summary(by="weight")) == 22
    assert posterior.summary("noise_scale").index.tolist() == ["noise_scale"]


def test_learned_scales_are_rows_too():
    network = small_network(prior=priors.Normal("learned"))
    table = quick_fit(network).summary(n_draws=20, seed=0)
    assert table.loc["0.weight_scale", "size"] == 1
    assert table.loc["0.weight_scale", "q05"] > 0


def test_the_default_table_of_a_deep_network_has_fewer_than_30_lines():
    network = BayesianNetwork(mlp(3, [4] * 12, 1))
    posterior, _ = exact_posterior(network)
    assert str(posterior.summary(seed=0)).count("\n") < 29


def test_pruned_weights_have_no_signal_and_no_noise():
    posterior = prune(shared_fit(), 0.5)
    table = posterior.summary("?.*", seed=0)
    sites = posterior.draws(2, seed=0).items()
    weights = torch.cat([draws.flatten(1) for name, draws in sites if "." in name], 1)
    is_pruned = (weights == 0).all(0).numpy()
    assert is_pruned.sum() == 10
    np.testing.assert_array_equal(table["sd"] == 0, is_pruned)
    assert table["snr"][is_pruned].isna().all()
    assert (table["mean"][is_pruned] == 0).all()


def test_a_summary_is_repeatable_and_leaves_the_random_state():
    posterior, state = shared_fit(), torch.get_rng_state()
    assert posterior.summary(seed=4).equals(posterior.summary(seed=4))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"var_names": "0.wieght"}, r"`var_names` must be one of .*: did you mean '0.weight'\?"),
        ({"var_names": ["*.bias", "3.*"]}, r"`var_names` must be one of .* got '3\.\*'"),
        ({"var_names": [0]}, "`var_names` must be strings, got 0"),
        ({"var_names": []}, "`var_names` must name at least one site"),
        ({"by": "layer"}, "`by` must be one of site, weight, or None, got 'layer'"),
        ({"level": 90}, r"`level` must be a probability in \(0, 1\), got 90"),
        ({"n_draws": 1}, "`n_draws` must be at least 2, got 1"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        shared_fit().summary(**arguments)


PLOTS = {
    "history": lambda plot: plot.history(),
    "snr": lambda plot: plot.snr(n_draws=20),
    "weights": lambda plot: plot.weights("0.weight"),
    "khat": lambda plot: plot.khat(X, Y, seed=0),
}


@pytest.mark.filterwarnings("ignore:Estimated shape parameter")
@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_that_of_the_function_of_its_name(name, monkeypatch):
    import matplotlib.pyplot as plt

    from pyrobbb import plots

    called = []
    function = getattr(plots, f"plot_{name}")

    def record(*args, **options):
        called.append(args)
        return function(*args, **options)

    monkeypatch.setattr(plots, f"plot_{name}", record)
    posterior = shared_fit()
    axes = PLOTS[name](posterior.plot)
    assert len(called) == 1
    assert axes.has_data()
    if name in ("snr", "weights"):
        assert called[0][0] is posterior
    plt.close("all")


@cache
def mean_of_tree():
    return shared_fit().to_arviz(X, Y, seed=5, sites=[])["posterior"]["mean"]


@pytest.mark.parametrize("name", ["forest", "ppc", "loo_pit", "khat"])
def test_plots_of_trees_receive_the_tree_of_the_posterior(name, monkeypatch):
    from pyrobbb import plots

    received = {}

    def record(tree, *args, **options):
        received.update(tree=tree, args=args, options=options)

    monkeypatch.setattr(plots, f"plot_{name}", record)
    names = (["mean"],) if name == "forest" else ()
    posterior = shared_fit()
    getattr(posterior.plot, name)(X, Y, *names, seed=5, level=0.5)
    assert received["args"] == names
    assert received["options"] == {"level": 0.5}
    np.testing.assert_array_equal(received["tree"]["posterior"]["mean"], mean_of_tree())


def test_every_plot_of_a_posterior_has_a_method():
    from inspect import signature

    from pyrobbb import plots

    methods = [name for name in dir(shared_fit().plot) if not name.startswith("_")]
    subjects = {
        name.removeprefix("plot_"): next(iter(signature(getattr(plots, name)).parameters))
        for name in plots.__all__
        if name.startswith("plot_")
    }
    expected = [n for n, first in subjects.items() if first in ("posterior", "history", "tree")]
    assert methods == sorted(expected)


def test_the_history_of_one_of_several_chains_is_chosen_by_its_number():
    posterior = shared_fit(restarts=2)
    with pytest.raises(AttributeError, match=r"choose one, as in posterior\.chains\[0\]\.history"):
        posterior.plot.history()
    line = posterior.plot.history(1).get_lines()[0].get_ydata()
    np.testing.assert_allclose(line, posterior.chains[1].history.per_epoch().nelbo)
