"""The command `export`, which writes a model as a file that predicts without pyrobbb."""

from __future__ import annotations

from typing import Annotated

import typer

from ..columns.errors import UserError
from ..tables.writer import check_file, check_model
from .commands import DEFAULT_QUANTILES
from .options import AsJson, Model, ShowTraceback, parse_probabilities
from .output import Output, make_facts


def export(
    context: typer.Context,
    model: Model,
    out: Annotated[
        str, typer.Argument(help="File to write: .onnx, or .pt2 for torch.", metavar="OUT")
    ],
    n_draws: Annotated[
        int | None,
        typer.Option("--draws", min=1, help="Draws of the weights; by default those of predict."),
    ] = None,
    quantiles: Annotated[
        str | None, typer.Option(help="Quantiles of a regression; 0.05,0.5,0.95 by default.")
    ] = None,
    as_json: AsJson = False,
    show_traceback: ShowTraceback = False,
) -> None:
    """Write a model as one file that predicts without pyrobbb: ONNX, or torch.export.

    It takes encoded rows, whose columns the metadata names; see docs/export.md.
    """
    output: Output = context.obj
    levels = DEFAULT_QUANTILES if quantiles is None else parse_probabilities(quantiles)
    check_file(out, (".onnx", ".pt2"))
    check_model(model)
    from ..tables.model import TableModel

    fitted = TableModel.load(model)
    if quantiles is not None and fitted.schema.task == "classification":
        raise UserError("--quantiles is for a regression, but the model is a classification.")
    inputs = list(fitted.schema.inputs)
    fitted.estimator.export(out, n_draws=n_draws, quantiles=levels, metadata={"features": inputs})
    result = {
        "file": out,
        "inputs": inputs,
        "draws": fitted.estimator.n_draws if n_draws is None else n_draws,
    }
    output.result(
        result, make_facts("Exported", {**result, "inputs": len(inputs)}), as_json=as_json
    )
