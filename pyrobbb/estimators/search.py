"""The table of what was tried by held-out rows: log densities by likelihood and KL weight."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..fitted.stacking import chain_weights, mixture_log_density, stack_chains
from ..posterior.posterior import Posterior
from ..scores import compare_log_densities

logger = logging.getLogger(__name__)

NUMBERS = ("kl_weight", "share", "epochs", "log_density", "standard_error")
COLUMNS = ("likelihood", "hidden", *NUMBERS, "is_chosen")


@dataclass(frozen=True, eq=False)
class Tried:
    """The chains with one KL weight, or all chains, of a network that was tried.

    Attributes
    ----------
    likelihood : str
    hidden : tuple of int
    epochs : int
    kl_weight : float or None
        None: the mixture of all chains, which have different weights.
    log_density : ndarray of shape (n_rows,)
        Log predictive density of each held-out row, in units of y; for counts, log probability.
    share : float
        Part of these chains in the mixture of all, in (0, 1].
    """

    likelihood: str
    hidden: tuple[int, ...]
    epochs: int
    kl_weight: float | None
    log_density: np.ndarray
    share: float = 1.0


def as_tried(
    likelihood: str,
    hidden: tuple[int, ...],
    posterior: Posterior,
    log_density: np.ndarray,
) -> list[Tried]:
    """Return what was tried in a fit: all chains, and if they differ, those of each KL weight.

    Parameters
    ----------
    likelihood : str
    hidden : tuple of int
    posterior : Posterior
    log_density : ndarray of shape (n_chains, n_rows)
        Of held-out rows, under each chain.
    """
    epochs, shares = posterior.chains[0].history.n_epochs, chain_weights(posterior.chains)
    kl_weights = np.array([float(chain.settings["kl_weight"]) for chain in posterior.chains])
    values = np.unique(kl_weights)
    parts: list[tuple[float | None, np.ndarray]] = [(None, np.full(len(kl_weights), True))]
    if len(values) > 1:
        parts += [(float(value), kl_weights == value) for value in values]
    return [
        Tried(
            likelihood,
            hidden,
            epochs,
            kl_weight,
            mixture_log_density(log_density[part], shares[part]),
            float(shares[part].sum()),
        )
        for kl_weight, part in parts
    ]


def search_table(tried: Sequence[Tried], weight: np.ndarray | None = None) -> pd.DataFrame:
    """Return a row for everything that was tried on the same held-out rows; none is chosen yet.

    The standard errors are those of the difference from the highest mean log density: of mixtures
    from that of mixtures, of single KL weights from that of single KL weights.

    Parameters
    ----------
    tried : sequence of Tried
    weight : ndarray of shape (n_rows,), optional
    """
    mean, error = np.empty(len(tried)), np.empty(len(tried))
    is_mixture = np.array([one.kl_weight is None for one in tried])
    for group in (is_mixture, ~is_mixture):
        if group.any():
            densities = np.stack([one.log_density for one in tried])[group]
            mean[group], error[group], _ = compare_log_densities(densities, weight)
    return pd.DataFrame(
        {
            "likelihood": [one.likelihood for one in tried],
            "hidden": [one.hidden for one in tried],
            "kl_weight": [np.nan if one.kl_weight is None else one.kl_weight for one in tried],
            "share": [one.share for one in tried],
            "epochs": [one.epochs for one in tried],
            "log_density": mean,
            "standard_error": error,
            "is_chosen": False,
        }
    )


def stack_first_fit(
    posterior: Posterior,
    log_density: np.ndarray,
    weight: np.ndarray | None,
    likelihood: str,
    hidden: tuple[int, ...],
    table: pd.DataFrame | None,
) -> tuple[Posterior, pd.DataFrame | None]:
    """Weight the chains of a first fit if they differ in their KL weights; see `add_first_fit`.

    Parameters
    ----------
    posterior : Posterior
    log_density : ndarray of shape (n_chains, n_rows)
        Of held-out rows, under each chain.
    weight : ndarray of shape (n_rows,), optional
    likelihood, hidden
        As for `Tried`.
    table : DataFrame or None

    Returns
    -------
    tuple of Posterior and DataFrame or None
    """
    if len({chain.settings["kl_weight"] for chain in posterior.chains}) > 1:
        posterior = Posterior(stack_chains(posterior.chains, log_density, weight))
    tried = as_tried(likelihood, hidden, posterior, log_density)
    return posterior, add_first_fit(table, tried, weight)


def add_first_fit(
    table: pd.DataFrame | None, tried: Sequence[Tried], weight: np.ndarray | None
) -> pd.DataFrame | None:
    """Return a table with the rows of the fit whose held-out rows calibrate, and log them.

    It is as long as the final one, on which the best KL weight depends. If its chains have the same
    KL weight, the table is returned as it is.

    Parameters
    ----------
    table : DataFrame or None
        Of the likelihoods that were tried before, if any.
    tried : sequence of Tried
        All chains, and those with each KL weight.
    weight : ndarray of shape (n_rows,), optional
    """
    mixture, *single = tried
    if not single:
        return table
    rows = search_table(tried, weight)
    logger.info(
        "kl_weight='auto': mean log density of %d held-out rows: %.4g with all chains; %s.",
        len(mixture.log_density),
        rows.log_density[0],
        ", ".join(
            f"{row.log_density:.4g} at {row.kl_weight:g}, which gets {row.share:.0%} of the draws"
            for row in rows[1:].itertuples()
        ),
    )
    if table is not None:
        return pd.concat([table, rows], ignore_index=True)
    return rows.assign(is_chosen=rows.kl_weight.isna())


def search_to_json(table: pd.DataFrame | None) -> dict[str, list[Any]] | None:
    """Return a table as plain data; None for NaN."""
    if table is None:
        return None
    columns = table.astype(object).where(table.notna(), None).to_dict("list")
    return {name: [_plain(value) for value in values] for name, values in columns.items()}


def search_from_json(stored: Mapping[str, Any] | None) -> pd.DataFrame | None:
    """Return the table from the plain data that `search_to_json` returned, or raise a ValueError.

    Files of earlier versions lack some columns, which are then empty.
    """
    if stored is None:
        return None
    unknown = stored.keys() - set(COLUMNS)
    if unknown or not {"log_density", "is_chosen"} <= stored.keys():
        raise ValueError(f"its search must have the columns {', '.join(COLUMNS)}")
    table = pd.DataFrame(dict(stored)).reindex(columns=list(COLUMNS))
    for name in NUMBERS:
        table[name] = table[name].astype(float)
    if table.epochs.notna().all():
        table["epochs"] = table.epochs.astype(int)
    table["hidden"] = [tuple(h) if isinstance(h, list) else None for h in table.hidden]
    is_valid = table.is_chosen.map(type).eq(bool).all() and table.likelihood.map(type).eq(str).all()
    if not is_valid:
        raise ValueError("its search must hold names of likelihoods, and whether they were chosen")
    return table


def _plain(value: Any) -> Any:
    match value:
        case np.generic():
            return value.item()
        case tuple():
            return list(value)
    return value
