"""A table of the posterior of sites or single weights: mean, sd, quantiles, signal-to-noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._core.arrays import check_probability, to_numpy
from .._core.messages import is_one_of, not_one_of, shown
from ..prediction.frame import quantile_name
from ..prediction.sampling import Draws

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["By", "summarize"]

By = Literal["site", "weight"]


def summarize(
    draws: Draws,
    sizes: Sequence[int],
    var_names: str | Sequence[str] | None = None,
    *,
    by: By | None = None,
    level: float = 0.9,
) -> pd.DataFrame:
    """Return a row for each site or weight; see `Posterior.summary`.

    Parameters
    ----------
    draws : dict of str to Tensor of shape (n, *site)
        Those of a chain next to each other.
    sizes : sequence of int
        Number of draws of each chain.
    var_names, by, level
        As for `Posterior.summary`.
    """
    import pandas as pd

    if by is None:
        by = "site" if var_names is None else "weight"
    elif not is_one_of(by, ("site", "weight")):
        raise ValueError(not_one_of("by", by, ("site", "weight"), or_else=", or None"))
    check_probability("level", level)
    chosen = {name: to_numpy(draws[name]) for name in _chosen_sites(draws, var_names)}
    rows = [
        row
        for name, values in chosen.items()
        for row in (_row_of_site if by == "site" else _rows_of_weights)(
            name, values.reshape(len(values), -1), values.shape[1:], level, sizes
        )
    ]
    return pd.DataFrame(rows).set_index("name").rename_axis(None)


def _row_of_site(
    name: str, values: np.ndarray, shape: Sequence[int], level: float, sizes: Sequence[int]
) -> list[Mapping[str, Any]]:
    """Return a row for all weights of a site together; draws of shape (n, n_weights)."""
    chains = np.split(values, np.cumsum(sizes)[:-1])
    ratios = np.concatenate([_signal_to_noise(chain) for chain in chains if len(chain) > 1])
    pooled = _moments(values.reshape(-1, 1), level)
    numbers = {column: value.item() for column, value in pooled.items()}
    return [{"name": name, "size": values.shape[1], **numbers, "snr": float(np.median(ratios))}]


def _rows_of_weights(
    name: str, values: np.ndarray, shape: Sequence[int], level: float, sizes: Sequence[int]
) -> list[Mapping[str, Any]]:
    columns = {**_moments(values, level), "snr": _signal_to_noise(values)}
    labels = [name + (f"[{', '.join(map(str, i))}]" if i else "") for i in np.ndindex(*shape)]
    return [
        {"name": label, **{column: value[i] for column, value in columns.items()}}
        for i, label in enumerate(labels)
    ]


def _moments(values: np.ndarray, level: float) -> dict[str, np.ndarray]:
    probabilities = (1 - level) / 2, (1 + level) / 2
    lower, upper = np.quantile(values, probabilities, axis=0)
    return {
        "mean": values.mean(0, dtype=np.float64),
        "sd": values.std(0, ddof=1, dtype=np.float64),
        quantile_name(probabilities[0]): lower,
        quantile_name(probabilities[1]): upper,
    }


def _signal_to_noise(values: np.ndarray) -> np.ndarray:
    """Return ``|mean| / sd`` of each weight; NaN for a constant 0, such as a pruned weight."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios: np.ndarray = np.abs(values.mean(0)) / values.std(0, ddof=1)
    return ratios


def _chosen_sites(draws: Draws, var_names: str | Sequence[str] | None) -> list[str]:
    if var_names is None:
        return list(draws)
    patterns = [var_names] if isinstance(var_names, str) else list(var_names)
    if not patterns:
        raise ValueError("`var_names` must name at least one site, got none.")
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"`var_names` must be strings, got {shown(pattern)}.")
        if not any(fnmatchcase(name, pattern) for name in draws):
            raise ValueError(not_one_of("var_names", pattern, draws, or_else=", or a pattern"))
    return [name for name in draws if any(fnmatchcase(name, pattern) for pattern in patterns)]
