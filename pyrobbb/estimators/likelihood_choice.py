"""Choice of the likelihood by the predictive density of held-out rows, for likelihood="auto"."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..fitted import FittedChain, raise_if_interrupted
from ..model.network import BayesianNetwork
from ..posterior.fitting import fit
from ..posterior.posterior import Posterior
from ..prediction import RegressionPrediction, Standardizer
from .holdout import n_held_out
from .networks import FEW_ROWS
from .preparation import Rows
from .search import as_tried, search_table
from .stages import SEARCH_FRACTION, Stages, TrainingOptions
from .target_units import in_target_units

logger = logging.getLogger(__name__)

REAL = ("gaussian", "heteroscedastic", "student_t")
SKEWED = ("gaussian", "lognormal", "heteroscedastic", "student_t")
COUNTS = ("poisson", "negative_binomial", "gaussian", "heteroscedastic")
"""The likelihoods that are tried, the simplest first."""
MIN_SKEWNESS = 1.0
"""Skewness from which positive targets may be modelled on the log scale."""
HELD_OUT_FRACTION, MAX_HELD_OUT = 0.2, 2_000
MIN_STEPS = 2_000
"""With fewer steps, a candidate may still be far from its optimum: on 400 rows with normal noise,
candidates of 300 to 1,000 steps preferred Student t."""
MAX_GAP, MAX_GAP_OF_POISSON = 0.05, 0.01
"""Nats a row by which the predictions of a simpler likelihood may be worse than the best. That of
Poisson is small: the negative binomial includes it, and a few rows decide between the two."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A likelihood that is tried.

    Attributes
    ----------
    name : str
    network : BayesianNetwork
    hidden : tuple of int
    rows : Rows
        In its units.
    scaling : Standardizer or None
        From these units to those of y. None: the same.
    """

    name: str
    network: BayesianNetwork
    hidden: tuple[int, ...]
    rows: Rows
    scaling: Standardizer | None


def candidate_likelihoods(y: np.ndarray, n_steps: float) -> tuple[str, ...]:
    """Return the names of the likelihoods to try for targets of shape (n, n_targets).

    For fewer than `FEW_ROWS` rows, too few to choose by, or if the candidates would have fewer than
    `MIN_STEPS` steps: the one to use, of which the negative binomial includes the Poisson
    distribution as a limit.

    Parameters
    ----------
    y : ndarray of shape (n, n_targets)
    n_steps : float
        Number of steps of the fit that follows.
    """
    names: tuple[str, ...]  # of different lengths
    if are_counts(y):
        names, only = COUNTS, ("negative_binomial",)
    elif are_skewed(y):
        names, only = SKEWED, ("lognormal",)
    else:
        names, only = REAL, ("gaussian",)
    n_steps_each = SEARCH_FRACTION / len(names) * n_steps
    return names if len(y) >= FEW_ROWS and n_steps_each >= MIN_STEPS else only


def log_without_search(likelihood: str) -> None:
    """Log which likelihood is used because there is too little to choose by."""
    logger.info(
        "likelihood='auto': %s, without a search, which needs at least %d rows, and at least %d "
        "steps for each likelihood.",
        likelihood,
        FEW_ROWS,
        MIN_STEPS,
    )


def are_counts(y: np.ndarray) -> bool:
    """Return whether targets look like counts: integers from 0 or 1 up, not only these two."""
    if y.shape[1] > 1 or not bool((y == np.round(y)).all()):
        return False
    return bool(y.min() in (0, 1) and y.max() > 2)


def are_skewed(y: np.ndarray) -> bool:
    """Return whether all targets are positive with a long right tail, less so on the log scale."""
    if not bool((y > 0).all()):
        return False
    skewness, of_log = _skewness(y), _skewness(np.log(y))
    return bool(((skewness > MIN_SKEWNESS) & (np.abs(of_log) < skewness)).all())


def _skewness(y: np.ndarray) -> np.ndarray:
    return (Standardizer.of(y).transform(y) ** 3).mean(0)


def choose_likelihood(
    candidates: Sequence[Candidate],
    y: np.ndarray,
    options: TrainingOptions,
    stages: Stages,
    n_draws: int,
) -> pd.DataFrame:
    """Fit all candidates, and return their held-out log densities, with the one to `choose`.

    Parameters
    ----------
    candidates : sequence of Candidate
        The simplest first; their names are also those of the stages.
    y : ndarray of shape (n, n_targets)
        Targets in their own units.
    options : TrainingOptions
    stages : Stages
    n_draws : int
        Draws of the weights for the predictions of held-out rows.

    Returns
    -------
    DataFrame
        See `search_table`.
    """
    n_rows, as_counts = len(y), are_counts(y)
    n_held = min(n_held_out("`likelihood`='auto'", HELD_OUT_FRACTION, n_rows), MAX_HELD_OUT)
    order = np.random.default_rng(options.seed).permutation(n_rows)
    fitted, held = order[n_held:], order[:n_held]
    tried = []
    for candidate in candidates:
        rows, test = candidate.rows.take(fitted), candidate.rows.take(held)
        posterior = fit(
            candidate.network,
            rows.x,
            rows.y,
            sample_weight=rows.weight,
            checkpoint=stages.folder(candidate.name),
            **options.arguments(rows, SEARCH_FRACTION / len(candidates)),
        )
        raise_if_interrupted(posterior.chains)
        density = held_out_densities(
            posterior, test, candidate.scaling, n_draws, options.seed, as_counts
        )
        tried += as_tried(candidate.name, candidate.hidden, posterior, density)
    table = choose(search_table(tried, test.weight))
    mixtures = table[table.kl_weight.isna()]
    (chosen,) = table[table.is_chosen].itertuples()
    logger.info(
        "likelihood='auto': %s, whose mean log density of %d held-out rows is %.3g (%s).",
        chosen.likelihood,
        n_held,
        chosen.log_density,
        ", ".join(f"{row.likelihood} {row.log_density:.3g}" for row in mixtures.itertuples()),
    )
    return table


def choose(table: pd.DataFrame) -> pd.DataFrame:
    """Return a search with the chosen likelihood marked.

    That is the simplest one whose mean log density is within one standard error, of the difference,
    of the highest, and below it by at most `MAX_GAP`. They are those of mixtures of all chains,
    equally weighted: weights from the same rows would favour likelihoods whose chains differ. On
    training rows of UCI sets and tables, the choice was no better with them.
    """
    mixtures = table[table.kl_weight.isna()]
    gap = mixtures.log_density.max() - mixtures.log_density
    max_gap = np.where(mixtures.likelihood == "poisson", MAX_GAP_OF_POISSON, MAX_GAP)
    is_level = gap <= np.minimum(mixtures.standard_error, max_gap)
    return table.assign(is_chosen=table.index == is_level.idxmax())  # the first


def held_out_densities(
    posterior: Posterior,
    held: Rows,
    scaling: Standardizer | None,
    n_draws: int,
    seed: int,
    as_counts: bool,
) -> np.ndarray:
    """Return the log density of held-out rows under each chain, in units of y.

    Counts have a probability each: that of a density is its integral from y - 1/2 to y + 1/2.

    Parameters
    ----------
    posterior : Posterior
    held : Rows
        In the units of the network.
    scaling : Standardizer or None
        From these units to those of y.
    n_draws, seed : int
    as_counts : bool
        Whether y are counts.

    Returns
    -------
    ndarray of shape (n_chains, n_rows)
    """
    y = held.y if scaling is None else scaling.inverse(held.y)

    def log_density(chain: FittedChain) -> np.ndarray:
        prediction = Posterior((chain,)).predict(held.x, n_draws, seed)
        assert isinstance(prediction, RegressionPrediction)
        prediction = in_target_units(prediction, scaling)
        if not as_counts or prediction.is_discrete:
            return np.asarray(prediction.log_prob(y))
        upper, lower = (np.asarray(prediction.cdf(y + shift)) for shift in (0.5, -0.5))
        return np.log(np.maximum(upper - lower, np.finfo(float).tiny)).sum(-1)

    return np.stack([log_density(chain) for chain in posterior.chains])
