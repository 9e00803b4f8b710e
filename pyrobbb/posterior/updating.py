"""Updating: the posterior of earlier rows becomes the prior of further rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.utils.data import DataLoader

from .._core.arrays import ArrayLike, as_count
from .._core.random_state import as_seed
from .._core.signatures import suggests_arguments
from .._core.trees import InputsLike, arrays_of, structured
from ..elbo.objectives import kl_weight_per_chain
from ..fitted import FittedChain
from ..last_layers import condition, is_last_layer
from ..likelihoods import Conditional
from ..model.guides import MeanFieldGuide
from ..model.network import BayesianNetwork
from ..priors import Given
from ..training.warm_start import check_not_pruned
from .fitting import fit
from .posterior import Posterior, check_posterior

UPDATE_STEPS = 2000
"""Fewer than for a first fit, because an update starts at the posterior so far."""


@suggests_arguments(of_options=[fit])
def update(
    posterior: Posterior,
    x: InputsLike,
    y: ArrayLike,
    *,
    epochs: int | None = None,
    batch_size: int = 128,
    seed: int | None = None,
    **options: Any,
) -> Posterior:
    """Update a posterior with further rows, using it as their prior, without the earlier rows.

    As the posterior is an approximation, the result is close but not equal to a fit to all rows at
    once, and depends on the order of the rows. Learned scales of the prior keep their posterior:
    under a mean-field posterior they are independent of the weights, and further rows say nothing
    about them.

    Parameters
    ----------
    posterior : Posterior
        With a `MeanFieldGuide`. It is not changed. Each of its chains is updated separately. That
        of `last_layer` with a Gaussian likelihood is conditioned on the rows exactly, without
        steps: the arguments below are not for it.
    x, y : array-like of shape (n, ...)
        The further rows only.
    epochs : int, optional
        None: enough for 2,000 steps.
    batch_size : int
    seed : int, optional
    **options
        Options of `pyrobbb.fit`, except `start`, `restarts`, `kl_warmup` and `guide`. With several
        chains, `checkpoint` is a folder with one subfolder per chain.

    Returns
    -------
    Posterior
        Its networks have the original prior, which is the prior of all rows together. After
        Ctrl-C, the chains updated so far.

    Raises
    ------
    TypeError
        If the guide is not a `MeanFieldGuide` or the likelihood is not one of pyrobbb's.

    References
    ----------
    Broderick et al. (2013), "Streaming Variational Bayes".
    """
    check_posterior(posterior)
    batch_size = as_count("batch_size", batch_size)
    for name in ("start", "restarts", "kl_warmup", "guide"):
        if name in options:
            raise TypeError(
                f"`{name}` is not an option of update, which continues each chain of `posterior` "
                "from where it is: leave it out."
            )
    if all(map(is_last_layer, posterior.chains)):
        for name in (*options, *([] if epochs is None else ["epochs"])):
            raise TypeError(
                f"`{name}` is not an option of the update of a last layer, which is in closed "
                "form: leave it out."
            )
        return Posterior(tuple(condition(chain, x, y) for chain in posterior.chains))
    seed = as_seed(seed)
    if epochs is None:
        epochs = math.ceil(UPDATE_STEPS / _batches_per_epoch(x, batch_size))
    checkpoint = options.pop("checkpoint", None)
    priors = [as_prior(chain) for chain in posterior.chains]  # raises before the first update
    starts = [
        _with_sites_of(chain, prior, [chain.guide])
        for chain, prior in zip(posterior.chains, priors, strict=True)
    ]
    kl_weights = kl_weight_per_chain(options.pop("kl_weight", "uniform"), len(priors))
    updated: list[FittedChain] = []
    for i, (chain, prior, start) in enumerate(zip(posterior.chains, priors, starts, strict=True)):
        later = fit(
            prior,
            x,
            y,
            start=Posterior((start,)),
            epochs=epochs,
            batch_size=batch_size,
            kl_weight=kl_weights[i],
            kl_warmup=0.0,
            seed=seed + i,
            checkpoint=_folder_of(i, len(priors), checkpoint),
            **options,
        )
        network = later.network
        network.prior, network.likelihood = chain.network.prior, chain.network.likelihood
        updated += [
            _with_sites_of(done, network, [chain.guide, done.guide]) for done in later.chains
        ]
        if later.chains[-1].is_interrupted:
            break
    return Posterior(tuple(updated))


def _batches_per_epoch(x: Any, batch_size: int) -> int:
    """Return the number of batches in the rows, or raise if they cannot be counted."""
    if isinstance(x, DataLoader):
        return max(len(x), 1)
    first = next(iter(arrays_of(structured("x", x))), ())
    if not hasattr(first, "__len__"):
        raise TypeError(
            f"`x` must be array-like, with a row per observation, got a {type(first).__name__}."
        )
    return max(math.ceil(len(first) / batch_size), 1)  # `fit` refuses an empty x


def _folder_of(i: int, n_chains: int, checkpoint: Any) -> Any:
    """Return the folder for the checkpoints of chain i: a separate one for each of several."""
    if checkpoint is None or n_chains == 1:
        return checkpoint
    return Path(checkpoint) / f"chain-{i + 1}"


def as_prior(chain: FittedChain) -> BayesianNetwork:
    """Return the network of a chain with the chain's posterior as its prior."""
    network, guide = chain.network, chain.guide
    likelihood = network.likelihood
    if not isinstance(guide, MeanFieldGuide):
        raise TypeError(
            f"`posterior` must have a MeanFieldGuide to become a prior, got {type(guide).__name__}."
        )
    check_not_pruned("posterior", guide)
    if not isinstance(likelihood, Conditional):
        raise TypeError(
            "`posterior` must have one of pyrobbb.likelihoods to become a prior, got "
            f"{type(likelihood).__name__}."
        )
    loc, scale = guide.split(guide.loc.detach().clone()), guide.split(guide.scale.detach().clone())
    weights = [name for name, _ in network.bayesian_parameters()]
    prior = Given({name: loc[name] for name in weights}, {name: scale[name] for name in weights})
    latents = {  # all are positive, and the guide is normal in their logarithms
        name: dist.LogNormal(loc[name], scale[name]).to_event(loc[name].dim())
        for name in likelihood.latents
    }
    updated = _WithLatents(likelihood, latents)
    return BayesianNetwork(network.net, prior, updated, output=network.select, trunk=network.trunk)


def _with_sites_of(
    chain: FittedChain, network: BayesianNetwork, guides: Sequence[Any]
) -> FittedChain:
    """Return a chain whose guide has the latent sites of a network.

    Each site is that of the last of the guides which has it.
    """
    if not chain.network.learned_scales() and not network.learned_scales():
        return chain
    guide = MeanFieldGuide(network, chain.example)
    for part in ("loc", "rho"):
        values: dict[str, Tensor] = {}
        for source in guides:
            values |= source.split(getattr(source, part).detach())
        flat = torch.cat([values[site].flatten() for site in guide.shapes])
        getattr(guide, part).data.copy_(flat)
    return dataclasses.replace(chain, guide=guide)


@dataclass(frozen=True)
class _WithLatents(Conditional):
    """A likelihood with different priors for its latent sites."""

    likelihood: Conditional
    posteriors: Mapping[str, TorchDistribution]

    hint: ClassVar[str] = "y must be as in the first fit"

    @property
    def latents(self) -> Mapping[str, TorchDistribution]:
        """The latent sites and their priors."""
        return self.posteriors

    def given(self, output: Tensor, latents: Mapping[str, Tensor]) -> TorchDistribution:
        """Return the distribution of y, with latents aligned with the output."""
        return self.likelihood.given(output, latents)
