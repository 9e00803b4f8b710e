"""Sections of a report on the model: its diagnosis, its training, and what was fitted."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from ..columns.encoding import Categorical, Column, Date
from ..estimators.loss_curves import LossCurve, loss_curves
from ..fitted import FittedChain
from ..fitted.stacking import chain_weights
from . import figures
from .content import UNKNOWN, Cell, Section, Table, aligned, number
from .findings import Findings

MAX_COLUMNS = 30
MAX_CLASSES = 30
MAX_CATEGORIES = 8
PACKAGES = ("pyrobbb", "torch", "pyro-ppl", "scikit-learn", "numpy")
LIKELIHOODS = {
    "Gaussian": "constant noise",
    "HeteroscedasticGaussian": "noise that depends on the inputs",
    "StudentT": "noise with outliers",
    "LogNormal": "positive numbers, on the log scale",
    "Poisson": "counts",
    "NegativeBinomial": "overdispersed counts",
    "Categorical": "one of several classes",
}


def diagnosis(findings: Findings) -> Section:
    """Return the checks of the diagnosis."""
    headers = [Cell("check", "name"), Cell("value", "value"), "verdict", "meaning", "advice"]
    rows = [
        [check.name, check.value, Cell(check.verdict, "verdict"), check.meaning, check.advice]
        for check in findings.checks
    ]
    estimator: Any = findings.estimator
    is_calibrated = (
        estimator.temperature_ != 1
        if findings.is_classification
        else estimator.calibration_ is not None
    )
    content = {
        "table": Table.of(headers, rows),
        "is_calibrated": is_calibrated,
        "n_diagnosed": len(findings.sampled),
    }
    return Section("diagnosis", "Diagnosis", content)


def training(findings: Findings) -> Section:
    """Return the losses of all chains, also of the fit before the held-out rows were added."""
    first, last = _loss_curves(findings)
    names = ("without held-out rows", "all rows") if first else ("", "fit")
    headers = ["", *(Cell(name, "number") for name in ("rows", "epochs", "steps", "NLL", "KL"))]
    rows = [
        [
            name,
            *(_range(count) for count in zip(*map(_counts, curves), strict=True)),
            number(np.mean([curve.nll[-1] for curve in curves])),
            number(np.mean([curve.kl[-1] for curve in curves])),
        ]
        for name, curves in zip(names, (first, last), strict=True)
        if curves
    ]
    content = {
        "history": figures.history(first, last) if last else None,
        "table": Table.of(headers, rows),
        "n_chains": len(findings.estimator.posterior_.chains),
        "has_first": bool(first),
    }
    return Section("training", "Training", content)


def search(findings: Findings) -> list[Section]:
    """Return what the estimator has tried on held-out rows; nothing if it has tried nothing."""
    table = findings.estimator.search_
    if table is None:
        return []
    mixtures = table[table.kl_weight.isna()]
    numbers = aligned([*mixtures.log_density, *mixtures.standard_error])
    headers = [
        Cell("likelihood", "name"),
        "hidden units",
        Cell("epochs", "number"),
        Cell("log density", "number"),
        Cell("standard error", "number"),
        "",
    ]
    rows = [
        [
            row.likelihood,
            ", ".join(map(str, row.hidden or ())) or UNKNOWN,
            number(row.epochs),
            numbers[i],
            numbers[len(mixtures) + i],
            "chosen" if row.is_chosen else "",
        ]
        for i, row in enumerate(mixtures.itertuples())
    ]
    content = {
        "table": Table.of(headers, rows),
        "figure": figures.search(findings) if table.kl_weight.notna().any() else None,
    }
    return [Section("search", "Search", content)]


def fitted(findings: Findings) -> Section:
    """Return what was fitted: rows, columns, network, versions."""
    estimator, chains = findings.estimator, findings.estimator.posterior_.chains
    params = estimator.get_params(deep=False)
    schema = findings.schema
    widths = [findings.x.shape[1], *estimator.hidden_]
    # The chains have the same network.
    n_weights = sum(p.numel() for _, p in chains[0].network.bayesian_parameters())
    likelihood = type(estimator.likelihood_).__name__
    stages = [curves for curves in _loss_curves(findings) if curves]
    totals = [np.sum([_counts(curve) for curve in fits], 0) for fits in zip(*stages, strict=False)]
    steps, epochs = (_range(int(total[i]) for total in totals) for i in (2, 1))
    facts = {
        "task": f"{schema.task} of {schema.target_name}",
        "rows of this report": f"{len(findings.y):,}",
        "training rows": "not known" if findings.n_fitted is None else f"{findings.n_fitted:,}",
        "columns": f"{len(schema.columns)} used, {len(schema.dropped)} dropped",
        "network": f"{' → '.join(map(str, widths))} units, {params['activation']}; "
        f"{n_weights:,} weights",
        "prior": str(params["prior"]),
        "likelihood": f"{likelihood}: {LIKELIHOODS.get(likelihood, 'user-defined')}",
        "restarts": _restarts(chains),
        "steps": f"{steps} in {epochs} epochs" if totals else "not known",
        "draws": f"{params['n_draws']} draws of the weights per prediction",
        "seeds": f"{estimator.seed_} (fit), {findings.seed} (this report)",
        "versions": ", ".join(
            [f"{package} {version_of(package)}" for package in PACKAGES]
            + [f"Python {platform.python_version()}"]
        ),
    }
    if findings.is_classification:
        names = [str(name) for name in estimator.classes_]
        more = f" and {len(names) - MAX_CLASSES} more" * (len(names) > MAX_CLASSES)
        facts["classes"] = ", ".join(names[:MAX_CLASSES]) + more
    columns = [[column.name, *_encoding(column)] for column in schema.columns[:MAX_COLUMNS]]
    columns += [[column.name, "dropped", column.reason] for column in schema.dropped[:MAX_COLUMNS]]
    content = {
        "facts": Table.of([Cell("", "name"), ""], facts.items(), "facts"),
        "columns": Table.of([Cell("column", "name"), "type", "inputs of the network"], columns),
        "n_more": sum(max(len(some) - MAX_COLUMNS, 0) for some in (schema.columns, schema.dropped)),
        "notes": findings.notes,
    }
    return Section("fitted", "Model and data", content)


def _loss_curves(findings: Findings) -> tuple[Sequence[LossCurve], Sequence[LossCurve]]:
    """Return the losses of the chains of the first fit, if there are any, and of the last."""
    estimator = findings.estimator
    return estimator.first_fit_, loss_curves(estimator.posterior_.chains)


def _counts(curve: LossCurve) -> tuple[int, int, int]:
    return curve.n_rows, curve.n_epochs, curve.n_steps


def _range(counts: Iterable[int]) -> str:
    """Return the count that all chains share, or the smallest and the largest."""
    values = sorted(set(counts))
    ends = values[:1] + values[1:][-1:]
    return " to ".join(f"{value:,}" for value in ends)


def _encoding(column: Column) -> tuple[str, str]:
    """Return the type of a column, and a description of its inputs."""
    n = len(column.inputs)
    if isinstance(column, Categorical):
        names = ", ".join(map(str, column.categories[:MAX_CATEGORIES]))
        names += ", …" if len(column.categories) > MAX_CATEGORIES else ""
        return "categories", f"{n}, one per category: {names}"
    missing = ", the last indicates missing values" if column.has_missing else ""
    if isinstance(column, Date):
        waves = f", sine and cosine of {', '.join(column.cycles)}" if column.cycles else ""
        return "date", f"{n}, days since 1970-01-01{waves}{missing}"
    return "number", f"{n}{missing}"


def version_of(package: str) -> str:
    """Return the version of a package."""
    try:
        return version(package)
    except PackageNotFoundError:  # run from a folder that is not installed
        return "(not installed)"


def _restarts(chains: Sequence[FittedChain]) -> str:
    """Return how many fits there are, and their shares of the predictions if they differ."""
    if len(chains) == 1:
        return "none (a single fit)"
    shares = chain_weights(chains)
    how = "averaged"
    if np.ptp(shares) > 0:
        how = f"averaged with weights of {', '.join(f'{share:.0%}' for share in shares)}"
    return f"{len(chains)} independent fits, whose predictions are {how}"
