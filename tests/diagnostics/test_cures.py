"""The advice of a diagnosis: a fit that follows it passes the check that named it."""

import numpy as np
import pytest
from support import noisy_sine, posterior_of, shared_fit

from pyrobbb import BayesianNetwork, Posterior, fit, likelihoods, mlp, priors
from pyrobbb.diagnostics import cures, diagnose
from pyrobbb.diagnostics.checks import Check
from pyrobbb.diagnostics.measurements import kl_range
from pyrobbb.diagnostics.wording import WORDING

pytestmark = pytest.mark.arviz
SLOW = pytest.mark.slow


def noisy_rows(n, seed, n_inputs=3, sd=1.0):
    """Return rows with noise, by default of about the standard deviation of their mean."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, n_inputs))
    return x, np.sin(2 * x[:, :1]) + 0.5 * x[:, -1:] + sd * rng.normal(size=(n, 1))


def refit(network, x, y, **options):
    options = {"epochs": 600, "engine": "fused", "seed": 0, "progress": False, **options}
    return fit(network, x, y, **options)


def examine(posterior, x, y, **options):
    return diagnose(posterior, x, y, n_draws=100, seed=0, **options)


COLLAPSED = {
    "one layer": (noisy_sine(60), [100]),
    "two layers": (noisy_rows(60, 0, sd=0.3), [50, 50]),
}


@pytest.mark.parametrize("case", [pytest.param("one layer", marks=SLOW), "two layers"])
def test_a_collapsed_fit_is_cured_by_the_kl_weight_that_the_verdict_names(case):
    (x, y), hidden = COLLAPSED[case]
    network = BayesianNetwork(mlp(x.shape[1], hidden, 1, seed=0), priors.FanInNormal())
    check = examine(refit(network, x, y, kl_warmup=0.0), x, y)["skill"]
    assert check.verdict == "bad"
    assert "kl_weight=0.1" in check.advice
    assert check.cure["kl_weight"] == 0.1
    cured = examine(refit(network, x, y, kl_warmup=0.0, **check.cure), x, y)
    assert cured["skill"].verdict == "good"
    assert cured["weights_at_prior"].verdict != "bad"
    assert cured["dead_units"].verdict != "bad"


@pytest.mark.parametrize(("n_inputs", "seed"), [pytest.param(1, 0, marks=SLOW), (3, 1)])
def test_an_overconfident_fit_is_cured_by_the_kl_weight_that_the_verdict_names(n_inputs, seed):
    (x, y), test = noisy_rows(100, seed, n_inputs), noisy_rows(400, seed + 10, n_inputs)
    network = BayesianNetwork(mlp(n_inputs, [50], 1, seed=0))
    check = examine(refit(network, x, y, kl_weight=0.001), x, y, test=test)["intervals"]
    assert check.verdict == "bad"
    assert "kl_weight=0.5" in check.advice
    assert check.cure == {"kl_weight": 0.5}
    cured = examine(refit(network, x, y, **check.cure), x, y, test=test)
    assert cured["intervals"].verdict == "good"


def test_overconfident_classes_are_cured_by_the_kl_weight_that_the_verdict_names():
    def rows(n, seed):
        x, y = noisy_rows(n, seed)
        return x, (y[:, 0] > 0).astype(int)

    (x, labels), test = rows(100, 0), rows(400, 1)
    network = BayesianNetwork(mlp(3, [50], 2, seed=0), likelihood=likelihoods.Categorical())
    check = examine(refit(network, x, labels, kl_weight=0.001), x, labels, test=test)
    check = check["class_calibration"]
    assert check.verdict == "doubtful"
    assert "Overconfident" in check.meaning
    cured = examine(refit(network, x, labels, **check.cure), x, labels, test=test)
    assert cured["class_calibration"].verdict == "good"


def test_a_short_fit_is_cured_by_the_epochs_that_the_verdict_names(short, good):
    check = examine(short, *noisy_sine())["elbo"]
    assert check.verdict == "bad"
    assert check.cure == {"epochs": 10_000}
    assert "epochs=10000" in check.advice
    assert good.chains[0].history.n_epochs == 10_000  # the same fit with these epochs
    assert examine(Posterior(good.chains[:1]), *noisy_sine())["elbo"].verdict == "good"


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=SLOW)])
def test_a_good_fit_has_no_bad_verdict(seed):
    (x, y), test = noisy_sine(150, seed), noisy_sine(400, seed + 10)
    network = BayesianNetwork(mlp(1, [20], 1, "tanh", seed=seed))
    posterior = refit(network, x, y, epochs=2500, seed=seed)
    diagnosis = examine(posterior, x, y, test=test, kl_range=(0.05, 1.0))
    for key in ("skill", "kl_weight"):
        assert diagnosis[key].verdict == "good", key
        assert diagnosis[key].cure == {}
    for key in ("weights_at_prior", "dead_units", "intervals"):
        assert diagnosis[key].verdict != "bad", key


@pytest.mark.parametrize(
    ("weight", "searched", "verdict", "cure"),
    [
        (0.05, (0.05, 1.0), "doubtful", {"kl_weight": 0.025}),
        (0.3, (0.05, 1.0), "good", {}),
        (1.0, (0.05, 1.0), "good", {}),
        (0.5, (0.05, 0.5), "doubtful", {"kl_weight": 1.0}),
        (0.2, (0.05, 0.2), "doubtful", {"kl_weight": 0.4}),
        (0.7, (0.7, 0.7), "doubtful", {"kl_weight": 1.0}),
    ],
)
def test_a_kl_weight_at_the_end_of_its_range_names_the_next(weight, searched, verdict, cure):
    check = Check.of(kl_range(weight, searched))
    assert check.verdict == verdict
    assert check.cure == cure
    assert all(f"kl_weight={value}" in check.advice for value in cure.values())


def test_the_range_of_the_kl_weight_is_checked():
    posterior = shared_fit(kl_weight=0.5)
    x, y = np.zeros((5, 3)), np.ones((5, 1))
    assert examine(posterior, x, y, kl_range=(0.5, 1.0))["kl_weight"].verdict == "doubtful"
    with pytest.raises(KeyError):
        examine(posterior, x, y)["kl_weight"]
    for bad in ((1.0, 0.5), (0.0, 1.0), 0.5, (0.1, 0.2, 0.3)):
        with pytest.raises((TypeError, ValueError), match="`kl_range` must be"):
            examine(posterior, x, y, kl_range=bad)


def test_without_settings_the_advice_names_no_value():
    chain = shared_fit().chains[0]
    unknown = posterior_of(chain.network, chain.guide, chain.history, chain.example)
    assert cures.smaller_kl_weight(unknown.chains) == {}
    assert cures.against_overconfidence(unknown.chains) == {"restarts": 4}
    assert cures.against_overconfidence(unknown.chains * 4) == {}


@pytest.mark.parametrize(
    ("weight", "larger"),
    [(0.001, {"kl_weight": 0.5}), (0.3, {"kl_weight": 1.0}), (0.7, {"kl_weight": 1.0})],
)
def test_larger_kl_weights_are_tried_before_restarts(weight, larger):
    assert cures.against_overconfidence(shared_fit(kl_weight=weight).chains) == larger
    assert cures.against_overconfidence(shared_fit().chains) == {"restarts": 4}


def test_each_remedy_names_the_cure():
    for wording in WORDING.values():
        for phrase in wording.outcomes.values():
            assert not phrase.remedy or "{cure}" in phrase.remedy
            assert "{" not in phrase.advice
