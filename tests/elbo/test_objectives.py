"""Weights of the KL divergence against exact fractions, and objectives by name."""

import re
from fractions import Fraction

import numpy as np
import pytest
from pyro.infer import RenyiELBO, Trace_ELBO, TraceMeanField_ELBO

from pyrobbb.elbo.fused_elbo import FusedELBO
from pyrobbb.elbo.objectives import kl_weights, make_elbo, traced


@pytest.mark.parametrize("n_batches", [1, 2, 7, 391, 5000])
@pytest.mark.parametrize(
    "kl_weight",
    ["uniform", "blundell", lambda i, m: 2 * i / (m * (m + 1))],
    ids=["uniform", "blundell", "callable"],
)
def test_weights_of_an_epoch_sum_to_one(kl_weight, n_batches):
    weights = kl_weights(kl_weight, n_batches)
    assert weights.shape == (n_batches,)
    assert weights.sum() == pytest.approx(1, rel=1e-12)


def test_uniform_weights_are_one_over_the_number_of_batches():
    assert kl_weights("uniform", 8).tolist() == [0.125] * 8


@pytest.mark.parametrize("n_batches", [1, 2, 3, 10, 52, 64, 1023, 1024, 1025])
def test_blundell_weights_equal_the_fractions_of_the_paper(n_batches):
    exact = [
        float(Fraction(2 ** (n_batches - i), 2**n_batches - 1)) for i in range(1, n_batches + 1)
    ]
    np.testing.assert_allclose(kl_weights("blundell", n_batches), exact, rtol=1e-15, atol=0)


def test_blundell_weights_stay_finite_where_powers_of_two_overflow():
    weights = kl_weights("blundell", 5000)
    assert np.isfinite(weights).all()
    # 2^(M-i) / (2^M - 1) differs from 2^-i by less than a rounding error, and ends in underflow.
    assert weights[:1074].tolist() == [2.0**-i for i in range(1, 1075)]
    assert not weights[1075:].any()


@pytest.mark.parametrize("n_batches", [2, 10, 1000, 5000])
def test_blundell_weights_never_increase(n_batches):
    weights = kl_weights("blundell", n_batches)
    assert (np.diff(weights) <= 0).all()
    assert weights[0] > weights[-1]


def test_a_callable_receives_the_number_of_the_batch_counted_from_one():
    calls = []
    weights = kl_weights(lambda i, m: calls.append((i, m)) or i / 6, 3)
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert all(type(i) is int for i, _ in calls)
    assert weights.tolist() == [1 / 6, 2 / 6, 3 / 6]


@pytest.mark.parametrize("kl_weight", ["linear", None, "Blundell"])
def test_an_unknown_weighting_raises(kl_weight):
    message = f"`kl_weight` must be 'uniform', 'blundell', a positive number.*got {kl_weight!r}"
    with pytest.raises(ValueError, match=message):
        kl_weights(kl_weight, 3)


def test_a_number_multiplies_the_whole_divergence():
    np.testing.assert_allclose(kl_weights(0.3, 4), [0.075] * 4)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_must_be_a_positive_number(bad):
    with pytest.raises(ValueError, match="`kl_weight`"):
        kl_weights(bad, 3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.5])
def test_an_invalid_weight_of_a_callable_is_reported_with_its_batch(bad):
    message = re.escape(f"finite numbers of at least 0, got {bad} for batch 2 of 3")
    with pytest.raises(ValueError, match=message):
        kl_weights(lambda i, m: bad if i == 2 else 0.5, 3)


@pytest.mark.parametrize("n_batches", [0, -3])
def test_there_must_be_at_least_one_batch(n_batches):
    with pytest.raises(ValueError, match=f"`n_batches` must be at least 1, got {n_batches}"):
        kl_weights("uniform", n_batches)


@pytest.mark.parametrize("n_batches", [2.5, "3", True, None])
def test_the_number_of_batches_must_be_an_integer(n_batches):
    message = f"`n_batches` must be a whole number, got {n_batches!r}"
    with pytest.raises(TypeError, match=re.escape(message)):
        kl_weights("uniform", n_batches)


@pytest.mark.parametrize("n_particles", [1, 5])
@pytest.mark.parametrize("objective", ["trace", "mean_field"])
def test_an_objective_given_by_name_is_a_fused_elbo(objective, n_particles):
    elbo = make_elbo(objective, n_particles)
    assert type(elbo) is FusedELBO
    assert (elbo.objective, elbo.num_particles) == (objective, n_particles)


@pytest.mark.parametrize(
    ("objective", "kind"), [("trace", Trace_ELBO), ("mean_field", TraceMeanField_ELBO)]
)
def test_traced_returns_the_equivalent_elbo_of_pyro(objective, kind):
    elbo = traced(make_elbo(objective))
    assert type(elbo) is kind
    assert (elbo.num_particles, elbo.vectorize_particles) == (1, False)


@pytest.mark.parametrize("objective", ["trace", "mean_field"])
def test_particles_are_vectorised_outside_the_data_plate(objective):
    elbo = traced(make_elbo(objective, 5))
    assert (elbo.num_particles, elbo.vectorize_particles) == (5, True)
    assert elbo.max_plate_nesting == 2  # the data's plate, then that of the particles


def test_traced_returns_an_elbo_of_pyro_unchanged():
    elbo = RenyiELBO(alpha=0.5, num_particles=2)
    assert traced(elbo) is elbo


@pytest.mark.parametrize("n_particles", [1, 3])
def test_make_elbo_returns_an_elbo_of_pyro_unchanged(n_particles):
    elbo = Trace_ELBO(num_particles=3)
    assert make_elbo(elbo, n_particles) is elbo


def test_n_particles_must_not_contradict_the_elbo():
    message = "`n_particles` is 2, but the objective has num_particles=3: set it there"
    with pytest.raises(ValueError, match=message):
        make_elbo(Trace_ELBO(num_particles=3), 2)


@pytest.mark.parametrize("objective", ["elbo", None, Trace_ELBO, "Trace"])
def test_an_unknown_objective_raises(objective):
    message = f"must be one of trace, mean_field, or a pyro.infer.ELBO, got {objective!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        make_elbo(objective)


def test_the_number_of_particles_must_be_a_positive_integer():
    with pytest.raises(ValueError, match="`n_particles` must be at least 1, got 0"):
        make_elbo("trace", 0)
    with pytest.raises(TypeError, match=r"`n_particles` must be a whole number, got 2\.5"):
        make_elbo("trace", 2.5)
