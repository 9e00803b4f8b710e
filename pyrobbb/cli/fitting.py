"""The command `fit`, which infers a schema from a table and fits a model to it."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from ..tables.compressed import MAX_EXPANSION
from .completion import complete_column, complete_columns
from .options import (
    AsJson,
    Data,
    Decimal,
    Delimiter,
    Encoding,
    MaxExpansion,
    Seed,
    ShowTraceback,
    Verbose,
    parse_hidden,
    parse_names,
)
from .output import Output, make_facts, make_scores


def fit(
    context: typer.Context,
    data: Data,
    target: Annotated[str, typer.Option(help="Column to predict.", autocompletion=complete_column)],
    out: Annotated[str, typer.Option(help="Folder for the model.")],
    task: Annotated[
        Literal["regression", "classification"] | None,
        typer.Option(help="Task of the model (inferred from the target if omitted)."),
    ] = None,
    drop: Annotated[
        str,
        typer.Option(
            help="Columns to leave out, such as id,name.", autocompletion=complete_columns
        ),
    ] = "",
    categorical: Annotated[
        str,
        typer.Option(
            help="Numeric columns that hold category codes, such as zip,model.",
            autocompletion=complete_columns,
        ),
    ] = "",
    hidden: Annotated[
        str,
        typer.Option(help="Units per hidden layer, such as 50,50; 0 for a linear model; or auto."),
    ] = "auto",
    prior: Annotated[
        Literal["mixture", "normal", "fan_in", "laplace", "student_t"],
        typer.Option(help="Prior of the weights."),
    ] = "mixture",
    likelihood: Annotated[
        Literal[
            "auto",
            "gaussian",
            "heteroscedastic",
            "student_t",
            "lognormal",
            "poisson",
            "negative_binomial",
        ],
        typer.Option(help="Likelihood of a regression; auto compares those that suit the target."),
    ] = "auto",
    holdout: Annotated[
        float | None,
        typer.Option(help="Fraction of the rows to score a further fit on, such as 0.2."),
    ] = None,
    cv: Annotated[
        int | None,
        typer.Option(help="Folds of a cross-validation, such as 5: as many further fits."),
    ] = None,
    restarts: Annotated[
        int | None,
        typer.Option(min=1, help="Fits to average over (4 if omitted, or 8 for 60 to 128 rows)."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Passes over the data (chosen from its size if omitted)."),
    ] = None,
    seed: Seed = 0,
    device: Annotated[
        str | None, typer.Option(help="Device for the fit, such as cuda; the CPU by default.")
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Folder for checkpoints; rerun the same command to resume."),
    ] = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    decimal: Decimal = None,
    max_expansion: MaxExpansion = MAX_EXPANSION,
    as_json: AsJson = False,
    verbose: Verbose = False,
    show_traceback: ShowTraceback = False,
) -> None:
    """Fit a Bayesian neural network to a table.

    --holdout and --cv also score fits to a part of the rows on the others, beside a linear model.
    The model that is written is always fitted to all rows.

    To use several processes: torchrun --nproc-per-node 2 --no-python pyrobbb fit ...
    """
    from ..tables.fitting import fit_table

    output: Output = context.obj
    fitted = fit_table(
        data,
        target,
        out,
        task=task,
        likelihood=likelihood,
        holdout=holdout,
        cv=cv,
        drop=parse_names(drop),
        categorical=parse_names(categorical),
        encoding=encoding,
        delimiter=delimiter,
        decimal=decimal,
        max_expansion=max_expansion,
        on_note=output.note,
        on_start=output.announce,
        hidden=parse_hidden(hidden),
        prior=prior,
        restarts="auto" if restarts is None else restarts,
        epochs=epochs,
        random_state=seed,
        device=device,
        checkpoint=checkpoint,
        verbose=sys.stderr.isatty(),
    )
    from .._core.distributed import Team

    if not Team.current().is_rank_zero:  # only rank 0 logs and writes
        output.notes.clear()
        return
    schema, estimator = fitted.model.schema, fitted.model.estimator
    result = {
        "model": out,
        "target": target,
        "task": schema.task,
        "classes": list(schema.classes),
        "rows": fitted.n_rows,
        "inputs": schema.inputs,
        "dropped": {column.name: column.reason for column in schema.dropped},
        "hidden": list(estimator.hidden_),
        "likelihood": type(estimator.likelihood_).__name__,
        "seconds": round(fitted.seconds, 1),
        "scores": None if fitted.scores is None else fitted.scores.to_dict(),
    }
    shown = {
        "task": f"{schema.task} of {target}",
        "rows": fitted.n_rows,
        "columns used": len(schema.columns),
        "inputs": len(schema.inputs),
        "hidden units": ", ".join(map(str, estimator.hidden_)) or "none",
        "likelihood": result["likelihood"],
        "seconds": result["seconds"],
        "model": out,
    }
    tables = [make_facts("Fitted", shown)]
    if fitted.scores is not None:
        tables.append(make_scores(fitted.scores, schema.task))
    output.result(result, *tables, as_json=as_json)
