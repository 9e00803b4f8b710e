"""Invalid files and arguments: one line on stderr, exit status 2, and nothing written."""

import re
import shutil
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrobbb import BayesianNetwork, estimators, mlp
from pyrobbb import fit as fit_posterior
from pyrobbb.cli import commands
from pyrobbb.cli.main import main
from pyrobbb.tables import Schema

N = 60
QUICK = ["--epochs", "2", "--restarts", "1", "--hidden", "3"]


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
def test_a_bad_table_is_rejected_in_one_line_and_nothing_is_written(
    tmp_path, rejection, no_fit, content, message
):
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.perf_counter()
    line = rejection("fit", path, "--target", "y", "--out", tmp_path / "model")
    assert time.perf_counter() - started < 20
    assert str(path) in line
    assert list(tmp_path.iterdir()) == [path]
    assert re.search(message, line), line


def test_a_wide_table_within_the_limit_is_fitted(tmp_path, instant_fit):
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
def test_an_invalid_option_of_fit_is_rejected_before_the_fit(
    made, tmp_path, rejection, no_fit, options, message
):
    (tmp_path / "file").write_text("in the way")
    options = [option.replace("TMP", str(tmp_path)) for option in options]
    arguments = [made / "houses.csv", "--target", "price", "--out", tmp_path / "model"]
    line = rejection("fit", *arguments, *options)
    assert re.search(message, line), line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_error_of_the_fit_is_one_line_after_that_of_the_start(houses, tmp_path, run):
    houses.assign(price=lambda frame: -frame["price"]).to_csv(tmp_path / "t.csv", index=False)
    arguments = [tmp_path / "t.csv", "--target", "price", "--out", tmp_path / "model", *QUICK]
    shown = run("fit", *arguments, "--likelihood", "poisson", code=2)
    start, error = shown.err.splitlines()
    assert start.startswith("pyrobbb fit: regression of 'price' on ")
    assert error.startswith("pyrobbb fit: `y` holds values outside the likelihood's support")
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


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
def test_an_invalid_call_of_predict_is_rejected_in_one_line_and_nothing_is_written(
    houses, made, tmp_path, rejection, change, options, message
):
    change(houses).to_csv(tmp_path / "new.csv", index=False)
    options = [option.replace("TMP", str(tmp_path)) for option in options]
    arguments = [made / "price", tmp_path / "new.csv", "--out", tmp_path / "out.csv"]
    line = rejection("predict", *arguments, *options)
    assert re.search(message, line), line
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"]


def test_a_full_device_is_reported_in_one_line(made, rejection, full_device):
    arguments = [made / "price", made / "houses.csv", "--out", full_device]
    line = rejection("predict", *arguments)
    assert f"{full_device}: cannot be written: No space left on device." in line


def test_a_bad_row_in_a_later_chunk_keeps_the_old_predictions(
    houses, made, tmp_path, rejection, monkeypatch
):
    monkeypatch.setattr(commands, "CHUNK_ROWS", 10)
    frame = houses.astype(object)
    frame.loc[N - 1, "size"] = "big"
    frame.to_csv(tmp_path / "new.csv", index=False)
    (tmp_path / "out.csv").write_text("old")
    arguments = [made / "price", tmp_path / "new.csv", "--out", tmp_path / "out.csv"]
    assert "line 61, column 'size': 'big' is not a number" in rejection("predict", *arguments)
    assert (tmp_path / "out.csv").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


def test_quantiles_of_a_classification_are_rejected(made, rejection):
    arguments = [made / "sold", made / "houses.csv", "--out", "-", "--quantiles", "0.5"]
    assert "--quantiles is for a regression" in rejection("predict", *arguments)


@pytest.mark.parametrize("command", ["predict", "diagnose", "report", "prune", "export"])
@pytest.mark.parametrize(
    "kind", ["none", "empty", "file", "posterior", "estimator", "damaged", "other classes"]
)
def test_a_folder_not_written_by_fit_is_rejected(houses, made, tmp_path, rejection, command, kind):
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
        schema = Schema.of(houses, "price")
        estimator = estimators.BBBRegressor([2], epochs=1, restarts=1).fit(x, x[:, 0])
        estimator.save(model, extra={"table": schema.to_dict()})
    arguments = {
        "predict": [made / "houses.csv", "--out", tmp_path / "out.csv"],
        "diagnose": [made / "houses.csv"],
        "report": [made / "houses.csv", "--out", tmp_path / "out.html"],
        "prune": ["--out", tmp_path / "pruned"],
        "export": [tmp_path / "out.onnx"],
    }[command]
    line = rejection(command, model, *arguments)
    assert str(model) in line
    if kind == "estimator":
        assert "was not made by `pyrobbb fit`" in line
    assert {path.name for path in tmp_path.iterdir()} <= {"model"}


@given(content=st.binary(max_size=100), target=st.sampled_from(["y", "a,b", ""]))
@settings(
    max_examples=100,
    deadline=5000,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_bytes_are_fitted_or_rejected(tmp_path_factory, instant_fit, content, target):
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
def test_any_small_table_is_fitted_or_rejected(tmp_path_factory, instant_fit, columns, task):
    frame = pd.DataFrame({f"x{i}": cells for i, cells in enumerate(columns)})
    path = tmp_path_factory.mktemp("fuzz") / "table.csv"
    frame.to_csv(path, index=False, errors="replace")
    arguments = ["fit", str(path), "--target", "x0", "--out", str(path) + ".model"]
    assert main([*arguments, *task]) in (0, 2)


@given(size=st.lists(CELL, min_size=3, max_size=3), town=st.lists(CELL, min_size=3, max_size=3))
@settings(max_examples=100, deadline=5000)
def test_any_small_table_is_predicted_or_rejected(tmp_path_factory, made, size, town):
    folder = tmp_path_factory.mktemp("fuzz")
    frame = pd.DataFrame({"size": size, "town": town})
    frame.to_csv(folder / "new.csv", index=False, errors="replace")
    out = folder / "out.csv"
    code = main(["predict", str(made / "price"), str(folder / "new.csv"), "--out", str(out)])
    assert code in (0, 2)
    assert {path.name for path in folder.iterdir()} == {
        "new.csv",
        *(["out.csv"] if not code else []),
    }
    if not code:
        assert np.isfinite(pd.read_csv(out).to_numpy()).all()
