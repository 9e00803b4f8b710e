"""The fused engine and Pyro's SVI: which of them is used, their noise, and interruptions.

That both take the same steps is tested in test_exam.py.
"""

import logging

import numpy as np
import pytest
import torch
from engine_fits import (
    X,
    Y,
    assert_same_fit,
    messages_between_start_and_end,
    quick_fit,
)
from pyro.infer import Trace_ELBO
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pyrobbb import BayesianNetwork, mlp
from pyrobbb.engines import fused as fused_engine


@pytest.mark.parametrize("engine", ["svi", "fused"])
def test_the_settings_name_the_engine(engine):
    assert quick_fit(engine=engine).settings["engine"] == engine


@pytest.mark.parametrize(("engine", "level"), [("auto", "INFO"), ("fused", "WARNING")])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"guide": "auto_normal"},
            "the guide must be a MeanFieldGuide or LowRankGuide, got _LocalAutoNormal",
        ),
        ({"objective": Trace_ELBO()}, "the objective is a Trace_ELBO"),
    ],
)
def test_a_fit_that_cannot_be_fused_uses_svi_and_logs_the_reason(
    caplog, engine, level, change, reason
):
    caplog.set_level(logging.INFO, logger="pyrobbb")
    fitted = quick_fit(engine=engine, **change)
    assert fitted.settings["engine"] == "svi"
    (message,) = messages_between_start_and_end(caplog)
    assert message == f"The steps are taken by engine='svi': {reason}."
    (record,) = [record for record in caplog.records if record.getMessage() == message]
    assert record.levelname == level
    by_svi = quick_fit(engine="svi", **change)
    np.testing.assert_array_equal(fitted.history.nelbo, by_svi.history.nelbo)


@pytest.mark.parametrize("engine", ["auto", "fused", "compiled"])
def test_the_batches_of_a_data_loader_are_fitted_by_the_fused_engine(caplog, engine):
    caplog.set_level(logging.INFO, logger="pyrobbb")
    loader = DataLoader(TensorDataset(torch.as_tensor(X), torch.as_tensor(Y)), batch_size=10)
    fitted = quick_fit(engine=engine, x=loader, y=None, n_data=23)
    assert fitted.settings["engine"] == "fused"
    np.testing.assert_array_equal(fitted.history.n_rows, [10, 10, 3] * 4)
    expected = [
        "A DataLoader yields its batches one at a time: the steps are taken by engine='fused'."
    ]
    messages = messages_between_start_and_end(caplog)
    assert messages == (expected if engine == "compiled" else [])


@pytest.mark.parametrize("max_steps", [1, 2, 5, 100])
def test_a_fit_does_not_depend_on_the_number_of_steps_per_call(monkeypatch, max_steps):
    expected = quick_fit(n_particles=2)
    monkeypatch.setattr(fused_engine, "MAX_STEPS_PER_CALL", max_steps)
    assert_same_fit(quick_fit(n_particles=2), expected)


@pytest.mark.parametrize("engine", ["svi", "fused"])
def test_the_seed_determines_the_noise_of_every_step(engine):
    one, again, other = (quick_fit(engine=engine, batch_size=23, seed=s).history for s in (1, 1, 2))
    np.testing.assert_array_equal(one.kl, again.kl)
    assert (one.kl != other.kl).all()
    assert len(set(one.kl)) == len(one.kl)


@pytest.mark.parametrize("block_size", [1, 200, 10**6])
def test_a_fit_does_not_depend_on_how_much_noise_is_computed_ahead(monkeypatch, block_size):
    expected = quick_fit()
    monkeypatch.setattr(fused_engine, "NOISE_BLOCK_SIZE", block_size)
    assert_same_fit(quick_fit(), expected)


@pytest.mark.parametrize("engine", ["svi", "fused"])
def test_ctrl_c_within_an_epoch_keeps_the_losses_of_the_steps_taken(caplog, engine):
    class Interrupting(nn.Module):
        def __init__(self, last):
            super().__init__()
            self.net, self.last = mlp(3, [4], 1, seed=0), last
            self.register_buffer("calls", torch.tensor(0))

        def forward(self, x):
            self.calls += self.training
            if self.training and self.calls > self.last:
                raise KeyboardInterrupt
            return self.net(x)

    fits = [quick_fit(BayesianNetwork(Interrupting(n)), engine) for n in (7, 1000)]
    interrupted, whole = (posterior.history for posterior in fits)
    assert "Interrupted after 7 steps" in caplog.text
    np.testing.assert_array_equal(interrupted.nll, whole.nll[:7])
    np.testing.assert_array_equal(interrupted.kl, whole.kl[:7])
    np.testing.assert_array_equal(interrupted.n_rows, [10, 10, 3, 10, 10, 3, 10])
