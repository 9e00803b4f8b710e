"""fit(start=...): warm starts from an initial posterior, and data in two parts."""

import copy

import numpy as np
import pytest
import support
import torch
from conjugate import NOISE, LinearRegression
from torch import nn

from pyrobbb import BayesianNetwork, MeanFieldGuide, Posterior, likelihoods, mlp, priors
from pyrobbb.elbo.fused_loss import FusedLoss
from pyrobbb.engines.fused import FusedEngine

RNG = np.random.default_rng(0)
X = RNG.normal(size=(23, 3))
Y = X.sum(1, keepdims=True) + RNG.normal(size=(23, 1))
POINTS = priors.ByName({"2.bias": None}, default=priors.Normal())
ENGINES = ["auto", "svi", "fused", pytest.param("compiled", marks=pytest.mark.slow)]


class Shifted(nn.Module):
    """A module with a buffer."""

    def __init__(self, shift=0.0):
        super().__init__()
        self.net = mlp(3, [4], 1, "tanh", seed=0).double()
        self.register_buffer("shift", torch.full((1,), shift).double())

    def forward(self, x):
        return self.net(x) + self.shift


def network(prior=POINTS, **kwargs):
    return support.small_network(prior=prior, **kwargs)


def quick_fit(net=None, x=X, y=Y, **kwargs):
    net = network() if net is None else net
    return support.quick_fit(net, x, y, **{"engine": "auto", "seed": 5, **kwargs})


def learned(posterior):
    points = [point for _, point in posterior.network.point_parameters()]
    return [p.detach().clone() for p in (*posterior.guide.parameters(), *points)]


def assert_same_fit(one, other, tolerance=0.0):
    torch.testing.assert_close(learned(one), learned(other), rtol=tolerance, atol=tolerance)
    for name in ("nll", "kl"):
        values = getattr(one.history, name), getattr(other.history, name)
        np.testing.assert_allclose(*values, rtol=tolerance)


# The starting point


@pytest.mark.parametrize(
    ("engine", "guide"),
    [
        ("svi", "auto_normal"),
        ("svi", "mean_field"),
        ("auto", "mean_field"),
        ("fused", "mean_field"),
        ("compiled", "mean_field"),
    ],
)
def test_warm_start_is_a_fit_of_the_network_and_a_copy_of_the_guide(engine, guide):
    before = quick_fit(guide=guide, engine=engine)
    options = {"epochs": 8, "seed": 9, "kl_warmup": 0.0, "engine": engine}
    after = quick_fit(start=before, guide=guide, **options)
    by_hand = quick_fit(before.network, guide=copy.deepcopy(before.guide), **options)
    assert_same_fit(after, by_hand)
    assert after.history.nelbo[0] != quick_fit(guide=guide, **options).history.nelbo[0]


@pytest.mark.parametrize("engine", ENGINES)
def test_first_loss_is_that_of_the_initial_posterior(engine, monkeypatch):
    """Without noise: the loss at its means, by the module and torch's densities."""
    before = quick_fit()
    monkeypatch.setattr(
        FusedEngine,
        "noise_at",
        lambda self, positions, functional=False: torch.zeros(
            *positions.shape, len(self.chains[0].guide.loc)
        ).double(),
    )
    if engine == "svi":
        monkeypatch.setattr(
            "pyro.distributions.Normal.rsample",
            lambda self, shape=(): self.loc.expand(shape + self.loc.shape),
        )
    after = quick_fit(start=before, engine=engine, batch_size=23)
    values = before.guide.split(before.guide.loc.detach())
    noise_scale = values.pop("noise_scale").exp()
    output = torch.func.functional_call(before.network.net, values, (torch.as_tensor(X),))
    nll = -torch.distributions.Normal(output, noise_scale).log_prob(torch.as_tensor(Y)).sum()
    assert after.history.nll[0] == pytest.approx(nll.item(), rel=1e-10)


@pytest.mark.parametrize("engine", ENGINES)
def test_warm_start_at_a_vanishing_learning_rate_stays_at_the_initial_posterior(engine):
    before = quick_fit()
    after = quick_fit(start=before, engine=engine, lr=1e-14)
    torch.testing.assert_close(learned(after), learned(before), rtol=0, atol=1e-11)
    start = MeanFieldGuide(network()).loc.detach()
    assert ((after.guide.loc.detach() - start).abs() > 1e-3).all()


def test_initial_posterior_and_network_are_unchanged():
    before, net = quick_fit(restarts=2), network()
    states = [
        copy.deepcopy(module.state_dict())
        for chain in before.chains
        for module in (chain.network, chain.guide)
    ]
    state = copy.deepcopy(net.state_dict())
    quick_fit(net, start=before)
    after = [m.state_dict() for chain in before.chains for m in (chain.network, chain.guide)]
    torch.testing.assert_close(after, states, rtol=0, atol=0)
    torch.testing.assert_close(net.state_dict(), state, rtol=0, atol=0)


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("engine", ENGINES)
def test_each_chain_starts_from_the_same_chain_of_the_initial_posterior(engine, restarts):
    before = quick_fit(restarts=3)
    after = quick_fit(start=before, restarts=restarts, engine=engine)
    assert len(after.chains) == 3
    for r, (chain, initial) in enumerate(zip(after.chains, before.chains, strict=True)):
        assert chain.settings["seed"] == 5 + r
        alone = quick_fit(start=Posterior((initial,)), seed=5 + r, engine=engine)
        assert_same_fit(chain, alone, tolerance=1e-9)


def test_warm_start_loads_buffers_but_not_frozen_parameters():
    initial = BayesianNetwork(Shifted(2.5))
    initial.net.net[0].bias.requires_grad_(False).fill_(7.0)
    initial = BayesianNetwork(initial.net)
    module = Shifted()
    module.net[0].bias.requires_grad_(False)
    bias = module.net[0].bias.clone()
    after = quick_fit(BayesianNetwork(module), start=quick_fit(initial))
    assert after.network.net.shift.item() == 2.5
    assert torch.equal(after.network.net.net[0].bias, bias)
    assert module.shift.item() == 0.0


def test_point_parameter_may_be_frozen_in_a_warm_start():
    before = quick_fit()
    before.network.net[2].bias.requires_grad_(False)
    after = quick_fit(BayesianNetwork(before.network.net, POINTS), start=before)
    assert torch.equal(after.network.net[2].bias, before.network.net[2].bias)


@pytest.mark.parametrize("guide", ["mean_field", "auto_normal"])
def test_warm_start_from_a_loaded_posterior(tmp_path, guide):
    before = quick_fit(guide=guide)
    before.save(tmp_path / "posterior")
    loaded = Posterior.load(tmp_path / "posterior")
    assert_same_fit(quick_fit(start=loaded, guide=guide), quick_fit(start=before, guide=guide))


def test_sites_may_be_in_a_different_order():
    class Swapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.b, self.a = nn.Linear(3, 1).double(), nn.Linear(3, 1).double()

        def forward(self, x):
            return self.a(x) + self.b(x)

    class Straight(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 1).double(), nn.Linear(3, 1).double()

        def forward(self, x):
            return self.a(x) + self.b(x)

    before = quick_fit(BayesianNetwork(Straight()))
    after = quick_fit(BayesianNetwork(Swapped()), start=before, lr=1e-14)
    for part in ("loc", "scale"):
        values = [p.guide.split(getattr(p.guide, part).detach()) for p in (after, before)]
        torch.testing.assert_close(*values, rtol=0, atol=1e-11)


# Invalid arguments


def test_initial_posteriors_that_do_not_match_are_refused():
    before = quick_fit()
    mistakes = [
        (network(), {"start": before.guide}, TypeError, "`start` must be a Posterior, got MeanF"),
        (
            network(),
            {"start": before, "guide": "auto_normal"},
            ValueError,
            "`guide` must be the kind of guide that `start` was fitted with, a MeanFieldGuide, "
            "got a _LocalAutoNormal",
        ),
        (
            network(),
            {"start": before, "guide": before.guide},
            ValueError,
            "`start` needs guide='mean_field', 'low_rank' or 'auto_normal', got a custom guide",
        ),
        (
            network(),
            {"start": before, "restarts": 3},
            ValueError,
            "`restarts` must be the number of chains of `start`, 1, got 3: leave it out",
        ),
        (
            BayesianNetwork(mlp(3, [5], 1, "tanh").double(), POINTS),
            {"start": before},
            ValueError,
            r"same sites of the guide as the fit: '0\.weight\.loc' has shape \(5, 3\) in the fit "
            r"and \(4, 3\) in `start`",
        ),
        (
            network(likelihood=likelihoods.Gaussian(1.0)),
            {"start": before},
            ValueError,
            r"same sites of the guide as the fit: 'noise_scale\.loc' has shape none in the fit "
            r"and \(",
        ),
        (
            network(priors.Normal()),
            {"start": before},
            ValueError,
            r"same sites of the guide as the fit: '2\.bias\.loc' has shape \(1,\) in the fit "
            r"and none in `start`",
        ),
    ]
    for net, options, kind, message in mistakes:
        with pytest.raises(kind, match=message):
            quick_fit(net, **options)


def test_point_parameters_and_buffers_that_do_not_match_are_named():
    class Scaled(nn.Module):
        def __init__(self, n, n_buffer):
            super().__init__()
            self.net = nn.Linear(3, 1).double()
            self.gain = nn.Parameter(torch.ones(n).double())
            self.register_buffer("shift", torch.zeros(n_buffer).double())

        def forward(self, x):
            return self.net(x) * self.gain.mean() + self.shift.sum()

    def make(n, n_buffer):
        return BayesianNetwork(Scaled(n, n_buffer), priors.ByName({"gain": None}))

    before = quick_fit(make(1, 2))
    with pytest.raises(
        ValueError, match=r"same point parameters of the network as the fit: 'gain'"
    ):
        quick_fit(make(2, 2), start=before)
    with pytest.raises(
        ValueError, match=r"'shift' has shape \(3,\) in the fit and \(2,\) in `start`"
    ):
        quick_fit(make(1, 3), start=before)


# Data in parts: the posterior becomes the prior


def as_prior(posterior):
    guide = posterior.guide
    return priors.Given(guide.split(guide.loc), guide.split(guide.scale))


@pytest.mark.slow  # tests/posterior/test_updating.py does it by `update`
def test_posterior_of_two_halves_in_sequence_is_that_of_all_data():
    """On an orthogonal design the exact posterior factorises, and so mean field is exact."""
    levels = torch.tensor([-1.0, 1.0]).double()
    x = torch.cartesian_prod(levels, levels, levels).repeat(8, 1)
    torch.manual_seed(0)
    y = x @ torch.tensor([[1.0], [-0.5], [0.2]]).double() + 0.3
    halves = LinearRegression(x, y + NOISE * torch.randn_like(y))
    net = halves.network
    options = {"objective": "mean_field", "n_particles": 8, "batch_size": 32, "epochs": 3000}
    first = quick_fit(net, x[:32], halves.y[:32], engine="fused", **options)
    second = quick_fit(
        BayesianNetwork(net.net, as_prior(first), net.likelihood),
        x[32:],
        halves.y[32:],
        start=first,
        engine="fused",
        **options,
    )
    mean, covariance = halves.exact()
    sd = covariance.diagonal().sqrt()
    assert (covariance - covariance.diagonal().diag()).abs().max() < 1e-12
    assert (((second.guide.loc - mean) / sd).abs() < 0.1).all()
    torch.testing.assert_close(second.guide.scale.detach(), sd, rtol=0.03, atol=0)
    assert ((first.guide.scale / sd) > 1.2).all()


def test_kl_divergence_is_zero_if_the_prior_is_the_posterior():
    posterior = quick_fit(network(priors.Normal(), likelihood=likelihoods.Gaussian(0.5)))
    net = BayesianNetwork(posterior.network.net, as_prior(posterior), likelihoods.Gaussian(0.5))
    guide = posterior.guide
    loss = FusedLoss(net, guide, closed_form_kl=True)
    x, y = net.prepare(X, Y)
    step = loss((guide.loc.detach(), guide.rho.detach()), (), loss.noise(), x, y)
    assert abs(step.kl.item()) < 1e-10
