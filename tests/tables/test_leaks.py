"""Notes on columns that nearly determine the target."""

import numpy as np
import pandas as pd
import pytest

from pyrobbb.tables import Schema
from pyrobbb.tables.leaks import notes_on_leaks

N = 300
RNG = np.random.default_rng(0)
Z, NOISE = RNG.normal(size=N), RNG.normal(size=N)
GROUP = np.arange(N) % 3
LETTERS = np.array(list("abc"))[GROUP]
NUMBERS = {
    "logarithm": (np.exp(Z), Z, True),
    "negative square of a positive number": (np.exp(Z), -np.exp(2 * Z), True),
    "rounded": (1000 * Z, np.round(1000 * Z), True),
    "strong, but with noise": (Z, Z + 0.1 * NOISE, False),
    "unrelated": (Z, NOISE, False),
    "one value per category": (
        np.array([1.5, 7.25, 3.0])[GROUP],
        LETTERS,
        True,
    ),
    "noise beside the category": (GROUP + 0.2 * Z, LETTERS, False),
    "one value per category, of few rows each": (
        Z[np.arange(N) % 40],
        np.array([f"town {i}" for i in range(40)])[np.arange(N) % 40],
        False,
    ),
}
GRADE = np.digitize(Z, [-0.5, 0.5])
CLASSES = {
    "its score": (GRADE, Z, True),
    "its number": (GRADE, GRADE + 0.0, True),
    "its name in another language": (GRADE, np.array(["eins", "zwei", "drei"])[GRADE], True),
    "a noisy score": (GRADE, Z + 0.1 * NOISE, False),
    "an unrelated category": (GRADE, LETTERS, False),
    "a flag that only one class has, but not always": (GROUP > 0, (GROUP == 2) + 0, False),
    "a number that two classes share": (GROUP, (GROUP == 2) + 0, False),
    "a number per class, in another order": (GROUP, np.array([5, 2, 9])[GROUP], True),
}


def notes(y, column, task, n=N):
    frame = pd.DataFrame({"x": column, "other": NOISE, "y": y})[:n]
    if task == "classification":
        frame["y"] = frame["y"].map("class {}".format)
    schema = Schema.of(frame, "y", task)
    return notes_on_leaks(schema, schema.encode(frame), schema.target(frame))


@pytest.mark.parametrize("name", NUMBERS)
def test_a_column_that_determines_a_number_is_noted(name):
    y, column, is_leak = NUMBERS[name]
    found = notes(y, column, "regression")
    assert len(found) == is_leak
    assert all("Column 'x' nearly determines the target 'y'" in note for note in found)
    assert all("--drop 'x' leaves it out" in note for note in found)


@pytest.mark.parametrize("name", CLASSES)
def test_a_column_that_determines_a_class_is_noted(name):
    y, column, is_leak = CLASSES[name]
    assert len(notes(y, column, "classification")) == is_leak


def test_few_rows_order_a_target_by_chance():
    assert notes(np.exp(Z), Z, "regression", n=10) == []


def test_a_target_that_rises_with_time_is_no_leak():
    days = pd.date_range("2001-01-01", periods=N, freq="D").strftime("%Y-%m-%d")
    assert notes(np.arange(N) + 0.25, days, "regression") == []
