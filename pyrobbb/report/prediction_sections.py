"""Sections of a report on the predictions: how good they are, where, and why."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..columns.encoding import Categorical
from ..scores import auroc
from ..tables.held_out import HeldOutScores
from . import figures
from .content import Cell, Section, Table, aligned, cell_text, number, percentage
from .findings import LEVEL, Findings

N_ROWS = 10
N_VALUES = 4
"""Number of columns whose values are shown for the most uncertain rows."""
MAX_CLASSES = 10
HELD_OUT_NAMES = {"R2": "R²", "90 % coverage": "coverage of 90% intervals"}


def scores(findings: Findings) -> Section:
    """Return the scores, with those of a constant baseline, and the calibration."""
    rows = []
    for score in findings.scores:
        shown = (lambda value: percentage(value, 1)) if score.is_share else number
        rows.append([score.name, *map(shown, score.values.values()), score.meaning])
    compared = list(findings.scores[0].values)
    headers = [Cell("score", "name"), *(Cell(name, "number") for name in compared), "meaning"]
    content = {
        "table": Table.of(headers, rows),
        "has_linear": "linear" in compared,
        "held_out": None if findings.held_out is None else _held_out(findings.held_out),
        "title": "" if findings.held_out is None else findings.held_out.title,
    }
    return Section("scores", "Scores", content)


def _held_out(held_out: HeldOutScores) -> Table:
    headers = [Cell("score", "name"), Cell("model", "number"), Cell("linear", "number")]
    rows = []
    for name, value in held_out.model.items():
        error = held_out.standard_error.get(name)
        words = number(value) + ("" if error is None else f" ± {float(f'{error:.2g}')}")
        rows.append([HELD_OUT_NAMES.get(name, name), words, number(held_out.linear[name])])
    return Table.of(headers, rows, "narrow")


def predictions(findings: Findings) -> Section:
    """Return predictions compared with observations."""
    content: dict[str, Any]
    if findings.is_classification:
        has_errors = bool((findings.prediction.probs.argmax(1) != findings.y).any())
        content = {
            "confusion": confusion(findings),
            "by_class": by_class(findings),
            "calibration": figures.calibration(findings),
            "entropy": figures.entropy_by_correctness(findings),
            "risk_coverage": figures.risk_coverage(findings) if has_errors else None,
        }
    else:
        content = {
            "predicted_and_observed": figures.predicted_and_observed(findings),
            "residuals": figures.residuals(findings),
            "calibration": figures.calibration(findings),
            "n_points": len(figures.points(findings)),
            "n_sampled": len(findings.sampled),
        }
    return Section("predictions", "Predictions and calibration", content)


def columns(findings: Findings) -> Section:
    """Return the permutation importance of the columns, and curves for the most important ones."""
    importance = list(findings.importance.items())
    largest = max([value for _, value in importance] + [1e-300])
    shown = importance[:N_ROWS]
    changes = aligned([value for _, value in shown])
    rows = [
        [name, change, 100 * value / largest]
        for (name, value), change in zip(shown, changes, strict=True)
    ]
    headers = [Cell("column", "name"), Cell("change", "number"), Cell("", "meter")]
    content = {
        "table": Table.of(headers, rows, "importance"),
        "n_more": len(importance) - len(shown),
        "curves": [
            {"name": curve.column.name, "svg": figures.dependence(findings, curve)}
            for curve in findings.curves()
        ],
        "effects": [
            {"name": effect.column.name, "svg": figures.effect(findings, effect)}
            for effect in findings.effects()
        ],
        "some_classes": findings.is_classification
        and len(findings.estimator.classes_) > len(figures.CLASSES),
    }
    return Section("columns", "Permutation importance", content)


def uncertainty(findings: Findings) -> Section:
    """Return the aleatoric and epistemic parts of the uncertainty."""
    content = {
        "epistemic": findings.epistemic_share,
        "histogram": figures.uncertainty_by_row(findings),
    }
    return Section("uncertainty", "Aleatoric and epistemic uncertainty", content)


def rows(findings: Findings) -> Section:
    """Return the rows with the most uncertain predictions."""
    worst = np.argsort(-findings.uncertainty, kind="stable")[:N_ROWS]
    aleatoric, epistemic = (part[worst] for part in findings.parts)
    shares = epistemic / np.maximum(aleatoric + epistemic, 1e-300)
    names = list(findings.importance)[:N_VALUES]
    widths = aligned(findings.uncertainty[worst])
    prediction = findings.estimator.predict_distribution(findings.x[worst])
    middle: list[Any]
    if findings.is_classification:
        classes, probs = findings.estimator.classes_, prediction.probs
        middle = ["predicted", Cell("probability", "number")]
        predicted = [[cell_text(classes[p.argmax()]), percentage(p.max())] for p in probs]
        observed = [cell_text(classes[index]) for index in findings.y[worst]]
        measure, kind = "entropy", ""
    else:
        lower, upper = prediction.interval(LEVEL)
        middle = [Cell("predicted", "number"), Cell("90% interval", "number")]
        bounds = aligned([*lower, *upper])
        predicted = [
            [mean, f"{bounds[k]} to {bounds[k + len(worst)]}"]
            for k, mean in enumerate(aligned(prediction.mean))
        ]
        observed = aligned(findings.y[worst])
        measure, kind = "sd", "number"
    lines = [
        [
            findings.frame.index[i],
            observed[k],
            *predicted[k],
            widths[k],
            percentage(shares[k]),
            *(cell_text(findings.frame[name].iloc[i]) for name in names),
        ]
        for k, i in enumerate(worst)
    ]
    headers = [
        Cell(str(findings.frame.index.name or "row"), "index"),
        Cell("observed", kind),
        *middle,
        Cell(measure, "number"),
        Cell("epistemic share", "number"),
        *(Cell(name, "number" if _is_numeric(findings, name) else "") for name in names),
    ]
    content = {"table": Table.of(headers, lines), "n_columns": len(names)}
    return Section("rows", f"The {len(worst)} most uncertain rows", content)


def confusion(findings: Findings) -> dict[str, Any]:
    """Return counts of observed and predicted classes; rare classes are combined.

    Returns
    -------
    dict
        ``names`` of classes, and ``rows``: the name of each class, with the count and the share of
        each predicted class.
    """
    classes, predicted = findings.estimator.classes_, np.asarray(findings.prediction.label)
    counts = np.bincount(findings.y, minlength=len(classes))
    kept = np.sort(np.argsort(-counts, kind="stable")[:MAX_CLASSES])
    place = np.full(len(classes), len(kept))
    place[kept] = np.arange(len(kept))
    names = [str(name)[: figures.MAX_LABEL] for name in classes[kept]]
    names += ["others"] if len(classes) > len(kept) else []
    table = np.zeros((len(names), len(names)), int)
    np.add.at(table, (place[findings.y], place[predicted]), 1)
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    rows = [
        (name, list(zip(table[i].tolist(), shares[i].tolist(), strict=True)))
        for i, name in enumerate(names)
    ]
    return {"names": names, "rows": rows}


def by_class(findings: Findings) -> Table:
    """Return recall, precision and AUC of the most frequent classes."""
    classes, probs = findings.estimator.classes_, np.asarray(findings.prediction.probs)
    predicted, y = probs.argmax(1), findings.y
    counts = np.bincount(y, minlength=len(classes))
    shown = np.argsort(-counts, kind="stable")[:MAX_CLASSES]
    rows = []
    for k in sorted(shown[counts[shown] > 0]):
        is_class, hits = y == k, int(((y == k) & (predicted == k)).sum())
        precision = hits / (predicted == k).sum() if (predicted == k).any() else np.nan
        auc = np.nan if is_class.all() else auroc(probs[~is_class, k], probs[is_class, k])
        recall = percentage(hits / is_class.sum(), 1)
        name = cell_text(classes[k])
        rows.append([name, f"{counts[k]:,}", recall, percentage(precision, 1), number(auc)])
    names = ("rows", "recall", "precision", "AUC")
    return Table.of([Cell("class", "name"), *(Cell(name, "number") for name in names)], rows)


def _is_numeric(findings: Findings, name: str) -> bool:
    columns = findings.schema.columns
    return any(column.name == name and not isinstance(column, Categorical) for column in columns)
