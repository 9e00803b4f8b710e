"""Ctrl-C: `fit` returns what there is; a computation of several fits ends with the first."""

import signal

import numpy as np
import pytest
from support import QUICK_ESTIMATOR, X, Y, noisy_sine, quick_fit, small_network

from pyrobbb import BBBClassifier, BBBRegressor, compare_with_nuts, sbc, update
from pyrobbb.cli.main import main
from pyrobbb.engines.compiled import CompiledEngine
from pyrobbb.engines.fused import FusedEngine
from pyrobbb.engines.svi import SVIEngine


@pytest.fixture
def interrupt_call(monkeypatch):
    """Return a function that makes the n-th call of an engine, from 0, end as by Ctrl-C."""
    calls = []
    # A shell starts jobs in the background with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt(number):
        def interrupting(original):
            def run(self, steps, losses):
                calls.append(len(steps))
                if len(calls) == number + 1:
                    signal.raise_signal(signal.SIGINT)
                original(self, steps, losses)

            return run

        for kind in (SVIEngine, FusedEngine, CompiledEngine):
            monkeypatch.setattr(kind, "run", interrupting(kind.run))
        return calls

    yield interrupt
    signal.signal(signal.SIGINT, before)


def test_fit_returns_a_posterior_that_says_so_and_leaves_one_line(interrupt_call, caplog):
    interrupt_call(0)
    posterior = quick_fit()
    assert posterior.settings["is_interrupted"] is True
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        "Interrupted after 0 steps: the fit ends here."
    ]
    assert np.isfinite(posterior.predict(X, seed=0).mean).all()
    assert "is_interrupted" not in quick_fit().settings


def test_a_search_of_the_kl_weight_ends_with_the_posterior_so_far(interrupt_call):
    calls = interrupt_call(4)  # in the second fit of 3 steps
    posterior = quick_fit(validation=(X, Y), kl_weight="auto", engine="svi", epochs=1)
    assert len(calls) == 5  # no further weight was fitted, nor the posterior
    assert posterior.settings["is_interrupted"] is True
    assert len(posterior.settings["kl_search"]["kl_weight"]) == 2


def test_an_update_of_several_chains_ends_with_the_chain_that_is_interrupted(interrupt_call):
    posterior = quick_fit(restarts=3)
    interrupt_call(1)
    options = {"epochs": 2, "batch_size": 23, "engine": "fused", "progress": False}
    updated = update(posterior, X, Y, seed=0, **options)
    assert [chain.is_interrupted for chain in updated.chains] == [False, True]


SINE_X, SINE_Y = noisy_sine()
LABELS = np.where(SINE_Y[:, 0] > 0, "high", "low")
FITS = {
    "search of the likelihood": (BBBRegressor, {"epochs": 4000, "engine": "fused"}, SINE_Y[:, 0]),
    "refit": (BBBRegressor, {"likelihood": "gaussian", "restarts": 2}, SINE_Y[:, 0]),
    "classifier": (BBBClassifier, {}, LABELS),
}


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("case", FITS)
def test_an_estimator_ends_with_its_first_interruption_and_stays_as_it_was(
    case, number, interrupt_call
):
    kind, options, y = FITS[case]
    estimator = kind(**{**QUICK_ESTIMATOR, **options})
    calls = interrupt_call(number)
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(SINE_X, y)
    assert len(calls) == number + 1
    assert not hasattr(estimator, "posterior_")
    assert not hasattr(estimator, "n_features_in_")


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_further_fit_that_is_interrupted_keeps_the_posterior(method, interrupt_call):
    estimator = BBBRegressor(
        likelihood="gaussian", warm_start=True, calibration=0.0, **QUICK_ESTIMATOR
    ).fit(SINE_X, SINE_Y[:, 0])
    posterior = estimator.posterior_
    interrupt_call(0)
    with pytest.raises(KeyboardInterrupt):
        getattr(estimator, method)(SINE_X, SINE_Y[:, 0])
    assert estimator.posterior_ is posterior


@pytest.mark.parametrize(
    "compute",
    [
        lambda: sbc(small_network(), X[:5], n_sims=2, n_draws=10, seed=0, progress=False),
        lambda: compare_with_nuts(small_network(), X, Y, seed=0, progress=False),
    ],
)
def test_a_computation_that_needs_whole_fits_ends(compute, interrupt_call):
    interrupt_call(0)
    with pytest.raises(KeyboardInterrupt):
        compute()


@pytest.mark.parametrize("number", [0, 1])
def test_the_command_line_writes_no_model_and_exits_with_130(
    number, interrupt_call, tmp_path, capsys
):
    table = tmp_path / "table.csv"
    np.savetxt(table, np.hstack([SINE_X, SINE_Y]), delimiter=",", header="x,y", comments="")
    calls = interrupt_call(number)
    options = ["--likelihood", "gaussian", "--epochs", "5", "--out", str(tmp_path / "model")]
    assert main(["fit", str(table), "--target", "y", *options]) == 130
    assert len(calls) == number + 1
    assert not (tmp_path / "model").exists()
    captured = capsys.readouterr()
    assert "Fitted" not in captured.out + captured.err
    assert captured.err.rstrip().endswith("stopped.")
