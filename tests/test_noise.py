"""Noise: the same in any division, normal, and nobody else's."""

import math

import pytest
import torch

from pyrobbb.noise import LARGE, NoiseSource

# Sizes of one step: around torch's groups of 16, and around where two threads take turns.
SHAPES = [(1,), (3,), (15,), (16,), (17,), (3, 7), (100,), (LARGE - 1,), (LARGE,), (2, LARGE + 3)]
DIVISIONS = [[7], [1] * 7, [3, 4], [2, 1, 4], [6, 1]]


def source(shape, seed=5, dtype=torch.float32):
    return NoiseSource(shape, seed, torch.zeros((), dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_noise_is_the_same_however_many_steps_are_drawn_at_once(shape, dtype):
    draws = []
    for division in DIVISIONS:
        stream = source(shape, dtype=dtype)
        parts = [stream.draw(n).clone() for n in division]  # valid until the next draw only
        assert [part.shape for part in parts] == [(n, *shape) for n in division]
        assert parts[0].dtype == dtype
        draws.append(torch.cat(parts))
    for other in draws[1:]:
        assert torch.equal(draws[0], other)


@pytest.mark.parametrize("shape", [(3,), (16,), (50,), (LARGE,)], ids=str)
def test_noise_is_standard_normal_and_independent_between_steps_and_elements(shape):
    n = max(200_000 // math.prod(shape), 10)
    noise = source(shape, dtype=torch.float64).draw(n).reshape(n, -1)
    error = noise.numel() ** -0.5
    assert abs(noise.mean()) < 5 * error
    assert abs((noise**2).mean() - 1) < 5 * 2**0.5 * error
    assert abs((noise**4).mean() - 3) < 5 * 96**0.5 * error
    assert abs((noise[1:] * noise[:-1]).mean()) < 6 * error
    assert abs((noise[2:] * noise[:-2]).mean()) < 6 * error  # two generators take turns
    assert abs((noise[:, 1:] * noise[:, :-1]).mean()) < 6 * error


@pytest.mark.parametrize("shape", [(3,), (100,), (LARGE,)], ids=str)
def test_seeds_give_noise_of_their_own_and_the_same_again(shape):
    first, again, other = (source(shape, seed).draw(3) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not (first == other).any()
    assert len(first.unique()) > 0.9 * min(first.numel(), 1e5)


@pytest.mark.parametrize("shape", [(3,), (LARGE,)], ids=str)
def test_the_global_random_state_is_left_alone_and_does_not_matter(shape):
    state = torch.random.get_rng_state()
    first = source(shape).draw(2).clone()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(source(shape).draw(2), first)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_stream_goes_on_from_where_another_was(shape, n):
    first, second = source(shape), source(shape, seed=6)
    first.draw(n)
    second.take_up(first.state())
    assert torch.equal(first.draw(3), second.draw(3))
