"""Adaptive prediction sets: their levels, and the coverage of conformal sets by simulation."""

import numpy as np
import pytest
from scipy import stats

from pyrobbb import Calibration
from pyrobbb.prediction import set_levels


def brute_force_set(probs, u, level):
    """Return the classes of the set of a row, by the definition of Romano et al., equation 5."""
    order = sorted(range(len(probs)), key=lambda k: -probs[k])
    total, chosen = 0.0, []
    for k in order:
        chosen.append(k)
        total += probs[k]
        if total >= level:
            break
    excess = (total - level) / probs[chosen[-1]]  # share of the last class beyond the level
    return set(chosen[:-1] if u > 1 - excess else chosen)


@pytest.mark.parametrize("level", [0.03, 0.5, 0.9, 0.99])
def test_a_set_holds_the_classes_whose_level_it_reaches(level):
    rng = np.random.default_rng(0)
    probs, u = rng.dirichlet([0.5] * 4, 300), rng.random(300)
    sets = set_levels(probs, u) <= level
    for row in range(300):
        assert set(np.flatnonzero(sets[row])) == brute_force_set(probs[row], u[row], level)


def test_equally_probable_classes_come_in_their_order():
    levels = set_levels(np.full((1, 4), 0.25), np.array([0.4]))
    np.testing.assert_allclose(levels, [[0.1, 0.35, 0.6, 0.85]])


def test_sets_of_correct_probabilities_have_exactly_their_level():
    rng = np.random.default_rng(1)
    n = 40_000
    probs = rng.dirichlet([0.3] * 5, n)
    y = (rng.random((n, 1)) > probs.cumsum(1)).sum(1)
    levels = set_levels(probs, rng.random(n))[np.arange(n), y]
    assert stats.kstest(levels, "uniform").pvalue > 0.01


def certain(rng, probs):
    """Return probabilities of 1 for a class that is often wrong."""
    return np.eye(probs.shape[1])[probs.argmax(1)]


MODELS = {
    "correct": lambda rng, probs: probs,
    "overconfident": lambda rng, probs: probs**8 / (probs**8).sum(1, keepdims=True),
    "underconfident": lambda rng, probs: 0.95 / probs.shape[1] + 0.05 * probs,
    "of other rows": lambda rng, probs: rng.permutation(probs),
    "the same for all classes": lambda rng, probs: np.full_like(probs, 1 / probs.shape[1]),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("n_held", [9, 50])
def test_conformal_sets_have_their_coverage_whatever_the_model(model, n_held):
    rng = np.random.default_rng(2)
    n_times, n_classes = 4000, 4
    probs = rng.dirichlet([0.4] * n_classes, n_times * (n_held + 1))
    y = (rng.random((len(probs), 1)) > probs.cumsum(1)).sum(1)
    predicted = MODELS[model](rng, probs)
    levels = set_levels(predicted, rng.random(len(probs)))[np.arange(len(probs)), y]
    levels = levels.reshape(n_times, n_held + 1)
    for level in (0.5, 0.9):
        covered = [new <= Calibration.of(held).threshold(level) for *held, new in levels]
        expected = np.ceil(level * (n_held + 1) * (1 - 1e-12)) / (n_held + 1)
        standard_error = (expected * (1 - expected) / n_times) ** 0.5
        assert np.mean(covered) == pytest.approx(expected, abs=4 * standard_error)


def test_sets_of_certain_but_wrong_predictions_have_at_least_their_coverage():
    rng = np.random.default_rng(3)
    probs = rng.dirichlet([0.4] * 4, 20_000)
    y = (rng.random((len(probs), 1)) > probs.cumsum(1)).sum(1)
    predicted = certain(rng, probs)
    assert (predicted.argmax(1) != y).mean() > 0.2
    levels = set_levels(predicted, rng.random(len(probs)))[np.arange(len(probs)), y]
    covered = [new <= Calibration.of(held).threshold(0.9) for *held, new in levels.reshape(-1, 20)]
    assert np.mean(covered) > 0.9


def test_too_few_held_out_rows_make_every_level_reach_all_classes():
    assert Calibration.of([]).threshold(0.01) == 1
    assert Calibration.of([0.2] * 8).threshold(0.9) == 1
    assert Calibration.of([0.2] * 9).threshold(0.9) == 0.2
    probs = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert (set_levels(probs, np.array([0.999, 0.999])) <= 1).all()


def test_the_threshold_is_the_smallest_level_with_the_coverage():
    calibration = Calibration.of([0.4, 0.1, 0.3, 0.2])
    for share, expected in ((0.19, 0.1), (0.2, 0.1), (0.21, 0.2), (0.8, 0.4), (0.81, 1.0)):
        assert calibration.threshold(share) == expected
    weighted = Calibration.of([0.1, 0.4, 0.8], [1.0, 1.0, 2.0])
    assert weighted.threshold(0.37) == 0.4
    assert weighted.threshold(0.38) == 0.8
