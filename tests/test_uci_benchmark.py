"""The UCI benchmark: its gap splits, widths of intervals, and what models have chosen."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import optimize, stats

BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")


@pytest.fixture(scope="module", autouse=True)
def benchmarks_on_the_path():
    sys.path.insert(0, BENCHMARKS)
    yield
    sys.path.remove(BENCHMARKS)


@pytest.mark.parametrize("n", [9, 10, 31])
def test_the_rows_of_a_gap_are_the_middle_third_of_one_input(n):
    from uci import gap_splits

    x = np.random.default_rng(0).normal(size=(n, 2))
    splits = gap_splits(x)
    assert len(splits) == 2
    for column, (train, test) in zip(x.T, splits, strict=True):
        assert sorted([*train, *test]) == list(range(n))
        assert abs(len(test) - n / 3) < 1
        low = column[train] < column[test].min()
        assert (low | (column[train] > column[test].max())).all()
        assert abs(low.sum() - n / 3) < 1


@pytest.mark.parametrize("q", [0.05, 0.5, 0.95])
def test_the_quantile_of_a_mixture_of_normals_solves_its_equation(q):
    from uci_models import normal_mixture_quantile

    mean, scale = np.array([[0.0, 1.0], [5.0, 1.5]]), np.array([[1.0, 0.1], [0.2, 2.0]])
    for row, found in enumerate(normal_mixture_quantile(q, mean, scale)):

        def excess(v, row=row):
            return stats.norm(mean[:, row], scale[:, row]).cdf(v).mean() - q

        assert found == pytest.approx(optimize.brentq(excess, -20, 20, xtol=1e-12), abs=1e-8)


@pytest.mark.parametrize("model", ["bayesian_ridge", "gaussian_process"])
def test_the_width_is_that_of_intervals_that_cover_as_scored(model):
    import uci_models

    rng = np.random.default_rng(1)
    x = rng.normal(size=(600, 2))
    y = 10 * x[:, 0] + rng.normal(size=600)
    score = getattr(uci_models, model)(x[:200], y[:200], x[200:], y[200:], 0)
    assert score.width == pytest.approx(2 * stats.norm.ppf(0.95), rel=0.15)
    assert score.coverage == pytest.approx(0.9, abs=0.06)


def test_what_an_estimator_has_chosen_is_kept_by_name_and_what_it_has_not_is_absent():
    from uci_models import choices_of

    def gaussian(outputs):
        return outputs

    today = SimpleNamespace(hidden_=(50,), likelihood_=gaussian)
    assert choices_of(today) == {"hidden_": "(50,)", "likelihood_": "gaussian"}
    later = SimpleNamespace(hidden_=[50, 50], kl_weight_=np.float64(0.3))
    assert choices_of(later) == {"kl_weight_": 0.3, "hidden_": "[50, 50]"}
    later.kl_weight_ = (0.25, 0.5, 1.0)
    assert choices_of(later)["kl_weight_"] == "0.25 to 1"


def test_the_page_shows_choices_and_gap_splits_and_leaves_out_models_without_scores():
    import uci

    score = {"log_lik": -1.0, "rmse": 1.0, "coverage": 0.9, "seconds": 1.0}
    rows = [{"set": "yacht", "split": 0, "model": uci.CONSTANT, **score}]
    for split, weight in enumerate((0.1, 0.3, 1.0)):
        chosen = {"kl_weight_": weight, "hidden_": "(50,)" if split else "(100,)"}
        new = {"set": "yacht gap", "split": split, "model": uci.DEFAULT, **score}
        rows.append({**new, "width": 2.0 + split, "chosen": chosen})
    page = uci.page(rows)
    chosen = page.split("## Chosen")[1]
    assert "| yacht | - | - | - |" in chosen
    assert "| yacht gap | - | (50,) (2 of 3) | 0.1 (1 of 3) |" in chosen
    shown, widths = page.split("## Share of")[1].split("## Gap splits")[0].split("## Mean width")
    assert f"| `{uci.CONSTANT}` |{' - |' * 7} 90.0 |" in shown
    assert uci.CONSTANT not in widths
    gaps = page.split("## Gap splits")[1]
    assert f"| `{uci.DEFAULT}` | - | - | 3.00 +- 0.58 |" in gaps


def test_an_interrupted_benchmark_resumes_and_runs_no_job_twice(tmp_path, capsys):
    from scored import read, resume

    ran = []

    def job(number):
        if number == 2 and len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(number)
        return {"score": 10 * number}

    def jobs():
        for number in range(4):
            yield {"set": "a", "split": number}, lambda number=number: job(number)

    path = tmp_path / "scores.jsonl"
    with pytest.raises(KeyboardInterrupt):
        resume(path, jobs())
    assert [row["score"] for row in read(path)] == [0, 10]
    ran.append(None)  # what interrupted it is over
    resume(path, jobs())
    assert ran == [0, 1, None, 2, 3]
    assert [(row["split"], row["score"]) for row in read(path)] == [(i, 10 * i) for i in range(4)]
    assert all(row["seconds"] >= 0 for row in read(path))
