"""Fixtures for the command line: a table, models fitted to it, and calls of `main`."""

import numpy as np
import pandas as pd
import pytest

from pyrobbb import estimators
from pyrobbb.cli.main import main

N = 60


def make_houses():
    rng = np.random.default_rng(0)
    size, town = rng.uniform(50, 200, N).round(1), rng.choice(["Ulm", "Bonn", "Kiel"], N)
    price = (size * 2 + 30 * (town == "Bonn") + rng.normal(0, 5, N)).round(2)
    frame = pd.DataFrame({"id": [f"h{i}" for i in range(N)], "size": size, "town": town})
    return frame.assign(price=price, sold=np.where(price > 270, "late", "soon"))


@pytest.fixture
def houses():
    """Return a table of 60 houses."""
    return make_houses()


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Return a folder with the table and a model of each task, fitted from the command line."""
    folder = tmp_path_factory.mktemp("made")
    make_houses().to_csv(folder / "houses.csv", index=False)
    for target, other in (("price", "sold"), ("sold", "price")):
        arguments = ["--target", target, "--drop", other, "--out", str(folder / target)]
        arguments += ["--epochs", "2", "--restarts", "1", "--hidden", "3"]
        if target == "price":
            arguments += ["--likelihood", "gaussian"]
        assert main(["fit", str(folder / "houses.csv"), *arguments]) == 0
    return folder


@pytest.fixture
def no_fit(monkeypatch):
    """Fail if a fit is started."""

    def fail(self, x, y):
        raise AssertionError("A fit was started.")

    monkeypatch.setattr(estimators.BBBRegressor, "fit", fail)
    monkeypatch.setattr(estimators.BBBClassifier, "fit", fail)


@pytest.fixture
def instant_fit(monkeypatch):
    """Check the data of a fit, and skip the fit."""

    def check(self, x, y):
        assert x.dtype == np.float64
        assert len(x) == len(y)
        assert np.isfinite(x).all()
        self.hidden_, self.likelihood_ = (), None
        return self

    for kind in (estimators.BBBRegressor, estimators.BBBClassifier):
        monkeypatch.setattr(kind, "fit", check)
        monkeypatch.setattr(kind, "save", lambda *_, **__: None)


@pytest.fixture
def run(capsys):
    """Return a function that runs a command and returns its output."""

    def run_command(*arguments, code=0):
        capsys.readouterr()
        assert main(list(map(str, arguments))) == code
        return capsys.readouterr()

    return run_command


@pytest.fixture
def rejection(run):
    """Return a function that runs an invalid command and returns its line on stderr."""

    def run_command(*arguments):
        shown = run(*arguments, code=2)
        assert shown.out == ""
        assert shown.err.count("\n") == 1
        assert shown.err.startswith(f"pyrobbb {arguments[0]}: ")
        return shown.err

    return run_command
