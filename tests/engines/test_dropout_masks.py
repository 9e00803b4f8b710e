"""Dropout in compiled steps: the masks of the fused engine, in all kinds of dropout."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch._inductor
from engine_fits import assert_same_fit, quick_fit
from support import Crash, crash_at
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pyrobbb import BayesianNetwork
from pyrobbb._core.global_state import without_messages_of
from pyrobbb.engines import compiled as compiled_engine
from pyrobbb.engines.dropout_masks import DropoutMasks, GivenMasks

RNG = np.random.default_rng(0)
SEQUENCES = RNG.normal(size=(23, 5, 4))
TARGETS = SEQUENCES.sum((1, 2))[:, None]


class Forward(nn.Module):
    """Calls a function with a module in between: ``head(function(self, body(x)))``, averaged."""

    def __init__(self, function, body):
        super().__init__()
        self.body, self.function = body, function
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.function(self, self.body(x))).mean(1)


def hidden_dropout(self, h):
    return functional.dropout(torch.tanh(h), 0.3, self.training)


def attention(self, h):
    return functional.scaled_dot_product_attention(h, h, h, dropout_p=0.2 * self.training)


def positions_first(self, h):
    return functional.dropout(h.transpose(0, 1), 0.3, self.training).transpose(0, 1)


def rows_among_others(self, h):
    columns = h.permute(1, 0, 2).flatten(0, 1)
    return functional.dropout(columns, 0.3, self.training).unflatten(0, (5, -1)).permute(1, 0, 2)


def identity(self, h):
    return h


def layer(kind, *options):
    return lambda: Forward(identity, nn.Sequential(nn.Linear(4, 4), kind(*options), nn.Tanh()))


def encoder(p, n_layers=1, **options):
    def make():
        one = nn.TransformerEncoderLayer(4, 2, 8, dropout=p, batch_first=True, **options)
        body = nn.TransformerEncoder(one, n_layers, enable_nested_tensor=False)
        return Forward(identity, body)

    return make


MODULES = {
    "dropout 0": layer(nn.Dropout, 0.0),
    "dropout": layer(nn.Dropout, 0.3),
    "dropout of everything": layer(nn.Dropout, 1.0),
    "in place": layer(nn.Dropout, 0.3, True),
    "alpha": layer(nn.AlphaDropout, 0.3),
    "feature alpha": layer(nn.FeatureAlphaDropout, 0.3),
    "channels": layer(nn.Dropout1d, 0.3),
    "function": lambda: Forward(hidden_dropout, nn.Linear(4, 4)),
    "attention function": lambda: Forward(attention, nn.Linear(4, 4)),
    "positions first": lambda: Forward(positions_first, nn.Linear(4, 4)),
    "encoder without dropout": encoder(0.0),
    "encoder": encoder(0.1),
    "two encoder layers, norm first": encoder(0.1, 2, norm_first=True, activation="gelu"),
}


def network_of(make):
    torch.manual_seed(0)
    return BayesianNetwork(make().double())


def fitted(make, engine, **options):
    options = {"epochs": 8, "lr": 0.01, **options}
    return quick_fit(network_of(make), engine, SEQUENCES, TARGETS, **options)


@pytest.fixture
def calls_of_8_steps(monkeypatch):
    monkeypatch.setattr(compiled_engine, "MAX_STEPS_PER_CALL", 8)


@pytest.mark.parametrize("name", MODULES)
def test_a_traced_step_has_the_dropout_of_the_fused_engine(python_compiler, calls_of_8_steps, name):
    """Batches of 10, 10 and 3 rows, and calls that end within an epoch."""
    compiled = fitted(MODULES[name], "compiled")
    assert compiled.settings["engine"] == "compiled"
    assert len(python_compiler) == 1
    assert_same_fit(compiled, fitted(MODULES[name], "fused"), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"n_particles": 2},
        {"batch_size": 23},
        {"objective": "mean_field", "n_particles": 2, "batch_size": 23, "clip_norm": 1.0},
        {"restarts": 2},
        {"validation": (SEQUENCES, TARGETS)},
        {"sample_weight": np.linspace(0.5, 2, 23)},
    ],
)
@pytest.mark.parametrize(
    "name", ["dropout", pytest.param("attention function", marks=pytest.mark.slow)]
)
def test_dropout_is_that_of_the_fused_engine_with_all_options(
    python_compiler, calls_of_8_steps, name, options
):
    compiled, fused = (fitted(MODULES[name], e, **options) for e in ("compiled", "fused"))
    for one, other in zip(compiled.chains, fused.chains, strict=True):
        assert one.settings["engine"] == "compiled"
        assert_same_fit(one, other, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["dropout", pytest.param("encoder", marks=pytest.mark.slow)])
def test_500_compiled_steps_with_dropout_are_those_of_the_fused_engine(calls_of_256_steps, name):
    options = {"epochs": 167, "lr": 1e-3}
    compiled, fused = (fitted(MODULES[name], e, **options) for e in ("compiled", "fused"))
    assert compiled.settings["engine"] == "compiled"
    assert_same_fit(compiled, fused, rtol=1e-6, atol=1e-8)


def test_a_fit_resumed_from_a_checkpoint_has_the_same_masks(
    python_compiler, calls_of_8_steps, tmp_path, monkeypatch
):
    make = MODULES["dropout"]
    whole = fitted(make, "compiled", epochs=12)
    options = {"epochs": 12, "checkpoint": tmp_path / "c", "every": 5}
    with monkeypatch.context() as crashing:
        crash_at(crashing, 18)
        with pytest.raises(Crash):
            fitted(make, "compiled", **options)
    torch.manual_seed(5)  # the random state of the caller has no effect
    assert_same_fit(fitted(make, "compiled", **options), whole)


def test_large_masks_are_drawn_for_fewer_steps_at_a_time(python_compiler, monkeypatch):
    make = MODULES["dropout"]
    expected = fitted(make, "fused")
    lengths = []
    original = DropoutMasks.draw
    monkeypatch.setattr(compiled_engine, "MAX_NOISE_PER_CALL", 5 * 10 * 5 * 4)
    monkeypatch.setattr(
        DropoutMasks, "draw", lambda self, n: lengths.append(len(n)) or original(self, n)
    )
    compiled = fitted(make, "compiled")
    assert compiled.settings["engine"] == "compiled"
    assert max(lengths) == 5  # the first call has 8 steps
    assert_same_fit(compiled, expected, rtol=1e-8, atol=1e-9)


def masks_of(make, n_rows=10, n_steps=400):
    """Return the masks of steps of a module under a loss that only calls it."""
    net = make().double()
    x = torch.as_tensor(SEQUENCES)
    drawn = DropoutMasks(lambda n: net(x[:n]), 10)
    torch.manual_seed(1)
    return drawn.draw(np.full(n_steps, n_rows))


@pytest.mark.parametrize(("name", "p"), [("dropout", 0.3), ("attention function", 0.2)])
def test_masks_have_the_rate_of_dropout_and_are_new_in_each_step(name, p):
    (mask,) = masks_of(MODULES[name])
    n = mask.numel()
    assert abs(mask.double().mean() - (1 - p)) < 4 * (p * (1 - p) / n) ** 0.5
    steps = mask.flatten(1).double()
    both = (steps[1:] * steps[:-1]).mean()
    assert abs(both - (1 - p) ** 2) < 4 * (1 / n) ** 0.5
    assert len(torch.unique(steps, dim=0)) == len(steps)


def test_masks_of_a_smaller_batch_are_padded_with_ones():
    (mask,) = masks_of(MODULES["positions first"], n_rows=3, n_steps=50)
    assert mask.shape == (50, 5, 10, 4)
    assert mask[:, :, 3:].all()
    assert not mask[:, :, :3].all()


def test_chains_have_different_masks(monkeypatch, python_compiler):
    seen = []
    original = DropoutMasks.draw
    monkeypatch.setattr(DropoutMasks, "draw", lambda *a: seen.append(original(*a)) or seen[-1])
    fitted(MODULES["dropout"], "compiled", restarts=2, epochs=2, batch_size=23)
    first, second = (masks[0] for masks in seen if len(masks[0]) == 2)
    assert 0.3 < (first == second).double().mean() < 0.8


def test_predictions_have_no_dropout(python_compiler):
    posterior = fitted(MODULES["encoder"], "compiled")
    x = SEQUENCES[:4]
    net, draws = posterior.network.net, posterior.draws(3, seed=0)
    outputs = [
        torch.func.functional_call(net, {n: d[i] for n, d in draws.items()}, torch.as_tensor(x))
        for i in range(3)
    ]
    expected = torch.stack([o.detach() for o in outputs]).mean(0)
    predicted = posterior.predict(x, n_draws=3, seed=0).mean
    np.testing.assert_allclose(predicted, expected, rtol=1e-6)


# What is not compiled


def assert_falls_back(make, match):
    with pytest.warns(RuntimeWarning, match=match) as record:
        fit = fitted(make, "compiled")
    assert len(record) == 1
    assert "\n" not in str(record[0].message)
    assert fit.settings["engine"] == "fused"
    assert_same_fit(fit, fitted(make, "fused"))


class Jitter(nn.Module):
    def forward(self, x):
        return x + 0.1 * torch.randn_like(x) if self.training else x


def checkpointed(self, h):
    return checkpoint(lambda h: functional.dropout(h, 0.3, self.training), h, use_reentrant=False)


@pytest.mark.parametrize(
    "make",
    [
        layer(Jitter),
        layer(nn.RReLU),
        lambda: Forward(lambda self, h: hidden_dropout(self, Jitter()(h)), nn.Linear(4, 4)),
        lambda: Forward(checkpointed, nn.Linear(4, 4)),
    ],
    ids=["noise", "RReLU", "noise and dropout", "activation checkpoint"],
)
def test_other_random_numbers_than_masks_are_not_compiled(python_compiler, make):
    assert_falls_back(make, "the module draws random numbers")


def test_rows_that_are_not_a_dimension_of_the_mask_are_not_compiled(python_compiler):
    make = lambda: Forward(rows_among_others, nn.Linear(4, 4))  # noqa: E731
    assert_falls_back(make, "the rows of a batch depend on each other")
    assert fitted(make, "compiled", batch_size=23).settings["engine"] == "compiled"


def test_a_step_with_another_number_of_masks_is_refused():
    def drop(n):
        with GivenMasks([torch.ones(3)] * 2):
            for _ in range(n):
                functional.dropout(torch.ones(3), 0.5)

    drop(2)
    for n in (1, 3):
        with pytest.raises(RuntimeError, match="another number of masks than in a fused step"):
            drop(n)


def test_auto_says_why_it_does_not_compile(caplog):
    caplog.set_level("INFO", logger="pyrobbb")
    assert fitted(layer(Jitter), "auto", epochs=40).settings["engine"] == "fused"
    assert "not be compiled (the module draws random numbers, and not only masks" in caplog.text


class Last(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.rnn, self.head = kind(4, 3, batch_first=True, **options), nn.Linear(3, 1)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_not_compiled(monkeypatch, kind):
    monkeypatch.setattr(torch._inductor, "compile", None)  # would fail
    name = kind.__name__
    assert_falls_back(lambda: Last(kind), rf"the module has recurrent layers \({name}\)$")


RECURRENT = """
import warnings, numpy as np, torch
from torch import nn
from pyrobbb import BayesianNetwork, fit

class Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = {layer}, nn.Linear(3, 1)
    def forward(self, x):
        return self.head({call})

warnings.formatwarning = lambda message, *where: f"{{message}}\\n"
x = np.ones((6, 5, 4), np.float32)
p = fit(BayesianNetwork(Last()), x, x[:, 0, :1], epochs=2, engine="compiled", progress=False)
print(p.settings["engine"])
"""
CALLS = {
    "LSTM": ("nn.LSTM(4, 3, batch_first=True)", "self.rnn(x)[0][:, -1]"),
    "its function": (
        "nn.ParameterList(nn.LSTM(4, 3).parameters())",
        "torch.lstm(x, (x.new_zeros(1, 6, 3),) * 2, list(self.rnn), True, 1, 0.0, True, False, "
        "True)[0][:, -1]",
    ),
}


@pytest.mark.parametrize("environment", [{}, {"TORCH_LOGS": "inductor"}])
def test_the_compiler_logs_no_warnings_unless_asked(monkeypatch, caplog, environment):
    monkeypatch.delenv("TORCH_LOGS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    logger = logging.getLogger("torch._inductor")
    for of_torch in (logger, logger.parent):  # in torch 2.6, they do not propagate
        monkeypatch.setattr(of_torch, "propagate", True)
    level = logger.level
    with without_messages_of("torch._dynamo", "torch._inductor"):
        logging.getLogger("torch._inductor.ir").warning("missing a c-shim")
    assert logger.level == level
    assert bool(caplog.records) is bool(environment)


@pytest.mark.parametrize("name", CALLS)
def test_the_fallback_of_a_recurrent_layer_is_one_line_on_stderr(name):
    layer, call = CALLS[name]
    done = subprocess.run(
        [sys.executable, "-c", RECURRENT.format(layer=layer, call=call)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "fused"
    (line,) = done.stderr.splitlines()
    assert "could not be compiled and are taken by engine='fused': " in line
