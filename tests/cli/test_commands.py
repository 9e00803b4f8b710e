"""Commands: their results, output formats and exit status."""

import errno
import json
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pyrobbb import estimators
from pyrobbb.cli import commands, demo
from pyrobbb.cli.main import main
from pyrobbb.cli.options import parse_names
from pyrobbb.columns.encoding import EncodingReport
from pyrobbb.diagnostics.checks import Check, Diagnosis
from pyrobbb.export import programs
from pyrobbb.tables import TableFile, TableModel
from pyrobbb.tables import writer as table_writer

N = 60
QUICK = ["--epochs", "2", "--restarts", "1", "--hidden", "3"]


def test_predictions_of_a_regression_are_those_of_the_estimator(houses, made, tmp_path, run):
    out = tmp_path / "out.csv"
    words = ["--keep", "id,town", "--quantiles", "0.05,0.5,0.975"]
    run("predict", made / "price", made / "houses.csv", "--out", out, *words)
    found = pd.read_csv(out)
    assert list(found) == [
        *("id", "town", "mean", "sd", "aleatoric_sd", "epistemic_sd", "q05", "q50", "q97.5")
    ]
    assert found["id"].tolist() == houses["id"].tolist()
    model = TableModel.load(made / "price")
    prediction = model.estimator.predict_distribution(model.schema.encode(houses))
    np.testing.assert_allclose(found["mean"], prediction.mean)
    np.testing.assert_allclose(
        found["sd"] ** 2, found["aleatoric_sd"] ** 2 + found["epistemic_sd"] ** 2
    )
    np.testing.assert_allclose(found["q97.5"], prediction.quantile(0.975))


def test_predictions_of_a_classification_are_those_of_the_estimator(houses, made, tmp_path, run):
    out = tmp_path / "out.csv"
    run("predict", made / "sold", made / "houses.csv", "--out", out)
    found = pd.read_csv(out)
    assert list(found) == ["label", "p_late", "p_soon", "entropy", "mutual_information"]
    model = TableModel.load(made / "sold")
    prediction = model.estimator.predict_distribution(model.schema.encode(houses))
    np.testing.assert_allclose(found[["p_late", "p_soon"]], prediction.probs)
    assert (found["label"] == np.where(found["p_late"] > found["p_soon"], "late", "soon")).all()
    np.testing.assert_allclose(
        found["mutual_information"], prediction.mutual_information, atol=1e-12
    )


@pytest.mark.parametrize("target", ["price", "sold"])
def test_predictions_do_not_depend_on_the_chunks(made, tmp_path, run, monkeypatch, target):
    for n_rows in (7, 10_000):
        monkeypatch.setattr(commands, "CHUNK_ROWS", n_rows)
        out = tmp_path / f"{n_rows}.csv"
        run("predict", made / target, made / "houses.csv", "--out", out)
    few, all_ = (pd.read_csv(tmp_path / f"{n}.csv") for n in (7, 10_000))
    pd.testing.assert_frame_equal(few, all_)


@pytest.mark.parametrize("name", ["out.tsv", "out.parquet", "out.csv.gz"])
def test_predictions_are_written_in_the_format_of_the_name(made, tmp_path, run, name):
    arguments = [made / "sold", made / "houses.csv", "--keep", "id", "--out"]
    run("predict", *arguments, tmp_path / "out.csv")
    run("predict", *arguments, tmp_path / name)
    text, other = (TableFile.of(tmp_path / file).read() for file in ("out.csv", name))
    assert list(other) == list(text)
    np.testing.assert_allclose(
        other["mutual_information"].astype(float), text["mutual_information"].astype(float)
    )


def test_predictions_go_to_stdout_and_notes_to_stderr(houses, made, tmp_path, run, monkeypatch):
    monkeypatch.setattr(commands, "CHUNK_ROWS", 7)
    houses.assign(town="Rome", extra=1).to_csv(tmp_path / "new.csv", index=False)
    shown = run("predict", made / "price", tmp_path / "new.csv", "--out", "-")
    assert shown.out.startswith("mean,sd,aleatoric_sd,epistemic_sd,q05,q50,q95\n")
    assert shown.out.count("\n") == N + 1
    assert "Columns unknown to the model are ignored: extra." in shown.err
    assert shown.err.count("town 'Rome' (60 rows)") == 1


def test_a_closed_stdout_is_not_an_error(made, run, monkeypatch):
    def refuse(*_):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(table_writer, "_text_writer", lambda *_: refuse)
    shown = run("predict", made / "price", made / "houses.csv", "--out", "-")
    assert shown.err == ""


def test_columns_in_another_order_give_the_same_predictions(houses, made, tmp_path, run):
    houses[["town", "size"]].to_csv(tmp_path / "new.csv", index=False)
    one = run("predict", made / "price", tmp_path / "new.csv", "--out", "-").out
    assert one == run("predict", made / "price", made / "houses.csv", "--out", "-").out


def test_a_table_is_read_in_chunks_that_need_little_memory(tmp_path):
    path = tmp_path / "long.csv"
    with path.open("w") as file:
        file.write("x,y\n")
        file.writelines(f"{i},{i * i}.25\n" for i in range(200_000))
    table = TableFile.of(path)
    tracemalloc.start()
    n_rows = sum(len(chunk) for chunk in table.chunks(1000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_rows == 200_000
    assert peak < path.stat().st_size / 2


def test_fit_reports_what_it_inferred(made, tmp_path, run):
    arguments = [made / "houses.csv", "--target", "sold", "--out", tmp_path / "m", *QUICK]
    shown = run("fit", *arguments, "--json")
    found = json.loads(shown.out)
    assert found["inputs"] == ["size", "town = Bonn", "town = Kiel", "town = Ulm", "price"]
    assert found["classes"] == ["late", "soon"]
    assert found["dropped"] == {"id": "an identifier: nearly all cells are distinct"}
    assert found["rows"] == N
    assert found["hidden"] == [3]
    for note in found["notes"]:
        assert f"pyrobbb fit: note: {note}\n" in shown.err
    shown = run("fit", *arguments)
    assert "classification of sold" in shown.out


def test_the_seed_makes_a_fit_repeatable(made, tmp_path, run):
    texts = []
    for i, seed in enumerate([3, 3, 4]):
        model = tmp_path / f"model-{i}"
        arguments = [made / "houses.csv", "--target", "sold", "--out", model, "--seed", seed]
        run("fit", *arguments, *QUICK)
        shown = run("predict", model, made / "houses.csv", "--out", "-")
        texts.append(shown.out)
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(("verdict", "code"), [("good", 0), ("doubtful", 0), ("bad", 1)])
def test_diagnose_exits_with_1_if_a_verdict_is_bad(made, run, monkeypatch, verdict, code):
    check = Check("skill", "skill [x]", "3 %", verdict, "It means this.", "Do that.")
    diagnosis = Diagnosis((check,), None, None)
    monkeypatch.setattr(estimators.BBBRegressor, "diagnose", lambda *_, **__: diagnosis)
    arguments = ["diagnose", made / "price", made / "houses.csv"]
    shown = run(*arguments, code=code).out
    for words in ("skill [x]", "3 %", verdict, "It means this. Do that."):
        assert words in shown
    found = json.loads(run(*arguments, "--json", code=code).out)
    assert found["ok"] == (verdict != "bad")
    assert found["checks"][0]["verdict"] == verdict


@pytest.mark.parametrize("target", ["price", "sold"])
def test_prune_writes_the_pruned_model_and_scores_both_models(houses, made, tmp_path, run, target):
    pruned = tmp_path / "pruned"
    words = ["--fraction", "0.5", "--out", pruned, "--data", made / "houses.csv", "--json"]
    found = json.loads(run("prune", made / target, *words).out)
    assert found["before"]["NLL"] != found["after"]["NLL"]
    model = TableModel.load(pruned)
    if target == "sold":
        probability = model.estimator.predict_proba(model.schema.encode(houses))
        of_seen = np.where(houses["sold"] == "late", probability[:, 0], probability[:, 1])
        assert found["after"]["NLL"] == pytest.approx(-np.log(of_seen).mean())
    x, y = model.schema.encode(houses), model.schema.target(houses)
    assert model.scores(x, y) == pytest.approx(found["after"])
    original = TableModel.load(made / target)
    assert original.scores(x, y) == pytest.approx(found["before"])
    shown = run("prune", made / target, "--out", pruned, "--data", made / "houses.csv").out
    assert "before" in shown
    assert "NLL" in shown


def test_report_receives_the_rows_with_a_target(houses, made, tmp_path, run, monkeypatch):
    def write(path, estimator, schema, frame, *, seed=0, held_out=None):
        assert isinstance(estimator, estimators.BBBRegressor)
        assert schema.target(frame).shape == (N - 1,)
        Path(path).write_text("written")

    monkeypatch.setattr("pyrobbb.report.write", write)
    frame = houses.astype(object)
    frame.loc[3, "price"] = ""
    frame.to_csv(tmp_path / "houses.csv", index=False)
    out = tmp_path / "out.html"
    shown = run("report", made / "price", tmp_path / "houses.csv", "--out", out, "--json")
    assert json.loads(shown.out)["rows"] == N - 1
    assert "Left out: 1 row without a target." in shown.err
    assert out.read_text() == "written"


@pytest.mark.parametrize(("agrees", "code"), [(True, 0), (False, 1)])
@pytest.mark.parametrize(("command", "function"), [("check", "check"), ("demo", "run")])
def test_with_json_only_the_json_object_is_on_stdout(
    run, monkeypatch, command, function, agrees, code
):
    def print_table(*_, **__):
        sys.stdout.write("a table\n")
        return agrees

    monkeypatch.setattr(demo, function, print_table)
    shown = run(command, "--json", code=code)
    assert json.loads(shown.out)["ok"] is agrees
    assert "a table" in shown.err
    assert run(command, code=code).out == "a table\n"


def test_names_are_split_at_commas_outside_quotes():
    assert parse_names('id, name,"a, b"') == ["id", "name", "a, b"]
    assert parse_names("") == []


@pytest.mark.parametrize("target", ["price", "sold"])
def test_diagnose_computes_its_checks_on_the_table(made, capsys, target):
    main(["diagnose", str(made / target), str(made / "houses.csv"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert {"ELBO", "scores"} <= {check["name"] for check in found["checks"]}
    assert found["rows"] == N


@pytest.mark.skipif(torch.__version__ < "2.13", reason="export needs torch 2.13")
def test_export_writes_a_program_with_the_names_of_the_columns(houses, made, tmp_path, run):
    file = tmp_path / "houses.pt2"
    found = json.loads(run("export", made / "sold", file, "--draws", "20", "--json").out)
    model = TableModel.load(made / "sold")
    assert found == {
        "file": str(file),
        "inputs": list(model.schema.inputs),
        "draws": 20,
        "notes": [],
    }
    x = model.schema.encode(houses, EncodingReport())
    outputs = programs.run_torch(file.read_bytes(), torch.as_tensor(x))
    expected = model.estimator._predict(x, 20, model.estimator.seed_)
    np.testing.assert_allclose(outputs["probs"], expected.probs, rtol=1e-5)
    assert "must end in .onnx or .pt2" in run("export", made / "sold", "a.bin", code=2).err


@pytest.mark.parametrize("command", ["fit", "predict", "diagnose", "report", "prune", "export"])
def test_every_command_has_an_example(run, command):
    assert f"Example: pyrobbb {command}" in run(command, "--help").out


def test_the_version_is_printed(run):
    assert run("--version").out.startswith("pyrobbb 0.")
