"""Scores against closed forms, scikit-learn, scoringrules and small cases worked out by hand."""

import inspect

import numpy as np
import pytest
import scoringrules
import torch
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score, roc_curve
from torch.distributions import Bernoulli, Categorical, Independent, Normal

from pyrobbb import ClassificationPrediction, RegressionPrediction, scores

RNG = np.random.default_rng(0)
MEAN, Y = RNG.normal(size=500), RNG.normal(size=500)


def normal(mean, sd):
    mean = torch.as_tensor(mean)[None]
    return RegressionPrediction([Normal(mean, torch.full_like(mean, sd))], np.empty(0))


def classes(probs):
    return ClassificationPrediction([Categorical(probs=torch.as_tensor(probs)[None])], np.empty(0))


def test_nll_rmse_and_coverage_of_a_normal_prediction():
    prediction = normal(MEAN, 1.3)
    assert scores.nll(prediction, Y) == pytest.approx(-stats.norm(MEAN, 1.3).logpdf(Y).mean())
    assert scores.rmse(prediction, Y) == pytest.approx(np.sqrt(((Y - MEAN) ** 2).mean()))
    half = 1.3 * stats.norm.ppf(0.95)
    assert scores.coverage(prediction, Y, 0.9) == (np.abs(Y - MEAN) <= half).mean()


def test_crps_agrees_with_the_closed_form_of_a_normal_distribution():
    z = (Y - MEAN) / 1.3
    exact = 1.3 * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - np.pi**-0.5)
    assert scores.crps(normal(MEAN, 1.3), Y) == pytest.approx(exact.mean(), rel=2e-3)


def test_scores_agree_with_scoringrules():
    loc, scale = RNG.normal(size=(4, 500)), RNG.uniform(0.5, 2.0, (4, 500))
    mixture = RegressionPrediction(
        [Normal(torch.as_tensor(loc), torch.as_tensor(scale))], np.empty(0)
    )
    expected = scoringrules.crps_mixnorm(Y, loc.T, scale.T).mean()
    assert scores.crps(mixture, Y, n_levels=500) == pytest.approx(expected, rel=1e-3)
    expected = scoringrules.logs_mixnorm(Y, loc.T, scale.T).mean()
    assert scores.nll(mixture, Y) == pytest.approx(expected, rel=1e-6)
    p, label = RNG.random(500), RNG.integers(0, 2, 500)
    binary = ClassificationPrediction([Bernoulli(probs=torch.as_tensor(p)[None])], np.empty(0))
    # scoringrules scores one of the two classes, `brier` the sum of both.
    expected = 2 * scoringrules.brier_score(label, p).mean()
    assert scores.brier(binary, label) == pytest.approx(expected)
    columns = several_draws(torch.as_tensor(RNG.normal(size=(300, 20, 3))), 0.7)
    y, draws = RNG.normal(size=(20, 3)), columns.sample(0)
    expected = scoringrules.es_ensemble(y, draws.swapaxes(0, 1)).mean()
    assert scores.energy_score(columns, y, seed=0) == pytest.approx(expected, rel=0.02)


def test_pit_of_a_calibrated_prediction_is_uniform():
    y = MEAN + 0.7 * RNG.normal(size=MEAN.shape)
    assert stats.kstest(scores.pit(normal(MEAN, 0.7), y), "uniform").pvalue > 0.01
    assert stats.kstest(scores.pit(normal(MEAN, 2.0), y), "uniform").pvalue < 1e-6


def test_coverage_curve_is_the_coverage_at_each_level():
    prediction, levels = normal(MEAN, 1.0), [0.5, 0.9]
    expected = [scores.coverage(prediction, Y, level) for level in levels]
    np.testing.assert_array_equal(scores.coverage_curve(prediction, Y, levels), expected)


def test_class_scores_agree_with_scikit_learn():
    probs = RNG.dirichlet([1, 1, 1], size=300)
    y = np.array([RNG.choice(3, p=p) for p in probs])
    prediction = classes(probs)
    assert scores.nll(prediction, y) == pytest.approx(log_loss(y, probs), rel=1e-6)
    assert scores.error_rate(prediction, y) == (probs.argmax(1) != y).mean()
    if "scale_by_half" not in inspect.signature(brier_score_loss).parameters:
        pytest.skip("This version of scikit-learn has no Brier score for three classes.")
    expected = brier_score_loss(y, probs, labels=[0, 1, 2], scale_by_half=False)
    assert scores.brier(prediction, y) == pytest.approx(expected)


def test_ece_of_a_small_case_by_hand():
    probs = np.array([[0.95, 0.05], [0.92, 0.08], [0.62, 0.38], [0.55, 0.45]])
    y = np.array([0, 1, 0, 0])
    # bins of width 0.1: {.95, .92}: confidence .935, accuracy .5; {.62} and {.55}: accuracy 1
    expected = (2 * abs(0.5 - 0.935) + abs(1 - 0.62) + abs(1 - 0.55)) / 4
    assert scores.ece(classes(probs), y, n_bins=10) == pytest.approx(expected)


def test_ece_of_true_probabilities_is_near_zero_and_of_overconfident_ones_is_not():
    probs = RNG.dirichlet([1, 1], size=20_000)
    y = (RNG.random(20_000) < probs[:, 1]).astype(int)
    sharper = probs**3 / (probs**3).sum(1, keepdims=True)
    assert scores.ece(classes(probs), y) < 0.02
    assert scores.ece(classes(sharper), y) > 0.08


def test_binary_predictions_score_as_two_classes():
    p = RNG.random(50)
    y = (RNG.random(50) < p).astype(float)
    binary = ClassificationPrediction([Bernoulli(probs=torch.as_tensor(p)[None])], np.empty(0))
    both = classes(np.stack([1 - p, p], 1))
    for score in (scores.nll, scores.brier, scores.ece, scores.error_rate):
        assert score(binary, y) == pytest.approx(score(both, y))


@pytest.mark.parametrize(
    "score",
    [scores.rmse, scores.coverage, scores.crps, scores.pit, scores.error_rate, scores.brier],
)
def test_observations_of_another_shape_are_rejected_rather_than_broadcast(score):
    is_class = score in (scores.error_rate, scores.brier)
    prediction = classes(RNG.dirichlet([1, 1], size=500)) if is_class else normal(MEAN, 1.0)
    with pytest.raises(ValueError, match=r"the shape of the prediction, \(500,\), got \(500, 1\)"):
        score(prediction, Y[:, None])


def test_scores_accept_tensors():
    prediction = normal(torch.as_tensor(MEAN), 1.0)
    assert scores.rmse(prediction, torch.as_tensor(Y)) == scores.rmse(prediction, Y)


def several_draws(loc, sd):
    return RegressionPrediction([Independent(Normal(loc, sd), 1)], np.empty(0))


def test_the_energy_score_of_one_column_is_the_crps():
    loc, y = torch.as_tensor(RNG.normal(size=(50, 1))), RNG.normal(size=(50, 1))
    prediction = several_draws(loc.expand(4000, 50, 1), 0.7)
    expected = scores.crps(prediction, y)
    assert scores.energy_score(prediction, y, seed=0) == pytest.approx(expected, rel=0.02)


def test_the_energy_score_of_several_columns_follows_from_the_distances_of_the_draws():
    loc = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]]], dtype=torch.float64)
    prediction = several_draws(loc, 1e-9)
    # The draws lie 5 and 0 from y, and 5 from each other: 2.5 - 5 / 2.
    assert scores.energy_score(prediction, np.zeros((1, 2)), seed=0) == pytest.approx(0, abs=1e-6)
    # 13 and 8 from y: 10.5 - 5 / 2.
    far = np.array([[-4.8, -6.4]])
    assert scores.energy_score(prediction, far, seed=0) == pytest.approx(8.0, abs=1e-6)
    with pytest.raises(ValueError, match="`prediction` needs at least 2 draws, got 1"):
        scores.energy_score(several_draws(loc[:1], 1.0), far)


def probabilities(n=600, seed=0):
    """Return probabilities of three classes, and classes that they are roughly right about."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet([1.0, 0.5, 2.0], n)
    return probs, np.array([rng.choice(3, p=p) for p in probs])


def test_adaptive_ece_agrees_with_scikit_learns_quantile_bins():
    probs, y = probabilities()
    correct, confidence = probs.argmax(1) == y, probs.max(1)
    accuracy, mean = calibration_curve(correct, confidence, n_bins=12, strategy="quantile")
    expected = np.abs(accuracy - mean).mean()  # all bins have 50 rows
    assert scores.adaptive_ece(classes(probs), y, 12) == pytest.approx(expected)
    assert scores.adaptive_ece(classes(probs), y, 10**4) == pytest.approx(
        np.abs(correct - confidence).mean()
    )


@pytest.mark.parametrize("digits", [1, 9])  # with many equal values, and without
@pytest.mark.parametrize("shift", [0.0, 1.0, 20.0])
def test_detection_of_other_rows_agrees_with_scikit_learn(digits, shift):
    inside, outside = RNG.normal(size=301).round(digits), RNG.normal(shift, 2, 97).round(digits)
    is_outside = np.repeat([0, 1], [301, 97])
    uncertainty = np.concatenate([inside, outside])
    assert scores.auroc(inside, outside) == pytest.approx(roc_auc_score(is_outside, uncertainty))
    fpr, tpr, _ = roc_curve(is_outside, uncertainty, drop_intermediate=False)
    assert scores.fpr95(inside, outside) == pytest.approx(fpr[np.argmax(tpr >= 0.95)])


def test_detection_uses_the_entropy_of_classes_and_the_epistemic_sd_of_numbers():
    certain, uncertain = np.eye(3) * 0.9 + 0.1 / 3, np.full((3, 3), 1 / 3)
    assert scores.auroc(classes(certain), classes(uncertain)) == 1
    assert scores.fpr95(classes(certain), classes(uncertain)) == 0

    def draws(spread):
        loc = torch.tensor([[-1.0, 0, 2], [1, 0, 1]], dtype=torch.float64) * spread
        return RegressionPrediction([Normal(loc, torch.full_like(loc, 0.3))], np.empty(0))

    expected = roc_auc_score(np.repeat([0, 1], 3), [1, 0, 0.25, 4, 0, 1])
    assert scores.auroc(draws(1.0), draws(2.0)) == pytest.approx(expected)


def test_the_risk_coverage_curve_is_the_error_rate_of_the_most_certain_rows():
    probs, y = probabilities()
    wrong = (probs.argmax(1) != y)[np.argsort(-probs.max(1))]
    coverage, risk = scores.risk_coverage(classes(probs), y)
    brute = [wrong[:k].mean() for k in range(1, len(y) + 1)]
    np.testing.assert_allclose(risk, brute)
    np.testing.assert_allclose(coverage, np.arange(1, 601) / 600)
    assert scores.aurc(classes(probs), y) == pytest.approx(np.mean(brute))
    assert scores.aurc(classes(probs), y, -(probs.max(1) ** 3)) == pytest.approx(np.mean(brute))


def test_equally_certain_rows_count_as_their_mean_in_any_order():
    probs = np.tile([0.6, 0.4], (4, 1))
    for y in ([0, 0, 1, 1], [1, 0, 1, 0]):
        np.testing.assert_allclose(scores.risk_coverage(classes(probs), np.array(y))[1], 0.5)


def test_the_risk_of_a_regression_is_its_squared_error():
    rng = np.random.default_rng(3)
    sd = rng.uniform(0.1, 2, 50)
    loc = torch.as_tensor(rng.normal(size=(1, 50, 2)))
    y = loc[0].numpy() + sd[:, None] * rng.normal(size=(50, 2))
    scale = torch.as_tensor(sd)[None, :, None].expand(1, 50, 2)
    prediction = RegressionPrediction([Independent(Normal(loc, scale), 1)], np.empty(0))
    squares = ((y - loc[0].numpy()) ** 2).mean(1)[np.argsort(sd)]
    expected = squares.cumsum() / np.arange(1, 51)
    np.testing.assert_allclose(scores.risk_coverage(prediction, y)[1], expected)


def test_uncertainties_of_another_shape_are_refused():
    probs, y = probabilities()
    with pytest.raises(ValueError, match="`uncertainty` must have one number for each of the 600"):
        scores.aurc(classes(probs), y, np.ones(3))
    with pytest.raises(ValueError, match="`inside` must have one number per row, got shape"):
        scores.auroc(np.ones((3, 2)), np.ones(3))
    with pytest.raises(ValueError, match="`outside` must hold at least one row, and no NaN"):
        scores.fpr95(np.ones(3), np.array([np.nan]))


def test_text_is_refused_as_labels_and_an_estimator_as_rows():
    prediction = ClassificationPrediction([Categorical(torch.ones(3, 2, 2))], np.zeros(2))
    for score in (scores.error_rate, scores.ece, scores.risk_coverage):
        with pytest.raises(TypeError, match="`y` must hold numbers, got text or objects: pass the"):
            score(prediction, np.array(["a", "b"]))
    with pytest.raises(TypeError, match=r"`inside` must be a Prediction or .*, got object"):
        scores.auroc(object(), prediction)


def test_bins_of_adaptive_ece_of_unequal_size_count_by_their_rows():
    confidence = np.array([0.6, 0.7, 0.8, 0.9, 0.95])
    probs, y = np.stack([confidence, 1 - confidence], 1), np.array([0, 1, 0, 0, 1])
    # Gaps of the first three rows: 0.4 - 0.7 + 0.2; of the last two: 0.1 - 0.95.
    assert scores.adaptive_ece(classes(probs), y, 2) == pytest.approx((0.1 + 0.85) / 5)


def test_a_given_uncertainty_orders_the_rows():
    probs, y = probabilities()
    given = RNG.normal(size=len(y))
    wrong = (probs.argmax(1) != y)[np.argsort(given)]
    expected = [wrong[:k].mean() for k in range(1, len(y) + 1)]
    np.testing.assert_allclose(scores.risk_coverage(classes(probs), y, given)[1], expected)
    assert scores.aurc(classes(probs), y, given) == pytest.approx(np.mean(expected))


def test_rows_of_several_columns_are_ordered_by_their_mean_variance():
    sd = torch.tensor([[[0.01, 3.0], [2.0, 2.0]]], dtype=torch.float64)  # 4.5 and 4 on average
    prediction = RegressionPrediction([Independent(Normal(0 * sd, sd), 1)], np.empty(0))
    risk = scores.risk_coverage(prediction, np.array([[1.0, 1.0], [3.0, 3.0]]))[1]
    np.testing.assert_allclose(risk, [9, 5])

    def draws(spread, noise):
        loc = torch.tensor([[spread], [[-s for s in spread]]], dtype=torch.float64)
        return several_draws(loc, noise)

    inside, outside = draws([2.0, 2.0], 9.0), draws([0.01, 3.0], 0.1)  # the noise does not count
    assert scores.auroc(inside, outside) == 1
