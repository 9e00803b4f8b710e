"""Posterior: what a fit gives. Draws, predictions, files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from torch import Tensor, nn

from .. import storage
from .._core.arrays import ArrayLike, check_count
from .._core.random_state import as_seed, child_seed
from ..fitted.history import History
from ..model.network import BayesianNetwork
from ..prediction.predictions import ClassificationPrediction, RegressionPrediction, make_prediction
from ..prediction.sampling import (
    WORKING_MEMORY,
    DrawnDistributions,
    Draws,
    FixedDraws,
    Source,
    draw_one_by_one,
    join,
    prior_guide,
)
from ..streams import Parquet, check_shard, chunks_of, plan_chunks

logger = logging.getLogger(__name__)


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
    chains : tuple of Posterior
        The fits of ``fit(..., restarts=n)``; empty for a single one. The other attributes are then
        the first's, while draws and predictions come from all of them alike.
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
            Makes them repeatable: the first m of n draws of a chain are the same for every n.

        Returns
        -------
        dict of str to Tensor of shape (n, *site)
        """
        check_count("n", n)
        sources = self.sources(n, as_seed(seed))
        return join(chain.from_iterable(s.draws(self.example) for s in sources), n)

    def sources(self, n: int, seed: int) -> list[Source]:
        """Say where draws come from: as many from each chain, those of the first chain first."""
        if not self.chains:
            return [Source(self.network, self.guide, n, seed)]
        sizes = [len(part) for part in np.array_split(np.arange(n), len(self.chains))]
        return [
            Source(own.network, own.guide, size, child_seed(seed, i))
            for i, (own, size) in enumerate(zip(self.chains, sizes, strict=True))
            if size
        ]

    def prior_source(self, n: int, seed: int) -> Source | FixedDraws:
        """Say where draws from the prior come from; they are others than those of the chains."""
        prior = prior_guide(self.network)
        source = Source(self.network, prior, n, child_seed(seed, max(len(self.chains), 1)))
        try:
            next(source.draws(self.example))
        except ValueError:  # latent sites of a likelihood of the user's own that depend on another
            logger.info("The prior is drawn from one by one: its sites cannot be vectorised.")
            return FixedDraws(self.network, draw_one_by_one(prior, self.example, n, source.seed))
        return source

    def predict(
        self,
        x: ArrayLike,
        n_draws: int = 200,
        seed: int | None = None,
        *,
        max_memory: int = WORKING_MEMORY,
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
            NumPy arrays for NumPy input, tensors for a tensor: on the network's device, or on the
            processor where that device has no float64 (Apple's GPUs).
        """
        check_count("n_draws", n_draws)
        check_count("max_memory", max_memory)
        rows = self.network.prepare_inputs(x).clone()  # computed on demand, whatever becomes of x
        distributions = DrawnDistributions(
            self.sources(n_draws, as_seed(seed)), rows, max_memory=max_memory
        )
        return make_prediction(distributions, x)

    def predict_chunks(
        self,
        x: ArrayLike | Parquet | Iterable[ArrayLike],
        n_draws: int = 200,
        seed: int | None = None,
        *,
        rows: int | None = None,
        shard: tuple[int, int] = (0, 1),
        max_memory: int = WORKING_MEMORY,
    ) -> Iterator[RegressionPrediction | ClassificationPrediction]:
        """Predict y at more rows than fit into memory, chunk by chunk, by the same draws.

        Parameters
        ----------
        x : array-like, numpy.memmap, streams.Parquet, or iterable of arrays of shape (m, ...)
            An iterable gives the chunks as they are.
        n_draws, seed
            As for `predict`.
        rows : int, optional
            Of a chunk. None: 65,536, or as many as take a quarter of `max_memory`.
        shard : tuple (i, n)
            Read and predict the i-th of every n chunks only, from 0: what one of n processes does.
            They need the same `seed`, `rows` and `max_memory`.
        max_memory : int
            Bound in bytes on all that is held: by what reads x, the chunks (but those of an
            iterable), and as working memory. It is for a loop that keeps no more than the last
            prediction. Warned of where it is too little for the rows of a chunk.

        Returns
        -------
        iterator of RegressionPrediction or ClassificationPrediction
            One of each chunk, in order, made when it is asked for.
        """
        check_count("n_draws", n_draws)
        check_count("max_memory", max_memory)
        check_shard(shard)
        if shard[1] > 1 and seed is None:
            raise ValueError("`shard` needs a `seed`, the same in all processes, got None.")
        if rows is not None:
            check_count("rows", rows)
        seed = as_seed(seed)
        rows, left = plan_chunks(x, rows, max_memory)
        left = max(4 * left // 5, 1)  # the last prediction may keep a quarter
        predict = partial(self.predict, n_draws=n_draws, seed=seed, max_memory=left)
        return map(predict, chunks_of(x, rows, shard))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the posterior into a folder: safetensors and JSON, no pickle.

        A posterior that the folder holds already is replaced at one moment: a crash leaves the old
        one or the new one, whole.

        Parameters
        ----------
        path : path-like
            A folder that is new or empty, or holds a posterior.

        Raises
        ------
        TypeError
            If the guide is neither a `MeanFieldGuide` nor an `AutoNormal`.
        FileExistsError
            If the path is a file, or a folder that holds other things.
        OSError
            If the folder cannot be written; it is then as it was.
        """
        storage.write(path, [own.parts() for own in self.chains or [self]])

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
            not stored. It is filled with the stored point parameters and buffers, and the posterior
            is where it is. Without it the posterior is on the processor, wherever it was saved.

        Raises
        ------
        FileNotFoundError
            If there is no folder, or no posterior in it.
        ValueError
            If it is truncated, changed, of another format, or does not fit `network`.
        """
        chains = [cls(*parts) for parts in storage.read(path, network)]
        for own in chains:
            own.network.eval()
        return chains[0] if len(chains) == 1 else cls.of_chains(chains)

    def parts(self) -> tuple[Any, ...]:
        """Give what is stored of a single fit."""
        return self.network, self.guide, self.history, self.example, self.settings

    def diagnose(self, x: ArrayLike, y: ArrayLike, **options: Any) -> Any:
        """Say, line by line, whether it can be relied on; see `pyrobbb.diagnostics.diagnose`."""
        from ..diagnostics.checks import diagnose

        return diagnose(self, x, y, **options)

    def to_arviz(self, x: ArrayLike, y: ArrayLike, **options: Any) -> Any:
        """Give the posterior as an xarray DataTree for ArviZ; see `pyrobbb.arviz_io.to_arviz`."""
        from ..arviz_io.to_arviz import to_arviz

        return to_arviz(self, x, y, **options)
