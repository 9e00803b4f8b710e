"""Predictions against brute force on explicit mixtures."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from pyrobbb import ClassificationPrediction, RegressionPrediction
from pyrobbb.prediction import make_prediction

LOC = torch.tensor([[0.0, 5.0, -3.0], [1.0, 5.1, 4.0], [-2.0, 4.9, 0.5]], dtype=torch.float64)
SCALE = torch.tensor([[1.0], [0.3], [2.0]], dtype=torch.float64)
NORMAL = dist.Normal(LOC[..., None], SCALE[..., None]).to_event(1)  # 3 draws, 3 rows, 1 output


def as_prediction(distribution, original=None):
    return make_prediction([distribution], np.empty(0) if original is None else original)


@pytest.mark.parametrize("q", [0.001, 0.05, 0.5, 0.9, 0.999])
def test_quantiles_of_a_normal_mixture_solve_its_distribution_function(q):
    quantile = as_prediction(NORMAL).quantile(q)
    for row in range(3):
        parts = [stats.norm(LOC[s, row], SCALE[s, 0]) for s in range(3)]
        exact = optimize.brentq(
            lambda v, parts=parts: np.mean([p.cdf(v) for p in parts]) - q, -50, 50, xtol=1e-12
        )
        assert quantile[row, 0] == pytest.approx(exact, abs=1e-7)


@pytest.mark.parametrize(
    ("distribution", "frozen"),
    [
        (
            dist.StudentT(torch.tensor(4.0).double(), LOC, SCALE),
            lambda s, r: stats.t(4, LOC[s, r], SCALE[s, 0]),
        ),
        (dist.Poisson(LOC.exp()), lambda s, r: stats.poisson(LOC[s, r].exp())),
        (
            dist.NegativeBinomial(torch.tensor(3.0).double(), logits=LOC),
            lambda s, r: stats.nbinom(3, 1 - torch.sigmoid(LOC[s, r]).item()),
        ),
        (dist.Laplace(LOC, SCALE), lambda s, r: stats.laplace(LOC[s, r], SCALE[s, 0])),
    ],
    ids=["student_t", "poisson", "negative_binomial", "laplace"],
)
@pytest.mark.parametrize("q", [0.05, 0.5, 0.975])
def test_quantiles_of_other_mixtures_agree_with_scipy(distribution, frozen, q):
    quantile = as_prediction(distribution.expand((3, 3))).quantile(q)
    for row in range(3):
        parts = [frozen(s, row) for s in range(3)]
        cdf = lambda v, parts=parts: np.mean([p.cdf(v) for p in parts])  # noqa: E731
        if hasattr(parts[0].dist, "pmf"):
            assert cdf(quantile[row]) >= q - 1e-12
            assert quantile[row] == 0 or cdf(quantile[row] - 1) < q
        else:
            assert cdf(quantile[row]) == pytest.approx(q, abs=1e-8)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.floats(-100, 100), min_size=1, max_size=5),
    st.floats(0.01, 10),
    st.floats(0.01, 0.99),
)
def test_quantiles_of_any_normal_mixture_solve_its_distribution_function(locs, scale, q):
    loc = torch.tensor(locs, dtype=torch.float64)[:, None]
    normal = dist.Normal(loc, torch.tensor(scale, dtype=torch.float64))
    value = torch.as_tensor(as_prediction(normal).quantile(q))
    assert float(normal.cdf(value).mean()) == pytest.approx(q, abs=1e-7)


def test_quantiles_of_well_separated_components_are_found_by_bisection():
    loc = torch.tensor([[-1000.0], [1000.0]], dtype=torch.float64)
    prediction = as_prediction(dist.Normal(loc, torch.tensor(1.0).double()))
    assert prediction.quantile(0.25)[0] == pytest.approx(-1000, abs=1e-6)
    assert prediction.quantile(0.75)[0] == pytest.approx(1000, abs=1e-6)


def test_quantiles_have_a_row_for_each_probability():
    prediction = as_prediction(NORMAL)
    lower, upper = prediction.interval(0.8)
    both = prediction.quantile([0.1, 0.9])
    assert both.shape == (2, 3, 1)
    np.testing.assert_allclose(both, [lower, upper])


def test_variance_is_aleatoric_plus_epistemic_and_agrees_with_sampling():
    """The law of total variance."""
    prediction = as_prediction(NORMAL)
    np.testing.assert_allclose(
        prediction.sd**2, prediction.epistemic_sd**2 + prediction.aleatoric_sd**2, rtol=1e-12
    )
    np.testing.assert_allclose(prediction.mean[:, 0], LOC.mean(0))
    np.testing.assert_allclose(prediction.aleatoric_sd[0, 0] ** 2, (1 + 0.09 + 4) / 3)
    n = 100_000
    draws = NORMAL.expand((n, 3, 3)).sample()[..., 0].reshape(-1, 3).numpy()
    squares = (draws - draws.mean(0)) ** 2
    error = squares.std(0) / np.sqrt(len(squares))
    assert (np.abs(squares.mean(0) - prediction.sd[:, 0] ** 2) < 4 * error).all()


def test_log_prob_is_the_log_of_the_mean_density():
    y = np.array([[0.3], [5.0], [-1.0]])
    expected = [
        np.log(np.mean([stats.norm(LOC[s, r], SCALE[s, 0]).pdf(y[r, 0]) for s in range(3)]))
        for r in range(3)
    ]
    np.testing.assert_allclose(as_prediction(NORMAL).log_prob(y), expected, rtol=1e-10)


def test_log_prob_stays_finite_where_every_density_underflows():
    assert np.isfinite(as_prediction(NORMAL).log_prob(np.full((3, 1), 1e4))).all()


def test_a_single_draw_has_finite_standard_deviations_and_quantiles():
    """The unbiased standard deviation of a single draw would be NaN."""
    prediction = as_prediction(dist.Normal(LOC[:1], SCALE[:1]))
    values = [prediction.sd, prediction.epistemic_sd, *prediction.interval(0.9)]
    assert all(np.isfinite(value).all() for value in values)
    np.testing.assert_array_equal(prediction.epistemic_sd, 0)


def test_rescaling_equals_the_mixture_in_the_original_units():
    y = np.array([[10.0], [30.0], [-5.0]])
    scaled = as_prediction(NORMAL).rescaled(7.0, 3.0)
    direct = as_prediction(dist.Normal(7 + 3 * LOC[..., None], 3 * SCALE[..., None]).to_event(1))
    for name in ("mean", "sd", "epistemic_sd", "aleatoric_sd"):
        np.testing.assert_allclose(getattr(scaled, name), getattr(direct, name), rtol=1e-12)
    np.testing.assert_allclose(scaled.interval(0.9), direct.interval(0.9), rtol=1e-6)
    np.testing.assert_allclose(scaled.log_prob(y), direct.log_prob(y), rtol=1e-10)
    np.testing.assert_allclose(scaled.sample(seed=1), direct.sample(seed=1), rtol=1e-10)


def test_rescaling_twice_composes():
    twice = as_prediction(NORMAL).rescaled(1.0, 2.0).rescaled(-3.0, 0.5)
    once = as_prediction(NORMAL).rescaled(-2.5, 1.0)
    np.testing.assert_allclose(twice.mean, once.mean)
    np.testing.assert_allclose(twice.sd, once.sd)


def test_entropy_and_mutual_information_are_those_of_the_class_probabilities():
    probs = torch.tensor([[[0.9, 0.1, 0.0], [1 / 3] * 3], [[0.1, 0.9, 0.0], [1 / 3] * 3]])
    prediction = as_prediction(dist.Categorical(probs=probs.double()))
    assert isinstance(prediction, ClassificationPrediction)
    mean = probs.double().mean(0).numpy()
    np.testing.assert_allclose(prediction.probs, mean, atol=1e-6)
    np.testing.assert_allclose(prediction.entropy, stats.entropy(mean, axis=-1), atol=1e-6)
    each = stats.entropy(probs.numpy(), axis=-1)
    np.testing.assert_allclose(prediction.expected_entropy, each.mean(0), atol=1e-6)
    np.testing.assert_allclose(
        prediction.mutual_information, prediction.entropy - each.mean(0), atol=1e-6
    )
    assert prediction.mutual_information[1] == pytest.approx(0, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 10_000))
def test_mutual_information_is_never_negative(n_draws, n_classes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 30 * torch.randn(n_draws, 4, n_classes, generator=generator)
    prediction = as_prediction(dist.Categorical(logits=logits))
    assert (prediction.mutual_information >= 0).all()
    assert np.isfinite(prediction.entropy).all()


def test_mutual_information_is_zero_where_all_draws_agree():
    """The two entropies differ by rounding errors of either sign."""
    logits = torch.randn(1, 1000, 10, generator=torch.Generator().manual_seed(0))
    prediction = as_prediction(dist.Categorical(logits=logits.expand(7, 1000, 10)))
    assert (prediction.mutual_information >= 0).all()
    np.testing.assert_allclose(prediction.mutual_information, 0, atol=1e-6)


def test_two_classes_by_bernoulli_equal_two_classes_by_categorical():
    logits = torch.tensor([[[0.4], [-2.0]], [[1.4], [3.0]]], dtype=torch.float64)
    binary = as_prediction(dist.Bernoulli(logits=logits).to_event(1))
    both = as_prediction(dist.Categorical(logits=torch.cat([torch.zeros_like(logits), logits], -1)))
    np.testing.assert_allclose(binary.probs[:, 0], both.probs[:, 1])
    np.testing.assert_array_equal(binary.label[:, 0], both.label)
    for name in ("entropy", "expected_entropy", "mutual_information"):
        np.testing.assert_allclose(getattr(binary, name)[:, 0], getattr(both, name), atol=1e-12)
    y = np.array([1, 0])
    np.testing.assert_allclose(binary.log_prob(y[:, None]), both.log_prob(y), atol=1e-12)


def test_large_and_rare_counts_have_quantiles():
    # Not all integers of this size can be represented in single precision.
    rates = torch.tensor([[3e7], [3.1e7]])
    lower, upper = as_prediction(dist.Poisson(rates)).interval(0.9)
    parts = [stats.poisson(3e7), stats.poisson(3.1e7)]
    assert np.mean([p.cdf(lower[0]) for p in parts]) == pytest.approx(0.05, abs=1e-4)
    assert np.mean([p.cdf(upper[0]) for p in parts]) == pytest.approx(0.95, abs=1e-4)
    logits = torch.tensor([[-20.0], [3.0]])
    rare = as_prediction(dist.NegativeBinomial(torch.tensor(2.0), logits=logits))
    assert rare.quantile(0.05)[0] == 0


def test_results_have_the_type_of_the_input():
    assert isinstance(as_prediction(NORMAL, torch.zeros(3)).mean, torch.Tensor)
    assert isinstance(as_prediction(NORMAL, np.zeros(3)).mean, np.ndarray)


def test_chunks_of_rows_are_joined_in_order():
    chunks = [dist.Normal(LOC[:, :2], SCALE), dist.Normal(LOC[:, 2:], SCALE)]
    joined, whole = make_prediction(chunks, np.empty(0)), as_prediction(dist.Normal(LOC, SCALE))
    y = np.array([0.3, 5.0, -1.0])
    np.testing.assert_allclose(joined.quantile([0.1, 0.7]), whole.quantile([0.1, 0.7]))
    np.testing.assert_allclose(joined.log_prob(y), whole.log_prob(y))
    np.testing.assert_allclose(joined.sd, whole.sd)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.quantile(0.0), r"`q` must be one or more probabilities in \(0, 1\), got 0"),
        (lambda p: p.quantile([0.5, 1.2]), "`q` must be"),
        (lambda p: p.interval(1.0), r"`level` must be a probability in \(0, 1\), got 1"),
        (lambda p: p.interval(90), "`level` must be a probability"),
        (lambda p: p.log_prob(np.zeros(3)), r"`y` must have shape \(n, 1\)"),
        (lambda p: p.log_prob(np.zeros((4, 1))), "`y` must have the 3 rows"),
        (lambda p: p.log_prob(np.zeros((2, 1))), "`y` must have shape"),
        (lambda p: p.rescaled(0.0, -1.0), "`scale` must be positive"),
    ],
)
def test_invalid_arguments_are_named(call, message):
    prediction = as_prediction(NORMAL)
    assert isinstance(prediction, RegressionPrediction)
    with pytest.raises(ValueError, match=message):
        call(prediction)


@pytest.mark.parametrize("likelihood", ["gaussian", "student_t", "negative_binomial"])
def test_a_column_of_a_prediction_is_its_marginal(likelihood):
    rng = np.random.default_rng(0)
    loc, scale = torch.tensor(rng.normal(size=(7, 5, 2))), torch.tensor([0.5, 2.0]).double()
    made = {
        "gaussian": lambda j: torch.distributions.Normal(loc[..., j], scale[j]),
        "student_t": lambda j: torch.distributions.StudentT(4.0, loc[..., j], scale[j]),
        "negative_binomial": lambda j: torch.distributions.NegativeBinomial(
            3.0, logits=loc[..., j]
        ),
    }[likelihood]
    every = slice(None)
    joint = RegressionPrediction([torch.distributions.Independent(made(every), 1)], np.empty(0))
    y = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    for j in (0, 1):
        alone = RegressionPrediction([made(j)], np.empty(0))
        column = joint.column(j)
        np.testing.assert_allclose(column.mean, alone.mean)
        np.testing.assert_allclose(column.sd, joint.sd[:, j])
        np.testing.assert_allclose(column.log_prob(y), alone.log_prob(y))
        np.testing.assert_allclose(column.quantile(0.9), joint.quantile(0.9)[:, j])
    if likelihood != "negative_binomial":
        moved = joint.rescaled(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])).column(1)
        np.testing.assert_allclose(moved.mean, 2 + 4 * joint.mean[:, 1])
    with pytest.raises(ValueError, match="`column` needs a prediction of y of shape"):
        _ = joint.column(0).column(0).mean
