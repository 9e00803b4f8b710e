"""The noise: independent of the number of steps per call, standard normal, and reproducible."""

import math

import numpy as np
import pytest
import torch

from pyrobbb.engines.noise import BLOCK_SIZE, NoiseSource

LARGE = 2 * BLOCK_SIZE
"""The largest size of a step whose noise is computed in one block."""

# Sizes of one step: odd and even, and around the size of a block.
SHAPES = [(1,), (3,), (15,), (16,), (17,), (3, 7), (100,), (LARGE - 1,), (LARGE,), (2, LARGE + 3)]
DIVISIONS = [[7], [1] * 7, [3, 4], [2, 1, 4], [6, 1]]


def source(shape, seed=5, dtype=torch.float32):
    return NoiseSource(shape, seed, torch.zeros((), dtype=dtype))


def draw(stream, n_steps):
    return stream.at(stream.advance(n_steps))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_noise_does_not_depend_on_the_number_of_steps_per_call(shape, dtype):
    draws = []
    for division in DIVISIONS:
        stream = source(shape, dtype=dtype)
        parts = [draw(stream, n) for n in division]
        assert [part.shape for part in parts] == [(n, *shape) for n in division]
        assert parts[0].dtype == dtype
        draws.append(torch.cat(parts))
    for other in draws[1:]:
        assert torch.equal(draws[0], other)


@pytest.mark.parametrize("shape", [(3,), (16,), (50,), (LARGE,)], ids=str)
def test_noise_is_standard_normal_and_independent_between_steps_and_elements(shape):
    n = max(200_000 // math.prod(shape), 10)
    noise = draw(source(shape, dtype=torch.float64), n).reshape(n, -1)
    error = noise.numel() ** -0.5
    assert abs(noise.mean()) < 5 * error
    assert abs((noise**2).mean() - 1) < 5 * 2**0.5 * error
    assert abs((noise**4).mean() - 3) < 5 * 96**0.5 * error
    assert abs((noise[1:] * noise[:-1]).mean()) < 6 * error
    assert abs((noise[2:] * noise[:-2]).mean()) < 6 * error
    assert abs((noise[:, 1:] * noise[:, :-1]).mean()) < 6 * error


@pytest.mark.parametrize("shape", [(3,), (100,), (LARGE,)], ids=str)
def test_equal_seeds_give_equal_noise_and_different_seeds_different_noise(shape):
    first, again, other = (draw(source(shape, seed), 3) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not (first == other).any()
    assert len(first.unique()) > 0.9 * min(first.numel(), 1e5)


@pytest.mark.parametrize("shape", [(3,), (LARGE,)], ids=str)
def test_the_noise_is_independent_of_the_global_random_state_and_leaves_it_unchanged(shape):
    state = torch.random.get_rng_state()
    first = draw(source(shape), 2).clone()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(draw(source(shape), 2), first)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_stream_continues_from_the_state_of_another(shape, n):
    first, second = source(shape), source(shape, seed=6)
    draw(first, n)
    second.load_state_dict(first.state_dict())
    assert torch.equal(draw(first, 3), draw(second, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_functional_code_computes_the_same_noise(shape, dtype):
    stream = source(shape, dtype=dtype)
    positions = stream.advance(3)
    expected = stream.at(positions)
    for part in (slice(None), 1):
        noise = stream.functional_at(positions[part])
        torch.testing.assert_close(noise, expected[part], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_numbers_are_those_of_the_published_generator(dtype):
    """SplitMix64 and Box-Muller, one number at a time, in Python integers."""
    stream = source((7,), dtype=dtype)
    state = int(np.random.SeedSequence(5).generate_state(1, np.uint64)[0])

    def signed(bits, n):
        return bits - 2**n if bits >= 2 ** (n - 1) else bits

    words = []
    for _ in range(2 * (4 if dtype == torch.float32 else 8)):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        words.append(z ^ (z >> 31))
    for step, noise in enumerate(draw(stream, 2).double()):
        pairs = []
        for i in range(4):
            if dtype == torch.float32:
                word = words[4 * step + i]
                u, angle = signed(word, 64) / 2**63, signed(word % 2**32, 32) / 2**31
            else:
                u, angle = (signed(words[8 * step + 4 * j + i], 64) / 2**63 for j in range(2))
            radius = math.sqrt(-2 * math.log(abs(u)))
            pairs.append((radius * math.cos(math.pi * angle), radius * math.sin(math.pi * angle)))
        expected = torch.tensor([*(p[0] for p in pairs), *(p[1] for p in pairs)]).double()[:7]
        torch.testing.assert_close(noise, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_distribution_is_normal_far_into_its_tails(dtype):
    noise = draw(source((1000,), dtype=dtype), 4000).double().flatten()
    for bound in (0.1, 0.5, 1.0, 2.0, 3.0, 4.0):
        for side in (noise, -noise):
            share = 0.5 * math.erfc(bound / math.sqrt(2))
            error = (share * (1 - share) / len(noise)) ** 0.5
            assert abs((side > bound).double().mean() - share) < 5 * error
    assert noise.isfinite().all()
    assert len(noise.unique()) > 0.9 * len(noise)


def test_the_streams_of_different_seeds_do_not_overlap():
    draws = [draw(source((50,), seed), 200).flatten() for seed in range(20)]
    assert len(torch.cat(draws).unique()) > 0.99 * 20 * 10_000
    correlation = torch.corrcoef(torch.stack(draws).double()) - torch.eye(20)
    assert correlation.abs().max() < 5 * 10_000**-0.5


def test_a_uniform_number_of_0_gives_the_largest_finite_radius():
    """SplitMix64 returns 0 at a counter of 0, and the logarithm of 0 would be minus infinity."""
    position = torch.tensor(0x61C8864680B583EB)
    for dtype in (torch.float32, torch.float64):
        pair = source((2,), dtype=dtype).at(position)
        assert pair.norm().item() == pytest.approx(math.sqrt(2 * 64 * math.log(2)), rel=1e-6)


def test_the_state_of_torchs_generator_in_an_old_checkpoint_is_rejected():
    state = [torch.Generator().get_state(), torch.tensor(3)]
    with pytest.raises(ValueError, match="written by an earlier version of pyrobbb"):
        source((3,)).load_state_dict({"0": state[0], "1": state[1]})
    with pytest.raises(ValueError, match="written by an earlier version of pyrobbb"):
        source((3,)).load_state_dict({"0": state[0], "1": state[0], "2": state[1]})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_noise_in_half_precision_is_that_of_single_precision_rounded(dtype):
    stream, single = source((100,), dtype=dtype), source((100,))
    positions = stream.advance(3)
    assert torch.equal(stream.at(positions), single.at(positions).to(dtype))
    torch.testing.assert_close(stream.functional_at(positions), stream.at(positions))
