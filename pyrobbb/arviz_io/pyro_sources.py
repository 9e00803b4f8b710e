"""Sources of posterior draws: a run of MCMC, guides, or existing draws."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._core.arrays import ArrayLike
from .pyro_program import Program, total_log_prob

Model = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class PosteriorDraws:
    """Draws from a posterior, and statistics of the sampler.

    Attributes
    ----------
    sites : mapping of str to Tensor of shape (n_draws, *site)
        All draws of the first chain come first, then those of the next.
    num_chains : int
    sample_stats : mapping of str to array of shape (n_draws,)

    Raises
    ------
    ValueError
        If the numbers of draws differ between sites, or chains are of unequal length.
    """

    sites: Mapping[str, Tensor]
    num_chains: int
    sample_stats: Mapping[str, ArrayLike] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = {name: len(value) for name, value in self.sites.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(
                f"`posterior` must have the same number of draws of each site, got {counts}."
            )
        if len(self) % self.num_chains:
            raise ValueError(
                f"`num_chains` is {self.num_chains}, which does not divide {len(self)} draws."
            )

    def __len__(self) -> int:
        """Return the number of draws, in all chains together."""
        return next((len(value) for value in self.sites.values()), 0)


@dataclass(frozen=True, eq=False)
class DrawSource(ABC):
    """A result of Pyro from which posterior draws can be obtained.

    Parameters
    ----------
    model : callable or None
        The Pyro model, None if it is not known.
    args, kwargs
        Arguments of the model and of guides.
    """

    model: Model | None
    args: Sequence[Any]
    kwargs: Mapping[str, Any] | None

    @property
    @abstractmethod
    def attrs(self) -> dict[str, str]:
        """Attributes that describe the method of inference."""

    @abstractmethod
    def draw(self, latent: Sequence[str]) -> PosteriorDraws:
        """Return the draws; `latent` are the latent sites of the model."""


@dataclass(frozen=True, eq=False)
class MCMCSource(DrawSource):
    """A run of `pyro.infer.MCMC`."""

    mcmc: Any

    @property
    def attrs(self) -> dict[str, str]:
        """The class of the kernel."""
        return {"inference_method": type(self.mcmc.kernel).__name__}

    def draw(self, latent: Sequence[str]) -> PosteriorDraws:
        """Return the samples of all chains, and which steps diverged."""
        samples = self.mcmc.get_samples(group_by_chain=True)
        sites = {name: value.flatten(0, 1) for name, value in samples.items()}
        return PosteriorDraws(sites, self.mcmc.num_chains, self._divergences())

    def _divergences(self) -> dict[str, np.ndarray]:
        """Return which steps diverged, shape (n_draws,), if the kernel records it."""
        steps = [d["divergences"] for d in self.mcmc._diagnostics if d and "divergences" in d]
        if len(steps) < self.mcmc.num_chains:
            return {}
        diverging = np.zeros((self.mcmc.num_chains, self.mcmc.num_samples), dtype=bool)
        for chain, diverged in enumerate(steps):
            diverging[chain, list(diverged)] = True
        return {"diverging": diverging.reshape(-1)}


@dataclass(frozen=True, eq=False)
class GuideSource(DrawSource):
    """The guides of independent fits by SVI, each of them a chain of `num_draws` draws."""

    guides: Sequence[Model]
    num_draws: int

    @property
    def attrs(self) -> dict[str, str]:
        """The class of the first guide."""
        return {"inference_method": "variational", "guide": type(self.guides[0]).__name__}

    def draw(self, latent: Sequence[str]) -> PosteriorDraws:
        """Run the guides; return the latent sites that all of them have, and log-densities."""
        chains = [
            Program(guide, self.args, self.kwargs).run(self.num_draws) for guide in self.guides
        ]
        sites = {
            name: torch.cat([runs[name].values for runs in chains])
            for name in latent
            if all(name in runs for runs in chains)
        }
        log_q = torch.cat([total_log_prob(runs) for runs in chains])
        return PosteriorDraws(sites, len(chains), {"logq": log_q})


@dataclass(frozen=True, eq=False)
class GivenDraws(DrawSource):
    """Draws from elsewhere, possibly none."""

    sites: Mapping[str, ArrayLike]
    num_chains: int

    @property
    def attrs(self) -> dict[str, str]:
        """Empty, because the method of inference is not known."""
        return {}

    def draw(self, latent: Sequence[str]) -> PosteriorDraws:
        """Return the draws as they are."""
        sites = {name: torch.as_tensor(value) for name, value in self.sites.items()}
        return PosteriorDraws(sites, self.num_chains)


def draw_source(
    posterior: Any,
    model: Model | None,
    guide: Model | Sequence[Model] | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    *,
    num_draws: int,
    num_chains: int,
) -> DrawSource:
    """Return the source that the arguments of `from_pyro` describe.

    Raises
    ------
    TypeError
        If `posterior` is neither a run of MCMC nor a mapping.
    ValueError
        If there is a guide without a model.
    """
    # Recognised by its attributes, so that pyro.infer.mcmc need not be imported.
    is_mcmc = hasattr(posterior, "get_samples") and hasattr(posterior, "kernel")
    if is_mcmc and model is None:
        model, args, kwargs = posterior.kernel.model, posterior._args, posterior._kwargs
    elif not (is_mcmc or posterior is None or isinstance(posterior, Mapping)):
        raise TypeError(
            "`posterior` must be a run of pyro.infer.MCMC or a mapping of draws, got "
            f"{type(posterior).__name__}. Pass a guide as `guide`, with `model` and `args`."
        )
    if guide is not None and model is None:
        raise ValueError("`guide` needs `model`, and `args` to run both with.")
    if is_mcmc:
        return MCMCSource(model, args, kwargs, posterior)
    if guide is not None and not posterior:
        guides = [guide] if callable(guide) else list(guide)
        return GuideSource(model, args, kwargs, guides, num_draws)
    return GivenDraws(model, args, kwargs, posterior or {}, num_chains)
