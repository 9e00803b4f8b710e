"""The losses of the fit without the held-out rows, kept beside the posterior."""

import json

import numpy as np
import pytest

from pyrobbb import BBBClassifier, BBBRegressor
from pyrobbb.estimators.loss_curves import LossCurve
from pyrobbb.fitted import History

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 2))
Y = X[:, 0] + RNG.normal(size=120)
QUICK = {"hidden": 2, "epochs": 3, "restarts": 2, "n_draws": 50, "random_state": 0}


def history(n_epochs, n_batches=3, n_rows=30):
    n = n_epochs * n_batches
    nll, kl = RNG.normal(100, 1, n), RNG.normal(50, 1, n)
    epoch = np.repeat(np.arange(n_epochs), n_batches)
    return History(nll + kl, nll, kl, epoch, np.full(n, n_rows // n_batches))


@pytest.mark.parametrize("n_epochs", [1, 7, 1000])
def test_a_curve_is_the_mean_of_groups_of_epochs_per_row(n_epochs):
    losses = history(n_epochs)
    curve = LossCurve.of(losses, max_points=20)
    assert (curve.n_epochs, curve.n_steps, curve.n_rows) == (n_epochs, 3 * n_epochs, 30)
    assert len(curve.epoch) == min(n_epochs, 20)
    np.testing.assert_allclose(curve.nelbo, curve.nll + curve.kl)
    assert curve.epoch[0] == pytest.approx(1 + (np.ceil(n_epochs / len(curve.epoch)) - 1) / 2)
    if n_epochs in (7, 1000):
        assert curve.nll.mean() == pytest.approx(losses.nll.mean() / 30)


def test_a_curve_is_stored_as_plain_data():
    curve = LossCurve.of(history(5))
    again = LossCurve.from_json(json.loads(json.dumps(curve.to_json())))
    for name, value in vars(curve).items():
        np.testing.assert_allclose(getattr(again, name), value, rtol=1e-4)
    for damage in ({"nll": [1.0]}, {"n_steps": -1}, {"n_rows": 2.5}):
        with pytest.raises(ValueError, match="its curves of losses must have equal lengths"):
            LossCurve.from_json({**curve.to_json(), **damage})


@pytest.mark.parametrize("kind", [BBBRegressor, BBBClassifier])
def test_the_first_fit_is_stored_with_the_estimator(kind, tmp_path):
    options = {"likelihood": "gaussian"} if kind is BBBRegressor else {}
    y = Y if kind is BBBRegressor else (Y > 0).astype(int)
    model = kind(**QUICK, **options).fit(X, y)
    n_fitted = 96 if kind is BBBClassifier else 108  # of classes, 24 rows are held out
    assert [(c.n_rows, c.n_epochs, c.n_steps) for c in model.first_fit_] == [(n_fitted, 3, 3)] * 2
    model.save(tmp_path / "model")
    loaded = kind.load(tmp_path / "model")
    for curve, stored in zip(model.first_fit_, loaded.first_fit_, strict=True):
        np.testing.assert_allclose(stored.nll, curve.nll, rtol=1e-4)
    model.set_params(warm_start=True, epochs=1)
    assert model.fit(X, y).first_fit_ == ()
    assert kind(**QUICK, **options, calibration=0).fit(X, y).first_fit_ == ()
