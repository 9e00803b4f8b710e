"""Checkpoints: an interrupted fit continues, with the result of an uninterrupted one."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyro
import pytest
import support
import torch
from pyro.infer.autoguide import AutoDiagonalNormal
from support import Crash, assert_equal, crash_at
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pyrobbb
from pyrobbb import BayesianNetwork, BBBRegressor, Posterior, fit, mlp, priors
from pyrobbb.engines import compiled as compiled_engine
from pyrobbb.engines.auto import AutoEngine
from pyrobbb.storage import folders
from pyrobbb.training import checkpoints
from pyrobbb.training.checkpoints import NAMES

RNG = np.random.default_rng(0)
X = RNG.normal(size=(103, 3)).astype(np.float32)
Y = (X.sum(1, keepdims=True) + RNG.normal(size=(103, 1))).astype(np.float32)


def quick_fit(engine="fused", net=None, prior=None, **options):
    """Fit in batches of 20 rows, with a last batch of 3."""
    net = mlp(3, [4], 1, "tanh", seed=0) if net is None else net
    options = {"epochs": 30, "batch_size": 20, "every": 10, **options}
    return support.quick_fit(BayesianNetwork(net, prior), X, Y, engine=engine, **options)


@pytest.fixture(autouse=True)
def _several_compiled_calls(monkeypatch):
    monkeypatch.setattr(compiled_engine, "MAX_STEPS_PER_CALL", 60)


def dropout_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 1))


def batch_norm_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))


def noisy_rows():
    """Return a loader that shuffles rows and adds noise, both from torch's random state."""

    def add_noise(rows):
        x, y = torch.utils.data.default_collate(rows)
        return x + 0.1 * torch.randn(x.shape), y

    rows = TensorDataset(torch.as_tensor(X), torch.as_tensor(Y))
    return DataLoader(rows, batch_size=20, shuffle=True, collate_fn=add_noise)


SGD = {"optimizer": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9), "lr": 1e-5}
CASES = {
    "svi": {"engine": "svi"},
    "fused": {},
    "compiled": {"engine": "compiled", "epochs": 60},
    "auto": {"engine": "auto"},
    "full batch": {"batch_size": 200, "epochs": 200},
    "adamw": {"optimizer": torch.optim.AdamW},
    "sgd": SGD,
    "sgd, svi": {"engine": "svi", **SGD},
    "of pyro": {"optimizer": pyro.optim.ClippedAdam({"lr": 0.01})},
    "particles": {"n_particles": 2},
    "local": {"estimator": "local"},
    "dropout": {"net": dropout_net()},
    "batch norm": {"net": batch_norm_net()},
    "auto_normal": {"engine": "svi", "guide": "auto_normal"},
    "low rank": {"guide": "low_rank"},
    "low rank, restarts": {"guide": "low_rank", "restarts": 2, "n_particles": 2},
    "early stopping": {"validation": (X[:40], -Y[:40]), "patience": 5, "kl_warmup": 0.2},
    "restarts": {"restarts": 3},
    "one after another": {"restarts": 2, "engine": "svi", "epochs": 12},
    "weighted": {"sample_weight": np.linspace(0, 2, 103)},
    "double": {"net": mlp(3, [4], 1, seed=0).double()},
    "blundell": {"kl_weight": "blundell", "clip_norm": 5.0, "schedule": "cosine"},
    "learned scales": {"prior": priors.Normal("learned")},
    "callback": {"callbacks": lambda end: None},
}


MOMENTS = [(name, 101) for name in CASES if name != "early stopping"]
MOMENTS += [("svi", 3), ("fused", 3), ("compiled", 150), ("early stopping", 50)]


@pytest.mark.parametrize(("name", "n_steps"), MOMENTS)
def test_resumed_fit_is_bitwise_that_of_an_uninterrupted_one(tmp_path, monkeypatch, name, n_steps):
    options = CASES[name]
    if name == "auto":  # it depends on the time that steps take
        monkeypatch.setattr(AutoEngine, "_pays_to_compile", lambda self, steps: False)
    expected = quick_fit(**options)
    with monkeypatch.context() as patch:
        crash_at(patch, n_steps)
        with pytest.raises(Crash):
            quick_fit(**options, checkpoint=tmp_path / "c")
    assert_equal(quick_fit(**options, checkpoint=tmp_path / "c"), expected)


def test_auto_resumes_with_the_compiled_engine(tmp_path, monkeypatch):
    monkeypatch.setattr(AutoEngine, "_pays_to_compile", lambda self, steps: True)
    options = {"engine": "auto", "epochs": 150, "checkpoint": tmp_path / "c"}
    expected = quick_fit(engine="auto", epochs=150)
    with monkeypatch.context() as patch:
        crash_at(patch, 500)
        with pytest.raises(Crash):
            quick_fit(**options)
    monkeypatch.setattr(AutoEngine, "_pays_to_compile", None)  # must not be called again
    resumed = quick_fit(**options)
    assert resumed.settings["engine"] == "compiled"
    assert_equal(resumed, expected)


@pytest.mark.parametrize("engine", ["fused", "svi"])
def test_resumed_loader_continues_with_the_remaining_rows(tmp_path, monkeypatch, engine):
    def loader_fit(**options):
        network = BayesianNetwork(mlp(3, [4], 1, "tanh", seed=0))
        options = {"epochs": 10, "seed": 1, "every": 4, "engine": engine, **options}
        return fit(network, noisy_rows(), n_data=len(X), progress=False, **options)

    expected = loader_fit()
    with monkeypatch.context() as patch:
        crash_at(patch, 33)
        with pytest.raises(Crash):
            loader_fit(checkpoint=tmp_path)
    assert_equal(loader_fit(checkpoint=tmp_path), expected)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
sys.path.insert(1, {shared!r})
from test_checkpoints import quick_fit
quick_fit(sys.argv[1], epochs=400, every=10, checkpoint=sys.argv[2])
"""


@pytest.mark.parametrize(
    ("engine", "n_kills"), [("fused", 2), pytest.param("compiled", 1, marks=pytest.mark.slow)]
)
def test_fit_killed_at_random_moments_can_be_resumed(tmp_path, engine, n_kills):
    script = KILLED.format(tests=str(Path(__file__).parent), shared=str(Path(__file__).parents[1]))
    moments = random.Random(0)
    for _ in range(n_kills):
        process = subprocess.Popen(
            [sys.executable, "-c", script, engine, str(tmp_path)], stderr=subprocess.DEVNULL
        )
        before = newest(tmp_path)
        while process.poll() is None and newest(tmp_path) == before:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.wait()
    resumed = quick_fit(engine, epochs=400, checkpoint=tmp_path)
    assert_equal(resumed, quick_fit(engine, epochs=400))


def steps_in(folder, name):
    header = json.loads((folder / name / "posterior.json").read_text())
    return header["extra"]["fit"]["n_done"]


def newest(folder):
    there = [name for name in NAMES if (folder / name / "posterior.json").exists()]
    return max((steps_in(folder, name) for name in there), default=0)


def test_checkpoints_do_not_change_the_fit(tmp_path):
    assert_equal(quick_fit(checkpoint=tmp_path, every=1), quick_fit())


def test_two_checkpoints_are_written_alternately(tmp_path, monkeypatch):
    crash_at(monkeypatch, 140)
    with pytest.raises(Crash):
        quick_fit(callbacks=lambda end: None, checkpoint=tmp_path, every=12)  # 6 steps per epoch
    assert sorted(steps_in(tmp_path, name) for name in NAMES) == [132, 144]


def test_completed_fit_is_not_repeated(tmp_path, monkeypatch):
    expected = quick_fit(checkpoint=tmp_path)
    crash_at(monkeypatch, 0)
    assert_equal(quick_fit(checkpoint=tmp_path), expected)


def test_fit_ended_by_a_callback_is_complete(tmp_path, monkeypatch):
    expected = quick_fit(checkpoint=tmp_path, callbacks=lambda end: end.epoch == 3)
    crash_at(monkeypatch, 0)
    resumed = quick_fit(checkpoint=tmp_path, callbacks=lambda end: end.epoch == 3)
    assert resumed.history.n_epochs == 3
    assert_equal(resumed, expected)


def crash_a_fit(folder, monkeypatch, n_steps=140):
    with monkeypatch.context() as patch:
        crash_at(patch, n_steps)
        with pytest.raises(Crash):
            quick_fit(checkpoint=folder, callbacks=lambda end: None, every=6)


def resume(folder, **options):
    return quick_fit(checkpoint=folder, callbacks=lambda end: None, **options)


@pytest.mark.parametrize("fault", ["truncated", "changed", "no tensors", "no header fields"])
def test_previous_checkpoint_is_used_if_the_last_is_damaged(tmp_path, monkeypatch, caplog, fault):
    crash_a_fit(tmp_path, monkeypatch)
    last = max(NAMES, key=lambda name: steps_in(tmp_path, name))
    tensors = next((tmp_path / last).glob("*.safetensors"))
    if fault == "truncated":
        tensors.write_bytes(tensors.read_bytes()[:-100])
    elif fault == "changed":
        tensors.write_bytes(tensors.read_bytes()[:-1] + b"x")
    elif fault == "no tensors":
        tensors.unlink()
    else:
        header = tmp_path / last / "posterior.json"
        header.write_text(header.read_text().replace('"n_done"', '"n_don"'))
    resumed = resume(tmp_path)
    assert "damaged, and the previous one is used" in caplog.text
    assert last in caplog.text
    assert_equal(resumed, quick_fit())


def test_fit_does_not_start_again_if_all_checkpoints_are_damaged(tmp_path, monkeypatch):
    crash_a_fit(tmp_path, monkeypatch)
    for name in NAMES:
        (tmp_path / name / "posterior.json").write_text("{")
    with pytest.raises(ValueError, match="holds no checkpoint that can be read"):
        resume(tmp_path)


@pytest.mark.parametrize("n_written", [0, 3])
def test_full_disk_does_not_end_the_fit(tmp_path, monkeypatch, caplog, n_written):
    original, n = folders._write_through, 0

    def write(stream, content):
        nonlocal n
        n += 1
        if n > 2 * n_written:  # tensors and header
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), stream.name)
        original(stream, content)

    monkeypatch.setattr(folders, "_write_through", write)
    assert_equal(quick_fit(checkpoint=tmp_path, every=20), quick_fit())
    assert "No space left on device. The fit continues; last checkpoint: " in caplog.text
    there = [name for name in NAMES if (tmp_path / name / "posterior.json").exists()]
    assert len(there) == min(n_written, 2)
    monkeypatch.undo()
    assert_equal(quick_fit(checkpoint=tmp_path), quick_fit())


def test_leftovers_of_a_crash_are_removed(tmp_path, monkeypatch):
    crash_a_fit(tmp_path, monkeypatch)
    leftover = tmp_path / NAMES[0] / f"posterior-{'0' * 16}.safetensors"
    leftover.write_bytes(b"0")
    resume(tmp_path)
    assert not leftover.exists()
    assert [len(list((tmp_path / name).iterdir())) for name in NAMES] == [2, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.02}, "'lr' is 0.01, that of this fit 0.02"),
        ({"epochs": 31}, "'epochs' is 30, that of this fit 31"),
        ({"seed": 2}, "'seed' is 1, that of this fit 2"),
        ({"engine": "svi"}, "'engine' is 'fused', that of this fit 'svi'"),
        ({"optimizer": torch.optim.AdamW}, "'optimizer' is 'Adam', that of this fit 'AdamW'"),
        ({"sample_weight": np.ones(103)}, "'is_weighted' is None, that of this fit True"),
    ],
)
def test_checkpoint_of_another_fit_is_refused(tmp_path, monkeypatch, options, message):
    crash_a_fit(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match=f"belongs to another fit: its {message}"):
        resume(tmp_path, **options)


def test_checkpoint_of_different_data_is_refused(tmp_path, monkeypatch):
    crash_a_fit(tmp_path, monkeypatch)
    monkeypatch.setattr(sys.modules[__name__], "X", X + 1)
    with pytest.raises(
        ValueError, match=r"belongs to another fit: its 'x' differs from that of this fit"
    ):
        resume(tmp_path)


def test_checkpoint_of_a_different_network_is_refused(tmp_path, monkeypatch):
    crash_a_fit(tmp_path, monkeypatch)
    wider = mlp(3, [5], 1, "tanh", seed=0)
    with pytest.raises(ValueError, match="belongs to another fit: its 'network' differs"):
        resume(tmp_path, net=wider)
    with pytest.raises(ValueError, match="does not fit"):
        resume(tmp_path, net=wider, resume=True)


def test_seed_of_the_checkpoint_is_used_if_none_is_passed(tmp_path, monkeypatch):
    crash_at(monkeypatch, 64)
    with pytest.raises(Crash):
        quick_fit(checkpoint=tmp_path, seed=None)
    monkeypatch.undo()
    seed = json.loads((tmp_path / NAMES[0] / "posterior.json").read_text())["settings"][0]["seed"]
    assert_equal(quick_fit(checkpoint=tmp_path, seed=None), quick_fit(seed=seed))


def test_checkpoint_can_be_loaded_as_a_posterior(tmp_path, monkeypatch):
    crash_a_fit(tmp_path, monkeypatch)
    posterior = Posterior.load(tmp_path / NAMES[0])
    assert len(posterior.history.nelbo) == steps_in(tmp_path, NAMES[0])
    assert np.isfinite(posterior.predict(X).mean).all()


def test_custom_guide_is_refused():
    guide = AutoDiagonalNormal(BayesianNetwork(mlp(3, [4], 1)))
    with pytest.raises(
        ValueError,
        match="`checkpoint` needs guide='mean_field', 'low_rank' or 'auto_normal', got a custom",
    ):
        quick_fit(guide=guide, checkpoint="nowhere")


def test_every_must_be_at_least_1():
    with pytest.raises(ValueError, match="`every` must be at least 1, got 0"):
        quick_fit(every=0)


def test_checkpoints_are_a_minute_apart_by_default(tmp_path, monkeypatch):
    now = iter(range(0, 100_000, 7))
    monkeypatch.setattr(pyrobbb.training.checkpoints.time, "monotonic", lambda: next(now))
    store = pyrobbb.training.checkpoints.Checkpoints(tmp_path, None, {})  # at 0
    due = [n for n in range(1, 10) if store.is_due(n)]  # asked at 7, 14, ...
    assert due[0] == 9


@pytest.mark.parametrize("n_steps", [10, 70, 120, 172])
def test_estimator_resumes_the_interrupted_fit(tmp_path, monkeypatch, n_steps):
    """Five fits: three candidate likelihoods, one for calibration and one for all rows."""

    def make_model(**options):
        model = BBBRegressor(
            likelihood="auto", hidden=(4,), epochs=20, batch_size=20, restarts=2, engine="fused"
        )
        return model.set_params(**options)

    monkeypatch.setattr("pyrobbb.estimators.likelihood_choice.MIN_STEPS", 0)
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "MAX_WRITING_SHARE", 1e9)
    whole = make_model(random_state=3).fit(X, Y[:, 0])
    crashing = make_model(random_state=3, checkpoint=tmp_path)
    with monkeypatch.context() as context:
        crash_at(context, n_steps)
        with pytest.raises(Crash):
            crashing.fit(X, Y[:, 0])
    for seed in (3, None):  # None: the seed of the checkpoints
        resumed = make_model(random_state=seed, checkpoint=tmp_path).fit(X, Y[:, 0])
        assert_equal(resumed.posterior_, whole.posterior_)
        np.testing.assert_array_equal(resumed.predict(X), whole.predict(X))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"fit-{i}" for i in (1, 2, 3, 4, 5)]
    resumed.save(tmp_path / "model")
    assert BBBRegressor.load(tmp_path / "model").checkpoint is None


def test_checkpoint_of_a_fit_with_a_different_start_is_refused(tmp_path):
    options = {"hidden": (4,), "epochs": 3, "restarts": 1, "random_state": 0, "warm_start": True}
    model = BBBRegressor(calibration=0.0, checkpoint=tmp_path, **options).fit(X, Y[:, 0])
    with pytest.raises(ValueError, match=r"belongs to another fit: its '(start|kl_warmup)' is"):
        model.fit(X, Y[:, 0])
    initial = [quick_fit(seed=seed, epochs=2) for seed in (1, 2)]
    quick_fit(start=initial[0], checkpoint=tmp_path / "fit")
    quick_fit(start=initial[0], checkpoint=tmp_path / "fit")
    with pytest.raises(
        ValueError, match=r"belongs to another fit: its 'start' differs from that of this fit"
    ):
        quick_fit(start=initial[1], checkpoint=tmp_path / "fit")
