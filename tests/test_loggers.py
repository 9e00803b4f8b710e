"""examples/loggers.py, with mocks of the packages it logs to; and what the library itself logs."""

import dataclasses
import functools
import importlib.util
import json
import logging
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import support
import torch
from pyro.infer import Trace_ELBO
from support import X, Y

from pyrobbb import BayesianNetwork, fit, mlp
from pyrobbb.training.callbacks import EpochEnd

ROOT = Path(__file__).parents[1]
NUMBERS = ["epoch", "n_epochs", "n_steps", "nelbo", "nll", "kl", "kl_weight", "lr", "seconds"]


quick_fit = functools.partial(support.quick_fit, epochs=3)


@pytest.fixture(scope="module")
def loggers():
    spec = importlib.util.spec_from_file_location("loggers", ROOT / "examples" / "loggers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The arguments of a callback


def test_the_fields_of_an_epoch_end_are_these():
    # Loggers and dashboards use these names: one may be added, none renamed.
    names = [field.name for field in dataclasses.fields(EpochEnd)]
    assert names == [*NUMBERS[:-1], "validation_nll", "seconds", "_snapshot"]


def test_metrics_are_the_numbers_by_name():
    ends = []
    quick_fit(callbacks=ends.append)
    quick_fit(callbacks=ends.append, validation=(X, Y))
    assert list(ends[0].metrics()) == NUMBERS
    assert list(ends[-1].metrics()) == [*NUMBERS[:-1], "validation_nll", "seconds"]
    for name, value in ends[-1].metrics().items():
        assert value == getattr(ends[-1], name)
        assert type(value) in (int, float)
    assert "_snapshot" not in repr(ends[0])


# The example


def test_a_json_line_is_written_for_each_epoch(loggers, tmp_path):
    ends = []
    quick_fit(callbacks=[loggers.to_json_lines(tmp_path / "fit.jsonl"), ends.append])
    lines = (tmp_path / "fit.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [end.metrics() for end in ends]


def test_tensorboard_gets_scalars_by_epoch_and_a_histogram(loggers, monkeypatch):
    written, histograms = {}, []

    class SummaryWriter:
        def __init__(self, folder):
            assert folder == "runs"

        def add_scalar(self, name, value, step):
            written[name, step] = value

        def add_histogram(self, name, values, step):
            histograms.append((name, values.shape, step))

        def flush(self):
            pass

    mock = types.SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", mock)
    ends = []
    posterior = quick_fit(callbacks=[loggers.to_tensorboard("runs"), ends.append])
    assert written == {
        (f"fit/{name}", end.epoch): value for end in ends for name, value in end.metrics().items()
    }
    assert histograms == [("guide/scale", posterior.guide.loc.shape, i) for i in (1, 2, 3)]


def test_mlflow_gets_metrics_by_epoch(loggers, monkeypatch):
    logged, ends = [], []
    mock = types.SimpleNamespace(log_metrics=lambda values, step: logged.append((values, step)))
    monkeypatch.setitem(sys.modules, "mlflow", mock)
    quick_fit(callbacks=[loggers.to_mlflow(), ends.append])
    assert logged == [(end.metrics(), end.epoch) for end in ends]


# What the library logs


def lines_of(caplog, **options):
    with caplog.at_level(logging.INFO, logger="pyrobbb"):
        quick_fit(**options)
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("pyrobbb.training.")
    ]


@pytest.mark.parametrize("engine", ["svi", "fused"])
def test_fit_logs_its_start_and_its_end(caplog, engine):
    first, last = lines_of(caplog, engine=engine)
    assert first == (
        f"Fitting 21 weights to 23 rows by engine='{engine}': 9 steps in 3 epochs of 1 chain, "
        "on cpu in float64."
    )
    pattern = (
        rf"Fitted 9 steps in \S+ s by engine='{engine}': the negative ELBO of the last epoch is "
        r"[\d.]+\.$"
    )
    assert re.match(pattern, last)


def test_fit_logs_that_it_falls_back_to_another_engine(caplog):
    lines = lines_of(caplog, objective=Trace_ELBO())
    assert any("The steps are taken by engine='svi'" in line for line in lines)


def test_a_fit_that_is_stopped_logs_the_steps_taken(caplog):
    lines = lines_of(caplog, callbacks=lambda end: end.epoch == 2)
    assert lines[-1].startswith("Fitted 6 steps")


def test_every_logger_has_the_name_of_its_module():
    for file in (ROOT / "pyrobbb").rglob("*.py"):
        for call in re.findall(r"getLogger\(.*?\)", file.read_text(encoding="utf-8")):
            # The command line prints what the whole package logs.
            expected = 'getLogger("pyrobbb")' if file.name == "output.py" else "getLogger(__name__)"
            if file.name == "global_state.py":  # sets levels of torch's loggers for a while
                expected = "getLogger(name)"
            assert call == expected, file.name


def test_importing_pyrobbb_installs_no_handler_and_no_level():
    code = (
        "import logging; before = list(logging.root.handlers); import pyrobbb\n"
        "pyrobbb.BBBRegressor\n"
        "names = [name for name in logging.root.manager.loggerDict if 'pyrobbb' in name]\n"
        "loggers = [logging.getLogger(name) for name in names]\n"
        "assert len(loggers) > 5 and logging.root.handlers == before\n"
        "assert not any(logger.handlers or logger.level for logger in loggers)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# docs/observability.md

BLOCKS = re.findall(
    r"```python\n(.*?)```",
    (ROOT / "docs" / "observability.md").read_text(encoding="utf-8"),
    re.DOTALL,
)


def test_the_code_of_the_document_runs(capsys, monkeypatch):
    logger, root = logging.getLogger("pyrobbb"), logging.getLogger()
    monkeypatch.setattr(logger, "level", logger.level)
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr("pyrobbb.training.run.DEFAULT_STEPS", 4)
    monkeypatch.setattr("pyrobbb.training.run.DEFAULT_EPOCHS", 2)
    network = BayesianNetwork(mlp(3, [4], 1))
    names = {"fit": fit, "network": network, "x": torch.as_tensor(X), "y": torch.as_tensor(Y)}
    assert len(BLOCKS) == 2
    try:
        for block in BLOCKS:
            exec(block, names)
        assert logger.level == logging.INFO
    finally:
        logger.setLevel(logging.NOTSET)
    printed = capsys.readouterr().out
    assert printed.count("'nelbo'") == names["posterior"].history.n_epochs
