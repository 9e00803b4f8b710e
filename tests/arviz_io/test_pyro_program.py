"""Pyro programs that are run for many draws: vectorised runs against single runs."""

import logging

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrobbb import from_pyro
from pyrobbb.arviz_io import pyro_program
from pyrobbb.arviz_io.pyro_program import Program, total_log_prob, unobserve

pytestmark = pytest.mark.arviz


def single_draw_model(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    scale = 2.0 if float(mu) > 0 else 1.0  # Fails for a batch of draws.
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(mu, scale), obs=y)


def test_a_model_that_cannot_be_vectorised_is_run_once_per_draw_with_a_log_message(caplog):
    y = torch.zeros(4)
    mu = torch.linspace(-1, 1, 6)
    with caplog.at_level(logging.INFO):
        tree = from_pyro({"mu": mu}, model=single_draw_model, args=(y,))
    assert "The program is run once per draw: it cannot be vectorised" in caplog.text
    expected = dist.Normal(mu[:, None], 1 + (mu > 0)[:, None].float()).log_prob(y)
    np.testing.assert_allclose(tree["log_likelihood"]["y"][0], expected, rtol=1e-5)


def model_that_mixes_draws(y):
    mu = pyro.sample("mu", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(mu.sum(), 1.0), obs=y)  # Sums over draws, too.


def test_a_model_that_is_wrong_when_vectorised_is_run_once_per_draw():
    y, mu = torch.zeros(4), torch.randn(6, 3)
    tree = from_pyro({"mu": mu}, model=model_that_mixes_draws, args=(y,))
    expected = dist.Normal(mu.sum(1, keepdim=True), 1.0).log_prob(y)
    np.testing.assert_allclose(tree["log_likelihood"]["y"][0], expected, rtol=1e-5)


def nested_plates(y):
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("row", len(y), dim=-2), pyro.plate("column", 2, dim=-1):
        mean = pyro.sample("mean", dist.Normal(0.0, scale))
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def test_blocks_of_a_bounded_size_change_no_result(monkeypatch):
    y = torch.randn(3, 2)
    draws = {"scale": torch.rand(10), "mean": torch.randn(10, 3, 2)}
    program = Program(nested_plates, (y,))
    expected = program.run(10, draws)
    monkeypatch.setattr(pyro_program, "MAX_ELEMENTS", 4 * (1 + 6 + 6))
    actual = program.run(10, draws)
    for name, site in expected.items():
        assert torch.equal(actual[name].values, site.values)
        assert torch.equal(actual[name].log_prob, site.log_prob)
    assert torch.equal(total_log_prob(actual), total_log_prob(expected))
    by_hand = dist.Normal(0.0, draws["scale"][:, None, None]).log_prob(draws["mean"])
    torch.testing.assert_close(actual["mean"].log_prob, by_hand)


def test_log_densities_include_the_scale_of_a_subsampled_plate():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("row", 12, subsample=torch.arange(4)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    y, mu = torch.randn(4), torch.randn(5)
    runs = Program(model, (y,)).run(5, {"mu": mu})
    log_prob = dist.Normal(mu[:, None], 1.0).log_prob(y)
    torch.testing.assert_close(runs["y"].log_prob, log_prob)
    torch.testing.assert_close(runs["y"].total_log_prob, 3 * log_prob.double().sum(1))


def test_unobserve_samples_observed_sites_only():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.deterministic("twice", 2 * mu)
        pyro.factor("penalty", -(mu**2))
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    program = Program(unobserve(model), (torch.tensor(0.0),))
    assert (program.latent, program.deterministic) == (["mu", "y"], ["twice"])
    assert program.observed == []
    runs = program.run(200)
    assert len(runs["y"].values.unique()) == 200
    assert torch.equal(runs["twice"].values, 2 * runs["mu"].values)
