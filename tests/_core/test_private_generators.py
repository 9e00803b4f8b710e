"""Draws from private generators are those of torch after the same seed, for every operation."""

import threading

import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.nn import functional

from pyrobbb._core.private_generators import PrivateGenerators
from pyrobbb._core.random_state import seeded

ONES = torch.ones(6, 9)
HALF = ONES / 2
GRADED = torch.arange(1.0, 55.0).reshape(6, 9)

OPERATIONS = {
    "randn": lambda: torch.randn(5),
    "randn of many": lambda: torch.randn(100, dtype=torch.float64),
    "rand": lambda: torch.rand(20),
    "randint": lambda: torch.randint(5, (30,)),
    "randint from": lambda: torch.randint(2, 9, (30,)),
    "randperm": lambda: torch.randperm(40),
    "normal of tensors": lambda: torch.normal(ONES, GRADED),
    "normal of numbers": lambda: torch.normal(0.0, 1.0, (7,)),
    "randn_like": lambda: torch.randn_like(ONES),
    "rand_like": lambda: torch.rand_like(ONES),
    "randint_like": lambda: torch.randint_like(ONES, 9),
    "randint_like from": lambda: torch.randint_like(ONES, 2, 9),
    "bernoulli": lambda: torch.bernoulli(HALF),
    "bernoulli of a number": lambda: torch.bernoulli(HALF, 0.3),
    "multinomial": lambda: torch.multinomial(GRADED, 4),
    "poisson": lambda: torch.poisson(GRADED),
    "binomial": lambda: torch.binomial(GRADED, HALF),
    "gamma": lambda: dist.Gamma(GRADED, ONES).sample(),
    "dirichlet": lambda: dist.Dirichlet(GRADED).sample(),
    "beta": lambda: dist.Beta(GRADED, ONES).sample(),
    "student t": lambda: dist.StudentT(4.0, ONES, GRADED).sample(),
    "von mises": lambda: dist.VonMises(ONES, GRADED).sample(),
    "categorical": lambda: dist.Categorical(GRADED).sample(),
    "exponential_": lambda: torch.empty(9).exponential_(),
    "cauchy_": lambda: torch.empty(9).cauchy_(),
    "log_normal_": lambda: torch.empty(9).log_normal_(),
    "geometric_": lambda: torch.empty(9).geometric_(0.3),
    "random_": lambda: torch.empty(9).random_(),
    "uniform_": lambda: torch.empty(9).uniform_(),
    "dropout": lambda: functional.dropout(ONES, 0.4),
    "dropout in place": lambda: functional.dropout(ONES.clone(), 0.4, inplace=True),
    "dropout of channels": lambda: functional.dropout1d(ONES[None], 0.4),
    "alpha dropout": lambda: functional.alpha_dropout(ONES, 0.4, True),
    "dropout of one kernel": lambda: torch.native_dropout(ONES, 0.4, True)[0],
    "random leaky relu": lambda: functional.rrelu(-GRADED, training=True),
    "gumbel softmax": lambda: functional.gumbel_softmax(GRADED),
    "fractional pooling": lambda: functional.fractional_max_pool2d(
        GRADED[None], 2, output_size=(2, 3)
    ),
    "attention": lambda: functional.scaled_dot_product_attention(
        GRADED[None], GRADED[None], GRADED[None], dropout_p=0.5
    ),
    "initialisation": lambda: nn.init.trunc_normal_(torch.empty(5, 5)),
    "a layer": lambda: nn.Linear(4, 3).weight.detach(),
    "vmap": lambda: torch.vmap(
        lambda v: functional.dropout(ONES, 0.4) + torch.randn_like(v) * v + torch.rand(6, 9),
        randomness="different",
    )(ONES.expand(4, 6, 9)),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_draws_are_those_after_manual_seed_and_can_be_continued(operation):
    torch.manual_seed(3)
    expected = operation(), operation()
    before = torch.random.get_rng_state()
    generators = PrivateGenerators(3)
    with generators:
        first = operation()
    with generators:
        second = operation()
    assert torch.equal(first, expected[0])
    assert torch.equal(second, expected[1])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_generator_of_the_caller_is_used():
    expected = torch.randn(3, generator=torch.Generator().manual_seed(1))
    with seeded(2):
        drawn = torch.randn(3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(drawn, expected)


def test_the_innermost_block_draws():
    with seeded(2):
        expected = torch.randn(3), torch.randn(3)
    with seeded(2):
        first = torch.randn(3)
        with seeded(1):
            torch.randn(3)
        second = torch.randn(3)
    assert torch.equal(first, expected[0])
    assert torch.equal(second, expected[1])


def test_meta_tensors_have_no_random_state():
    with seeded(2):
        assert torch.randn(3, device="meta").device.type == "meta"
        assert nn.Linear(3, 2, device="meta").weight.shape == (2, 3)


def test_other_threads_draw_from_their_own_generators():
    drawn = {}

    def draw(seed):
        with seeded(seed % 2):
            drawn[seed] = torch.stack([torch.randn(3) for _ in range(200)])

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for seed in range(2):
        torch.manual_seed(seed)
        expected = torch.stack([torch.randn(3) for _ in range(200)])
        assert torch.equal(drawn[seed], expected)
        assert torch.equal(drawn[seed + 2], expected)
