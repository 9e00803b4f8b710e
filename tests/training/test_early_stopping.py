"""Early stopping: the parameters of the best epoch are kept."""

import numpy as np
import pytest
from ragged_fits import X, Y, network, quick_fit
from torch import nn

from pyrobbb import BayesianNetwork, fit, likelihoods, mlp, priors


def test_validation_keeps_the_best_parameters_and_patience_stops_the_fit():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=(12, 1))  # pure noise
    net = BayesianNetwork(mlp(3, [30], 1, seed=0), None, likelihoods.Gaussian(0.1))
    posterior = fit(
        net,
        x,
        y,
        epochs=300,
        lr=0.03,
        kl_warmup=0,
        validation=(x[::-1], y),
        patience=5,
        seed=0,
        progress=False,
    )
    nll = posterior.history.validation_nll
    best = int(nll.argmin())
    assert len(nll) == posterior.history.n_epochs == best + 1 + 5 < 300
    # The same 16 draws from the stored guide have the lowest score again.
    again = posterior.predict(x[::-1], n_draws=16, seed=0).log_prob(y)
    assert -again.mean() == pytest.approx(nll[best], rel=1e-5)


def test_parameters_of_warmup_epochs_are_not_kept():
    net = network(likelihood=likelihoods.Gaussian(1.0))
    posterior = quick_fit(net, epochs=20, lr=0.3, kl_warmup=0.5, validation=(X, -Y), patience=2)
    nll = posterior.history.validation_nll
    assert nll.argmin() < 10  # with the sign of y reversed, each epoch is worse than the last
    best = 10 + nll[10:].argmin()
    assert len(nll) == best + 1 + 2
    again = posterior.predict(X, n_draws=16, seed=1).log_prob(-Y)
    assert -again.mean() == pytest.approx(nll[best], rel=1e-5)


def test_validation_restores_point_parameters_and_buffers():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
    bayesian = BayesianNetwork(net, priors.ByName({"1.*": None}))
    posterior = quick_fit(bayesian, batch_size=23, epochs=30, lr=0.3, validation=(X, -Y))
    best = posterior.history.validation_nll.min()
    again = posterior.predict(X, n_draws=16, seed=1).log_prob(-Y)
    assert -again.mean() == pytest.approx(best, rel=1e-5)
