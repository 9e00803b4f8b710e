"""Priors with a given mean and scale for each weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from .._core.messages import shown


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
