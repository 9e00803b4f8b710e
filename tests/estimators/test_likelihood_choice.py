"""likelihood="auto" and kl_weight="auto", the defaults of the estimators."""

import logging

import numpy as np
import pytest
import scipy.stats
import torch
from support import QUICK_ESTIMATOR, quick_fit
from support import X as SMALL_X

from pyrobbb import BBBClassifier, BBBRegressor, fit, likelihoods
from pyrobbb.estimators import likelihood_choice
from pyrobbb.estimators.likelihood_choice import (
    COUNTS,
    MIN_STEPS,
    REAL,
    SKEWED,
    are_counts,
    are_skewed,
    candidate_likelihoods,
    choose,
    held_out_densities,
)
from pyrobbb.estimators.preparation import Rows
from pyrobbb.estimators.search import Tried, search_table
from pyrobbb.model.names import LIKELIHOODS
from pyrobbb.prediction import Standardizer

N = 400
RNG = np.random.default_rng(3)  # a sixth of the draws is expected to be misjudged
X = RNG.uniform(-2, 2, (N, 2))
MEAN = np.exp(0.8 * X[:, 0])
TARGETS = {
    "gaussian": X[:, 0] + 0.3 * RNG.normal(size=N),
    "heteroscedastic": X[:, 0] + np.exp(1.2 * X[:, 1]) * 0.3 * RNG.normal(size=N),
    "student_t": X[:, 0] + 0.1 * RNG.standard_t(1.3, size=N),
    "poisson": RNG.poisson(MEAN),
    "lognormal": np.exp(3 + X[:, 0] + 0.5 * RNG.normal(size=N)),
    "negative_binomial": RNG.poisson(MEAN * RNG.gamma(0.4, 1 / 0.4, size=N)),
}
LONGER = QUICK_ESTIMATOR | {"epochs": 800, "calibration": 0}


SLOW = ("gaussian", "heteroscedastic", "poisson", "student_t")


@pytest.fixture
def short_search(monkeypatch):
    """Let candidates with few steps be searched."""
    monkeypatch.setattr(likelihood_choice, "MIN_STEPS", 1)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in TARGETS]
)
def test_the_likelihood_of_the_data_is_chosen(name, short_search):
    model = BBBRegressor(**LONGER, likelihood="auto").fit(X, TARGETS[name])
    table = model.search_
    assert table.likelihood[table.is_chosen].tolist() == [name]
    assert set(table.hidden) == {model.hidden_}
    assert type(model.likelihood_) is type(LIKELIHOODS[name])


def test_the_noise_that_depends_on_the_inputs_is_that_of_the_data(short_search):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (500, 1))
    y = 5 * x[:, 0] + np.where(x[:, 0] > 0, 2.0, 0.2) * rng.normal(size=500)
    model = BBBRegressor(restarts=1, epochs=400, random_state=0).fit(x, y)
    assert isinstance(model.likelihood_, likelihoods.HeteroscedasticGaussian)
    low, high = model.predict_distribution([[-0.5], [0.5]]).aleatoric_sd
    assert 0.15 < low < 0.5
    assert 1.5 < high < 2.7


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        ([0, 1, 2, 5], True),
        ([1, 3, 9], True),
        ([0, 1, 1, 0], False),  # two classes
        ([3, 4, 8], False),  # ratings, or sums far from 0
        ([0.0, 1.5, 3.0], False),
        ([-1, 0, 4], False),
    ],
)
def test_counts_are_integers_from_0_or_1(y, expected):
    y = np.array(y, float)[:, None]
    assert are_counts(y) == expected
    assert candidate_likelihoods(np.resize(y, (60, 1)), 1e5) == (COUNTS if expected else REAL)
    only = "negative_binomial" if expected else "gaussian"
    assert candidate_likelihoods(np.resize(y, (59, 1)), 1e5) == (only,)
    assert not are_counts(np.hstack([y, y]))


Z = np.random.default_rng(0).normal(size=(500, 1))


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (np.exp(Z), True),
        (1e-300 * np.exp(Z), True),
        (np.exp(0.1 * Z), False),  # nearly symmetric
        (np.exp(Z) - 0.1, False),  # not all positive
        (10 - np.exp(0.5 * Z), False),  # a long left tail
        (np.ones((500, 1)), False),
        (np.where(Z < -2.3, 1e-30, np.exp(Z)), False),  # a longer left tail on the log scale
        (np.hstack([np.exp(Z), np.exp(0.1 * Z)]), False),  # the second is not
    ],
)
def test_skewed_targets_are_positive_with_a_long_right_tail(y, expected):
    assert are_skewed(y) == expected
    assert candidate_likelihoods(y, 1e5) == (SKEWED if expected else REAL)
    assert candidate_likelihoods(y, 10) == (("lognormal",) if expected else ("gaussian",))


def test_a_likelihood_that_is_given_is_not_searched():
    model = BBBRegressor(**QUICK_ESTIMATOR, likelihood="student_t").fit(X, X[:, 0])
    assert model.search_ is None
    assert model.likelihood_ == likelihoods.StudentT()


def test_few_rows_are_not_searched():
    model = BBBRegressor(**QUICK_ESTIMATOR).fit(X[:59], TARGETS["poisson"][:59])
    assert model.search_ is None
    assert isinstance(model.likelihood_, likelihoods.NegativeBinomial)


def test_without_enough_steps_the_simplest_is_taken(caplog):
    """400 epochs of 400 rows took constant noise for noise that depends on the inputs."""
    caplog.set_level(logging.INFO, logger="pyrobbb")
    options = QUICK_ESTIMATOR | {"epochs": 400}
    model = BBBRegressor(**options).fit(X, TARGETS["gaussian"])
    assert isinstance(model.likelihood_, likelihoods.Gaussian)
    assert model.search_ is None
    assert caplog.text.count("likelihood='auto': gaussian, without a search") == 1
    y = TARGETS["gaussian"][:, None]
    enough = MIN_STEPS * len(REAL) / likelihood_choice.SEARCH_FRACTION
    assert len(candidate_likelihoods(y, enough + 2)) == len(REAL)
    assert candidate_likelihoods(y, enough - 2) == ("gaussian",)


def table_of(log_density):
    """Return the table of likelihoods whose candidates have these log densities."""
    tried = [Tried(name, (5,), 1, None, np.array(d, float)) for name, d in log_density.items()]
    return choose(search_table(tried))


@pytest.mark.parametrize(
    ("log_density", "expected"),
    [
        ({"gaussian": [-1, -3, -2], "student_t": [-3, -1, -2]}, "gaussian"),  # level
        ({"gaussian": [-2, -2, -2], "student_t": [-1, -1, -1]}, "student_t"),
        # Within one standard error, but by more than 0.05 nats.
        ({"gaussian": [-2.0, -1.0, -2.0], "student_t": [-1.0, -1.5, -2.0]}, "student_t"),
        ({"gaussian": [-1.04, -2.0], "student_t": [-1.0, -2.0]}, "gaussian"),
        ({"poisson": [-1.04, -2.0], "negative_binomial": [-1.0, -2.0]}, "negative_binomial"),
        ({"poisson": [-1.01, -2.0], "negative_binomial": [-1.0, -2.0]}, "poisson"),
    ],
)
def test_the_simplest_likelihood_that_is_as_good_as_the_best_is_chosen(log_density, expected):
    table = table_of(log_density)
    assert table.likelihood[table.is_chosen].tolist() == [expected]


def test_a_single_kl_weight_is_not_chosen_however_good():
    tried = [
        Tried(name, (5,), 1, weight, np.array(values))
        for name, weight, values in [
            ("gaussian", None, [-1.0, -2.0]),
            ("gaussian", 0.25, [-0.5, -0.4]),
            ("student_t", None, [-3.0, -3.5]),
        ]
    ]
    assert choose(search_table(tried)).is_chosen.tolist() == [True, False, False]


def test_weights_reach_the_candidates_and_their_comparison(short_search, monkeypatch):
    weight = 1 + np.arange(N) / N
    fitted, compared = [], []

    def recorded_fit(*args, **options):
        fitted.append(options["sample_weight"])
        return fit(*args, **options)

    def recorded_table(tried, weight):
        compared.append(weight)
        return search_table(tried, weight)

    monkeypatch.setattr(likelihood_choice, "fit", recorded_fit)
    monkeypatch.setattr(likelihood_choice, "search_table", recorded_table)
    monkeypatch.setattr(likelihood_choice, "MAX_HELD_OUT", 30)
    BBBRegressor(**QUICK_ESTIMATOR).fit(X, TARGETS["gaussian"], sample_weight=weight)
    assert len(fitted) == len(REAL)
    (held,) = compared
    assert len(held) == 30
    for part in fitted:
        np.testing.assert_allclose(np.sort([*part, *held]), weight)


def test_the_probabilities_of_counts_have_the_mean_of_the_density():
    counts = np.arange(-60, 61, dtype=float)
    posterior = quick_fit()
    held = Rows(np.repeat(SMALL_X[:1], len(counts), 0), (counts[:, None] - 0.3) / 5)
    scaling = Standardizer(torch.tensor([0.3]).double(), torch.tensor([5.0]).double())
    log_probs = held_out_densities(posterior, held, scaling, 50, 0, True)
    prediction = posterior.predict(SMALL_X[:1], 50, seed=0)
    for probs in np.exp(log_probs):
        assert probs.sum() == pytest.approx(1, abs=1e-6)
        assert probs @ counts == pytest.approx(0.3 + 5 * prediction.mean.item(), abs=0.01)


def test_log_densities_are_in_units_of_y(short_search):
    one, other = (
        BBBRegressor(**QUICK_ESTIMATOR).fit(X, scale * TARGETS["gaussian"]).search_
        for scale in (1.0, 1000.0)
    )
    np.testing.assert_allclose(one.log_density - other.log_density, np.log(1000), rtol=1e-6)


def test_the_probability_of_a_count_under_a_density_is_that_of_its_unit_interval(short_search):
    y = np.where(RNG.random(N) < 0.5, 0, RNG.integers(1, 30, N))
    model = BBBRegressor(**QUICK_ESTIMATOR).fit(X, y)
    table = model.search_.set_index("likelihood")
    # A spike at 0 would have an unbounded density; no probability exceeds 1.
    assert (table.log_density < 0).all()
    prediction = BBBRegressor(**QUICK_ESTIMATOR, likelihood="gaussian").fit(X, y)
    prediction = prediction.predict_distribution(X[:5])
    at, draws = np.full(5, 3.0), prediction.sample(0)
    assert draws.shape[1:] == (5,)
    lower, upper = prediction.cdf(at - 0.5), prediction.cdf(at + 0.5)
    approximate = np.exp(prediction.log_prob(at))  # a density, over an interval of length 1
    np.testing.assert_allclose(upper - lower, approximate, rtol=0.02)
    sd, mean = prediction.sd, prediction.mean
    np.testing.assert_allclose(lower, scipy.stats.norm.cdf(2.5, mean, sd), atol=0.03)


def test_the_search_is_saved_and_logged(tmp_path, caplog, short_search):
    caplog.set_level(logging.INFO, logger="pyrobbb")
    model = BBBRegressor(**QUICK_ESTIMATOR).fit(X, TARGETS["gaussian"])
    assert caplog.text.count("likelihood='auto': ") == 1
    model.save(tmp_path / "model")
    loaded = BBBRegressor.load(tmp_path / "model")
    assert loaded.search_.equals(model.search_)
    assert loaded.kl_weight == loaded.likelihood == "auto"


@pytest.mark.parametrize(
    ("kind", "restarts", "expected"),
    [
        (BBBRegressor, 1, [0.7]),
        (BBBRegressor, 2, [0.25, 1.0]),
        (BBBRegressor, 3, [0.25, 0.5, 1.0]),
        (BBBClassifier, 1, [0.7]),
        (BBBClassifier, 2, [0.7, 0.7]),
    ],
)
def test_each_restart_of_a_regressor_has_another_kl_weight(kind, restarts, expected):
    model = kind(epochs=2, restarts=restarts, random_state=0)
    y = X[:, 0] > 0 if kind is BBBClassifier else X[:, 0]

    def weights():
        return [chain.settings["kl_weight"] for chain in model.posterior_.chains]

    assert model.fit(X, y).kl_weight == "auto"
    assert weights() == expected
    model.partial_fit(X[:50], y[:50])
    assert weights() == expected
    model.set_params(warm_start=True).fit(X, y)
    assert weights() == expected
    fixed = kind(epochs=2, restarts=restarts, random_state=0, kl_weight=0.3).fit(X, y)
    assert {chain.settings["kl_weight"] for chain in fixed.posterior_.chains} == {0.3}


@pytest.mark.parametrize("kl_weight", ["best", 0.0, -1.0, None, [0.1, 0.2]])
def test_other_kl_weights_are_refused(kl_weight):
    with pytest.raises((TypeError, ValueError), match="`kl_weight` must be"):
        BBBRegressor(kl_weight=kl_weight).fit(X, X[:, 0])
