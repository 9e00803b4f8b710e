"""docs/errors.md: the call of each row of its tables is run, and refused with its message.

To add a row, write it into the document: an expression of the names that `make_names` returns, or
a command line that begins with ``pyrobbb``; what is wrong with it; how the message begins, with
``...`` for what depends on the case; and the remedy.
"""

import contextlib
import gzip
import io
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import JitTrace_ELBO
from scipy import sparse
from support import QUICK_ESTIMATOR, quick_fit
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from xarray import DataTree

import pyrobbb
from pyrobbb import BBBClassifier, BBBRegressor, bandits, datasets, likelihoods, plots, priors
from pyrobbb.cli.main import main
from pyrobbb.diagnostics import loo
from pyrobbb.tables import fit_table

DOCUMENT = Path(__file__).parents[1] / "docs" / "errors.md"
HEADER = ["call", "what was found", "message", "remedy"]


def rows_of(text):
    """Return the cells of the rows of all tables, without their headers."""
    lines = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line] for line in lines]
    return [row for row in rows if row != HEADER]


ROWS = rows_of(DOCUMENT.read_text(encoding="utf-8"))


def pattern_of(message):
    """Return the regular expression that a message must match from its beginning."""
    text = message.strip("`").strip() if message.startswith("`` ") else message[1:-1]
    return ".*".join(map(re.escape, text.split("...")))


def make_names(folder):
    """Return the names that the rows use, and write the files that they read into a folder."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 3)), np.arange(40) % 3
    y = x.sum(1, keepdims=True)
    network = pyrobbb.BayesianNetwork(pyrobbb.mlp(3, [4], 1, seed=0).double())
    classifier = pyrobbb.BayesianNetwork(
        pyrobbb.mlp(3, [4], 3, seed=0).double(), likelihood=likelihoods.Categorical()
    )
    counts = pyrobbb.BayesianNetwork(pyrobbb.mlp(3, [4], 1), likelihood=likelihoods.Poisson())
    custom = quick_fit(pyrobbb.BayesianNetwork(nn.Linear(3, 1).double()))
    posterior = quick_fit(network, x, y, checkpoint=folder / "interrupted")
    estimator = QUICK_ESTIMATOR | {"hidden": (4,), "epochs": 2, "warm_start": True}
    regressor = BBBRegressor(**estimator).fit(x, y[:, 0])

    for kept, name in ((posterior, "saved"), (posterior, "damaged"), (custom, "custom")):
        kept.save(folder / name)
    regressor.save(folder / "regressor")
    stored = next((folder / "damaged").glob("*.safetensors"))
    stored.write_bytes(stored.read_bytes()[:-9])
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("Not a model.")
    rows = [f"{i},{i % 7}.5,{'Ulm' if i % 2 else 'Bonn'}" for i in range(20)]
    table = "\n".join(["price,size,town", *rows]) + "\n"
    for name, text in {
        "houses.csv": table,
        "narrow.csv": "price,town\n1,Ulm\n2,Ulm\n3,Ulm\n4,Ulm\n5,Ulm\n6,Ulm\n",
        "short.csv": table.replace("4,4.5,Bonn", "4,4.5"),
        "typo.csv": table.replace("4,4.5,Bonn", "4,4.5x,Bonn"),
        "constant.csv": re.sub(r"^\d+,", "7.25,", table, flags=re.MULTILINE),
        "thousands.csv": re.sub(r"^\d+,", '"1,234",', table, flags=re.MULTILINE),
        "mixed.csv": re.sub(r"^(\d+),", r'"\1,5",', table, flags=re.MULTILINE).replace(
            '"5,5"', "5.5"
        ),
        "currencies.csv": re.sub(r"^(\d+),", r"\1 EUR,", table, flags=re.MULTILINE).replace(
            "\n5 EUR", "\n5 USD"
        ),
        "empty.csv": "",
        "houses.xlsx": "PK\x03\x04",
    }.items():
        (folder / name).write_text(text)
    (folder / "cut.csv.gz").write_bytes(gzip.compress(table.encode())[:-9])
    (folder / "bomb.csv.gz").write_bytes(gzip.compress(b"price,size\n" + b"1,2\n" * 17_000_000))
    towns, days = ["Bonn", "Ulm"] * 20, pd.date_range("2024-01-01", periods=40)
    houses = pd.DataFrame({"size": x[:, 0], "town": towns, "sold": days})
    agent = bandits.ThompsonSampler(3, 2, hidden=(4,), seed=0)
    batch_norm = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()
    return {
        **{name: getattr(pyrobbb, name) for name in pyrobbb.__all__},
        **{"np": np, "torch": torch, "nn": nn, "dist": dist, "sparse": sparse},
        **{"DataLoader": DataLoader, "TensorDataset": TensorDataset, "DataTree": DataTree},
        **{
            "JitTrace_ELBO": JitTrace_ELBO,
            "pyro": pyro,
            "pyrobbb": pyrobbb,
            "plots": plots,
            "priors": priors,
        },
        **{"likelihoods": likelihoods, "bandits": bandits, "datasets": datasets, "loo": loo},
        **{"fit_table": fit_table, "BBBClassifier": BBBClassifier, "BBBRegressor": BBBRegressor},
        **{"x": x, "y": y, "X": x, "Y": y[:, 0], "labels": labels, "network": network},
        "houses": houses,
        **{"classifier": classifier, "counts": counts, "batch_norm": batch_norm},
        **{"posterior": posterior, "pruned": pyrobbb.prune(posterior, 0.5), "agent": agent},
        **{"prediction": posterior.predict(x, 5, seed=0), "regressor": regressor},
        "loader": DataLoader(TensorDataset(torch.tensor(x), torch.tensor(y)), batch_size=8),
    }


def message_of(code, names):
    """Run a command line or an expression, and return the message with which it is refused."""
    if code.startswith("pyrobbb "):
        shown = io.StringIO()
        with contextlib.redirect_stderr(shown):
            assert main(shlex.split(code)[1:]) == 2
        return shown.getvalue().removesuffix("\n")
    try:
        eval(code, names)
    except OSError as error:
        return error.strerror or str(error)
    except (RuntimeError, TypeError, ValueError) as error:
        return str(error)
    raise AssertionError(f"{code} was not refused.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("refusals")


@pytest.fixture(scope="module")
def names(folder):
    return make_names(folder)


@pytest.mark.parametrize("row", ROWS, ids=[row[0].strip("`") for row in ROWS])
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_a_row_of_the_document_is_true(row, names, folder, monkeypatch):
    code, _, expected, _ = row
    if "to_botorch(" in code:
        pytest.importorskip("botorch", reason="needs BoTorch, of an extra")
    monkeypatch.chdir(folder)
    files = sorted(os.listdir(folder))
    message = message_of(code.strip("`"), dict(names))
    assert re.match(pattern_of(expected), message), message
    assert "\n" not in message
    assert len(message) < 300
    assert sorted(os.listdir(folder)) == files


def test_each_row_of_the_document_has_four_cells_and_is_there_once():
    assert len(ROWS) > 100
    for row in ROWS:
        assert len(row) == len(HEADER)
        assert all(row)
    assert len({row[0] for row in ROWS}) == len(ROWS)


def test_a_message_is_compared_from_its_beginning():
    assert re.match(pattern_of("`` `x` has ... rows ``"), "`x` has 3 rows: drop one")
    assert not re.match(pattern_of("`` `x` has ... rows ``"), "the `x` has 3 rows")
    assert re.match(pattern_of("`must be (n, 1)`"), "must be (n, 1), got 3")
