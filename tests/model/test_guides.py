"""Mean-field guides: initial values, draws, copies, and the sites that they cover."""

import copy
import io
import math
import pickle

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import scipy.stats
import torch
from modules import by_site, loc_and_scale, network_and_data
from pyro.infer import Predictive, Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from pyrobbb import BayesianNetwork, LowRankGuide, MeanFieldGuide, auto_normal, mlp
from pyrobbb.likelihoods import Gaussian, NegativeBinomial
from pyrobbb.model.flat_guide import inverse_softplus
from pyrobbb.priors import ByName

GUIDES = {"mean_field": MeanFieldGuide, "low_rank": LowRankGuide, "auto_normal": auto_normal}
every_guide = pytest.mark.parametrize("make_guide", GUIDES.values(), ids=GUIDES)


@every_guide
@pytest.mark.parametrize("median", [0.2, (0.2, 3.0)], ids=["one scale", "one scale per output"])
def test_initial_means_are_the_weights_of_the_module_and_the_median_of_the_noise_prior(
    make_guide, median
):
    network, x, y = network_and_data(Gaussian(noise_median=median), n_out=2)
    guide = make_guide(network)
    guide(x, y)
    loc, _ = loc_and_scale(guide)
    for name, parameter in network.bayesian_parameters():
        torch.testing.assert_close(loc[name], parameter, rtol=0, atol=0)
    expected = torch.tensor(median, dtype=torch.float64)
    torch.testing.assert_close(loc["noise_scale"].exp(), expected)
    assert set(loc) == {*dict(network.bayesian_parameters()), "noise_scale"}


@every_guide
def test_initial_scales_are_a_tenth_of_one_over_root_fan_in(make_guide):
    network, x, y = network_and_data()
    guide = make_guide(network)
    guide(x, y)
    _, scale = loc_and_scale(guide)
    expected = {
        "0.weight": 0.1 / math.sqrt(3),
        "0.bias": 0.1,
        "2.weight": 0.1 / math.sqrt(4),
        "2.bias": 0.1,
        "noise_scale": 0.1,
    }
    assert scale.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(scale[name], torch.full_like(scale[name], value))


@every_guide
@pytest.mark.parametrize("init_scale", [1e-6, 0.03, 2.0, 50.0])
def test_init_scale_is_the_initial_scale_of_every_site(make_guide, init_scale):
    network, x, y = network_and_data()
    guide = make_guide(network, init_scale=init_scale)
    guide(x, y)
    _, scale = loc_and_scale(guide)
    for value in scale.values():
        torch.testing.assert_close(value, torch.full_like(value, init_scale))


@every_guide
@pytest.mark.parametrize("init_scale", [0.03, 2.0])
def test_draws_have_the_requested_standard_deviation(make_guide, init_scale):
    network, x, y = network_and_data()
    guide = make_guide(network, init_scale=init_scale)
    guide(x, y)
    loc, _ = loc_and_scale(guide)
    n = 2000
    with torch.no_grad(), pyro.plate("draws", n, dim=-2):
        draws = guide(x, y)
    for name, value in draws.items():
        value = value.log() if name == "noise_scale" else value
        z = (value.reshape(n, *loc[name].shape) - loc[name]) / init_scale
        # n standard normal values have a mean of sd 1 / sqrt(n), a mean square of sd sqrt(2 / n).
        assert (z.mean(0).abs() < 4.5 / math.sqrt(n)).all()
        assert ((z.pow(2).mean(0) - 1).abs() < 4.5 * math.sqrt(2 / n)).all()
        assert z.abs().max() > 2


def test_draws_have_the_scale_given_by_rho():
    network, x, y = network_and_data(Gaussian(0.1))
    guide = MeanFieldGuide(network)
    scale = torch.linspace(0.01, 5, guide.rho.numel(), dtype=torch.float64)
    with torch.no_grad():
        guide.rho.copy_(inverse_softplus(scale))
    torch.testing.assert_close(guide.scale, scale)
    n = 4000
    with torch.no_grad(), pyro.plate("draws", n, dim=-2):
        draws = guide(x, y)
    flat = torch.cat([value.reshape(n, -1) for value in draws.values()], dim=1)
    assert ((flat.std(0) / scale - 1).abs() < 4.5 / math.sqrt(2 * n)).all()


def test_all_guides_have_the_same_initial_values():
    network, x, y = network_and_data(Gaussian(noise_median=(0.2, 3.0)), n_out=2)
    starts = []
    for make_guide in GUIDES.values():
        guide = make_guide(network)
        guide(x, y)
        starts.append(loc_and_scale(guide))
    for start in starts[1:]:
        torch.testing.assert_close(start, starts[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [1e-7, 1e-3, 0.1, 1.0, 30.0, 1000.0])
def test_inverse_softplus_inverts_softplus(dtype, scale):
    scale = torch.tensor(scale, dtype=dtype)
    back = nn.functional.softplus(inverse_softplus(scale))
    torch.testing.assert_close(back, scale, rtol=30 * torch.finfo(dtype).eps, atol=0)


@every_guide
@pytest.mark.parametrize("init_scale", [0, -0.1])
def test_init_scale_must_be_positive(make_guide, init_scale):
    network, *_ = network_and_data()
    with pytest.raises(ValueError, match=f"`init_scale` must be positive, got {init_scale}"):
        make_guide(network, init_scale=init_scale)


@every_guide
def test_init_scale_must_be_a_number(make_guide):
    network, *_ = network_and_data()
    with pytest.raises(TypeError, match=r"`init_scale` must be a number, got '0\.1'"):
        make_guide(network, init_scale="0.1")


def test_weights_are_drawn_from_normals_and_noise_from_a_log_normal():
    network, x, y = network_and_data(Gaussian(noise_median=(0.2, 3.0)), n_out=2)
    guide = MeanFieldGuide(network, init_scale=0.4)
    trace = poutine.trace(guide).get_trace(x, y)
    loc = by_site(guide, guide.loc.detach())
    for name, shape in guide.shapes.items():
        site = trace.nodes[name]
        assert (site["fn"].batch_shape, site["fn"].event_shape) == ((), shape)
        value = site["value"].detach()
        if name == "noise_scale":
            expected = scipy.stats.lognorm(0.4, scale=loc[name].exp()).logpdf(value).sum()
        else:
            expected = scipy.stats.norm(loc[name], 0.4).logpdf(value).sum()
        assert site["fn"].log_prob(value).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
def test_split_returns_the_values_of_each_site(lead):
    network, *_ = network_and_data(Gaussian(noise_median=(0.2, 3.0)), n_out=2)
    guide = MeanFieldGuide(network)
    flat = torch.randn(*lead, guide.loc.numel())
    pieces = guide.split(flat)
    assert {name: piece.shape for name, piece in pieces.items()} == {
        name: (*lead, *shape) for name, shape in guide.shapes.items()
    }
    together = torch.cat([piece.reshape(*lead, -1) for piece in pieces.values()], dim=-1)
    torch.testing.assert_close(together, flat, rtol=0, atol=0)
    if not lead:
        torch.testing.assert_close(pieces, by_site(guide, flat), rtol=0, atol=0)


def test_a_guide_has_a_mean_and_a_scale_for_each_weight_and_noise_scale():
    network, *_ = network_and_data(Gaussian(noise_median=(0.2, 3.0)), n_out=2)
    guide = MeanFieldGuide(network)
    n_latent = sum(parameter.numel() for parameter in network.net.parameters()) + 2
    assert guide.loc.shape == guide.rho.shape == guide.scale.shape == (n_latent,)
    assert [name for name, _ in guide.named_parameters()] == ["loc", "rho"]


def test_point_parameters_are_not_in_the_guide():
    network, *_ = network_and_data(Gaussian(0.1), ByName({"*.bias": None}))
    assert list(MeanFieldGuide(network).shapes) == ["0.weight", "2.weight"]


@every_guide
def test_gradients_flow_to_all_parameters_of_the_guide(make_guide):
    network, x, y = network_and_data()
    guide = make_guide(network)
    guide(x, y)
    Trace_ELBO().differentiable_loss(network, guide, x, y).backward()
    for parameter in guide.parameters():
        assert parameter.grad.isfinite().all()
        assert (parameter.grad != 0).all()
    assert all(parameter.grad is None for parameter in network.parameters())


def copied(guide):
    return copy.deepcopy(guide)


def pickled(guide):
    return pickle.loads(pickle.dumps(guide))


def torch_saved(guide):
    buffer = io.BytesIO()
    torch.save(guide, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@every_guide
@pytest.mark.parametrize("copy_of", [copied, pickled, torch_saved])
def test_a_copy_draws_the_same_and_is_independent(make_guide, copy_of):
    network, x, y = network_and_data()
    guide = make_guide(network)
    guide(x, y)
    other = copy_of(guide)
    losses, draws = [], []
    for g in (guide, other):
        pyro.set_rng_seed(5)
        draws.append(g(x, y))
        losses.append(TraceMeanField_ELBO().loss(network, g, x, y))
    torch.testing.assert_close(draws[0], draws[1], rtol=0, atol=0)
    assert losses[0] == losses[1]
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    for mine, theirs in zip(guide.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(theirs, mine + 1)


@every_guide
def test_a_guide_leaves_the_param_store_empty(make_guide):
    network, x, y = network_and_data()
    guide = make_guide(network)
    elbo = Trace_ELBO(num_particles=2, vectorize_particles=True, max_plate_nesting=1)
    svi = pyro.infer.SVI(network, guide, pyro.optim.Adam({"lr": 0.01}), elbo)
    svi.step(x, y)
    svi.evaluate_loss(x, y)
    Predictive(network, guide=guide, num_samples=2)(x)
    assert list(pyro.get_param_store()) == []


def test_the_sites_of_a_custom_likelihood_are_found_by_running_it_on_x():
    def likelihood(output):
        return dist.Normal(output, pyro.sample("my_scale", dist.HalfNormal(output.new_tensor(2.0))))

    network, x, y = network_and_data(likelihood)
    assert "my_scale" not in MeanFieldGuide(network).shapes
    guides = [MeanFieldGuide(network, x.numpy()), auto_normal(network)]
    for guide in guides:
        draws = guide(x, y)
        assert list(draws) == [*dict(network.bayesian_parameters()), "my_scale"]
        loc, scale = loc_and_scale(guide)
        assert loc["my_scale"].exp().item() == pytest.approx(2 * scipy.stats.norm.ppf(0.75))
        assert scale["my_scale"].item() == pytest.approx(0.1)


@pytest.mark.parametrize("width", [10, 100, 1000])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_initial_epistemic_sd_of_the_output_is_of_order_one_tenth(width, depth, activation):
    """Check the order of magnitude of the output variance due to the initial scales.

    The weights of a unit have variance 0.01 / fan_in around means of variance 1 / (3 fan_in)
    (torch's default), its bias has variance 0.01. With m the mean square of a layer's inputs and v
    the variance of one input, the variance of an output is 0.01 (1 + m) + (1/3 + 0.01) v. Standard
    normal x has m = 1 and v = 0; ReLU and tanh are contractions and keep m below 1. So v is between
    0.01, the last bias alone, and 0.0305, the fixed point of v = 0.02 + 0.343 v: the sd is between
    0.1 and 0.175. Estimated from 50 draws it has a relative error of 1 / sqrt(2 * 50): the bounds
    are 0.06 and 0.25. An initial rho of -7 would lead to less than 0.002, a scale of 1 to more than
    1.
    """
    network = BayesianNetwork(mlp(20, [width] * depth, 1, activation, seed=0), None, Gaussian(0.1))
    x = torch.randn(16, 20)
    with torch.no_grad(), pyro.plate("draws", 50, dim=-2):
        draws = MeanFieldGuide(network)(x)
        output = network.output({name: value[:, 0] for name, value in draws.items()}, x)
    sd = output.var(0).mean().sqrt().item()
    assert 0.06 < sd < 0.25


def test_the_total_count_of_a_negative_binomial_is_a_site_of_the_guide():
    network = BayesianNetwork(mlp(3, [], 1).double(), likelihood=NegativeBinomial())
    guide = MeanFieldGuide(network)
    assert list(guide.shapes) == ["0.weight", "0.bias", "total_count"]
    assert by_site(guide, guide.loc)["total_count"].item() == pytest.approx(math.log(10))
