"""A call with other values of the parameters leaves the module as it was."""

import copy
import threading

import pytest
import torch
from torch import nn
from torch.func import functional_call

from pyrobbb import BayesianNetwork, fit
from pyrobbb.model.functional import FunctionalCall

X = torch.randn(5, 3)


class Keeping(nn.Module):
    """Writes attributes, lists, buffers and its input in forward."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.seen, self.options, self.last = [], {"n": [0]}, None
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(3))
        self.plain = torch.zeros(3)

    def forward(self, x):
        self.last = self.layer(x)
        self.seen.append(self.last)
        self.options["n"][0] += 1
        self.count += 1
        self.mean = 0.5 * self.mean + x.mean(0)
        self.plain += 1
        x *= 2
        return self.last * len(self.seen) * self.options["n"][0] + self.plain


def values_of(net):
    return {name: parameter.detach() + 1 for name, parameter in net.named_parameters()}


@pytest.mark.parametrize("training", [True, False])
def test_nothing_but_buffers_in_training_remains_of_a_call(training):
    net, x = Keeping().train(training), X.clone()
    values = values_of(net)
    expected = functional_call(copy.deepcopy(net), values, (X.clone(),))
    call = FunctionalCall(net, values)
    for _ in range(2):
        assert torch.equal(call(values, x), expected)
    assert torch.equal(x, X)
    assert net.seen == []
    assert net.options == {"n": [0]}
    assert net.last is None
    assert torch.equal(net.plain, torch.zeros(3))
    assert net.count == 2 * training
    torch.testing.assert_close(net.mean, training * 1.5 * X.mean(0))


def test_the_module_may_be_called_in_several_threads_at_once():
    net = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    draws = [{n: torch.randn_like(p) for n, p in net.named_parameters()} for _ in range(4)]
    expected = [functional_call(net, draw, (X,)) for draw in draws]
    wrong = []

    def call(draw, output):
        for _ in range(200):
            if not torch.equal(FunctionalCall(net, draw)(draw, X), output):
                wrong.append(draw)

    threads = [threading.Thread(target=call, args=a) for a in zip(draws, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_parameters_are_restored_after_an_exception():
    net = nn.Linear(3, 1)
    before = net.weight
    call = FunctionalCall(net, ["weight"])
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        call({"weight": torch.zeros(1, 3)}, torch.zeros(2, 5))
    assert net.weight is before
    assert torch.equal(call({"weight": before}, X), net(X))


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.out = nn.Embedding(6, 3, padding_idx=2), nn.Linear(3, 1)

    def forward(self, x):
        return self.out(self.embedding(x).sum(1))


@pytest.mark.parametrize("engine", ["svi", "fused"])
def test_the_number_of_pads_does_not_change_predictions(engine):
    x, y = torch.randint(6, (20, 4)), torch.randn(20, 1)
    posterior = fit(BayesianNetwork(Sum()), x, y, epochs=2, engine=engine, seed=0, progress=False)
    longer = torch.cat([x, torch.full((20, 3), 2)], 1)
    one, other = (posterior.predict(rows, 5, seed=1).mean for rows in (x, longer))
    torch.testing.assert_close(one, other)


def test_a_network_with_kept_activations_is_copied():
    net = Keeping()
    net(X.clone())
    assert net.last.requires_grad
    copied = copy.deepcopy(BayesianNetwork(net))
    assert torch.equal(copied.net.last, net.last)
    assert not copied.net.last.requires_grad
    assert all(p.requires_grad for p in copied.net.parameters())


def test_values_that_are_written_back_are_no_change_of_buffers():
    class WritingBack(nn.Module):
        def __init__(self, step):
            super().__init__()
            self.register_buffer("mean", torch.ones(3))
            self.step = step

        def forward(self, x):
            self.mean.copy_(self.mean + self.step)
            return x - self.mean

    for step in (0.0, 1.0):  # instance norm of torch 2.6 writes as with 0
        call = FunctionalCall(WritingBack(step), [], training=False)
        call({}, X)
        assert call.has_changed_buffers == (step != 0)
