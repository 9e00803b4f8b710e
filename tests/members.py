"""The priors, likelihoods and guides of the exam, each with its density by torch.distributions.

To test a new member, add one entry to `PRIORS`, `LIKELIHOODS` or `GUIDES`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import distributions as td
from torch.nn.functional import softplus

from pyrobbb import MeanFieldGuide, auto_normal, likelihoods, priors


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def normal(loc, scale):
    return td.Normal(number(loc), number(scale))


def mixture(pi, *scales):
    return td.MixtureSameFamily(td.Categorical(number([pi, 1 - pi])), normal([0.0, 0.0], scales))


def given(name, parameter):
    """Return a prior with another mean and scale for each input of a unit."""
    loc = torch.linspace(-1, 1, priors.fan_in(parameter)).to(parameter).expand(parameter.shape)
    return priors.Given({name: loc}, {name: loc.exp()})(name, parameter)


def given_density(name, fan_in):
    loc = torch.linspace(-1, 1, fan_in).double()
    return td.Normal(loc, loc.exp())


def around(name, parameter):
    """Return a prior around other weights for each input of a unit."""
    loc = torch.linspace(-1, 1.5, priors.fan_in(parameter)).to(parameter).expand(parameter.shape)
    return priors.Around({name: loc}, 0.4, relative=True)(name, parameter)


def around_density(name, fan_in):
    loc = torch.linspace(-1, 1.5, fan_in).double()
    return td.Normal(loc, 0.4 * loc.abs())


# By name: the prior, and the density of each element of a parameter, given the parameter's name and
# the number of inputs of a unit; None for a point parameter.
PRIORS = {
    "Normal": (priors.Normal(0.7, 0.1), lambda name, fan_in: normal(0.1, 0.7)),
    "FanInNormal": (priors.FanInNormal(2), lambda name, fan_in: normal(0.0, 2 * fan_in**-0.5)),
    "ScaleMixture": (priors.ScaleMixture(0.3, 1, 0.1), lambda name, fan_in: mixture(0.3, 1, 0.1)),
    "Laplace": (priors.Laplace(0.5), lambda name, fan_in: td.Laplace(number(0.0), number(0.5))),
    "StudentT": (priors.StudentT(3, 0.5), lambda name, fan_in: td.StudentT(3, 0, number(0.5))),
    "Given": (given, given_density),
    "Around": (around, around_density),
    "ByName": (
        priors.ByName({"*.bias": None}, default=priors.Normal(2)),
        lambda name, fan_in: None if name.endswith("bias") else normal(0.0, 2.0),
    ),
}


class Member(NamedTuple):
    """A likelihood, and what it should compute.

    Attributes
    ----------
    likelihood : callable
    n_units : int
        Units of the network's output.
    y : Distribution
        Distribution to draw the rows of y from.
    density : callable
        Distribution of y, given the output and the latent.
    latent : tuple, optional
        Medians and log-sd of the log-normal prior of the latent.
    """

    likelihood: Callable
    n_units: int
    y: td.Distribution
    density: Callable
    latent: tuple | None = None


REALS = normal([0.0, 0.0], [1.0, 1.0])
BITS = td.Bernoulli(number([0.4, 0.4]))
COUNTS = td.Poisson(number([2.0, 2.0]))
LABELS = td.Categorical(number([1.0, 1.0, 1.0]))


def negative_binomial(output, r):
    return td.NegativeBinomial(r, probs=output.exp() / (output.exp() + r))


LIKELIHOODS = {
    "Gaussian": Member(likelihoods.Gaussian(0.3), 2, REALS, lambda o, z: td.Normal(o, 0.3)),
    "Gaussian, noise learnt": Member(
        likelihoods.Gaussian(), 2, REALS, lambda o, z: td.Normal(o, z), (0.5, 1.0)
    ),
    "Gaussian, noise of each output learnt": Member(
        likelihoods.Gaussian(noise_median=(0.3, 2.0), noise_log_sd=0.25),
        2,
        REALS,
        lambda o, z: td.Normal(o, z),
        ((0.3, 2.0), 0.25),
    ),
    "HeteroscedasticGaussian": Member(
        likelihoods.HeteroscedasticGaussian(),
        4,
        REALS,
        lambda o, z: td.Normal(o[:, :2], softplus(o[:, 2:]) + 1e-4),
    ),
    "StudentT": Member(likelihoods.StudentT(4, 0.3), 2, REALS, lambda o, z: td.StudentT(4, o, 0.3)),
    "StudentT, noise learnt": Member(
        likelihoods.StudentT(), 2, REALS, lambda o, z: td.StudentT(4, o, z), (0.5, 1.0)
    ),
    "Bernoulli": Member(
        likelihoods.Bernoulli(), 2, BITS, lambda o, z: td.Bernoulli(1 / (1 + (-o).exp()))
    ),
    "Categorical": Member(
        likelihoods.Categorical(), 3, LABELS, lambda o, z: td.Categorical(o.softmax(-1))
    ),
    "Poisson": Member(likelihoods.Poisson(), 2, COUNTS, lambda o, z: td.Poisson(o.exp())),
    "NegativeBinomial": Member(
        likelihoods.NegativeBinomial(3), 2, COUNTS, lambda o, z: negative_binomial(o, 3)
    ),
    "NegativeBinomial, dispersion learnt": Member(
        likelihoods.NegativeBinomial(), 2, COUNTS, negative_binomial, (10.0, 1.5)
    ),
}


def mean_field_site(guide, name):
    return td.Normal(guide.split(guide.loc)[name], softplus(guide.split(guide.rho)[name]))


def auto_normal_site(guide, name):
    loc, rho = (tree.get_parameter(f"{name}_unconstrained") for tree in (guide.locs, guide.scales))
    return td.Normal(loc, softplus(rho))


# By name: the guide's constructor, and the density of a site's elements in unconstrained space.
GUIDES = {
    "MeanFieldGuide": (MeanFieldGuide, mean_field_site),
    "auto_normal": (auto_normal, auto_normal_site),
}
