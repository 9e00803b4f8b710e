"""The command line: what a person gets from a table, and what they are told if it is bad."""

import errno
import json
import re
import shutil
import sys
import time
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrobbb import BayesianNetwork, estimators, mlp
from pyrobbb import fit as fit_posterior
from pyrobbb.cli import commands, demo
from pyrobbb.cli.main import main
from pyrobbb.cli.options import parse_names
from pyrobbb.diagnostics.checks import Check, Diagnosis
from pyrobbb.tables import writer as table_writer
from pyrobbb.tables.model import TableModel
from pyrobbb.tables.reader import TableFile
from pyrobbb.tables.schema import Schema

N = 60
QUICK = ["--epochs", "2", "--restarts", "1", "--hidden", "3"]


def houses(n=N, seed=0):
    rng = np.random.default_rng(seed)
    size, town = rng.uniform(50, 200, n).round(1), rng.choice(["Ulm", "Bonn", "Kiel"], n)
    price = (size * 2 + 30 * (town == "Bonn") + rng.normal(0, 5, n)).round(2)
    frame = pd.DataFrame({"id": [f"h{i}" for i in range(n)], "size": size, "town": town})
    return frame.assign(price=price, sold=np.where(price > 270, "late", "soon"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Give a folder with a table and a model of each kind, all made by the command line."""
    folder = tmp_path_factory.mktemp("made")
    houses().to_csv(folder / "houses.csv", index=False)
    for target, other in (("price", "sold"), ("sold", "price")):
        arguments = ["--target", target, "--drop", other, "--out", str(folder / target)]
        if target == "price":
            arguments += ["--likelihood", "gaussian"]
        assert main(["fit", str(folder / "houses.csv"), *arguments, *QUICK]) == 0
    return folder


@pytest.fixture
def no_fit(monkeypatch):
    """Make it an error to get as far as a fit."""

    def refuse(self, x, y):
        raise AssertionError("it was fitted")

    monkeypatch.setattr(estimators.BBBRegressor, "fit", refuse)
    monkeypatch.setattr(estimators.BBBClassifier, "fit", refuse)


@pytest.fixture
def instant_fit(monkeypatch):
    """Check what a fit is given, and do nothing with it."""

    def check(self, x, y):
        assert x.dtype == np.float64
        assert len(x) == len(y)
        assert np.isfinite(x).all()
        self.hidden_, self.likelihood_ = (), None
        return self

    for kind in (estimators.BBBRegressor, estimators.BBBClassifier):
        monkeypatch.setattr(kind, "fit", check)
        monkeypatch.setattr(kind, "save", lambda *_, **__: None)


def refusal(capsys, *arguments):
    """Run what must be refused; give the line that says why."""
    capsys.readouterr()
    assert main(list(map(str, arguments))) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"pyrobbb {arguments[0]}: ")
    return err


def run(capsys, *arguments, code=0):
    capsys.readouterr()
    assert main(list(map(str, arguments))) == code
    return capsys.readouterr()


def test_predictions_of_a_regression_are_those_of_the_estimator(made, tmp_path, capsys):
    out = tmp_path / "out.csv"
    words = ["--keep", "id,town", "--quantiles", "0.05,0.5,0.975"]
    run(capsys, "predict", made / "price", made / "houses.csv", "--out", out, *words)
    found = pd.read_csv(out)
    assert list(found) == [
        *("id", "town", "mean", "sd", "aleatoric_sd", "epistemic_sd", "q05", "q50", "q97.5")
    ]
    assert found["id"].tolist() == houses()["id"].tolist()
    model = TableModel.load(made / "price")
    prediction = model.estimator.predict_distribution(model.schema.encode(houses()))
    np.testing.assert_allclose(found["mean"], prediction.mean)
    np.testing.assert_allclose(
        found["sd"] ** 2, found["aleatoric_sd"] ** 2 + found["epistemic_sd"] ** 2
    )
    np.testing.assert_allclose(found["q97.5"], prediction.quantile(0.975))


def test_predictions_of_a_classification_are_those_of_the_estimator(made, tmp_path, capsys):
    out = tmp_path / "out.csv"
    run(capsys, "predict", made / "sold", made / "houses.csv", "--out", out)
    found = pd.read_csv(out)
    assert list(found) == ["label", "p_late", "p_soon", "entropy", "mutual_information"]
    model = TableModel.load(made / "sold")
    prediction = model.estimator.predict_distribution(model.schema.encode(houses()))
    np.testing.assert_allclose(found[["p_late", "p_soon"]], prediction.probs)
    assert (found["label"] == np.where(found["p_late"] > found["p_soon"], "late", "soon")).all()
    np.testing.assert_allclose(
        found["mutual_information"], prediction.mutual_information, atol=1e-12
    )


@pytest.mark.parametrize("target", ["price", "sold"])
def test_predictions_do_not_depend_on_the_chunks(made, tmp_path, capsys, monkeypatch, target):
    for n_rows in (7, 10_000):
        monkeypatch.setattr(commands, "CHUNK_ROWS", n_rows)
        out = tmp_path / f"{n_rows}.csv"
        run(capsys, "predict", made / target, made / "houses.csv", "--out", out)
    few, all_ = (pd.read_csv(tmp_path / f"{n}.csv") for n in (7, 10_000))
    pd.testing.assert_frame_equal(few, all_)


@pytest.mark.parametrize("name", ["out.tsv", "out.parquet", "out.csv.gz"])
def test_predictions_are_written_in_the_format_of_the_name(made, tmp_path, capsys, name):
    arguments = [made / "sold", made / "houses.csv", "--keep", "id", "--out"]
    run(capsys, "predict", *arguments, tmp_path / "out.csv")
    run(capsys, "predict", *arguments, tmp_path / name)
    text, other = (TableFile.of(tmp_path / own).read() for own in ("out.csv", name))
    assert list(other) == list(text)
    np.testing.assert_allclose(
        other["mutual_information"].astype(float), text["mutual_information"].astype(float)
    )


def test_predictions_go_to_stdout_and_all_else_to_stderr(made, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(commands, "CHUNK_ROWS", 7)
    houses().assign(town="Rome", extra=1).to_csv(tmp_path / "new.csv", index=False)
    shown = run(capsys, "predict", made / "price", tmp_path / "new.csv", "--out", "-")
    assert shown.out.startswith("mean,sd,aleatoric_sd,epistemic_sd,q05,q50,q95\n")
    assert shown.out.count("\n") == N + 1
    assert "Columns unknown to the model are ignored: extra." in shown.err
    assert shown.err.count("town 'Rome' (60 rows)") == 1


def test_a_reader_that_has_enough_is_no_error(made, capsys, monkeypatch):
    def refuse(*_):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(table_writer, "_text_writer", lambda *_: refuse)
    shown = run(capsys, "predict", made / "price", made / "houses.csv", "--out", "-")
    assert shown.err == ""


def test_columns_in_another_order_give_the_same_predictions(made, tmp_path, capsys):
    houses()[["town", "size"]].to_csv(tmp_path / "new.csv", index=False)
    one = run(capsys, "predict", made / "price", tmp_path / "new.csv", "--out", "-").out
    assert one == run(capsys, "predict", made / "price", made / "houses.csv", "--out", "-").out


def test_a_file_is_read_in_little_memory(tmp_path):
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


def test_fit_says_what_it_took_the_table_for(made, tmp_path, capsys):
    arguments = [made / "houses.csv", "--target", "sold", "--out", tmp_path / "m", *QUICK]
    shown = run(capsys, "fit", *arguments, "--json")
    found = json.loads(shown.out)
    assert found["inputs"] == ["size", "town = Bonn", "town = Kiel", "town = Ulm", "price"]
    assert found["classes"] == ["late", "soon"]
    assert found["dropped"] == {"id": "an identifier: nearly all cells are distinct"}
    assert found["rows"] == N
    assert found["hidden"] == [3]
    for note in found["notes"]:
        assert f"pyrobbb fit: note: {note}\n" in shown.err
    shown = run(capsys, "fit", *arguments)
    assert "classification of sold" in shown.out


def test_the_seed_makes_a_fit_repeatable(made, tmp_path, capsys):
    texts = []
    for i, seed in enumerate([3, 3, 4]):
        model = tmp_path / f"model-{i}"
        arguments = [made / "houses.csv", "--target", "sold", "--out", model, "--seed", seed]
        run(capsys, "fit", *arguments, *QUICK)
        shown = run(capsys, "predict", model, made / "houses.csv", "--out", "-")
        texts.append(shown.out)
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(("verdict", "code"), [("good", 0), ("doubtful", 0), ("bad", 1)])
def test_diagnose_tells_a_bad_verdict_by_its_exit_code(made, capsys, monkeypatch, verdict, code):
    check = Check("skill [x]", "3 %", verdict, "It means this.", "Do that.")
    diagnosis = Diagnosis((check,), None, None)
    monkeypatch.setattr(estimators.BBBRegressor, "diagnose", lambda *_, **__: diagnosis)
    arguments = ["diagnose", made / "price", made / "houses.csv"]
    shown = run(capsys, *arguments, code=code).out
    for words in ("skill [x]", "3 %", verdict, "It means this. Do that."):
        assert words in shown
    found = json.loads(run(capsys, *arguments, "--json", code=code).out)
    assert found["ok"] == (verdict != "bad")
    assert found["checks"][0]["verdict"] == verdict


@pytest.mark.parametrize("target", ["price", "sold"])
def test_prune_writes_a_smaller_model_and_scores_both(made, tmp_path, capsys, target):
    pruned = tmp_path / "pruned"
    words = ["--fraction", "0.5", "--out", pruned, "--data", made / "houses.csv", "--json"]
    found = json.loads(run(capsys, "prune", made / target, *words).out)
    assert found["before"]["NLL"] != found["after"]["NLL"]
    model = TableModel.load(pruned)
    if target == "sold":
        probability = model.estimator.predict_proba(model.schema.encode(houses()))
        of_seen = np.where(houses()["sold"] == "late", probability[:, 0], probability[:, 1])
        assert found["after"]["NLL"] == pytest.approx(-np.log(of_seen).mean())
    x, y = model.schema.encode(houses()), model.schema.target(houses())
    assert model.scores(x, y) == pytest.approx(found["after"])
    original = TableModel.load(made / target)
    assert original.scores(x, y) == pytest.approx(found["before"])
    shown = run(capsys, "prune", made / target, "--out", pruned, "--data", made / "houses.csv").out
    assert "before" in shown
    assert "NLL" in shown


def test_report_hands_over_the_rows_with_a_target(made, tmp_path, capsys, monkeypatch):
    def write(path, estimator, schema, frame, *, seed=0):
        assert isinstance(estimator, estimators.BBBRegressor)
        assert schema.target(frame).shape == (N - 1,)
        Path(path).write_text("written")

    module = types.ModuleType("pyrobbb.report")
    module.write = write
    monkeypatch.setitem(sys.modules, "pyrobbb.report", module)
    frame = houses().astype(object)
    frame.loc[3, "price"] = ""
    frame.to_csv(tmp_path / "houses.csv", index=False)
    out = tmp_path / "out.html"
    shown = run(capsys, "report", made / "price", tmp_path / "houses.csv", "--out", out, "--json")
    assert json.loads(shown.out)["rows"] == N - 1
    assert "Left out: 1 row without a target." in shown.err
    assert out.read_text() == "written"


@pytest.mark.parametrize(("agrees", "code"), [(True, 0), (False, 1)])
@pytest.mark.parametrize(("command", "function"), [("check", "check"), ("demo", "run")])
def test_json_is_all_that_is_on_stdout(capsys, monkeypatch, command, function, agrees, code):
    def chatter(*_, **__):
        sys.stdout.write("a table\n")
        return agrees

    monkeypatch.setattr(demo, function, chatter)
    shown = run(capsys, command, "--json", code=code)
    assert json.loads(shown.out)["ok"] is agrees
    assert "a table" in shown.err
    assert run(capsys, command, code=code).out == "a table\n"


def test_parse_names_an_option_are_cut_at_commas_that_are_not_quoted():
    assert parse_names('id, name,"a, b"') == ["id", "name", "a, b"]
    assert parse_names("") == []


@pytest.mark.slow
@pytest.mark.parametrize("target", ["price", "sold"])
def test_diagnose_measures_the_model_on_its_table(made, capsys, target):
    main(["diagnose", str(made / target), str(made / "houses.csv"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert {"ELBO", "scores"} <= {check["name"] for check in found["checks"]}
    assert found["rows"] == N


BAD_TABLES = {
    "empty": ("", "is empty; it must begin with a line of column names"),
    "header only": ("x,y\n", "has a header but no rows"),
    "one row": ("x,y\n1,2\n", "has 1 row with a target; a fit needs at least 5"),
    "one class": ("x,y\n" + "1,a\n2,a\n" * 9, "has a single class, 'a'"),
    "constant target": ("x,y\n" + "1,0.3\n2,0.30000000000000004\n" * 9, "class|constant"),
    "constant inputs": ("x,y\n" + "1,2.5\n1,3.5\n1,4.5\n" * 9, "no column to predict 'y' from"),
    "infinite": ("x,y\n1,2.5\ninf,3\n" + "3,4\n" * 9, "line 3, column 'x': 'inf' is infinite"),
    "one bad cell": (
        "x,y\n" + "".join(f"{i},{i}.5\n" for i in range(9)) + "n.a.,3\n",
        "line 11, column 'x': 'n.a.' is not a number",
    ),
    "duplicate names": ("x,x,y\n1,2,3\n", "columns 1 and 2 are both called 'x'"),
    "latin-1": ("x,y\nä,1\n".encode("latin-1"), "line 2: byte 1 of the line, 0xe4"),
    "nul": ("x,y\n\0,1\n", "line 2: contains a NUL byte"),
    "ragged": ("x,y\n1,2\n1,2,3\n", "line 3: has 3 fields, but the header has 2"),
    "date": ("x,y\n" + "1,2024-01-01\n2,2024-01-02\n" * 9, "line 2, column 'y': .* is a date"),
    "no target": ("x,Y\n1,2\n", r"has no column 'y' \(--target\); did you mean 'Y'"),
    "1e300": ("x,y\n" + "1,1.5\n2,2.5\n3,3.5\n" * 9 + "1e300,2.5\n", "line 29.* beyond 1e"),
    "1e-300": ("x,y\n" + "1e-300,1.5\n3e-300,2.5\n2e-300,4\n" * 9, "constant up to rounding"),
    "picture": (b"\x89PNG\r\n\x1a\n\0\0", "line 1: byte 1 of the line, 0x89"),
    "lone bytes": (b"\xff\xfe\x00", "is not utf-16"),
    "10,000 columns": (
        ",".join(f"x{i}" for i in range(10_000)) + ",y\n" + ("1," * 10_000 + "2\n") * 100,
        "has 10000 inputs, but a fit takes at most 2000",
    ),
}


@pytest.mark.parametrize(("content", "message"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_a_bad_table_is_refused_in_one_line_and_nothing_is_written(
    tmp_path, capsys, no_fit, content, message
):
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.perf_counter()
    line = refusal(capsys, "fit", path, "--target", "y", "--out", tmp_path / "model")
    assert time.perf_counter() - started < 20
    assert str(path) in line
    assert list(tmp_path.iterdir()) == [path]
    assert re.search(message, line), line


def test_a_wide_table_within_the_bound_works(tmp_path, instant_fit):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(50, 1500))).rename(columns=str)
    frame.to_csv(tmp_path / "wide.csv", index=False)
    started = time.perf_counter()
    assert main(["fit", str(tmp_path / "wide.csv"), "--target", "0", "--out", "model"]) == 0
    assert time.perf_counter() - started < 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hidden", "a"], "--hidden must be positive integers such as 50,50, got 'a'"),
        (["--hidden", "5,-1"], "--hidden must be positive"),
        (["--drop", "nam"], r"has no column 'nam' \(--drop\)"),
        (["--task", "dancing"], "Invalid value for '--task'.*dancing"),
        (["--epochs", "0"], "Invalid value for '--epochs'"),
        (["--dance"], "No such option: --dance"),
        (["--encoding", "klingon"], "`encoding` must be a text encoding of Python"),
        (["--target", "sold", "--likelihood", "poisson"], "--likelihood poisson is for a regr"),
        (["--out", "/proc/model"], "cannot be written in '/proc'"),
        (["--out", "TMP/file"], "exists and is not a model"),
        (["--out", "TMP/file/model"], "is a file"),
    ],
)
def test_a_bad_option_of_fit_is_refused_before_the_fit(
    made, tmp_path, capsys, no_fit, options, message
):
    (tmp_path / "file").write_text("in the way")
    options = [option.replace("TMP", str(tmp_path)) for option in options]
    arguments = [made / "houses.csv", "--target", "price", "--out", tmp_path / "model"]
    line = refusal(capsys, "fit", *arguments, *options)
    assert re.search(message, line), line
    assert [own.name for own in tmp_path.iterdir()] == ["file"]


def test_what_the_fit_itself_refuses_is_one_line_too(tmp_path, capsys):
    houses().assign(price=lambda frame: -frame["price"]).to_csv(tmp_path / "t.csv", index=False)
    arguments = [tmp_path / "t.csv", "--target", "price", "--out", tmp_path / "model", *QUICK]
    refusal(capsys, "fit", *arguments, "--likelihood", "poisson")
    assert [own.name for own in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda f: f.drop(columns=["size", "town"]), [], "has no column 'size', 'town', which"),
        (lambda f: f.assign(size="big"), [], "line 2, column 'size': 'big' is not a number"),
        (lambda f: f.head(0), [], "has a header but no rows"),
        (lambda f: f, ["--keep", "street"], r"has no column 'street' \(--keep\)"),
        (lambda f: f.assign(mean=1), ["--keep", "mean"], "'mean' .* has the name of a prediction"),
        (lambda f: f, ["--quantiles", "0,1"], "--quantiles must be distinct probabilities"),
        (lambda f: f, ["--quantiles", "half"], "--quantiles must be distinct probabilities"),
        (lambda f: f, ["--out", "out.xlsx"], "out.xlsx: must end in .csv"),
        (lambda f: f, ["--out", "/proc/out.csv"], "cannot be written in '/proc'"),
        (lambda f: f, ["--out", "TMP/new.csv/out.csv"], "cannot be written: there is no folder"),
        (lambda f: f, ["--out", "-", "--json"], "would both write to stdout"),
    ],
)
def test_a_bad_call_of_predict_is_one_line_and_leaves_nothing(
    made, tmp_path, capsys, change, options, message
):
    change(houses()).to_csv(tmp_path / "new.csv", index=False)
    options = [option.replace("TMP", str(tmp_path)) for option in options]
    arguments = [made / "price", tmp_path / "new.csv", "--out", tmp_path / "out.csv"]
    line = refusal(capsys, "predict", *arguments, *options)
    assert re.search(message, line), line
    assert [own.name for own in tmp_path.iterdir()] == ["new.csv"]


def test_no_space_left_is_one_line(made, capsys, full_device):
    arguments = [made / "price", made / "houses.csv", "--out", full_device]
    line = refusal(capsys, "predict", *arguments)
    assert f"{full_device}: cannot be written: No space left on device." in line


def test_a_bad_row_far_down_leaves_the_old_predictions(made, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(commands, "CHUNK_ROWS", 10)
    frame = houses().astype(object)
    frame.loc[N - 1, "size"] = "big"
    frame.to_csv(tmp_path / "new.csv", index=False)
    (tmp_path / "out.csv").write_text("old")
    arguments = [made / "price", tmp_path / "new.csv", "--out", tmp_path / "out.csv"]
    assert "line 61, column 'size': 'big' is not a number" in refusal(capsys, "predict", *arguments)
    assert (tmp_path / "out.csv").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


def test_quantiles_of_a_classification_are_refused(made, capsys):
    arguments = [made / "sold", made / "houses.csv", "--out", "-", "--quantiles", "0.5"]
    assert "--quantiles is for a regression" in refusal(capsys, "predict", *arguments)


@pytest.mark.parametrize("command", ["predict", "diagnose", "report", "prune"])
@pytest.mark.parametrize(
    "kind", ["none", "empty", "file", "posterior", "estimator", "damaged", "other classes"]
)
def test_a_folder_that_fit_has_not_made_is_refused(made, tmp_path, capsys, command, kind):
    model = tmp_path / "model"
    x = np.linspace(-1, 1, 20)[:, None]
    if kind == "empty":
        model.mkdir()
    elif kind == "file":
        model.write_text("no folder")
    elif kind == "posterior":
        fit_posterior(BayesianNetwork(mlp(1, [2], 1)), x, x, epochs=1, progress=False).save(model)
    elif kind == "estimator":
        estimators.BBBRegressor([2], epochs=1, restarts=1).fit(x, x[:, 0]).save(model)
    elif kind == "other classes":
        shutil.copytree(made / "sold", model)
        stored = model / "posterior.json"
        stored.write_text(stored.read_text().replace('"soon"', '"never"', 1))
    elif kind == "damaged":
        schema = Schema.of(houses(), "price")
        estimator = estimators.BBBRegressor([2], epochs=1, restarts=1).fit(x, x[:, 0])
        estimator.save(model, extra={"table": schema.to_dict()})
    arguments = {
        "predict": [made / "houses.csv", "--out", tmp_path / "out.csv"],
        "diagnose": [made / "houses.csv"],
        "report": [made / "houses.csv", "--out", tmp_path / "out.html"],
        "prune": ["--out", tmp_path / "pruned"],
    }[command]
    line = refusal(capsys, command, model, *arguments)
    assert str(model) in line
    if kind == "estimator":
        assert "was not made by `pyrobbb fit`" in line
    assert {own.name for own in tmp_path.iterdir()} <= {"model"}


@pytest.mark.parametrize("command", ["fit", "predict", "diagnose", "report", "prune"])
def test_every_command_has_an_example(capsys, command):
    assert f"Example: pyrobbb {command}" in run(capsys, command, "--help").out


def test_the_version_is_told(capsys):
    assert run(capsys, "--version").out.startswith("pyrobbb 0.")


@given(content=st.binary(max_size=100), target=st.sampled_from(["y", "a,b", ""]))
@settings(
    max_examples=100,
    deadline=5000,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_bytes_are_fitted_or_refused(tmp_path_factory, instant_fit, content, target):
    path = tmp_path_factory.mktemp("fuzz") / "table.csv"
    path.write_bytes(content)
    assert main(["fit", str(path), "--target", target, "--out", str(path) + ".model"]) in (0, 2)


CELL = st.one_of(
    st.sampled_from(["", "NA", "1", "2", "a", "b", "1e300", "-inf", "2024-01-01", "1,5", "12 %"]),
    st.floats().map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.text(max_size=4),
)


@given(
    columns=st.lists(
        st.lists(CELL, min_size=12, max_size=12)
        | st.lists(st.sampled_from(["1", "2", "a", ""]), min_size=12, max_size=12)
        | st.lists(st.floats(allow_nan=False, width=16).map(repr), min_size=12, max_size=12),
        min_size=1,
        max_size=4,
    ),
    task=st.sampled_from([[], ["--task", "regression"], ["--task", "classification"]]),
)
@settings(
    max_examples=200,
    deadline=5000,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_small_table_is_fitted_or_refused(tmp_path_factory, instant_fit, columns, task):
    frame = pd.DataFrame({f"x{i}": cells for i, cells in enumerate(columns)})
    path = tmp_path_factory.mktemp("fuzz") / "table.csv"
    frame.to_csv(path, index=False, errors="replace")
    arguments = ["fit", str(path), "--target", "x0", "--out", str(path) + ".model"]
    assert main([*arguments, *task]) in (0, 2)


@given(size=st.lists(CELL, min_size=3, max_size=3), town=st.lists(CELL, min_size=3, max_size=3))
@settings(max_examples=100, deadline=5000)
def test_any_small_table_is_predicted_or_refused(tmp_path_factory, made, size, town):
    folder = tmp_path_factory.mktemp("fuzz")
    frame = pd.DataFrame({"size": size, "town": town})
    frame.to_csv(folder / "new.csv", index=False, errors="replace")
    out = folder / "out.csv"
    code = main(["predict", str(made / "price"), str(folder / "new.csv"), "--out", str(out)])
    assert code in (0, 2)
    assert {own.name for own in folder.iterdir()} == {"new.csv", *(["out.csv"] if not code else [])}
    if not code:
        assert np.isfinite(pd.read_csv(out).to_numpy()).all()
