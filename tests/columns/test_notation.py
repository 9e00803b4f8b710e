"""Columns of numbers in other notations: converted with a note, or refused with line and column."""

import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from pyrobbb.columns.number_format import PLAIN, NumberFormat
from pyrobbb.tables import Schema, TableError, TableFile, fit_table

N = 9
X = [f"{i * i}.5" for i in range(N)]
Z = [f"{i}.25" for i in range(N)]
VALUES = [-1234567.25, -20.5, 0.75, 1.5, 3.25, 12.5, 1234.5, 98765.25, 1234567.75]
TRANSLATIONS = {
    "decimal comma": ("{:.2f}", {".": ","}),
    "German": ("{:,.2f}", {",": ".", ".": ","}),
    "English": ("{:,.2f}", {}),
    "French": ("{:,.2f}", {",": "\u202f", ".": ","}),
    "Swiss": ("{:,.2f}", {",": "\u2019"}),
    "euros": ("{:,.2f}\u00a0€", {",": ".", ".": ","}),
    "dollars": ("${:,.2f}", {}),
    "code": ("EUR {:.2f}", {".": ","}),
    "per cent": ("{:.2f} %", {}),
    "unit": ("{:.2f} kg", {}),
    "unicode minus": ("{:.2f}", {"-": "\u2212"}),
    "plus": ("{:+.2f}", {}),
    "scientific": ("{:.8e}", {}),
    "full width": ("{:.2f}", {str(i): chr(0xFF10 + i) for i in range(10)}),
}
COLUMNS = {
    name: [form.format(value).translate(str.maketrans(changed)) for value in VALUES]
    for name, (form, changed) in TRANSLATIONS.items()
}
COLUMNS["accounting"] = [f"({-value:,.2f})" if value < 0 else f"{value:,.2f}" for value in VALUES]
IS_PLAIN = {"plus", "scientific", "full width"}


def frame_of(**columns):
    frame = pd.DataFrame(columns, dtype=object)
    frame.index = pd.RangeIndex(2, len(frame) + 2, name="line")
    return frame


def restored(schema):
    return Schema.from_dict(json.loads(json.dumps(schema.to_dict(), allow_nan=False)))


@pytest.mark.parametrize("name", COLUMNS)
def test_a_target_in_any_notation_is_a_regression_on_its_numbers(name):
    frame = frame_of(x=X, y=COLUMNS[name])
    schema = restored(Schema.of(frame, "y"))
    assert schema.task == "regression"
    np.testing.assert_array_equal(schema.target(frame), VALUES)
    notes = [note for note in schema.notes if "holds numbers" in note]
    assert len(notes) == (name not in IS_PLAIN)
    if notes:
        assert notes[0].startswith("Column 'y' holds numbers with ")
        assert "is read as -1234567.25." in notes[0]


@pytest.mark.parametrize("name", COLUMNS)
def test_an_input_in_any_notation_is_encoded_as_its_numbers(name):
    cells = ["", *COLUMNS[name][1:]]
    frame = frame_of(x=cells, y=X)
    schema = restored(Schema.of(frame, "y"))
    assert schema.inputs == ["x", "x is missing"]
    np.testing.assert_array_equal(schema.encode(frame)[1:, 0], VALUES[1:])


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["1,234", "5,678", "9,012"] * 3, r"line 2.*'1,234' may be 1234 or 1.234: set --decimal"),
        (["€1.234"] * 8 + ["€5"], "line 2, column 'y': '€1.234' may be 1.234 or 1234"),
        (
            ["1,5", "2,5", "3,5"] * 2 + ["n/v"] * 3,
            r"line 8.* 'n/v' is .* \(2 more.*6 cells",
        ),
        (["1,5", "2,5", "2.5"] * 3, "line 4, column 'y': '2.5' is not a number with a decimal c"),
        (["5 USD", "6 USD", "7 EUR"] * 3, "line 4.*'7 EUR' is not a number .* in USD"),
        (["12 kg", "300 g", "5 kg"] * 3, "line 3.*'300 g' is not a number .* in kg"),
        (["1", "2", "3+"] * 3, r"line 4, column 'y': '3\+' is not a number"),
        (["0x1f", "0x2f", "0x3f"] * 3, "line 2, column 'y': '0x1f' is not a plain number"),
        (["1.5\u00d710^3", "2\u00d710^5", "4\u00d710^2"] * 3, "line 2.* is not a plain number"),
        (["1.5", "2.5", "\u221e"] * 3, "line 4, column 'y': '\u221e' is not a number"),
        (["1.5", "-", "7.5"] * 3, r"line 3, column 'y': '-' is not a num"),
        (["1,5", "inf", "2,5"] * 3, "line 3, column 'y': 'inf' is infinite"),
    ],
)
def test_a_target_that_mostly_looks_like_numbers_is_never_a_classification(cells, message):
    frame = frame_of(x=X, y=cells)
    with pytest.raises(TableError, match=message):
        Schema.of(frame, "y")
    if "infinite" not in message:
        with pytest.raises(TableError, match=message):
            Schema.of(frame, "y", "regression")
        assert Schema.of(frame, "y", "classification").classes


@pytest.mark.parametrize(
    "cells",
    [
        ["1st", "2nd", "3rd"],
        ["18-25", "26-35", "36+"],
        ["10.0.0.1", "10.0.0.2"],
        ["a", "b", "1"],
    ],
)
def test_labels_with_digits_are_classes(cells):
    assert Schema.of(frame_of(x=(X * 2)[: 3 * len(cells)], y=cells * 3), "y").classes == tuple(
        sorted(cells)
    )


def test_formatted_integers_may_be_classes_which_are_then_integers():
    frame = frame_of(x=X * 2, y=["1 000", "2 000", "3 000"] * 6)
    schema = restored(Schema.of(frame, "y"))
    assert schema.classes == (1000, 2000, 3000)
    assert schema.target(frame)[:3].tolist() == [1000, 2000, 3000]


@pytest.mark.parametrize("decimal", [".", ","])
def test_the_given_decimal_separator_decides_between_two_readings(decimal):
    frame = frame_of(x=["1,234", "5,678", "9,012"] * 3, y=["1,5", "2,5", "4,5"] * 3)
    if decimal == ".":
        with pytest.raises(TableError, match="line 2, column 'y': '1,5' is not a plain number"):
            Schema.of(frame, "y", decimal=decimal)
        frame["y"] = Z
    schema = restored(Schema.of(frame, "y", decimal=decimal))
    assert schema.encode(frame)[0, 0] == (1234 if decimal == "." else 1.234)
    assert schema.target(frame)[0] == (0.25 if decimal == "." else 1.5)


def test_an_ambiguous_input_may_be_made_categorical():
    cells = ["1,234", "5,678", "9,012"] * 3
    with pytest.raises(TableError, match=r"to decide, or use --categorical 'x' or --drop 'x'"):
        Schema.of(frame_of(x=cells, y=X), "y")
    schema = Schema.of(frame_of(x=cells, y=X), "y", categorical=["x"])
    assert schema.inputs == ["x = 1,234", "x = 5,678", "x = 9,012"]


def test_points_that_may_separate_thousands_are_refused_beside_decimal_commas():
    frame = frame_of(x=["82.100", "1.234", "500"] * 3, y=[x.replace(".", ",") for x in X])
    message = r"line 2, column 'x': '82.100' may be 82.1 or 82100, as column 'y' has decimal commas"
    with pytest.raises(TableError, match=message):
        Schema.of(frame, "y")
    assert Schema.of(frame, "y", decimal=",").encode(frame)[:, 0].tolist() == [82100, 1234, 500] * 3
    other = frame_of(x=["82.1", "1.234", "500"] * 3, y=frame["y"].tolist())
    assert Schema.of(other, "y").encode(other)[0, 0] == 82.1


@pytest.mark.parametrize(
    ("fitted", "new", "message"),
    [
        ("plain", "3,14", "line 3, column 'x': '3,14' is not a number with a decimal point, as in"),
        ("plain", "1,234", "line 3, column 'x': '1,234' is not a number with a decimal point, as"),
        ("plain", "7 %", "line 3, column 'x': '7 %' is not a number with a decimal point"),
        (
            "decimal comma",
            "3.14",
            "line 3, column 'x': '3.14' is not a number with a decimal",
        ),
        ("decimal comma", "1.234", "line 3, column 'x': '1.234' is not a number with a decimal co"),
        (
            "German",
            "1,234.5",
            "number with a decimal comma and thousands separated by points",
        ),
        ("English", "3,14", "number with a decimal point and thousands separated by commas"),
        ("euros", "5,00", "not a number .* in €, as in the fit"),
        ("per cent", "0.5", "not a number with a decimal point, in %, as in the fit"),
        ("per cent", "many", "'many' is not a number with a decimal point, in %, as in the fit"),
    ],
)
def test_new_rows_in_another_notation_are_refused(fitted, new, message):
    cells = X if fitted == "plain" else COLUMNS[fitted]
    schema = restored(Schema.of(frame_of(x=cells, y=Z), "y"))
    with pytest.raises(TableError, match=message):
        schema.encode(frame_of(x=[cells[0], new]))
    target = restored(Schema.of(frame_of(x=Z, y=cells), "y"))
    with pytest.raises(TableError, match=message.replace("'x'", "'y'")):
        target.target(frame_of(x=Z[:2], y=[cells[0], new]))


def test_a_decimal_separator_may_be_given_for_new_rows():
    schema = Schema.of(frame_of(x=X, y=Z), "y", "regression")
    commas = frame_of(x=["3,14", "1.234,5", "1 234"], y=["1.234", "2", "3"])
    other = restored(schema.with_decimal(","))
    assert other.encode(commas)[:, 0].tolist() == [3.14, 1234.5, 1234]
    assert other.target(commas).tolist() == [1234, 2, 3]
    assert schema.with_decimal(None) is schema
    with pytest.raises(TableError, match=r"`decimal` must be '\.' or ',', got ';'"):
        schema.with_decimal(";")


def test_typed_numbers_do_not_depend_on_the_decimal_separator():
    frame = pd.DataFrame(
        {
            "x": np.arange(9) + 0.125,
            "z": [Decimal("1.234"), None] + [Decimal(i) for i in range(7)],
            "y": np.arange(9) * 1.5,
        }
    )
    schema = Schema.of(frame, "y", decimal=",")
    assert schema.encode(frame)[0].tolist() == [0.125, 1.234, 0]
    assert schema.with_decimal(",").encode(frame)[0].tolist() == [0.125, 1.234, 0]


def test_a_schema_stored_without_formats_has_plain_numbers():
    stored = Schema.of(frame_of(x=X, y=X[::-1]), "y").to_dict()
    del stored["target_format"], stored["columns"][0]["number_format"]
    schema = Schema.from_dict(stored)
    assert (schema.target_format, schema.columns[0].number_format) == (PLAIN, PLAIN)


@pytest.mark.parametrize("value", [{"decimal": ";"}, {"comma": True}, "comma", None])
def test_a_damaged_format_is_rejected(value):
    stored = Schema.of(frame_of(x=X, y=X[::-1]), "y").to_dict()
    with pytest.raises(ValueError, match="stored schema of the table is damaged"):
        Schema.from_dict({**stored, "target_format": value})


def test_fit_table_reads_decimal_commas_and_keeps_the_cells_of_the_file(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("x;y\n" + "".join(f"{i},5;{i * i},25\n" for i in range(9)))
    assert TableFile.of(path).read()["x"].tolist()[:2] == ["0,5", "1,5"]
    options = {"epochs": 1, "restarts": 1, "hidden": [2], "likelihood": "gaussian"}
    fitted = fit_table(path, "y", tmp_path / "m", random_state=0, **options)
    assert fitted.model.schema.target_format == NumberFormat(",")
    assert "Column 'y' holds numbers with a decimal comma: '0,25' is read as 0.25." in fitted.notes
    with pytest.raises(TableError, match="`decimal` must be"):
        fit_table(path, "y", tmp_path / "m", decimal=";")
