"""The code in the README, in docs/scaling.md and in docs/inputs.md runs as it is printed."""

import re
from pathlib import Path

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide import AutoNormal

import pyrobbb
from pyrobbb import BayesianNetwork, fit, likelihoods, mlp, priors

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_quickstart_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pyrobbb.training.run.DEFAULT_STEPS", 40)  # all else at its default
    exec(BLOCKS[0], {})
    assert (tmp_path / "model" / "posterior.json").is_file()
    assert len(re.findall(r"\[\[.*?\]\]", capsys.readouterr().out, re.DOTALL)) == 3


def test_the_estimator_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pyrobbb.estimators.stages.STEPS", 20)
    x = torch.randn(30, 2).numpy()
    names = {"x_train": x[:20], "y_train": x[:20, 0], "x_test": x[20:]}
    exec(BLOCKS[1], names)
    assert names["mean"].shape == names["lower"].shape == names["epistemic_sd"].shape == (10,)
    assert (tmp_path / "model" / "posterior.json").is_file()


def test_the_pyro_loop_runs():
    x, y = torch.randn(20, 13), torch.randn(20, 1)
    names = {"batches": [(x[:12], y[:12]), (x[12:], y[12:])], "n_data": 20, "x_test": x[:5]}
    exec(BLOCKS[2], names)
    assert names["draws"]["y"].shape == (200, 5, 1)
    assert names["loss"] > 0


class Transformer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(9, 4)
        self.output = torch.nn.Linear(4, 3)

    def forward(self, input_ids, attention_mask):
        weight = attention_mask[..., None] / attention_mask.sum(1, keepdim=True)[..., None]
        return {"logits": self.output((self.embedding(input_ids) * weight).sum(1))}


def test_the_code_on_pretrained_networks_and_several_inputs_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pyrobbb.training.run.DEFAULT_STEPS", 40)
    trunk = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU()).requires_grad_(False).eval()
    net = torch.nn.Sequential()
    net.add_module("trunk", trunk)
    net.add_module("head", torch.nn.Linear(4, 1))
    x = torch.randn(40, 2)
    names = {"net": net, "x": x, "y": x[:, :1], "pyrobbb": pyrobbb, "transformer": Transformer()}
    names |= {"ids": torch.randint(9, (40, 5)), "mask": torch.ones(40, 5), "prior": priors.Normal()}
    names |= {"likelihood": likelihoods.Categorical(), "labels": torch.randint(3, (40,))}
    names |= {"fit": fit, "BayesianNetwork": BayesianNetwork, "priors": priors}
    exec(BLOCKS[3], names)
    assert pyrobbb.Posterior.load("head", net).predict(x[:2]).mean.shape == (2, 1)
    assert names["posterior"].predict({k: v[:2] for k, v in names["tokens"].items()}).probs.shape


def test_the_thompson_sampler_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []

    def reward_of(context, action):
        seen.append(action)
        return float(action)

    exec(BLOCKS[4], {"contexts": torch.zeros(3, 117).numpy(), "reward_of": reward_of})
    assert len(seen) == 3
    assert (tmp_path / "agent").is_dir()


def test_the_diagnosis_runs(capsys):
    x = torch.randn(20, 2)
    network = BayesianNetwork(mlp(2, [3], 1))
    posterior = fit(network, x, x[:, :1], epochs=3, progress=False)
    names = {"posterior": posterior, "x": x, "y": x[:, :1]}
    exec(BLOCKS[5], names)
    assert "ELBO" in capsys.readouterr().out
    assert "log_likelihood" in names["tree"].children


def test_pyro_results_are_converted():
    def model(x, y):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(x)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    data = torch.zeros(5), torch.ones(5)
    mcmc = MCMC(NUTS(model), num_samples=5, warmup_steps=5, disable_progbar=True)
    mcmc.run(*data)
    names = {"pyrobbb": pyrobbb, "mcmc": mcmc, "model": model, "x": data[0], "y": data[1]}
    exec(BLOCKS[6], {**names, "guide": AutoNormal(poutine.block(model, hide=["y"]))})


def test_every_block_of_code_is_run_by_a_test():
    assert len(BLOCKS) == 7


def test_the_code_on_scaling_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (README.parent / "docs" / "scaling.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        *("2000", "2000", "1000")
    ]


def test_the_code_on_inputs_runs(capsys):
    text = (README.parent / "docs" / "inputs.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(block, {})
    assert capsys.readouterr().out.count("[") == 4  # the probabilities of three rows


def test_the_times_of_a_step_are_those_in_the_results_of_the_benchmark():
    def rows(text):
        lines = [line.strip("|").split("|") for line in text.splitlines()]
        return [[cell.strip(" *") for cell in cells] for cells in lines if len(cells) == 4]

    results = (README.parent / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    steps = results.split("## One training step")[1].split("### Ratios of a step")[0]
    measured = {}
    for label, _, milliseconds, _ in rows(steps):
        measured.setdefault(label, []).append(milliseconds)
    shown = {label: cells for label, *cells in rows(README.read_text("utf-8")) if label in measured}
    del shown[""], measured[""]
    assert len(shown) == 10
    for label, cells in shown.items():
        for cell, milliseconds in zip(cells, measured[label], strict=True):
            assert float(cell) == pytest.approx(float(milliseconds), rel=0.05), label
