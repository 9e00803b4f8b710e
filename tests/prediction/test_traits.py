"""Networks that draw random numbers, and networks whose rows depend on each other."""

import functools
import logging

import numpy as np
import pytest
import torch
from modules import one_by_one
from support import quick_fit
from torch import nn

from pyrobbb import BayesianNetwork, Posterior

X = torch.randn(23, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X.sum(1, keepdim=True)


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x):
        return self.last(self.between(torch.tanh(self.first(x))))


class WithDropout(TwoLayers):
    def between(self, hidden):
        return nn.functional.dropout(hidden, 0.4)


class WithNoise(TwoLayers):
    def between(self, hidden):
        return hidden + torch.randn_like(hidden)


class WithGumbel(TwoLayers):
    def between(self, hidden):
        return nn.functional.gumbel_softmax(hidden)


class Centred(TwoLayers):
    def between(self, hidden):
        return hidden - hidden.mean(0)


class CentredWithHeadOfZeros(Centred):
    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.last.weight)


class Graph(TwoLayers):
    def __init__(self):
        super().__init__()
        self.register_buffer("adjacency", torch.eye(23) + torch.ones(23, 23) / 23)

    def between(self, hidden):
        return self.adjacency @ hidden


class BatchStatistics(TwoLayers):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4, track_running_stats=False)

    def between(self, hidden):
        return self.norm(hidden)


class Attention(TwoLayers):
    def between(self, hidden):
        return torch.softmax(hidden @ hidden.T, -1) @ hidden


RANDOM = [WithDropout, WithNoise, WithGumbel]
MIXING = [Centred, CentredWithHeadOfZeros, Graph, BatchStatistics, Attention]


@functools.cache
def fitted(kind, guide="mean_field"):
    torch.manual_seed(1)
    network = BayesianNetwork(kind().double())
    return quick_fit(network, X, Y, batch_size=23, guide=guide)


def outputs(posterior, **options):
    """Return the output under each draw: the mean of y before the noise is added."""
    (distribution,) = posterior.predict(X, seed=3, **options)._distributions
    return distribution.mean


@pytest.mark.parametrize("kind", RANDOM)
def test_noise_of_a_network_follows_the_seed_and_the_number_of_the_draw(kind):
    posterior = fitted(kind)
    before = torch.random.get_rng_state()
    expected = outputs(posterior, n_draws=20)
    torch.randn(3)
    assert torch.equal(outputs(posterior, n_draws=20), expected)
    assert torch.equal(outputs(posterior, n_draws=5), expected[:5])
    assert torch.equal(outputs(posterior, n_draws=20, max_memory=1000), expected)
    assert not torch.equal(posterior.predict(X, 20, seed=4).mean, expected.mean(0))
    torch.random.set_rng_state(before)
    posterior.to_arviz(X, Y, n_draws=5, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_noise_differs_between_draws_and_rows():
    output = outputs(fitted(WithNoise), n_draws=4)
    assert len(output.flatten().unique()) == output.numel()


@pytest.mark.parametrize("guide", ["mean_field", "auto_normal"])
@pytest.mark.parametrize("kind", MIXING)
def test_rows_that_interact_are_predicted_together(kind, guide, caplog):
    posterior = fitted(kind, guide)
    draws = posterior.draws(20, seed=3)
    expected = one_by_one(posterior.network, draws, X).detach()
    with caplog.at_level(logging.INFO):
        for max_memory in (2**30, 1000):
            output = outputs(posterior, n_draws=20, max_memory=max_memory)
            torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)
    assert caplog.text.count("takes all 23 rows at once") == 1
    assert len(posterior.example) == 23
    assert posterior.to_arviz(X, Y, seed=0).posterior.sizes["draw"]


@pytest.mark.parametrize("kind", [Centred, BatchStatistics, Attention])
def test_a_first_prediction_of_equal_rows_or_one_does_not_hide_that_rows_interact(kind):
    posterior = fitted(kind)
    copied = Posterior((*posterior.chains,))
    if kind is not BatchStatistics:
        copied.predict(X[:1], n_draws=2)
    copied.predict(torch.zeros(5, 3), n_draws=2)
    few = copied.predict(X, n_draws=20, seed=3, max_memory=1000).mean
    torch.testing.assert_close(few, outputs(posterior, n_draws=20).mean(0), rtol=1e-9, atol=1e-9)


def test_rows_that_interact_are_not_divided_into_chunks(tmp_path):
    posterior = fitted(Centred)
    with pytest.raises(ValueError, match="`x` cannot be divided into chunks"):
        next(posterior.predict_chunks(X, rows=10))
    (whole,) = posterior.predict_chunks(X, rows=23, n_draws=5, seed=0)
    parts = list(posterior.predict_chunks([X[:10], X[10:]], n_draws=5, seed=0))
    torch.testing.assert_close(whole.mean, posterior.predict(X, n_draws=5, seed=0).mean)
    assert [len(part.mean) for part in parts] == [10, 13]
    posterior.save(tmp_path / "posterior")
    read = Posterior.load(tmp_path / "posterior", BayesianNetwork(Centred().double()))
    assert len(read.example) == 23
    np.testing.assert_array_equal(
        read.predict(X, n_draws=5, seed=0).mean, posterior.predict(X, n_draws=5, seed=0).mean
    )
