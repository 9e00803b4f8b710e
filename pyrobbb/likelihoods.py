"""Observation models: callables that map the network's output to the distribution of y.

A likelihood is any callable ``output -> distribution``. It receives the output of a whole batch and
returns one distribution per row; `BayesianNetwork` declares the remaining dimensions as event
dimensions. It may draw latent Pyro sites; the classes here list them in `latents`, by name.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from ._core.arrays import check_number, check_positive

Likelihood = Callable[[Tensor], TorchDistribution]

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
"""Negative log-density of a standard normal distribution at its mean."""

__all__ = [
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "HeteroscedasticGaussian",
    "Likelihood",
    "LogNormal",
    "NegativeBinomial",
    "Poisson",
    "StudentT",
]

NO_LATENTS: Mapping[str, TorchDistribution] = MappingProxyType({})
SCALE_FLOOR = 1e-4  # keeps a predicted scale away from 0, where the density is unbounded


class Conditional(ABC):
    """A likelihood that returns the distribution of y given values of its latent sites."""

    hint: ClassVar[str]

    @property
    def latents(self) -> Mapping[str, TorchDistribution]:
        """The latent sites and their priors, in the order in which they are drawn."""
        return NO_LATENTS

    @abstractmethod
    def given(self, output: Tensor, latents: Mapping[str, Tensor]) -> TorchDistribution:
        """Return the distribution of y for latent values that broadcast against the output."""

    def __call__(self, output: Tensor) -> TorchDistribution:
        """Return the distribution of y, with latent sites drawn from their priors by Pyro."""
        drawn = {site: _draw(site, prior, output) for site, prior in self.latents.items()}
        return self.given(output, drawn)


class _LearnedNoise(Conditional):
    """A likelihood with noise of a scale that is given, or learned as ``"noise_scale"``."""

    scale_by_column: ClassVar[bool] = False
    """Whether a given scale may be a tuple: one for each output column."""

    scale: float | tuple[float, ...] | None
    noise_median: float | tuple[float, ...]
    noise_log_sd: float

    def __post_init__(self) -> None:
        by_column = {"noise_median": True, "noise_log_sd": False}
        if self.scale is not None:
            by_column["scale"] = self.scale_by_column
        for name, may_be_tuple in by_column.items():
            value: Any = getattr(self, name)
            for number in value if may_be_tuple and isinstance(value, tuple) else (value,):
                check_positive(name, number)

    @property
    def latents(self) -> Mapping[str, TorchDistribution]:
        if self.scale is not None:
            return NO_LATENTS
        return {"noise_scale": _log_normal(self.noise_median, self.noise_log_sd)}


@dataclass(frozen=True)
class Gaussian(_LearnedNoise):
    """Normal noise of constant scale around the network's output.

    Parameters
    ----------
    scale : float, tuple of float, or None
        Standard deviation of the noise; a tuple: one for each output column. None: it is learned,
        as the latent site ``"noise_scale"`` with the prior
        LogNormal(log noise_median, noise_log_sd).
    noise_median : float or tuple of float
        Prior median of the learned scale, in the units of y. A tuple: one noise scale for each
        output column.
    noise_log_sd : float
        Prior standard deviation of the logarithm of the learned scale.
    """

    scale: float | tuple[float, ...] | None = None
    noise_median: float | tuple[float, ...] = 0.5
    noise_log_sd: float = 1.0

    scale_by_column: ClassVar[bool] = True
    hint: ClassVar[str] = "y must be real numbers in the shape of the network's output"

    def given(self, output: Tensor, latents: Mapping[str, Tensor]) -> TorchDistribution:
        return dist.Normal(output, _fixed_or(latents, "noise_scale", self.scale, output))


@dataclass(frozen=True)
class HeteroscedasticGaussian(Conditional):
    """Normal noise whose scale the network predicts for each input.

    The last dimension of the output holds the means, then as many raw scales; the standard
    deviation is softplus(raw) + 1e-4, in the units of y. For y of shape (n, 1) the network ends in
    2 units.
    """

    hint: ClassVar[str] = (
        "the network must end in twice as many units as y has columns: means, then raw scales"
    )

    def given(self, output: Tensor, latents: Mapping[str, Tensor]) -> TorchDistribution:
        if output.shape[-1] % 2:
            raise ValueError(
                "`HeteroscedasticGaussian` needs an even number of output units, means and raw "
                f"scales, got {output.shape[-1]}: end the network in twice as many units as y has "
                "columns."
            )
        loc, raw_scale = output.chunk(2, dim=-1)
        return dist.Normal(loc, nn.functional.softplus(raw_scale) + SCALE_FLOOR)


@dataclass(frozen=True)
class LogNormal(_LearnedNoise):
    """Positive numbers: the network's output is the mean of log y, whose noise is normal.

    The median of y is exp(output), its mean exp(output + scale**2 / 2).

    Parameters
    ----------
    scale, noise_median, noise_log_sd
        As for `Gaussian`, of log y.
    """

    scale: float | None = None
    noise_median: float | tuple[float, ...] = 0.5
    noise_log_sd: float = 1.0

    hint: ClassVar[str] = "y must be positive numbers in the shape of the network's output"

    def given(self, output: Tensor, latents: Mapping[str, Tensor]) -> TorchDistribution:
        return dist.LogNormal(output, _fixed_or(latents, "noise_scale", self.scale, output))


@dataclass(frozen=True)
class StudentT(_LearnedNoise):
    """Student t noise around the network's output, for regression robust to outliers.

    Parameters
    ----------
    df : float
        Degrees of freedom, above 2 so that the variance of the noise is finite.
    scale, noise_median, noise_log_sd
        As for `Gaussian`; the scale of the t distribution, not its standard deviation.
    """

    df: float = 4.0
    scale: float | None = None
    noise_median: float | tuple[float, ...] = 0.5
    noise_log_sd: float = 1.0

    hint: ClassVar[str] = "y must be real numbers in the shape of the network's output"

    def __post_init__(self) -> None:
        check_number("df", self.df)
        if self.df <= 2:
            raise ValueError(
                f"`df` must be above 2, so that the noise has a variance, got {self.df}."
            )
        super().__post_init__()

    def given(self, output: Tensor, latents: Mapping[str, Tensor]) -> TorchDistribution:
        return dist.StudentT(
            output.new_tensor(self.df),
            output,
            _fixed_or(latents, "noise_scale", self.scale, output),
        )


@dataclass(frozen=True)
class Bernoulli(Conditional):
    """Two classes: the output is the log-odds of y = 1, and y is 0 or 1 in the same shape."""

    hint: ClassVar[str] = "y must be 0 or 1 in the shape of the network's output"

    def given(self, output: Tensor, latents: Mapping[str, Tensor]) -> TorchDistribution:
        return dist.Bernoulli(logits=output)


@dataclass(frozen=True)
class Categorical(Conditional):
    """K classes: the network ends in K logits, and y holds integers 0 .. K-1, shape (n,)."""

    hint: ClassVar[str] = (
        "y must hold class labels 0 .. K-1 in the shape of the output without its last dimension, "
        "which is the K classes"
    )

    def given(self, output: Tensor, latents: Mapping[str, Tensor]) -> TorchDistribution:
        return dist.Categorical(logits=output)


@dataclass(frozen=True)
class Poisson(Conditional):
    """Counts: the network's output is the log of the expected count."""

    hint: ClassVar[str] = "y must hold counts 0, 1, 2, ... in the shape of the network's output"

    def given(self, output: Tensor, latents: Mapping[str, Tensor]) -> TorchDistribution:
        return dist.Poisson(output.exp())


@dataclass(frozen=True)
class NegativeBinomial(Conditional):
    """Overdispersed counts: the network's output is the log of the expected count m.

    The variance is m + m**2 / total_count.

    Parameters
    ----------
    total_count : float or None
        Inverse dispersion, positive. None: it is learned, as the latent site ``"total_count"``
        with the prior LogNormal(log 10, 1.5).
    """

    total_count: float | None = None

    hint: ClassVar[str] = "y must hold counts 0, 1, 2, ... in the shape of the network's output"

    def __post_init__(self) -> None:
        if self.total_count is not None:
            check_positive("total_count", self.total_count)

    @property
    def latents(self) -> Mapping[str, TorchDistribution]:
        return (
            NO_LATENTS if self.total_count is not None else {"total_count": _log_normal(10.0, 1.5)}
        )

    def given(self, output: Tensor, latents: Mapping[str, Tensor]) -> TorchDistribution:
        total_count = _fixed_or(latents, "total_count", self.total_count, output)
        return dist.NegativeBinomial(total_count, logits=output - total_count.log())


def base_of(distribution: TorchDistribution) -> TorchDistribution:
    """Return the base distribution, without event dimensions declared by `to_event`."""
    while isinstance(distribution, torch.distributions.Independent):
        distribution = distribution.base_dist
    return distribution


def log_density(distribution: TorchDistribution, values: Tensor) -> Tensor:
    """Compute the log-density of values, summed over all dimensions but the first, in float64.

    A sum over many thousands of weights would be inaccurate in float32.
    """
    base = base_of(distribution)
    # A low-rank normal multiplies values by its factors, which must have the same dtype.
    is_mixable = not isinstance(base, torch.distributions.LowRankMultivariateNormal)
    parts = base.log_prob(values.double() if values.is_floating_point() and is_mixable else values)
    return parts.double().reshape((len(values), -1)).sum(-1)


def as_observed(distribution: TorchDistribution, y: Tensor, dtype: torch.dtype) -> Tensor:
    """Return observations in the dtype that the distribution's `log_prob` expects."""
    is_label = isinstance(base_of(distribution), torch.distributions.Categorical)
    return y.long() if is_label else y.to(dtype)


def check_output(likelihood: Likelihood, net: nn.Module, output: Tensor) -> None:
    """Raise a ValueError if the network's output is unsuitable for the likelihood.

    `Categorical` and `Bernoulli` take logits, not probabilities; `Categorical` needs a unit for
    each class.

    Parameters
    ----------
    output : Tensor of shape (n, ...)
        The output of `net` for some rows of data.
    """
    if isinstance(likelihood, Categorical):
        sums_to_one = torch.allclose(output.sum(-1), output.new_ones(()), atol=1e-3)
        if output.shape[-1] > 1 and bool((output >= 0).all()) and sums_to_one:
            raise ValueError(
                "`Categorical` takes logits, but the network's outputs are probabilities (each "
                "row sums to 1): remove the network's final softmax."
            )
        if output.shape[-1] == 1:
            raise ValueError(
                "`Categorical` needs one output unit per class, got 1 unit: use `Bernoulli` for "
                "two classes, or end the network in K units."
            )
    if isinstance(likelihood, Bernoulli) and isinstance(_last_module(net), nn.Sigmoid):
        raise ValueError(
            "`Bernoulli` takes log-odds, but the network ends in a sigmoid: remove the network's "
            "final nn.Sigmoid."
        )


def check_support(likelihood: Likelihood, distribution: TorchDistribution, y: Tensor) -> None:
    """Raise a ValueError if y holds values outside the support of the likelihood."""
    base = base_of(distribution)
    try:
        is_valid = base.support.check(y)
    except (NotImplementedError, RuntimeError):  # bounds differ by row; log_prob checks them
        return
    if not bool(is_valid.all()):
        first = torch.nonzero(~is_valid.reshape(len(y), -1).all(-1))[0].item()
        values = y.reshape(len(y), -1)[int(first)].tolist()
        classes = (
            f" (0 .. {base.logits.shape[-1] - 1})" if isinstance(base, dist.Categorical) else ""
        )
        raise ValueError(
            f"`y` holds values outside the likelihood's support{classes}, the first in row "
            f"{first}: {values[0] if len(values) == 1 else values}. {_hint(likelihood)}"
        )


def check_shape(likelihood: Likelihood, expected: tuple[int, ...], y: Tensor) -> None:
    """Raise a ValueError unless y has exactly the shape that the likelihood expects.

    Broadcasting would silently pair every row of y with every row of the output: (n,) with (n, 1)
    makes (n, n).
    """
    if tuple(y.shape) == tuple(expected):
        return
    if tuple(expected) == (*y.shape, 1):
        fix = "Pass y.reshape(-1, 1)." if y.dim() == 1 else "Pass y[..., None]."
    elif tuple(y.shape) == (*expected, 1):
        fix = "Pass y[..., 0]."
    else:
        fix = _hint(likelihood)
    raise ValueError(
        f"`y` has shape {tuple(y.shape)}, but with this network and likelihood it must have shape "
        f"{tuple(expected)}. {fix}"
    )


def _last_module(net: nn.Module) -> nn.Module:
    children = list(net.children())
    return _last_module(children[-1]) if children else net


def _hint(likelihood: Likelihood) -> str:
    hint = getattr(likelihood, "hint", None)
    return f"For `{type(likelihood).__name__}`, {hint}." if hint else ""


def _log_normal(median: float | tuple[float, ...], log_sd: float) -> TorchDistribution:
    loc = torch.as_tensor(median, dtype=torch.float64).log()
    return dist.LogNormal(loc, torch.full_like(loc, log_sd)).to_event(loc.dim())


def _fixed_or(
    latents: Mapping[str, Tensor],
    site: str,
    fixed: float | tuple[float, ...] | None,
    output: Tensor,
) -> Tensor:
    """Return a parameter of the likelihood: its fixed value, or that of a latent site."""
    if isinstance(fixed, tuple) and len(fixed) != output.shape[-1]:
        raise ValueError(
            f"`scale` must have one value per column of y, got {len(fixed)} values for a network "
            f"that ends in {output.shape[-1]} unit(s)."
        )
    return latents[site] if fixed is None else output.new_tensor(fixed)


def _draw(site: str, prior: TorchDistribution, output: Tensor) -> Tensor:
    if prior.event_dim and prior.event_shape[-1] != output.shape[-1]:
        raise ValueError(
            f"`noise_median` must have one value per column of y, got {prior.event_shape[-1]} "
            f"values for a network that ends in {output.shape[-1]} unit(s)."
        )
    base = base_of(prior)
    converted = dist.LogNormal(base.loc.to(output), base.scale.to(output))
    return pyro.sample(site, converted.to_event(prior.event_dim))
