"""Rows of a prediction: its length, slices, masks and frames."""

import functools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch
from members import LIKELIHOODS
from support import QUICK_ESTIMATOR, X, Y, noisy_sine, quick_fit, small_network

from pyrobbb import BBBClassifier, BBBRegressor, RegressionPrediction

equal = functools.partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-12)  # rounding only
LABELS = (X.sum(1) > 0).astype(int)
INDICES = {
    "slice": slice(3, 11),
    "slice from the end": slice(-4, None),
    "backward": slice(None, None, -2),
    "mask": np.arange(23) % 3 == 0,
    "list": [0, 5, 5, 22],
    "any order": np.array([22, 0, 7, 7, 3]),
    "negative": [-1, 2],
    "tensor": torch.tensor([4, 1]),
    "number": 7,
}
QUANTITIES = {
    "regression": ("mean", "sd", "epistemic_sd", "aleatoric_sd"),
    "classification": ("probs", "label", "entropy", "mutual_information"),
}


@functools.cache
def posterior_of(kind):
    if kind == "regression":
        return quick_fit(epochs=1)
    return quick_fit(small_network(2, likelihood="categorical"), y=LABELS, epochs=1)


def positions(index):
    at = np.arange(23)[index]
    return np.atleast_1d(at)


@pytest.mark.parametrize("max_memory", [2**30, 2**14], ids=["one chunk", "many chunks"])
@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("kind", QUANTITIES)
def test_the_prediction_of_some_rows_has_these_rows_of_all_results(kind, index, max_memory):
    posterior = posterior_of(kind)
    whole = posterior.predict(X, 20, seed=0, max_memory=max_memory)
    if max_memory == 2**14:
        assert len(list(whole._distributions)) > 2
    some, at = whole[INDICES[index]], positions(INDICES[index])
    assert len(whole) == 23
    assert len(some) == len(at)
    for name in QUANTITIES[kind]:
        equal(getattr(some, name), getattr(whole, name)[at])
    y = Y if kind == "regression" else LABELS
    equal(some.log_prob(y[at]), whole.log_prob(y)[at])
    assert some.sample(0).shape == whole.sample(0)[:, at].shape
    if kind == "regression":
        equal(some.quantile([0.1, 0.7]), whole.quantile([0.1, 0.7])[:, at])
        equal(some.cdf(Y[at]), whole.cdf(Y)[at])


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_every_likelihood_can_be_sliced_and_sliced_again(name):
    member = LIKELIHOODS[name]
    network = small_network(member.n_units, likelihood=member.likelihood)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        y = member.y.sample((23,)).numpy()
    posterior = quick_fit(network, y=y, epochs=1)
    whole = posterior.predict(X, 5, seed=0)
    some = whole[[9, 2, 5, 5]][1:3]
    np.testing.assert_allclose(some.log_prob(y[[2, 5]]), whole.log_prob(y)[[2, 5]], rtol=1e-6)


def test_a_matrix_that_all_rows_share_is_kept():
    tril = torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    loc = torch.arange(24.0).reshape(3, 4, 2)
    whole = RegressionPrediction([dist.MultivariateNormal(loc, scale_tril=tril)], np.empty(0))
    some, y = whole[[3, 1]], np.ones((4, 2))
    equal(some.mean, whole.mean[[3, 1]])
    np.testing.assert_allclose(some.log_prob(y[:2]), whole.log_prob(y)[[3, 1]], rtol=1e-6)


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (slice(0, 0), IndexError, "at least one row, and the index selects none"),
        (
            (0, 1),
            TypeError,
            "takes a slice, an array of integers or a boolean mask of its rows, got",
        ),
        ([], TypeError, "takes a slice, an array of integers or a boolean mask of its rows, got"),
        (23, IndexError, "This prediction has 23 rows, got 23"),
        ([0, -24], IndexError, "This prediction has 23 rows, got -24"),
        (np.ones(5, bool), IndexError, r"must have the shape \(23,\), got \(5,\)"),
        ("mean", TypeError, "got 'mean'"),
        (None, TypeError, "got None"),
        (np.zeros((2, 2), int), TypeError, "got "),
        ([0.5], TypeError, "got "),
    ],
)
def test_an_index_that_selects_no_rows_is_refused(index, error, message):
    with pytest.raises(error, match=message):
        posterior_of("regression").predict(X, 2, seed=0)[index]


def test_derived_predictions_are_sliced_alike():
    whole = posterior_of("regression").predict(X, 20, seed=0).rescaled(3.0, 2.0)
    whole.sd  # noqa: B018  # cached, which the slice must not inherit
    equal(whole[4:6].sd, whole.sd[4:6])
    equal(whole.column(0)[4:6].mean, whole.column(0).mean[4:6])
    assert len(whole.column(0)) == 23


def test_a_frame_has_the_results_and_the_index_of_the_frame_predicted():
    index = pd.Index([f"house {i}" for i in range(23)], name="address")
    prediction = posterior_of("regression").predict(pd.DataFrame(X, index=index), 20, seed=0)
    frame = prediction[5:8].to_frame()
    assert frame.index.tolist() == ["house 5", "house 6", "house 7"]
    assert frame.index.name == "address"
    names = ["mean", "sd", "aleatoric_sd", "epistemic_sd", "q05", "q50", "q95"]
    assert frame.columns.tolist() == [f"{name}_0" for name in names]
    equal(frame["mean_0"], prediction.mean[5:8, 0])
    equal(frame["q95_0"], prediction.quantile(0.95)[5:8, 0])
    one = prediction.column(0).to_frame(quantiles=[0.975])
    assert one.columns.tolist() == ["mean", "sd", "aleatoric_sd", "epistemic_sd", "q97.5"]
    assert posterior_of("regression").predict(X, 2, seed=0).to_frame(()).index.tolist() == [
        *range(23)
    ]


def test_frames_of_classes_have_a_column_for_each_probability():
    frame = posterior_of("classification").predict(torch.tensor(X), 20, seed=0).to_frame()
    assert frame.columns.tolist() == ["label", "p_0", "p_1", "entropy", "mutual_information"]
    np.testing.assert_allclose(frame.p_0 + frame.p_1, 1)
    binary = quick_fit(small_network(likelihood="bernoulli"), y=LABELS[:, None], epochs=1)
    frame = binary.predict(X, 20, seed=0).to_frame()
    assert frame.columns.tolist() == ["label_0", "p_1_0", "entropy_0", "mutual_information_0"]


@pytest.mark.parametrize("kind", [BBBRegressor, BBBClassifier])
def test_an_estimator_keeps_the_index_and_the_labels(kind):
    x, y = noisy_sine(30)
    y = y[:, 0] if kind is BBBRegressor else np.where(y[:, 0] > 0, "high", "low")
    options = {**QUICK_ESTIMATOR, "epochs": 2}
    if kind is BBBRegressor:
        options["likelihood"] = "gaussian"
    x = pd.DataFrame(x, columns=["x"], index=pd.date_range("2020-01-01", periods=30))
    model = kind(**options).fit(x, y)
    prediction = model.predict_distribution(x)
    assert len(prediction) == 30
    frame = prediction.to_frame()
    assert frame.index.equals(x.index)
    if kind is BBBRegressor:
        equal(frame["mean"], model.predict(x))
        equal(frame["q05"], model.predict_interval(x)[0])
    else:
        assert frame.columns[:3].tolist() == ["label", "p_high", "p_low"]
        assert frame.label.tolist() == model.predict(x).tolist()


def test_plots_are_those_of_plots():
    regression = posterior_of("regression").predict(X, 5, seed=0)
    axes = regression.plot()
    assert axes.get_xlabel() == "row"
    assert regression.plot(X[:, 0]).get_xlabel() != "row"
    for drawn in (regression.plot(X[:, 0], Y), regression.plot(y=Y, level=0.5)):
        assert drawn.figure is not axes.figure
    classes = posterior_of("classification").predict(X, 5, seed=0)
    assert [len(classes.plot(y).containers) for y in (None, LABELS)] == [1, 2]
    plt.close("all")
