"""Priors around a trained network: their density, transfer by them, storage, and refusals."""

import copy

import numpy as np
import pytest
import scipy.stats
import torch
from support import X, Y, assert_equal, quick_fit, shared_fit, small_network
from torch import nn

from pyrobbb import BayesianNetwork, MeanFieldGuide, Posterior, auto_normal, fit, mlp
from pyrobbb.priors import Around, ByName, FanInNormal, Normal
from pyrobbb.training import fresh_start


def trained_net(n_steps=400, hidden=(8,), x=X, y=Y, n_out=1):
    """Return a network that torch alone has trained on the mean square error."""
    net = mlp(x.shape[1], list(hidden), n_out, "tanh", seed=3).double()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    inputs, targets = torch.tensor(x), torch.tensor(y)
    for _ in range(n_steps):
        optimizer.zero_grad()
        (net(inputs) - targets).square().mean().backward()
        optimizer.step()
    return net


NET = trained_net()
SOURCES = {
    "module": NET,
    "state dict": NET.state_dict(),
    "mapping": dict(NET.named_parameters()),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("relative", [False, True])
def test_the_density_is_normal_around_the_weights(source, relative):
    prior = Around(SOURCES[source], 0.3, relative=relative)
    for name, parameter in NET.named_parameters():
        loc = parameter.detach().numpy()
        value = torch.randn(parameter.shape, dtype=torch.float64)
        scale = 0.3 * np.abs(loc) if relative else 0.3
        expected = scipy.stats.norm(loc, scale).logpdf(value.numpy()).sum()
        distribution = prior(name, parameter)
        assert float(distribution.log_prob(value)) == pytest.approx(expected)
        assert distribution.event_shape == parameter.shape


def test_weights_near_0_have_a_thousandth_of_the_typical_relative_scale():
    weights = torch.tensor([3.0, 4.0, 0.0, 0.0, 1e-9])  # root mean square sqrt(5)
    scale = Around({"w": weights}, 0.1, relative=True)("w", weights).base_dist.scale
    floor = 0.1 * 1e-3 * 5**0.5
    torch.testing.assert_close(scale, torch.tensor([0.3, 0.4, floor, floor, floor]))
    zeros = torch.zeros(3)
    scale = Around({"w": zeros}, 0.1, relative=True)("w", zeros).base_dist.scale
    torch.testing.assert_close(scale, torch.full((3,), 1e-4))


def test_the_weights_are_copied():
    net = copy.deepcopy(NET)
    prior = Around(net)
    with torch.no_grad():
        net[0].weight.zero_()
    assert torch.equal(prior("0.weight", net[0].weight).mean, NET[0].weight)
    assert repr(Around({"w": torch.ones(1)}, 2.0)) == "Around(w, scale=2.0)"
    assert repr(Around({"w": torch.ones(1)}, 0.1, True)) == "Around(w, scale=0.1, relative=True)"


def test_a_posterior_gives_its_means_and_point_parameters():
    posterior = quick_fit(small_network(prior=ByName({"2.bias": None})))
    prior, guide = Around(posterior, 0.2), posterior.guide
    means = guide.split(guide.loc.detach())
    for name, parameter in posterior.network.net.named_parameters():
        expected = parameter if name == "2.bias" else means[name]
        assert torch.equal(prior(name, parameter).mean, expected)


@pytest.mark.parametrize("make_guide", [MeanFieldGuide, auto_normal])
def test_point_predictions_at_the_start_are_those_of_the_net(make_guide):
    network = BayesianNetwork(NET, Around(NET, 0.1))
    guide = make_guide(network)
    x = torch.tensor(X)
    guide(x)
    medians = guide.median() if make_guide is auto_normal else guide.split(guide.loc)
    weights = {name: medians[name] for name, _ in NET.named_parameters()}
    torch.testing.assert_close(torch.func.functional_call(NET, weights, x), NET(x))


def held_out_nll(net, x, y, x_new, y_new):
    """Return the NLL of new rows by a network with the noise that is the likeliest for its rows."""
    with torch.no_grad():
        residuals, new = (net(torch.tensor(a)).numpy() - b for a, b in ((x, y), (x_new, y_new)))
    return -scipy.stats.norm(0, residuals.std()).logpdf(new).mean()


def smooth(n, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    return x, np.sin(x[:, :1]) + x[:, 1:2] * x[:, 2:] / 2 + shift + 0.3 * rng.normal(size=(n, 1))


@pytest.mark.parametrize("options", [{}, {"init": "map"}, {"restarts": 2}], ids=str)
@pytest.mark.parametrize(("scale", "relative"), [(0.1, False), (0.2, True)])
def test_the_posterior_is_not_worse_than_the_trained_net(scale, relative, options):
    (x, y), new = smooth(150, 0), smooth(1000, 1)
    net = trained_net(600, (20,), x, y)
    network = BayesianNetwork(net, Around(net, scale, relative=relative))
    posterior = fit(network, x, y, epochs=300, engine="fused", seed=0, progress=False, **options)
    nll = -posterior.predict(new[0], seed=0).log_prob(new[1]).mean()
    assert nll < held_out_nll(net, x, y, *new)


def test_few_rows_of_another_task_are_learned_better_than_without_the_net():
    (x, y), few, new = smooth(300, 0), smooth(20, 1, shift=0.5), smooth(1000, 2, shift=0.5)
    net = trained_net(600, (20,), x, y)
    nll = []
    for network in (
        BayesianNetwork(net, Around(net, 0.1)),
        BayesianNetwork(mlp(3, [20], 1, "tanh", seed=0).double()),
    ):
        posterior = fit(network, *few, epochs=1000, engine="fused", seed=0, progress=False)
        nll.append(-posterior.predict(new[0], seed=0).log_prob(new[1]).mean())
    assert nll[0] < nll[1] - 0.1
    assert nll[0] < held_out_nll(net, *few, *new)


# Restarts


def test_a_fresh_start_keeps_the_weights_of_the_trained_net():
    fresh = fresh_start(BayesianNetwork(NET, Around(NET, 0.1)), 5).net
    torch.testing.assert_close(fresh.state_dict(), NET.state_dict(), rtol=0, atol=0)
    head = ByName({"2.*": Normal()}, default=ByName({"*.bias": None}, default=Around(NET, 0.1)))
    fresh = fresh_start(BayesianNetwork(NET, head), 5).net
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, NET.state_dict()[name]) == name.startswith("0."), name


def test_buffers_of_kept_parameters_are_kept_in_a_fresh_start():
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1)).double()
    net[1].running_mean.fill_(0.5)
    network = BayesianNetwork(net, ByName({"1.*": None, "2.*": Normal()}, default=Around(net)))
    fresh = fresh_start(network, 0).net
    assert torch.equal(fresh[1].running_mean, net[1].running_mean)
    assert torch.equal(fresh[0].weight, net[0].weight)
    assert not torch.equal(fresh[2].weight, net[2].weight)


def test_all_restarts_start_at_the_trained_net():
    network = BayesianNetwork(NET, Around(NET, 0.1))
    posterior = quick_fit(network, restarts=3, lr=1e-12)
    for chain in posterior.chains:
        means = chain.guide.split(chain.guide.loc.detach())
        for name, parameter in NET.named_parameters():
            torch.testing.assert_close(means[name], parameter.detach(), rtol=0, atol=1e-10)


# Storage


@pytest.mark.parametrize(
    "prior",
    [
        Around(NET, 0.2),
        Around(NET, 0.2, relative=True),
        ByName({"2.*": FanInNormal()}, default=Around(NET, 0.5)),
        ByName({"0.*": Around(NET, 0.5), "2.*": Around(NET.state_dict(), 0.1)}),
    ],
    ids=str,
)
def test_the_prior_is_stored(tmp_path, prior):
    net = mlp(3, [8], 1, "tanh", seed=0).double()
    posterior = quick_fit(BayesianNetwork(net, prior), restarts=2)
    posterior.save(tmp_path / "saved")
    loaded = Posterior.load(tmp_path / "saved")
    assert_equal(loaded, posterior)
    for name, parameter in net.named_parameters():
        one, other = (p.chains[0].network.prior(name, parameter) for p in (loaded, posterior))
        assert torch.equal(one.mean, other.mean)
        assert torch.equal(one.variance, other.variance)


def test_a_killed_fit_continues(tmp_path):
    network = BayesianNetwork(NET, Around(NET, 0.1))
    one = quick_fit(network, checkpoint=tmp_path, every=1)
    assert_equal(quick_fit(network, checkpoint=tmp_path, every=1), one)
    other = BayesianNetwork(NET, Around(trained_net(10), 0.1))
    with pytest.raises(ValueError, match="belongs to another fit: its 'prior' differs"):
        quick_fit(other, checkpoint=tmp_path, every=1)


# Refusals


REFUSED = {
    "no net": (lambda: Around(0.1), TypeError, "`net` must be an nn.Module, a mapping .* got 0.1"),
    "class": (lambda: Around(nn.Linear), TypeError, "`net` must be an nn.Module"),
    "lists": (lambda: Around({"w": [1.0]}), TypeError, "`net` must be an nn.Module"),
    "NaN": (lambda: Around({"w": torch.tensor([np.nan])}), ValueError, "finite, .* for 'w'"),
    "scale": (lambda: Around(NET, 0.0), ValueError, "`scale` must be positive, got 0.0"),
    "relative": (lambda: Around(NET, 0.1, 2), TypeError, "`relative` must be True or False, got 2"),
    "wrapped": (
        lambda: BayesianNetwork(NET, Around(nn.Sequential(NET))),
        ValueError,
        "`net` has no parameter '0.weight', only 0.0.weight, .* rename its weights, or",
    ),
    "wider": (
        lambda: BayesianNetwork(NET, Around(mlp(3, [9], 1).double())),
        ValueError,
        r"`net` has '0.weight' of shape \(9, 3\), but the parameter has the shape \(8, 3\)",
    ),
    "several chains": (
        lambda: Around(shared_fit(restarts=2)),
        ValueError,
        "a posterior with a single chain, got one with 2",
    ),
    "guide": (
        lambda: Around(quick_fit(guide="auto_normal", engine="svi", epochs=1)),
        TypeError,
        "a posterior with a MeanFieldGuide, got a",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case):
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        call()
