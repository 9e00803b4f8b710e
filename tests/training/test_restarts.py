"""fit(restarts=n): each chain is a separate fit, side by side or one after another."""

import functools
import logging

import numpy as np
import pytest
import support
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pyrobbb import (
    BayesianNetwork,
    LowRankGuide,
    MeanFieldGuide,
    NonFiniteLossError,
    Posterior,
    auto_normal,
    fit,
    likelihoods,
    mlp,
    priors,
)
from pyrobbb.engines import fused as fused_engine
from pyrobbb.training import restarts

RNG = np.random.default_rng(0)
X = RNG.normal(size=(23, 3))
Y = X.sum(1, keepdims=True)


network = support.small_network
quick_fit = functools.partial(support.quick_fit, x=X, y=Y, epochs=5, seed=5)


class Swish(nn.Module):
    """x sigmoid(slope x), whose slope is a single number."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.0))
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.constant_(self.slope, 2.0)

    def forward(self, x):
        return x * torch.sigmoid(self.slope * x)


def network_of(*layers, prior=None):
    torch.manual_seed(0)
    return BayesianNetwork(nn.Sequential(*layers).double(), prior or priors.Normal())


def assert_chains_are_fits(make, tolerance, n=3, **options):
    """Check that chain r is the fit from its initial weights with its seed."""
    together = quick_fit(make(), restarts=n, **options)
    assert len(together.chains) == n
    for r, chain in enumerate(together.chains):
        start = make() if r == 0 else restarts.fresh_start(make(), 5 + r)
        alone = quick_fit(start, **{**options, "seed": 5 + r})
        assert chain.settings == alone.settings
        state, expected = chain.network.state_dict(), alone.network.state_dict()
        torch.testing.assert_close(state, expected, rtol=tolerance, atol=tolerance)
        guide, expected = chain.guide.state_dict(), alone.guide.state_dict()
        torch.testing.assert_close(guide, expected, rtol=tolerance, atol=tolerance)
        for name in ("nelbo", "nll", "kl", "epoch", "n_rows", "validation_nll"):
            np.testing.assert_allclose(
                getattr(chain.history, name), getattr(alone.history, name), rtol=tolerance
            )
    ends = [
        torch.cat([v.flatten() for v in c.guide.state_dict().values()]) for c in together.chains
    ]
    assert not any(torch.equal(ends[r], ends[0]) for r in range(1, n))
    return together


@pytest.fixture
def n_side_by_side(monkeypatch):
    """Record the number of chains of each fused engine."""
    counts = []
    original = fused_engine.FusedEngine.__init__

    def init(self, chains, **kwargs):
        counts.append(len(chains))
        original(self, chains, **kwargs)

    monkeypatch.setattr(fused_engine.FusedEngine, "__init__", init)
    return counts


SIDE_BY_SIDE = {
    "ragged batches": (network, {}),
    "full batch": (network, {"batch_size": 23}),
    "two draws, closed-form KL": (network, {"n_particles": 2, "objective": "mean_field"}),
    "clipped separately": (network, {"clip_norm": 20.0}),
    "a number as a point, clipped": (
        lambda: network_of(
            nn.Linear(3, 4),
            Swish(),
            nn.Linear(4, 1),
            prior=priors.ByName({"1.*": None}),
        ),
        {"clip_norm": 20.0},
    ),
    "weight decay": (
        network,
        {"optimizer": functools.partial(torch.optim.AdamW, weight_decay=0.5)},
    ),
    "points": (lambda: network(prior=priors.ByName({"2.*": None})), {}),
    "another prior and likelihood": (
        lambda: network(prior=priors.Laplace(), likelihood=likelihoods.StudentT()),
        {"kl_weight": "blundell"},
    ),
    "learned scales": (lambda: network(prior=priors.ScaleMixture(scale1="learned")), {}),
    "learned scales, two draws, closed-form KL": (
        lambda: network(prior=priors.Normal("learned")),
        {"n_particles": 2, "objective": "mean_field"},
    ),
    "weighted rows": (network, {"sample_weight": RNG.integers(0, 4, size=23)}),
    "weighted rows, full batch": (network, {"sample_weight": X[:, 0] ** 2, "batch_size": 23}),
    "automatic": (network, {"engine": "auto"}),
    "low rank": (network, {"guide": "low_rank"}),
    "low rank, particles": (network, {"guide": "low_rank", "n_particles": 2}),
}


@pytest.mark.parametrize("case", SIDE_BY_SIDE)
def test_chains_side_by_side_are_separate_fits(n_side_by_side, case):
    make, options = SIDE_BY_SIDE[case]
    assert_chains_are_fits(make, 1e-9, **options)
    assert n_side_by_side == [3, 1, 1, 1]


def test_chains_of_a_compiled_fit_are_separate_fits(n_side_by_side):
    together = assert_chains_are_fits(network, 1e-9, engine="compiled")
    assert n_side_by_side == [3, 1, 1, 1]
    assert [chain.settings["engine"] for chain in together.chains] == ["compiled"] * 3


@pytest.mark.parametrize("engine", ["fused", "svi"])
@pytest.mark.parametrize("kind", [MeanFieldGuide, functools.partial(LowRankGuide, rank=2)])
def test_further_chains_have_a_new_guide_like_the_one_given(kind, engine):
    guide = kind(network(), init_scale=0.01)
    together = quick_fit(network(), guide=guide, restarts=2, engine=engine)
    assert together.chains[0].guide is guide
    start = restarts.fresh_start(network(), 6)
    alone = quick_fit(start, guide=kind(start, init_scale=0.01), seed=6, engine=engine)
    torch.testing.assert_close(
        together.chains[1].guide.state_dict(), alone.guide.state_dict(), rtol=1e-9, atol=1e-9
    )


ONE_AFTER_ANOTHER = {
    "Pyro's SVI": (network, {"engine": "svi"}),
    "Pyro's autoguide": (network, {"guide": "auto_normal", "engine": "auto"}),
    "validation": (network, {"validation": (X, Y), "patience": 2}),
    "batch norm": (lambda: network_of(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), {}),
    "dropout": (lambda: network_of(nn.Linear(3, 4), nn.Dropout(0.3), nn.Linear(4, 1)), {}),
    "SGD": (network, {"optimizer": torch.optim.SGD, "lr": 1e-4}),
}


@pytest.mark.parametrize("case", ONE_AFTER_ANOTHER)
def test_chains_that_cannot_share_steps_run_one_after_another(n_side_by_side, case):
    make, options = ONE_AFTER_ANOTHER[case]
    assert_chains_are_fits(make, 0.0, n=2, **options)
    assert set(n_side_by_side) <= {1}


def test_attributes_of_a_chain_need_a_posterior_with_a_single_chain():
    posterior = quick_fit(network(), restarts=3)
    assert [chain.settings["seed"] for chain in posterior.chains] == [5, 6, 7]
    single = Posterior(posterior.chains[1:2])
    for name in ("network", "guide", "history", "example", "settings"):
        assert getattr(single, name) is getattr(posterior.chains[1], name)
        with pytest.raises(AttributeError, match=rf"has 3 chains: .* posterior.chains\[0\].{name}"):
            getattr(posterior, name)
    assert len(quick_fit(network()).chains) == 1
    assert len(quick_fit(network(), restarts=1).chains) == 1
    assert all(
        not module.training for chain in posterior.chains for module in chain.network.modules()
    )


def test_network_and_random_state_of_the_caller_are_unchanged():
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    quick_fit(net, restarts=2)
    restarts.fresh_start(net, 3)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)


# Fresh starts


def test_fresh_start_is_the_initialisation_of_the_modules_at_the_seed():
    fresh = restarts.fresh_start(network(), 7)
    torch.manual_seed(7)
    expected = mlp(3, [4], 1, "tanh", seed=0).double()
    for module in expected:
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    for parameter, other in zip(fresh.net.parameters(), expected.parameters(), strict=True):
        assert torch.equal(parameter, other)


def half_frozen():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)).double()
    with torch.no_grad():
        net[1].running_mean.fill_(0.25)
        for parameter in net.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape))
    net[:2].requires_grad_(False)
    net[3].bias.requires_grad_(False)
    bayesian = BayesianNetwork(net)
    net[1].eval()
    return bayesian


def test_frozen_parameters_are_kept_in_a_fresh_start():
    start, fresh = half_frozen().net.state_dict(), restarts.fresh_start(half_frozen(), 3).net
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, start[name]) == (name != "3.weight"), name


def test_chains_of_a_network_with_a_frozen_layer_are_separate_fits(n_side_by_side):
    def make():
        net = mlp(3, [4, 4], 1, "tanh", seed=0).double()
        net[0].requires_grad_(False)
        return BayesianNetwork(net)

    together = assert_chains_are_fits(make, 1e-9)
    assert n_side_by_side == [3, 1, 1, 1]
    frozen = make().net[0].weight
    assert all(torch.equal(chain.network.net[0].weight, frozen) for chain in together.chains)
    assert_chains_are_fits(half_frozen, 0.0, n=2)


def test_module_without_reset_parameters_is_named(caplog):
    class Gain(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(1).double())

        def forward(self, x):
            return self.gain * x

    fresh = restarts.fresh_start(network_of(nn.Linear(3, 1), Gain()), 3)
    assert fresh.net[1].gain.item() == 1.0
    (record,) = caplog.records
    assert record.getMessage() == (
        "Gain has no reset_parameters: each restart starts from its current weights."
    )
    assert record.levelno == logging.WARNING


# Interruptions and invalid arguments


def test_chain_that_is_not_finite_stops_the_fit():
    with pytest.raises(NonFiniteLossError, match=r"not finite at step \d+: .* holds NaN"):
        quick_fit(network(), restarts=3, lr=1e300)


def test_ctrl_c_returns_all_chains_so_far(monkeypatch, caplog):
    original, calls = fused_engine.FusedEngine.step_at, []

    def step_at(self, *args):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return original(self, *args)

    whole = quick_fit(network(), restarts=2)
    monkeypatch.setattr(fused_engine.FusedEngine, "step_at", step_at)
    interrupted = quick_fit(network(), restarts=2)
    assert "Interrupted after 7 steps" in caplog.text
    for chain, full in zip(interrupted.chains, whole.chains, strict=True):
        np.testing.assert_array_equal(chain.history.nelbo, full.history.nelbo[:7])
        assert (chain.guide.loc != full.guide.loc).all()
        assert (chain.guide.loc != MeanFieldGuide(chain.network).loc).all()


def test_restarts_need_a_count_arrays_and_a_known_guide():
    with pytest.raises(ValueError, match="`restarts` must be at least 1, got 0"):
        quick_fit(network(), restarts=0)
    with pytest.raises(TypeError, match=r"`restarts` must be a whole number, got 2\.5"):
        quick_fit(network(), restarts=2.5)
    net = network()
    with pytest.raises(ValueError, match="`restarts` needs guide='mean_field', 'low_rank' or"):
        quick_fit(net, restarts=2, guide=auto_normal(net))
    loader = DataLoader(TensorDataset(torch.as_tensor(X), torch.as_tensor(Y)))
    with pytest.raises(ValueError, match="`restarts` needs x and y in memory, got a DataLoader"):
        fit(net, loader, n_data=23, restarts=2)


def test_ctrl_c_ends_the_remaining_restarts(caplog):
    class Interrupting(nn.Module):
        calls = 0

        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 1)

        def forward(self, x):
            is_step = self.training and torch.is_grad_enabled()  # not a trial run
            type(self).calls += is_step
            if is_step and type(self).calls == 20:  # in the second fit
                raise KeyboardInterrupt
            return self.net(x)

    posterior = quick_fit(BayesianNetwork(Interrupting().double()), engine="svi", restarts=4)
    assert [len(chain.history.nll) for chain in posterior.chains] == [15, 4]
    assert "Interrupted after 4 steps" in caplog.text
