"""Convergence: whether the ELBO still rises, and whether independent fits agree."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .._core.arrays import ArrayLike, to_numpy
from .._core.random_state import as_seed
from .._core.trees import InputsLike
from ..fitted import FittedChain, HasChains, raise_if_interrupted
from ..model.guides import FlatGuide, is_flat
from ..training import FitConfig, fit_chains
from .importance import log_ratios

if TYPE_CHECKING:
    import xarray

MIN_GAIN_PER_ROW = 0.05
"""A smaller gain in the ELBO, in nats per row, hardly changes a prediction."""
MIN_STEPS = 1000
"""A fifth of a very short fit is too short to show that the ELBO still rises."""


@dataclass(frozen=True)
class ElboGain:
    """The increase of the ELBO when a fit is continued.

    Attributes
    ----------
    gain, standard_error : float
        In nats; the standard error is due to the finite number of draws.
    n_rows : int
        Rows of data.
    epochs : int
        Epochs of the continuation.
    scale_change : float or None
        Median over the weights of the change of log scale: about 0 if the scales have converged,
        which takes longest where the gradients are noisy. None if the guide is not one of pyrobbb's
        over a flat vector.
    """

    gain: float
    standard_error: float
    n_rows: int
    epochs: int
    scale_change: float | None = None

    @property
    def matters(self) -> bool:
        """Whether the gain exceeds both 3 standard errors and 0.05 nats per row."""
        return self.gain > max(3 * self.standard_error, MIN_GAIN_PER_ROW * self.n_rows)


def elbo_gain(
    posterior: HasChains,
    x: InputsLike,
    y: ArrayLike,
    *,
    share: float = 0.2,
    n_draws: int = 1000,
    seed: int | None = None,
) -> ElboGain:
    """Continue a fit, and measure how much the ELBO rises.

    The losses of a fit hardly show this: they level off because the learning rate decreases.
    The posterior itself is not changed.

    Parameters
    ----------
    posterior : Posterior
        With several chains, each is continued, and the largest gain is returned.
    x, y : array-like of shape (n, ...)
        The training data.
    share : float
        Length of the continuation as a share of the epochs of the fit; at least 1000 steps. It
        starts at half the learning rate of the fit.
    n_draws : int
        Draws with which both ELBOs are estimated, from the same noise.
    seed : int, optional
        Makes the result repeatable.

    Raises
    ------
    ValueError
        If the settings of the fit are not known, or it had a `sample_weight`.
    """
    gains = elbo_gains(posterior.chains, x, y, share=share, n_draws=n_draws, seed=seed)
    return max(gains, key=lambda gain: gain.gain)


def elbo_gains(
    chains: Sequence[FittedChain],
    x: InputsLike,
    y: ArrayLike,
    *,
    share: float = 0.2,
    n_draws: int = 1000,
    seed: int | None = None,
) -> list[ElboGain]:
    """Return the `elbo_gain` of each chain.

    Chains of one fit are continued together; others, which may differ in their settings or have
    a guide that cannot be a warm start, one by one.
    """
    for chain in chains:
        _check_can_continue(chain)
    seed = as_seed(seed)
    together = all(
        is_flat(chain.guide) and _continuation(chain, share) == _continuation(chains[0], share)
        for chain in chains
    )
    groups = [tuple(chains)] if together else [(chain,) for chain in chains]
    return [
        gain
        for group in groups
        for gain in _gains_of_group(group, x, y, share=share, n_draws=n_draws, seed=seed)
    ]


def _check_can_continue(chain: FittedChain) -> None:
    kl_weight = chain.settings.kl_weight
    known = kl_weight in ("uniform", "blundell") or isinstance(kl_weight, float)
    if not known or not isinstance(chain.guide, nn.Module) or not len(chain.history.nelbo):
        raise ValueError(
            "`posterior` must come from `fit` with a `kl_weight` that is not a callable: the "
            "settings needed to continue this fit are not known."
        )
    if chain.settings.is_weighted:
        raise ValueError("`posterior` was fitted with a `sample_weight`, which is not stored.")


def _continuation(chain: FittedChain, share: float) -> dict[str, Any]:
    """Return the options of `FitConfig` that continue the fit of a chain."""
    settings, history = chain.settings, chain.history
    least = MIN_STEPS * history.n_epochs / len(history.nelbo)
    return {
        "epochs": math.ceil(max(share * history.n_epochs, least)),
        "batch_size": settings["batch_size"],
        "lr": 0.5 * settings["lr"],
        "schedule": "cosine",
        "objective": "mean_field" if settings["objective"] == "mean_field" else "trace",
        "n_particles": settings["n_particles"],
        "kl_weight": settings["kl_weight"],
        "kl_warmup": 0.0,
    }


def _gains_of_group(
    chains: Sequence[FittedChain],
    x: InputsLike,
    y: ArrayLike,
    *,
    share: float,
    n_draws: int,
    seed: int,
) -> list[ElboGain]:
    """Continue chains that have the same settings, in one fit."""
    first = chains[0]
    options = _continuation(first, share)
    initial: dict[str, Any]
    if is_flat(first.guide):
        initial = {"start": tuple(chains), "guide": first.guide.kind}
    else:
        initial = {"guide": copy.deepcopy(first.guide)}
    config = FitConfig(first.network, x, y, **initial, **options, seed=seed, progress=False)
    kl_weight = options["kl_weight"] if isinstance(options["kl_weight"], float) else 1.0

    def elbos(chain: FittedChain) -> Tensor:
        return log_ratios((chain,), x, y, n_draws=n_draws, seed=seed, kl_weight=kl_weight)

    gains = []
    continued = fit_chains(config)
    raise_if_interrupted(continued)
    for before, after in zip(chains, continued, strict=True):
        difference = elbos(after) - elbos(before)
        error = float(difference.std() / math.sqrt(n_draws))
        gains.append(
            ElboGain(
                float(difference.mean()),
                error,
                len(to_numpy(y)),
                options["epochs"],
                _scale_change(before.guide, after.guide),
            )
        )
    return gains


def _scale_change(before: Any, after: Any) -> float | None:
    if not isinstance(before, FlatGuide):
        return None
    with torch.no_grad():
        return float((after.sd / before.sd).log().median())


def rhat(tree: xarray.DataTree, var_names: list[str] | None = None) -> xarray.Dataset:
    """Compute the rank-normalised split R-hat of functions of the weights, over independent fits.

    The R-hat of the weights themselves is meaningless, because units may be permuted from fit to
    fit.

    Parameters
    ----------
    tree : DataTree
        Of a posterior with restarts: one chain per fit.
    var_names : list of str, optional
        Variables of the group ``posterior``. None: ``mean`` or ``probs``.

    Returns
    -------
    xarray.Dataset
        One value for each element of a variable.

    Raises
    ------
    ValueError
        For a single fit, because the halves of its independent draws always agree.
    """
    import arviz_stats

    return arviz_stats.rhat(_functions(tree, var_names))


def ess(tree: xarray.DataTree, var_names: list[str] | None = None) -> xarray.Dataset:
    """Compute the bulk effective sample size of the draws of all restarts.

    The draws of a fit are independent, so that the effective sample size is below the number of
    draws only to the extent to which the fits differ.

    Parameters
    ----------
    tree, var_names
        As for `rhat`.

    Returns
    -------
    xarray.Dataset
        One value for each element of a variable.

    Raises
    ------
    ValueError
        For a single fit.
    """
    import arviz_stats

    return arviz_stats.ess(_functions(tree, var_names))


def _functions(tree: xarray.DataTree, var_names: list[str] | None) -> xarray.Dataset:
    """Return functions of the weights over independent fits."""
    group = tree["posterior"]
    if group.sizes["chain"] < 2:
        raise ValueError(
            "`tree` must have at least 2 chains, got 1: R-hat and ESS compare independent fits. "
            "Use fit(..., restarts=4)."
        )
    names = var_names or [name for name in ("mean", "probs") if name in group]
    return group.to_dataset()[names]
