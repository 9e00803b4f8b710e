"""Plots refuse what they cannot draw, and name the argument."""

import numpy as np
import pytest
import xarray
from support import X, Y, quick_fit, shared_fit, small_network

from pyrobbb import likelihoods, plots
from pyrobbb.posterior import prune

LABELS = np.arange(len(X)) % 3
LINE = X[:, :1]


@pytest.fixture(scope="module")
def made():
    posterior = shared_fit()
    classes = quick_fit(small_network(3, likelihood=likelihoods.Categorical()), y=LABELS)
    two = quick_fit(small_network(2), y=np.c_[Y, Y])
    return {
        "posterior": posterior,
        "regression": posterior.predict(X, 20, seed=0),
        "classes": classes.predict(X, 20, seed=0),
        "two": two.predict(X, 20, seed=0),
        "tree": posterior.to_arviz(X, Y, n_draws=20, seed=0),
        "two tree": two.to_arviz(X, np.c_[Y, Y], n_draws=20, seed=0),
    }


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: plots.plot_band(X, m["regression"]), "`x` must hold 23 numbers, .*, got 69"),
        (lambda m: plots.plot_parts(LINE[:5], m["regression"]), "`x` must hold 23 numbers, .* 5"),
        (lambda m: plots.plot_band(LINE, m["two"]), r"`x` must hold 46 numbers, .*column\(j\)"),
        (lambda m: plots.plot_parts(LINE, m["two"]), r"`x` must hold 46 numbers, .*column\(j\)"),
        (lambda m: plots.plot_band(LINE * np.nan, m["regression"]), r"`x` has 23 value\(s\) that"),
        (lambda m: plots.plot_band(LINE, m["regression"], level=2), "`level` must be a prob"),
        (
            lambda m: plots.plot_band(LINE, m["regression"], data=(LINE, Y[:3])),
            "`data` must have as many x as y, got 23 and 3",
        ),
        (lambda m: plots.plot_intervals(m["regression"], Y[:5]), "`y` must hold 23 numbers"),
        (lambda m: plots.plot_intervals(m["regression"], Y * np.nan), r"`y` has 23 value\(s\)"),
        (lambda m: plots.plot_coverage(m["regression"], Y * np.nan), r"`y` has 23 value\(s\)"),
        (lambda m: plots.plot_coverage(m["regression"], Y[:5]), "`y` must hold 23 numbers"),
        (lambda m: plots.plot_uncertainty(m["classes"], [1, 2]), "`y` must hold 23 classes"),
        (lambda m: plots.plot_uncertainty(m["classes"], LABELS + 1), "indices from 0 to 2, got 3"),
        (
            lambda m: plots.plot_reliability(m["classes"], LABELS - 1),
            "0 to 2, got -1 in row 0",
        ),
        (lambda m: plots.plot_reliability(m["classes"], LABELS / 2), "from 0 to 2, got 0.5 in row"),
        (lambda m: plots.plot_snr(m["posterior"], n_draws=1), "`n_draws` must be at least 2"),
        (
            lambda m: plots.plot_weights(prune(m["posterior"], 0.98), "0.bias"),
            "`name` '0.bias' has no weights left to plot",
        ),
        (lambda m: plots.plot_ppc(m["tree"], n_draws=0), "`n_draws` must be at least 1"),
        (lambda m: plots.plot_loo_pit(m["tree"], level=1.0), "`level` must be a probability"),
        (lambda m: plots.plot_loo_pit(m["two tree"]), "`tree` must have one column of y, got 2"),
        (lambda m: plots.plot_forest(m["tree"], ["slope"]), "`var_names` must be among .* 'slope'"),
        (lambda m: plots.plot_forest(m["tree"], []), "`var_names` must be among .*, got none"),
    ],
)
def test_values_that_do_not_fit_the_plot_are_refused(call, message, made):
    with pytest.raises(ValueError, match=message) as raised:
        call(made)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: plots.plot_band(LINE, m["classes"]), "`prediction` must be a RegressionPred"),
        (lambda m: plots.plot_parts(LINE, m["posterior"]), "`prediction` .*, got a Posterior"),
        (lambda m: plots.plot_intervals(m["classes"], Y), "`prediction` must be a Regression"),
        (lambda m: plots.plot_coverage(m["classes"], Y), "`prediction` must be a Regression"),
        (lambda m: plots.plot_uncertainty(m["regression"], Y), "`prediction` must be a Class"),
        (lambda m: plots.plot_reliability(m["regression"], Y), "`prediction` must be a Class"),
        (lambda m: plots.plot_intervals(m["regression"], None), "`y` must be an array of numbers"),
        (lambda m: plots.plot_uncertainty(m["classes"], ["a"] * 23), "`y` must hold numbers"),
        (lambda m: plots.plot_band(LINE, m["regression"], data=LINE), r"`data` must be a pair"),
        (lambda m: plots.plot_band(LINE, m["regression"], ax=3), "`ax` must be Axes of matplotlib"),
        (lambda m: plots.plot_history(m["posterior"]), "`history` must be a History, got a Post"),
        (lambda m: plots.plot_snr(m["regression"]), "`posterior` must be a Posterior, got a Regr"),
        (lambda m: plots.plot_weights(None, "0.bias"), "`posterior` must be a Posterior, got a No"),
        (lambda m: plots.plot_sbc(m["tree"]), "`sbc` must be a SBC"),
        (lambda m: plots.plot_nuts(m["tree"]), "`comparison` must be a NUTSComparison"),
    ],
)
def test_objects_of_another_type_are_refused(call, message, made):
    with pytest.raises(TypeError, match=message):
        call(made)


@pytest.mark.parametrize(
    "plot",
    [
        plots.plot_ppc,
        plots.plot_loo_pit,
        plots.plot_khat,
        lambda tree: plots.plot_forest(tree, ["mean"]),
    ],
)
def test_a_tree_is_needed_with_the_groups_of_the_plot(plot, made):
    with pytest.raises(TypeError, match=r"`tree` must be a DataTree, got .*: make it with"):
        plot(made["posterior"])
    with pytest.raises(ValueError, match=r"`tree` has no group .*: make it with"):
        plot(xarray.DataTree())


def test_y_may_be_a_column_or_a_vector(made):
    for y in (Y, Y[:, 0], Y.tolist()):
        assert len(plots.plot_intervals(made["regression"], y).lines) == 3
