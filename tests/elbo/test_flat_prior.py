"""The prior over a flat vector against the distributions that it stands for."""

import pyro.distributions as dist
import pytest
import torch
from torch import distributions as td
from torch.distributions import biject_to

from pyrobbb.elbo.flat_prior import (
    FlatPrior,
    MixturePiece,
    NormalPiece,
    OtherPiece,
    entropy_cost,
)
from pyrobbb.priors import ScaleMixtureNormal

LIKE = torch.zeros((), dtype=torch.float64)


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def over(shape, base):
    return base.expand(shape).to_event(len(shape))


def mixture(pi, scale1, scale2):
    return ScaleMixtureNormal(number(pi), number(scale1), number(scale2))


RAGGED = torch.linspace(0.1, 2.0, 6, dtype=torch.float64).reshape(2, 3)

# A distribution, its shape in unconstrained space, and the kind of piece that it makes.
SITES = {
    "Normal": (over((2, 3), dist.Normal(number(0.3), number(0.7))), (2, 3), NormalPiece),
    "Normal at 0": (over((2, 3), dist.Normal(number(0.0), number(0.7))), (2, 3), NormalPiece),
    "Normal of many scales": (dist.Normal(number(0.3), RAGGED).to_event(2), (2, 3), NormalPiece),
    "Normal of many means": (dist.Normal(RAGGED, number(0.7)).to_event(2), (2, 3), NormalPiece),
    "one Normal": (dist.Normal(number(0.3), number(2.0)), (), NormalPiece),
    "LogNormal": (over((4,), dist.LogNormal(number(-0.7), number(1.5))), (4,), NormalPiece),
    "ScaleMixture": (over((2, 3), mixture(0.3, 1.0, 0.1)), (2, 3), MixturePiece),
    "ScaleMixture, narrow first": (over((5,), mixture(0.3, 0.1, 1.0)), (5,), MixturePiece),
    "ScaleMixture of one scale": (over((5,), mixture(0.3, 0.5, 0.5)), (5,), MixturePiece),
    "ScaleMixture of many scales": (
        ScaleMixtureNormal(number(0.3), RAGGED, number(0.05)).to_event(2),
        (2, 3),
        OtherPiece,
    ),
    "Laplace": (over((2, 3), dist.Laplace(number(0.1), number(0.5))), (2, 3), OtherPiece),
    "StudentT": (
        over((3,), dist.StudentT(number(3.0), number(0.0), number(1.0))),
        (3,),
        OtherPiece,
    ),
    "MultivariateNormal": (
        dist.MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double() + 0.5),
        (3,),
        OtherPiece,
    ),
    "Gamma": (over((3,), dist.Gamma(number(2.0), number(3.0))), (3,), OtherPiece),
    "Beta": (dist.Beta(number(2.0), number(3.0)), (), OtherPiece),
    "Uniform": (over((2,), dist.Uniform(number(-1.0), number(3.0))), (2,), OtherPiece),
    "Dirichlet": (dist.Dirichlet(torch.ones(4).double() * 2), (3,), OtherPiece),
}


def cost_by_distribution(prior, shape, u):
    """Give -log p(u) by torch's log-density and the Jacobian of the map to the support."""
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
def test_the_cost_is_the_negative_log_density_and_the_slope_its_gradient(site, lead):
    prior, shape, kind = site
    flat = FlatPrior.of([(prior, shape)], LIKE)
    ((n, piece),) = flat.pieces
    assert (n, type(piece)) == (shape.numel(), kind)
    u = torch.randn(*lead, n, dtype=torch.float64).requires_grad_()
    expected = cost_by_distribution(prior, shape, u)
    (slope,) = torch.autograd.grad(expected.sum(), u)
    result = flat.cost_and_slope(u.detach())
    torch.testing.assert_close(result, (expected.detach(), slope), rtol=1e-10, atol=1e-12)
    assert result[0].shape == lead


@pytest.mark.parametrize("scales", [(1.0, 0.0025), (0.0025, 1.0), (30.0, 1e-3)])
def test_a_mixture_far_out_is_the_wide_one_and_near_by_both(scales):
    """Trap 4."""
    prior = over((9,), mixture(0.25, *scales))
    flat = FlatPrior.of([(prior, torch.Size([9]))], torch.zeros(()))
    u = torch.tensor([-50.0, -5, -0.1, -1e-3, 0, 1e-4, 0.01, 1, 50])
    cost, slope = flat.cost_and_slope(u)
    exact = u.double().requires_grad_()
    expected = -prior.log_prob(exact)
    (expected_slope,) = torch.autograd.grad(expected, exact)
    torch.testing.assert_close(cost.double(), expected.detach(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(slope.double(), expected_slope, rtol=1e-4, atol=1e-4)


def test_neighbours_of_one_family_are_joined_and_others_are_not():
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
    assert [(n, type(piece)) for n, piece in flat.pieces] == [
        (28, NormalPiece),
        (6, OtherPiece),
        (6, OtherPiece),
        (12, MixturePiece),
        (5, MixturePiece),
        (1, NormalPiece),
    ]
    sizes = [torch.Size(shape).numel() for _, shape, _ in sites]
    u = torch.randn(3, sum(sizes), dtype=torch.float64).requires_grad_()
    expected = sum(
        cost_by_distribution(prior, torch.Size(shape), part)
        for (prior, shape, _), part in zip(sites, u.split(sizes, -1), strict=True)
    )
    (slope,) = torch.autograd.grad(expected.sum(), u)
    result = flat.cost_and_slope(u.detach())
    torch.testing.assert_close(result, (expected.detach(), slope), rtol=1e-10, atol=1e-12)


def test_equal_normals_stay_numbers_when_they_are_joined():
    prior, shape, _ = SITES["Normal"]
    flat = FlatPrior.of([(prior, torch.Size(shape))] * 3, LIKE)
    ((_, piece),) = flat.pieces
    assert (piece.loc, piece.scale, piece.n) == (0.3, 0.7, 18)


def q_of(n, lead=()):
    loc = torch.randn(*lead, n, dtype=torch.float64).requires_grad_()
    scale = torch.rand(*lead, n, dtype=torch.float64).add(0.1).requires_grad_()
    return loc, scale


@pytest.mark.parametrize("lead", [(), (4,)])
@pytest.mark.parametrize(
    "name",
    ["Normal", "Normal of many scales", "Normal of many means", "LogNormal", "Laplace"],
)
def test_the_kl_divergence_is_torchs_closed_form_where_there_is_one(name, lead):
    prior, shape, _ = SITES[name]
    base = prior.base_dist
    if name == "LogNormal":  # between log-normals it is that between their logarithms
        base = td.Normal(base.loc, base.scale)
    flat = FlatPrior.of([(prior, torch.Size(shape))], LIKE)
    loc, scale = q_of(torch.Size(shape).numel(), lead)
    q = td.Normal(loc.reshape((*lead, *shape)), scale.reshape((*lead, *shape)))
    expected = td.kl_divergence(q, base).reshape((*lead, -1)).sum(-1)
    slopes = torch.autograd.grad(expected.sum(), (loc, scale))
    nonsense = torch.full_like(loc, torch.nan).detach()
    result = flat.kl(loc.detach(), scale.detach(), nonsense)
    torch.testing.assert_close(result, (expected.detach(), *slopes), rtol=1e-10, atol=1e-12)


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
    expected = log_q + cost_by_distribution(prior, shape, u)
    expected = expected if n_draws is None else expected.mean(-1)
    slopes = torch.autograd.grad(expected.sum(), (loc, scale))
    result = flat.kl(loc.detach(), scale.detach(), noise)
    torch.testing.assert_close(result, (expected.detach(), *slopes), rtol=1e-9, atol=1e-11)


def test_the_kl_divergence_of_several_pieces_is_the_sum_of_theirs():
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
def test_the_entropys_cost_is_the_log_density_of_q_averaged_over_draws(lead):
    loc, scale = (t.detach() for t in q_of(6, lead))
    one, many = torch.randn(*lead, 6).double(), torch.randn(*lead, 4, 6).double()
    q = td.Normal(loc, scale)
    expected = q.log_prob(loc + scale * one).sum(-1)
    torch.testing.assert_close(entropy_cost(scale, one), expected)
    u = loc.unsqueeze(-2) + scale.unsqueeze(-2) * many
    expected = td.Normal(loc.unsqueeze(-2), scale.unsqueeze(-2)).log_prob(u).sum(-1).mean(-1)
    torch.testing.assert_close(entropy_cost(scale, many), expected)


def test_parameters_take_the_dtype_of_the_guide():
    sites = [(SITES[name][0], torch.Size(SITES[name][1])) for name in ("Normal", "LogNormal")]
    cost, slope = FlatPrior.of(sites, torch.zeros(())).cost_and_slope(torch.zeros(10))
    assert cost.dtype == slope.dtype == torch.float32


def test_a_density_outside_of_the_support_is_no_error_but_no_number():
    """What is not finite is reported by fit, with the step and the site."""
    prior = over((2,), dist.Laplace(number(0.0), number(1.0), validate_args=True))
    flat = FlatPrior.of([(prior, torch.Size([2]))], LIKE)
    cost, _ = flat.cost_and_slope(torch.tensor([torch.nan, 1.0], dtype=torch.float64))
    assert cost.isnan()
    with pytest.raises(ValueError, match="within the support"):
        prior.log_prob(torch.tensor([torch.nan, 1.0], dtype=torch.float64))
