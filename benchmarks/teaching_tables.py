"""Tables of textbooks, shipped with scikit-learn, statsmodels and ISLP, and what to predict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn import datasets

Kind = Literal["classification", "counts", "regression"]
TEST_FRACTION = 0.2
SPLITS = {100: 10, 500: 3}
"""Number of random splits of tables with fewer rows than the key; larger ones have one."""


@dataclass(frozen=True)
class Table:
    """A table as numbers.

    Attributes
    ----------
    name : str
    kind : "classification", "counts" or "regression"
    x : ndarray of shape (n_rows, n_inputs)
        Categorical columns are one-hot, without their first category.
    y : ndarray of shape (n_rows,)
        Numbers, or classes from 0 on.
    """

    name: str
    kind: Kind
    x: np.ndarray
    y: np.ndarray

    @property
    def n_splits(self) -> int:
        """Number of random splits."""
        return next((n for rows, n in SPLITS.items() if len(self.y) < rows), 1)

    @property
    def is_integer(self) -> bool:
        """Whether y holds numbers that are all integers."""
        return self.kind != "classification" and bool((self.y == self.y.round()).all())

    def split(self, seed: int) -> Split:
        """Return a random split: a fifth of the rows is for testing."""
        order = np.random.default_rng(seed).permutation(len(self.y))
        test, train = np.split(order, [round(TEST_FRACTION * len(order))])
        return Split(self.kind, seed, self.x[train], self.y[train], self.x[test], self.y[test])


@dataclass(frozen=True)
class Split:
    """Rows to fit and rows to test."""

    kind: Kind
    seed: int
    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    @property
    def n_classes(self) -> int:
        """Number of classes among the rows to fit."""
        return int(self.y.max()) + 1


@dataclass(frozen=True)
class Source:
    """Where a table comes from, and its columns.

    Attributes
    ----------
    kind : "classification", "counts" or "regression"
    read : callable
        Returns a DataFrame.
    target : str
    drop : tuple of str
        Columns that are not inputs: row numbers, and other forms of the target.
    categorical : tuple of str
        Columns of numbers that are names. Columns of text are categorical anyway.
    """

    kind: Kind
    read: Callable[[], pd.DataFrame]
    target: str
    drop: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()

    def table(self, name: str) -> Table:
        """Read the table; rows with missing values are left out."""
        frame = self.read().dropna()
        y = frame[self.target]
        if self.kind == "classification":
            y = pd.Series(pd.factorize(y, sort=True)[0])
        inputs = frame.drop(columns=[self.target, *self.drop])
        text = inputs.select_dtypes(exclude="number").columns
        names = [c for c in inputs if c in text or c in self.categorical]
        x = pd.get_dummies(inputs, columns=names, drop_first=True)
        return Table(name, self.kind, x.to_numpy(np.float64), y.to_numpy(np.float64))


class MissingPackageError(Exception):
    """The package that holds a table is not installed."""


@cache
def load(name: str) -> Table:
    """Return a table; raise MissingPackageError if its package is not installed."""
    return TABLES[name].table(name)


def halves() -> tuple[list[str], list[str]]:
    """Return the tables to develop settings on and those held back: alternate ones, by kind."""
    names = sorted(TABLES, key=lambda name: (TABLES[name].kind, name))
    return names[::2], names[1::2]


def folder(package: str, *parts: str) -> Path:
    """Return a folder of an installed package, which is not imported."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(f"{package} is not installed")
    return Path(spec.submodule_search_locations[0], *parts)


def islp(file: str) -> Callable[[], pd.DataFrame]:
    """Return a reader of a table of James et al., An Introduction to Statistical Learning."""
    return lambda: pd.read_csv(folder("ISLP", "data") / f"{file}.csv")


def stats(name: str, file: str | None = None, **options: Any) -> Callable[[], pd.DataFrame]:
    """Return a reader of a table of statsmodels."""
    path = f"{file or name}.csv"
    return lambda: pd.read_csv(folder("statsmodels", "datasets", name) / path, **options)


def sklearn(name: str) -> Callable[[], pd.DataFrame]:
    """Return a reader of a table of scikit-learn."""
    return lambda: getattr(datasets, f"load_{name}")(as_frame=True).frame


def fair() -> pd.DataFrame:
    """Return Fair's survey of 1974, with whether there was an affair."""
    frame = stats("fair")()
    return frame.assign(any_affair=frame.affairs > 0)


def modechoice() -> pd.DataFrame:
    """Return Greene's choices of a travel mode: a row a traveller, with attributes of all modes."""
    frame = stats("modechoice", sep=";")()
    wide = frame.pivot(index="individual", columns="mode", values=["ttme", "invc", "invt", "gc"])
    wide.columns = [f"{name}_{mode}" for name, mode in wide.columns]
    chosen = frame[frame.choice == 1].set_index("individual")
    return wide.join(chosen[["hinc", "psize", "mode"]])


def star98() -> pd.DataFrame:
    """Return Californian school districts, with the share of pupils above the national median."""
    frame = stats("star98")()
    return frame.iloc[:, 2:14].assign(share=frame.PR50M / frame.MATHTOT)


TABLES = {
    # classification
    "anes96": Source("classification", stats("anes96", sep="\t", quotechar="'"), "vote"),
    "breast-cancer": Source("classification", sklearn("breast_cancer"), "target"),
    "caravan": Source("classification", islp("Caravan"), "Purchase"),
    "default": Source("classification", islp("Default"), "default"),
    "digits": Source("classification", sklearn("digits"), "target"),
    "fair": Source("classification", fair, "any_affair", drop=("affairs",)),
    "iris": Source("classification", sklearn("iris"), "target"),
    "modechoice": Source("classification", modechoice, "mode"),
    "oj": Source("classification", islp("OJ"), "Purchase", categorical=("StoreID", "STORE")),
    "smarket": Source("classification", islp("Smarket"), "Direction", drop=("Today",)),
    "spector": Source(
        "classification",
        stats("spector", sep=r"\s+", quotechar="'"),
        "GRADE",
        drop=("OBS",),
    ),
    "weekly": Source("classification", islp("Weekly"), "Direction", drop=("Today",)),
    "wine": Source("classification", sklearn("wine"), "target"),
    # counts
    "bikeshare": Source(
        "counts",
        islp("Bikeshare"),
        "bikers",
        drop=("casual", "registered", "day"),
        categorical=("hr", "weekday"),
    ),
    "cancer": Source("counts", stats("cancer"), "cancer"),
    "fair-counts": Source(
        "counts", stats("fair", "fair_pt"), "naffairs", drop=("identifier", "constant")
    ),
    "randhie": Source("counts", stats("randhie"), "mdvis"),
    # regression
    "auto": Source("regression", islp("Auto"), "mpg", drop=("name",), categorical=("origin",)),
    "boston": Source("regression", islp("Boston"), "medv"),
    "carseats": Source("regression", islp("Carseats"), "Sales"),
    "ccard": Source("regression", stats("ccard"), "AVGEXP"),
    "college": Source("regression", islp("College"), "Apps"),
    "copper": Source("regression", stats("copper"), "WORLDCONSUMPTION"),
    "credit": Source("regression", islp("Credit"), "Balance", drop=("ID",)),
    "diabetes": Source("regression", sklearn("diabetes"), "target"),
    "engel": Source("regression", stats("engel"), "foodexp"),
    "grunfeld": Source("regression", stats("grunfeld"), "invest"),
    "hitters": Source("regression", islp("Hitters"), "Salary"),
    "portfolio": Source("regression", islp("Portfolio"), "Y"),
    "scotland": Source("regression", stats("scotland", "scotvote"), "YES", drop=("COUNCILDIST",)),
    "star98": Source("regression", star98, "share"),
    "statecrime": Source("regression", stats("statecrime"), "murder", drop=("state",)),
    "strikes": Source("regression", stats("strikes", skipinitialspace=True), "duration"),
    "wage": Source("regression", islp("Wage"), "wage", drop=("logwage", "region")),
}
