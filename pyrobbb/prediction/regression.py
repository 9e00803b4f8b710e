"""RegressionPrediction: moments, quantiles and intervals of a real number or a count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from .._core.arrays import ArrayLike, check_number
from .._core.messages import shown
from ..likelihoods import base_of
from .base import Prediction, concatenate_chunks
from .calibration import Calibration
from .quantiles import mixture_cdf, mixture_quantiles


class RegressionPrediction(Prediction):
    """The predictive mixture of a real number or a count.

    Parameters
    ----------
    distributions, original
        As for `Prediction`.
    loc, scale : Tensor or float
        The prediction is of ``loc + scale * y``; see `rescaled`.
    calibration : Calibration, optional
        Correction of quantiles and intervals; see `calibrated`.
    """

    def __init__(
        self,
        distributions: Iterable[Distribution],
        original: ArrayLike,
        loc: Tensor | float = 0.0,
        scale: Tensor | float = 1.0,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(distributions, original)
        self._loc, self._scale = _double(loc), _double(scale)
        self.calibration = calibration

    def rescaled(self, loc: ArrayLike, scale: ArrayLike) -> RegressionPrediction:
        """Return the prediction of ``loc + scale * y``, for standardised y.

        Parameters
        ----------
        loc, scale : float or array of the shape of a row of y
            Mean and standard deviation by which y was standardised; scale must be positive.
        """
        loc, scale = _double(loc), _double(scale)
        if not bool((scale > 0).all()):
            raise ValueError(f"`scale` must be positive, got {shown(scale.tolist())}.")
        return RegressionPrediction(
            self._distributions,
            self._original,
            loc + scale * self._loc,
            scale * self._scale,
            self.calibration,
        )

    def calibrated(self, calibration: Calibration | None) -> RegressionPrediction:
        """Return the prediction with its quantiles corrected by split conformal calibration.

        Each quantile becomes the mixture's quantile at a corrected probability; the median does
        not change. Means, standard deviations, densities and samples remain those of the mixture.

        Parameters
        ----------
        calibration : Calibration, optional
            Computed from held-out rows. None: the quantiles of the mixture itself.
        """
        return RegressionPrediction(
            self._distributions, self._original, self._loc, self._scale, calibration
        )

    def column(self, j: int) -> RegressionPrediction:
        """Return the marginal prediction of one column of y, for y of shape (n, k).

        Parameters
        ----------
        j : int

        Returns
        -------
        RegressionPrediction
            Of shape (n,).
        """
        loc, scale = (t[j] if t.dim() else t for t in (self._loc, self._scale))
        columns = _Columns(self._distributions, j)
        return RegressionPrediction(columns, self._original, loc, scale, self.calibration)

    @property
    def mean(self) -> Any:
        """Predictive mean, shape (n, ...)."""
        return self._out(self._rescale(self._moments[0]))

    @property
    def sd(self) -> Any:
        """Predictive standard deviation, shape (n, ...).

        By the law of total variance, sd**2 = epistemic_sd**2 + aleatoric_sd**2.
        """
        return self._out(self._rescale((self._moments[1] + self._moments[2]).sqrt(), shift=False))

    @property
    def epistemic_sd(self) -> Any:
        """Epistemic uncertainty: standard deviation over draws of the mean, shape (n, ...)."""
        return self._out(self._rescale(self._moments[1].sqrt(), shift=False))

    @property
    def aleatoric_sd(self) -> Any:
        """Aleatoric uncertainty: root of the mean over draws of the variance, shape (n, ...)."""
        return self._out(self._rescale(self._moments[2].sqrt(), shift=False))

    def quantile(self, q: float | ArrayLike) -> Any:
        """Return quantiles of the predictive mixture, corrected if it is `calibrated`.

        Parameters
        ----------
        q : float or array of shape (k,)
            Probabilities in (0, 1).

        Returns
        -------
        array of shape (n, ...), or (k, n, ...) for an array of probabilities
        """
        levels = torch.as_tensor(q, dtype=torch.float64)
        if levels.dim() > 1 or not bool(((levels > 0) & (levels < 1)).all()):
            raise ValueError(f"`q` must be one or more probabilities in (0, 1), got {q}.")
        probabilities = levels.reshape(-1)
        if self.calibration is not None:
            probabilities = self.calibration.probability(probabilities)
        by_chunk = (mixture_quantiles(d, probabilities.tolist()) for d in self._distributions)
        (quantiles,) = concatenate_chunks((chunk.movedim(1, 0),) for chunk in by_chunk)
        result = self._rescale(quantiles.movedim(0, 1))
        return self._out(result if levels.dim() else result[0])

    def interval(self, level: float = 0.9) -> tuple[Any, Any]:
        """Return the central interval that contains y with a given probability.

        Parameters
        ----------
        level : float
            Probability in (0, 1).

        Returns
        -------
        lower, upper : arrays of shape (n, ...)
        """
        check_number("level", level)
        if not 0 < level < 1:
            raise ValueError(f"`level` must be a probability in (0, 1), got {level}.")
        lower, upper = self.quantile([(1 - level) / 2, (1 + level) / 2])
        return lower, upper

    def central_level(self, y: ArrayLike) -> Any:
        """Return the level of the smallest central interval that contains each observation.

        The intervals are those of the mixture, without calibration. The levels are uniform on
        (0, 1) if the mixture is correct.

        Parameters
        ----------
        y : array-like of shape (n, ...)

        Returns
        -------
        array of shape (n, ...)

        Raises
        ------
        NotImplementedError
            If the distribution function of this likelihood is not implemented.
        """
        observed = self._standardised(self._observed(y).double())
        if observed.shape != self._moments[0].shape:
            raise ValueError(
                f"`y` must have the shape of the prediction, {tuple(self._moments[0].shape)}, got "
                f"{tuple(observed.shape)}."
            )
        (level,) = concatenate_chunks(self._central_level_by_chunk(observed))
        return self._out(level.clamp(min=0))

    def _central_level_by_chunk(self, observed: Tensor) -> Iterator[tuple[Tensor]]:
        start = 0
        for distribution in self._distributions:
            base = base_of(distribution)
            rows = observed[start : start + distribution.batch_shape[1]]
            start += len(rows)
            cdf = mixture_cdf(base)
            below = cdf(rows - 1 if base.support.is_discrete else rows)
            yield (1 - 2 * torch.minimum(cdf(rows), 1 - below),)

    def _standardised(self, y: Tensor) -> Tensor:
        return (y - self._loc.to(y.device)) / self._scale.to(y.device) if self._is_rescaled else y

    def _log_prob(self, y: Tensor) -> Tensor:
        scale = self._scale.to(y.device)
        standardised = self._standardised(y)
        log_jacobian = scale.log().expand(y.shape).reshape(len(y), -1).sum(-1)
        return super()._log_prob(standardised) - log_jacobian

    def _sample(self, seed: int) -> Tensor:
        return self._rescale(super()._sample(seed))

    def _rescale(self, values: Tensor, *, shift: bool = True) -> Tensor:
        scaled = self._scale.to(values.device) * values
        return (self._loc.to(values.device) + scaled if shift else scaled).to(values.dtype)

    @property
    def _is_rescaled(self) -> bool:
        return bool((self._scale != 1).any() or (self._loc != 0).any())

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, epistemic and aleatoric variance, before `loc` and `scale`."""
        mean, epistemic, aleatoric = concatenate_chunks(map(_mixture_moments, self._distributions))
        return mean, epistemic, aleatoric


class _Columns:
    """The marginal distributions of one column of y."""

    def __init__(self, distributions: Iterable[Distribution], j: int) -> None:
        self._distributions, self._j = distributions, j

    def __iter__(self) -> Iterator[Distribution]:
        for distribution in self._distributions:
            base = base_of(distribution)
            if len(distribution.event_shape) != 1:
                raise ValueError(
                    "`column` needs a prediction of y of shape (n, k), got rows of shape "
                    f"{tuple(distribution.event_shape)}."
                )
            # Its constructor arguments, from which torch derives its other parameters.
            # `probs` and `logits` are derived from each other where they are first used.
            values = {
                n: getattr(base, n)
                for n in base.arg_constraints
                if n not in ("probs", "logits") or n in vars(base)
            }
            if "probs" in values and "logits" in values:
                del values["probs"]
            yield type(base)(
                **{n: v.expand(base.batch_shape)[..., self._j] for n, v in values.items()}
            )


def _mixture_moments(distribution: Distribution) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean of each row, and its epistemic and aleatoric variance."""
    means = distribution.mean
    mean = means.mean(0)
    epistemic = (means - mean).square_().mean(0)  # `var` takes five times as long
    return mean, epistemic, distribution.variance.mean(0).expand_as(mean)


def _double(value: ArrayLike) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)
