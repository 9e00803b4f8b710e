"""Exported programs give the numbers of predict, in another process and for other rows."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from support import QUICK_ESTIMATOR, X, Y, quick_fit, shared_fit, small_network
from torch import nn

from pyrobbb import BayesianNetwork, BBBClassifier, BBBRegressor, likelihoods
from pyrobbb.export import programs
from pyrobbb.model.mlp import ACTIVATIONS

RNG = np.random.default_rng(1)
LEVELS = (0.02, 0.5, 0.9)
TEXT = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
PAGE = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
RUN = {"pt2": programs.run_torch, "onnx": programs.run_onnx}
LABELS = RNG.integers(0, 3, len(X))


class Encoder(nn.Module):
    """A transformer encoder of 5 tokens, and a linear layer of their mean."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, 1)

    def forward(self, tokens, mask):
        return self.head((self.encoder(tokens) * mask[..., None]).mean(1))


class Doubtful(nn.Module):
    """A layer whose operations depend on the values of its input."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


def convolutions():
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    net = nn.Sequential(*layers, nn.Linear(36, 3))
    images = RNG.normal(size=(23, 1, 8, 8)).astype("f")
    return BayesianNetwork(net, likelihood=likelihoods.Categorical()), images, LABELS


def encoder():
    tokens = RNG.normal(size=(23, 5, 8)).astype("f")
    inputs = {"tokens": tokens, "mask": RNG.integers(0, 2, (23, 5)).astype("f")}
    return BayesianNetwork(Encoder()), inputs, Y


def of_likelihood(likelihood, n_outputs=1, y=Y):
    return lambda: (small_network(n_outputs, likelihood=likelihood), X, y)


COUNTS = RNG.integers(0, 5, (len(X), 1))
CASES = {
    "convolutions": convolutions,
    "transformer": encoder,
    "gaussian": of_likelihood(likelihoods.Gaussian()),
    "two columns": of_likelihood(likelihoods.Gaussian((0.1, 0.5)), 2, np.hstack([Y, X[:, :1]])),
    "heteroscedastic": of_likelihood(likelihoods.HeteroscedasticGaussian(), 2),
    "student t": of_likelihood(likelihoods.StudentT(df=3)),
    "log-normal": of_likelihood(likelihoods.LogNormal(), y=np.exp(Y)),
    "bernoulli": of_likelihood(likelihoods.Bernoulli(), y=COUNTS % 2),
    "poisson": of_likelihood(likelihoods.Poisson(), y=COUNTS),
    "negative binomial": of_likelihood(likelihoods.NegativeBinomial(), y=COUNTS),
    "custom": of_likelihood(lambda output: dist.Gamma(2.0, (-output).exp()), y=np.exp(Y)),
}
WITHOUT_QUANTILES = {"convolutions", "bernoulli", "poisson", "negative binomial", "custom"}
FAST = {("convolutions", "onnx"), ("poisson", "pt2")}


def cases():
    for name in CASES:
        for suffix in RUN:
            marks = () if (name, suffix) in FAST else pytest.mark.slow
            yield pytest.param(name, suffix, marks=marks)


def rows(inputs, n, dtype):
    """Return rows that the export has not seen, as tensors."""
    if isinstance(inputs, dict):
        return {name: rows(array, n, dtype) for name, array in inputs.items()}
    return torch.as_tensor(np.resize(inputs[::-1], (n, *inputs.shape[1:])) * 1.5, dtype=dtype)


def assert_same_numbers(outputs, prediction, levels=LEVELS, rtol=1e-5):
    for name, values in outputs.items():
        expected = prediction.quantile(list(levels)) if name == "quantiles" else None
        expected = getattr(prediction, name) if expected is None else expected
        np.testing.assert_allclose(values, expected, rtol=rtol, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("name", "suffix"), list(cases()))
def test_a_program_gives_the_numbers_of_predict_for_any_number_of_rows(
    name, suffix, tmp_path, request
):
    if suffix == "onnx":
        request.getfixturevalue("onnx")
    network, x, y = CASES[name]()
    posterior = quick_fit(network, x, y, epochs=2, engine="svi")
    has_quantiles = name not in WITHOUT_QUANTILES
    file = tmp_path / f"model.{suffix}"
    posterior.export(file, n_draws=8, seed=4, quantiles=LEVELS if has_quantiles else ())
    dtype = posterior.network.bayesian_parameters()[0][1].dtype
    for n in (1, 5, 40):
        new = rows(x, n, dtype)
        outputs = RUN[suffix](file.read_bytes(), new)
        assert ("quantiles" in outputs) == has_quantiles
        assert_same_numbers(outputs, posterior.predict(new, 8, seed=4))


def regressor(**options):
    x = RNG.normal(size=(90, 10))
    x[:, :3] = x[:, :3] * [1, 30, 1e-3] + [2000, 0, 5]
    model = BBBRegressor([5], calibration=0.3, **{**QUICK_ESTIMATOR, **options})
    return model.fit(x, 300 + 10 * x[:, 1] + RNG.normal(size=90)), x


def classifier():
    x = RNG.normal(size=(90, 10))
    model = BBBClassifier([5], calibration=0.3, **QUICK_ESTIMATOR)
    model.fit(x, np.where(x[:, 0] + RNG.normal(size=90) > 0, "late", "soon"))
    model.temperature_ = 1.7  # whether or not the held-out rows needed one
    return model, x


def test_an_estimator_is_exported_with_scaling_and_calibrated_quantiles(
    tmp_path, onnx, monkeypatch, capsys
):
    model, x = regressor(likelihood="gaussian", restarts=2)
    assert model.calibration_ is not None
    model.export(tmp_path / "model.onnx", quantiles=LEVELS, metadata={"unit": "mm"})
    new = 3 * x - 2 * x.mean(0)  # beyond the tails
    outputs = RUN["onnx"]((tmp_path / "model.onnx").read_bytes(), torch.as_tensor(new))
    assert_same_numbers(outputs, model.predict_distribution(new))
    monkeypatch.chdir(tmp_path)
    exec(PAGE[1], names := {})
    stored = names["metadata"]
    assert names["outputs"]["quantiles"].shape == (3, 3)
    assert "[0.02, 0.5, 0.9]" in capsys.readouterr().out
    assert stored["seed"] == str(model.seed_)
    assert {"pyrobbb", "torch", "onnx", "n_draws"} <= stored.keys()
    assert (stored["unit"], json.loads(stored["quantiles"])) == ('"mm"', list(LEVELS))


def test_a_process_that_imports_torch_alone_gives_the_numbers_of_predict(tmp_path, monkeypatch):
    model, x = classifier()
    model.export(tmp_path / "model.pt2")
    monkeypatch.chdir(tmp_path)
    exec(PAGE[2], names := {})
    assert names["outputs"]["probs"].shape == (3, 2)
    np.save(tmp_path / "x.npy", x)
    code = (
        "import json, sys, numpy, torch\n"
        "extra = {'pyrobbb.json': ''}\n"
        "program = torch.export.load('model.pt2', extra_files=extra).module()\n"
        "outputs = program(torch.from_numpy(numpy.load('x.npy')))\n"
        "print(json.dumps([json.loads(extra['pyrobbb.json']), 'pyro' in sys.modules, \n"
        "                  {name: value.tolist() for name, value in outputs.items()}]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    stored, has_pyro, outputs = json.loads(run.stdout)
    assert (has_pyro, json.loads(stored["classes"])) == (False, ["late", "soon"])
    assert list(outputs) == ["probs", "label", "entropy", "expected_entropy", "mutual_information"]
    assert_same_numbers(outputs, model.predict_distribution(x))


@pytest.mark.parametrize(
    "dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.float64]
)
def test_onnxruntime_has_all_activations_in_both_precisions(tmp_path, onnx, dtype):
    activations = [kind() for kind in ACTIVATIONS.values()]
    net = nn.Sequential(nn.Linear(3, 4), *activations, nn.Linear(4, 1)).to(dtype)
    posterior = quick_fit(BayesianNetwork(net), X, Y, epochs=1, engine="svi")
    posterior.export(tmp_path / "model.onnx", n_draws=3, seed=0, quantiles=())
    new = torch.linspace(-60, 60, 300, dtype=dtype).reshape(-1, 3)
    outputs = RUN["onnx"]((tmp_path / "model.onnx").read_bytes(), new)
    assert_same_numbers(outputs, posterior.predict(new, 3, seed=0))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", RUN)
@pytest.mark.parametrize("likelihood", ["lognormal", "student_t", "heteroscedastic"])
def test_an_estimator_of_any_likelihood_is_exported(tmp_path, onnx, likelihood, suffix):
    model, x = regressor(likelihood="gaussian" if likelihood == "lognormal" else likelihood)
    if likelihood == "lognormal":
        model.set_params(likelihood=likelihood).fit(x, np.exp(x[:, 1] / 30))
    model.export(tmp_path / f"model.{suffix}", quantiles=LEVELS)
    outputs = RUN[suffix]((tmp_path / f"model.{suffix}").read_bytes(), torch.as_tensor(3 * x))
    assert_same_numbers(outputs, model.predict_distribution(3 * x))


def test_the_module_that_cannot_be_exported_is_named(tmp_path):
    net = nn.Sequential(nn.Linear(3, 4), Doubtful(), nn.Linear(4, 1))
    posterior = quick_fit(BayesianNetwork(net), X, Y, epochs=1, engine="svi")
    with pytest.raises(ValueError, match=r"cannot hold the module '1' \(Doubtful\): "):
        posterior.export(tmp_path / "model.pt2", n_draws=3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "model"}, "`path` must end in .pt2 or .onnx, got 'model'"),
        ({"path": "model.pt2", "format": "onnx"}, "`path` ends in .pt2, but `format` is 'onnx'"),
        ({"path": "model", "format": "pickle"}, "`format` must be 'torch' or 'onnx', got 'pickle'"),
        ({"path": "model.pt2", "n_draws": 0}, "`n_draws` must be"),
        ({"path": "model.pt2", "quantiles": [1.2]}, r"`quantiles` must be a list of probabilities"),
        ({"path": "model.pt2", "quantiles": 0.5}, r"`quantiles` must be a list of probabilities"),
    ],
)
def test_arguments_are_checked_first(arguments, message):
    with pytest.raises(ValueError, match=message):
        shared_fit().export(**arguments)


def test_quantiles_without_a_formula_are_refused_by_the_name_of_the_distribution(tmp_path):
    network, x, y = CASES["poisson"]()
    posterior = quick_fit(network, x, y, epochs=1)
    with pytest.raises(ValueError, match="`quantiles` of the distribution Poisson cannot be exp"):
        posterior.export(tmp_path / "model.pt2")


def test_a_program_that_differs_from_predict_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "run_torch", lambda *_: {n: torch.zeros(7, 1) for n in ("mean",)})
    with pytest.raises(RuntimeError, match="the output 'mean' of the program differs from that"):
        shared_fit().export(tmp_path / "model.pt2", n_draws=3, quantiles=())
    assert list(tmp_path.iterdir()) == []
