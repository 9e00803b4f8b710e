"""Compiled steps against fused ones, and fits that fall back to fused steps.

That the fused engine takes the steps of Pyro's SVI is tested in test_exam.py.
"""

import contextlib
import functools
import gc
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine_fits import RNG, X, Y, assert_same_fit, network, python_loop, quick_fit
from torch import nn

from pyrobbb import (
    BayesianNetwork,
    MeanFieldGuide,
    NonFiniteLossError,
    likelihoods,
    mlp,
    priors,
)
from pyrobbb.engines import compiled as compiled_engine
from pyrobbb.engines import fused as fused_engine

MORE_X = RNG.normal(size=(96, 3)).astype(np.float32)
LABELS = RNG.integers(10, size=96)


CASES = {
    "ragged batches, latent noise scale": (network, {}, 1e-8),
    "two draws, full batch, AdamW, clipped": (
        lambda: network(likelihood=likelihoods.Gaussian(0.5)),
        {
            "n_particles": 2,
            "batch_size": 23,
            "clip_norm": 5.0,
            "optimizer": functools.partial(torch.optim.AdamW, weight_decay=0.5),
        },
        1e-8,
    ),
    "closed-form KL, points, weight decay, float32": (
        lambda: network(torch.float32, prior=priors.ByName({"2.bias": None})),
        {
            "objective": "mean_field",
            "kl_weight": "blundell",
            "optimizer": functools.partial(torch.optim.Adam, weight_decay=0.01),
        },
        # The rounding of float32 is 6e-8, and grows over 500 steps.
        1e-3,
    ),
    "ten classes, batches that fill a vector register": (
        lambda: BayesianNetwork(mlp(3, [4], 10, seed=0), likelihood=likelihoods.Categorical()),
        {"x": MORE_X, "y": LABELS, "batch_size": 32},
        1e-3,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_500_compiled_steps_are_those_of_the_fused_engine(calls_of_256_steps, case):
    make, options, rtol = CASES[case]
    n_batches = 1 if options.get("batch_size") == 23 else 3
    options = {"epochs": 501 // n_batches, **options}
    compiled = quick_fit(make(), "compiled", **options)
    fused = quick_fit(make(), "fused", **options)
    assert (compiled.settings["engine"], fused.settings["engine"]) == ("compiled", "fused")
    assert len(compiled.history.nelbo) == 501
    assert_same_fit(compiled, fused, rtol=rtol, atol=rtol / 10)
    start = MeanFieldGuide(make()).loc.detach()
    assert (fused.guide.loc.detach() - start).abs().min() > 1e-3


def test_a_loss_that_is_not_finite_within_a_compiled_call_is_reported_with_its_step(
    calls_of_256_steps,
):
    messages = []
    for engine in ("compiled", "fused"):
        with pytest.raises(
            NonFiniteLossError, match=r"not finite at step 7: .* holds NaN"
        ) as caught:
            quick_fit(engine=engine, schedule=lambda part: 1e200 if part > 0.49 else 1.0, lr=1e-3)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_ctrl_c_between_calls_keeps_the_same_steps_as_in_the_fused_engine(
    calls_of_256_steps, monkeypatch, caplog
):

    def interrupt_third(kind, method):
        calls = []
        original = getattr(kind, method)

        def counting(self, *args):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return original(self, *args)

        monkeypatch.setattr(kind, method, counting)

    whole = quick_fit(engine="fused", epochs=200)
    interrupt_third(compiled_engine.CompiledEngine, "_take")
    compiled = quick_fit(engine="compiled", epochs=200)
    interrupt_third(fused_engine.FusedEngine, "run")
    fused = quick_fit(engine="fused", epochs=200)
    assert caplog.text.count("Interrupted after 512 steps") == 2
    assert len(compiled.history.nelbo) == 512
    assert_same_fit(compiled, fused, rtol=1e-10)
    np.testing.assert_allclose(compiled.history.nelbo, whole.history.nelbo[:512], rtol=1e-10)


def test_validation_and_patience_work_with_compiled_steps(calls_of_256_steps):
    options = {"validation": (X, -Y), "epochs": 40, "patience": 3, "kl_warmup": 0, "lr": 0.3}
    compiled = quick_fit(engine="compiled", **options)
    fused = quick_fit(engine="fused", **options)
    assert compiled.settings["engine"] == "compiled"
    assert len(compiled.history.validation_nll) < 40
    assert_same_fit(compiled, fused, rtol=1e-8)


# Steps that cannot be compiled


def assert_falls_back(make, match, **options):
    with pytest.warns(RuntimeWarning, match=match) as record:
        fitted = quick_fit(make(), "compiled", **options)
    assert len(record) == 1
    assert fitted.settings["engine"] == "fused"
    assert_same_fit(fitted, quick_fit(make(), "fused", **options))


def test_steps_are_fused_with_one_warning_if_the_compiler_fails(no_compiler):
    match = "by engine='fused': RuntimeError: No working C\\+\\+ compiler found$"
    assert_falls_back(network, match)
    assert_falls_back(network, match, n_particles=2, validation=(X, Y))


def test_steps_are_fused_with_one_warning_on_a_machine_without_a_compiler(tmp_path):
    program = """
import json, warnings
import numpy as np, torch
from pyrobbb import BayesianNetwork, fit, mlp
x = np.ones((5, 3))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", RuntimeWarning)
    engines = [
        fit(BayesianNetwork(mlp(3, [4], 1)), x, x[:, :1], epochs=3, engine=e, progress=False)
        for e in ("compiled", "auto")
    ]
print(json.dumps([[p.settings["engine"] for p in engines], [str(w.message) for w in caught
      if w.category is RuntimeWarning]]))
"""
    missing = str(tmp_path / "c++")
    environment = {
        **os.environ,
        "CXX": missing,
        "PATH": "",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    engines, messages = json.loads(done.stdout.splitlines()[-1])
    assert engines == ["fused", "fused"]
    (message,) = messages
    assert "could not be compiled and are taken by engine='fused'" in message


def test_modules_that_change_buffers_or_draw_random_numbers_are_not_compiled():
    class Jitter(nn.Module):
        def forward(self, x):
            return x + 0.1 * torch.randn_like(x) if self.training else x

    def with_layer(layer):
        def make():
            torch.manual_seed(0)
            net = nn.Sequential(nn.Linear(3, 4), layer(), nn.Tanh(), nn.Linear(4, 1)).double()
            return BayesianNetwork(net)

        return make

    assert_falls_back(
        with_layer(lambda: nn.BatchNorm1d(4, affine=False)), "changes a tensor in place"
    )
    assert_falls_back(with_layer(Jitter), "the module draws random numbers")


def test_optimisers_other_than_adam_are_not_compiled():
    sgd = functools.partial(torch.optim.SGD, momentum=0.9)
    assert_falls_back(network, "only fits by Adam or AdamW are compiled", optimizer=sgd, lr=1e-4)


def test_rows_that_depend_on_each_other_are_not_compiled_with_a_smaller_last_batch(monkeypatch):
    """A smaller batch is padded, and the padding would change its mean."""
    monkeypatch.setattr(compiled_engine, "compile_loop", python_loop)

    class Centered(nn.Module):
        def forward(self, x):
            return x - x.mean(0)

    def make():
        torch.manual_seed(0)
        return BayesianNetwork(
            nn.Sequential(nn.Linear(3, 4), Centered(), nn.Tanh(), nn.Linear(4, 1)).double()
        )

    assert_falls_back(
        make, "the rows of a batch depend on each other, and the last batch is smaller"
    )
    full = {"batch_size": 23, "epochs": 12}
    compiled = quick_fit(make(), "compiled", **full)
    assert compiled.settings["engine"] == "compiled"
    assert_same_fit(compiled, quick_fit(make(), "fused", **full), rtol=1e-6)


def test_a_compiled_step_with_another_loss_is_rejected(monkeypatch):
    def wrong(*args):
        def loop(*inputs):
            carry, parts = python_loop(*args)(*inputs)
            return carry, 1.01 * parts

        return loop

    monkeypatch.setattr(compiled_engine, "compile_loop", wrong)
    assert_falls_back(network, "the compiled losses .* differ from those of the fused engine")


def test_the_step_that_is_compiled_is_that_of_the_fused_engine(monkeypatch):
    """For all kinds of fits, Python runs the function that would be compiled."""
    monkeypatch.setattr(compiled_engine, "compile_loop", python_loop)
    monkeypatch.setattr(compiled_engine, "MAX_STEPS_PER_CALL", 8)  # several calls, the last shorter
    for change in (
        {},
        {"batch_size": 23, "epochs": 30},
        {"n_particles": 3, "objective": "mean_field"},
        {"optimizer": functools.partial(torch.optim.AdamW, weight_decay=1.0), "clip_norm": 3.0},
        {"optimizer": functools.partial(torch.optim.Adam, weight_decay=1.0, betas=(0.5, 0.9))},
        {"net": network(prior=priors.ByName({"*.bias": None}, priors.Laplace()))},
        {"net": network(likelihood=likelihoods.StudentT(noise_median=(0.3,)))},
        {"restarts": 2},
        {"restarts": 2, "batch_size": 23, "epochs": 30, "clip_norm": 3.0, "n_particles": 2},
    ):
        options = {"epochs": 10, **change}
        compiled, fused = (quick_fit(engine=e, **options) for e in ("compiled", "fused"))
        for one, other in zip(compiled.chains, fused.chains, strict=True):
            assert one.settings["engine"] == "compiled"
            assert_same_fit(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("was_on", [True, False])
@pytest.mark.parametrize("compile_loop", [python_loop, None], ids=["compiles", "fails"])
def test_garbage_is_not_collected_during_a_compilation_only(monkeypatch, compile_loop, was_on):
    seen = []

    def compile_and_look(*args):
        seen.append(gc.isenabled())
        return compile_loop(*args)

    monkeypatch.setattr(compiled_engine, "compile_loop", compile_and_look)
    fails = pytest.warns(RuntimeWarning, match="TypeError")
    try:
        (gc.enable if was_on else gc.disable)()
        with contextlib.nullcontext() if compile_loop else fails:
            quick_fit(engine="compiled")
        assert gc.isenabled() is was_on
    finally:
        gc.enable()
    assert seen == [False]


# Steps per call


@pytest.mark.parametrize(
    ("noise_size", "n_chains", "batch_size", "expected"),
    [
        (1000, 1, 100, 1024),
        (2**18, 1, 100, 128),  # because the noise takes time
        (2**27, 1, 100, 4),
        (1000, 1, 2**14, 128),  # because the rows take memory
        (4000, 4, 2**12, 128),
    ],
)
def test_the_steps_of_a_compiled_call_are_bounded_by_time_and_memory(
    monkeypatch, noise_size, n_chains, batch_size, expected
):
    monkeypatch.setattr(compiled_engine, "obstacle_to_compiling", lambda fused: None)
    fused = SimpleNamespace(noise_size=noise_size, chains=[None] * n_chains)
    engine = compiled_engine.CompiledEngine(fused, batch_size=batch_size, ragged=False)
    assert engine.max_steps_per_call == expected


def test_a_torch_that_is_too_old_for_compiled_steps_is_named(monkeypatch):
    expected = quick_fit(network(), engine="fused")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    message = r"need torch 2\.6 or later, but this is torch 2\.5\.1"
    with pytest.warns(RuntimeWarning, match=message):
        fitted = quick_fit(network(), engine="compiled")
    assert fitted.settings["engine"] == "fused"
    assert_same_fit(fitted, expected)
