"""The start of the command line: mistakes are reported before torch or pandas are imported."""

import json
import signal
import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "pyro", "pandas", "sklearn", "scipy", "matplotlib", "pyarrow")
TABLE = "x,y\n" + "".join(f"{i},{i}.5\n" for i in range(9))
FIT = ["fit", "t.csv", "--target", "y", "--out", "new"]
MISTAKES = {
    "no arguments": [],
    "help": ["--help"],
    "version": ["--version"],
    "help of fit": ["fit", "--help"],
    "unknown command": ["dance"],
    "unknown option": [*FIT, "--dance"],
    "misspelt choice": [*FIT, "--task", "dancing"],
    "no number": [*FIT, "--epochs", "many"],
    "no integer": [*FIT, "--hidden", "a"],
    "no table": ["fit", "none.csv", "--target", "y", "--out", "new"],
    "empty table": ["fit", "empty.csv", "--target", "y", "--out", "new"],
    "unknown target": ["fit", "t.csv", "--target", "z", "--out", "new"],
    "unknown column": [*FIT, "--drop", "z"],
    "no folder": ["fit", "t.csv", "--target", "y", "--out", "t.csv"],
    "no model": ["predict", "none", "t.csv", "--out", "new.csv"],
    "a table for a model": ["predict", "t.csv", "t.csv", "--out", "new.csv"],
    "no table to predict": ["predict", "model", "none.csv", "--out", "new.csv"],
    "unknown column to keep": ["predict", "model", "t.csv", "--out", "new.csv", "--keep", "z"],
    "unknown format": ["predict", "model", "t.csv", "--out", "new.xlsx"],
    "bad quantile": ["predict", "model", "t.csv", "--out", "new.csv", "--quantiles", "2"],
    "no model to diagnose": ["diagnose", "none", "t.csv"],
    "no table to diagnose": ["diagnose", "model", "none.csv"],
    "no model to report": ["report", "none", "t.csv", "--out", "new.html"],
    "no model to export": ["export", "none", "new.onnx"],
    "no model to prune": ["prune", "none", "--out", "new"],
}
RUN_ALL = f"""
import contextlib, io, json, sys
from pyrobbb.cli import main
for name, arguments in json.load(sys.stdin).items():
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        code = main(arguments)
    heavy = [module for module in {HEAVY!r} if module in sys.modules]
    print(json.dumps([name, code, err.getvalue(), heavy]))
"""


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory):
    """Return the exit status, the lines on stderr and the heavy modules after each mistake."""
    folder = tmp_path_factory.mktemp("start")
    (folder / "t.csv").write_text(TABLE)
    (folder / "empty.csv").write_text("")
    (folder / "model").mkdir()
    (folder / "model" / "posterior.json").write_text("{}")
    shown = subprocess.check_output(
        [sys.executable, "-c", RUN_ALL], input=json.dumps(MISTAKES), text=True, cwd=folder
    )
    assert sorted(path.name for path in folder.iterdir()) == ["empty.csv", "model", "t.csv"]
    return {name: rest for name, *rest in map(json.loads, shown.splitlines())}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_reported_before_torch_and_pandas_are_imported(mistakes, name):
    code, err, heavy = mistakes[name]
    assert heavy == []
    if name in ("help", "version", "help of fit"):
        assert (code, err) == (0, "")
    else:
        assert code == 2
        assert err.count("\n") == (name != "no arguments")


def test_the_package_runs_as_a_module():
    shown = subprocess.check_output([sys.executable, "-m", "pyrobbb", "--version"], text=True)
    assert shown.startswith("pyrobbb 0.")
    failed = subprocess.run(
        [sys.executable, "-m", "pyrobbb", "dance"], capture_output=True, text=True
    )
    assert failed.returncode == 2
    assert failed.stderr.startswith("pyrobbb: No such command 'dance'.")


def test_a_bad_cell_is_reported_before_torch_is_imported(tmp_path):
    (tmp_path / "t.csv").write_text(TABLE + "oops,3.5\n")
    arguments = ["fit", "t.csv", "--target", "y", "--out", "model"]
    code = f"import sys; from pyrobbb.cli import main; print(main({arguments}), *sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert "line 11, column 'x': 'oops' is not a number" in shown.stderr
    status, *modules = shown.stdout.split()
    assert status == "2"
    assert not {"torch", "sklearn"} & set(modules)


@pytest.mark.parametrize("n_interrupts", [1, 3])
def test_ctrl_c_ends_a_fit_with_130_and_writes_nothing_however_often_it_is_pressed(
    tmp_path, n_interrupts
):
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{i},{i % 7}.5\n" for i in range(50)))
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from pyrobbb.cli import main; sys.exit(main())"
    arguments = ["fit", "t.csv", "--target", "y", "--out", "m", "--epochs", "1000000"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    lines = [process.stderr.readline()]
    for _ in range(n_interrupts):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    lines += process.communicate(timeout=120)[1].splitlines(keepends=True)
    assert process.returncode == 130
    assert lines == [
        "pyrobbb fit: regression of 'y' on 1 input, 50 rows ...\n",
        "pyrobbb fit: stopped.\n",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
