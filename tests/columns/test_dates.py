"""Columns of dates: the notations that are read, their cycles, and what is left out."""

import numpy as np
import pandas as pd
import pytest

from pyrobbb.columns.encoding import Categorical
from pyrobbb.tables import Schema, TableError

N = 40
STAMPS = pd.date_range("2009-12-25 22:30", periods=N, freq="29h")


def schema_of(cells):
    frame = pd.DataFrame({"when": cells, "y": [f"{0.5 * i}" for i in range(len(cells))]})
    frame["x"] = [f"{i % 7 - 0.5}" for i in range(len(cells))]
    return Schema.of(frame, "y"), frame


def days(stamps):
    """Return days since 1970 by pandas."""
    return ((stamps - pd.Timestamp(0)) / pd.Timedelta("1D")).to_numpy()


@pytest.mark.parametrize(
    "notation",
    [
        "%Y-%m-%d %H:%M",
        "%Y-%m-%dT%H:%M:%S",
        "%Y-%m-%d %H:%M:%S.%f",
        "%Y-%m-%dT%H:%MZ",
        "%Y/%m/%d %H:%M",
        "%Y.%m.%d %H:%M:%S",
        "%d/%m/%Y %H:%M",
        "%d.%m.%Y %H:%M",
        "%m/%d/%Y %I:%M %p",
        "%m-%d-%Y, %H:%M",
        "%d %B %Y %H:%M",
        "%d-%b-%Y %H:%M",
        "%a, %d %b %Y %H:%M:%S",
        "%B %d, %Y %I:%M %p",
        "%b %d %Y, %H:%M",
    ],
)
def test_dates_with_times_are_read_as_pandas_reads_them(notation):
    schema, frame = schema_of(STAMPS.strftime(notation))
    x = schema.encode(frame)
    assert schema.inputs[:3] == ["when", "when hour, sin", "when hour, cos"]
    np.testing.assert_allclose(x[:, 0], days(STAMPS), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("notation", "frequency"),
    [
        ("%G-W%V-%u", "3D"),
        ("%G-W%V", "W-MON"),
        ("%GW%V", "W-MON"),
        ("%B %Y", "MS"),
        ("%Y-%m", "MS"),
        ("%b-%Y", "MS"),
        ("%Y/%m/%d", "D"),
        ("%d.%m.%Y", "D"),
    ],
)
def test_dates_without_times_are_read(notation, frequency):
    stamps = pd.date_range("2020-01-06", periods=N, freq=frequency)
    schema, frame = schema_of(stamps.strftime(notation))
    np.testing.assert_array_equal(schema.encode(frame)[:, 0], days(stamps))
    has_weekday = "when weekday, sin" in schema.inputs
    assert has_weekday == (frequency in ("D", "3D"))


def test_times_with_offsets_are_converted_to_utc():
    schema, frame = schema_of([f"2024-01-{1 + i % 28:02d}T01:30+02:00" for i in range(N)])
    assert schema.encode(frame)[0, 0] == 19722 + 23.5 / 24


def test_hours_weekdays_and_seasons_are_cyclic_inputs():
    stamps = pd.date_range("2023-01-01", periods=400 * 4, freq="6h")
    schema, frame = schema_of(stamps.strftime("%Y/%m/%d %H:%M"))
    x = dict(zip(schema.inputs, schema.encode(frame).T, strict=True))
    for cycle, phase in (
        ("hour", stamps.hour / 24),
        ("weekday", stamps.day_of_week / 7),
        ("season", days(stamps) / 365.2425),
    ):
        np.testing.assert_allclose(
            x[f"when {cycle}, sin"], np.sin(2 * np.pi * phase), rtol=0, atol=1e-9
        )
        np.testing.assert_allclose(
            x[f"when {cycle}, cos"], np.cos(2 * np.pi * phase), rtol=0, atol=1e-9
        )
    assert any("cycles: hour, weekday, season." in note for note in schema.notes)


def test_a_missing_date_is_imputed_and_indicated():
    cells = list(STAMPS.strftime("%Y/%m/%d"))
    cells[3] = ""
    schema, frame = schema_of(cells)
    x = schema.encode(frame)
    assert schema.inputs[-2] == "when is missing"
    assert x[3, 0] == np.median(np.delete(x[:, 0], 3))
    assert x[:, schema.inputs.index("when is missing")].tolist() == [
        float(i == 3) for i in range(N)
    ]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (
            [f"{1 + i % 12:02d}/{1 + i % 11:02d}/2024" for i in range(N)],
            "may be day-month-year or mo",
        ),
        (
            [*STAMPS[:-1].strftime("%Y-%m-%d"), "soon"],
            "39 of 40 cells are dates.*but 'soon' is not",
        ),
        ([*STAMPS[:-1].strftime("%d.%m.%Y"), "30.02.2024"], "but '30.02.2024' is not"),
        ([f"{1887 + i}.05.12 - {1890 + i}.10.30 (Death)" for i in range(N)], "an identifier"),
    ],
)
def test_a_column_that_only_looks_like_dates_is_left_out_with_a_note(cells, reason):
    schema, _ = schema_of(cells)
    (dropped,) = schema.dropped
    assert dropped.name == "when"
    assert pd.Series([dropped.reason]).str.contains(reason).all(), dropped.reason
    assert any("'when' is left out" in note for note in schema.notes)


@pytest.mark.parametrize(
    "cells",
    [
        ["2010-11", "2011-12", "2012-13"] * 12,
        ["1/2", "3/4"] * 20,
        ["spring 2024", "autumn 2024"] * 20,
        ["version 1.2.2024", "version 3.4.2024"] * 20,
    ],
)
def test_other_texts_stay_categories(cells):
    schema, _ = schema_of(cells)
    assert isinstance(schema.columns[0], Categorical)


def test_a_cell_that_is_no_date_later_is_refused_with_its_row():
    schema, frame = schema_of(STAMPS.strftime("%d.%m.%Y"))
    frame.loc[1, "when"] = "2024-02-03"
    with pytest.raises(
        TableError, match=r"row 1, column 'when': '2024-02-03' is not a date such as 31"
    ):
        schema.encode(frame)


def test_the_schema_of_dates_survives_storage_and_files_of_earlier_versions_are_read():
    schema, frame = schema_of(STAMPS.strftime("%Y/%m/%d %H:%M"))
    stored = schema.to_dict()
    assert Schema.from_dict(stored) == schema
    stored["columns"][0] = {
        "kind": "Numeric", "name": "when", "median": 14000.0, "has_missing": False, "is_date": True
    }  # fmt: skip
    x = Schema.from_dict(stored).encode(frame)
    np.testing.assert_allclose(x[:, 0], days(STAMPS), atol=1e-9)
    assert x.shape == (N, 2)
    stored["columns"][0] = {**schema.to_dict()["columns"][0], "layout": "backwards"}
    with pytest.raises(ValueError, match="schema of the table is damaged"):
        Schema.from_dict(stored)
