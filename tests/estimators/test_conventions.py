"""Both estimators pass the checks of scikit-learn, under options that together cover all."""

import inspect
import os
import tempfile

import pytest
from sklearn.utils.estimator_checks import check_estimator

from pyrobbb import BBBClassifier, BBBRegressor, likelihoods, priors


class NewFolder(os.PathLike):
    """A path that is another new folder each time it is used, as each fit needs a separate one."""

    def __fspath__(self):
        return tempfile.mkdtemp(dir=os.environ["CHECKPOINTS"])


QUICK = {"epochs": 20, "batch_size": 200, "lr": 0.05, "hidden": (8,), "restarts": 1, "n_draws": 8}
STOPPED = {
    "check_sample_weight_equivalence_on_dense_data": "Of repeated rows, other rows are held out "
    "for early stopping than of weighted ones."
}
CONTINUED = {
    "check_supervised_y_2d": "A warm start continues from the fit before, so that two equal calls "
    "of fit do not give the same predictions."
}
OPTIONS = {
    "calibrated": (
        BBBRegressor,
        {"calibration": 0.3, "likelihood": "gaussian", "random_state": 0},
        {},
    ),
    "heteroscedastic": (
        BBBRegressor,
        {"likelihood": "heteroscedastic", "activation": "tanh", "prior": "normal"},
        {},
    ),
    "auto": (BBBRegressor, {"likelihood": "auto", "kl_weight": 0.2, "epochs": 40}, {}),
    "restarts": (
        BBBRegressor,
        {"restarts": 2, "likelihood": likelihoods.StudentT(df=5.0), "prior": priors.Laplace(0.5)},
        {},
    ),
    "stopped regressor": (
        BBBRegressor,
        {
            "early_stopping": True,
            "validation_fraction": 0.3,
            "patience": 9,
            "calibration": 0.0,
            "epochs": 40,
        },
        STOPPED,
    ),
    "continued regressor": (BBBRegressor, {"warm_start": True, "device": "cpu"}, CONTINUED),
    "svi": (BBBClassifier, {"engine": "svi", "epochs": 12, "columns": "passthrough"}, {}),
    "checkpoints": (BBBClassifier, {"checkpoint": NewFolder(), "hidden": (), "verbose": True}, {}),
    "stopped classifier": (BBBClassifier, {"early_stopping": True, "epochs": 15}, STOPPED),
    "continued classifier": (BBBClassifier, {"warm_start": True, "ard": True}, CONTINUED),
}


SLOW = ("auto", "restarts", "stopped regressor", "svi")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in OPTIONS]
)
def test_estimators_pass_the_checks_of_scikit_learn(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CHECKPOINTS", os.fspath(tmp_path))
    kind, options, expected_to_fail = OPTIONS[name]
    results = check_estimator(
        kind(**QUICK | options), expected_failed_checks=expected_to_fail, on_skip=None
    )
    failed = {result["check_name"] for result in results if result["status"] == "xfail"}
    assert failed == expected_to_fail.keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [  # each takes minutes, on a worker of its own
        pytest.param(BBBRegressor, marks=pytest.mark.xdist_group("regressor defaults")),
        pytest.param(BBBClassifier, marks=pytest.mark.xdist_group("classifier defaults")),
    ],
)
def test_estimators_pass_the_checks_of_scikit_learn_with_their_defaults(kind):
    check_estimator(kind(), on_skip=None)


def test_the_options_cover_all_parameters():
    given = {option for _, options, _ in OPTIONS.values() for option in {**QUICK, **options}}
    for kind in (BBBRegressor, BBBClassifier):
        assert set(inspect.signature(kind).parameters) <= given
