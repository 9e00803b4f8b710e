"""Teaching tables of 25 to 20,000 rows: proper scores of pyrobbb and of other libraries' models.

    make bench-tables        # writes benchmarks/TABLES.md

The tables come with scikit-learn, statsmodels and ISLP. Scores are appended to
`benchmarks/tables.jsonl` as they come, and a run resumes where the last one ended.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forecasts import Classes, log_mass
from harness import reason
from pyrobbb import scores
from scored import Row, parser, read, resume
from table_models import MODELS, PEERS, Model
from teaching_tables import TABLES, MissingPackageError, Split, Table, halves, load
from uci_models import choices_of

HERE = Path(__file__).parent
SCORES, PAGE = HERE / "tables.jsonl", HERE / "TABLES.md"
LEVEL = 0.9
LEVEL_NATS = 0.05
"""Nats per row within which two models are level."""
OURS = next(iter(MODELS))
NUMBERS, CLASSES = ("counts", "regression"), ("classification",)
SECTIONS = [
    ("Negative log predictive density, nats per row", "nll", 3, (*CLASSES, *NUMBERS)),
    ("Share of wrong classes", "error", 3, CLASSES),
    ("Expected calibration error of classes", "ece", 3, CLASSES),
    ("RMSE, in standard deviations of y", "error", 3, NUMBERS),
    ("Share of test rows within the 90 % interval", "coverage", 3, NUMBERS),
    ("Mean width of the 90 % interval, in standard deviations of y", "width", 2, NUMBERS),
    (
        "Seconds to fit and to predict, one thread, on a busy machine",
        "seconds",
        1,
        (*CLASSES, *NUMBERS),
    ),
]
NOTES = """\
Tables with a star are held back. There are ten splits of tables of fewer than 100 rows, three
of those below 500, one otherwise. All models but `pyrobbb` have their library's defaults:

- CatBoost has the loss `RMSEWithUncertainty`; CatBoost and NGBoost give normal distributions.
- "CatBoost, point", HistGradientBoosting, random forest and linear model give a point: least
  squares with a normal distribution around it, whose standard deviation is that of out-of-fold
  errors (five folds); for counts Poisson losses (the forest: least squares) with a negative
  binomial distribution, whose dispersion is fitted to out-of-fold predictions.
- The random forest's probabilities of classes are mixed with equal ones, 100 parts to 1 (its trees
  are 100), so that none is zero. The linear model of classes is logistic regression.
- If all of a target's values are integers, a density is integrated over the unit interval around
  them: densities and probabilities of counts are compared on the same footing.
""".splitlines()
HALVES = dict(zip(("development", "held-back"), halves(), strict=True))


@dataclass(frozen=True)
class Score:
    """How a model did on the test rows of a split.

    Attributes
    ----------
    nll : float
        Mean negative log predictive density, in nats per row; for integers and classes, the
        negative log probability.
    error : float
        Root mean squared error in standard deviations of y, or the share of wrong classes.
    coverage, width : float or None
        Of central 90 % intervals: the share of the rows within, and the mean width in standard
        deviations of y. None for classes.
    ece : float or None
        Expected calibration error of the most probable class; None for numbers.
    """

    nll: float
    error: float
    coverage: float | None
    width: float | None
    ece: float | None


def score(model: Model, name: str, seed: int = 0) -> dict[str, Any]:
    """Fit a model to a split of a table, and score it on the other rows.

    Parameters
    ----------
    model : callable
        From a `Split` to a forecast, or to an estimator that has not been fitted, such as
        ``lambda split: BBBRegressor(random_state=split.seed)``.
    name : str
        One of `teaching_tables.TABLES`.
    seed : int
        Of the split.

    Returns
    -------
    dict
        The fields of a `Score`, `seconds`, and what the estimator has chosen, if anything.
    """
    table = load(name)
    split = table.split(seed)
    start = time.perf_counter()
    made = model(split)
    forecast = forecast_of(made, split) if hasattr(made, "fit") else made
    found = score_of(forecast, split, table.is_integer)
    seconds = time.perf_counter() - start
    return {**asdict(found), "seconds": seconds, **choices_of(made)}


def forecast_of(estimator: Any, split: Split) -> Any:
    """Fit an estimator of pyrobbb, and return its forecast of the test rows."""
    if split.kind == "classification":
        estimator.fit(split.x, split.y.astype(int))
        return Classes(estimator.predict_proba(split.x_test).astype(float))
    return estimator.fit(split.x, split.y).predict_distribution(split.x_test)


def score_of(forecast: Any, split: Split, is_integer: bool) -> Score:
    """Score a forecast."""
    y = split.y_test
    if split.kind == "classification":
        return Score(
            scores.nll(forecast, y),
            scores.error_rate(forecast, y),
            None,
            None,
            scores.ece(forecast, y),
        )
    lower, upper = map(np.asarray, forecast.interval(LEVEL))
    log_prob = log_mass(forecast, y) if is_integer else np.asarray(forecast.log_prob(y))
    sd = split.y.std()
    return Score(
        float(-log_prob.mean()),
        scores.rmse(forecast, y) / sd,
        float(((lower <= y) & (y <= upper)).mean()),
        float((upper - lower).mean()) / sd,
        None,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what has not been run, and write the page."""
    command = parser(__doc__, MODELS)
    command.add_argument("--tables", nargs="+", choices=[*HALVES, *TABLES], default=list(HALVES))
    command.add_argument("--splits", type=int, help="only the first so many")
    options = command.parse_args(arguments)
    if not options.page:
        torch.set_num_threads(options.threads)
        resume(SCORES, jobs(options))
    PAGE.write_text(page(read(SCORES)) + "\n", encoding="utf-8")
    return 0


def jobs(options: argparse.Namespace) -> Iterator[tuple[Row, Callable[[], Row]]]:
    """Return the splits and models to score."""
    for table in available(name for part in options.tables for name in HALVES.get(part, [part])):
        for model in options.models:
            for split in range(table.n_splits)[: options.splits]:
                job = {"table": table.name, "split": split, "model": model}
                yield job, partial(score_or_reason, MODELS[model], table.name, split)


def score_or_reason(model: Model, name: str, split: int) -> dict[str, Any]:
    """Score a model without warnings; the reason if its library fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return score(model, name, split)
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        return {"failed": reason(type(error).__name__, error)}


def available(names: Iterator[str]) -> Iterator[Table]:
    """Read tables; one whose package is missing is skipped with a message."""
    for name in names:
        try:
            yield load(name)
        except MissingPackageError as error:
            print(f"Skipped {name}: {error}.", file=sys.stderr)


def page(rows: list[dict[str, Any]]) -> str:
    """Return the page."""
    lines = [
        "# Teaching tables",
        "",
        "Written by `make bench-tables`: tables that come with scikit-learn, statsmodels and",
        "ISLP. Each model has one set of settings for all tables. Means over random splits, a",
        "fifth of the rows for testing. Settings of pyrobbb may be chosen on the development",
        "tables; those held back are for the final figures.",
        "",
    ]
    for half, names in HALVES.items():
        lines += [f"{half.capitalize()}: {verdict(rows, names)}", ""]
    for title, column, digits, kinds in SECTIONS:
        lines += [f"## {title}", "", *section(rows, column, digits, kinds), ""]
    return "\n".join([*lines, *NOTES, *failures(rows)])


def verdict(rows: list[dict[str, Any]], names: Sequence[str]) -> str:
    """Count on how many tables pyrobbb is level with the best of the others."""
    found = deficits(rows, names)
    if not found:
        return "not run."
    level = sum(deficit <= LEVEL_NATS for deficit, _ in found.values())
    name, (worst, peer) = max(found.items(), key=lambda item: item[1])
    return (
        f"`{OURS}` has an NLL at most {LEVEL_NATS} nats per row above that of the best other model "
        f"on {level} of {len(found)} tables; the largest difference is {worst:+.3f}, on {name} "
        f"against {peer}."
    )


def deficits(
    rows: list[dict[str, Any]], names: Sequence[str], model: str = OURS
) -> dict[str, tuple[float, str]]:
    """Return how many nats per row a model is worse than the best other one, and which that is.

    Compared on the splits that the model has been scored on.
    """
    found = {}
    for name in names:
        own = values_of(rows, name, model, "nll")
        others = {p: values_of(rows, name, p, "nll") for p in PEERS}
        common = {
            p: float(np.mean([values[split] - own[split] for split in own]))
            for p, values in others.items()
            if own and own.keys() <= values.keys()
        }
        if common:
            best = min(common, key=common.__getitem__)
            found[name] = (-common[best], best)
    return found


def values_of(rows: list[dict[str, Any]], table: str, model: str, column: str) -> dict[int, float]:
    """Return the scores of a model on a table, by split."""
    return {
        row["split"]: row[column]
        for row in rows
        if (row["table"], row["model"]) == (table, model) and row.get(column) is not None
    }


def section(
    rows: list[dict[str, Any]], column: str, digits: int, kinds: Sequence[str]
) -> list[str]:
    """Return a table of the page: a row a table, a column a model."""
    lines = [
        f"| table | rows | {' | '.join(MODELS)} |",
        f"|---|---:|{'---:|' * len(MODELS)}",
    ]
    for half, names in HALVES.items():
        for name in names:
            if TABLES[name].kind not in kinds or not any(row["table"] == name for row in rows):
                continue
            cells = [values_of(rows, name, model, column) for model in MODELS]
            shown = [shown_mean(cell, digits) for cell in cells]
            mark = "" if half == "development" else "*"
            lines.append(f"| {name}{mark} | {len(load(name).y)} | {' | '.join(shown)} |")
    return lines


def shown_mean(values: dict[int, float], digits: int) -> str:
    """Return the mean over splits in few characters."""
    if not values:
        return "-"
    mean = float(np.mean(list(values.values())))
    return f"{mean:.{digits}f}" if abs(mean) < 1000 else f"{mean:.0e}"


def failures(rows: list[dict[str, Any]]) -> list[str]:
    """Return the reasons of models that could not be fitted."""
    found = {(row["model"], row["table"], row["failed"]) for row in rows if "failed" in row}
    return [f"- {model} failed on {table}: {text}" for model, table, text in sorted(found)]


if __name__ == "__main__":
    sys.exit(main())
