"""Streams: the posterior so far is the prior of what comes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from .._core.arrays import ArrayLike
from .._core.random_state import as_seed
from ..likelihoods import Conditional
from ..model.guides import MeanFieldGuide
from ..model.network import BayesianNetwork
from ..priors import Given
from ..training.fitting import fit
from .posterior import Posterior

UPDATE_STEPS = 2000
"""Fewer than a first fit takes: it starts at the last posterior."""


def update(
    posterior: Posterior,
    x: ArrayLike,
    y: ArrayLike,
    *,
    epochs: int | None = None,
    batch_size: int = 128,
    seed: int | None = None,
    **options: Any,
) -> Posterior:
    """Learn from further rows, without the earlier ones: the last posterior is the prior.

    Of everything before, only the posterior is known, and that is an approximation: the result is
    near, not equal, to a fit to all rows at once. The order of the rows matters.

    Parameters
    ----------
    posterior : Posterior
        With a `MeanFieldGuide`; it is not changed. Each of its chains goes on by itself.
    x, y : array-like of shape (n, ...)
        The further rows alone.
    epochs : int, optional
        None: as many as make 2,000 steps.
    batch_size : int
    seed : int, optional
    **options
        Of `pyrobbb.fit`.

    Returns
    -------
    Posterior
        Its network has the first prior: that is the prior of all rows together.

    Raises
    ------
    TypeError
        If the posterior has another guide or likelihood than pyrobbb's.

    References
    ----------
    Broderick et al. (2013), "Streaming Variational Bayes".
    """
    seed = as_seed(seed)
    if epochs is None:
        epochs = math.ceil(UPDATE_STEPS / math.ceil(len(x) / batch_size))
    updated = []
    for i, own in enumerate(posterior.chains or (posterior,)):
        network = own.network
        later = fit(
            as_prior(own),
            x,
            y,
            start=own,
            epochs=epochs,
            batch_size=batch_size,
            kl_warmup=0.0,
            seed=seed + i,
            **options,
        )
        later.network.prior, later.network.likelihood = network.prior, network.likelihood
        updated.append(later)
    return Posterior.of_chains(updated) if posterior.chains else updated[0]


def as_prior(posterior: Posterior) -> BayesianNetwork:
    """Give the network with its posterior, that of a single fit, in the place of its prior."""
    network, guide = posterior.network, posterior.guide
    likelihood = network.likelihood
    if not isinstance(guide, MeanFieldGuide):
        raise TypeError(
            f"`posterior` must have a MeanFieldGuide to become a prior, got {type(guide).__name__}."
        )
    if not isinstance(likelihood, Conditional):
        raise TypeError(
            "`posterior` must have one of pyrobbb.likelihoods to become a prior, got "
            f"{type(likelihood).__name__}."
        )
    loc, scale = guide.split(guide.loc.detach().clone()), guide.split(guide.scale.detach().clone())
    weights = [name for name, _ in network.bayesian_parameters()]
    prior = Given({name: loc[name] for name in weights}, {name: scale[name] for name in weights})
    latents = {  # all are positive, and the guide is normal in their logarithm
        name: dist.LogNormal(loc[name], scale[name]).to_event(loc[name].dim())
        for name in likelihood.latents
    }
    return BayesianNetwork(network.net, prior, _WithLatents(likelihood, latents))


@dataclass(frozen=True)
class _WithLatents(Conditional):
    """A likelihood whose latent sites have other priors."""

    likelihood: Conditional
    learnt: Mapping[str, TorchDistribution]

    hint: ClassVar[str] = "y must be as it was in the first fit"

    @property
    def latents(self) -> Mapping[str, TorchDistribution]:
        """The latent sites and their priors."""
        return self.learnt

    def given(self, output: Tensor, latents: Mapping[str, Tensor]) -> TorchDistribution:
        """Give the distribution of y, the latents in line with the output."""
        return self.likelihood.given(output, latents)
