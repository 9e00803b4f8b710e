"""Predictions from many threads are bitwise those of one, while others fit, draw and hold locks."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pyro
import pyro.distributions as dist
import pytest
import torch
from modules import LastState, batch_norm, cnn, custom_noise
from torch import nn

from pyrobbb import BayesianNetwork, fit, likelihoods, mlp
from pyrobbb._core.global_state import global_state_locked

N_THREADS, N_CALLS = 8, 24
X = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True)
LABELS = (X[:, 0] > 0).long()
IMAGES = torch.randn(12, 1, 5, 5, generator=torch.Generator().manual_seed(1))
SERIES = torch.randn(12, 4, 2, generator=torch.Generator().manual_seed(2))


class Keeping(nn.Module):
    """Leaves its hidden layer and a count of its calls in the module."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.calls = nn.Linear(3, 4), nn.Linear(4, 1), 0

    def forward(self, x):
        self.calls += 1
        self.hidden = torch.tanh(self.first(x))
        return self.last(self.hidden)


class Noisy(nn.Module):
    """Draws random numbers also in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x):
        hidden = nn.functional.dropout(torch.tanh(self.first(x)), 0.4)
        return self.last(hidden + 0.1 * torch.randn_like(hidden))


class Centred(nn.Module):
    """Subtracts the mean over the rows."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x):
        hidden = self.first(x)
        return self.last(torch.tanh(hidden - hidden.mean(0)))


def layer_norm():
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 1))


def small_mlp(n_out=1):
    return mlp(3, [4], n_out, "tanh", seed=0)


MEMBERS = {
    "mlp": lambda: (BayesianNetwork(small_mlp()), X, Y, {}),
    "layer norm": lambda: (BayesianNetwork(layer_norm()), X, Y, {}),
    "batch norm": lambda: (
        BayesianNetwork(batch_norm(), likelihood=likelihoods.HeteroscedasticGaussian()),
        X,
        Y,
        {},
    ),
    "convolutions, classes": lambda: (
        BayesianNetwork(cnn(), likelihood=likelihoods.Categorical()),
        IMAGES,
        LABELS,
        {},
    ),
    "recurrent, without vmap": lambda: (BayesianNetwork(LastState()), SERIES, Y, {}),
    "keeps activations": lambda: (BayesianNetwork(Keeping()), X, Y, {}),
    "noise in forward": lambda: (BayesianNetwork(Noisy()), X, Y, {}),
    "rows interact": lambda: (BayesianNetwork(Centred()), X, Y, {}),
    "callable likelihood": lambda: (
        BayesianNetwork(small_mlp(), likelihood=lambda o: dist.Laplace(o, 0.5)),
        X,
        Y,
        {},
    ),
    "likelihood with latent sites": lambda: (
        BayesianNetwork(small_mlp(2), likelihood=custom_noise),
        X,
        Y.expand(-1, 2),
        {},
    ),
    "automatic guide": lambda: (BayesianNetwork(small_mlp()), X, Y, {"guide": "auto_normal"}),
}


def fitted(name):
    torch.manual_seed(0)
    network, x, y, options = MEMBERS[name]()
    return fit(network, x, y, epochs=2, engine="fused", seed=0, progress=False, **options), x, y


def answers(posterior, x, y):
    prediction = posterior.predict(x, n_draws=20, seed=1)
    values = [prediction.log_prob(y), prediction.sample(seed=2), *posterior.draws(3, 4).values()]
    if hasattr(prediction, "probs"):
        return [*values, prediction.probs, prediction.mutual_information]
    return [*values, prediction.mean, prediction.sd, prediction.quantile([0.1, 0.6])]


@pytest.fixture
def drawing():
    """Draw from torch's generator in a thread all the time."""
    stop = threading.Event()

    def draw():
        while not stop.is_set():
            torch.randn(100)
            time.sleep(0)

    thread = threading.Thread(target=draw)
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.filterwarnings("error")
def test_predictions_from_many_threads_are_those_of_one(name, drawing):
    posterior, x, y = fitted(name)
    expected = answers(posterior, x, y)
    with ThreadPoolExecutor(N_THREADS) as pool:
        calls = [pool.submit(answers, posterior, x, y) for _ in range(N_CALLS)]
        for call in calls:
            for value, right in zip(call.result(60), expected, strict=True):
                assert torch.equal(value, right)
    assert pyro.settings.get("validate_distributions_pyro")
    assert torch.distributions.Distribution._validate_args


@pytest.mark.parametrize("name", ["mlp", "layer norm", "noise in forward", "callable likelihood"])
def test_predictions_do_not_wait_for_whoever_holds_the_global_state(name):
    posterior, x, y = fitted(name)
    expected = answers(posterior, x, y)
    with ThreadPoolExecutor(1) as pool, global_state_locked():
        there = pool.submit(answers, posterior, x, y).result(60)
    for value, right in zip(there, expected, strict=True):
        assert torch.equal(value, right)


def test_a_prediction_by_any_guide_waits_for_one_call_of_an_engine_at_most():
    posterior, x, _ = fitted("automatic guide")
    expected = posterior.predict(x, n_draws=20, seed=1).mean
    network = BayesianNetwork(small_mlp())
    n_steps, started, stop = [], threading.Event(), threading.Event()

    def count(end):
        n_steps.append(end.n_steps)
        started.set()
        return stop.is_set()

    options = {"epochs": 10**6, "engine": "svi", "progress": False, "callbacks": count}
    with ThreadPoolExecutor(1) as pool:
        background = pool.submit(fit, network, X, Y, batch_size=6, **options)
        started.wait(60)
        waited = []
        for _ in range(5):
            before = len(n_steps)
            assert torch.equal(posterior.predict(x, n_draws=20, seed=1).mean, expected)
            waited.append(len(n_steps) - before)
        stop.set()
        background.result(60)
    assert min(waited) <= 100  # mostly the epochs that run during a prediction, not 10**6
