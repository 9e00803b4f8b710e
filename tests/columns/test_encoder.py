"""ColumnEncoder: what is made of the columns of a data frame, and what a user reads about it."""

import json

import numpy as np
import pandas as pd
import pytest

from pyrobbb.columns import ColumnEncoder, EncodingReport, TableError

N = 30


def frame_of(**columns):
    return pd.DataFrame({"x": np.linspace(0.5, 9.1, N) ** 2, **columns})


MIXED = frame_of(
    town=["Ulm", "Bonn", None] * 10,
    code=pd.Categorical([4, 6, 8] * 10),
    flag=[True, False] * 15,
    day=pd.date_range("2024-01-01", periods=N),
    rate=[1.5, np.nan, 3.0] * 10,
)


def test_a_column_of_the_type_category_is_categorical_also_with_numbers():
    encoder = ColumnEncoder.of(MIXED[["code"]])
    assert encoder.inputs == ["code = 4", "code = 6", "code = 8"]
    as_numbers = pd.DataFrame({"code": [8.0, 4.0]})
    np.testing.assert_array_equal(encoder.encode(as_numbers), [[0, 0, 1], [1, 0, 0]])


def test_each_kind_of_column_is_encoded_as_by_pandas():
    encoder = ColumnEncoder.of(MIXED.drop(columns="day"))
    expected = pd.concat(
        [
            MIXED.x,
            pd.get_dummies(MIXED.town, dummy_na=True),
            pd.get_dummies(MIXED.code),
            pd.get_dummies(MIXED.flag),
            MIXED.rate.fillna(MIXED.rate.median()),
            MIXED.rate.isna(),
        ],
        axis=1,
    )
    np.testing.assert_array_equal(encoder.encode(MIXED), expected.to_numpy(float))


@pytest.mark.parametrize("one", [1, 1.0, np.int64(1), "1"])
@pytest.mark.parametrize("true", [True, np.bool_(True)])
def test_booleans_among_numbers_are_categories_of_their_own_in_any_order(one, true):
    for cells in ([true, one, 0, False], [one, true, False, 0]):
        column = pd.Series(cells * 8, dtype=object)
        encoder = ColumnEncoder.of(pd.DataFrame({"x": column}))
        assert encoder.inputs == ["x = 0", "x = 1", "x = False", "x = True"]
        expected = pd.get_dummies([f"{c:g}" if type(c) is float else str(c) for c in cells])
        np.testing.assert_array_equal(encoder.encode(column[:4].to_frame("x")), expected)


def test_columns_are_found_by_name_in_any_order_and_others_are_ignored():
    encoder = ColumnEncoder.of(MIXED)
    shuffled = MIXED[MIXED.columns[::-1]].assign(other="?")
    np.testing.assert_array_equal(encoder.encode(shuffled), encoder.encode(MIXED))
    with pytest.raises(TableError, match="has no column 'town', which the model was fitted with"):
        encoder.encode(MIXED.drop(columns="town"))


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            ["7"] * 26 + ["8 or 9"] * 4,
            r"use X\['z'\]\.astype\(\"category\"\) or X\.drop\(columns='z'\)",
        ),
        (["1,234", "1,5"] * 15, None),
        (["1,234", "2,345"] * 15, "may be 1234 or 1.234: convert the column to numbers"),
        ([1e200] + [1.0] * 29, "is beyond 1e\\+100"),
    ],
)
def test_the_remedies_are_those_of_data_frames(cells, message):
    frame = frame_of(z=cells)
    if message is None:
        assert ColumnEncoder.of(frame).inputs == ["x", "z"]
        return
    with pytest.raises(TableError, match=message) as caught:
        ColumnEncoder.of(frame)
    assert "--" not in str(caught.value)


def test_notes_name_the_remedies_of_data_frames():
    encoder = ColumnEncoder.of(frame_of(rooms=[1, 2, 3] * 10, position=np.arange(N)))
    notes = " ".join(encoder.notes)
    assert """X['rooms'].astype("category") makes it categorical""" in notes
    assert "X.drop(columns='position') leaves it out" in notes


def test_an_encoder_is_the_same_after_json():
    encoder = ColumnEncoder.of(MIXED.assign(same=1.0))
    stored = json.loads(json.dumps(encoder.to_dict(), allow_nan=False))
    assert ColumnEncoder.from_dict(stored) == encoder


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: stored.pop("columns"),
        lambda stored: stored["columns"].clear(),
        lambda stored: stored["columns"][0].update(median="1"),
        lambda stored: stored["columns"][0].update(kind="Tensor"),
        lambda stored: stored["columns"][1].update(categories=[1, 2]),
        lambda stored: stored["columns"].append(stored["columns"][0]),
        lambda stored: stored["dropped"].append({"name": "x"}),
        lambda stored: stored.update(columns=None),
    ],
)
def test_a_damaged_encoder_is_refused(damage):
    stored = ColumnEncoder.of(MIXED).to_dict()
    damage(stored)
    with pytest.raises(ValueError, match=r"^The stored schema of the table is damaged"):
        ColumnEncoder.from_dict(stored)


def test_an_encoder_shows_its_columns_and_what_is_left_out():
    shown = repr(ColumnEncoder.of(MIXED.assign(same=1.0)))
    assert shown.startswith("ColumnEncoder: 6 columns to ")
    assert "1 left out" in shown
    assert "left out: constant" in shown


def test_a_report_counts_instead_of_a_warning():
    encoder, report = ColumnEncoder.of(MIXED), EncodingReport()
    new = MIXED.head(2).assign(town="Rome", x=np.nan)
    assert encoder.encode(new, report).shape == (2, len(encoder.inputs))
    assert report.unseen == {("town", "Rome"): 2}
    assert report.imputed == {"x": 2}
