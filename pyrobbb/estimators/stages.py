"""Stages: the fits that make up one call of an estimator's `fit`."""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .._core.arrays import supports_float64
from ..fitted import raise_if_interrupted
from ..model.network import BayesianNetwork
from ..posterior.fitting import fit
from ..posterior.posterior import Posterior
from ..training.checkpoints import stored_seed
from ..training.config import EngineName
from ..training.placement import Device, as_device
from .holdout import n_held_out
from .preparation import Rows

OPTIMIZER = partial(torch.optim.Adam, betas=(0.9, 0.99))
"""Where the noise is small, a single outlier can make a gradient a million times larger than usual.
With torch's default of 0.999 as second beta, the fit would then stall for thousands of steps."""
MAX_GRAD_NORM_PER_ROW = 100.0
"""Bound on the norm of the gradient, per row of data. Without it, such an outlier can make a chain
diverge. A bound that ordinary steps reach would make the learned noise too small."""
STEPS, MAX_EPOCHS, MIN_EPOCHS = 40_000, 10_000, 20
"""With ``epochs=None``: as many epochs as `STEPS` steps take, within these bounds."""


REFIT_FRACTION = 0.25
"""Factor on the epochs and the learning rate of the refit that includes the held-out rows."""
SEARCH_FRACTION = 0.7
"""Steps of all likelihoods that are tried, together, as a fraction of those of the fit."""
LOWEST_KL_WEIGHT, LOWEST_UNCHECKED, SINGLE_KL_WEIGHT = 0.25, 0.5, 0.7
MIN_ROWS_TO_STACK_CLASSES = 100
"""Held-out rows by which the chains of a classifier are weighted; with fewer, they have the same KL
weight. A class says less than a number: with 24 rows, or with equal weights, chains of low KL
weights raised the log loss of noisy tables. With about 120, of which one has no signal, stacked
chains were ahead on every training set that was tried."""


def spread_kl_weights(restarts: int, *, is_checked: bool = True) -> float | tuple[float, ...]:
    """Return the weight of the KL divergence of each chain, for chains that are stacked.

    The weights are spaced geometrically up to 1, as in Bayes' rule. Which is best depends on the
    data: with a high weight, mean-field intervals are too wide where there is little noise (Coker
    et al. 2022); with a low one, much too narrow where there is much, for as few rows. The stacked
    chains were at least as good on held-out training rows of UCI sets as chains with the same
    weight, `SINGLE_KL_WEIGHT`, which a single chain has.

    Parameters
    ----------
    restarts : int
        Number of chains.
    is_checked : bool
        Whether held-out rows will weight the chains: the lowest weight is then `LOWEST_KL_WEIGHT`,
        otherwise `LOWEST_UNCHECKED`.
    """
    if restarts == 1:
        return SINGLE_KL_WEIGHT
    weights = np.geomspace(LOWEST_KL_WEIGHT if is_checked else LOWEST_UNCHECKED, 1.0, restarts)
    return tuple(float(weight) for weight in weights.round(3))


def planned_epochs(epochs: int | None, batch_size: int, n_rows: int) -> int:
    """Return the number of epochs of a fit; for None as `epochs`, see `STEPS`."""
    if epochs is not None:
        return epochs
    return max(min(math.ceil(STEPS / math.ceil(n_rows / batch_size)), MAX_EPOCHS), MIN_EPOCHS)


def planned_steps(epochs: int | None, batch_size: int, n_rows: int) -> int:
    """Return the number of steps of a fit."""
    return planned_epochs(epochs, batch_size, n_rows) * math.ceil(n_rows / batch_size)


@dataclass(frozen=True)
class Stages:
    """The names of the fits of one call of `fit`, in order.

    Attributes
    ----------
    names : tuple of str
    checkpoint : path-like, optional
        Folder for checkpoints, with one numbered subfolder per stage.
    """

    names: tuple[str, ...]
    checkpoint: str | os.PathLike[str] | None

    def shares(self) -> dict[str, float]:
        """Return what each stage is called for the user, with its steps beside those of the fit."""
        known = {"fit": ("fitting", 1.0), "refit": ("adding the held-out rows", REFIT_FRACTION)}
        n_tried = max(len(self.names) - len(known.keys() & set(self.names)), 1)
        tried = SEARCH_FRACTION / n_tried
        return dict(known.get(name, (f"trying {name}", tried)) for name in self.names)

    def folder(self, name: str) -> Path | None:
        """Return the folder for the checkpoints of a stage."""
        if self.checkpoint is None:
            return None
        return Path(self.checkpoint) / f"fit-{self.names.index(name) + 1}"

    def stored_seed(self) -> int | None:
        """Return the seed in the checkpoints of an interrupted call of `fit`, if there are any."""
        folder = self.folder(self.names[0])
        return None if folder is None else stored_seed(folder)


@dataclass(frozen=True)
class TrainingOptions:
    """Parameters of an estimator that all stages share.

    Attributes
    ----------
    epochs, batch_size, lr, restarts, kl_weight, engine, device, seed, progress
        As for `pyrobbb.fit`; for None as `epochs`, see `STEPS`.
    validation_fraction : float, optional
        Fraction of the rows held out for early stopping. None: no early stopping.
    patience : int, optional
    """

    epochs: int | None
    batch_size: int
    lr: float
    restarts: int
    kl_weight: float | tuple[float, ...]
    engine: EngineName
    device: Device | None
    seed: int
    progress: bool
    validation_fraction: float | None = None
    patience: int | None = None

    def arguments(self, rows: Rows, fraction: float = 1.0) -> dict[str, Any]:
        """Return the arguments of `pyrobbb.fit` for a fit to these rows.

        Parameters
        ----------
        rows : Rows
        fraction : float
            Factor on the number of epochs.
        """
        epochs = planned_epochs(self.epochs, self.batch_size, len(rows))
        return {
            "epochs": math.ceil(fraction * epochs),
            "batch_size": self.batch_size,
            "lr": self.lr,
            "restarts": self.restarts,
            "optimizer": OPTIMIZER,
            # At least that of one row: the gradient of the KL divergence has no weight.
            "clip_norm": MAX_GRAD_NORM_PER_ROW * max(rows.total_weight, 1.0),
            "kl_weight": self.kl_weight,
            "engine": self.engine,
            "device": self.device,
            "seed": self.seed,
            "progress": self.progress,
        }

    def n_validation_rows(self, n_rows: int, n_classes: int = 1) -> int:
        """Return how many rows early stopping holds out, or raise if too few would be left."""
        if self.validation_fraction is None:
            return 0
        return n_held_out("`early_stopping`", self.validation_fraction, n_rows, n_classes)

    def hold_out(self, rows: Rows) -> tuple[Rows, dict[str, Any]]:
        """Return the rows to fit, and the arguments of `pyrobbb.fit` for early stopping."""
        n_held = self.n_validation_rows(len(rows), rows.n_classes)
        if n_held == 0:
            return rows, {}
        rows, held = rows.split(n_held, self.seed)
        return rows, {"validation": (held.x, held.y), "patience": self.patience}


def fit_once(
    network: BayesianNetwork,
    rows: Rows,
    options: TrainingOptions,
    *,
    checkpoint: Path | None,
    start: Posterior | None = None,
    fraction: float = 1.0,
) -> Posterior:
    """Fit the posterior of a network, with early stopping if the options request it.

    Parameters
    ----------
    network : BayesianNetwork
        Converted to double precision if there are at most `batch_size` rows.
    rows : Rows
    options : TrainingOptions
    checkpoint : Path, optional
    start : Posterior, optional
        Initial posterior for a warm start. All of its chains are continued, without a warm-up of
        the KL divergence, which would lead away from it.
    fraction : float
        Factor on the number of epochs and on the learning rate.

    Returns
    -------
    Posterior
        In double precision.

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C has ended it.
    """
    rows, early_stopping = options.hold_out(rows)
    device = as_device(options.device)
    if len(rows) <= options.batch_size and (device is None or supports_float64(device)):
        # In double precision, a row of weight 2 and two equal rows give the same fit. For so few
        # rows, it costs little.
        network.double()
    arguments = options.arguments(rows, fraction)
    arguments["lr"] = fraction * arguments["lr"]
    if start is not None:
        arguments |= {"start": start, "restarts": 1, "kl_warmup": 0.0}
    posterior = fit(
        network,
        rows.x,
        rows.y,
        sample_weight=rows.weight,
        checkpoint=checkpoint,
        **early_stopping,
        **arguments,
    )
    raise_if_interrupted(posterior.chains)
    return _to_double(posterior)


def _to_double(posterior: Posterior) -> Posterior:
    """Return a posterior in double precision, because a target may be near 1e9 with an sd of 1."""
    chains = []
    for chain in posterior.chains:
        if supports_float64(chain.example.device):
            chain.network.double()
            if isinstance(chain.guide, nn.Module):
                chain.guide.double()
            chain = dataclasses.replace(chain, example=chain.example.double())
        chains.append(chain)
    return Posterior(tuple(chains))
