"""Preparation of validated arrays: scaling, compression of tails, and splits of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.validation import _check_sample_weight
from torch import Tensor

from .._core.arrays import to_numpy
from .._core.containers import check_no_integer_na
from ..prediction import Standardizer
from .holdout import choose_held_out

CLIP_SD = 3.0
"""Distance from the mean, in standard deviations, beyond which `compress_tails` changes inputs."""

MAX_TOTAL_WEIGHT = 1e12
"""Far below the weights for which squares of gradients, which Adam needs, overflow in float32."""


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
        Whether y are class indices, whose proportions `split` preserves.
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

    @property
    def n_classes(self) -> int:
        """Number of classes in these rows; 1 for a regression."""
        return len(np.unique(self.y)) if self.stratify else 1

    def take(self, index: np.ndarray) -> Rows:
        """Return some of the rows."""
        weight = None if self.weight is None else self.weight[index]
        return Rows(self.x[index], self.y[index], weight, self.stratify)

    def split(self, n_held: int, seed: int) -> tuple[Rows, Rows]:
        """Split into rows to fit and `n_held` held-out rows; see `choose_held_out`."""
        labels = self.y if self.stratify else None
        fitted, held = choose_held_out(len(self), n_held, seed, labels)
        return self.take(fitted), self.take(held)


def prepare(
    X: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray | None,
    input_scaling: Standardizer,
    target_scaling: Standardizer | None = None,
    *,
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


def as_columns(y: np.ndarray) -> np.ndarray:
    """Return targets in the shape (n, n_targets)."""
    return y.reshape(len(y), -1)


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


def plain_array(argument: str, value: Any) -> Any:
    """Return data without what scikit-learn's validation cannot read or would silently lose.

    A tensor becomes a NumPy array. A masked array is refused if it masks a value: the values
    below its mask would be used.
    """
    if isinstance(value, Tensor):
        return to_numpy(value)
    if isinstance(value, np.ma.MaskedArray):
        n_masked = int(np.ma.getmaskarray(value).sum())
        if n_masked:
            raise ValueError(
                f"`{argument}` must not be masked, got a masked array with {n_masked} masked "
                f"value(s): fill them in, as in {argument}.filled(0), or drop those rows."
            )
        value = value.data
    check_no_integer_na(argument, value)
    return value


def numeric_array(argument: str, value: Any) -> Any:
    """Return a `plain_array`, or raise if it or a column of a frame holds dates or durations.

    scikit-learn would convert them to numbers whose unit, days or nanoseconds, may be another when
    the estimator predicts.
    """
    value = plain_array(argument, value)
    refuse_times(argument, value, ("date", "timedelta", "duration"))
    return value


def refuse_times(argument: str, value: Any, kinds: tuple[str, ...]) -> None:
    """Raise if an array or a column of a frame has a type that begins like one of `kinds`."""
    for dtype in getattr(value, "dtypes", None), getattr(value, "dtype", None):
        for kind in [dtype] if not np.iterable(dtype) else dtype:
            if str(kind).lower().startswith(kinds):
                raise TypeError(
                    f"`{argument}` must hold numbers, got {kind}: convert dates and durations, for "
                    "instance to days since a fixed date."
                )


def drop_zero_weights(
    X: np.ndarray, y: np.ndarray, sample_weight: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Check the weights, and drop rows with weight 0."""
    sample_weight = plain_array("sample_weight", sample_weight)
    if sample_weight is None:
        return X, y, None
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    is_positive = weight > 0
    if not is_positive.any():
        raise ValueError("`sample_weight` must be positive for at least one row, got only zeros.")
    if weight.sum() > MAX_TOTAL_WEIGHT:
        raise ValueError(
            f"`sample_weight` must have a sum of at most {MAX_TOTAL_WEIGHT:g}, got "
            f"{weight.sum():g}: weights count rows, so divide them by a constant."
        )
    return X[is_positive], y[is_positive], weight[is_positive]
