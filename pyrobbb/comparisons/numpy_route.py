"""Loss and gradients by `pyrobbb.reference`: NumPy, with gradients derived by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from .. import likelihoods, priors, reference
from ..likelihoods import base_of
from ..model.guides import MeanFieldGuide
from ..model.mlp import mlp_spec
from ..model.network import BayesianNetwork
from .pyro_route import LossAndGradients


class NotCoveredError(Exception):
    """The reference does not implement this network, prior or likelihood."""


def by_reference(
    network: BayesianNetwork,
    guide: MeanFieldGuide,
    x: Tensor,
    y: Tensor,
    noise: Mapping[str, Tensor],
) -> LossAndGradients:
    """Compute loss and gradients by the reference; raise NotCoveredError if it cannot."""
    spec = mlp_spec(network.net)
    if spec is None or spec.input_scale or spec.activation not in ("relu", "tanh", "sigmoid"):
        raise NotCoveredError("the network is not a plain MLP with relu, tanh or sigmoid")
    parameters = dict(network.bayesian_parameters())
    if len(parameters) < len(list(network.net.parameters())):
        raise NotCoveredError("some parameters are deterministic")

    def layers(values: Mapping[str, Any]) -> list[tuple[Any, Any]]:
        in_order = [values[name] for name in parameters]
        return list(zip(in_order[::2], in_order[1::2], strict=True))

    mu, rho, eps = (
        {name: value.detach().cpu().numpy() for name, value in part.items()}
        for part in (guide.split(guide.loc), guide.split(guide.rho), noise)
    )
    log_noise = mu.get("noise_scale")
    if log_noise is not None:
        log_noise = reference.sample(*([(v["noise_scale"],) * 2] for v in (mu, rho, eps)))[0][0]
    result = reference.nelbo_and_gradients(
        layers(mu),
        layers(rho),
        [layers(eps)],
        x.cpu().numpy(),
        y.cpu().numpy(),
        prior=layers({n: _reference_prior(network.prior, n, p) for n, p in parameters.items()}),
        likelihood=_reference_likelihood(network.likelihood, log_noise),
        activation=spec.activation,
    )
    loss = result.nelbo
    d_loc = [gradient for pair in result.d_mu for gradient in pair]
    d_rho = [gradient for pair in result.d_rho for gradient in pair]
    if log_noise is not None:
        w = reference.sample(layers(mu), layers(rho), layers(eps))
        output, _ = reference.feedforward(w, x.cpu().numpy(), spec.activation)
        residuals = output - y.cpu().numpy()
        kl, *gradients = _log_noise_terms(
            network.likelihood, rho["noise_scale"], eps["noise_scale"], log_noise, residuals
        )
        loss += kl
        d_loc.append(gradients[0])
        d_rho.append(gradients[1])
    flat = [np.concatenate([np.ravel(g) for g in parts]) for parts in (d_loc, d_rho)]
    return LossAndGradients(np.array([loss]), flat[0], flat[1])


def _log_noise_terms(
    likelihood: Any, rho: np.ndarray, eps: np.ndarray, u: np.ndarray, residuals: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Return KL and gradients of u = log(noise scale), a weight with a normal prior."""
    prior = reference.GaussianPrior(
        scale=likelihood.noise_log_sd, loc=float(np.log(likelihood.noise_median))
    )
    log_q = -0.5 * eps**2 - reference.log_softplus(rho) - 0.5 * np.log(2 * np.pi)
    d_nll = (1 - (residuals / np.exp(u)) ** 2).sum()  # of n u + sum r^2 / (2 exp(2u))
    g = d_nll - prior.score(u)
    d_rho = reference.sigmoid(rho) * (eps * g - 1 / reference.softplus(rho))
    return float(log_q - prior.log_prob(u)), g, d_rho


def _reference_prior(prior: Any, name: str, parameter: Tensor) -> reference.Prior:
    while isinstance(prior, priors.ByName):
        prior = prior.choice(name)
    if priors.scale_family(prior, name):
        raise NotCoveredError("it does not implement learned scales of a prior")
    if isinstance(prior, priors.ScaleMixture):
        base = base_of(prior(name, parameter))
        first = (float(v.flatten()[0]) for v in (base.pi, base.scale1, base.scale2))
        return reference.MixturePrior(*first)
    if isinstance(prior, priors.Normal | priors.FanInNormal):
        normal = base_of(prior(name, parameter))
        return reference.GaussianPrior(
            scale=float(normal.stddev.flatten()[0]), loc=float(normal.mean.flatten()[0])
        )
    raise NotCoveredError(f"it does not implement the prior {type(prior).__name__}")


def _reference_likelihood(likelihood: Any, log_noise: Any) -> reference.Likelihood:
    match likelihood:
        case likelihoods.Gaussian(scale=None, noise_median=float() | int()):
            return reference.GaussianLikelihood(float(np.exp(log_noise)))
        case likelihoods.Gaussian(scale=float() | int() as scale):
            return reference.GaussianLikelihood(float(scale))
        case likelihoods.Bernoulli():
            return reference.BernoulliLikelihood()
        case likelihoods.Categorical():
            return reference.CategoricalLikelihood()
    raise NotCoveredError(f"it does not implement this likelihood ({likelihood})")
