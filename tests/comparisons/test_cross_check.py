"""The cross-check passes if all routes are correct, and fails if one of them is broken."""

import dataclasses

import numpy as np
import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from torch import nn

from pyrobbb import BayesianNetwork, MeanFieldGuide, crosscheck, likelihoods, mlp, priors, reference
from pyrobbb.comparisons import Comparison
from pyrobbb.elbo.fused_loss import FusedLoss
from pyrobbb.model.auto_normal import _LocalAutoNormal

X = torch.randn(25, 3, generator=torch.Generator().manual_seed(0)).double()
Y = X.sum(1, keepdim=True).sin()
SMALL = {"n_draws": 30, "n_steps": 5}
QUANTITIES = ("loss", "gradient of loc", "gradient of rho")

NETWORKS = {
    "default prior": (BayesianNetwork(mlp(3, [5], 1, seed=0)), Y),
    "learned noise": (BayesianNetwork(mlp(3, [5], 1, seed=0), priors.Normal(1.0)), Y),
    "fixed noise": (
        BayesianNetwork(mlp(3, [5, 4], 1, "tanh", seed=0), None, likelihoods.Gaussian(0.3)),
        Y,
    ),
    "mixture, Bernoulli": (
        BayesianNetwork(
            mlp(3, [5], 1, "sigmoid", seed=0), priors.ScaleMixture(), likelihoods.Bernoulli()
        ),
        (Y > 0).double(),
    ),
    "by name, Categorical": (
        BayesianNetwork(
            mlp(3, [5], 3, seed=0),
            priors.ByName({"*.bias": priors.Normal(2.0, loc=0.5)}, priors.ScaleMixture()),
            likelihoods.Categorical(),
        ),
        torch.arange(25) % 3,
    ),
    "no hidden layer": (BayesianNetwork(mlp(3, [], 1, seed=0)), Y),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_all_routes_agree(name):
    network, y = NETWORKS[name]
    report = crosscheck(network, X, y, **SMALL)
    assert report.ok, str(report)
    assert not report.notes
    assert len({comparison.route for comparison in report.comparisons}) == 5
    assert "All 17 comparisons agree." in str(report)


@pytest.mark.parametrize(
    ("network", "y", "reason"),
    [
        (BayesianNetwork(mlp(3, [4], 1), priors.Laplace()), Y, "the prior Laplace"),
        (BayesianNetwork(mlp(3, [4], 1), None, likelihoods.StudentT()), Y, "this likelihood"),
        (BayesianNetwork(mlp(3, [4], 1, "gelu")), Y, "not a plain MLP"),
        (BayesianNetwork(mlp(3, [4], 1), priors.ByName({"0.*": None})), Y, "are deterministic"),
        (
            BayesianNetwork(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1))),
            Y,
            "not a plain MLP",
        ),
    ],
)
def test_a_route_that_is_not_implemented_is_noted_and_the_others_agree(network, y, reason):
    report = crosscheck(network, X, y, **SMALL)
    assert report.ok, str(report)
    assert len(report.comparisons) == 14
    assert reason in report.notes[0]


def failures(**changes):
    report = crosscheck(*NETWORKS["learned noise"][:1], X, Y, **SMALL, **changes)
    assert not report.ok
    assert "DIFFER" in str(report)
    return {comparison.route for comparison in report.comparisons if not comparison.ok}


def test_a_guide_with_exp_instead_of_softplus_is_detected(monkeypatch):
    monkeypatch.setattr("pyrobbb.model.flat_guide.softplus", torch.exp)
    assert "MeanFieldGuide, Trace_ELBO" in failures()


def test_a_guide_with_a_wrong_noise_site_is_detected(monkeypatch):
    monkeypatch.setattr("pyrobbb.model.mean_field.is_real", lambda support: True)
    with pytest.raises(ValueError, match=r"GreaterThan\(lower_bound=0.0\)"):
        failures()


def test_an_auto_normal_with_different_initial_values_is_detected(monkeypatch):
    setup = _LocalAutoNormal._setup_prototype

    def shifted(self, *args, **kwargs):
        setup(self, *args, **kwargs)
        with torch.no_grad():
            next(self.locs.parameters()).add_(1e-3)

    monkeypatch.setattr(_LocalAutoNormal, "_setup_prototype", shifted)
    # All routes are compared with the first one, so that all others differ.
    assert failures() >= {"MeanFieldGuide, Trace_ELBO", "NumPy, gradients by hand"}


def test_a_wrong_closed_form_kl_is_detected(monkeypatch):
    particle = TraceMeanField_ELBO._differentiable_loss_particle

    def tempered(self, model_trace, guide_trace):
        loss, surrogate = particle(self, model_trace, guide_trace)
        return 1.1 * loss, 1.1 * surrogate

    monkeypatch.setattr(TraceMeanField_ELBO, "_differentiable_loss_particle", tempered)
    report = crosscheck(NETWORKS["learned noise"][0], X, Y, **SMALL)
    failed = {c.quantity for c in report.comparisons if not c.ok}
    assert failed == {f"{what}, mean of 30" for what in QUANTITIES}


@pytest.mark.parametrize("part", ["d_loc", "d_rho", "kl"])
def test_a_wrong_fused_loss_or_gradient_is_detected(monkeypatch, part):
    right = FusedLoss.__call__

    def wrong(*args, **kwargs):
        step = right(*args, **kwargs)
        if part == "kl":
            return dataclasses.replace(step, kl=step.kl + 1e-4)
        d_guide = [step.d_loc, step.d_rho]
        d_guide[("d_loc", "d_rho").index(part)] += 1e-4
        return dataclasses.replace(step, d_guide=tuple(d_guide))

    monkeypatch.setattr(FusedLoss, "__call__", wrong)
    assert failures() == {"MeanFieldGuide, FusedELBO"}


@pytest.mark.parametrize("part", ["d_mu", "d_rho"])
def test_a_wrong_gradient_of_the_reference_is_detected(monkeypatch, part):
    right = reference.nelbo_and_gradients

    def wrong(*args, **kwargs):
        result = right(*args, **kwargs)
        getattr(result, part)[0][0][0, 0] += 1e-4
        return result

    monkeypatch.setattr(reference, "nelbo_and_gradients", wrong)
    assert failures() == {"NumPy, gradients by hand"}


def test_a_guide_whose_parameters_drift_is_detected(monkeypatch):
    forward = MeanFieldGuide.forward
    calls = []

    def drifting(self, *args, **kwargs):
        calls.append(1)
        if len(calls) > 64:  # after the first comparisons, in the short fit
            self.rho.data += 1e-5
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(MeanFieldGuide, "forward", drifting)
    report = crosscheck(NETWORKS["learned noise"][0], X, Y, n_draws=30, n_steps=20)
    assert {c.quantity for c in report.comparisons if not c.ok} <= {
        "loc, 20 steps of SVI",
        "rho, 20 steps of SVI",
    }
    assert not report.ok


def test_nan_is_never_agreement():
    assert not Comparison("loss", "some route", np.nan, np.nan, 1.0).ok
    assert not Comparison("loss", "some route", 1.0, 0.1, np.nan).ok


def test_the_network_and_the_random_state_of_the_caller_are_unchanged():
    network = NETWORKS["learned noise"][0]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    crosscheck(network, X, Y, **SMALL)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert next(network.parameters()).dtype == torch.float32
