"""Units: how the data of an estimator relate to those of its network."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..prediction import Calibration, Standardizer


def _zero() -> Tensor:
    return torch.zeros((), dtype=torch.float64)


def _one() -> Tensor:
    return torch.ones((), dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Units:
    """What an estimator does before and after its network. The defaults do nothing.

    Attributes
    ----------
    input_scaling : Standardizer, optional
        Scaling of the columns of x, which are then in double precision.
    clip_sd : float
        Standardised inputs beyond this are compressed to
        sign(z) (clip_sd + log(1 + abs(z) - clip_sd)).
    loc, scale : Tensor
        The prediction is of ``loc + scale * y``; with `log_bounds`, of
        ``exp(loc + scale * log y)``.
    log_bounds : pair of Tensor, optional
        Bounds of the mean of the standardised log y, for a log-normal likelihood.
    is_column : bool
        Whether y of shape (n, 1) is predicted as (n,).
    calibration : Calibration, optional
        Correction of the quantiles.
    temperature : float
        Correction of the probabilities of classes.
    """

    input_scaling: Standardizer | None = None
    clip_sd: float = math.inf
    loc: Tensor = field(default_factory=_zero)
    scale: Tensor = field(default_factory=_one)
    log_bounds: tuple[Tensor, Tensor] | None = None
    is_column: bool = False
    calibration: Calibration | None = None
    temperature: float = 1.0

    def corrected(self, levels: tuple[float, ...]) -> list[float]:
        """Return the probabilities at which the mixture has the calibrated quantiles."""
        if self.calibration is None:
            return list(levels)
        return [float(self.calibration.probability(q)) for q in levels]

    def scaled_inputs(self, x: Tensor) -> Tensor:
        """Return x standardised, its tails compressed, in double precision."""
        if self.input_scaling is None:
            return x
        z = (x.double() - self.input_scaling.loc) / self.input_scaling.scale
        size = z.abs()
        if math.isinf(self.clip_sd):
            return z
        excess = (size - self.clip_sd).clamp(min=0)
        return z.sign() * (size.clamp(max=self.clip_sd) + torch.log1p(excess))
