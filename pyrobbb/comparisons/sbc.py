"""Simulation-based calibration: whether fits recover what the prior drew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from tqdm.auto import tqdm

from .._core.arrays import ArrayLike, check_count, to_numpy
from .._core.random_state import as_seed, child_seed, seeded
from ..arviz_io.datatree import SAMPLE_DIMS
from ..model.functional import evaluating
from ..model.network import BayesianNetwork
from ..posterior.fitting import fit
from ..prediction.sampling import Draws, Source, join, prior_guide

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, eq=False)
class SBC:
    """Ranks of what was drawn from the prior, among draws of the posterior fitted to it.

    Attributes
    ----------
    ranks : dict of str to ndarray of shape (n_sims, ...)
        How many of `n_draws` draws lie below the truth: of each latent site of the likelihood, of
        the outputs at the probes (``output``), and of the log joint density (``lp``).
    n_draws : int
    seed : int
    """

    ranks: dict[str, np.ndarray]
    n_draws: int
    seed: int

    @property
    def pit(self) -> dict[str, np.ndarray]:
        """The ranks as probabilities, uniform if the fit is calibrated."""
        rng = np.random.default_rng(self.seed)
        return {
            name: (ranks + rng.uniform(size=ranks.shape)) / (self.n_draws + 1)
            for name, ranks in self.ranks.items()
        }

    @property
    def tree(self) -> xarray.DataTree:
        """The group ``prior_sbc``, for ``arviz_plots.plot_ecdf_pit``."""
        import arviz_base

        return arviz_base.from_dict(
            {"prior_sbc": {name: values[None] for name, values in self.pit.items()}},
            sample_dims=list(SAMPLE_DIMS),
        )


def sbc(
    network: BayesianNetwork,
    x: ArrayLike,
    n_sims: int = 100,
    *,
    probes: ArrayLike | None = None,
    n_draws: int = 200,
    seed: int | None = None,
    progress: bool = True,
    **fit_options: Any,
) -> SBC:
    """Fit data that the prior made, again and again, and rank the truth among the draws.

    Parameters
    ----------
    network : BayesianNetwork
    x : array-like of shape (n, ...)
        Inputs of each data set.
    n_sims : int
        Data sets. Their fits start at the weights of the network given, not at the truth.
    probes : array-like of shape (m, ...), optional
        Where outputs are ranked. None: three rows of x.
    n_draws : int
        Draws of each posterior.
    seed : int, optional
        Makes all repeatable.
    progress : bool
        Show a progress bar.
    **fit_options
        Options of `pyrobbb.fit`, such as ``epochs``.

    Returns
    -------
    SBC
        `pyrobbb.plots.plot_sbc` makes a picture of it.

    References
    ----------
    Talts, Betancourt, Simpson, Vehtari and Gelman (2018), "Validating Bayesian inference algorithms
    with simulation-based calibration".
    Modrak et al. (2023), "Simulation-based calibration checking for Bayesian computation": that the
    log joint density should be among what is ranked.
    """
    check_count("n_sims", n_sims)
    check_count("n_draws", n_draws)
    seed = as_seed(seed)
    rows = network.prepare_inputs(x)
    if probes is None:
        at = rows[torch.linspace(0, len(rows) - 1, min(3, len(rows))).long()]
    else:
        at = network.prepare_inputs(probes)
    ranks: dict[str, list[np.ndarray]] = {}
    for sim in tqdm(range(n_sims), desc="SBC", unit="fit", disable=not progress):
        own_seed = child_seed(seed, sim)
        truth, y = simulate(network, rows, own_seed)
        posterior = fit(network, rows, y, seed=own_seed, progress=False, **fit_options)
        of_truth, of_draws = (
            _quantities(posterior.chains[0].network, draws, rows, at, y)
            for draws in (truth, posterior.draws(n_draws, own_seed))
        )
        for name, value in of_truth.items():
            ranks.setdefault(name, []).append(to_numpy((of_draws[name] < value).sum(0)))
    return SBC({name: np.stack(own) for name, own in ranks.items()}, n_draws, seed)


def simulate(network: BayesianNetwork, x: Tensor, seed: int) -> tuple[Draws, Tensor]:
    """Draw the latent sites from the prior, and y at x given them.

    Returns
    -------
    draws : dict of str to Tensor of shape (1, *site)
    y : Tensor of shape (n, ...)
    """
    source = Source(network, prior_guide(network), 1, seed)
    with evaluating(network):
        draws = join(source.draws(x[:1]), 1)
        with seeded(seed), torch.no_grad():
            y = _distribution(network, draws, x).sample()[0]
    return draws, y


def _quantities(
    network: BayesianNetwork, draws: Draws, x: Tensor, probes: Tensor, y: Tensor
) -> dict[str, Tensor]:
    """Give what is ranked, each of shape (n_draws, ...)."""
    with evaluating(network), torch.no_grad():
        log_likelihood = _distribution(network, draws, x).log_prob(y)
        return {
            **network.latents_of(draws),
            "output": network.output(draws, probes).squeeze(-1),
            "lp": network.log_prior(draws, x) + log_likelihood.double().sum(1),
        }


def _distribution(network: BayesianNetwork, draws: Draws, x: Tensor) -> TorchDistribution:
    return network.distribution(network.output(draws, x), network.latents_of(draws))
