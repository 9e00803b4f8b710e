"""The engines of fit(): compiled against fused, what each falls back to, and when auto compiles.

That the fused engine takes the steps of Pyro's SVI is in the exam (test_exam.py).
"""

import functools
import json
import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pyrobbb import (
    BayesianNetwork,
    MeanFieldGuide,
    NonFiniteLossError,
    fit,
    likelihoods,
    mlp,
    priors,
)
from pyrobbb.engines import auto as auto_engine
from pyrobbb.engines import compiled as compiled_engine
from pyrobbb.engines import fused as fused_engine
from pyrobbb.engines.base import Steps

RNG = np.random.default_rng(0)
X = RNG.normal(size=(23, 3))
Y = X.sum(1, keepdims=True) + RNG.normal(size=(23, 1))
MORE_X = RNG.normal(size=(96, 3)).astype(np.float32)
LABELS = RNG.integers(10, size=96)


def network(dtype=torch.float64, **kwargs):
    return BayesianNetwork(mlp(3, [4], 1, "tanh", seed=0).to(dtype), **kwargs)


def quick_fit(net=None, engine="fused", x=X, y=Y, **kwargs):
    """Fit in batches of 10, 10 and 3 rows."""
    kwargs = {"epochs": 4, "batch_size": 10, "seed": 1, "progress": False, **kwargs}
    return fit(network() if net is None else net, x, y, engine=engine, **kwargs)


def learnt(posterior):
    points = [point for _, point in posterior.network.point_parameters()]
    return [p.detach() for p in (posterior.guide.loc, posterior.guide.rho, *points)]


def assert_same_fit(one, other, rtol=0.0, atol=0.0):
    torch.testing.assert_close(learnt(one), learnt(other), rtol=rtol, atol=atol)
    for name in ("nll", "kl", "epoch", "n_rows", "validation_nll"):
        np.testing.assert_allclose(
            getattr(one.history, name), getattr(other.history, name), rtol=rtol, atol=100 * atol
        )


@pytest.fixture(autouse=True)
def _nothing_compiled_yet(monkeypatch):
    monkeypatch.setattr(compiled_engine, "_COMPILED", {})
    monkeypatch.setattr(compiled_engine, "_OUTLINES", set())


def beside_start_and_end(caplog):
    return [r for r in caplog.records if not r.getMessage().startswith(("Fitting", "Fitted"))]


@pytest.fixture
def no_compiler(monkeypatch):
    """Make torch.compile fail as it does where no compiler is found."""

    def refuse(*args, **kwargs):
        raise RuntimeError("No working C++ compiler found\nin any of these places: ...")

    monkeypatch.setattr(torch, "compile", refuse)


def uncompiled(step, carry, by_step, data, at_once):
    """Stand in for `compile_loop`: the same steps, by Python."""

    def call(carry, by_step, data):
        assert len(by_step[0]) <= at_once
        parts = []
        for i in range(len(by_step[0])):
            *carry, part = step(*carry, *(tensor[i] for tensor in by_step), *data)
            parts.append(part)
        return carry, torch.stack(parts)

    return call


# Compiled against fused

CASES = {
    "ragged batches, learnt noise": (network, {}, 1e-8),
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
        # The rounding of float32 is 6e-8; 500 steps carry it on.
        1e-3,
    ),
    "ten classes, batches that fill a vector register": (
        lambda: BayesianNetwork(mlp(3, [4], 10, seed=0), likelihood=likelihoods.Categorical()),
        {"x": MORE_X, "y": LABELS, "batch_size": 32},
        1e-3,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_500_compiled_steps_are_those_of_the_fused_engine(monkeypatch, case):
    monkeypatch.setattr(compiled_engine, "MOST_AT_ONCE", 256)  # calls of 256 and 245 steps
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


@pytest.mark.slow
def test_steps_that_are_compiled_are_kept_for_fits_of_the_same_kind_only(monkeypatch):
    """Priors and frozen weights are constants in them."""

    def make(frozen=0.0, prior=0.0):
        net = mlp(3, [4], 1, "tanh", seed=0).double()
        net[0].requires_grad_(False)
        net[0].weight += frozen
        return BayesianNetwork(net, priors.Normal(1 + prior), likelihoods.Gaussian(0.3))

    def check(n_compiled, **change):
        compiled = quick_fit(make(**change), "compiled")
        assert compiled.settings["engine"] == "compiled"
        assert len(calls) == n_compiled
        assert_same_fit(compiled, quick_fit(make(**change), "fused"), rtol=1e-10)
        return compiled

    calls = []
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *a, **k: calls.append(1) or original(*a, **k))
    first = check(1)
    assert_same_fit(check(1), first)
    other = check(2, frozen=1e-5)  # less than what the comparison of the losses would notice
    assert (other.history.nll != first.history.nll).all()
    other = check(3, prior=1e-5)
    assert (other.history.kl != first.history.kl).all()
    again = quick_fit(make(prior=1e-5), "compiled", x=2 * X, y=Y + 1, seed=9)
    assert len(calls) == 3
    by_fused = quick_fit(make(prior=1e-5), "fused", x=2 * X, y=Y + 1, seed=9)
    assert_same_fit(again, by_fused, rtol=1e-10)


@pytest.mark.slow
def test_what_is_not_finite_within_a_compiled_call_is_reported_with_its_step():
    messages = []
    for engine in ("compiled", "fused"):
        with pytest.raises(
            NonFiniteLossError, match=r"not finite at step 7: .* holds NaN"
        ) as caught:
            quick_fit(engine=engine, schedule=lambda part: 1e200 if part > 0.49 else 1.0, lr=1e-3)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.slow
def test_ctrl_c_between_compiled_calls_gives_what_the_fused_engine_gives(monkeypatch, caplog):
    monkeypatch.setattr(compiled_engine, "MOST_AT_ONCE", 12)
    monkeypatch.setattr(fused_engine, "AT_ONCE", 12)

    def interrupt_third(kind, method):
        calls = []
        original = getattr(kind, method)

        def counting(self, *args):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return original(self, *args)

        monkeypatch.setattr(kind, method, counting)

    whole = quick_fit(engine="fused", epochs=20)
    interrupt_third(compiled_engine.CompiledEngine, "_take")
    compiled = quick_fit(engine="compiled", epochs=20)
    interrupt_third(fused_engine.FusedEngine, "run")
    fused = quick_fit(engine="fused", epochs=20)
    assert caplog.text.count("Interrupted after 24 steps") == 2
    assert len(compiled.history.nelbo) == 24
    assert_same_fit(compiled, fused, rtol=1e-10)
    np.testing.assert_allclose(compiled.history.nelbo, whole.history.nelbo[:24], rtol=1e-10)


@pytest.mark.slow
def test_validation_and_patience_work_with_compiled_steps():
    options = {"validation": (X, -Y), "epochs": 40, "patience": 3, "kl_warmup": 0, "lr": 0.3}
    options["net"] = network(likelihood=likelihoods.Gaussian(0.5))
    compiled = quick_fit(engine="compiled", **options)
    fused = quick_fit(engine="fused", **options)
    assert compiled.settings["engine"] == "compiled"
    assert len(compiled.history.validation_nll) < 40
    assert_same_fit(compiled, fused, rtol=1e-8)


# What cannot be compiled


def assert_falls_back(make, match, **options):
    with pytest.warns(RuntimeWarning, match=match) as record:
        fallen = quick_fit(make(), "compiled", **options)
    assert len(record) == 1
    assert fallen.settings["engine"] == "fused"
    assert_same_fit(fallen, quick_fit(make(), "fused", **options))


def test_without_a_compiler_the_steps_are_fused_with_one_warning(no_compiler):
    match = "by engine='fused': RuntimeError: No working C\\+\\+ compiler found$"
    assert_falls_back(network, match)
    assert_falls_back(network, match, n_particles=2, validation=(X, Y))


@pytest.mark.slow
def test_on_a_machine_without_a_compiler_the_steps_are_fused_with_one_warning(tmp_path):
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
    nowhere = str(tmp_path / "c++")
    environment = {
        **os.environ,
        "CXX": nowhere,
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


def test_modules_that_change_buffers_or_draw_numbers_are_not_compiled():
    class Jitter(nn.Module):
        def forward(self, x):
            return x + 0.1 * torch.randn_like(x) if self.training else x

    def of(middle):
        def make():
            torch.manual_seed(0)
            net = nn.Sequential(nn.Linear(3, 4), middle(), nn.Tanh(), nn.Linear(4, 1)).double()
            return BayesianNetwork(net)

        return make

    assert_falls_back(of(lambda: nn.BatchNorm1d(4, affine=False)), "changes a tensor in place")
    assert_falls_back(of(Jitter), "the module draws random numbers")
    assert_falls_back(of(lambda: nn.Dropout(0.5)), "nothing that draws random numbers of its own")
    assert quick_fit(of(lambda: nn.Dropout(0.5))(), "auto").settings["engine"] == "fused"


def test_other_optimisers_are_not_compiled():
    sgd = functools.partial(torch.optim.SGD, momentum=0.9)
    assert_falls_back(network, "only Adam and AdamW are compiled", optimizer=sgd, lr=1e-4)


def test_rows_that_see_each_other_are_not_compiled_with_a_smaller_last_batch(monkeypatch):
    """A smaller batch is filled up, and the rows that fill it up would count in its mean."""
    monkeypatch.setattr(compiled_engine, "compile_loop", uncompiled)

    class Centred(nn.Module):
        def forward(self, x):
            return x - x.mean(0)

    def make():
        torch.manual_seed(0)
        return BayesianNetwork(
            nn.Sequential(nn.Linear(3, 4), Centred(), nn.Tanh(), nn.Linear(4, 1)).double()
        )

    assert_falls_back(make, "the rows of a batch see each other, and the last batch is smaller")
    full = {"batch_size": 23, "epochs": 12}
    compiled = quick_fit(make(), "compiled", **full)
    assert compiled.settings["engine"] == "compiled"
    assert_same_fit(compiled, quick_fit(make(), "fused", **full), rtol=1e-6)


def test_a_compiled_step_that_gives_another_loss_is_refused(monkeypatch):
    def wrong(*args):
        def call(*inputs):
            carry, parts = uncompiled(*args)(*inputs)
            return carry, 1.01 * parts

        return call

    monkeypatch.setattr(compiled_engine, "compile_loop", wrong)
    assert_falls_back(network, "the compiled losses .* are not those expected")


def test_the_step_that_is_compiled_is_that_of_the_fused_engine(monkeypatch):
    """The function itself, without the compiler: all kinds of fits, in no time."""

    monkeypatch.setattr(compiled_engine, "compile_loop", uncompiled)
    monkeypatch.setattr(compiled_engine, "MOST_AT_ONCE", 8)  # several calls, the last shorter
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
        assert compiled.settings["engine"] == "compiled"
        for one, other in zip(compiled.chains, fused.chains, strict=True):
            assert_same_fit(one, other, rtol=1e-9, atol=1e-10)


# Which engine takes the steps


@pytest.mark.parametrize("engine", ["svi", "fused"])
def test_the_settings_name_the_engine(engine):
    assert quick_fit(engine=engine).settings["engine"] == engine


@pytest.mark.parametrize(("engine", "level"), [("auto", "INFO"), ("fused", "WARNING")])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"guide": "auto_normal"}, "the guide must be a MeanFieldGuide, got _LocalAutoNormal"),
        ({"objective": Trace_ELBO()}, "the objective is a Trace_ELBO"),
    ],
)
def test_what_cannot_be_fused_is_fitted_by_svi_with_one_line_in_the_log(
    caplog, engine, level, change, reason
):
    caplog.set_level(logging.INFO, logger="pyrobbb")
    fitted = quick_fit(engine=engine, **change)
    assert fitted.settings["engine"] == "svi"
    (record,) = beside_start_and_end(caplog)
    assert record.levelname == level
    assert record.getMessage() == f"The steps are taken by engine='svi': {reason}."
    by_svi = quick_fit(engine="svi", **change)
    np.testing.assert_array_equal(fitted.history.nelbo, by_svi.history.nelbo)


@pytest.mark.parametrize("engine", ["auto", "fused", "compiled"])
def test_the_batches_of_a_data_loader_are_taken_by_the_fused_engine(caplog, engine):
    caplog.set_level(logging.INFO, logger="pyrobbb")
    loader = DataLoader(TensorDataset(torch.as_tensor(X), torch.as_tensor(Y)), batch_size=10)
    fitted = quick_fit(engine=engine, x=loader, y=None, n_data=23)
    assert fitted.settings["engine"] == "fused"
    np.testing.assert_array_equal(fitted.history.n_rows, [10, 10, 3] * 4)
    expected = ["A DataLoader gives its batches one by one: the steps are taken by engine='fused'."]
    messages = [r.getMessage() for r in beside_start_and_end(caplog)]
    assert messages == (expected if engine == "compiled" else [])


def test_auto_does_not_compile_for_a_few_steps(caplog, monkeypatch):
    monkeypatch.setattr(torch, "compile", None)  # would fail
    caplog.set_level(logging.INFO, logger="pyrobbb")
    automatic = quick_fit(engine="auto", epochs=40)
    assert automatic.settings["engine"] == "fused"
    assert_same_fit(automatic, quick_fit(engine="fused", epochs=40))
    (message,) = [r.getMessage() for r in beside_start_and_end(caplog)]
    assert message.endswith("72 are left: they will go on like this.")


@pytest.mark.slow
def test_auto_compiles_where_the_steps_that_are_left_pay_for_it(caplog, monkeypatch):
    monkeypatch.setattr(auto_engine, "COMPILE_SECONDS", 0.0)
    caplog.set_level(logging.INFO, logger="pyrobbb")
    lengths = []
    take = compiled_engine.CompiledEngine._take
    monkeypatch.setattr(
        compiled_engine.CompiledEngine,
        "_take",
        lambda self, steps, noise: lengths.append(len(steps)) or take(self, steps, noise),
    )
    automatic = quick_fit(engine="auto", epochs=40)
    assert automatic.settings["engine"] == "compiled"
    assert lengths == [72]  # 120 steps, of which 3 times 16 measured how long one takes
    assert_same_fit(automatic, quick_fit(engine="fused", epochs=40), rtol=1e-9, atol=1e-10)
    assert any(r.getMessage().endswith("they will be compiled.") for r in caplog.records)


def test_auto_looks_for_a_compiler_first(monkeypatch):
    monkeypatch.setattr(auto_engine, "COMPILE_SECONDS", 0.0)
    monkeypatch.setattr(torch, "compile", None)  # would fail
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert quick_fit(engine="auto", epochs=40).settings["engine"] == "fused"


def test_auto_does_not_try_what_is_known_not_to_compile(monkeypatch):
    monkeypatch.setattr(auto_engine, "COMPILE_SECONDS", 0.0)
    automatic = quick_fit(engine="auto", epochs=40, optimizer=torch.optim.SGD, lr=1e-5)
    assert automatic.settings["engine"] == "fused"


def test_auto_goes_on_fused_with_one_warning_where_compilation_fails(no_compiler, monkeypatch):
    monkeypatch.setattr(auto_engine, "COMPILE_SECONDS", 0.0)
    with pytest.warns(RuntimeWarning, match="No working C\\+\\+ compiler found") as record:
        automatic = quick_fit(engine="auto", epochs=40)
    assert len(record) == 1
    assert automatic.settings["engine"] == "fused"
    assert_same_fit(automatic, quick_fit(engine="fused", epochs=40))


@pytest.mark.parametrize(
    ("seconds", "n_steps", "pays"),
    [(0.3e-3, 20_000, False), (0.3e-3, 30_000, True), (0.1, 100, False), (0.1, 200, True)],
)
def test_compiling_pays_by_what_it_saves_of_python_and_of_arithmetic(seconds, n_steps, pays):
    assert auto_engine.pays_to_compile(seconds, n_steps, n_steps, cost=6.0) is pays
    assert auto_engine.pays_to_compile(seconds, n_steps // 10, n_steps, cost=0.6) is pays


def test_compiling_never_pays_for_small_steps_that_are_looked_at_one_by_one():
    assert not auto_engine.pays_to_compile(0.3e-3, 10**9, 1, cost=6.0)
    assert not auto_engine.pays_to_compile(0.3e-3, 10**9, 3, cost=6.0)
    assert auto_engine.pays_to_compile(0.3e-3, 10**9, 10, cost=6.0)
    assert auto_engine.pays_to_compile(0.1, 200, 1, cost=6.0)


# Steps, pieces and interruptions


@pytest.mark.parametrize(
    ("noise_size", "n_chains", "batch_size", "expected"),
    [
        (1000, 1, 100, 1024),
        (2**18, 1, 100, 128),  # of a call whose noise takes long
        (2**27, 1, 100, 4),
        (1000, 1, 2**14, 128),  # of rows whose numbers take memory
        (4000, 4, 2**12, 128),
    ],
)
def test_a_compiled_call_takes_many_steps_within_bounds_of_time_and_memory(
    monkeypatch, noise_size, n_chains, batch_size, expected
):
    monkeypatch.setattr(compiled_engine, "is_plain", lambda fused: True)
    fused = SimpleNamespace(noise_size=noise_size, chains=[None] * n_chains)
    engine = compiled_engine.CompiledEngine(fused, batch_size=batch_size, ragged=False)
    assert engine.at_once == expected


@pytest.mark.slow
def test_one_compilation_serves_calls_of_any_number_of_steps(monkeypatch):
    calls, singles = [], []
    compile_it, take_singly = torch.compile, fused_engine.FusedEngine.run_with
    monkeypatch.setattr(torch, "compile", lambda *a, **k: calls.append(1) or compile_it(*a, **k))
    monkeypatch.setattr(
        fused_engine.FusedEngine,
        "run_with",
        lambda self, steps, *args: singles.append(len(steps)) or take_singly(self, steps, *args),
    )
    for options in (
        {"epochs": 1},
        {"epochs": 7},
        {"epochs": 400},  # 1200 steps: a call of 1024, and one of 176
        {"epochs": 3, "validation": (X, Y)},  # three calls
    ):
        compiled = quick_fit(engine="compiled", **options)
        assert compiled.settings["engine"] == "compiled"
        assert singles == []
        fused = quick_fit(engine="fused", **options)
        assert_same_fit(compiled, fused, rtol=1e-8, atol=1e-9)
        singles.clear()
    assert len(calls) == 1


@pytest.mark.parametrize("at_once", [1, 2, 5, 100])
def test_a_fit_does_not_depend_on_how_many_steps_are_taken_at_once(monkeypatch, at_once):
    expected = quick_fit(n_particles=2)
    monkeypatch.setattr(fused_engine, "AT_ONCE", at_once)
    assert_same_fit(quick_fit(n_particles=2), expected)


@pytest.mark.parametrize("engine", ["svi", "fused"])
def test_the_seed_decides_the_noise_of_every_step(engine):
    one, again, other = (quick_fit(engine=engine, batch_size=23, seed=s).history for s in (1, 1, 2))
    np.testing.assert_array_equal(one.kl, again.kl)
    assert (one.kl != other.kl).all()
    assert len(set(one.kl)) == len(one.kl)


@pytest.mark.parametrize("n_ahead", [1, 200, 10**6])
def test_noise_is_the_same_however_much_of_it_is_made_at_once(monkeypatch, n_ahead):
    expected = quick_fit()
    monkeypatch.setattr(fused_engine, "NOISE_AHEAD", n_ahead)
    assert_same_fit(quick_fit(), expected)


@pytest.mark.parametrize("engine", ["svi", "fused"])
def test_ctrl_c_within_an_epoch_keeps_the_losses_of_the_steps_taken(caplog, engine):
    class Interrupting(nn.Module):
        def __init__(self, last):
            super().__init__()
            self.net, self.calls, self.last = mlp(3, [4], 1, seed=0), 0, last

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


@pytest.mark.parametrize("prior", [priors.Laplace(), priors.StudentT(), priors.Normal()], ids=str)
def test_weights_that_are_not_finite_are_named_under_any_prior(prior):
    net = network(prior=prior, likelihood=likelihoods.Gaussian(1.0))
    with pytest.raises(NonFiniteLossError, match=r"at step \d+: .* holds NaN or infinite values"):
        quick_fit(net, lr=1e300)


def test_only_steps_on_the_same_data_are_joined():
    n_rows, ones = np.array([2]), np.ones(1)
    x = torch.zeros(2, 1)
    steps = Steps(x, x, None, n_rows, 2, ones, ones, ones)
    joined = steps.then(steps)
    assert len(joined) == 2
    assert joined.data_weight.tolist() == [1.0, 1.0]
    other = Steps(x.clone(), x, None, n_rows, 2, ones, ones, ones)
    with pytest.raises(ValueError, match="Only steps on the same data can be joined"):
        steps.then(other)


# Threads


class Recorder(nn.Module):
    """Writes down on how many threads it runs."""

    def __init__(self, seen):
        super().__init__()
        self.net = nn.Linear(3, 1)
        self.seen = seen

    def forward(self, x):
        if self.training:
            self.seen.append(torch.get_num_threads())
        return self.net(x)

    def __deepcopy__(self, memo):
        return Recorder(self.seen)


@pytest.fixture
def two_threads(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(auto_engine, "DEFAULT_THREADS", 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def threads_of_a_fit(engine="fused", **kwargs):
    seen = []
    net = BayesianNetwork(Recorder(seen))
    quick_fit(net, engine, **kwargs)
    return set(seen)


@pytest.mark.parametrize("engine", ["svi", "fused"])
def test_a_tiny_net_runs_on_one_thread_and_gives_the_others_back(two_threads, engine):
    assert threads_of_a_fit(engine) == {1}
    assert torch.get_num_threads() == 2


def test_the_threads_are_given_back_after_a_fit_that_fails(two_threads):
    with pytest.raises(NonFiniteLossError, match="not finite at step"):
        threads_of_a_fit(lr=1e30)
    assert torch.get_num_threads() == 2


def test_a_net_that_is_not_tiny_keeps_its_threads(two_threads, monkeypatch):
    monkeypatch.setattr(auto_engine, "TINY", 8)  # two vectors of 5: weights, bias and noise
    assert threads_of_a_fit() == {2}


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_threads_that_the_user_has_set_are_left_alone(two_threads, monkeypatch, variable):
    torch.set_num_threads(3)
    assert threads_of_a_fit() == {3}
    assert torch.get_num_threads() == 3
    torch.set_num_threads(2)
    assert threads_of_a_fit() == {1}
    monkeypatch.setenv(variable, "2")
    assert threads_of_a_fit() == {2}
