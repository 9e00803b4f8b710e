"""BayesianNetwork: its parameters and latent sites, and the arguments that it rejects."""

import copy
import pickle
import re

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import scipy.stats
import torch
from modules import LastState, cnn, prior_draws
from pyro.infer import SVI, Trace_ELBO
from torch import nn

from pyrobbb import BayesianNetwork, MeanFieldGuide, auto_normal, mlp
from pyrobbb.likelihoods import Categorical, Gaussian
from pyrobbb.priors import ByName, Normal

POINTS_IN_NORM = ByName({"1.*": None})


def stepper(make_guide, seed):
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 1)).double()
    network = BayesianNetwork(net, POINTS_IN_NORM)
    guide = make_guide(network)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5, 2, dtype=torch.float64, generator=generator)
    svi = SVI(network, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())

    def step(i):
        pyro.set_rng_seed(seed + i)
        return svi.step(x, x[:, :1])

    return step, network, guide


@pytest.mark.parametrize("make_guide", [MeanFieldGuide, auto_normal])
def test_two_networks_in_one_process_do_not_share_parameters(make_guide):
    pyro.set_rng_seed(0)
    step, network, guide = stepper(make_guide, 10)
    alone = [step(i) for i in range(5)]
    pyro.set_rng_seed(0)
    step, other_network, other_guide = stepper(make_guide, 10)
    step_b, *_ = stepper(make_guide, 20)
    interleaved, losses_b = [], []
    for i in range(5):
        losses_b.append(step_b(i))
        interleaved.append(step(i))
    assert interleaved == alone
    assert losses_b != alone
    for one, two in ((network, other_network), (guide, other_guide)):
        torch.testing.assert_close(two.state_dict(), one.state_dict(), rtol=0, atol=0)
    assert list(pyro.get_param_store()) == []


def pickled(network):
    return pickle.loads(pickle.dumps(network))


@pytest.mark.parametrize("copy_of", [copy.deepcopy, pickled])
def test_a_copy_computes_the_same_and_is_independent(copy_of):
    network = BayesianNetwork(LastState()).eval()
    x = torch.randn(4, 6, 2)
    draws = prior_draws(network, 3)
    expected = network.output(draws, x)  # afterwards, the network has recorded that vmap fails
    other = copy_of(network)
    torch.testing.assert_close(other.output(draws, x), expected, rtol=0, atol=0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    for mine, theirs in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(theirs, mine + 1)


def test_parameters_are_bayesian_points_or_frozen():
    net = cnn()
    net[4].bias.requires_grad_(False)
    network = BayesianNetwork(net, ByName({"1.*": None, "0.bias": None}), Categorical())
    bayesian = [name for name, _ in network.bayesian_parameters()]
    assert bayesian == ["0.weight", "4.weight"]
    points = [name for name, _ in network.point_parameters()]
    assert points == ["0.bias", "1.weight", "1.bias"]
    trace = poutine.trace(network).get_trace(torch.randn(2, 1, 5, 5))
    assert [name for name in trace.param_nodes if name.startswith("net.")] == [
        f"net.{name}" for name in points
    ]
    assert trace.stochastic_nodes == [*bayesian, "data", "y"]


def test_a_handler_may_substitute_a_point_parameter():
    network = BayesianNetwork(mlp(2, [], 1), ByName({"*.bias": None}), Gaussian(0.1))
    x = torch.randn(3, 2)
    with poutine.substitute(data={"net.0.bias": torch.tensor([100.0])}):
        trace = poutine.trace(network).get_trace(x)
    expected = x @ trace.nodes["0.weight"]["value"].T + 100
    torch.testing.assert_close(trace.nodes["y"]["fn"].mean, expected)


def test_latent_sites_are_in_model_order_with_their_initial_values():
    network = BayesianNetwork(mlp(3, [4], 2).double(), likelihood=Gaussian(noise_median=0.2))
    sites = network.latent_sites()
    trace = poutine.trace(network).get_trace(torch.randn(5, 3).double())
    assert [site.name for site in sites] == [
        n for n in trace.stochastic_nodes if n not in ("data", "y")
    ]
    assert [site.fan_in for site in sites] == [3, 1, 4, 1, 1]
    for site, (_, parameter) in zip(sites, network.bayesian_parameters(), strict=False):
        torch.testing.assert_close(site.start, parameter.detach(), rtol=0, atol=0)
        assert site.start.data_ptr() != parameter.data_ptr()
    assert sites[-1].start.item() == pytest.approx(0.2)
    assert sites[-1].support.check(torch.tensor([-1.0, 1.0])).tolist() == [False, True]


@pytest.mark.parametrize(
    ("prior", "start"),
    [
        (dist.Gamma(2.0, 1.0), 1.0),
        (dist.HalfNormal(2.0), 2 * float(scipy.stats.norm.ppf(0.75))),
        (dist.Beta(2.0, 2.0), 0.5),
        (dist.Normal(torch.tensor([1.0, 2.0]), 1.0).to_event(1), [1.0, 2.0]),
    ],
)
def test_the_sites_of_a_callable_are_found_by_running_it_on_an_input(prior, start):
    def likelihood(output):
        return dist.Normal(output + pyro.sample("shift", prior).mean(), 1.0)

    network = BayesianNetwork(mlp(3, [], 1), likelihood=likelihood)
    assert [site.name for site in network.latent_sites()] == ["0.weight", "0.bias"]
    site = network.latent_sites(np.zeros((2, 3)))[-1]
    assert site.name == "shift"
    torch.testing.assert_close(site.start, torch.tensor(start), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("net", [lambda x: x, nn.Linear, "net", None])
def test_the_net_must_be_a_module(net):
    message = f"`net` must be a torch.nn.Module, got {type(net).__name__}."
    with pytest.raises(TypeError, match=re.escape(message)):
        BayesianNetwork(net)


@pytest.mark.parametrize("argument", ["prior", "likelihood"])
def test_a_class_in_place_of_an_instance_raises_with_the_remedy(argument):
    value = {"prior": Normal, "likelihood": Gaussian}[argument]
    message = f"`{argument}` must be a callable .*, a class: call it to make an instance"
    with pytest.raises(TypeError, match=message):
        BayesianNetwork(mlp(2, [], 1), **{argument: value})


@pytest.mark.parametrize("argument", ["prior", "likelihood"])
def test_prior_and_likelihood_must_be_callables(argument):
    message = rf"`{argument}` must be a callable such as those of pyrobbb\.{argument}s, got 1\.0"
    with pytest.raises(TypeError, match=message):
        BayesianNetwork(mlp(2, [], 1), **{argument: 1.0})


def test_lazy_parameters_raise():
    net = nn.Sequential(nn.LazyLinear(3), nn.ReLU(), nn.Linear(3, 1))
    message = "`net` has the lazy parameter '0.weight': run the module once on some rows first"
    with pytest.raises(ValueError, match=message):
        BayesianNetwork(net)
    net(torch.zeros(1, 2))
    assert len(BayesianNetwork(net).bayesian_parameters()) == 4


@pytest.mark.parametrize(
    ("prior", "got"),
    [
        (lambda name, p: dist.Normal(0.0, 1.0), "batch shape () and event shape ()"),
        (lambda name, p: dist.Normal(p, 1.0), "batch shape (1, 2) and event shape ()"),
        (lambda name, p: dist.Normal(p, 1.0).to_event(1), "batch shape (1,) and event shape (2,)"),
        (
            lambda name, p: dist.Normal(torch.zeros(2, 1), 1.0).to_event(2),
            "batch shape () and event shape (2, 1)",
        ),
    ],
)
def test_a_prior_must_have_the_shape_of_its_parameter(prior, got):
    message = (
        "`prior` must return a distribution with the event shape of '0.weight', (1, 2), "
        f"got {got}: end it in .expand(parameter.shape).to_event(parameter.dim())."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        BayesianNetwork(mlp(2, [], 1), prior)


def test_a_prior_must_return_distributions():
    with pytest.raises(
        TypeError, match="`prior` must return a distribution or None, got float for"
    ):
        BayesianNetwork(mlp(2, [], 1), lambda name, parameter: 1.0)


@pytest.mark.parametrize(
    ("net", "prior"),
    [
        (mlp(2, [], 1), lambda name, parameter: None),
        (mlp(2, [], 1).requires_grad_(False), None),
        (nn.ReLU(), None),
    ],
    ids=["no priors", "all frozen", "no parameters"],
)
def test_a_network_must_have_a_bayesian_parameter(net, prior):
    with pytest.raises(
        ValueError, match="`prior` must make at least one parameter of `net` Bayesian, got none"
    ):
        BayesianNetwork(net, prior)


@pytest.mark.parametrize("name", ["y", "data", "noise_scale"])
def test_a_parameter_must_not_have_the_name_of_a_site(name):
    net = nn.Linear(2, 1)
    net.register_parameter(name, nn.Parameter(torch.zeros(1)))
    message = (
        f"`net` has a parameter named '{name}', which is the name of another site of the model: "
        "rename the parameter"
    )
    with pytest.raises(ValueError, match=message):
        BayesianNetwork(net)
    if name == "noise_scale":
        assert len(BayesianNetwork(net, likelihood=Gaussian(0.1)).bayesian_parameters()) == 3


def test_a_prior_must_cover_all_real_numbers():
    def positive(name, parameter):
        return dist.HalfNormal(1.0).expand(parameter.shape).to_event(parameter.dim())

    with pytest.raises(
        ValueError, match=r"a distribution over all real numbers for '0\.weight', got Independent"
    ):
        BayesianNetwork(mlp(2, [], 1), positive)
    with pytest.raises(
        TypeError, match=r"`prior` must be a callable such as those of pyrobbb\.priors"
    ):
        BayesianNetwork(mlp(2, [], 1), dist.Normal(0.0, 1.0))
