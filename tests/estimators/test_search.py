"""The table of what an estimator has tried: log densities by KL weight, files, the log."""

import dataclasses
import logging

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from support import QUICK_ESTIMATOR

from pyrobbb import BBBClassifier, BBBRegressor, stack
from pyrobbb.estimators.search import (
    COLUMNS,
    Tried,
    add_first_fit,
    search_from_json,
    search_table,
    search_to_json,
)
from pyrobbb.posterior import Posterior

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 2))
Y = 40 + 3 * X[:, 0] + RNG.normal(size=200)
SEVERAL = QUICK_ESTIMATOR | {"restarts": 3, "likelihood": "gaussian"}


@pytest.fixture(scope="module")
def model():
    return BBBRegressor(**SEVERAL).fit(X, Y)


def calibration_of(kind, monkeypatch):
    """Return a dict that a fit fills with the posterior and the rows that it calibrates by."""
    seen, original = {}, kind._calibrate

    def spy(self, posterior, held):
        seen.update(posterior=posterior, held=held)
        return original(self, posterior, held)

    monkeypatch.setattr(kind, "_calibrate", spy)
    return seen


def test_the_first_fit_is_scored_by_kl_weight(model):
    table = model.search_
    assert list(table.columns) == list(COLUMNS)
    assert table.kl_weight[1:].tolist() == list(model.kl_weight_) == [0.25, 0.5, 1.0]
    assert np.isnan(table.kl_weight[0])
    assert table.is_chosen.tolist() == [True, False, False, False]
    assert set(table.likelihood) == {"gaussian"}
    assert set(table.hidden) == {model.hidden_}
    assert set(table.epochs) == {60}
    assert table.standard_error[0] == table.standard_error[1:].min() == 0


def test_the_log_densities_are_those_of_the_chains_on_held_out_rows(monkeypatch):
    seen = calibration_of(BBBRegressor, monkeypatch)
    model = BBBRegressor(**SEVERAL).fit(X, Y)
    held, sd = seen["held"], model.target_scaling_.scale.item()
    assert len(held) == 20
    for chain, value in zip(seen["posterior"].chains, model.search_.log_density[1:], strict=True):
        of_chain = Posterior((chain,)).predict(held.x, model.n_draws, model.seed_)
        assert value == pytest.approx(of_chain.log_prob(held.y).mean() - np.log(sd), rel=1e-9)


def test_the_chains_are_weighted_by_stacking_on_the_held_out_rows(monkeypatch):
    seen = calibration_of(BBBRegressor, monkeypatch)
    model = BBBRegressor(**SEVERAL).fit(X, Y)
    stacked = stack(
        seen["posterior"], seen["held"].x, seen["held"].y, n_draws=model.n_draws, seed=model.seed_
    )
    expected = [chain.settings.stacking_weight for chain in stacked.chains]
    assert [c.settings.stacking_weight for c in model.posterior_.chains] == expected
    np.testing.assert_allclose(model.search_.share[1:], np.divide(expected, 3), rtol=1e-3)
    assert model.search_.share[0] == pytest.approx(1)
    mixture = model.search_.log_density[0] + np.log(model.target_scaling_.scale.item())
    predicted = stacked.predict(seen["held"].x, n_draws=6_000, seed=0).log_prob(seen["held"].y)
    assert mixture == pytest.approx(predicted.mean(), abs=0.02)


@pytest.mark.slow
def test_noisy_rows_take_the_weight_from_chains_of_low_kl_weights():
    """Without stacking, the chain of the lowest weight alone costs log(4 / 3) nats a row."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(360, 8))
    y = x[:, 0] + rng.normal(size=360)
    options = {"likelihood": "gaussian", "restarts": 4, "ard": False}
    options |= {"random_state": 0, "n_draws": 100}
    model = BBBRegressor(**options).fit(x[:120], y[:120])
    lowest, *_, highest = model.search_.share[1:]
    assert lowest < 0.2 < highest
    stacked = model.predict_distribution(x[120:]).log_prob(y[120:]).mean()
    model.posterior_ = with_equal_weights(model.posterior_)
    assert stacked > model.predict_distribution(x[120:]).log_prob(y[120:]).mean() + 0.05


def with_equal_weights(posterior):
    return Posterior(
        tuple(
            dataclasses.replace(c, settings=dataclasses.replace(c.settings, stacking_weight=None))
            for c in posterior.chains
        )
    )


def test_further_rows_keep_the_kl_weights_and_those_of_stacking():
    model = BBBRegressor(**SEVERAL).fit(X, Y)
    before = [c.settings.stacking_weight for c in model.posterior_.chains]
    model.partial_fit(X[:30], Y[:30])
    assert [c.settings.stacking_weight for c in model.posterior_.chains] == before
    few = BBBRegressor(**SEVERAL, calibration=0).fit(X, Y).partial_fit(X[:30], Y[:30])
    assert few.kl_weight_ == (0.5, 0.707, 1.0)


def test_a_small_table_holds_out_rows_to_weight_the_chains():
    few = BBBRegressor(**SEVERAL).fit(X[:36], Y[:36])
    assert few.calibration_ is not None
    assert few.kl_weight_ == (0.25, 0.5, 1.0)
    fewer = BBBRegressor(**SEVERAL).fit(X[:35], Y[:35])
    assert fewer.calibration_ is None
    assert fewer.kl_weight_ == (0.5, 0.707, 1.0)


def test_the_standard_error_is_that_of_the_paired_difference():
    densities = RNG.normal(size=(4, 30))
    tried = [
        Tried("gaussian", (5,), 2, w, d)
        for w, d in zip([None, 0.5, None, 1.0], densities, strict=True)
    ]
    table = search_table(tried)
    np.testing.assert_allclose(table.log_density, densities.mean(1))
    for pair in ([0, 2], [1, 3]):
        best = max(pair, key=lambda i: densities[i].mean())
        for i in pair:
            expected = scipy.stats.sem(densities[best] - densities[i])
            assert table.standard_error[i] == pytest.approx(expected)


def test_rows_of_weight_2_count_twice():
    densities = RNG.normal(size=(2, 5))
    weight = np.array([1.0, 2.0, 1.0, 1.0, 2.0])
    tried = [Tried("gaussian", (5,), 2, None, d) for d in densities]
    expected = [np.repeat(d, weight.astype(int)).mean() for d in densities]
    np.testing.assert_allclose(search_table(tried, weight).log_density, expected)


def test_chains_of_one_kl_weight_are_no_search():
    options = SEVERAL | {"kl_weight": 0.4}
    model = BBBRegressor(**options).fit(X, Y)
    assert model.search_ is None
    assert model.kl_weight_ == 0.4
    assert add_first_fit(None, [Tried("gaussian", (5,), 2, None, np.zeros(3))], None) is None


def test_without_held_out_rows_nothing_is_scored():
    model = BBBRegressor(**SEVERAL, calibration=0).fit(X, Y)
    assert model.search_ is None
    assert model.kl_weight_ == (0.5, 0.707, 1.0)
    assert model.posterior_.chains[0].settings.stacking_weight is None


CLASSES = QUICK_ESTIMATOR | {"restarts": 3, "calibration": 0.5}


def test_a_classifier_has_one_kl_weight_and_no_search_with_few_held_out_rows():
    for options in ({"calibration": 0.495}, {"calibration": 0}, {"restarts": 1}):
        model = BBBClassifier(**CLASSES | options).fit(X, Y > 40)
        assert model.search_ is None
        assert model.kl_weight_ == 0.7
        assert model.posterior_.chains[0].settings.stacking_weight is None


def test_a_classifier_stacks_its_chains_by_100_held_out_rows(monkeypatch):
    seen = calibration_of(BBBClassifier, monkeypatch)
    model = BBBClassifier(**CLASSES).fit(X, Y > 40)
    posterior, held = seen["posterior"], seen["held"]
    assert len(held) == 100
    assert model.kl_weight_ == (0.25, 0.5, 1.0)
    stacked = stack(posterior, held.x, held.y, n_draws=model.n_draws, seed=model.seed_)
    expected = [chain.settings.stacking_weight for chain in stacked.chains]
    assert [c.settings.stacking_weight for c in model.posterior_.chains] == expected
    table = model.search_
    assert set(table.likelihood) == {"categorical"}
    np.testing.assert_allclose(table.share[1:], np.divide(expected, 3), rtol=1e-3)
    for chain, value in zip(posterior.chains, table.log_density[1:], strict=True):
        of_chain = Posterior((chain,)).predict(held.x, model.n_draws, model.seed_)
        assert value == pytest.approx(of_chain.log_prob(held.y).mean(), rel=1e-9)


def test_a_stacked_classifier_is_stored_and_continued(tmp_path):
    model = BBBClassifier(**CLASSES).fit(X, Y > 40)
    model.save(tmp_path / "model")
    loaded = BBBClassifier.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.search_, model.search_)
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    before = [c.settings.stacking_weight for c in model.posterior_.chains]
    loaded.partial_fit(X[:30], Y[:30] > 40)
    assert loaded.kl_weight_ == (0.25, 0.5, 1.0)
    assert [c.settings.stacking_weight for c in loaded.posterior_.chains] == before


def test_the_search_is_stored(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = BBBRegressor.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.search_, model.search_)
    assert loaded.kl_weight_ == model.kl_weight_


def test_the_scores_by_kl_weight_are_logged(caplog):
    caplog.set_level(logging.INFO, logger="pyrobbb")
    BBBRegressor(**SEVERAL).fit(X, Y)
    assert caplog.text.count("kl_weight='auto': mean log density of 20 held-out rows: ") == 1
    assert "with all chains; " in caplog.text
    assert "at 0.25, " in caplog.text


def test_a_table_of_an_earlier_version_lacks_columns():
    earlier = {
        "likelihood": ["gaussian", "student_t"],
        "log_density": [-1.0, -2.0],
        "standard_error": [0.0, 0.5],
        "is_chosen": [True, False],
    }
    table = search_from_json(earlier)
    assert list(table.columns) == list(COLUMNS)
    assert table.likelihood[table.is_chosen].item() == "gaussian"
    assert table.kl_weight.isna().all()
    assert search_to_json(table)["hidden"] == [None, None]
    pd.testing.assert_frame_equal(search_from_json(search_to_json(table)), table)


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": [1]},
        {"log_density": ["high"]},
        {"log_density": [-1.0, -2.0]},
        {"is_chosen": [1]},
        {"likelihood": [3]},
    ],
)
def test_a_damaged_table_is_refused(change):
    stored = {"likelihood": ["gaussian"], "log_density": [-1.0], "is_chosen": [True]}
    with pytest.raises((TypeError, ValueError), match=r"search|float|length"):
        search_from_json(stored | change)
