"""Preparation of validated arrays: scaling, compression of tails, and splits of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import _check_sample_weight

from ..prediction import Standardizer

CLIP_SD = 3.0
"""Distance from the mean, in standard deviations, beyond which `compress_tails` changes inputs."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of data in the units of the network.

    Attributes
    ----------
    x : ndarray of shape (n, n_features)
        Standardised inputs, their tails compressed.
    y : ndarray of shape (n, n_targets) or (n,)
        Targets, standardised unless they are counts; or class indices.
    weight : ndarray of shape (n,), optional
        Positive weights.
    stratify : bool
        Whether `split` preserves the class proportions of y.
    """

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None = None
    stratify: bool = False

    def __len__(self) -> int:
        return len(self.x)

    @property
    def total_weight(self) -> float:
        """Sum of the weights; without weights, the number of rows."""
        return len(self) if self.weight is None else float(self.weight.sum())

    def take(self, index: np.ndarray) -> Rows:
        """Return some of the rows."""
        weight = None if self.weight is None else self.weight[index]
        return Rows(self.x[index], self.y[index], weight, self.stratify)

    def split(self, held_out: float, seed: int) -> tuple[Rows, Rows]:
        """Split into rows to fit and held-out rows.

        Parameters
        ----------
        held_out : float or int
            Fraction of the rows (float) or number of rows (int) to hold out.
        seed : int

        Raises
        ------
        ValueError
            If there is only one row.
        """
        if len(self) < 2:
            raise ValueError(
                "`early_stopping` and likelihood='auto' hold out some rows and need at least 2, "
                f"got {len(self)}."
            )
        strata = None
        if self.stratify and np.unique(self.y, return_counts=True)[1].min() > 1:
            strata = self.y
        fitted, held = train_test_split(
            np.arange(len(self)), test_size=held_out, random_state=seed, stratify=strata
        )
        return self.take(fitted), self.take(held)


def prepare(
    X: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray | None,
    *,
    input_scaling: Standardizer,
    target_scaling: Standardizer | None = None,
    stratify: bool = False,
) -> Rows:
    """Return validated data in the units of the network.

    Parameters
    ----------
    X : ndarray of shape (n, n_features)
    y : ndarray of shape (n, n_targets) or (n,)
    weight : ndarray of shape (n,), optional
    input_scaling, target_scaling : Standardizer
        Scaling of X, and of y; None: y is not scaled.
    stratify : bool
        See `Rows`.
    """
    target = y if target_scaling is None else target_scaling.transform(y)
    return Rows(scale_inputs(X, input_scaling), target, weight, stratify)


def scale_inputs(X: np.ndarray, scaling: Standardizer) -> np.ndarray:
    """Return inputs standardised, with their tails compressed."""
    return compress_tails(scaling.transform(X))


def compress_tails(z: np.ndarray) -> np.ndarray:
    """Compress values beyond `CLIP_SD` to sign(z) (CLIP_SD + log(1 + |z| - CLIP_SD)).

    Smaller values do not change, and the order is preserved. A network extrapolates linearly:
    without compression, a row eight standard deviations away could get almost no predicted noise
    and a far too narrow interval.
    """
    excess = np.maximum(np.abs(z) - CLIP_SD, 0.0)
    return np.sign(z) * (np.minimum(np.abs(z), CLIP_SD) + np.log1p(excess))


def drop_zero_weights(
    X: np.ndarray, y: np.ndarray, sample_weight: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Check the weights, and drop rows with weight 0."""
    if sample_weight is None:
        return X, y, None
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    is_positive = weight > 0
    if not is_positive.any():
        raise ValueError("`sample_weight` must be positive for at least one row, got only zeros.")
    return X[is_positive], y[is_positive], weight[is_positive]
