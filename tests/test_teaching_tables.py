"""The benchmark on teaching tables: its tables, the scores it gives, and its verdict."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")


@pytest.fixture(scope="module", autouse=True)
def benchmarks_on_the_path():
    sys.path.insert(0, BENCHMARKS)
    yield
    sys.path.remove(BENCHMARKS)


@dataclass(frozen=True)
class LikeOurs:
    """A prediction with the methods of ours that the benchmark uses, by a distribution of SciPy."""

    distribution: object

    def log_prob(self, y):
        discrete = isinstance(self.distribution.dist, stats.rv_discrete)
        return self.distribution.logpmf(y) if discrete else self.distribution.logpdf(y)

    def sample(self, seed):
        return self.distribution.rvs((8, 3), random_state=seed)


Y = np.array([3.0, 0.0, 40.0])
MEAN = np.array([2.5, 1.0, 12.0])


@pytest.mark.parametrize(
    "distribution", [stats.norm(MEAN, [0.5, 2.0, 3.0]), stats.t(3, MEAN, 2.0)], ids=["normal", "t"]
)
def test_a_density_is_integrated_over_the_unit_interval_around_an_integer(distribution):
    from forecasts import Distributed, log_mass

    exact = np.log([stats_quad(distribution, i) for i in range(3)])
    for forecast in (Distributed(distribution), LikeOurs(distribution)):
        np.testing.assert_allclose(log_mass(forecast, Y), exact, rtol=1e-6)


def stats_quad(distribution, row):
    from scipy.integrate import quad

    return quad(lambda v: distribution.pdf(v)[row], Y[row] - 0.5, Y[row] + 0.5, epsabs=0)[0]


@pytest.mark.parametrize("form", ["Distributed", "LikeOurs"])
def test_probabilities_of_counts_are_taken_as_they_are(form):
    import forecasts

    forecast = {"Distributed": forecasts.Distributed, "LikeOurs": LikeOurs}[form](
        stats.poisson(MEAN)
    )
    np.testing.assert_allclose(forecasts.log_mass(forecast, Y), stats.poisson(MEAN).logpmf(Y))


def test_a_needle_at_an_integer_gains_no_more_than_probability_one():
    from forecasts import Distributed, log_mass

    needle = Distributed(stats.norm(Y, 1e-6))
    assert needle.log_prob(Y).min() > 10
    np.testing.assert_allclose(log_mass(needle, Y), 0.0, atol=1e-12)


def test_the_dispersion_of_the_negative_binomial_is_that_of_its_variance():
    from table_models import negative_binomial

    mean = np.array([0.5, 4.0])
    np.testing.assert_allclose(negative_binomial(mean, 2.0).var(), mean + mean**2 / 2)


@pytest.mark.parametrize("name", ["diabetes", "wine"])
def test_a_split_holds_each_row_once_and_is_the_same_each_time(name):
    from teaching_tables import load

    table = load(name)
    split = table.split(1)
    together = np.concatenate([split.x, split.x_test])
    assert len(split.y_test) == round(len(table.y) / 5)
    np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(table.x, axis=0))
    np.testing.assert_array_equal(split.x, table.split(1).x)
    assert not np.array_equal(split.x, table.split(2).x)


def test_the_halves_have_all_tables_once_and_every_kind_of_them():
    from teaching_tables import TABLES, halves

    development, held_back = halves()
    assert sorted([*development, *held_back]) == sorted(TABLES)
    for half in (development, held_back):
        assert {TABLES[name].kind for name in half} == {"classification", "counts", "regression"}


def test_a_table_whose_package_is_missing_is_skipped_with_a_message(monkeypatch, capsys):
    import tables
    import teaching_tables

    source = teaching_tables.Source(
        "counts", lambda: teaching_tables.folder("no_such_package"), "y"
    )
    monkeypatch.setitem(teaching_tables.TABLES, "absent", source)
    found = list(tables.available(iter(["absent", "iris"])))
    assert [table.name for table in found] == ["iris"]
    assert "Skipped absent: no_such_package is not installed." in capsys.readouterr().err


def test_scores_of_a_known_forecast_are_those_computed_by_hand():
    import tables
    from forecasts import Distributed

    split = tables.load("diabetes").split(0)
    sd = split.y.std()
    width = 2 * stats.norm.ppf(0.95)
    score = tables.score(
        lambda split: Distributed(stats.norm(np.full(len(split.y_test), 150.0), sd)), "diabetes"
    )
    error = split.y_test - 150.0
    nll = 0.5 * np.log(2 * np.pi * sd**2) + (error**2).mean() / (2 * sd**2)
    assert score["nll"] == pytest.approx(nll, abs=1e-4)  # mass of a unit interval, not density
    assert score["error"] == pytest.approx((error**2).mean() ** 0.5 / sd)
    assert score["width"] == pytest.approx(width)
    assert score["coverage"] == (np.abs(error) <= width * sd / 2).mean()


@pytest.mark.parametrize("name", ["random forest", "linear model", "HistGradientBoosting"])
def test_a_peer_beats_the_frequencies_of_the_classes(name):
    import tables

    split = tables.load("wine").split(0)
    shares = np.bincount(split.y.astype(int)) / len(split.y)
    baseline = -np.log(shares[split.y_test.astype(int)]).mean()
    assert tables.score(tables.MODELS[name], "wine")["nll"] < baseline / 2


def test_an_estimator_of_ours_is_scored_by_its_own_predictions():
    import tables
    from pyrobbb import BBBClassifier

    def make(split):
        return BBBClassifier((4,), epochs=20, restarts=1, n_draws=8, random_state=0)

    split = tables.load("iris").split(2)
    model = make(split).fit(split.x, split.y.astype(int))
    probs = model.predict_proba(split.x_test)
    row = tables.score(make, "iris", 2)
    expected = -np.log(probs[np.arange(len(probs)), split.y_test.astype(int)]).mean()
    assert row["nll"] == pytest.approx(expected, rel=1e-5)
    assert row["hidden_"] == "(4,)"


def test_the_verdict_counts_tables_and_names_the_worst():
    import tables

    def rows(table, ours, theirs):
        yield {"table": table, "split": 0, "model": tables.OURS, "nll": ours}
        for model, nll in theirs.items():
            yield {"table": table, "split": 0, "model": model, "nll": nll}

    made = [
        *rows("iris", 0.54, {"CatBoost": 0.5, "NGBoost": 0.6}),
        *rows("wine", 0.9, {"CatBoost": 0.8, "linear model": 0.7}),
        {"table": "oj", "split": 0, "model": "CatBoost", "nll": 0.1},
    ]
    verdict = tables.verdict(made, ["iris", "wine", "oj"])
    assert verdict.endswith(
        "on 1 of 2 tables; the largest difference is +0.200, on wine against linear model."
    )


def test_a_peer_that_has_failed_on_a_split_is_not_the_best():
    import tables

    rows = [
        {"table": "iris", "split": split, "model": tables.OURS, "nll": 0.5} for split in range(2)
    ]
    rows += [{"table": "iris", "split": 0, "model": "NGBoost", "nll": 0.1}]
    rows += [{"table": "iris", "split": 1, "model": "NGBoost", "failed": "ValueError"}]
    rows += [{"table": "iris", "split": s, "model": "linear model", "nll": 0.45} for s in range(2)]
    assert tables.deficits(rows, ["iris"]) == {"iris": (pytest.approx(0.05), "linear model")}
    assert tables.failures(rows) == ["- NGBoost failed on iris: ValueError"]


def test_the_folds_of_the_classifiers_test_each_row_once_and_scores_are_pooled():
    import classifiers
    from forecasts import Classes

    parts = list(classifiers.splits("wine", None))
    table = classifiers.load("wine")
    tested = np.concatenate([split.x_test for split in parts])
    np.testing.assert_array_equal(np.sort(tested, axis=0), np.sort(table.x, axis=0))

    def shares(split):
        share = np.bincount(split.y.astype(int)) / len(split.y)
        return Classes(np.tile(share, (len(split.y_test), 1)))

    row = classifiers.score(shares, parts)
    nll = [-np.log(shares(s).probs[0][s.y_test.astype(int)]) for s in parts]
    assert row["log_loss"] == pytest.approx(np.concatenate(nll).mean())
    assert row["error"] == pytest.approx((table.y != 1).mean())


@pytest.mark.parametrize("decays", [(0.0, 200.0), (200.0, 0.0)])
def test_the_tuned_ensemble_takes_the_weight_decay_that_predicts_held_out_rows(monkeypatch, decays):
    import net_ensemble
    from teaching_tables import load

    monkeypatch.setattr(net_ensemble, "WEIGHT_DECAYS", decays)
    monkeypatch.setattr(net_ensemble, "STEPS", (2, 60))
    split = load("wine").split(0)
    forecast = net_ensemble.tuned_ensemble(split)
    np.testing.assert_allclose(forecast.probs.sum(1), 1.0, rtol=1e-6)
    assert -forecast.log_prob(split.y_test).mean() < 0.3  # at 200 all weights vanish: log 3
