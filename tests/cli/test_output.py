"""Output of the command line: no control character of a table, a path or a message reaches it."""

import json
import logging
import warnings

import numpy as np
import pandas as pd
import pytest

from pyrobbb.cli.main import main
from pyrobbb.tables import TableFile, TableModel

EVIL = "\x1b[31mred\x1b[0m\x07\u202e\x9b"
N = 40


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return a folder with a table and a model whose names and labels are escape sequences."""
    folder = tmp_path_factory.mktemp("evil")
    x = np.arange(N) * 0.5
    frame = pd.DataFrame({f"x{EVIL}": x, "kind": np.where(np.arange(N) % 3, f"={EVIL}", "=b")})
    frame[f"y{EVIL}"] = np.where(x > 9, f"=high{EVIL}", "-low")
    frame.to_csv(folder / "t.csv", index=False)
    options = ["--epochs", "1", "--restarts", "1", "--hidden", "2"]
    arguments = [str(folder / "t.csv"), "--target", f"y{EVIL}", "--out", str(folder / f"m{EVIL}")]
    assert main(["fit", *arguments, *options]) == 0
    return folder


def is_clean(text):
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_no_control_character_of_names_and_labels_is_printed(model, tmp_path, run, form):
    table, folder = model / "t.csv", model / f"m{EVIL}"
    target = ["--target", f"y{EVIL}", "--drop", "kind"]
    quick = ["--epochs", "1", "--restarts", "1", "--hidden", "2"]
    predicted = tmp_path / f"p{EVIL}.csv"
    for arguments in (
        ["fit", table, *target, "--out", tmp_path / f"n{EVIL}", *quick],
        ["predict", folder, table, "--out", predicted, "--keep", f"kind,x{EVIL}"],
        ["prune", folder, "--out", tmp_path / f"small{EVIL}", "--data", table],
    ):
        shown = run(*arguments, *form)
        assert is_clean(shown.out + shown.err)
        if form:
            json.loads(shown.out)


def test_predictions_on_stdout_have_no_control_character(model, run):
    shown = run("predict", model / f"m{EVIL}", model / "t.csv", "--out", "-", "--keep", "kind")
    assert is_clean(shown.out + shown.err)
    assert "'=high\\x1b[31mred" in shown.out
    assert "\n'=b," in shown.out


@pytest.mark.parametrize(
    "arguments",
    [
        [f"--{EVIL}"],
        [EVIL],
        ["fit", EVIL, "--target", "y", "--out", "m"],
        ["fit", "TABLE", "--target", EVIL, "--out", "m"],
        ["fit", "TABLE", "--target", "kind", "--out", "m", "--task", EVIL],
        ["fit", "TABLE", "--target", "kind", "--out", "m", "--hidden", EVIL],
        ["predict", "MODEL", "BAD", "--out", "-"],
        ["--traceback", "predict", "MODEL", "BAD", "--out", "-"],
        ["predict", EVIL, "TABLE", "--out", "-"],
    ],
)
def test_no_control_character_of_an_argument_or_a_cell_is_printed_in_an_error(
    model, tmp_path, run, arguments
):
    bad = tmp_path / "bad.csv"
    bad.write_text(f"x{EVIL},kind\n{EVIL},a\n")
    places = {"TABLE": model / "t.csv", "MODEL": model / f"m{EVIL}", "BAD": bad}
    shown = run(*(places.get(word, word) for word in arguments), code=2)
    assert is_clean(shown.out + shown.err)
    assert "\\x1b" in shown.err


def test_no_control_character_of_a_bug_a_warning_or_a_log_entry_is_printed(model, run, monkeypatch):
    def fail(*_):
        warnings.warn(f"warned {EVIL}", stacklevel=1)
        logging.getLogger("pyrobbb.somewhere").warning("logged %s", EVIL)
        raise KeyError(EVIL + "\nline")

    monkeypatch.setattr(TableModel, "load", fail)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        shown = run("predict", model / f"m{EVIL}", model / "t.csv", "--out", "-", code=1)
    assert is_clean(shown.err)
    assert "pyrobbb predict: note: warned \\x1b[31mred" in shown.err
    assert "pyrobbb predict: note: logged \\x1b[31mred" in shown.err
    assert "Traceback" in shown.err


def test_predictions_with_formulas_as_labels_are_read_back(model, tmp_path, run):
    out = tmp_path / "p.csv"
    run("predict", model / f"m{EVIL}", model / "t.csv", "--out", out, "--keep", f"kind,x{EVIL}")
    assert out.read_text().split("\n")[1].startswith("'=b,0.0,")
    again = tmp_path / "again.csv"
    run("predict", model / f"m{EVIL}", out, "--out", again, "--keep", f"kind,kind,x{EVIL}")
    assert again.read_bytes() == out.read_bytes()
    assert set(pd.read_csv(again)["label"]) <= {f"'=high{EVIL}", "'-low"}
    assert set(TableFile.of(again).read()["label"]) <= {f"=high{EVIL}", "-low"}


@pytest.mark.parametrize("options", [[], ["--verbose"], ["-v"]])
def test_ten_notes_are_printed_and_all_with_verbose(tmp_path, run, instant_fit, options):
    frame = pd.DataFrame({f"empty {i}": [None] * 12 for i in range(14)})
    frame = frame.assign(x=np.arange(12) ** 2, y=np.arange(12) / 2)
    frame.to_csv(tmp_path / "t.csv", index=False)
    arguments = ["fit", tmp_path / "t.csv", "--target", "y", "--out", tmp_path / "m", *options]
    announced, *lines = run(*arguments).err.splitlines()
    assert announced == "pyrobbb fit: regression of 'y' on 1 input, 12 rows ..."
    assert "'empty 0' is left out" in lines[1]
    if options:
        assert len(lines) == 15
    else:
        assert len(lines) == 11
        assert lines[-1] == "pyrobbb fit: note: and 5 more; --verbose prints all."
