"""The command line: fit, predict, diagnose, report and prune for a table; check and demo."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..engines.base import NonFiniteLossError
from ..tables.reader import CHUNK_ROWS, TableError, TableFile, naming
from .options import (
    AsJson,
    Data,
    Decimal,
    Delimiter,
    Encoding,
    Model,
    Seed,
    names_in,
    probabilities_in,
    units_in,
)
from .output import Output, facts, table_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from ..tables.schema import Schema

# What has to do with estimators and pandas is imported in the commands: --help is quick.

USAGE_ERROR: Any = typer.BadParameter.__mro__[2]
"""The base of all errors about arguments: click's, which newer versions of typer bring along."""
DEFAULT_QUANTILES = (0.05, 0.5, 0.95)

app = typer.Typer(
    name="pyrobbb",
    help="Bayes by Backprop: predictions from a table, with noise and doubt told apart.",
    epilog="Example: pyrobbb fit --help",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        None: those of the process.

    Returns
    -------
    int
        Exit code: 0 if all went well, 1 if a check or diagnosis came out bad, 2 for bad input.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    command: Any = typer.main.get_command(app)
    name = next((word for word in given if word in command.commands), "")
    output = Output(name)
    try:
        with output.warnings_as_notes():
            code = command(args=given, prog_name="pyrobbb", standalone_mode=False, obj=output)
        output.flush()
    except USAGE_ERROR as error:
        if error.format_message():
            output.fail(f"{error.format_message()} See pyrobbb {name} --help.".replace("  ", " "))
        return 2
    except typer.Abort:
        output.fail("stopped.")
        return 130
    except (ValueError, NotImplementedError, NonFiniteLossError, ImportError) as error:
        output.fail(str(error))
        return 2
    except MemoryError as error:
        output.fail(f"not enough memory. {error} Take fewer rows or columns.")
        return 2
    except OSError as error:
        reason = error.strerror or str(error)
        output.fail(f"{error.filename}: {reason}." if error.filename else reason)
        return 2
    except SystemExit:  # typer's answer when the reader of stdout, such as head, has enough
        return 0
    return int(code or 0)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        sys.stdout.write(f"pyrobbb {version('pyrobbb')}\n")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Bayes by Backprop: predictions from a table, with noise and doubt told apart."""


@app.command(epilog="Example: pyrobbb fit houses.csv --target price --out houses-model")
def fit(
    context: typer.Context,
    data: Data,
    target: Annotated[str, typer.Option(help="Column to predict.")],
    out: Annotated[str, typer.Option(help="Folder for the model.")],
    task: Annotated[
        Literal["regression", "classification"] | None,
        typer.Option(help="Guessed from the target if not given."),
    ] = None,
    drop: Annotated[str, typer.Option(help="Columns to leave out: id,name")] = "",
    categorical: Annotated[
        str, typer.Option(help="Columns whose numbers are codes of categories: zip,model")
    ] = "",
    hidden: Annotated[
        str, typer.Option(help="Units of the hidden layers: 50,50; 0: a linear model; or auto.")
    ] = "auto",
    prior: Annotated[
        Literal["mixture", "normal", "fan_in", "laplace", "student_t"],
        typer.Option(help="Prior of the weights."),
    ] = "mixture",
    likelihood: Annotated[
        Literal["auto", "gaussian", "heteroscedastic", "student_t", "poisson", "negative_binomial"],
        typer.Option(help="Noise of a regression; auto tries constant and varying noise."),
    ] = "auto",
    restarts: Annotated[int, typer.Option(min=1, help="Independent fits to average over.")] = 4,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the data; enough of them by default.")
    ] = None,
    seed: Seed = 0,
    device: Annotated[
        str | None, typer.Option(help="Where to fit, such as cuda; by default the processor.")
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Folder to write down how far it is; the same command goes on from it."),
    ] = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    decimal: Decimal = ".",
    as_json: AsJson = False,
) -> None:
    """Fit a Bayesian neural network to a table.

    In several processes: torchrun --nproc-per-node 2 --no-python pyrobbb fit ...
    """
    from ..tables.schema import Schema
    from ..tables.writer import check_folder

    output: Output = context.obj
    layers = units_in(hidden)
    check_folder(out)
    table = _open(output, data, encoding, delimiter, decimal)
    frame = table.read()
    with naming(data):
        schema = Schema.of(
            frame, target, task, drop=names_in(drop), categorical=names_in(categorical)
        )
        rows, _ = schema.with_target(frame)
        x, y = schema.encode(rows), schema.target(rows)
    output.note(*schema.notes)
    if schema.task == "classification" and likelihood != "auto":
        raise TableError(f"--likelihood {likelihood} is for a regression; leave it out.")

    from .._core.distributed import Team
    from ..estimators.base import BBBClassifier, BBBRegressor
    from ..tables.model import TableModel

    options: dict[str, Any] = {
        "prior": prior,
        "restarts": restarts,
        "epochs": epochs,
        "random_state": seed,
        "device": device,
        "checkpoint": checkpoint,
        "verbose": sys.stderr.isatty(),
    }
    started = time.perf_counter()
    estimator: Any
    if schema.task == "regression":
        estimator = BBBRegressor(layers, likelihood=likelihood, **options)
    else:
        estimator = BBBClassifier(layers, **options)
    estimator.fit(x, y)
    if not Team.current().is_rank_zero:  # started by torchrun: the first process speaks for all
        output.notes.clear()
        return
    TableModel(estimator, schema).save(out)

    found = {
        "model": out,
        "target": target,
        "task": schema.task,
        "classes": list(schema.classes),
        "rows": len(x),
        "inputs": schema.inputs,
        "dropped": {own.name: own.reason for own in schema.dropped},
        "hidden": list(estimator.hidden_),
        "likelihood": type(estimator.likelihood_).__name__,
        "seconds": round(time.perf_counter() - started, 1),
    }
    shown = {
        "task": f"{schema.task} of {target}",
        "rows": len(x),
        "columns used": len(schema.columns),
        "inputs": len(schema.inputs),
        "hidden units": ", ".join(map(str, estimator.hidden_)) or "none",
        "likelihood": found["likelihood"],
        "seconds": found["seconds"],
        "model": out,
    }
    output.report(found, facts("Fitted", shown), as_json=as_json)


@app.command(
    epilog="Example: pyrobbb predict houses-model new.csv --out predictions.csv --keep address"
)
def predict(
    context: typer.Context,
    model: Model,
    data: Data,
    out: Annotated[str, typer.Option(help=".csv, .tsv (also .gz) or .parquet; - is stdout.")],
    quantiles: Annotated[
        str | None, typer.Option(help="Of a regression; 0.05,0.5,0.95 by default.")
    ] = None,
    keep: Annotated[str, typer.Option(help="Columns to copy beside the predictions: id")] = "",
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    decimal: Decimal = ".",
    as_json: AsJson = False,
) -> None:
    """Predict each row of a table: noise in the data told apart from doubt about the model.

    Of a regression: mean, sd, its parts sd_noise and sd_doubt, and quantiles. Of a classification:
    label, the probability of each class, entropy, and the doubt that more data could lift. The
    table may be larger than memory.
    """
    from tqdm import tqdm

    from ..tables.encoding import Tally
    from ..tables.model import TableModel
    from ..tables.writer import ENDINGS, check_file, writing

    output: Output = context.obj
    if as_json and out == "-":
        raise TableError("--json and --out - would both write to stdout; choose one.")
    check_file(out, ENDINGS)
    fitted = TableModel.load(model)
    schema = fitted.schema
    if quantiles is not None and schema.task == "classification":
        raise TableError("--quantiles are of a regression, and the model is a classification.")
    levels = DEFAULT_QUANTILES if quantiles is None else probabilities_in(quantiles)
    table = _open(output, data, encoding, delimiter, decimal)
    kept = names_in(keep)
    unknown = [name for name in kept if name not in table.columns]
    if unknown:
        raise TableError(f"has no column {unknown[0]!r} (--keep).", data)
    extra = [name for name in schema.unused(table.columns) if name not in kept]
    if extra:
        more = ", ..." if len(extra) > 10 else ""
        output.note(
            f"Columns that the model does not know are ignored: {', '.join(extra[:10])}{more}."
        )
    n_rows, tally = 0, Tally()
    with (
        writing(out) as write,
        naming(data),
        contextlib.closing(table.chunks(CHUNK_ROWS)) as chunks,
        tqdm(unit=" rows", disable=None) as bar,
    ):
        for frame in chunks:
            x = schema.encode(frame, tally)
            columns = fitted.predict(x, levels)
            both = [name for name in kept if name in columns]
            if both:
                raise TableError(f"column {both[0]!r} (--keep) has the name of a prediction.")
            write(frame[kept].assign(**columns))
            n_rows += len(frame)
            bar.update(len(frame))
    output.note(*tally.lines())
    if out != "-":
        names = [*kept, *columns]
        found = {"predictions": out, "rows": n_rows, "columns": names}
        shown = {"rows": n_rows, "columns": ", ".join(names), "predictions": out}
        output.report(found, facts("Predicted", shown), as_json=as_json)


@app.command(epilog="Example: pyrobbb diagnose houses-model houses.csv")
def diagnose(
    context: typer.Context,
    model: Model,
    data: Data,
    seed: Seed = 0,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    decimal: Decimal = ".",
    as_json: AsJson = False,
) -> int:
    """Say, line by line, whether a model can be relied on; exit with 1 if not.

    DATA is the table that it was fitted to.
    """
    from ..tables.model import TableModel

    output: Output = context.obj
    fitted = TableModel.load(model)
    table = _open(output, data, encoding, delimiter, decimal)
    _, x, y = _examples(output, fitted.schema, table)
    diagnosis = fitted.estimator.diagnose(x, y, seed=seed)
    checks = [
        {
            "name": own.name,
            "value": own.value,
            "verdict": own.verdict,
            "meaning": own.meaning,
            "advice": own.advice,
        }
        for own in diagnosis.checks
    ]
    rows = [
        [own.name, own.value, own.verdict, f"{own.meaning} {own.advice}".strip()]
        for own in diagnosis.checks
    ]
    output.report(
        {"model": model, "rows": len(x), "ok": bool(diagnosis.ok), "checks": checks},
        table_of("Diagnosis", ["what", "value", "verdict", "meaning"], rows),
        as_json=as_json,
    )
    return 0 if diagnosis.ok else 1


@app.command(epilog="Example: pyrobbb report houses-model houses.csv --out report.html")
def report(
    context: typer.Context,
    model: Model,
    data: Data,
    out: Annotated[str, typer.Option(help="An .html file.")],
    seed: Seed = 0,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    decimal: Decimal = ".",
    as_json: AsJson = False,
) -> None:
    """Write a report on a model and the table that it was fitted to, with pictures."""
    from ..report.report import write
    from ..tables.model import TableModel
    from ..tables.writer import check_file

    output: Output = context.obj
    check_file(out, (".html", ".htm"))
    fitted = TableModel.load(model)
    table = _open(output, data, encoding, delimiter, decimal)
    frame, _, _ = _examples(output, fitted.schema, table)
    with naming(data):
        write(out, fitted.estimator, fitted.schema, frame, seed=seed)
    found = {"report": out, "rows": len(frame)}
    output.report(found, facts("Reported", found), as_json=as_json)


@app.command(
    epilog="Example: pyrobbb prune houses-model --fraction 0.75 --out small --data houses.csv"
)
def prune(
    context: typer.Context,
    model: Model,
    out: Annotated[str, typer.Option(help="Folder for the pruned model.")],
    fraction: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the weights to set to zero.")
    ] = 0.75,
    data: Annotated[
        str | None, typer.Option(help="A table to score the model on, before and after.")
    ] = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    decimal: Decimal = ".",
    as_json: AsJson = False,
) -> None:
    """Set the weights with the most noise to zero: those with the lowest |mean| / sd."""
    from ..posterior.pruning import prune as prune_
    from ..tables.model import TableModel
    from ..tables.writer import check_folder

    output: Output = context.obj
    check_folder(out)
    fitted = TableModel.load(model)
    examples: tuple[np.ndarray, np.ndarray] | None = None
    if data is not None:
        table = _open(output, data, encoding, delimiter, decimal)
        examples = _examples(output, fitted.schema, table)[1:]
    before = fitted.scores(*examples) if examples else {}
    pruned = fitted.with_posterior(prune_(fitted.estimator.posterior_, fraction))
    after = pruned.scores(*examples) if examples else {}
    pruned.save(out)
    found = {"model": out, "fraction": fraction, "before": before, "after": after}
    tables = [facts("Pruned", {"fraction": fraction, "model": out})]
    if examples:
        rows = [[name, f"{before[name]:.4g}", f"{after[name]:.4g}"] for name in before]
        tables.append(table_of(f"Scores on {data}", ["", "before", "after"], rows, n_right=2))
    output.report(found, *tables, as_json=as_json)


@app.command(epilog="Example: pyrobbb check --seed 1")
def check(context: typer.Context, seed: Seed = 0, as_json: AsJson = False) -> int:
    """See that two guides, two objectives and gradients by hand agree on this machine."""
    from . import demo as demo_

    with _aside(as_json):
        agrees = demo_.check(seed)
    context.obj.report({"ok": agrees, "seed": seed}, as_json=as_json)
    return 0 if agrees else 1


@app.command(epilog="Example: pyrobbb demo --out demo-output")
def demo(
    context: typer.Context,
    out: Annotated[str, typer.Option(help="Folder for the pictures.")] = "demo-output",
    quick: Annotated[bool, typer.Option(help="A small budget, to see that it runs.")] = False,
    as_json: AsJson = False,
) -> int:
    """Fit a regression and a classification on scikit-learn's data, with pictures."""
    from . import demo as demo_

    with _aside(as_json):
        agrees = demo_.run(out, quick=quick)
    context.obj.report({"ok": agrees, "pictures": out}, as_json=as_json)
    return 0 if agrees else 1


@contextlib.contextmanager
def _aside(is_wanted: bool) -> Iterator[None]:
    """Send what is printed to stderr."""
    with contextlib.redirect_stdout(sys.stderr) if is_wanted else contextlib.nullcontext():
        yield


def _open(
    output: Output, data: str, encoding: str | None, delimiter: str | None, decimal: str
) -> TableFile:
    """Look at a table, and say what was taken for granted."""
    if delimiter in ("tab", "\\t"):
        delimiter = "\t"
    table = TableFile.of(data, encoding=encoding, delimiter=delimiter, decimal=decimal)
    output.note(*table.notes)
    return table


def _examples(
    output: Output, schema: Schema, table: TableFile
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Read rows with their target: the frame, the matrix and the target."""
    from ..tables.encoding import Tally

    with naming(table.path):
        frame, n_left_out = schema.with_target(table.read())
        if not len(frame):
            raise TableError(f"has no row with a target {schema.target_name!r}.")
        tally = Tally()
        x, y = schema.encode(frame, tally), schema.target(frame)
    output.note(*tally.lines())
    if n_left_out:
        output.note(f"{n_left_out} row(s) without a target are left out.")
    return frame, x, y


if __name__ == "__main__":
    sys.exit(main())
