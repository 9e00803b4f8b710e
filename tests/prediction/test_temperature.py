"""Temperatures: how they are fitted, and what they change in a prediction."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from pyrobbb.prediction import fit_temperature, make_prediction

LOGITS = np.random.default_rng(0).normal(0, 2, (6, 40, 3))
PREDICTION = make_prediction([dist.Categorical(logits=torch.tensor(LOGITS))], np.empty(0))
Y = np.arange(40) % 3


def classes(logits, rng):
    """Draw classes with these logits."""
    return (logits + rng.gumbel(size=logits.shape)).argmax(1)


def probs_of(logits):
    return np.exp(log_softmax(logits, axis=1))


@pytest.mark.parametrize("true", [0.4, 0.8, 1.5, 4.0])
def test_the_temperature_is_that_of_a_logistic_regression(true):
    rng = np.random.default_rng(1)
    z = rng.normal(0, 2, 100_000)
    y = (rng.random(len(z)) < 1 / (1 + np.exp(-z / true))).astype(int)
    logits = np.stack([np.zeros(len(z)), z], 1)
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8).fit(z[:, None], y)
    # The prior still counts a little beside 100,000 rows.
    assert fit_temperature(probs_of(logits), y) == pytest.approx(1 / model.coef_.item(), rel=4e-3)


def test_weights_count_rows_and_only_their_ratios_matter():
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 3, (40_000, 3))
    y = classes(logits / 3, rng)
    weight = rng.integers(1, 4, 40_000) * 1.0
    weighted = fit_temperature(probs_of(logits), y, weight)
    repeated = np.repeat(np.arange(40_000), weight.astype(int))
    expected = fit_temperature(probs_of(logits[repeated]), y[repeated])
    assert weighted == pytest.approx(expected, rel=1e-3)
    assert fit_temperature(probs_of(logits), y, 1e-3 * weight) == pytest.approx(weighted)


def test_a_few_correct_rows_do_not_make_probabilities_extreme():
    probs = np.array([[0.95, 0.05]] * 30)
    assert 0.4 < fit_temperature(probs, np.zeros(30, dtype=int)) <= 1


def test_correct_probabilities_are_rarely_changed_and_hardly():
    rng = np.random.default_rng(3)
    for n, most_often, factor in ((30, 0.25, 1.8), (300, 0.1, 1.4)):
        fitted = []
        for _ in range(200):
            logits = rng.normal(0, 1.5, (n, 3))
            fitted.append(fit_temperature(probs_of(logits), classes(logits, rng)))
        assert np.mean(np.array(fitted) != 1) < most_often
        assert np.mean(np.array(fitted) < 1) < most_often / 3
        assert 1 / factor < min(fitted) <= max(fitted) < factor


@pytest.mark.parametrize(("true", "lowest", "highest"), [(0.4, 0.5, 0.75), (2.5, 1.5, 2.4)])
def test_wrong_probabilities_are_mostly_corrected_in_part(true, lowest, highest):
    rng = np.random.default_rng(4)
    fitted = []
    for _ in range(50):
        logits = rng.normal(0, 3, (60, 3))
        fitted.append(fit_temperature(probs_of(logits), classes(logits / true, rng)))
    assert np.mean(np.array(fitted) != 1) > 0.9
    assert lowest < np.median(fitted) < highest


@pytest.mark.parametrize("n", [0, 1])
def test_no_temperature_is_fitted_without_two_rows(n):
    assert fit_temperature(np.full((n, 2), 0.5), np.zeros(n, dtype=int)) == 1


def test_rows_of_probability_0_have_a_finite_loss():
    probs = np.array([[1.0, 0.0]] * 40)
    assert fit_temperature(probs, np.array([0] * 30 + [1] * 10)) == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_probabilities_are_powers_of_those_of_the_mixture(temperature):
    tempered = PREDICTION.tempered(temperature)
    powers = PREDICTION.probs ** (1 / temperature)
    expected = powers / powers.sum(1, keepdims=True)
    np.testing.assert_allclose(tempered.probs, expected)
    np.testing.assert_allclose(tempered.log_prob(Y), np.log(expected[np.arange(40), Y]))
    np.testing.assert_array_equal(tempered.label, PREDICTION.label)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tempered_entropies_are_those_of_the_joint_table_of_draws_and_classes(temperature):
    tempered = PREDICTION.tempered(temperature)
    by_draw = probs_of(LOGITS.reshape(-1, 3)).reshape(LOGITS.shape)
    given_class = by_draw / by_draw.sum(0)  # of the draw
    joint = given_class * tempered.probs
    draw = joint.sum(2, keepdims=True)
    information = (joint * np.log(joint / (draw * tempered.probs))).sum((0, 2))
    np.testing.assert_allclose(tempered.mutual_information, information, rtol=1e-7, atol=1e-12)
    entropy = -(tempered.probs * np.log(tempered.probs)).sum(1)
    np.testing.assert_allclose(tempered.entropy, entropy)
    np.testing.assert_allclose(tempered.expected_entropy, entropy - information)


def test_a_temperature_of_1_changes_no_bit():
    same = PREDICTION.tempered(3.0).tempered(1.0)
    for name in ("probs", "entropy", "expected_entropy", "mutual_information"):
        np.testing.assert_array_equal(getattr(same, name), getattr(PREDICTION, name))
    np.testing.assert_array_equal(same.log_prob(Y), PREDICTION.log_prob(Y))


def test_chunks_of_rows_do_not_matter():
    parts = [dist.Categorical(logits=torch.tensor(p)) for p in np.split(LOGITS, [7, 20], axis=1)]
    chunked = make_prediction(parts, np.empty(0)).tempered(2.0)
    whole = PREDICTION.tempered(2.0)
    np.testing.assert_allclose(chunked.log_prob(Y), whole.log_prob(Y))
    np.testing.assert_allclose(chunked.expected_entropy, whole.expected_entropy)


@pytest.mark.parametrize(
    "distribution",
    [
        dist.Bernoulli(logits=torch.tensor(LOGITS)).to_event(1),
        dist.Categorical(logits=torch.tensor(LOGITS)[..., None, :]).to_event(1),
    ],
)
def test_only_a_single_label_a_row_has_a_temperature(distribution):
    prediction = make_prediction([distribution], np.empty(0))
    with pytest.raises(ValueError, match="`temperature` needs a Categorical likelihood with one"):
        prediction.tempered(2.0)


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan])
def test_a_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="`temperature` must be"):
        PREDICTION.tempered(temperature)
