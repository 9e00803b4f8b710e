"""The choice of the KL weight by held-out rows, for ``fit(kl_weight="auto", validation=...)``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .._core.messages import is_one_of
from ..fitted import FittedChain
from ..fitted.draws import predict_from
from ..scores import compare_log_densities
from .config import FitConfig
from .run import ChainStart

logger = logging.getLogger(__name__)

KL_WEIGHTS = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""The weights that are tried; 1 as in Bayes' rule."""
N_DRAWS = 100
"""Draws of the weights for the predictions of held-out rows."""

Fit = Callable[[FitConfig, Sequence[ChainStart]], tuple[FittedChain, ...]]


@dataclass(frozen=True)
class KLSearch:
    """What was tried, and what was chosen.

    Attributes
    ----------
    kl_weight : tuple of float
    log_density : tuple of float
        Mean log predictive density of the held-out rows, in nats, with each weight.
    standard_error : tuple of float
        Of the difference from the highest mean log density.
    chosen : float
        The highest weight whose mean log density is within one standard error of the highest: a
        low weight makes the posterior narrower than the data may justify.
    """

    kl_weight: tuple[float, ...]
    log_density: tuple[float, ...]
    standard_error: tuple[float, ...]
    chosen: float

    @classmethod
    def of(cls, kl_weight: Sequence[float], log_density: np.ndarray) -> KLSearch:
        """Choose by the log density of held-out rows, shape (n_weights, n_rows)."""
        mean, error, is_level = compare_log_densities(log_density)
        chosen = max(w for w, level in zip(kl_weight, is_level, strict=True) if level)
        return cls(tuple(kl_weight), tuple(mean.tolist()), tuple(error.tolist()), chosen)

    def as_record(self) -> dict[str, list[float] | float]:
        """Return the fields as plain data, for `FitSettings`."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in vars(self).items()}


def is_automatic(config: FitConfig) -> bool:
    """Return whether the KL weight is to be chosen."""
    return is_one_of(config.kl_weight, ["auto"])


def search_kl_weight(config: FitConfig, seed: int, fit: Fit) -> tuple[KLSearch, FittedChain]:
    """Fit a chain with each weight, from the same initial weights and noise, and choose one.

    The chains are as long as the fit itself: with fewer steps, lower weights predict better.

    Parameters
    ----------
    config : FitConfig
    seed : int
    fit : callable
        Fits chains from their starts.

    Returns
    -------
    search : KLSearch
    chain : FittedChain
        The chain with the weight that was chosen, or one that Ctrl-C has ended.
    """
    rows = config.rows_of_chains[0]
    starts = [  # with new guides, so that one that is given is not fitted
        ChainStart(config.network, seed, None, weight, rows, is_restart=True)
        for weight in KL_WEIGHTS
    ]
    candidates = replace(
        config,
        kl_weight=KL_WEIGHTS,
        restarts=len(KL_WEIGHTS),
        rows=None if rows is None else [rows] * len(KL_WEIGHTS),
        validation=None,
        patience=None,
        callbacks=(),
        checkpoint=None,
        resume=False,
        seed=seed,
    )
    x, y = config.validation
    chains = fit(candidates, starts)
    log_density = [
        np.asarray(predict_from([chain], x, N_DRAWS, seed).log_prob(y)) for chain in chains
    ]
    search = KLSearch.of(KL_WEIGHTS[: len(chains)], np.stack(log_density))
    logger.info(
        "kl_weight='auto': %g. Mean log density of the validation rows: %s.",
        search.chosen,
        ", ".join(
            f"{value:.4g} at {weight:g}"
            for weight, value in zip(search.kl_weight, search.log_density, strict=True)
        ),
    )
    ended = [chain for chain in chains if chain.is_interrupted]
    return search, ended[-1] if ended else chains[search.kl_weight.index(search.chosen)]
