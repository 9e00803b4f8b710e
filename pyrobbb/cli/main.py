"""The typer app of the command line, and its entry point."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from . import commands, exporting, fitting
from .errors import UsageError, message_for_user
from .options import ShowTraceback
from .output import Output

INTERRUPTED = 130
HELP = "Bayes by Backprop: predictions from a table, with aleatoric and epistemic uncertainty."

app = typer.Typer(
    name="pyrobbb",
    help=HELP,
    epilog="Example: pyrobbb fit --help",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
for _command, _example in (
    (fitting.fit, "fit houses.csv --target price --out houses-model"),
    (commands.predict, "predict houses-model new.csv --out predictions.csv --keep address"),
    (commands.diagnose, "diagnose houses-model houses.csv"),
    (commands.report, "report houses-model houses.csv --out report.html"),
    (commands.prune, "prune houses-model --fraction 0.75 --out small --data houses.csv"),
    (exporting.export, "export houses-model houses.onnx"),
    (commands.check, "check --seed 1"),
    (commands.demo, "demo --out demo-output"),
):
    app.command(epilog=f"Example: pyrobbb {_example}")(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        None: those of the process.

    Returns
    -------
    int
        Exit status: 0 on success; 1 if a check or diagnosis is bad, or after a bug of pyrobbb,
        whose traceback is printed; 2 for a mistake in the user's arguments or files; 130 if
        interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    command: Any = typer.main.get_command(app)
    name = next((word for word in given if word in command.commands), "")
    output = Output(name)
    try:
        with output.warnings_as_notes():
            code = command(args=given, prog_name="pyrobbb", standalone_mode=False, obj=output)
        if code == INTERRUPTED:  # typer 0.20 and later return it, earlier ones raise Abort
            return _stop(output, is_over=arguments is None)
        output.flush()
    except UsageError as error:
        if error.format_message():  # empty where the help has been printed instead
            remedy = f"See {' '.join(['pyrobbb', *([name] if name else []), '--help'])}."
            output.fail(f"{error.format_message()} {remedy}", error)
        return 2
    except typer.Abort as abort:
        if isinstance(abort.__cause__, EOFError):  # typer aborts on it as on Ctrl-C
            output.report_bug(abort.__cause__)
            return 1
        return _stop(output, is_over=arguments is None)
    except SystemExit:  # raised by typer if the reader of stdout, such as head, has closed it
        return 0
    except Exception as error:
        message = message_for_user(error)
        if message is None:
            output.report_bug(error)
            return 1
        output.fail(message, error)
        return 2
    return int(code or 0)


def _stop(output: Output, *, is_over: bool) -> int:
    """Return the exit status after Ctrl-C.

    Parameters
    ----------
    output : Output
    is_over : bool
        Whether the process ends. A second Ctrl-C is then ignored: it would change the status.
    """
    if is_over:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    output.fail("stopped.")
    return INTERRUPTED


def _print_version(is_set: bool) -> None:
    if is_set:
        from importlib.metadata import version

        sys.stdout.write(f"pyrobbb {version('pyrobbb')}\n")
        raise typer.Exit


@app.callback(help=HELP)
def _global_options(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
    show_traceback: ShowTraceback = False,
) -> None:
    """Define the options that precede a command."""
