"""RegressionPrediction: moments, quantiles and intervals of a real number or a count."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from .._core.arrays import ArrayLike, check_probability
from .._core.global_state import without_validation
from .._core.messages import shown
from ..likelihoods import base_of
from .base import Prediction, concatenate_chunks, plot_function
from .calibration import Calibration
from .columns import Columns
from .distribution_functions import is_discrete
from .empirical import EmpiricalMixture, empirical_moments
from .frame import make_frame, quantile_name
from .log_units import LogRescaled
from .quantiles import mixture_cdf, mixture_quantiles

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


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
        return self._derived(_loc=loc + scale * self._loc, _scale=scale * self._scale)

    def rescaled_log(
        self,
        loc: ArrayLike,
        scale: ArrayLike,
        lower: ArrayLike = -math.inf,
        upper: ArrayLike = math.inf,
    ) -> RegressionPrediction:
        """Return the prediction of ``exp(loc + scale * log y)``, for a log-normal y.

        Parameters
        ----------
        loc, scale : float or array of the shape of a row of y
            Mean and standard deviation by which log y was standardised; scale must be positive.
        lower, upper : float or array of the shape of a row of y
            Bounds of the mean of the standardised log y given the weights. The exponential of an
            extrapolation by a few draws would dominate the predictive mean.

        Raises
        ------
        ValueError
            If y is not log-normal given the weights, or has been `rescaled`.
        """
        if self._is_rescaled:
            raise ValueError("`rescaled_log` needs a prediction that has not been rescaled.")
        distributions = LogRescaled(
            self._distributions, _double(loc), _double(scale), _double(lower), _double(upper)
        )
        return self._derived(_distributions=distributions)

    def calibrated(self, calibration: Calibration | None) -> RegressionPrediction:
        """Return the prediction with its quantiles corrected by split conformal calibration.

        Each quantile becomes the mixture's quantile at a corrected probability; the median does
        not change. Means, standard deviations, densities and samples remain those of the mixture.

        Parameters
        ----------
        calibration : Calibration, optional
            Computed from held-out rows. None: the quantiles of the mixture itself.
        """
        return self._derived(calibration=calibration)

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
        return self._derived(_distributions=Columns(self._distributions, j), _loc=loc, _scale=scale)

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

    def quantile(self, q: float | ArrayLike, *, from_draws: bool = False) -> Any:
        """Return quantiles of the predictive mixture, corrected if it is `calibrated`.

        They need no moments, and lie in the support. If the distribution function of the likelihood
        is not known, they are those of 16,384 draws of y for each row (fewer if a chunk of rows
        would need more than 256 MiB for them), always the same draws; a log line says so.

        Parameters
        ----------
        q : float or array of shape (k,)
            Probabilities in (0, 1).
        from_draws : bool
            Use those draws even if the distribution function is known: many quantiles take a small
            part of the time, and are off by up to 0.004 in their probability (standard error).

        Returns
        -------
        array of shape (n, ...), or (k, n, ...) for an array of probabilities
        """
        try:
            levels = torch.as_tensor(q, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise TypeError(f"`q` must hold numbers, got {shown(q)}.") from None
        if levels.dim() > 1 or not bool(((levels > 0) & (levels < 1)).all()):
            raise ValueError(f"`q` must be one or more probabilities in (0, 1), got {shown(q)}.")
        probabilities = levels.reshape(-1)
        if self.calibration is not None:
            probabilities = self.calibration.probability(probabilities)
        with without_validation():
            by_chunk = (
                EmpiricalMixture(d).quantiles(probabilities.tolist())
                if from_draws or self._is_simulated
                else mixture_quantiles(d, probabilities.tolist())
                for d in self._distributions
            )
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
        check_probability("level", level)
        lower, upper = self.quantile([(1 - level) / 2, (1 + level) / 2])
        return lower, upper

    def to_frame(self, quantiles: Sequence[float] = (0.05, 0.5, 0.95)) -> pd.DataFrame:
        """Return a DataFrame with one row per predicted row, and the index of the frame predicted.

        Parameters
        ----------
        quantiles : sequence of float
            Probabilities in (0, 1).

        Returns
        -------
        DataFrame
            With the columns ``mean``, ``sd``, ``aleatoric_sd``, ``epistemic_sd`` and one for each
            quantile, such as ``q05``; for y of several columns each with its number: ``mean_0``.
        """
        columns = {
            name: getattr(self, name) for name in ("mean", "sd", "aleatoric_sd", "epistemic_sd")
        }
        if len(quantiles):
            names = map(quantile_name, quantiles)
            columns |= dict(zip(names, self.quantile(list(quantiles)), strict=True))
        return make_frame(columns, self.index)

    def plot(self, x: ArrayLike | None = None, y: ArrayLike | None = None, **options: Any) -> Any:
        """Plot the prediction of a single column of y.

        Parameters
        ----------
        x : array-like of shape (n,), optional
            The only input, or one of them: mean and interval against it, by `plots.plot_band`.
            None: against the number of the row.
        y : array-like, optional
            Observations, as points; without x, with their intervals by `plots.plot_intervals`.
        **options
            Options of these functions, such as ``level`` and ``ax``.

        Returns
        -------
        Axes
        """
        if x is None and y is not None:
            return plot_function("plot_intervals")(self, y, **options)
        if x is not None and y is not None:
            options["data"] = x, y
        axes = plot_function("plot_band")(range(len(self)) if x is None else x, self, **options)
        if x is None:
            axes.set_xlabel("row")
        return axes

    @cached_property
    def is_discrete(self) -> bool:
        """Whether y is discrete, such as a count."""
        return is_discrete(base_of(next(iter(self._distributions))))

    def cdf(self, y: ArrayLike) -> Any:
        """Return the probability that each observation is at most y, without calibration.

        Parameters
        ----------
        y : array-like of shape (n, ...)

        Returns
        -------
        array of shape (n, ...)
        """
        return self._out(self._cumulative(y)[0])

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
        """
        at, below = self._cumulative(y)
        return self._out((1 - 2 * torch.minimum(at, 1 - below)).clamp(min=0))

    def _cumulative(self, y: ArrayLike) -> tuple[Tensor, Tensor]:
        """Return the probabilities of at most y, and of less than y."""
        observed = self._standardised(self._observed(y).double())
        parts = [(d.batch_shape[1], d.event_shape) for d in self._distributions]
        shape = (sum(n for n, _ in parts), *parts[0][1])
        if observed.shape != shape:
            raise ValueError(
                f"`y` must have the shape of the prediction, {shape}, got {tuple(observed.shape)}."
            )
        with without_validation():
            at, below = concatenate_chunks(self._cumulative_by_chunk(observed))
        return at, below

    def _cumulative_by_chunk(self, observed: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        start = 0
        for distribution in self._distributions:
            rows = observed[start : start + distribution.batch_shape[1]]
            start += len(rows)
            if self._is_simulated:
                at, below = EmpiricalMixture(distribution).cdf(rows)
            else:
                base = base_of(distribution)
                cdf = mixture_cdf(base)
                at, below = cdf(rows), cdf(rows - 1 if is_discrete(base) else rows)
            yield at, below

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
    def _is_simulated(self) -> bool:
        """Whether quantiles are those of draws, because the distribution function is not known."""
        base = base_of(next(iter(self._distributions)))
        try:
            mixture_cdf(base)
        except NotImplementedError:
            logger.warning(
                "The distribution function of %s is not known: quantiles and intervals are those "
                "of draws of y.",
                type(base).__name__,
            )
            return True
        return False

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, epistemic and aleatoric variance, before `loc` and `scale`."""
        mean, epistemic, aleatoric = concatenate_chunks(map(_mixture_moments, self._distributions))
        return mean, epistemic, aleatoric


def _mixture_moments(distribution: Distribution) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean of each row, and its epistemic and aleatoric variance."""
    try:
        means, variances = distribution.mean, distribution.variance
    except NotImplementedError:
        return empirical_moments(distribution)
    mean = means.mean(0)
    epistemic = (means - mean).square_().mean(0)  # `var` takes five times as long
    return mean, epistemic, variances.mean(0).expand_as(mean)


def _double(value: ArrayLike) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)
