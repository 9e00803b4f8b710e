"""Learned scales of the inputs, and more restarts, which small regressions have by default."""

import numpy as np
import pytest
import torch
from stored_folders import edit, header_of
from support import QUICK_ESTIMATOR

from pyrobbb import BBBClassifier, BBBRegressor, priors

ARD = QUICK_ESTIMATOR | {"ard": True}


@pytest.fixture(scope="module")
def regressor(friedman):
    return BBBRegressor(**ARD | {"restarts": 2}, likelihood="gaussian").fit(*friedman)


@pytest.mark.parametrize(
    ("kind", "ard", "n", "learns"),
    [
        (BBBRegressor, "auto", 59, False),
        (BBBRegressor, "auto", 60, True),
        (BBBRegressor, "auto", 128, True),
        (BBBRegressor, "auto", 129, False),
        (BBBRegressor, True, 250, True),
        (BBBRegressor, False, 40, False),
        (BBBRegressor, np.False_, 40, False),
        (BBBClassifier, "auto", 100, False),
        (BBBClassifier, True, 40, True),
    ],
)
def test_scales_are_learned_as_asked_and_by_default_in_small_regressions(
    kind, ard, n, learns, tmp_path
):
    X, y = np.random.default_rng(0).normal(size=(n, 2)), np.arange(n) % 2
    model = kind(**QUICK_ESTIMATOR | {"epochs": 1}, ard=ard).fit(X, y)
    names = [name for name, _ in model.posterior_.chains[0].network.net.named_parameters()]
    assert ("inputs.log_scale" in names) == model.ard_ == learns
    model.save(tmp_path / "model")
    assert kind.load(tmp_path / "model").ard_ == learns


def test_the_scales_have_a_standard_normal_prior_and_the_weights_their_own():
    X, y = np.random.default_rng(0).normal(size=(50, 3)), np.arange(50.0)
    model = BBBRegressor(**ARD | {"epochs": 1}, prior="laplace").fit(X, y)
    prior = model.posterior_.chains[0].network.prior
    assert prior.choice("inputs.log_scale") == priors.Normal(1.0)
    assert prior.choice("0.weight") == priors.Laplace()


def test_all_chains_learn_a_scale_for_each_input(regressor):
    scale = regressor.posterior_.draws(100, seed=0)["inputs.log_scale"]
    assert scale.shape == (100, 5)
    assert torch.isfinite(scale).all()
    assert scale.mean(0).unique().numel() == 5


def test_a_saved_estimator_is_read_with_its_scales(regressor, friedman, tmp_path):
    regressor.save(tmp_path / "model")
    back = BBBRegressor.load(tmp_path / "model")
    assert back.ard is True
    np.testing.assert_array_equal(
        back.predict_quantiles(friedman[0]), regressor.predict_quantiles(friedman[0])
    )
    back.partial_fit(*friedman)


def test_a_folder_whose_network_and_parameter_differ_is_refused(regressor, tmp_path):
    regressor.save(tmp_path / "model")
    extra = header_of(tmp_path / "model")["extra"]
    extra["estimator"]["params"]["ard"] = False
    edit(tmp_path / "model", extra=extra)
    with pytest.raises(ValueError, match=r"damaged: .*its `ard`"):
        BBBRegressor.load(tmp_path / "model")


def test_a_fit_that_chose_to_learn_scales_is_continued_with_them():
    X, y = np.random.default_rng(0).normal(size=(300, 2)), np.arange(300.0)
    model = BBBRegressor(**QUICK_ESTIMATOR, warm_start=True).fit(X[:100], y[:100])
    assert model.ard_
    assert model.fit(X, y).ard_
    assert model.partial_fit(X, y).ard_


def test_an_exported_estimator_predicts_the_same(regressor, friedman, tmp_path):
    regressor.export(tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    exported = program(torch.as_tensor(friedman[0][:5]))
    np.testing.assert_allclose(exported["mean"].ravel(), regressor.predict(friedman[0][:5]))


@pytest.mark.parametrize("before", [True, False])
def test_a_continued_fit_cannot_change_it(before, friedman):
    model = BBBRegressor(**QUICK_ESTIMATOR, ard=before).fit(*friedman)
    model.set_params(ard=not before, warm_start=True)
    for method in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=f"^`ard` must stay {before} when a fit is continued"):
            method(*friedman)
    model.set_params(ard=before).fit(*friedman)


def test_a_stream_of_rows_begins_without_what_is_for_small_tables():
    X, y = np.random.default_rng(0).normal(size=(80, 2)), np.arange(80.0)
    options = QUICK_ESTIMATOR | {"epochs": 1, "restarts": "auto"}
    model = BBBRegressor(**options).partial_fit(X, y)
    assert (model.hidden_, model.ard_, model.restarts_) == ((50,), False, 4)


def test_a_classifier_learns_scales_too(iris):
    model = BBBClassifier(**ARD).fit(*iris)
    assert model.posterior_.draws(10, seed=0)["inputs.log_scale"].shape == (10, 4)
    assert model.score(*iris) > 0.8


def test_irrelevant_inputs_get_smaller_scales():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 4))
    y = np.sin(2 * X[:, 0]) + 0.1 * rng.normal(size=150)
    options = {"likelihood": "gaussian", "epochs": 1_000, "restarts": 1, "random_state": 0}
    model = BBBRegressor(ard=True, **options).fit(X, y)
    relevant, *others = model.posterior_.draws(200, seed=0)["inputs.log_scale"].mean(0)
    assert relevant > max(others) + 0.5


@pytest.mark.parametrize(
    ("kind", "restarts", "n", "chains"),
    [
        (BBBRegressor, "auto", 59, 4),
        (BBBRegressor, "auto", 60, 8),
        (BBBRegressor, "auto", 129, 4),
        (BBBRegressor, 3, 100, 3),
        (BBBRegressor, 2.0, 100, 2),
        (BBBClassifier, "auto", 100, 4),
    ],
)
def test_small_regressions_have_more_restarts_by_default(kind, restarts, n, chains, tmp_path):
    X, y = np.random.default_rng(0).normal(size=(n, 2)), np.arange(n) % 2
    options = QUICK_ESTIMATOR | {"epochs": 1, "restarts": restarts, "warm_start": True}
    model = kind(**options).fit(X, y)
    assert model.restarts_ == len(model.posterior_.chains) == chains
    model.save(tmp_path / "model")
    assert kind.load(tmp_path / "model").fit(X, y).restarts_ == chains
    weights = np.unique(model.kl_weight_)
    assert len(weights) == (chains if kind is BBBRegressor else 1)
