"""Four tables of classes: log loss and calibration error of `BBBClassifier()` and of others.

    make bench-tables DATA=folder     # writes benchmarks/CLASSIFIERS.md

The folder holds `mushroom/agaricus-lepiota.data.gz`; without it, three tables of scikit-learn are
left. Scores are appended to `benchmarks/classifiers.jsonl`, and a run resumes where the last one
ended.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

from forecasts import Classes
from net_ensemble import tuned_ensemble
from pyrobbb import BBBClassifier, scores
from pyrobbb.datasets import load_mushroom
from scored import Row, parser, read, resume
from table_models import hist_gradient_boosting
from teaching_tables import Split, load

HERE = Path(__file__).parent
SCORES, PAGE = HERE / "classifiers.jsonl", HERE / "CLASSIFIERS.md"
TABLES = ("digits", "breast-cancer", "wine", "mushroom")
N_FOLDS = 5
MUSHROOM_FRACTION, MUSHROOM_DRAWS = 0.05, 3


def ours(split: Split) -> Classes:
    """Return the probabilities of the estimator as it comes."""
    model = BBBClassifier(random_state=split.seed).fit(split.x, split.y.astype(int))
    return Classes(model.predict_proba(split.x_test).astype(float))


MODELS: dict[str, Callable[[Split], Classes]] = {
    "BBBClassifier()": ours,
    "deep ensemble of 5 such nets, tuned": tuned_ensemble,
    "HistGradientBoosting": hist_gradient_boosting,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what has not been run, and write the page."""
    command = parser(__doc__, MODELS)
    command.add_argument("--data", type=Path, metavar="FOLDER", help="with the folder mushroom")
    command.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    options = command.parse_args(arguments)
    if not options.page:
        torch.set_num_threads(options.threads)
        resume(SCORES, jobs(options))
    PAGE.write_text(page(read(SCORES)) + "\n", encoding="utf-8")
    return 0


def jobs(options: argparse.Namespace) -> Iterator[tuple[Row, Callable[[], Row]]]:
    """Return the tables and models to score."""
    for table in options.tables:
        if table == "mushroom" and options.data is None:
            print("Skipped mushroom: name a folder that holds it: --data FOLDER.")
            continue
        for model in options.models:
            parts = list(splits(table, options.data))
            yield {"table": table, "model": model}, partial(score, MODELS[model], parts)


def splits(table: str, data: Path | None) -> Iterator[Split]:
    """Return five folds, or three draws of 5 % of the mushrooms, stratified by class."""
    if table == "mushroom":
        x, y = load_mushroom(data)
        parts = StratifiedShuffleSplit(
            MUSHROOM_DRAWS, train_size=MUSHROOM_FRACTION, random_state=0
        ).split(x, y)
    else:
        x, y = load(table).x, load(table).y
        parts = StratifiedKFold(N_FOLDS, shuffle=True, random_state=0).split(x, y)
    for seed, (train, test) in enumerate(parts):
        yield Split("classification", seed, x[train], y[train], x[test], y[test])


def score(model: Callable[[Split], Classes], parts: Sequence[Split]) -> dict[str, float]:
    """Score the predictions of the test rows of all splits together.

    The calibration error of few rows is mostly noise.
    """
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probs = np.concatenate([model(split).probs for split in parts])
    seconds = (time.perf_counter() - start) / len(parts)
    pooled, y = Classes(probs), np.concatenate([split.y_test for split in parts])
    return {
        "log_loss": scores.nll(pooled, y),
        "ece": scores.ece(pooled, y),
        "error": scores.error_rate(pooled, y),
        "seconds": seconds,
    }


def page(rows: list[dict[str, Any]]) -> str:
    """Return the page."""
    lines = [
        "# Classifiers",
        "",
        "Written by `make bench-tables DATA=folder`. Models are tested by five-fold",
        "cross-validation; for the mushrooms they are fitted to a random 5 % of the rows and",
        "tested on the others, three times. The ensemble's weight decay and steps are chosen on",
        "a fifth of the rows to fit. The expected calibration error (ECE) has 15 bins, over all",
        "test rows together.",
        "",
    ]
    for title, column, digits in (
        ("Log loss, nats per row", "log_loss", 4),
        ("ECE", "ece", 4),
        ("Share of wrong classes", "error", 4),
        ("Seconds to fit and to predict, one thread, on a busy machine", "seconds", 1),
    ):
        found = {(row["table"], row["model"]): row[column] for row in rows}
        lines += [
            f"## {title}",
            "",
            f"|  | {' | '.join(TABLES)} |",
            f"|---|{'---:|' * len(TABLES)}",
        ]
        for model in MODELS:
            values = [found.get((table, model)) for table in TABLES]
            cells = ["-" if v is None else f"{v:.{digits}f}" for v in values]
            lines.append(f"| {model} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


if __name__ == "__main__":
    sys.exit(main())
