"""Priors over weights: callables that map a parameter's name and value to its distribution.

A prior is any callable ``(name, parameter) -> distribution`` whose event has the shape of the
parameter, or None for a parameter that has a point value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from ._core.arrays import check_number, check_positive
from ._core.messages import shown
from .prior_around import Around

Prior = Callable[[str, Tensor], TorchDistribution | None]

__all__ = [
    "Around",
    "ByName",
    "FanInNormal",
    "Given",
    "Laplace",
    "Normal",
    "Prior",
    "ScaleMixture",
    "ScaleMixtureNormal",
    "StudentT",
    "fan_in",
]


def fan_in(parameter: Tensor) -> int:
    """Return the number of inputs to one unit: all dimensions but the first; 1 for a vector."""
    return math.prod(parameter.shape[1:]) if parameter.dim() > 1 else 1


@dataclass(frozen=True)
class Normal:
    """Independent normal priors, identical for all weights.

    Parameters
    ----------
    scale : float
        Standard deviation, positive.
    loc : float
        Mean.
    """

    scale: float = 1.0
    loc: float = 0.0

    def __post_init__(self) -> None:
        check_positive("scale", self.scale)
        check_number("loc", self.loc)

    def __call__(self, name: str, parameter: Tensor) -> TorchDistribution:
        return _over(parameter, dist.Normal, self.loc, self.scale)


@dataclass(frozen=True)
class FanInNormal:
    """Normal priors under which the scale of a layer's output does not depend on its width.

    The standard deviation is ``gain / sqrt(fan_in)`` for weights and ``gain`` for vectors
    (biases). In the limit of infinite width, the network is a Gaussian process (Neal 1996).

    Parameters
    ----------
    gain : float
        Positive.
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        check_positive("gain", self.gain)

    def __call__(self, name: str, parameter: Tensor) -> TorchDistribution:
        return _over(parameter, dist.Normal, 0.0, self.gain / math.sqrt(fan_in(parameter)))


@dataclass(frozen=True)
class ScaleMixture:
    """Mixture of two normal distributions centred at 0, identical for all weights.

    Parameters
    ----------
    pi : float
        Weight of the first component, in (0, 1).
    scale1, scale2 : float
        Standard deviations of the two components.

    References
    ----------
    Blundell et al. (2015), equation 7.
    """

    pi: float = 0.5
    scale1: float = 1.0
    scale2: float = 0.0025

    def __post_init__(self) -> None:
        check_number("pi", self.pi)
        if not 0 < self.pi < 1:
            raise ValueError(f"`pi` must be strictly between 0 and 1, got {self.pi}.")
        check_positive("scale1", self.scale1)
        check_positive("scale2", self.scale2)

    def __call__(self, name: str, parameter: Tensor) -> TorchDistribution:
        return _over(parameter, ScaleMixtureNormal, self.pi, self.scale1, self.scale2)


@dataclass(frozen=True, eq=False)
class Given:
    """Independent normal priors with a given mean and standard deviation for each weight.

    They turn the posterior of one fit into the prior of the next, to learn sequentially from data
    that arrive in batches. Latent sites of the likelihood (such as a noise scale) keep
    their prior.

    Parameters
    ----------
    loc, scale : mapping of str to Tensor
        Means and standard deviations of the parameters, by name. They are copied. Other names,
        such as those of a likelihood's latent sites, are ignored.

    References
    ----------
    Broderick et al. (2013), "Streaming variational Bayes".

    Examples
    --------
    >>> guide = posterior.guide
    >>> prior = Given(guide.split(guide.loc), guide.split(guide.scale))
    """

    loc: Mapping[str, Tensor]
    scale: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for argument in ("loc", "scale"):
            values = getattr(self, argument)
            if not isinstance(values, Mapping) or not all(
                isinstance(value, Tensor) for value in values.values()
            ):
                raise TypeError(
                    f"`{argument}` must map the names of parameters to tensors, got "
                    f"{shown(values)}."
                )
            copies = {name: value.detach().clone() for name, value in values.items()}
            object.__setattr__(self, argument, copies)
            for name, value in copies.items():
                if not bool(value.isfinite().all()):
                    raise ValueError(
                        f"`{argument}` must be finite, got NaN or infinity for {name!r}."
                    )
        if self.loc.keys() != self.scale.keys():
            unmatched = sorted(self.loc.keys() ^ self.scale.keys())
            raise ValueError(
                f"`loc` and `scale` must have the same names, but only one has {unmatched[0]!r}."
            )
        for name, value in self.scale.items():
            if bool((value <= 0).any()):
                raise ValueError(
                    f"`scale` must be positive, got {float(value.min())} for {name!r}."
                )

    def __call__(self, name: str, parameter: Tensor) -> TorchDistribution:
        if name not in self.loc:
            raise ValueError(
                f"`loc` and `scale` must have values for the parameter {name!r}, got values for "
                f"{', '.join(self.loc) or 'none'}."
            )
        for argument, values in (("loc", self.loc), ("scale", self.scale)):
            if values[name].shape != parameter.shape:
                raise ValueError(
                    f"`{argument}` of {name!r} must have the parameter's shape "
                    f"{tuple(parameter.shape)}, got {tuple(values[name].shape)}."
                )
        loc, scale = self.loc[name].to(parameter), self.scale[name].to(parameter)
        return dist.Normal(loc, scale).to_event(parameter.dim())

    def __repr__(self) -> str:
        return f"Given({', '.join(self.loc)})"


@dataclass(frozen=True)
class Laplace:
    """Independent Laplace priors (the Bayesian lasso).

    Parameters
    ----------
    scale : float
        Scale b of the density exp(-|w| / b) / (2 b); the standard deviation is sqrt(2) b.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        check_positive("scale", self.scale)

    def __call__(self, name: str, parameter: Tensor) -> TorchDistribution:
        return _over(parameter, dist.Laplace, 0.0, self.scale)


@dataclass(frozen=True)
class StudentT:
    """Independent Student t priors, which have heavy tails.

    Parameters
    ----------
    df : float
        Degrees of freedom, positive. The variance is finite if it is above 2.
    scale : float
        Scale, positive.
    """

    df: float = 3.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_positive("df", self.df)
        check_positive("scale", self.scale)

    def __call__(self, name: str, parameter: Tensor) -> TorchDistribution:
        return _over(parameter, dist.StudentT, self.df, 0.0, self.scale)


@dataclass(frozen=True)
class ByName:
    """A prior that depends on the parameter's name.

    Parameters
    ----------
    patterns : mapping of str to prior or None
        Shell patterns as in `fnmatch`, matched in order against names such as ``"0.weight"``; the
        first match is used. None: the parameter has a point value.
    default : prior or None
        The prior if no pattern matches.

    Examples
    --------
    >>> ByName({"*.bias": Normal(1.0), "bn*": None}, default=FanInNormal())
    """

    patterns: Mapping[str, Prior | None]
    default: Prior | None = field(default_factory=FanInNormal)

    def __post_init__(self) -> None:
        if not isinstance(self.patterns, Mapping):
            raise TypeError(
                "`patterns` must map name patterns to priors, got "
                f"{type(self.patterns).__name__}: write ByName({{'*.bias': Normal(1.0)}})."
            )
        for pattern, prior in [*self.patterns.items(), ("default", self.default)]:
            if prior is not None and not callable(prior):
                raise TypeError(
                    f"The prior of {pattern!r} must be a callable (name, parameter) -> "
                    f"distribution, or None, got {shown(prior)}."
                )

    def __call__(self, name: str, parameter: Tensor) -> TorchDistribution | None:
        prior = self.choice(name)
        return None if prior is None else prior(name, parameter)

    def choice(self, name: str) -> Prior | None:
        """Return the prior of the parameter with the given name."""
        for pattern, prior in self.patterns.items():
            if fnmatchcase(name, pattern):
                return prior
        return self.default

    def check_names(self, names: Iterable[str]) -> None:
        """Raise a ValueError if a pattern is the first to match none of the parameter names."""
        names = list(names)
        undecided = names
        for pattern in self.patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ValueError(
                    f"`patterns`: {pattern!r} matches no parameter. The parameters are: "
                    f"{', '.join(names)}."
                )
            decided = [name for name in undecided if fnmatchcase(name, pattern)]
            if not decided:
                raise ValueError(
                    f"`patterns`: {pattern!r} never decides, because earlier patterns match all of "
                    "its parameters: put it before them."
                )
            undecided = [name for name in undecided if name not in decided]
        for prior in (*self.patterns.values(), self.default):
            if isinstance(prior, ByName):
                prior.check_names(name for name in names if self.choice(name) is prior)


class ScaleMixtureNormal(TorchDistribution):
    """Mixture of two normal distributions centred at 0.

    The log-density uses logaddexp, so that it is finite where both densities underflow.

    Parameters
    ----------
    pi, scale1, scale2 : Tensor
        Weight of the first component and the two standard deviations, broadcast against each
        other.
    """

    arg_constraints: ClassVar = {
        "pi": constraints.unit_interval,
        "scale1": constraints.positive,
        "scale2": constraints.positive,
    }
    support = constraints.real

    def __init__(
        self, pi: Tensor, scale1: Tensor, scale2: Tensor, *, validate_args: bool | None = None
    ) -> None:
        self.pi, self.scale1, self.scale2 = torch.broadcast_tensors(pi, scale1, scale2)
        super().__init__(self.pi.shape, validate_args=validate_args)

    def expand(
        self, batch_shape: torch.Size, _instance: ScaleMixtureNormal | None = None
    ) -> ScaleMixtureNormal:
        new = self._get_checked_instance(ScaleMixtureNormal, _instance)
        for name in ("pi", "scale1", "scale2"):
            setattr(new, name, getattr(self, name).expand(batch_shape))
        super(ScaleMixtureNormal, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        return torch.zeros_like(self.scale1)

    @property
    def variance(self) -> Tensor:
        return self.pi * self.scale1**2 + (1 - self.pi) * self.scale2**2

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        shape = self._extended_shape(sample_shape)
        with torch.no_grad():
            first = torch.rand(shape, dtype=self.pi.dtype, device=self.pi.device) < self.pi
            scale = torch.where(first, self.scale1, self.scale2)
            return scale * torch.randn(shape, dtype=scale.dtype, device=scale.device)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        first = self.pi.log() - self.scale1.log() - 0.5 * (value / self.scale1) ** 2
        second = (-self.pi).log1p() - self.scale2.log() - 0.5 * (value / self.scale2) ** 2
        return torch.logaddexp(first, second) - 0.5 * math.log(2 * math.pi)


def _over(
    parameter: Tensor, family: type[TorchDistribution], *arguments: float
) -> TorchDistribution:
    """Return a distribution over a whole parameter, on its device and in its dtype."""
    tensors = [parameter.new_tensor(argument) for argument in arguments]
    return family(*tensors).expand(parameter.shape).to_event(parameter.dim())
