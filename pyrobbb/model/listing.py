"""The table of a network's sites: their sizes and priors."""

from __future__ import annotations

from typing import Any

from .._core.display import Listing, count_of
from .._core.messages import shown
from ..priors import ByName


def list_sites(network: Any) -> Listing:
    """Return the sites of a `BayesianNetwork` and its point parameters, with their priors."""
    rows = []
    weights = network.bayesian_parameters()
    scales = network.learned_scales()
    for name, parameter in weights:
        rows.append((name, _shape(parameter), f"{parameter.numel():,}", _prior(network, name)))
        if scale := scales.get(name):
            rows.append((scale.site, _shape(scale.hyperprior.mean), "1", "learned scale"))
    for name, prior in (getattr(network.likelihood, "latents", None) or {}).items():
        size = prior.shape().numel()
        rows.append((name, _words(prior.shape()), f"{size:,}", "noise of the likelihood"))
    for name, parameter in network.point_parameters():
        rows.append((name, _shape(parameter), f"{parameter.numel():,}", "none: a point value"))
    n_weights = sum(parameter.numel() for _, parameter in weights)
    title = (
        f"BayesianNetwork of {type(network.net).__name__}: {count_of(n_weights, 'weight')} in "
        f"{count_of(len(weights), 'site')}"
    )
    notes = (f"likelihood: {shown(network.likelihood)}",)
    return Listing(title, ("site", "shape", "size", "prior"), rows, notes)


def _prior(network: Any, name: str) -> str:
    prior = network.prior
    while isinstance(prior, ByName):
        prior = prior.choice(name)
    return shown(prior)


def _shape(tensor: Any) -> str:
    return _words(tensor.shape)


def _words(shape: Any) -> str:
    return " x ".join(map(str, shape)) or "1"
