"""Commands: fit, predict, diagnose, report and prune for a table; check and demo.

torch, pandas and what needs them are imported within the commands, after the arguments and the
header of the table have been checked, so that a mistake is reported at once.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated

import typer

from ..columns.errors import TableError, UserError, prefix_errors
from ..tables.compressed import MAX_EXPANSION
from ..tables.reader import CHUNK_ROWS, TableFile
from ..tables.writer import SUFFIXES, check_file, check_model, check_model_folder, open_writer
from .completion import complete_columns
from .errors import UsageError
from .options import (
    AsJson,
    Data,
    Decimal,
    Delimiter,
    Encoding,
    MaxExpansion,
    Model,
    Seed,
    ShowTraceback,
    Verbose,
    parse_names,
    parse_probabilities,
)
from .output import Output, make_checks, make_facts, make_table

DEFAULT_QUANTILES = (0.05, 0.5, 0.95)


def predict(
    context: typer.Context,
    model: Model,
    data: Data,
    out: Annotated[
        str,
        typer.Option(
            help="File for the predictions: .csv, .tsv (also .gz) or .parquet; - is stdout."
        ),
    ],
    quantiles: Annotated[
        str | None, typer.Option(help="Quantiles of a regression; 0.05,0.5,0.95 by default.")
    ] = None,
    keep: Annotated[
        str,
        typer.Option(
            help="Columns to copy to the predictions, such as id.", autocompletion=complete_columns
        ),
    ] = "",
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    decimal: Decimal = None,
    max_expansion: MaxExpansion = MAX_EXPANSION,
    as_json: AsJson = False,
    verbose: Verbose = False,
    show_traceback: ShowTraceback = False,
) -> None:
    """Predict each row of a table, with aleatoric and epistemic uncertainty.

    For a regression: mean, sd, its parts aleatoric_sd and epistemic_sd, and quantiles. For a
    classification: label, the probability of each class, entropy, and mutual_information, the part
    of the entropy that more data would reduce. The table may be larger than memory.
    """
    output: Output = context.obj
    if as_json and out == "-":
        raise UsageError("--json and --out - would both write to stdout; choose one.")
    levels = DEFAULT_QUANTILES if quantiles is None else parse_probabilities(quantiles)
    check_file(out, SUFFIXES)
    check_model(model)
    table = TableFile.of(data, encoding=encoding, delimiter=delimiter, max_expansion=max_expansion)
    kept = list(dict.fromkeys(parse_names(keep)))
    unknown = [name for name in kept if name not in table.columns]
    if unknown:
        raise TableError(f"has no column {unknown[0]!r} (--keep).", data)
    from tqdm import tqdm

    from ..columns.encoding import EncodingReport
    from ..tables.model import TableModel

    fitted = TableModel.load(model)
    schema = fitted.schema.with_decimal(decimal)
    if quantiles is not None and schema.task == "classification":
        raise UserError("--quantiles is for a regression, but the model is a classification.")
    output.note(*table.notes)
    unused = [name for name in schema.unused(table.columns) if name not in kept]
    if unused:
        more = ", ..." if len(unused) > 10 else ""
        output.note(f"Columns unknown to the model are ignored: {', '.join(unused[:10])}{more}.")
    n_rows, report = 0, EncodingReport()
    with (
        open_writer(out) as write,
        prefix_errors(data),
        contextlib.closing(table.chunks(CHUNK_ROWS)) as chunks,
        tqdm(unit=" rows", disable=None) as bar,
    ):
        for frame in chunks:
            columns = fitted.predict(schema.encode(frame, report), levels)
            clashes = [name for name in kept if name in columns]
            if clashes:
                raise TableError(f"column {clashes[0]!r} (--keep) has the name of a prediction.")
            write(frame[kept].assign(**columns))
            n_rows += len(frame)
            bar.update(len(frame))
    output.note(*report.messages())
    if out != "-":
        names = [*kept, *columns]
        result = {"predictions": out, "rows": n_rows, "columns": names}
        shown = {"rows": n_rows, "columns": ", ".join(names), "predictions": out}
        output.result(result, make_facts("Predicted", shown), as_json=as_json)


def diagnose(
    context: typer.Context,
    model: Model,
    data: Data,
    seed: Seed = 0,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    decimal: Decimal = None,
    max_expansion: MaxExpansion = MAX_EXPANSION,
    as_json: AsJson = False,
    verbose: Verbose = False,
    show_traceback: ShowTraceback = False,
) -> int:
    """Check whether a model is reliable; exit with status 1 if a verdict is bad.

    DATA is the table that the model was fitted to.
    """
    output: Output = context.obj
    check_model(model)
    table = TableFile.of(data, encoding=encoding, delimiter=delimiter, max_expansion=max_expansion)
    from ..tables.examples import read_examples
    from ..tables.model import TableModel

    fitted = TableModel.load(model)
    examples = read_examples(fitted.schema.with_decimal(decimal), table)
    output.note(*examples.notes)
    diagnosis = fitted.estimator.diagnose(examples.x, examples.y, seed=seed)
    fields = ("name", "value", "verdict", "meaning", "advice")
    checks = [{field: getattr(check, field) for field in fields} for check in diagnosis.checks]
    output.result(
        {"model": model, "rows": len(examples.x), "ok": bool(diagnosis.ok), "checks": checks},
        make_checks("Diagnosis", diagnosis.checks),
        as_json=as_json,
    )
    return 0 if diagnosis.ok else 1


def report(
    context: typer.Context,
    model: Model,
    data: Data,
    out: Annotated[str, typer.Option(help="File for the report: .html.")],
    seed: Seed = 0,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    decimal: Decimal = None,
    max_expansion: MaxExpansion = MAX_EXPANSION,
    as_json: AsJson = False,
    verbose: Verbose = False,
    show_traceback: ShowTraceback = False,
) -> None:
    """Write a report, with figures, on a model and the table that it was fitted to."""
    output: Output = context.obj
    check_file(out, (".html", ".htm"))
    check_model(model)
    table = TableFile.of(data, encoding=encoding, delimiter=delimiter, max_expansion=max_expansion)
    from ..report import write
    from ..tables.examples import read_examples
    from ..tables.model import TableModel

    fitted = TableModel.load(model)
    schema = fitted.schema.with_decimal(decimal)
    examples = read_examples(schema, table)
    output.note(*examples.notes)
    with prefix_errors(data):
        write(out, fitted.estimator, schema, examples.frame, seed=seed, held_out=fitted.held_out)
    result = {"report": out, "rows": len(examples.frame)}
    output.result(result, make_facts("Report", result), as_json=as_json)


def prune(
    context: typer.Context,
    model: Model,
    out: Annotated[str, typer.Option(help="Folder for the pruned model.")],
    fraction: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the weights to set to zero.")
    ] = 0.75,
    data: Annotated[
        str | None, typer.Option(help="Table to score the model on, before and after.")
    ] = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    decimal: Decimal = None,
    max_expansion: MaxExpansion = MAX_EXPANSION,
    as_json: AsJson = False,
    verbose: Verbose = False,
    show_traceback: ShowTraceback = False,
) -> None:
    """Set the weights with the lowest signal-to-noise ratio, |mean| / sd, to zero."""
    output: Output = context.obj
    check_model_folder(out)
    check_model(model)
    table = None
    if data is not None:
        table = TableFile.of(
            data, encoding=encoding, delimiter=delimiter, max_expansion=max_expansion
        )
    from ..posterior.pruning import prune as prune_posterior
    from ..tables.examples import read_examples
    from ..tables.model import TableModel

    fitted = TableModel.load(model)
    pruned = fitted.with_posterior(prune_posterior(fitted.estimator.posterior_, fraction))
    before: Mapping[str, float] = {}
    after: Mapping[str, float] = {}
    if table is not None:
        examples = read_examples(fitted.schema.with_decimal(decimal), table)
        output.note(*examples.notes)
        before = fitted.scores(examples.x, examples.y)
        after = pruned.scores(examples.x, examples.y)
    pruned.save(out)
    result = {"model": out, "fraction": fraction, "before": before, "after": after}
    tables = [make_facts("Pruned", {"fraction": fraction, "model": out})]
    if data is not None:
        rows = [[name, f"{before[name]:.4g}", f"{after[name]:.4g}"] for name in before]
        tables.append(make_table(f"Scores on {data}", ["", "before", "after"], rows, n_right=2))
    output.result(result, *tables, as_json=as_json)


def check(
    context: typer.Context,
    seed: Seed = 0,
    as_json: AsJson = False,
    show_traceback: ShowTraceback = False,
) -> int:
    """Check that guides, objectives and analytic gradients agree on this machine."""
    from . import demo as demo_

    with _stdout_to_stderr(as_json):
        agrees = demo_.check(seed)
    context.obj.result({"ok": agrees, "seed": seed}, as_json=as_json)
    return 0 if agrees else 1


def demo(
    context: typer.Context,
    out: Annotated[str, typer.Option(help="Folder for the figures.")] = "demo-output",
    quick: Annotated[
        bool, typer.Option(help="Use a small budget, only to see that it runs.")
    ] = False,
    as_json: AsJson = False,
    show_traceback: ShowTraceback = False,
) -> int:
    """Fit a regression and a classification to data sets of scikit-learn, with figures."""
    from . import demo as demo_

    with _stdout_to_stderr(as_json):
        agrees = demo_.run(out, quick=quick)
    context.obj.result({"ok": agrees, "pictures": out}, as_json=as_json)
    return 0 if agrees else 1


@contextlib.contextmanager
def _stdout_to_stderr(is_redirected: bool) -> Iterator[None]:
    with contextlib.redirect_stdout(sys.stderr) if is_redirected else contextlib.nullcontext():
        yield
