"""Errors of the command line: usage mistakes, mistakes in files and arguments, and bugs."""

import pytest
import typer

from pyrobbb.cli.errors import UsageError, message_for_user
from pyrobbb.tables import TableError, TableModel, UserError


def error_in(module, source):
    """Return the error that a source text raises as code of a module."""
    try:
        exec(compile(source, module, "exec"), {"__name__": module})
    except Exception as error:
        return error
    raise AssertionError("No error was raised.")


def test_usage_errors_are_those_of_typer():
    assert issubclass(typer.BadParameter, UsageError)
    assert UsageError.__name__ == "UsageError"


def test_a_table_error_is_a_user_error_and_a_value_error():
    assert issubclass(TableError, UserError)
    assert issubclass(UserError, ValueError)


@pytest.mark.parametrize("kind", ["ValueError", "TypeError", "NotImplementedError", "ImportError"])
def test_a_documented_error_raised_by_pyrobbb_is_shown_to_the_user(kind):
    error = error_in("pyrobbb.somewhere", f"raise {kind}('`x` must be positive, got -1.')")
    assert message_for_user(error) == "`x` must be positive, got -1."


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("numpy.somewhere", "raise ValueError('a mistake')"),
        ("pyrobbb_extra", "raise ValueError('a mistake')"),
        ("pyrobbb.somewhere", "int('three')"),
        ("pyrobbb.somewhere", "raise ValueError(f'{int(\"three\")}')"),
        ("pyrobbb.somewhere", "import numpy\nnumpy.zeros(2) + numpy.zeros(3)"),
        ("pyrobbb.somewhere", "len(3)"),
        ("pyrobbb.somewhere", "import pyrobbb.no_such_module"),
        ("pyrobbb.somewhere", "raise KeyError('x')"),
        ("pyrobbb.somewhere", "raise RuntimeError('x')"),
        ("pyrobbb.somewhere", "assert False"),
    ],
)
def test_any_other_error_is_a_bug(module, source):
    assert message_for_user(error_in(module, source)) is None


def test_errors_of_the_operating_system_and_of_memory_are_not_bugs(tmp_path):
    error = error_in("elsewhere", f"open({str(tmp_path / 'none')!r})")
    assert message_for_user(error) == f"{tmp_path / 'none'}: No such file or directory."
    assert message_for_user(MemoryError("9 GiB.")).startswith("not enough memory. 9 GiB.")


@pytest.mark.parametrize("kind", [ValueError, KeyError, RuntimeError])
def test_a_bug_is_shown_with_its_traceback_and_exits_with_1(made, run, monkeypatch, kind):
    def fail(*_):
        raise kind("something of ours")

    monkeypatch.setattr(TableModel, "load", fail)
    shown = run("predict", made / "price", made / "houses.csv", "--out", "-", code=1)
    assert shown.out == ""
    assert shown.err.startswith("Traceback (most recent call last):")
    assert "something of ours" in shown.err
    last = shown.err.splitlines()[-1]
    assert last.startswith("pyrobbb predict: this is a bug in pyrobbb. Please report it")


@pytest.mark.parametrize("is_global", [True, False])
def test_traceback_shows_the_traceback_of_a_user_error_too(run, tmp_path, is_global):
    before, after = (["--traceback"], []) if is_global else ([], ["--traceback"])
    arguments = ["fit", tmp_path / "none.csv", "--target", "y", "--out", tmp_path / "model"]
    line = run(*arguments, code=2).err
    assert line == f"pyrobbb fit: {tmp_path / 'none.csv'}: does not exist.\n"
    shown = run(*before, *arguments, *after, code=2).err
    assert shown.startswith("Traceback (most recent call last):")
    assert shown.endswith(line)


def test_a_usage_error_refers_to_the_help(run):
    assert run("fit", "--dance", code=2).err.endswith("See pyrobbb fit --help.\n")
    assert run("--dance", code=2).err.endswith("See pyrobbb --help.\n")
    shown = run("fit", "t.csv", "--target", "y", "--out", "m", "--hidden", "5,-1", code=2).err
    assert shown == (
        "pyrobbb fit: --hidden must be positive integers such as 50,50, got '5,-1'. See pyrobbb "
        "fit --help.\n"
    )


def test_an_unexpected_end_of_a_file_is_a_bug_and_not_an_interruption(made, run, monkeypatch):
    def fail(*_):
        raise EOFError("something of ours")

    monkeypatch.setattr(TableModel, "load", fail)
    shown = run("predict", made / "price", made / "houses.csv", "--out", "-", code=1)
    assert "EOFError: something of ours" in shown.err
    assert "this is a bug in pyrobbb" in shown.err
