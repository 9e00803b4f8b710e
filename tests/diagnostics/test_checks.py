"""The diagnosis detects each kind of failure, and reports what it has not measured."""

import copy
import html
import math

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
import xarray
from conjugate import LinearRegression
from support import noisy_sine
from torch.distributions import SigmoidTransform

from pyrobbb import BayesianNetwork, Calibration, Posterior, fit, likelihoods, mlp, priors, scores
from pyrobbb.diagnostics import Check, Diagnosis, diagnose
from pyrobbb.diagnostics.measurements import Measurement, restarts
from pyrobbb.diagnostics.wording import FOR_ANY_CHECK, WORDING

pytestmark = pytest.mark.arviz

X, Y = noisy_sine()


@pytest.fixture(scope="module")
def collapsed():
    network = BayesianNetwork(mlp(1, [100], 1, seed=0), priors.FanInNormal())
    return fit(network, X, Y, kl_warmup=0.0, seed=0, engine="fused", progress=False)


def test_a_good_fit_has_good_verdicts(good):
    diagnosis = good.diagnose(X, Y, n_draws=500, seed=0)
    assert diagnosis.ok
    assert diagnosis["ELBO"].verdict == "good"
    assert diagnosis["scales of the weights"].verdict == "good"
    assert diagnosis["fit against a constant"].verdict == "good"
    for key in ("restarts", "dead_units", "weights_at_prior"):
        assert diagnosis[key].verdict in ("good", "info")
    assert diagnosis["k-hat of the weights"].verdict == "info"
    assert diagnosis["90% intervals"].verdict in ("good", "doubtful")


def test_a_collapsed_posterior_is_detected(collapsed):
    diagnosis = diagnose(collapsed, X, Y, n_draws=300, seed=0)
    assert not diagnosis.ok
    for name in ("fit against a constant", "dead hidden units"):
        assert diagnosis[name].verdict == "bad"
        assert "Collapsed" in diagnosis[name].meaning


def test_a_fit_that_is_too_short_is_detected(short):
    diagnosis = diagnose(short, X, Y, n_draws=300, seed=0)
    check = diagnosis["ELBO"]
    assert check.verdict == "bad"
    assert "Not converged" in check.meaning
    assert "Try epochs=10000" in check.advice
    assert diagnosis["scales of the weights"].verdict == "doubtful"


def test_ratios_that_are_nan_are_detected(short):
    broken = copy.deepcopy(short)
    with torch.no_grad():
        broken.guide.loc[0] = math.inf
    diagnosis = diagnose(broken, X, Y, n_draws=100, seed=0)
    assert diagnosis["k-hat of the weights"].verdict == "bad"
    assert diagnosis["PSIS-LOO"].verdict == "not measured"
    assert not diagnosis.ok


def test_agreement_of_restarts_is_not_measured_for_a_single_fit(short):
    check = diagnose(short, X, Y, n_draws=100, seed=0)["agreement of restarts"]
    assert check.verdict == "not measured"
    assert "restarts=4" in check.advice


def test_convergence_is_not_measured_without_a_history():
    exact = LinearRegression.simulate(n=40, seed=0)
    diagnosis = diagnose(exact.posterior(), exact.x, exact.y, n_draws=500, seed=0)
    assert diagnosis["ELBO"].verdict == "not measured"
    assert diagnosis["k-hat of the weights"].verdict == "good"
    assert diagnosis["PSIS-LOO"].verdict == "good"
    assert "converged" not in str(diagnosis).replace("Not converged", "")


def test_the_table_has_one_verdict_per_row(short):
    diagnosis = diagnose(short, X, Y, n_draws=100, seed=0)
    table = diagnosis.table
    assert list(table.columns) == ["value", "verdict", "meaning", "advice"]
    verdicts = {"good", "doubtful", "bad", "not measured", "info"}
    assert set(table["verdict"]) <= verdicts
    assert all(table["meaning"].str.endswith((".", "only.")))
    for name in table.index:
        assert name in str(diagnosis)
        assert html.escape(name) in diagnosis._repr_html_()


def test_a_seed_makes_the_diagnosis_repeatable(short):
    one, other = (str(diagnose(short, X, Y, n_draws=100, seed=3)) for _ in range(2))
    assert one == other


def test_test_data_are_scored_instead_of_training_data(short):
    diagnosis = diagnose(short, X, Y, test=noisy_sine(seed=1), n_draws=100, seed=0)
    assert "(test data)" in diagnosis["90% intervals"].value
    with pytest.raises(ValueError, match="`y` must have the shape of the prediction"):
        diagnose(short, X, Y, test=(X, Y[:, 0]), n_draws=100)


def test_a_classification_is_diagnosed():
    labels = (X[:, 0] > 0).astype(int)
    network = BayesianNetwork(mlp(1, [5], 2, seed=0), likelihood=likelihoods.Categorical())
    posterior = fit(network, X, labels, epochs=400, seed=0, engine="fused", progress=False)
    diagnosis = diagnose(posterior, X, labels, n_draws=200, seed=0)
    assert diagnosis["fit against a constant"].verdict == "good"
    assert "Brier" in diagnosis["scores"].value
    assert "calibration of classes" in diagnosis.table.index


def separable(n, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    return rng.normal(3 * np.eye(3)[labels], 0.5), labels


@pytest.mark.parametrize("hidden", [pytest.param((5,), marks=pytest.mark.slow), (50,)])
def test_a_classifier_without_an_error_has_no_doubtful_verdict(hidden):
    x, labels = separable(90)
    network = BayesianNetwork(mlp(3, hidden, 3, seed=0), likelihood=likelihoods.Categorical())
    options = {"epochs": 1500, "restarts": 2, "engine": "fused"}
    posterior = fit(network, x, labels, **options, seed=0, progress=False)
    diagnosis = diagnose(posterior, x, labels, test=separable(300, 1), n_draws=200, seed=0)
    assert "error 0" in diagnosis["scores"].value
    verdicts = {check.key: check.verdict for check in diagnosis.checks}
    assert {verdicts[key] for key in ("skill", "restarts", "class_calibration")} == {"good"}
    assert "doubtful" not in verdicts.values(), verdicts


@pytest.mark.parametrize(("distance", "verdict"), [(0.2, "good"), (1.5, "doubtful")])
def test_fits_disagree_if_averaging_them_gains_more_than_a_twentieth_of_a_nat(distance, verdict):
    rng = np.random.default_rng(0)
    y, sign = rng.normal(size=30), np.array([1, -1]).reshape(2, 1, 1)
    mean = sign * distance + 1e-3 * rng.normal(size=(2, 100, 30))  # of two fits, with sd 1 of y
    dims = ("chain", "draw", "row")
    log_density = scipy.stats.norm.logpdf(y, mean)
    tree = xarray.DataTree.from_dict(
        {
            "posterior": xarray.Dataset({"mean": (dims, mean)}),
            "log_likelihood": xarray.Dataset({"y": (dims, log_density)}),
        }
    )
    check = Check.of(restarts(tree))
    assert check.verdict == verdict
    densities = [scipy.stats.norm.logpdf(y, sign * distance) for sign in (1, -1)]
    gain = (np.logaddexp(*densities) - np.log(2) - np.mean(densities, 0)).mean()
    assert f"averaging gains {gain:.2g} nats per row" in check.value
    assert "above 1.1 at 100% of rows" in check.value


@pytest.mark.parametrize("n_layers", [1, 2])
def test_a_large_khat_is_doubtful_for_a_single_layer_only(n_layers):
    x = np.random.default_rng(0).normal(size=(60, 1)) * np.ones((60, 4))  # weights are correlated
    hidden = [4] * (n_layers - 1)
    network = BayesianNetwork(mlp(4, hidden, 1, seed=0), likelihood=likelihoods.Gaussian(0.1))
    posterior = fit(network, x, x[:, :1], epochs=400, seed=0, engine="fused", progress=False)
    diagnosis = diagnose(posterior, x, x[:, :1], n_draws=200, seed=0)
    assert diagnosis["khat"].verdict == ("doubtful" if n_layers == 1 else "info")


def test_predictions_of_others_are_scored_in_their_units(short):
    narrow = Calibration.of([1e-6] * 99)
    prediction = short.predict(X, 100, 0).rescaled(5.0, 10.0).calibrated(narrow)
    y = 5 + 10 * Y
    diagnosis = diagnose(short, X, Y, scored=(prediction, y), n_draws=100, seed=0)
    assert f"RMSE {scores.rmse(prediction, y):.4g}" in diagnosis["scores"].value
    assert f"cover {scores.coverage(prediction, y):.1%}" in diagnosis["intervals"].value
    assert diagnosis["intervals"].verdict == "bad"


@pytest.mark.parametrize("name", [None, "other rows"])
def test_calibrated_intervals_wider_than_the_rows_of_the_fit_need_are_no_doubt(short, name):
    wide = short.predict(X, 100, 0).calibrated(Calibration.of([0.999] * 99))
    diagnosis = diagnose(short, X, Y, scored=(wide, Y), data_name=name, n_draws=100, seed=0)
    assert diagnosis["intervals"].verdict == ("info" if name is None else "doubtful")


def test_a_check_is_found_by_its_key_and_by_its_name():
    check = Check("elbo", "ELBO", "-", "info", "Nothing.")
    diagnosis = Diagnosis((check,), None, None)
    assert diagnosis["elbo"] is diagnosis["ELBO"] is check
    with pytest.raises(KeyError, match="loo"):
        diagnosis["loo"]


def test_every_outcome_has_a_wording():
    names = [wording.name for wording in WORDING.values()]
    assert len(set(names)) == len(names)
    for key, wording in WORDING.items():
        for outcome, phrase in (wording.outcomes | FOR_ANY_CHECK).items():
            measurement = Measurement(key, outcome, reason="It {failed}.", data="test data")
            check = Check.of(measurement)
            assert (check.key, check.name, check.value) == (key, wording.name, "-")
            assert check.verdict == phrase.verdict
            assert check.meaning.endswith(".")
            assert ("{reason}" in phrase.meaning) == ("It {failed}." in check.meaning)
            assert ("{data}" in phrase.meaning) == ("test data" in check.meaning)


def test_checks_that_need_the_objective_are_not_measured_if_one_chain_is_weighted(short):
    network = BayesianNetwork(mlp(1, [20], 1, "tanh", seed=0))
    weighted = fit(network, X, Y, sample_weight=np.ones(len(X)), epochs=2, seed=0, progress=False)
    posterior = Posterior(short.chains + weighted.chains)
    diagnosis = diagnose(posterior, X, Y, n_draws=100, seed=0)
    for key in ("elbo", "khat", "loo"):
        assert diagnosis[key].verdict == "not measured"
        assert "`sample_weight`" in diagnosis[key].meaning
    assert diagnosis["scales"].verdict == "not measured"


@pytest.mark.slow
def test_scales_that_are_still_too_wide_are_detected_and_the_epochs_to_try_are_enough():
    exact = LinearRegression.simulate(n=2000, seed=0)
    scale = torch.linalg.inv(exact.exact()[1]).diagonal().rsqrt()  # the mean-field optimum
    options = {"batch_size": 500, "seed": 0, "progress": False}
    short = fit(exact.network, exact.x, exact.y, epochs=250, **options)
    ratio = short.guide.scale.detach() / scale
    assert ratio.max() > 1.2
    check = diagnose(short, exact.x, exact.y, n_draws=100, seed=0)["scales of the weights"]
    assert check.verdict == "doubtful"
    assert "Too short a fit" in check.meaning
    epochs = int(check.value.split("try epochs=")[1])
    longer = fit(exact.network, exact.x, exact.y, epochs=epochs, **options)
    torch.testing.assert_close(longer.guide.scale.detach(), scale, rtol=0.15, atol=0.0)
    check = diagnose(longer, exact.x, exact.y, n_draws=100, seed=0)["scales of the weights"]
    assert check.verdict == "good"


@pytest.mark.parametrize(
    ("likelihood", "has_mean"),
    [
        (lambda o: dist.Cauchy(o, 1.0), False),
        (lambda o: dist.StudentT(1.5, o, 1.0), True),
        (lambda o: dist.LogNormal(o, 1.5), True),
        (lambda o: dist.HalfCauchy(o.exp()), False),
        (lambda o: dist.Kumaraswamy(o.exp(), torch.ones_like(o)), True),
        (lambda o: dist.VonMises(o, torch.ones_like(o)), True),
        (lambda o: dist.TransformedDistribution(dist.Normal(o, 1.0), [SigmoidTransform()]), True),
        (lambda o: dist.Geometric(logits=o), True),
    ],
)
def test_any_likelihood_is_diagnosed(likelihood, has_mean):
    y = torch.linspace(0.1, 0.9, 30).reshape(-1, 1)
    if likelihood(y).support.is_discrete:
        y = (10 * y).floor()
    x = y.log()
    network = BayesianNetwork(mlp(1, [2], 1, seed=0), likelihood=likelihood)
    posterior = fit(network, x, y, epochs=20, seed=0, engine="fused", progress=False)
    diagnosis = diagnose(posterior, x, y, n_draws=100, seed=0)
    assert ("RMSE" in diagnosis["scores"].value) == has_mean
    assert "CRPS" in diagnosis["scores"].value
    assert diagnosis["scores"].verdict == "info"
    assert diagnosis["90% intervals"].verdict != "not measured"
    assert (diagnosis["skill"].verdict == "not measured") != has_mean
