"""The priors, likelihoods and guides of the exam, each with its density by torch.distributions.

To test a new member, add one entry to `PRIORS`, `LIKELIHOODS` or `GUIDES`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import distributions as td
from torch.nn.functional import softplus

from pyrobbb import LowRankGuide, MeanFieldGuide, auto_normal, likelihoods, priors


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


class PriorMember(NamedTuple):
    """A prior, and what it should compute.

    Attributes
    ----------
    prior : callable
    density : callable
        Density of each element of a parameter, given the parameter's name, the number of inputs of
        a unit, and the scale if it is learned; None for a point parameter.
    scale : callable, optional
        ``(name) -> (site, median, log_sd)`` of the learned scale of a parameter, or None.
    """

    prior: Callable
    density: Callable
    scale: Callable = lambda name: None


def learned(argument, median, log_sd):
    return lambda name: (f"{name}_{argument}", median, log_sd)


PRIORS = {
    "Normal": PriorMember(priors.Normal(0.7, 0.1), lambda name, fan_in: normal(0.1, 0.7)),
    "FanInNormal": PriorMember(
        priors.FanInNormal(2), lambda name, fan_in: normal(0.0, 2 * fan_in**-0.5)
    ),
    "ScaleMixture": PriorMember(
        priors.ScaleMixture(0.3, 1, 0.1), lambda name, fan_in: mixture(0.3, 1, 0.1)
    ),
    "Laplace": PriorMember(
        priors.Laplace(0.5), lambda name, fan_in: td.Laplace(number(0.0), number(0.5))
    ),
    "StudentT": PriorMember(
        priors.StudentT(3, 0.5), lambda name, fan_in: td.StudentT(3, 0, number(0.5))
    ),
    "Given": PriorMember(given, given_density),
    "Around": PriorMember(around, around_density),
    "ByName": PriorMember(
        priors.ByName({"*.bias": None}, default=priors.Normal(2)),
        lambda name, fan_in: None if name.endswith("bias") else normal(0.0, 2.0),
    ),
    "Normal, scale learned": PriorMember(
        priors.Normal("learned", 0.1),
        lambda name, fan_in, s: td.Normal(0.1, s),
        learned("scale", 1.0, 1.0),
    ),
    "FanInNormal, gain learned": PriorMember(
        priors.FanInNormal(priors.Learned(2.0, 0.5)),
        lambda name, fan_in, s: td.Normal(0.0, s * fan_in**-0.5),
        learned("gain", 2.0, 0.5),
    ),
    "ScaleMixture, scale1 learned": PriorMember(
        priors.ScaleMixture(0.3, priors.Learned(0.5, 0.7), 0.05),
        lambda name, fan_in, s: td.MixtureSameFamily(
            td.Categorical(number([0.3, 0.7])), td.Normal(0.0, torch.stack([s, 0.1 * s]))
        ),
        learned("scale1", 0.5, 0.7),
    ),
    "Laplace, scale learned": PriorMember(
        priors.Laplace("learned"),
        lambda name, fan_in, s: td.Laplace(0.0, s),
        learned("scale", 1.0, 1.0),
    ),
    "StudentT, scale learned": PriorMember(
        priors.StudentT(3, "learned"),
        lambda name, fan_in, s: td.StudentT(3, 0.0, s),
        learned("scale", 1.0, 1.0),
    ),
    "ByName, some scales learned": PriorMember(
        priors.ByName({"0.*": priors.Normal("learned"), "2.bias": None}, priors.Normal(2)),
        lambda name, fan_in, *s: (
            td.Normal(0.0, *s) if s else None if name == "2.bias" else normal(0.0, 2.0)
        ),
        lambda name: (f"{name}_scale", 1.0, 1.0) if name.startswith("0.") else None,
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
POSITIVES = td.LogNormal(number([0.0, 0.0]), number([1.0, 1.0]))
BITS = td.Bernoulli(number([0.4, 0.4]))
COUNTS = td.Poisson(number([2.0, 2.0]))
LABELS = td.Categorical(number([1.0, 1.0, 1.0]))


def negative_binomial(output, r):
    return td.NegativeBinomial(r, probs=output.exp() / (output.exp() + r))


LIKELIHOODS = {
    "Gaussian": Member(likelihoods.Gaussian(0.3), 2, REALS, lambda o, z: td.Normal(o, 0.3)),
    "Gaussian, noise learned": Member(
        likelihoods.Gaussian(), 2, REALS, lambda o, z: td.Normal(o, z), (0.5, 1.0)
    ),
    "Gaussian, noise of each output learned": Member(
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
    "LogNormal": Member(
        likelihoods.LogNormal(0.3), 2, POSITIVES, lambda o, z: td.LogNormal(o, 0.3)
    ),
    "LogNormal, noise of each output learned": Member(
        likelihoods.LogNormal(noise_median=(0.3, 2.0)),
        2,
        POSITIVES,
        lambda o, z: td.LogNormal(o, z),
        ((0.3, 2.0), 1.0),
    ),
    "StudentT": Member(likelihoods.StudentT(4, 0.3), 2, REALS, lambda o, z: td.StudentT(4, o, 0.3)),
    "StudentT, noise learned": Member(
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
    "NegativeBinomial, dispersion learned": Member(
        likelihoods.NegativeBinomial(), 2, COUNTS, negative_binomial, (10.0, 1.5)
    ),
}


def mean_field_density(guide, u):
    flat = torch.cat([value.flatten() for value in u.values()])
    return td.Normal(guide.loc, softplus(guide.rho)).log_prob(flat).sum()


def low_rank_density(guide, u):
    flat = torch.cat([value.flatten() for value in u.values()])
    root = softplus(guide.rho)[:, None] * guide.cov_factor
    covariance = root @ root.T + softplus(guide.rho).square().diag()
    return td.MultivariateNormal(guide.loc, covariance).log_prob(flat)


def auto_normal_density(guide, u):
    trees = guide.locs, guide.scales
    log_q = number(0.0)
    for name, value in u.items():
        loc, rho = (tree.get_parameter(f"{name}_unconstrained") for tree in trees)
        log_q = log_q + td.Normal(loc, softplus(rho)).log_prob(value).sum()
    return log_q


# By name: the guide's constructor, and its log-density of the values of all sites in unconstrained
# space.
GUIDES = {
    "MeanFieldGuide": (MeanFieldGuide, mean_field_density),
    "LowRankGuide": (LowRankGuide, low_rank_density),
    "auto_normal": (auto_normal, auto_normal_density),
}
