"""Acquisition functions against brute force, and selection from pools in chunks."""

import itertools

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import multivariate_normal
from support import QUICK_ESTIMATOR, X, Y, quick_fit, shared_fit, small_network

from pyrobbb import BBBClassifier, acquisition, likelihoods
from pyrobbb.acquisition.joint_information import _drawn_configurations
from pyrobbb.acquisition.selection import _probabilities_at
from pyrobbb.prediction import make_prediction
from pyrobbb.scores import auroc

RNG = np.random.default_rng(0)
PROBS = RNG.dirichlet([0.4, 0.4, 0.4], (7, 6))  # 7 draws, 6 rows, 3 classes
CLASSES = make_prediction([dist.Categorical(torch.as_tensor(PROBS))], np.empty(0))
FEW = make_prediction([dist.Categorical(torch.as_tensor(PROBS[:3]))], np.empty(0))
LOC, SCALE = RNG.normal(size=(40, 6)), RNG.uniform(0.3, 1, (40, 1))
NUMBERS = make_prediction([dist.Normal(torch.as_tensor(LOC), torch.as_tensor(SCALE))], np.empty(0))


def entropy(p):
    p = np.asarray(p).ravel()
    return -(p[p > 0] * np.log(p[p > 0])).sum()


def table_of(probs, rows):
    """Return the joint distribution of the labels of some rows, by enumeration."""
    table = np.zeros((3,) * len(rows))
    for labels in itertools.product(range(3), repeat=len(rows)):
        table[labels] = np.mean([np.prod(p[list(rows), list(labels)]) for p in probs])
    return table


def information_of(rows):
    """Return the mutual information of the weights and the labels of some rows, by enumeration."""
    return entropy(table_of(PROBS, rows)) - sum(
        np.mean([entropy(p[row]) for p in PROBS]) for row in rows
    )


def test_bald_of_classes_is_the_mutual_information_by_enumeration():
    expected = [information_of([row]) for row in range(6)]
    np.testing.assert_allclose(acquisition.bald(CLASSES), expected)
    np.testing.assert_allclose(acquisition.bald(CLASSES), CLASSES.mutual_information)


def test_bald_of_a_binary_class_is_that_of_two_classes():
    p = torch.as_tensor(PROBS[:, :, :1])
    binary = make_prediction([dist.Bernoulli(p).to_event(1)], np.empty(0))
    two = make_prediction([dist.Categorical(torch.cat([1 - p, p], -1))], np.empty(0))
    np.testing.assert_allclose(acquisition.bald(binary), acquisition.bald(two))


def test_bald_of_normal_numbers_is_half_the_log_ratio_of_variances():
    total = LOC.var(0) + (SCALE**2).mean()
    expected = 0.5 * (np.log(total) - np.log(SCALE**2).mean())
    np.testing.assert_allclose(acquisition.bald(NUMBERS), expected)


def test_variance_is_that_of_means_or_of_probabilities():
    np.testing.assert_allclose(acquisition.variance(NUMBERS), NUMBERS.epistemic_sd**2)
    np.testing.assert_allclose(acquisition.variance(CLASSES), PROBS.var(0).sum(-1))


def test_batch_bald_is_the_greedy_choice_by_joint_entropies():
    index, information = acquisition.batch_bald(CLASSES, n=4)
    chosen = []
    for found in information:
        best = max(
            (r for r in range(6) if r not in chosen), key=lambda r: information_of([*chosen, r])
        )
        chosen.append(best)
        assert found == pytest.approx(information_of(chosen))
    assert index.tolist() == chosen


def test_batch_bald_estimates_entropies_from_drawn_configurations():
    _, exact = acquisition.batch_bald(CLASSES, n=5)
    _, estimated = acquisition.batch_bald(CLASSES, n=5, n_configurations=20, seed=0)
    assert estimated[:2] == pytest.approx(exact[:2])  # 9 configurations
    many = np.array(
        [acquisition.batch_bald(CLASSES, n=3, n_configurations=8, seed=s)[1][2] for s in range(200)]
    )
    # The maximum over rows of noisy estimates is biased upwards a little.
    assert many.mean() == pytest.approx(exact[2], abs=0.03 + 4 * many.std() / 200**0.5)
    large = acquisition.batch_bald(CLASSES, n=5, n_configurations=100_000, seed=0)[1]
    assert large == pytest.approx(exact)


def test_batch_bald_does_not_choose_the_same_information_twice():
    row = np.stack([np.eye(3)[[0, 1, 2, 0]], np.full((4, 3), 1 / 3)], 1)
    other = np.eye(3)[[0, 0, 1, 1]] * 0.9 + 0.1 / 3
    probs = torch.as_tensor(np.stack([row[:, 0], row[:, 0], other], 1))
    prediction = make_prediction([dist.Categorical(probs)], np.empty(0))
    assert acquisition.bald(prediction)[1] > acquisition.bald(prediction)[2]
    index, _ = acquisition.batch_bald(prediction, n=2)
    assert index.tolist() == [0, 2]


def test_epig_of_classes_is_the_mutual_information_with_the_targets_by_enumeration():
    probs = RNG.dirichlet([0.5, 0.5, 0.5], (7, 4))
    target = make_prediction([dist.Categorical(torch.as_tensor(probs))], np.empty(0))
    both = np.concatenate([PROBS, probs], 1)
    for row, found in enumerate(acquisition.epig(CLASSES, target=target)):
        gains = []
        for other in range(6, 10):
            table = table_of(both, [row, other])
            gains.append(entropy(table.sum(0)) + entropy(table.sum(1)) - entropy(table))
        assert found == pytest.approx(np.mean(gains))


def test_epig_of_normal_numbers_is_the_information_of_the_joint_normal_distribution():
    loc = RNG.normal(size=(40, 3)) + LOC[:, :3]
    target = make_prediction(
        [dist.Normal(torch.as_tensor(loc), torch.as_tensor(SCALE))], np.empty(0)
    )
    for row, found in enumerate(acquisition.epig(NUMBERS, target=target)):
        gains = []
        for other in range(3):
            covariance = np.cov(LOC[:, row], loc[:, other], bias=True)
            covariance += np.eye(2) * (SCALE**2).mean()
            parts = [multivariate_normal(cov=covariance[i, i]).entropy() for i in (0, 1)]
            gains.append(sum(parts) - multivariate_normal(cov=covariance).entropy())
        assert found == pytest.approx(np.mean(gains))


def test_functions_take_a_posterior_and_rows():
    posterior = shared_fit()
    prediction = posterior.predict(X, 20, seed=3)
    found = acquisition.bald(posterior, X, n_draws=20, seed=3)
    np.testing.assert_allclose(found, acquisition.bald(prediction))
    target = posterior.predict(X[:4], 20, seed=3)
    found = acquisition.epig(posterior, X, X[:4], n_draws=20, seed=3)
    np.testing.assert_allclose(found, acquisition.epig(prediction, target=target))


# Selection


@pytest.fixture(scope="module")
def classifier():
    labels = (Y[:, 0] > 0).astype(int) + (X[:, 0] > 1)
    return quick_fit(small_network(3, likelihood=likelihoods.Categorical()), X, labels)


POOL = np.random.default_rng(5).normal(size=(300, 3)) * 2


@pytest.mark.parametrize("strategy", ["bald", "variance", "epig"])
def test_the_best_rows_are_found_in_chunks(classifier, tmp_path, strategy):
    options = {"target": X[:5]} if strategy == "epig" else {}
    scores = getattr(acquisition, strategy)(classifier, POOL, n_draws=30, seed=1, **options)
    expected = np.argsort(-scores, kind="stable")[:12]
    np.save(tmp_path / "pool.npy", POOL)
    mapped = np.load(tmp_path / "pool.npy", mmap_mode="r")
    for pool in (POOL, mapped, (POOL[i : i + 37] for i in range(0, 300, 37))):
        found = acquisition.select(
            classifier, pool, 12, strategy, n_draws=30, seed=1, rows=50, **options
        )
        assert found.tolist() == expected.tolist()


def test_a_batch_is_chosen_from_the_candidates_of_all_chunks(classifier):
    options = {"n_draws": 30, "seed": 1}
    index, _ = acquisition.batch_bald(classifier, POOL, 4, **options)
    for rows in (300, 41):
        found = acquisition.select(
            classifier, POOL, 4, "batch_bald", n_candidates=300, rows=rows, **options
        )
        assert sorted(found) == sorted(index)
    few = acquisition.select(classifier, POOL, 4, "batch_bald", n_candidates=6, rows=41, **options)
    assert set(few) <= set(acquisition.select(classifier, POOL, 6, rows=41, **options))


def test_random_rows_are_uniform_and_do_not_depend_on_the_chunks(classifier):
    found = [acquisition.select(classifier, POOL, 50, "random", seed=s, n_draws=2) for s in (0, 1)]
    assert found[0].tolist() != found[1].tolist()
    assert len(set(found[0].tolist())) == 50
    again = acquisition.select(classifier, POOL, 50, "random", seed=0, n_draws=2, rows=17)
    assert again.tolist() == found[0].tolist()


def test_a_function_of_the_prediction_is_a_strategy(classifier):
    found = acquisition.select(classifier, POOL, 7, lambda p: p.entropy, n_draws=30, seed=1)
    entropy = classifier.predict(POOL, 30, seed=1).entropy
    assert found.tolist() == np.argsort(-entropy, kind="stable")[:7].tolist()


def test_an_estimator_selects_by_its_own_draws():
    model = BBBClassifier([4], calibration=0, **QUICK_ESTIMATOR)
    model.fit(X, Y[:, 0] > 0)
    scores = model.predict_distribution(POOL).mutual_information
    found = acquisition.select(model, POOL, 5, rows=70)
    assert found.tolist() == np.argsort(-scores, kind="stable")[:5].tolist()


def test_rows_far_from_the_data_of_a_regression_have_the_highest_variance():
    posterior = shared_fit(epochs=100)
    inside = acquisition.variance(posterior, X, seed=0)
    assert auroc(inside, acquisition.variance(posterior, 4 * X, seed=0)) > 0.6


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((POOL, 5, "bold"), {}, "`strategy` must be one of bald, batch_bald"),
        ((POOL, 301), {}, "`n` must be at most the 300 rows of the pool, got 301"),
        ((POOL, 0), {}, "`n` must be"),
        ((POOL, 5, "epig"), {}, '`target` is for strategy="epig", which needs it'),
        ((POOL, 5), {"target": X}, '`target` is for strategy="epig", which needs it'),
        ((POOL, 5, lambda p: p.probs), {}, "`strategy` must return a number for each row"),
    ],
)
def test_arguments_of_select_are_checked(classifier, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        acquisition.select(classifier, *arguments, n_draws=4, **options)


def test_arguments_of_the_functions_are_checked():
    with pytest.raises(ValueError, match="`batch_bald` needs classes, got a regression"):
        acquisition.batch_bald(NUMBERS)
    with pytest.raises(ValueError, match='"batch_bald" needs classes, got a regression'):
        acquisition.select(shared_fit(), POOL, 3, "batch_bald", n_draws=4)
    with pytest.raises(ValueError, match="`target` is required, got None"):
        acquisition.epig(CLASSES)
    with pytest.raises(ValueError, match="`target` must have the draws of the prediction, 7, got"):
        acquisition.epig(CLASSES, target=FEW)
    with pytest.raises(ValueError, match="`x` is required with a Posterior, got None"):
        acquisition.bald(shared_fit())
    with pytest.raises(ValueError, match="`x` must be left out with a prediction"):
        acquisition.bald(CLASSES, X)
    with pytest.raises(TypeError, match="`model` must be a prediction, a posterior or an"):
        acquisition.bald("model", X)
    with pytest.raises(ValueError, match="`n` must be at most the 6 rows, got 7"):
        acquisition.batch_bald(CLASSES, n=7)


# Blocks, chunks and seeds


class Recorder:
    """A model of which each row of the pool is the index of a row of PROBS; it keeps the seeds."""

    chains = ()

    def __init__(self):
        self.seeds = []

    def predict(self, x, n_draws, seed):
        self.seeds.append(seed)
        probs = torch.as_tensor(PROBS[:, np.asarray(x, int)[:, 0]])
        return make_prediction([dist.Categorical(probs)], np.empty(0))


def test_scores_do_not_depend_on_the_blocks_in_which_they_are_computed(monkeypatch):
    def found():
        return (
            acquisition.batch_bald(CLASSES, n=4)[1],
            acquisition.epig(CLASSES, target=CLASSES),
            acquisition.epig(NUMBERS, target=NUMBERS),
        )

    whole = found()
    for size in (1, 24):
        monkeypatch.setattr("pyrobbb.acquisition.joint_information.MAX_ELEMENTS", size)
        for one, other in zip(found(), whole, strict=True):
            np.testing.assert_allclose(one, other)


def test_predictions_in_chunks_have_the_scores_of_the_whole():
    parts = [dist.Categorical(torch.as_tensor(p)) for p in np.split(PROBS, [2, 3], axis=1)]
    chunked = make_prediction(parts, np.empty(0))
    for score in (acquisition.bald, acquisition.variance):
        np.testing.assert_allclose(score(chunked), score(CLASSES))
    expected = acquisition.epig(CLASSES, target=CLASSES)
    np.testing.assert_allclose(acquisition.epig(chunked, target=chunked), expected)
    kept = _probabilities_at(chunked)(np.array([4, 0, 3, 2]))
    np.testing.assert_allclose(torch.stack(kept, 1), PROBS[:, [4, 0, 3, 2]])


def test_rows_and_targets_have_the_same_draws_without_a_seed():
    rows, model = np.arange(6)[:, None], Recorder()
    acquisition.epig(model, rows, rows)
    first, second = model.seeds
    assert first is not None
    assert first == second
    acquisition.select(model, rows, 2, rows=2)
    assert len(model.seeds) == 5
    assert len(set(model.seeds[2:])) == 1
    assert model.seeds[2] is not None


def test_several_columns_are_summed():
    loc = torch.as_tensor(np.stack([LOC, 2 * LOC[:, ::-1]], -1))
    scale = torch.as_tensor(np.stack([SCALE + 0 * LOC, 0.5 * SCALE + 0 * LOC], -1))
    both = make_prediction([dist.Normal(loc, scale).to_event(1)], np.empty(0))
    columns = [
        make_prediction([dist.Normal(loc[..., i], scale[..., i])], np.empty(0)) for i in (0, 1)
    ]
    for score in (acquisition.bald, acquisition.variance):
        np.testing.assert_allclose(score(both), score(columns[0]) + score(columns[1]))


def test_the_labels_of_a_drawn_configuration_are_of_one_draw():
    row = torch.eye(3, dtype=torch.float64)  # under draw i, all labels are i
    configurations = _drawn_configurations(row[:, None].expand(3, 4, 3), 50, torch.Generator())
    np.testing.assert_array_equal(configurations.sum(1), np.ones(50))


def test_drawn_configurations_are_those_of_the_seed():
    def found(seed):
        return acquisition.batch_bald(CLASSES, n=4, n_configurations=8, seed=seed)[1].tolist()

    assert found(0) == found(0)
    assert found(0) != found(1)


def test_of_equal_scores_the_first_rows_come_first_within_and_across_chunks():
    scores = np.arange(6) % 2
    for rows in (1, 4, 6):
        found = acquisition.select(
            Recorder(), np.arange(6)[:, None], 5, lambda p: np.zeros(len(p)), rows=rows, seed=0
        )
        assert found.tolist() == [0, 1, 2, 3, 4]
        taken = iter(np.split(scores, range(rows, 6, rows)))
        found = acquisition.select(
            Recorder(), np.arange(6)[:, None], 5, lambda _, t=taken: next(t), rows=rows, seed=0
        )
        assert found.tolist() == [1, 3, 5, 0, 2]


def test_a_batch_may_be_larger_than_the_number_of_candidates():
    pool = np.arange(6)[:, None]
    found = acquisition.select(Recorder(), pool, 4, "batch_bald", n_candidates=2, seed=0)
    assert len(set(found.tolist())) == 4


def test_the_configurations_of_a_batch_are_those_of_the_seed_of_select(monkeypatch):
    monkeypatch.setattr("pyrobbb.acquisition.selection.N_CONFIGURATIONS", 3)
    pool = np.arange(6)[:, None]
    found = {
        tuple(acquisition.select(Recorder(), pool, 5, "batch_bald", seed=seed))
        for seed in range(20)
    }
    assert len(found) > 1
