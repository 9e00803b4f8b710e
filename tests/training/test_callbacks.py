"""Callbacks of fit: what they receive, and that they do not change the fit."""

import functools

import numpy as np
import pytest
import support
import torch

from pyrobbb import BayesianNetwork, fit

RNG = np.random.default_rng(0)
X = RNG.normal(size=(23, 3))
Y = X.sum(1, keepdims=True) + RNG.normal(size=(23, 1))


quick_fit = functools.partial(support.quick_fit, x=X, y=Y)


@pytest.mark.parametrize("engine", ["svi", "fused"])
def test_callbacks_do_not_change_the_fit(engine):
    def busy(end):
        torch.randn(100)
        end.posterior().predict(X, n_draws=5)

    observed = quick_fit(engine=engine, callbacks=busy)
    alone = quick_fit(engine=engine)
    assert torch.equal(observed.guide.loc, alone.guide.loc)
    assert torch.equal(observed.guide.rho, alone.guide.rho)
    np.testing.assert_array_equal(observed.history.nelbo, alone.history.nelbo)


def test_callback_receives_the_progress_of_the_fit():
    ends = []
    posterior = quick_fit(callbacks=ends.append, validation=(X, Y), kl_warmup=0.5, lr=0.02)
    history = posterior.history
    assert [end.epoch for end in ends] == [1, 2, 3, 4]
    assert {end.n_epochs for end in ends} == {4}
    assert [end.n_steps for end in ends] == [3, 6, 9, 12]
    for name in ("nelbo", "nll", "kl"):
        by_epoch = getattr(history, name).reshape((4, 3)).mean(1)
        np.testing.assert_allclose([getattr(end, name) for end in ends], by_epoch)
    np.testing.assert_allclose([end.kl_weight for end in ends], [2 / 6, 5 / 6, 1, 1])
    assert [end.validation_nll for end in ends] == history.validation_nll.tolist()
    rates = [end.lr for end in ends]
    assert max(rates) <= 0.02
    assert rates[-1] == min(rates) > 0
    seconds = [end.seconds for end in ends]
    assert 0 < seconds[0] < seconds[-1] < 60


def test_without_validation_there_is_no_validation_nll():
    ends = []
    quick_fit(callbacks=ends.append, epochs=1)
    assert ends[0].validation_nll is None


def test_posterior_of_a_callback_does_not_change_later():
    snapshots = []
    last = quick_fit(callbacks=lambda end: snapshots.append(end.posterior()))
    assert [snapshot.history.n_epochs for snapshot in snapshots] == [1, 2, 3, 4]
    assert torch.equal(snapshots[-1].guide.loc, last.guide.loc)
    assert not torch.equal(snapshots[0].guide.loc, snapshots[1].guide.loc)
    assert not any(snapshot.network.training for snapshot in snapshots)


def test_network_stays_in_training_mode_during_callbacks():
    network = BayesianNetwork(
        torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
    )
    x, y = X.astype(np.float32), Y.astype(np.float32)
    options = {"epochs": 2, "engine": "svi", "seed": 0, "progress": False}
    observed = fit(network, x, y, callbacks=lambda end: end.posterior(), **options)
    alone = fit(network, x, y, **options)
    np.testing.assert_array_equal(observed.history.nll, alone.history.nll)


def test_callback_that_returns_true_ends_the_fit():
    called = []
    posterior = quick_fit(callbacks=[lambda end: end.epoch == 2, called.append])
    assert posterior.history.n_epochs == 2
    assert len(called) == 2


def test_other_return_values_do_not_end_the_fit():
    assert quick_fit(callbacks=lambda end: end.epoch).history.n_epochs == 4


def test_callback_receives_all_chains_of_fits_side_by_side():
    snapshots = []
    posterior = quick_fit(restarts=2, callbacks=lambda end: snapshots.append(end.posterior()))
    assert [len(snapshot.chains) for snapshot in snapshots] == [2] * 4
    for copied, chain in zip(snapshots[-1].chains, posterior.chains, strict=True):
        assert torch.equal(copied.guide.loc, chain.guide.loc)


@pytest.mark.parametrize("wrong", [3, [3], [None]])
def test_callback_that_is_not_callable_is_refused(wrong):
    with pytest.raises(TypeError, match="`callbacks` must be callables that take an EpochEnd"):
        quick_fit(callbacks=wrong)
