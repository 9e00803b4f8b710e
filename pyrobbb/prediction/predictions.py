"""Prediction: what the posterior says of new rows, and how much of it is noise and how much doubt.

Everything here is computed from the predictive mixture: one distribution of y a draw, all with the
same weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from .._core.arrays import ArrayLike, as_tensor, check_number, kind_of, like
from .._core.random_state import as_seed, seeded
from ..likelihoods import as_observed, base_of
from .calibration import Calibration

CLASSES = (torch.distributions.Categorical, torch.distributions.Bernoulli)

MAX_ITERATIONS = 200
FINE_ENOUGH = 1e-10
"""Relative error of a quantile. The last digits of double precision are lost in its cdf, and would
be sought in vain by bisection."""
NEWTON_ITERATIONS = 30  # far more than it needs where it works at all; then bisection


class Prediction:
    """The predictive mixture at some rows.

    Parameters
    ----------
    distributions : iterable of Distribution
        Distributions of batch shape (n_draws, n_rows) for consecutive chunks of rows; iterated
        over as often as something new is asked for.
    original : array-like
        Results are NumPy arrays if this is not a tensor.
    """

    def __init__(self, distributions: Iterable[Distribution], original: ArrayLike) -> None:
        self._distributions = distributions
        self._original = kind_of(original)

    def log_prob(self, y: ArrayLike) -> Any:
        """Give the log predictive density of each row's observation.

        Parameters
        ----------
        y : array-like of shape (n, ...)

        Returns
        -------
        array of shape (n,)
            log(1 / n_draws sum_s p(y | draw s)), in nats.
        """
        return self._out(self._log_prob(self._observed(y)))

    def sample(self, seed: int | None = None) -> Any:
        """Draw y once from the distribution of each draw.

        Returns
        -------
        array of shape (n_draws, n, ...)
        """
        return self._out(self._sample(as_seed(seed)))

    def _log_prob(self, y: Tensor) -> Tensor:
        (log_prob,) = _gather(self._log_prob_by_chunk(y))
        if len(log_prob) != len(y):
            raise ValueError(
                f"`y` must have the {len(log_prob)} rows that were predicted, got {len(y)}."
            )
        return log_prob

    def _log_prob_by_chunk(self, y: Tensor) -> Iterator[tuple[Tensor]]:
        start = 0
        for distribution in self._distributions:
            _, n_rows = distribution.batch_shape
            rows = y[start : start + n_rows]
            start += n_rows
            expected = (n_rows, *distribution.event_shape)
            if rows.shape != expected:
                raise ValueError(
                    f"`y` must have shape (n, {', '.join(map(str, expected[1:]))}) with a row for "
                    f"each row predicted, got {tuple(y.shape)}."
                )
            each = distribution.log_prob(
                as_observed(distribution, rows, base_of(distribution).mean.dtype)
            )
            yield (each.logsumexp(0) - math.log(len(each)),)

    def _sample(self, seed: int) -> Tensor:
        chunks = list(self._distributions)
        with seeded(seed):
            return torch.cat([chunk.sample() for chunk in chunks], dim=1)

    def _observed(self, y: ArrayLike) -> Tensor:
        """Check observations and bring them to where the distributions are."""
        first = base_of(next(iter(self._distributions)))
        return as_tensor("y", y).to(first.mean.device)

    def _out(self, result: Tensor) -> Any:
        return like(self._original, result)


class RegressionPrediction(Prediction):
    """The predictive mixture of a quantity: real numbers or counts.

    Parameters
    ----------
    distributions, original
        As for `Prediction`.
    loc, scale : Tensor or float
        The prediction is of ``loc + scale * y``; see `rescaled`.
    calibration : Calibration, optional
        What quantiles and intervals are corrected by; see `calibrated`.
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
        """Give the prediction of ``loc + scale * y``: of a target that was standardised.

        Parameters
        ----------
        loc, scale : float or array of the shape of a row of y
            The mean and standard deviation that y was standardised by; scale is positive.
        """
        loc, scale = _double(loc), _double(scale)
        if not bool((scale > 0).all()):
            raise ValueError(f"`scale` must be positive, got {scale.tolist()}.")
        return RegressionPrediction(
            self._distributions,
            self._original,
            loc + scale * self._loc,
            scale * self._scale,
            self.calibration,
        )

    def calibrated(self, calibration: Calibration | None) -> RegressionPrediction:
        """Give the prediction with quantiles and intervals that hold what they promise.

        The quantile of a probability becomes the mixture's of another one; the median stays.
        Means, standard deviations, densities and samples are still those of the mixture.

        Parameters
        ----------
        calibration : Calibration, optional
            From rows that were held out. None: the mixture's own quantiles.
        """
        return RegressionPrediction(
            self._distributions, self._original, self._loc, self._scale, calibration
        )

    def column(self, j: int) -> RegressionPrediction:
        """Give the prediction of one column of y alone, for y of shape (n, k).

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
        """Predictive standard deviation, shape (n, ...): sd**2 = epistemic_sd**2 + aleatoric_sd**2.

        The law of total variance.
        """
        return self._out(self._rescale((self._moments[1] + self._moments[2]).sqrt(), shift=False))

    @property
    def epistemic_sd(self) -> Any:
        """Doubt about the weights: standard deviation over draws of the mean, shape (n, ...)."""
        return self._out(self._rescale(self._moments[1].sqrt(), shift=False))

    @property
    def aleatoric_sd(self) -> Any:
        """Noise in y: root of the mean over draws of the variance, shape (n, ...)."""
        return self._out(self._rescale(self._moments[2].sqrt(), shift=False))

    def quantile(self, q: float | ArrayLike) -> Any:
        """Give quantiles of the predictive mixture, or of it as `calibrated`.

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
        own = levels.reshape(-1)
        if self.calibration is not None:
            own = self.calibration.probability(own)
        by_row = (_mixture_quantiles(d, own.tolist()).movedim(1, 0) for d in self._distributions)
        (quantiles,) = _gather((rows,) for rows in by_row)
        result = self._rescale(quantiles.movedim(0, 1))
        return self._out(result if levels.dim() else result[0])

    def interval(self, level: float = 0.9) -> tuple[Any, Any]:
        """Give the central interval that holds y with a probability.

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
        """Give the probability of the smallest central interval that holds each observation.

        Uniform between 0 and 1 if the mixture is right. Before any calibration.

        Parameters
        ----------
        y : array-like of shape (n, ...)

        Returns
        -------
        array of shape (n, ...)

        Raises
        ------
        NotImplementedError
            If the distribution has no distribution function.
        """
        observed = self._standardised(self._observed(y).double())
        if observed.shape != self._moments[0].shape:
            raise ValueError(
                f"`y` must have the shape of what was predicted, {tuple(self._moments[0].shape)}, "
                f"got {tuple(observed.shape)}."
            )
        (level,) = _gather(self._central_level_by_chunk(observed))
        return self._out(level.clamp(min=0))

    def _central_level_by_chunk(self, observed: Tensor) -> Iterator[tuple[Tensor]]:
        start = 0
        for distribution in self._distributions:
            base = base_of(distribution)
            rows = observed[start : start + distribution.batch_shape[1]]
            start += len(rows)
            cdf = _cdf_of(base)
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
        mean, epistemic, aleatoric = _gather(_moments(d) for d in self._distributions)
        return mean, epistemic, aleatoric


class _Columns:
    """Distributions of one column of y, from those of all."""

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
            # What it was made from: torch keeps the others of its parameters as functions of these.
            values = {n: v for n, v in vars(base).items() if n in base.arg_constraints}
            if "probs" in values and "logits" in values:
                del values["probs"]
            yield type(base)(
                **{n: v.expand(base.batch_shape)[..., self._j] for n, v in values.items()}
            )


class ClassificationPrediction(Prediction):
    """The predictive mixture of a class.

    For `Categorical` likelihoods ``probs`` has a last dimension of the K classes; for `Bernoulli`
    it is the probability of 1, in the shape of y. Entropies are in nats.
    """

    @property
    def probs(self) -> Any:
        """Probability of each class, shape (n, K), or of y = 1, shape (n, ...)."""
        return self._out(self._parts[0])

    @property
    def label(self) -> Any:
        """The most probable class, whole numbers of shape (n, ...)."""
        probs = self._parts[0]
        return self._out((probs > 0.5).long() if self._is_binary else probs.argmax(-1))

    @property
    def entropy(self) -> Any:
        """Entropy of the predictive distribution: all uncertainty, shape (n, ...)."""
        return self._out(self._parts[1])

    @property
    def expected_entropy(self) -> Any:
        """Mean over draws of the entropy: noise in y, shape (n, ...)."""
        return self._out(self._parts[2])

    @property
    def mutual_information(self) -> Any:
        """Information that the weights hold on y: doubt, ``entropy - expected_entropy >= 0``."""
        return self._out((self._parts[1] - self._parts[2]).clamp(min=0))

    @cached_property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities, their entropy, and the mean over draws of the entropy of each."""
        probs, entropy, expected = _gather(
            _class_parts(base_of(d).probs, self._is_binary) for d in self._distributions
        )
        return probs, entropy, expected

    @cached_property
    def _is_binary(self) -> bool:
        return isinstance(base_of(next(iter(self._distributions))), torch.distributions.Bernoulli)


def make_prediction(
    distributions: Iterable[Distribution], original: ArrayLike
) -> RegressionPrediction | ClassificationPrediction:
    """Give the kind of prediction that suits the distributions."""
    base = base_of(next(iter(distributions)))
    if isinstance(base, CLASSES):
        return ClassificationPrediction(distributions, original)
    return RegressionPrediction(distributions, original)


def _gather(chunks: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Join results of consecutive rows along their first dimension.

    As in `sampling.join`, small results are not left lying between large blocks that come and go,
    but nobody says how many rows there are: the memory set aside doubles when it is full.
    """
    whole: tuple[Tensor, ...] = ()
    n_rows = 0
    for parts in chunks:
        end = n_rows + len(parts[0])
        if not whole:
            whole = tuple(part.new_empty(part.shape) for part in parts)
        if end > len(whole[0]):
            size = max(end, 2 * len(whole[0]))
            larger = tuple(kept.new_empty((size, *kept.shape[1:])) for kept in whole)
            for new, kept in zip(larger, whole, strict=True):
                new[:n_rows] = kept[:n_rows]
            whole = larger
        for kept, part in zip(whole, parts, strict=True):
            kept[n_rows:end] = part
        n_rows = end
    return tuple(kept[:n_rows] for kept in whole)


def _moments(distribution: Distribution) -> tuple[Tensor, Tensor, Tensor]:
    """Give the mean of each row, and its epistemic and aleatoric variance."""
    each = distribution.mean
    mean = each.mean(0)
    epistemic = (each - mean).square_().mean(0)  # `var` takes five times as long
    return mean, epistemic, distribution.variance.mean(0).expand_as(mean)


def _class_parts(each: Tensor, binary: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Give the mean over draws of the probabilities, its entropy, and the mean of the entropies."""
    probs = each.mean(0)
    return probs, _entropy(probs, binary), _entropy(each, binary).mean(0)


def _double(value: ArrayLike) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def _entropy(probs: Tensor, binary: bool) -> Tensor:
    parts = torch.special.entr(probs)
    return parts + torch.special.entr(1 - probs) if binary else parts.sum(-1)


def _mixture_quantiles(distribution: Distribution, levels: Sequence[float]) -> Tensor:
    """Give quantiles of the equal mixture over the first dimension, shape (k, n, ...)."""
    base = base_of(distribution)
    cdf = _cdf_of(base)
    mean, sd = base.mean, base.variance.sqrt()
    found: dict[float, Tensor] = {}
    start = mean.mean(0)
    for q in sorted(levels):
        # A quantile lies within sd sqrt((1-q)/q) below and sd sqrt(q/(1-q)) above its own mean
        # (Cantelli), hence the mixture's between the lowest and the highest of these bounds.
        lower = (mean - sd * math.sqrt((1 - q) / q)).amin(0)
        upper = (mean + sd * math.sqrt(q / (1 - q))).amax(0)
        if base.support.is_discrete:
            found[q] = _integer_quantile(cdf, lower, upper, q)
        else:  # the last one is a good place to start at
            start = start.clamp(lower, upper)
            start = _root(cdf, lambda v: base.log_prob(v).exp().mean(0), lower, upper, start, q)
            found[q] = start
    return torch.stack([found[q] for q in levels])


def _root(
    cdf: Callable[[Tensor], Tensor],
    density: Callable[[Tensor], Tensor],
    lower: Tensor,
    upper: Tensor,
    value: Tensor,
    q: float,
) -> Tensor:
    """Solve cdf(value) = q by Newton's method, kept inside a bracket by bisection."""
    tolerance = max(4 * torch.finfo(value.dtype).eps, FINE_ENOUGH)
    done = torch.zeros_like(value, dtype=torch.bool)
    for iteration in range(MAX_ITERATIONS):
        excess = cdf(value) - q
        lower = torch.where(excess <= 0, value, lower)
        upper = torch.where(excess >= 0, value, upper)
        newton = value - excess / density(value)
        use_newton = (newton > lower) & (newton < upper) & (iteration < NEWTON_ITERATIONS)
        step_to = torch.where(use_newton, newton, (lower + upper) / 2)
        moved = (step_to - value).abs()
        value = torch.where(done, value, step_to)
        done |= moved <= tolerance * (value.abs() + (upper - lower))
        if bool(done.all()):
            break
    return value


def _integer_quantile(
    cdf: Callable[[Tensor], Tensor], lower: Tensor, upper: Tensor, q: float
) -> Tensor:
    """Give the smallest whole number k with cdf(k) >= q."""
    # In double precision: from 2^24 on, float32 has not all whole numbers.
    below, above = lower.double().floor().clamp(min=0) - 1, upper.double().ceil().clamp(min=0)
    while bool((above - below > 1).any()):
        middle = ((below + above) / 2).floor()
        enough = cdf(middle) >= q
        above, below = torch.where(enough, middle, above), torch.where(enough, below, middle)
    return above


def _cdf_of(base: Distribution) -> Callable[[Tensor], Tensor]:
    """Give the mixture's distribution function, or say that there is none."""
    cdf = _torch_or_scipy_cdf(base)
    try:
        cdf(base.mean)
    except NotImplementedError:
        raise NotImplementedError(
            f"{type(base).__name__} has no distribution function here: take the quantiles of "
            "prediction.sample()."
        ) from None
    return cdf


def _torch_or_scipy_cdf(base: Distribution) -> Callable[[Tensor], Tensor]:
    from scipy import special

    def by_scipy(function: Callable[..., Any], *arguments: Tensor) -> Tensor:
        arrays = [argument.detach().cpu().double().numpy() for argument in arguments]
        return torch.as_tensor(function(*arrays)).to(arguments[-1].device).mean(0)

    match base:
        case torch.distributions.StudentT():
            return lambda v: by_scipy(special.stdtr, base.df, (v - base.loc) / base.scale)
        case torch.distributions.Poisson():
            return lambda k: by_scipy(special.pdtr, k.clamp(min=0), base.rate) * (k >= 0)
        case torch.distributions.NegativeBinomial():
            return lambda k: (
                by_scipy(special.betainc, base.total_count, k.clamp(min=0) + 1, 1 - base.probs)
                * (k >= 0)
            )
        case _:
            return lambda v: base.cdf(v).mean(0)
