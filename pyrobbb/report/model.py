"""Sections of a report on the model: what was fitted, how, and whether to rely on it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from ..tables.encoding import Categorical, Column
from . import figures
from .findings import Findings
from .html import (
    Cell,
    Markup,
    Section,
    bullets,
    figure,
    paragraph,
    table,
    text,
)

MOST_COLUMNS = 30
MOST_CLASSES = 30
MOST_CATEGORIES = 8
PACKAGES = ("pyrobbb", "torch", "pyro-ppl", "scikit-learn", "numpy")
LIKELIHOODS = {
    "Gaussian": "noise of the same size everywhere",
    "HeteroscedasticGaussian": "noise whose size depends on the inputs",
    "StudentT": "noise with outliers",
    "Poisson": "counts",
    "NegativeBinomial": "counts that scatter more than a Poisson's",
    "Categorical": "one of several classes",
}


def diagnosis(found: Findings) -> Section:
    """Tell what each check of the diagnosis found, and what to do."""
    rows = [
        [
            Cell(own.name, "name"),
            Cell(own.value, "value"),
            Markup(f'<span class="verdict {own.verdict.split()[0]}">{text(own.verdict)}</span>'),
            own.meaning,
            own.advice,
        ]
        for own in found.checks
    ]
    heads = ["check", "value", "verdict", "what that says", "what to do"]
    words = "Each line is measured, and says no more than what was measured."
    if getattr(found.estimator, "target_scaling_", None) is not None:
        words += " Its scores are of the standardised target, not in its units."
    if found.n_diagnosed < len(found.y):
        words += f" Measured on {found.n_diagnosed:,} of the rows given, drawn at random."
    return Section("diagnosis", "Can it be relied on?", paragraph(words) + table(heads, rows))


def training(found: Findings) -> Section:
    """Show the course of the training."""
    posterior = found.estimator.posterior_
    if not len(posterior.chains[0].history.nelbo):
        words = "The course of the training was not kept."
        return Section("training", "The course of the training", paragraph(words))
    n_fits = len(posterior.chains)
    which = f" Drawn is the first of {n_fits} fits." if n_fits > 1 else ""
    picture = figure(
        figures.history(found),
        "Loss, epoch by epoch",
        "The negative ELBO, which is minimised, is the sum of the two others: how badly the rows "
        f"are predicted, and how far the weights have left their prior.{which} That it is flat at "
        "the end is no proof: the learning rate falls. The diagnosis says more.",
    )
    return Section(
        "training", "The course of the training", f'<div class="pictures beside">{picture}</div>'
    )


def fitted(found: Findings) -> Section:
    """Tell what was fitted: rows, columns, net, versions."""
    estimator, posterior = found.estimator, found.estimator.posterior_
    params = estimator.get_params(deep=False)
    widths = [found.x.shape[1], *params["hidden"]]
    n_weights = sum(own.numel() for _, own in posterior.chains[0].network.bayesian_parameters())
    likelihood = type(estimator.likelihood_).__name__
    history = posterior.chains[0].history
    n_steps = len(history.nelbo)
    facts = {
        "task": f"{found.schema.task} of {found.schema.target_name}",
        "rows given": f"{len(found.y):,}",
        "rows of the fit": "not known" if found.n_fitted is None else f"{found.n_fitted:,}",
        "columns": f"{len(found.schema.columns)} used, {len(found.schema.dropped)} left out",
        "net": f"{' → '.join(map(str, widths))} units, {params['activation']}; "
        f"{n_weights:,} weights",
        "prior": str(params["prior"]),
        "likelihood": f"{likelihood}: {LIKELIHOODS.get(likelihood, 'of your own')}",
        "restarts": f"{len(posterior.chains)} independent fits, predictions average over them"
        if len(posterior.chains) > 1
        else "none, a single fit",
        "steps": f"{n_steps:,} in {history.n_epochs:,} epochs" if n_steps else "not known",
        "draws": f"{params['n_draws']} of the weights in each prediction",
        "seeds": f"{estimator.seed_} of the fit, {found.seed} of this page",
        "versions": ", ".join(
            [f"{own} {version_of(own)}" for own in PACKAGES]
            + [f"Python {platform.python_version()}"]
        ),
    }
    if found.is_classification:
        names = [str(own) for own in estimator.classes_]
        more = f" and {len(names) - MOST_CLASSES} more" * (len(names) > MOST_CLASSES)
        facts["classes"] = ", ".join(names[:MOST_CLASSES]) + more
    columns = found.schema.columns
    rows = [[Cell(own.name, "name"), *_encoding(own)] for own in columns[:MOST_COLUMNS]]
    rows += [
        [Cell(own.name, "name"), "left out", own.reason]
        for own in found.schema.dropped[:MOST_COLUMNS]
    ]
    n_more = max(len(columns) - MOST_COLUMNS, 0) + max(len(found.schema.dropped) - MOST_COLUMNS, 0)
    html = (
        table(["", ""], [[Cell(k, "name"), v] for k, v in facts.items()], "facts")
        + "<h3>Columns</h3>\n"
        + table(["column", "taken as", "inputs of the net"], rows)
        + (paragraph(f"And {n_more} more.", kind="quiet") if n_more else "")
        + ("<h3>Notes</h3>\n" if found.notes else "")
        + bullets(found.notes)
    )
    return Section("fitted", "What was fitted", html)


def _encoding(column: Column) -> tuple[str, str]:
    """Say what a column is taken for, and what the net sees of it."""
    n = len(column.inputs)
    if isinstance(column, Categorical):
        names = ", ".join(map(str, column.categories[:MOST_CATEGORIES]))
        names += ", …" if len(column.categories) > MOST_CATEGORIES else ""
        return "categories", f"{n}, one for each: {names}"
    kind = "date" if column.is_date else "number"
    unit = ", days since 1970-01-01" if kind == "date" else ""
    return kind, f"{n}{unit}" + (", the second says where it is missing" if n > 1 else "")


def version_of(package: str) -> str:
    """Give the version of a package."""
    try:
        return version(package)
    except PackageNotFoundError:  # run from a folder that is not installed
        return "(not installed)"
