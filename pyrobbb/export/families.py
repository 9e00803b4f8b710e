"""Families: what an exported prediction computes from the distributions of y under each draw."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from .mixture_quantiles import location_scale_quantiles
from .standard_distributions import StandardDistribution, standard_normal, student_t
from .units import Units

Outputs = dict[str, Tensor]


class Family(ABC):
    """Computes the outputs of an exported prediction, by their names in a `Prediction`."""

    @abstractmethod
    def outputs(self, base: Distribution, units: Units, levels: Sequence[float]) -> Outputs:
        """Return the outputs for distributions of batch shape (n_draws, n, ...).

        Parameters
        ----------
        base : Distribution
        units : Units
        levels : sequence of float
            Corrected probabilities of the quantiles.
        """


class Classes(Family):
    """Classes: probabilities, the most probable class, and entropies."""

    def outputs(self, base: Any, units: Units, levels: Sequence[float]) -> Outputs:
        """Return probabilities, labels and entropies."""
        by_draw = base.probs.double()
        is_binary = isinstance(base, torch.distributions.Bernoulli)
        probs = mean = by_draw.mean(0)
        if units.temperature == 1:
            expected = _entropy(by_draw, is_binary).mean(0)
        else:  # as in `ClassificationPrediction.tempered`
            probs = torch.softmax(_log(mean) / units.temperature, -1)
            joint = by_draw * (probs / mean.clamp(min=torch.finfo(torch.float64).tiny))
            total = joint.sum(-1)
            expected = (_entropy(joint, False) + total * _log(total)).mean(0)
        entropy = _entropy(probs, is_binary)
        return {
            "probs": probs,
            "label": (probs > 0.5).long() if is_binary else probs.argmax(-1),
            "entropy": entropy,
            "expected_entropy": expected,
            "mutual_information": (entropy - expected).clamp(min=0),
        }


class Numbers(Family):
    """Numbers: moments, from those of each distribution."""

    def outputs(self, base: Any, units: Units, levels: Sequence[float]) -> Outputs:
        """Return moments and quantiles."""
        means, variances = self._moments(base, units)
        scale = units.scale if units.log_bounds is None else torch.ones_like(units.scale)
        loc = units.loc if units.log_bounds is None else torch.zeros_like(units.loc)
        mean = means.mean(0)
        epistemic = (means - mean).square().mean(0)
        aleatoric = variances.mean(0).expand_as(mean)
        outputs = {
            "mean": loc + scale * mean,
            "sd": scale * (epistemic + aleatoric).sqrt(),
            "epistemic_sd": scale * epistemic.sqrt(),
            "aleatoric_sd": scale * aleatoric.sqrt(),
        }
        if levels:
            outputs["quantiles"] = self._quantiles(base, units, levels)
        if units.is_column:
            return {name: value.squeeze(-1) for name, value in outputs.items()}
        return outputs

    def _moments(self, base: Any, units: Units) -> tuple[Tensor, Tensor]:
        mean, variance = base.mean.double(), base.variance.double()
        return mean, variance

    def _quantiles(self, base: Any, units: Units, levels: Sequence[float]) -> Tensor:
        raise NotImplementedError


class LocationScale(Numbers):
    """Numbers with a distribution of location and scale."""

    def __init__(self, standard: StandardDistribution, variance: float) -> None:
        self._standard, self._variance = standard, variance

    def _moments(self, base: Any, units: Units) -> tuple[Tensor, Tensor]:
        return base.loc.double(), self._variance * base.scale.double().square()

    def _quantiles(self, base: Any, units: Units, levels: Sequence[float]) -> Tensor:
        loc, scale = base.loc.double(), base.scale.double()
        quantiles = location_scale_quantiles(self._standard, loc, scale, levels)
        return units.loc + units.scale * quantiles


class LogNormals(Numbers):
    """Positive numbers whose logarithm is normal."""

    def __init__(self, standard: StandardDistribution) -> None:
        self._standard = standard

    def _moments(self, base: Any, units: Units) -> tuple[Tensor, Tensor]:
        loc, scale = self._parameters(base, units)
        variance = scale.square()
        mean = (loc + variance / 2).exp()
        return mean, mean.square() * torch.expm1(variance)

    def _quantiles(self, base: Any, units: Units, levels: Sequence[float]) -> Tensor:
        loc, scale = self._parameters(base, units)
        quantiles = location_scale_quantiles(self._standard, loc, scale, levels).exp()
        return quantiles if units.log_bounds is not None else units.loc + units.scale * quantiles

    def _parameters(self, base: Any, units: Units) -> tuple[Tensor, Tensor]:
        loc, scale = base.loc.double(), base.scale.double()
        if units.log_bounds is None:
            return loc, scale
        lower, upper = units.log_bounds
        # The optimizer of onnxscript 0.7 makes an invalid graph of minimum(maximum(...)).
        bounded = torch.where(loc < lower, lower, torch.where(loc > upper, upper, loc))
        return units.loc + units.scale * bounded, units.scale * scale


def family_of(base: Distribution, levels: Sequence[float], *, fitted: bool) -> Family:
    """Return the family of the distributions of y, or raise if it cannot be exported.

    Parameters
    ----------
    base : Distribution
        For some rows.
    levels : sequence of float
        Probabilities of quantiles, if there are any.
    fitted : bool
        Whether distribution functions must consist of elementary functions.

    Raises
    ------
    ValueError
        If no formula is known.
    """
    kind = type(base).__name__
    match base:
        case torch.distributions.Categorical() | torch.distributions.Bernoulli():
            return Classes()
        case torch.distributions.LogNormal():
            return LogNormals(standard_normal(fitted=fitted))
        case torch.distributions.Normal():
            return LocationScale(standard_normal(fitted=fitted), 1.0)
        case torch.distributions.StudentT():
            df = base.df.double().unique()
            if len(df) == 1 and df.item() > 2:
                try:
                    return LocationScale(student_t(df.item()), df.item() / (df.item() - 2))
                except NotImplementedError:
                    kind += f" with {df.item():g} degrees of freedom"
    try:
        base.mean, base.variance  # noqa: B018
    except NotImplementedError:
        raise ValueError(
            f"`likelihood` returns the distribution {kind}, of whose mean and variance torch has "
            "no formula: it cannot be exported."
        ) from None
    if levels:
        raise ValueError(
            f"`quantiles` of the distribution {kind} cannot be exported: pass quantiles=()."
        )
    return Numbers()


def _log(probs: Tensor) -> Tensor:
    """Return finite logarithms of probabilities, also of those that are 0 after rounding."""
    return probs.clamp(min=torch.finfo(torch.float64).tiny).log()


def _entropy(probs: Tensor, is_binary: bool) -> Tensor:
    parts = -probs * _log(probs)
    return parts - (1 - probs) * _log(1 - probs) if is_binary else parts.sum(-1)
