"""Simulation-based calibration: whether fits recover parameters drawn from the prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from tqdm.auto import tqdm

from .._core.arrays import as_count, to_numpy
from .._core.display import Displayed, Listing, count_of
from .._core.random_state import as_seed, child_seed, seeded
from .._core.signatures import suggests_arguments
from .._core.trees import Inputs, InputsLike, n_rows, rows_of
from ..arviz_io.datatree import SAMPLE_DIMS
from ..fitted import raise_if_interrupted
from ..model.functional import evaluating
from ..model.network import BayesianNetwork
from ..posterior.fitting import fit
from ..posterior.posterior import Posterior
from ..prediction.sampling import Draws, Source, join, prior_guide

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, eq=False, repr=False)
class SBC(Displayed):
    """Ranks of the true values among the draws of posteriors fitted to simulated data.

    Attributes
    ----------
    ranks : dict of str to ndarray of shape (n_sims, ...)
        How many of `n_draws` draws are below the true value: for each latent site that is not a
        weight (noise, learned scales), the outputs at the probes (``output``), and the log joint
        density (``lp``).
    n_draws : int
    seed : int
    """

    ranks: dict[str, np.ndarray]
    n_draws: int
    seed: int

    def _listing(self) -> Listing:
        rows = [(name, str(ranks.shape)) for name, ranks in self.ranks.items()]
        n_sims = len(next(iter(self.ranks.values())))
        title = f"SBC: {count_of(n_sims, 'simulation')}, ranks among {self.n_draws} draws"
        return Listing(title, ("quantity", "shape"), rows, ("Plot it with plots.plot_sbc.",))

    @property
    def pit(self) -> dict[str, np.ndarray]:
        """The ranks as probabilities, which are uniform if the fit is calibrated."""
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


@suggests_arguments(of_options=[fit])
def sbc(
    network: BayesianNetwork,
    x: InputsLike,
    n_sims: int = 100,
    *,
    probes: InputsLike | None = None,
    n_draws: int = 200,
    seed: int | None = None,
    progress: bool = True,
    **fit_options: Any,
) -> SBC:
    """Simulate data sets from the prior, fit each, and rank the true values among the draws.

    Parameters
    ----------
    network : BayesianNetwork
    x : array-like of shape (n, ...)
        Inputs of each data set.
    n_sims : int
        Number of data sets. Their fits start from the weights of `network`, not the true ones.
    probes : array-like of shape (m, ...), optional
        Inputs at which outputs are ranked. None: three rows of x.
    n_draws : int
        Draws from each posterior.
    seed : int, optional
        Makes the result repeatable.
    progress : bool
        Show a progress bar.
    **fit_options
        Options of `pyrobbb.fit`, such as ``epochs``.

    Returns
    -------
    SBC
        `pyrobbb.plots.plot_sbc` plots it.

    References
    ----------
    Talts, Betancourt, Simpson, Vehtari and Gelman (2018), "Validating Bayesian inference algorithms
    with simulation-based calibration".
    Modrak et al. (2023), "Simulation-based calibration checking for Bayesian computation", on why
    the log joint density is ranked as well.
    """
    n_sims = as_count("n_sims", n_sims)
    n_draws = as_count("n_draws", n_draws)
    seed = as_seed(seed)
    rows = network.prepare_inputs(x)
    if probes is None:
        n = n_rows(rows)
        at = rows_of(rows, torch.linspace(0, n - 1, min(3, n)).long())
    else:
        at = network.prepare_inputs(probes)
    ranks: dict[str, list[np.ndarray]] = {}
    for sim in tqdm(range(n_sims), desc="SBC", unit="fit", disable=not progress):
        sim_seed = child_seed(seed, sim)
        truth, y = simulate(network, rows, sim_seed)
        posterior = fit(network, rows, y, seed=sim_seed, progress=False, **fit_options)
        raise_if_interrupted(posterior.chains)
        for name, rank in _ranks(posterior, truth, rows, at, y, n_draws, sim_seed).items():
            ranks.setdefault(name, []).append(rank)
    return SBC({name: np.stack(values) for name, values in ranks.items()}, n_draws, seed)


def simulate(network: BayesianNetwork, x: Inputs, seed: int) -> tuple[Draws, Tensor]:
    """Draw the latent sites from the prior, and y at x given them.

    Returns
    -------
    draws : dict of str to Tensor of shape (1, *site)
    y : Tensor of shape (n, ...)
    """
    source = Source(network, prior_guide(network), 1, seed)
    with evaluating(network):
        draws = join(source.draws(network.example_of(x)), 1)
        with seeded(seed), torch.no_grad():
            y = _distribution(network, draws, x).sample()[0]
    return draws, y


def _ranks(
    posterior: Posterior,
    truth: Draws,
    x: Inputs,
    probes: Inputs,
    y: Tensor,
    n_draws: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Return the ranks of the true values among draws, evaluated by the network of each chain."""
    ranks: dict[str, np.ndarray] = {}
    for source in posterior.sources(n_draws, seed):
        draws = join(source.draws(source.network.example_of(x)), source.n_draws)
        true_values, values = (
            _quantities(source.network, latents, x, probes, y) for latents in (truth, draws)
        )
        for name, value in true_values.items():
            ranks[name] = ranks.get(name, 0) + to_numpy((values[name] < value).sum(0))
    return ranks


def _quantities(
    network: BayesianNetwork, draws: Draws, x: Inputs, probes: Inputs, y: Tensor
) -> dict[str, Tensor]:
    """Return the quantities to rank, each of shape (n_draws, ...)."""
    with evaluating(network), torch.no_grad():
        log_likelihood = _distribution(network, draws, x).log_prob(y)
        return {
            **network.hyperparameters_of(draws),
            "output": network.output(draws, probes).squeeze(-1),
            "lp": network.log_prior(draws, x) + log_likelihood.double().sum(1),
        }


def _distribution(network: BayesianNetwork, draws: Draws, x: Inputs) -> TorchDistribution:
    return network.distribution(network.output(draws, x), network.latents_of(draws))
