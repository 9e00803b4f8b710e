"""The prior over a flat vector, against the distributions of the sites."""

import pyro.distributions as dist
import pytest
import torch
from torch import distributions as td
from torch.distributions import biject_to

from pyrobbb.elbo.flat_prior import (
    AutogradSegment,
    FlatPrior,
    MixtureSegment,
    NormalSegment,
    ScaledSegment,
    sampled_log_q,
)
from pyrobbb.model.scales import LearnedScale
from pyrobbb.priors import ScaleMixtureNormal

LIKE = torch.zeros((), dtype=torch.float64)


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def over(shape, base):
    return base.expand(shape).to_event(len(shape))


def mixture(pi, scale1, scale2):
    return ScaleMixtureNormal(number(pi), number(scale1), number(scale2))


DIFFERENT = torch.linspace(0.1, 2.0, 6, dtype=torch.float64).reshape(2, 3)

# Distribution, its shape in unconstrained space, and the class of its segment.
SITES = {
    "Normal": (over((2, 3), dist.Normal(number(0.3), number(0.7))), (2, 3), NormalSegment),
    "Normal at 0": (over((2, 3), dist.Normal(number(0.0), number(0.7))), (2, 3), NormalSegment),
    "Normal of many scales": (
        dist.Normal(number(0.3), DIFFERENT).to_event(2),
        (2, 3),
        NormalSegment,
    ),
    "Normal of many means": (
        dist.Normal(DIFFERENT, number(0.7)).to_event(2),
        (2, 3),
        NormalSegment,
    ),
    "one Normal": (dist.Normal(number(0.3), number(2.0)), (), NormalSegment),
    "LogNormal": (over((4,), dist.LogNormal(number(-0.7), number(1.5))), (4,), NormalSegment),
    "ScaleMixture": (over((2, 3), mixture(0.3, 1.0, 0.1)), (2, 3), MixtureSegment),
    "ScaleMixture, narrow first": (over((5,), mixture(0.3, 0.1, 1.0)), (5,), MixtureSegment),
    "ScaleMixture of one scale": (over((5,), mixture(0.3, 0.5, 0.5)), (5,), MixtureSegment),
    "ScaleMixture of many scales": (
        ScaleMixtureNormal(number(0.3), DIFFERENT, number(0.05)).to_event(2),
        (2, 3),
        AutogradSegment,
    ),
    "Laplace": (over((2, 3), dist.Laplace(number(0.1), number(0.5))), (2, 3), AutogradSegment),
    "StudentT": (
        over((3,), dist.StudentT(number(3.0), number(0.0), number(1.0))),
        (3,),
        AutogradSegment,
    ),
    "MultivariateNormal": (
        dist.MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double() + 0.5),
        (3,),
        AutogradSegment,
    ),
    "Gamma": (over((3,), dist.Gamma(number(2.0), number(3.0))), (3,), AutogradSegment),
    "Beta": (dist.Beta(number(2.0), number(3.0)), (), AutogradSegment),
    "Uniform": (over((2,), dist.Uniform(number(-1.0), number(3.0))), (2,), AutogradSegment),
    "Dirichlet": (dist.Dirichlet(torch.ones(4).double() * 2), (3,), AutogradSegment),
}


def neg_log_prob_of(prior, shape, u):
    """Return -log p(u) by torch's log-density and the Jacobian of the map to the support."""
    lead = u.shape[:-1]
    to_support = biject_to(prior.support)
    site = u.reshape((*lead, *shape))
    value = to_support(site)
    jacobian = to_support.log_abs_det_jacobian(site, value)
    log_prob = prior.log_prob(value)
    return -log_prob.reshape((*lead, -1)).sum(-1) - jacobian.reshape((*lead, -1)).sum(-1)


@pytest.fixture(params=SITES)
def site(request):
    prior, shape, kind = SITES[request.param]
    return prior, torch.Size(shape), kind


@pytest.mark.parametrize("lead", [(), (4,), (2, 3)])
def test_the_negative_log_density_and_its_gradient_are_those_of_autograd(site, lead):
    prior, shape, kind = site
    flat = FlatPrior.of([(prior, shape)], LIKE)
    ((n, segment),) = flat.segments
    assert (n, type(segment)) == (shape.numel(), kind)
    u = torch.randn(*lead, n, dtype=torch.float64).requires_grad_()
    expected = neg_log_prob_of(prior, shape, u)
    (gradient,) = torch.autograd.grad(expected.sum(), u)
    result = flat.neg_log_prob_and_gradient(u.detach())
    torch.testing.assert_close(result, (expected.detach(), gradient), rtol=1e-10, atol=1e-12)
    assert result[0].shape == lead


# The priors of weights whose scale is learned, at scale 1, and at scale s.
SCALED = {
    "Normal": lambda s: dist.Normal(number(0.3), s.expand(s.shape)),
    "Laplace": lambda s: dist.Laplace(number(0.1), s),
    "StudentT": lambda s: dist.StudentT(number(3.0), number(0.0), s),
    "ScaleMixture": lambda s: ScaleMixtureNormal(number(0.3), s, s * 0.1),
}
HYPERPRIOR = dist.LogNormal(number(-0.7), number(1.5))
SHAPE = torch.Size((2, 3))


def scaled(name):
    """Return the flat prior of a learned scale and six weights."""
    standard = over(SHAPE, SCALED[name](number(1.0)))
    flat = FlatPrior.of([(LearnedScale("s", HYPERPRIOR, standard), SHAPE)], LIKE)
    ((n, segment),) = flat.segments
    assert (n, type(segment)) == (7, ScaledSegment)
    return flat


@pytest.mark.parametrize("lead", [(), (4,), (2, 3)])
@pytest.mark.parametrize("name", SCALED)
def test_the_joint_density_of_a_scale_and_its_weights_is_that_of_autograd(name, lead):
    u = torch.randn(*lead, 7, dtype=torch.float64).requires_grad_()
    t, w = u[..., 0], u[..., 1:]
    expected = -SCALED[name](t.exp()[..., None]).log_prob(w).sum(-1)
    expected = expected - HYPERPRIOR.log_prob(t.exp()) - t  # with the Jacobian of exp
    (gradient,) = torch.autograd.grad(expected.sum(), u)
    result = scaled(name).neg_log_prob_and_gradient(u.detach())
    torch.testing.assert_close(result, (expected.detach(), gradient), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("lead", [(), (4,)])
@pytest.mark.parametrize("n_draws", [None, 5])
@pytest.mark.parametrize("name", SCALED)
def test_the_kl_divergence_of_weights_is_that_at_the_drawn_scale(name, n_draws, lead):
    """That of the scale has a closed form; that of the weights has one for some families."""
    loc, scale = q_of(7, lead)
    draws = () if n_draws is None else (n_draws,)
    noise = torch.randn(*lead, *draws, 7, dtype=torch.float64)
    at, spread = (v if n_draws is None else v.unsqueeze(-2) for v in (loc, scale))
    u = at + spread * noise
    prior = SCALED[name](u[..., :1].exp())
    q = td.Normal(at[..., 1:], spread[..., 1:])
    try:
        kl = td.kl_divergence(q, prior).sum(-1)
    except NotImplementedError:
        kl = (q.log_prob(u[..., 1:]) - prior.log_prob(u[..., 1:])).sum(-1)
    kl = kl if n_draws is None else kl.mean(-1)
    q_of_t = td.Normal(loc[..., 0], scale[..., 0])
    expected = kl + td.kl_divergence(q_of_t, td.Normal(HYPERPRIOR.loc, HYPERPRIOR.scale))
    gradients = torch.autograd.grad(expected.sum(), (loc, scale))
    result = scaled(name).kl(loc.detach(), scale.detach(), noise)
    torch.testing.assert_close(result, (expected.detach(), *gradients), rtol=1e-9, atol=1e-11)


def test_scaled_segments_are_not_joined_with_their_neighbours():
    sites = [(SITES["Normal"][0], SHAPE)] * 2
    learned = LearnedScale("s", HYPERPRIOR, over(SHAPE, SCALED["Normal"](number(1.0))))
    flat = FlatPrior.of([*sites, (learned, SHAPE), (learned, SHAPE), *sites], LIKE)
    assert [n for n, _ in flat.segments] == [12, 7, 7, 12]


@pytest.mark.parametrize("scales", [(1.0, 0.0025), (0.0025, 1.0), (30.0, 1e-3)])
def test_a_mixture_is_accurate_in_the_tails_and_near_zero(scales):
    """In float32 the density of the narrow component underflows in the tails."""
    prior = over((9,), mixture(0.25, *scales))
    flat = FlatPrior.of([(prior, torch.Size([9]))], torch.zeros(()))
    u = torch.tensor([-50.0, -5, -0.1, -1e-3, 0, 1e-4, 0.01, 1, 50])
    neg_log_prob, gradient = flat.neg_log_prob_and_gradient(u)
    exact = u.double().requires_grad_()
    expected = -prior.log_prob(exact)
    (expected_gradient,) = torch.autograd.grad(expected, exact)
    torch.testing.assert_close(neg_log_prob.double(), expected.detach(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-4, atol=1e-4)


def test_adjacent_segments_of_the_same_family_are_joined_and_others_are_not():
    names = [
        "Normal",
        "Normal",
        "Normal at 0",
        "Normal of many scales",
        "LogNormal",
        "Laplace",
        "Laplace",
        "ScaleMixture",
        "ScaleMixture",
        "ScaleMixture, narrow first",
        "one Normal",
    ]
    sites = [SITES[name] for name in names]
    flat = FlatPrior.of([(prior, torch.Size(shape)) for prior, shape, _ in sites], LIKE)
    assert [(n, type(segment)) for n, segment in flat.segments] == [
        (28, NormalSegment),
        (6, AutogradSegment),
        (6, AutogradSegment),
        (12, MixtureSegment),
        (5, MixtureSegment),
        (1, NormalSegment),
    ]
    sizes = [torch.Size(shape).numel() for _, shape, _ in sites]
    u = torch.randn(3, sum(sizes), dtype=torch.float64).requires_grad_()
    expected = sum(
        neg_log_prob_of(prior, torch.Size(shape), part)
        for (prior, shape, _), part in zip(sites, u.split(sizes, -1), strict=True)
    )
    (gradient,) = torch.autograd.grad(expected.sum(), u)
    result = flat.neg_log_prob_and_gradient(u.detach())
    torch.testing.assert_close(result, (expected.detach(), gradient), rtol=1e-10, atol=1e-12)


def test_parameters_of_joined_equal_normals_remain_numbers():
    prior, shape, _ = SITES["Normal"]
    flat = FlatPrior.of([(prior, torch.Size(shape))] * 3, LIKE)
    ((_, segment),) = flat.segments
    assert (segment.loc, segment.scale, segment.n) == (0.3, 0.7, 18)


def q_of(n, lead=()):
    loc = torch.randn(*lead, n, dtype=torch.float64).requires_grad_()
    scale = torch.rand(*lead, n, dtype=torch.float64).add(0.1).requires_grad_()
    return loc, scale


@pytest.mark.parametrize("lead", [(), (4,)])
@pytest.mark.parametrize(
    "name",
    ["Normal", "Normal of many scales", "Normal of many means", "LogNormal", "Laplace"],
)
def test_the_kl_divergence_is_the_closed_form_of_torch_where_there_is_one(name, lead):
    prior, shape, _ = SITES[name]
    base = prior.base_dist
    if name == "LogNormal":  # the divergence of log-normals is that of their logarithms
        base = td.Normal(base.loc, base.scale)
    flat = FlatPrior.of([(prior, torch.Size(shape))], LIKE)
    loc, scale = q_of(torch.Size(shape).numel(), lead)
    q = td.Normal(loc.reshape((*lead, *shape)), scale.reshape((*lead, *shape)))
    expected = td.kl_divergence(q, base).reshape((*lead, -1)).sum(-1)
    gradients = torch.autograd.grad(expected.sum(), (loc, scale))
    unused = torch.full_like(loc, torch.nan).detach()
    result = flat.kl(loc.detach(), scale.detach(), unused)
    torch.testing.assert_close(result, (expected.detach(), *gradients), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("lead", [(), (4,)])
@pytest.mark.parametrize("n_draws", [None, 5])
@pytest.mark.parametrize("name", ["ScaleMixture", "StudentT", "Gamma", "Dirichlet"])
def test_the_kl_divergence_is_sampled_where_there_is_no_closed_form(name, n_draws, lead):
    prior, shape, _ = SITES[name]
    shape = torch.Size(shape)
    flat = FlatPrior.of([(prior, shape)], LIKE)
    loc, scale = q_of(shape.numel(), lead)
    draws = () if n_draws is None else (n_draws,)
    noise = torch.randn(*lead, *draws, shape.numel(), dtype=torch.float64)
    at, spread = (t if n_draws is None else t.unsqueeze(-2) for t in (loc, scale))
    u = at + spread * noise
    # log q has no gradient in loc at fixed noise, and -1 / scale in scale.
    log_q = td.Normal(at, spread).log_prob(u).sum(-1)
    expected = log_q + neg_log_prob_of(prior, shape, u)
    expected = expected if n_draws is None else expected.mean(-1)
    gradients = torch.autograd.grad(expected.sum(), (loc, scale))
    result = flat.kl(loc.detach(), scale.detach(), noise)
    torch.testing.assert_close(result, (expected.detach(), *gradients), rtol=1e-9, atol=1e-11)


def test_the_kl_divergence_is_the_sum_over_segments():
    names = ["Normal", "ScaleMixture", "LogNormal"]
    sites = [(SITES[name][0], torch.Size(SITES[name][1])) for name in names]
    sizes = [shape.numel() for _, shape in sites]
    loc, scale = (t.detach() for t in q_of(sum(sizes)))
    noise = torch.randn(sum(sizes), dtype=torch.float64)
    kl, d_loc, d_scale = FlatPrior.of(sites, LIKE).kl(loc, scale, noise)
    parts = [
        FlatPrior.of([site], LIKE).kl(*part)
        for site, *part in zip(sites, *(t.split(sizes) for t in (loc, scale, noise)), strict=True)
    ]
    torch.testing.assert_close(kl, sum(part[0] for part in parts))
    torch.testing.assert_close(d_loc, torch.cat([part[1] for part in parts]))
    torch.testing.assert_close(d_scale, torch.cat([part[2] for part in parts]))


@pytest.mark.parametrize("lead", [(), (3,)])
def test_sampled_log_q_is_the_log_density_of_q_averaged_over_draws(lead):
    loc, scale = (t.detach() for t in q_of(6, lead))
    one, many = torch.randn(*lead, 6).double(), torch.randn(*lead, 4, 6).double()
    q = td.Normal(loc, scale)
    expected = q.log_prob(loc + scale * one).sum(-1)
    torch.testing.assert_close(sampled_log_q(scale, one), expected)
    u = loc.unsqueeze(-2) + scale.unsqueeze(-2) * many
    expected = td.Normal(loc.unsqueeze(-2), scale.unsqueeze(-2)).log_prob(u).sum(-1).mean(-1)
    torch.testing.assert_close(sampled_log_q(scale, many), expected)


def test_parameters_have_the_dtype_of_the_guide():
    sites = [(SITES[name][0], torch.Size(SITES[name][1])) for name in ("Normal", "LogNormal")]
    neg_log_prob, gradient = FlatPrior.of(sites, torch.zeros(())).neg_log_prob_and_gradient(
        torch.zeros(10)
    )
    assert neg_log_prob.dtype == gradient.dtype == torch.float32


def test_a_density_outside_the_support_is_nan_and_does_not_raise():
    """fit reports non-finite values with the step and the site."""
    prior = over((2,), dist.Laplace(number(0.0), number(1.0), validate_args=True))
    flat = FlatPrior.of([(prior, torch.Size([2]))], LIKE)
    neg_log_prob, _ = flat.neg_log_prob_and_gradient(
        torch.tensor([torch.nan, 1.0], dtype=torch.float64)
    )
    assert neg_log_prob.isnan()
    with pytest.raises(ValueError, match="within the support"):
        prior.log_prob(torch.tensor([torch.nan, 1.0], dtype=torch.float64))
