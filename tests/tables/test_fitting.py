"""Fits of a model to a table on disk, without output on stdout or stderr."""

import dataclasses
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from pyrobbb.tables import Schema, TableError, TableFile, TableModel, UserError, fit_table

QUICK = {"epochs": 2, "restarts": 1, "hidden": [3], "random_state": 0}


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(40, 2)).round(3), columns=["a", "b"])
    frame["y"] = (frame["a"] - frame["b"] + 0.1 * rng.normal(size=40)).round(3)
    frame["kind"] = np.where(frame["y"] > 0, "high", "low")
    frame.to_csv(tmp_path / "table.csv", index=False, sep=";")
    return tmp_path / "table.csv"


@pytest.mark.parametrize(("target", "other"), [("y", "kind"), ("kind", "y")])
def test_the_model_is_fitted_and_saved_without_printing(table, tmp_path, capfd, target, other):
    result = fit_table(table, target, tmp_path / "model", drop=[other], **QUICK)
    assert capfd.readouterr() == ("", "")
    assert result.n_rows == 40
    assert result.seconds > 0
    assert result.notes[0] == "The detected delimiter is the semicolon."
    assert result.notes[1:] == result.model.schema.notes
    stored = TableModel.load(tmp_path / "model")
    assert stored.schema == result.model.schema
    frame = TableFile.of(table).read()
    assert result.model.schema == Schema.of(frame, target, drop=[other])
    x = stored.schema.encode(frame)
    for name, column in stored.predict(x, [0.5]).items():
        np.testing.assert_array_equal(column, result.model.predict(x, [0.5])[name])


def test_the_result_is_frozen(table, tmp_path):
    result = fit_table(table, "y", tmp_path / "model", **QUICK)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.n_rows = 1


def test_on_note_receives_each_note_before_the_fit(table, tmp_path):
    notes = []
    with pytest.raises(ValueError, match="restarts"):
        fit_table(table, "y", tmp_path / "model", on_note=notes.append, restarts=0)
    assert len(notes) >= 2
    assert not (tmp_path / "model").exists()


def test_a_likelihood_for_a_classification_is_rejected(table, tmp_path):
    with pytest.raises(UserError, match="--likelihood poisson is for a regression"):
        fit_table(table, "kind", tmp_path / "model", likelihood="poisson")


def test_a_likelihood_makes_a_target_of_few_numbers_a_regression(table, tmp_path):
    frame = TableFile.of(table).read()
    frame["few"] = [str(i % 3) for i in range(len(frame))]
    frame.to_csv(tmp_path / "few.csv", index=False)
    assert Schema.of(frame, "few").task == "classification"
    fitted = fit_table(
        tmp_path / "few.csv", "few", tmp_path / "model", likelihood="poisson", **QUICK
    )
    assert fitted.model.schema.task == "regression"


def test_errors_name_the_file(table, tmp_path):
    with pytest.raises(TableError, match=r"table\.csv: has no column 'z' \(--target\)"):
        fit_table(table, "z", tmp_path / "model")


def test_importing_tables_does_not_import_torch_scikit_learn_or_pandas():
    code = "import sys, pyrobbb.cli, pyrobbb.tables.fitting; print(*sys.modules, sep='\\n')"
    modules = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert "pyrobbb.tables.schema" in modules
    assert not modules & {"torch", "sklearn", "pandas", "matplotlib", "pyarrow"}
