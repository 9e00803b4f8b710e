"""Posterior: what a fit gives. Draws, predictions, files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from . import storage
from .data import ArrayLike, check_count
from .history import History
from .network import BayesianNetwork
from .prediction import ClassificationPrediction, RegressionPrediction, make_prediction
from .randomness import as_seed
from .sampling import DrawnDistributions, Draws, draw_blocks, join


@dataclass(frozen=True, eq=False)
class Posterior:
    """An approximate posterior over the weights of a network.

    Attributes
    ----------
    network : BayesianNetwork
        The fitted network, in evaluation mode: a copy of the one given to `fit`, whose point
        parameters and buffers are the learnt ones.
    guide : callable
        The Pyro guide.
    history : History
        Losses at each step.
    example : Tensor of shape (1, ...)
        The first row of x, for guides that look at the model's arguments.
    settings : dict
        How it was fitted: engine, objective, epochs, seed and so on.
    """

    network: BayesianNetwork
    guide: nn.Module | Callable[..., Any]
    history: History
    example: Tensor
    settings: dict[str, Any] = field(default_factory=dict)
    chains: tuple[Posterior, ...] = ()

    @classmethod
    def of_chains(cls, chains: Sequence[Posterior]) -> Posterior:
        """Make one posterior of independent fits."""
        first = chains[0]
        return cls(
            first.network, first.guide, first.history, first.example, first.settings, tuple(chains)
        )

    def draws(self, n: int, seed: int | None = None) -> Draws:
        """Draw weights, and the likelihood's latent sites, from the posterior.

        Parameters
        ----------
        n : int
            Number of draws.
        seed : int, optional
            Makes them repeatable: the first m of n draws are the same for every n.

        Returns
        -------
        dict of str to Tensor of shape (n, *site)
        """
        check_count("n", n)
        return join(draw_blocks(self.guide, self.example, n, as_seed(seed)), n)

    def predict(
        self,
        x: ArrayLike,
        n_draws: int = 200,
        seed: int | None = None,
        *,
        max_memory: int = 2**30,
    ) -> RegressionPrediction | ClassificationPrediction:
        """Predict y at new rows.

        Parameters
        ----------
        x : array-like of shape (n, ...)
        n_draws : int
            Draws of the weights.
        seed : int, optional
            Makes the prediction repeatable.
        max_memory : int
            Bound in bytes on the working memory, beyond x and the results. Rows and draws are
            taken in chunks that keep to it; no result but that of ``sample`` depends on it.

        Returns
        -------
        RegressionPrediction or ClassificationPrediction
            NumPy arrays for NumPy input, tensors for a tensor.
        """
        check_count("n_draws", n_draws)
        check_count("max_memory", max_memory)
        rows = self.network.prepare_inputs(x).clone()  # computed on demand, whatever becomes of x
        distributions = DrawnDistributions(
            self.network,
            self.guide,
            rows,
            n_draws=n_draws,
            seed=as_seed(seed),
            max_memory=max_memory,
        )
        return make_prediction(distributions, x)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the posterior into a folder: safetensors and JSON, no pickle."""
        storage.write(path, self.network, self.guide, self.history, self.example, self.settings)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], network: BayesianNetwork | None = None
    ) -> Posterior:
        """Read a posterior from a folder.

        Parameters
        ----------
        path : path-like
        network : BayesianNetwork, optional
            Needed unless the module is an `mlp` and prior and likelihood are pyrobbb's: code is
            not stored. It is filled with the stored point parameters and buffers.
        """
        network, guide, history, example, settings = storage.read(path, network)
        network.eval()
        return cls(network, guide, history, example, settings)

    def to_arviz(self, x: ArrayLike, y: ArrayLike, **options: Any) -> Any:
        """Give the posterior as an xarray DataTree for ArviZ; see `pyrobbb.arviz_io.to_arviz`."""
        from .arviz_io import to_arviz

        return to_arviz(self, x, y, **options)
