"""The fits of one call of `fit`: checkpoints, early stopping."""

import numpy as np
import pytest
from support import QUICK_ESTIMATOR

from pyrobbb import BBBClassifier, BBBRegressor
from pyrobbb._core.progress import stages_reported_to
from pyrobbb.estimators.preparation import Rows
from pyrobbb.estimators.stages import REFIT_FRACTION, SEARCH_FRACTION, Stages


def test_early_stopping_ends_a_fit_to_pure_noise():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 3)), rng.normal(size=200)
    model = BBBRegressor(
        epochs=400, restarts=1, early_stopping=True, patience=5, random_state=0
    ).fit(X, y)
    assert model.posterior_.history.n_epochs < 400
    assert len(model.posterior_.history.validation_nll) == model.posterior_.history.n_epochs


def test_the_checkpoints_of_a_stage_are_in_a_numbered_folder(tmp_path):
    stages = Stages(("gaussian", "heteroscedastic", "fit", "refit"), tmp_path)
    folders = [stages.folder(name) for name in stages.names]
    assert folders == [tmp_path / f"fit-{number}" for number in (1, 2, 3, 4)]
    assert Stages(("fit",), None).folder("fit") is None
    assert Stages(("fit",), None).stored_seed() is None
    assert stages.stored_seed() is None  # nothing has been written yet


@pytest.mark.parametrize(
    ("calibration", "likelihood", "names"),
    [
        (0.1, "gaussian", ["fit", "refit"]),
        (0.0, "gaussian", ["fit"]),
        (0.1, "auto", ["gaussian", "heteroscedastic", "student_t", "fit", "refit"]),
        (0.0, "auto", ["gaussian", "heteroscedastic", "student_t", "fit"]),
    ],
)
def test_the_stages_depend_on_likelihood_and_calibration(calibration, likelihood, names):
    model = BBBRegressor(calibration=calibration, likelihood=likelihood)
    assert list(model._stage_names(np.linspace(0, 1, 100))) == names


@pytest.mark.parametrize(
    ("calibration", "n_classes", "names"),
    [(0.1, 3, ["fit", "refit"]), (0.0, 3, ["fit"]), (0.1, 95, ["fit"])],
)
def test_the_stages_of_a_classifier_depend_on_calibration_and_classes(
    calibration, n_classes, names
):
    model = BBBClassifier(calibration=calibration)
    model.classes_ = np.arange(n_classes)
    assert list(model._stage_names(np.zeros(100))) == names


@pytest.mark.parametrize(("n_rows", "epochs"), [(1, 10_000), (12_800, 400), (10_000_000, 20)])
def test_without_epochs_a_fit_takes_40000_steps_within_bounds(n_rows, epochs):
    model = BBBRegressor()
    model.seed_, model.restarts_ = 0, 4
    rows = Rows(np.zeros((n_rows, 1)), np.zeros((n_rows, 1)))
    assert model._training_options().arguments(rows)["epochs"] == epochs


def test_the_stages_of_a_fit_are_named_for_its_progress():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 2))
    lines = []
    with stages_reported_to(lines.append):
        BBBRegressor(**QUICK_ESTIMATOR, likelihood="gaussian", hidden=2).fit(X, X[:, 0])
    assert lines == ["fitting (1 of 2)", "adding the held-out rows (2 of 2)"]
    stages = Stages(("gaussian", "student_t", "fit", "refit"), None)
    assert stages.shares() == {
        "trying gaussian": SEARCH_FRACTION / 2,
        "trying student_t": SEARCH_FRACTION / 2,
        "fitting": 1.0,
        "adding the held-out rows": REFIT_FRACTION,
    }
