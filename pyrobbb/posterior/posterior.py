"""Posterior: draws from and predictions of one or several fitted chains."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from .. import storage
from .._core.arrays import ArrayLike, as_count
from .._core.display import Displayed, Listing
from .._core.random_state import as_seed
from .._core.signatures import suggests_arguments
from .._core.trees import InputsLike
from ..fitted import FitSettings, FittedChain, History, list_chains
from ..fitted.draws import draws_of, predict_from, sources_of
from ..fitted.stacking import chain_weights, share_draws
from ..model.network import BayesianNetwork
from ..prediction import ClassificationPrediction, RegressionPrediction
from ..prediction.drawn_distributions import WORKING_MEMORY
from ..prediction.sampling import Draws, Source
from ..streams import Parquet, check_shard, chunks_of, n_known_rows, plan_chunks
from .checks import check_chains
from .own_guides import chain_of_guide
from .plotting import PosteriorPlots
from .summary import By, summarize

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class Posterior(Displayed):
    """An approximate posterior over the weights of a network.

    Parameters
    ----------
    chains : sequence of FittedChain
        At least one: the results of independent fits of one model, such as those of
        ``fit(..., restarts=4)``. All have equal shares of draws and predictions unless
        `stack` has weighted them.

    Attributes
    ----------
    chains : tuple of FittedChain
    network : BayesianNetwork
        The fitted network, in evaluation mode: a copy of the one passed to `fit`, with the fitted
        point parameters and buffers.
    guide : callable
        The Pyro guide.
    history : History
        Losses at each step.
    example : Tensor of shape (1, ...), or nested tuples and dicts of them
        The first row of x, for guides that use the model's arguments.
    settings : FitSettings
        Settings of the fit, such as engine, objective, epochs and seed.

    Raises
    ------
    TypeError, ValueError
        If `chains` is empty, or their networks differ in parameters, prior or likelihood.

    Notes
    -----
    `network` to `settings` belong to a chain, and are attributes of a posterior with a single one;
    with several, an AttributeError names the remedy: ``posterior.chains[i].guide``.
    """

    chains: tuple[FittedChain, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "chains", check_chains(self.chains))

    @classmethod
    def from_guide(
        cls, network: BayesianNetwork, guide: Callable[..., Any], x: InputsLike
    ) -> Posterior:
        """Return the posterior that a Pyro loop of one's own has fitted.

        Network and guide are copied, so that further steps do not change the posterior; of a guide
        that is a function, the present values in Pyro's store are kept. The history is empty.

        Parameters
        ----------
        network : BayesianNetwork
        guide : callable
            Of pyrobbb or Pyro, or a function, that samples the network's sites.
        x : array-like of shape (n, ...), or nested tuples and mappings of them
            Inputs, of which the first row is kept.

        Raises
        ------
        TypeError, ValueError
            If the guide has not been fitted, or does not sample all sites in their shapes.
        """
        return cls((chain_of_guide(network, guide, x),))

    @property
    def network(self) -> BayesianNetwork:
        """The fitted network of a single chain."""
        return self._only_chain("network").network

    @property
    def guide(self) -> nn.Module | Callable[..., Any]:
        """The guide of a single chain."""
        return self._only_chain("guide").guide

    @property
    def history(self) -> History:
        """The losses of a single chain."""
        return self._only_chain("history").history

    @property
    def example(self) -> Any:
        """The first row of x, of a single chain."""
        return self._only_chain("example").example

    @property
    def settings(self) -> FitSettings:
        """The settings of the fit of a single chain."""
        return self._only_chain("settings").settings

    def _listing(self) -> Listing:
        return list_chains("Posterior", self.chains)

    def _only_chain(self, attribute: str) -> FittedChain:
        if len(self.chains) > 1:
            raise AttributeError(
                f"`{attribute}` belongs to a chain, and this posterior has {len(self.chains)} "
                f"chains: choose one, as in posterior.chains[0].{attribute}."
            )
        return self.chains[0]

    @suggests_arguments()
    def draws(self, n: int, seed: int | None = None) -> Draws:
        """Draw weights, and the likelihood's latent sites, from the posterior.

        Parameters
        ----------
        n : int
            Number of draws.
        seed : int, optional
            Makes the draws repeatable: the first m of n draws of a chain are the same for every n.

        Returns
        -------
        dict of str to Tensor of shape (n, *site)
        """
        n = as_count("n", n)
        return draws_of(self.chains, n, as_seed(seed))

    @suggests_arguments()
    def summary(
        self,
        var_names: str | Sequence[str] | None = None,
        *,
        by: By | None = None,
        level: float = 0.9,
        n_draws: int = 500,
        seed: int | None = None,
    ) -> pd.DataFrame:
        """Summarise the posterior of the weights, and of the likelihood's latent sites.

        Parameters
        ----------
        var_names : str or sequence of str, optional
            Sites, or patterns of them such as ``"*.bias"``. None: all.
        by : {"site", "weight"}, optional
            A row for all weights of a site, pooled, or one for each weight, such as
            ``0.weight[0, 2]``. None: for each weight if `var_names` are given.
        level : float
            Probability of the central interval.
        n_draws, seed
            As for `draws`.

        Returns
        -------
        DataFrame
            With the columns ``mean``, ``sd``, the ends of the interval, such as ``q05`` and
            ``q95``, and ``snr``, the signal-to-noise ratio ``|mean| / sd`` (its median over the
            weights of a site); by site also ``size``, the number of weights. There is no R-hat, as
            hidden units may be permuted between chains; see `diagnose`.
        """
        n_draws = as_count("n_draws", n_draws, least=2 * len(self.chains))
        sizes = share_draws(n_draws, chain_weights(self.chains))
        draws = self.draws(n_draws, seed)
        return summarize(draws, sizes, var_names, by=by, level=level)

    plot = property(PosteriorPlots, doc=PosteriorPlots.__doc__)

    def sources(self, n: int, seed: int) -> list[Source]:
        """Return the network, guide, number of draws and seed of each chain, for n draws."""
        return sources_of(self.chains, n, seed)

    @suggests_arguments()
    def predict(
        self,
        x: InputsLike,
        n_draws: int = 200,
        seed: int | None = None,
        *,
        max_memory: int = WORKING_MEMORY,
    ) -> RegressionPrediction | ClassificationPrediction:
        """Predict y at new rows.

        Parameters
        ----------
        x : array-like of shape (n, ...), or nested tuples and mappings of them
        n_draws : int
            Draws of the weights.
        seed : int, optional
            Makes the prediction repeatable.
        max_memory : int
            Bound in bytes on the working memory, beyond x and the results: rows and draws are
            processed in chunks. No result depends on it, except ``sample``.

        Returns
        -------
        RegressionPrediction or ClassificationPrediction
            NumPy arrays for NumPy input, tensors for a tensor (the first of several): on the
            network's device, or on the CPU if that device has no float64 (Apple's GPUs).
        """
        n_draws = as_count("n_draws", n_draws)
        max_memory = as_count("max_memory", max_memory)
        return predict_from(self.chains, x, n_draws, as_seed(seed), max_memory=max_memory)

    @suggests_arguments()
    def predict_chunks(
        self,
        x: InputsLike | Parquet | Iterable[InputsLike],
        n_draws: int = 200,
        seed: int | None = None,
        *,
        rows: int | None = None,
        shard: tuple[int, int] = (0, 1),
        max_memory: int = WORKING_MEMORY,
    ) -> Iterator[RegressionPrediction | ClassificationPrediction]:
        """Predict y at more rows than fit into memory, chunk by chunk, with the same draws.

        Parameters
        ----------
        x : array-like, numpy.memmap, streams.Parquet, or iterable of arrays of shape (m, ...)
            Or nested tuples and mappings of arrays. An iterable yields the chunks itself.
        n_draws, seed
            As for `predict`.
        rows : int, optional
            Rows per chunk. None: 65,536, or as many as fit in a quarter of `max_memory`.
        shard : tuple (i, n)
            Read and predict only the chunks i, i + n, i + 2n, ...: the share of one of n processes,
            which need the same `seed`, `rows` and `max_memory`.
        max_memory : int
            Bound in bytes on the memory of the reader, the chunks (except those of an iterable)
            and the computation, for a loop that keeps only the last prediction. A warning is
            raised if it is too small for the rows of a chunk.

        Returns
        -------
        iterator of predictions, one per chunk, in order, each computed when it is requested
        """
        n_draws = as_count("n_draws", n_draws)
        max_memory = as_count("max_memory", max_memory)
        shard = check_shard(shard)
        if shard[1] > 1 and seed is None:
            raise ValueError("`shard` needs a `seed`, the same in all processes, got None.")
        rows = None if rows is None else as_count("rows", rows)
        rows, left = plan_chunks(x, rows, max_memory)
        left = max(4 * left // 5, 1)  # the last prediction may hold a quarter of it
        is_part = (n_known_rows(x) or 0) > rows
        seed = as_seed(seed)
        return (
            predict_from(self.chains, chunk, n_draws, seed, max_memory=left, is_part=is_part)
            for chunk in chunks_of(x, rows, shard)
        )

    def save(self, path: str | os.PathLike[str], *, frozen: bool = False) -> None:
        """Write the posterior to a folder: safetensors and JSON, no pickle.

        A posterior already in the folder is replaced atomically: after a crash the folder holds
        either the old or the new one.

        Parameters
        ----------
        path : path-like
            A new or empty folder, or one that holds a posterior.
        frozen : bool
            Store frozen parameters (``requires_grad=False``) too. Otherwise `load` needs the module
            with the same values, whose hashes are stored.

        Raises
        ------
        TypeError
            If the guide is custom: neither one of pyrobbb's nor an `AutoNormal`.
        FileExistsError
            If the path is a file, or a folder with other contents.
        OSError
            If the folder cannot be written; it is then unchanged.
        """
        storage.write(path, self.chains, frozen=frozen)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], network: BayesianNetwork | nn.Module | None = None
    ) -> Posterior:
        """Read a posterior from a folder.

        Parameters
        ----------
        path : path-like
        network : BayesianNetwork or nn.Module, optional
            Required unless the module is an `mlp`, all of which is stored, and prior and likelihood
            are pyrobbb's: code is not stored. For a module alone, prior and likelihood are
            rebuilt. Stored point parameters and buffers are loaded into it, and the posterior is on
            its device. Without it the posterior is on the CPU.

        Raises
        ------
        FileNotFoundError
            If there is no folder, or no posterior in it.
        ValueError
            If the folder is truncated, modified, in another format, or does not match `network`.
        """
        return cls(storage.read(path, network))

    def diagnose(self, x: InputsLike, y: ArrayLike, **options: Any) -> Any:
        """Check whether the approximation can be relied on; see `pyrobbb.diagnostics.diagnose`."""
        from ..diagnostics import diagnose

        return diagnose(self, x, y, **options)

    def export(
        self,
        path: str | os.PathLike[str],
        format: Literal["torch", "onnx"] | None = None,
        n_draws: int = 200,
        seed: int | None = None,
        *,
        quantiles: ArrayLike = (0.05, 0.5, 0.95),
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a file that predicts without pyrobbb: a program of `torch.export`, or ONNX.

        It takes x, with any number of rows, and returns what `predict` does for the same draws and
        seed: ``mean``, ``sd``, ``epistemic_sd``, ``aleatoric_sd`` and ``quantiles``, or ``probs``,
        ``label``, ``entropy``, ``expected_entropy`` and ``mutual_information``.
        Metadata has versions, seed and number of draws. See docs/export.md.

        Parameters
        ----------
        path : path-like
            A file that exists is replaced at the end.
        format : {"torch", "onnx"}, optional
            None: by the suffix of the path, `.pt2` or `.onnx`. ONNX needs the extra `onnx`.
        n_draws, seed
            Of the draws, all of which the file holds.
        quantiles : array-like of shape (k,)
            Probabilities of the quantiles, in (0, 1).
        metadata : mapping, optional
            Further plain data to store, as JSON.

        Raises
        ------
        FileNotFoundError, ImportError, ValueError
            If the folder of `path` does not exist; if packages are missing or torch is too old; if
            a module or likelihood is not supported.
        """
        from ..export import export_chains

        export_chains(
            self.chains,
            path,
            format,
            n_draws=n_draws,
            seed=as_seed(seed),
            quantiles=quantiles,
            metadata=metadata,
        )

    def to_botorch(self, n_draws: int = 200, seed: int | None = None, **transforms: Any) -> Any:
        """Return the posterior as a model of BoTorch; see `pyrobbb.surrogates.to_botorch`."""
        from ..surrogates import to_botorch

        return to_botorch(self, n_draws, seed, **transforms)

    def to_arviz(self, x: InputsLike, y: ArrayLike, **options: Any) -> Any:
        """Return the posterior as an xarray DataTree for ArviZ; see `pyrobbb.arviz_io.to_arviz`."""
        from ..arviz_io import to_arviz

        return to_arviz(self, x, y, **options)


def check_posterior(posterior: Any) -> None:
    """Raise a TypeError unless an argument is a Posterior."""
    if not isinstance(posterior, Posterior):
        raise TypeError(f"`posterior` must be a Posterior, got {type(posterior).__name__}.")
