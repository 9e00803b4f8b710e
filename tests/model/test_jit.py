"""Pyro's Jit objectives on networks, against the same objectives without Jit."""

import copy

import pyro
import pyro.poutine as poutine
import pytest
import torch
from modules import LastState, Tied, batch_norm
from pyro.infer import (
    SVI,
    JitTrace_ELBO,
    JitTraceEnum_ELBO,
    JitTraceGraph_ELBO,
    JitTraceMeanField_ELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from torch import nn

from pyrobbb import BayesianNetwork, LowRankGuide, MeanFieldGuide, mlp
from pyrobbb.likelihoods import Categorical, StudentT
from pyrobbb.model.guides import auto_normal
from pyrobbb.priors import ByName, Normal, ScaleMixture

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:TraceEnum_ELBO found no sample sites"),
]

X = torch.linspace(-1, 1, 36).double().reshape(12, 3)
POINTS = ByName({"*.bias": None})
NETWORKS = {
    "perceptron": (lambda: mlp(3, [4], 1, "tanh", seed=0), None, None, X),
    "points": (lambda: mlp(3, [4], 1, "tanh", seed=0), POINTS, None, X),
    "learned scales": (
        lambda: mlp(3, [4], 1, "tanh", seed=0),
        ByName({"0.*": Normal("learned"), "2.bias": ScaleMixture(scale1="learned")}),
        None,
        X,
    ),
    "classes": (lambda: mlp(3, [4], 4, "tanh", seed=0), Normal(1.0), Categorical(), X),
    "latent degrees": (lambda: mlp(3, [], 1, seed=0), None, StudentT(), X),
    "tied weights": (Tied, None, None, X),
    "LSTM": (LastState, None, None, X.reshape(6, 3, 2)),
    "batch norm": (batch_norm, ByName({"1.*": None}), None, X),
    "convolution": (
        lambda: nn.Sequential(nn.Conv1d(1, 2, 2), nn.Flatten()),
        None,
        None,
        X[:, None],
    ),
}
GUIDES = {
    "mean_field": MeanFieldGuide,
    "low_rank": LowRankGuide,
    "auto_normal": auto_normal,
    "AutoNormal": lambda network: AutoNormal(poutine.block(network, hide=["y"])),
    "AutoDiagonalNormal": lambda n: AutoDiagonalNormal(poutine.block(n, hide=["y"])),
}


def make(name):
    module, prior, likelihood, x = NETWORKS[name]
    torch.manual_seed(0)
    network = BayesianNetwork(module().double(), prior, likelihood)
    output = network.net(x).detach()
    return network, x, output.argmax(-1) if likelihood == Categorical() else output.cos()


def tensors(network, guide):
    return [*guide.parameters(), *(point for _, point in network.point_parameters())]


def loss_and_gradients(elbo, network, guide, *args, **kwargs):
    for parameter in tensors(network, guide):
        parameter.grad = None
    torch.manual_seed(3)
    loss = elbo.loss_and_grads(network, guide, *args, **kwargs)
    return torch.tensor(loss, dtype=torch.float64), [
        parameter.grad for parameter in tensors(network, guide)
    ]


def assert_same(name, guide_name, jit, plain):
    network, x, y = make(name)
    guide = GUIDES[guide_name](network)
    guide(x, y)
    for rows, kwargs in ((slice(None), {}), (slice(5), {"n_data": 12}), (slice(3), {"n_data": 12})):
        data = x[rows], y[rows]
        buffers = copy.deepcopy(network.net.state_dict())
        for elbo in (jit, plain):  # compiles, and counts plates
            elbo.loss_and_grads(network, guide, *data, **kwargs)
        results = []
        for elbo in (jit, plain):
            network.net.load_state_dict(buffers)
            results.append(loss_and_gradients(elbo, network, guide, *data, **kwargs))
            buffers_now = copy.deepcopy(dict(network.net.named_buffers()))
            buffers_now.pop("1.num_batches_tracked", None)  # torch.jit.trace omits its update
            results[-1] += (buffers_now,)
        # Pyro's Jit computes the scale of a plate, n_data / n_rows, in single precision.
        torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_loss_and_gradients_are_those_without_jit(name):
    assert_same(name, "mean_field", JitTrace_ELBO(ignore_jit_warnings=True), Trace_ELBO())


# torch.jit draws other noise for a low-rank normal from the same seed, also for Pyro's own guide.
@pytest.mark.parametrize("guide", [name for name in GUIDES if name != "low_rank"])
@pytest.mark.parametrize(
    ("jit", "plain", "options"),
    [
        (JitTrace_ELBO, Trace_ELBO, {"num_particles": 2, "vectorize_particles": True}),
        (JitTraceGraph_ELBO, TraceGraph_ELBO, {"max_plate_nesting": 1}),
        (JitTraceEnum_ELBO, TraceEnum_ELBO, {"max_plate_nesting": 1}),
    ],
)
def test_other_objectives_and_guides_agree_with_those_without_jit(jit, plain, options, guide):
    assert_same("points", guide, jit(ignore_jit_warnings=True, **options), plain(**options))


@pytest.mark.parametrize("guide", GUIDES)
def test_the_loss_with_closed_form_kl_is_that_without_jit(guide):
    network, x, y = make("perceptron")
    guide = GUIDES[guide](network)
    guide(x, y)
    jit, plain = JitTraceMeanField_ELBO(ignore_jit_warnings=True), TraceMeanField_ELBO()
    losses = loss_and_gradients(jit, network, guide, x, y)  # it compiles in each call: two runs
    torch.manual_seed(3)
    for _ in range(3):
        for parameter in tensors(network, guide):
            parameter.grad = None
        loss = plain.loss_and_grads(network, guide, x, y)
    expected = (
        torch.tensor(loss, dtype=torch.float64),
        [parameter.grad for parameter in tensors(network, guide)],
    )
    torch.testing.assert_close(losses, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("guide", ["mean_field", "auto_normal"])
def test_svi_trains_guides_that_do_not_share_parameters(guide):
    network, x, y = make("points")
    start = copy.deepcopy(network)
    one, other = GUIDES[guide](network), GUIDES[guide](start)
    other(x, y)
    untouched = [parameter.clone() for parameter in tensors(start, other)]
    svi = SVI(network, one, pyro.optim.Adam({"lr": 0.02}), JitTrace_ELBO(ignore_jit_warnings=True))
    losses = [svi.step(x, y) for _ in range(60)]
    assert sum(losses[-10:]) < sum(losses[:10])
    points = zip(network.point_parameters(), start.point_parameters(), strict=True)
    assert all((point != before).any() for (_, point), (_, before) in points)
    before = [parameter.clone() for parameter in one.parameters()]
    for chain in (start, other), (network, copy.deepcopy(one)):
        svi = SVI(*chain, pyro.optim.Adam({"lr": 0.02}), JitTrace_ELBO(ignore_jit_warnings=True))
        svi.step(x, y)
        assert all(map(torch.equal, one.parameters(), before))
    # One step of Adam changes each parameter by its learning rate.
    changes = [(a - b).detach() for a, b in zip(tensors(start, other), untouched, strict=True)]
    assert all(0 < float(change.abs().max()) < 0.03 for change in changes)


def test_without_jit_nothing_is_in_the_param_store():
    network, x, y = make("points")
    for guide in (MeanFieldGuide(network), auto_normal(network)):
        SVI(network, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(x, y)
    assert len(pyro.get_param_store()) == 0
