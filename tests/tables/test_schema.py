"""Schema: inference and encoding of columns, their notes, and errors that locate a bad cell."""

import json
import time
import warnings

import numpy as np
import pandas as pd
import pytest

from pyrobbb.columns.encoder import MAX_INPUTS
from pyrobbb.columns.encoding import EncodingReport
from pyrobbb.columns.errors import TableError
from pyrobbb.tables.schema import Schema, check_names

N = 40
Y = [f"{0.5 * i}" for i in range(N)]


def frame_of(n=N, y=None, **columns):
    """Return a frame as read from a csv file: strings, with the lines of the file as index."""
    frame = pd.DataFrame({**columns, "y": (Y if y is None else y)[:n]}, dtype=object)
    frame.index = pd.RangeIndex(2, len(frame) + 2, name="line")
    return frame


def cycle(*values, n=N):
    return [values[i % len(values)] for i in range(n)]


X = [f"{i * i}.5" for i in range(N)]


def notes_of(schema):
    return " ".join(schema.notes)


def test_numbers_are_encoded_unchanged_with_a_note_on_the_task_only():
    schema = Schema.of(frame_of(x=X), "y")
    assert schema.inputs == ["x"]
    np.testing.assert_array_equal(schema.encode(frame_of(x=X))[:, 0], np.array(X, dtype=float))
    np.testing.assert_array_equal(schema.target(frame_of(x=X)), np.array(Y, dtype=float))
    assert schema.notes == (
        "The task is inferred to be regression: the target 'y' holds 40 distinct numbers.",
    )


def test_a_missing_number_is_imputed_with_the_median_and_indicated():
    x = ["1.5", "NA", "2.5", "", " 7.5 ", "?"]
    schema = Schema.of(frame_of(6, x=x), "y", "regression")
    assert schema.inputs == ["x", "x is missing"]
    assert "'x' has 3 missing cells, imputed with the median, 2.5;" in notes_of(schema)
    expected = [[1.5, 0], [2.5, 1], [2.5, 0], [2.5, 1], [7.5, 0], [2.5, 1]]
    np.testing.assert_array_equal(schema.encode(frame_of(6, x=x)), expected)


def test_categories_and_missing_cells_are_one_hot_encoded():
    x = cycle("b", "a", "")
    schema = Schema.of(frame_of(x=x), "y")
    assert schema.inputs == ["x = a", "x = b", "x is missing"]
    assert (
        "Treated as categorical, with the number of categories: 'x' (2, missing)." in schema.notes
    )
    encoded = schema.encode(frame_of(x=x))
    np.testing.assert_array_equal(encoded[:3], [[0, 1, 0], [1, 0, 0], [0, 0, 1]])


def test_unseen_categories_are_zeros_and_counted_in_one_warning():
    schema = Schema.of(frame_of(x=cycle("a", "b"), z=cycle("u", "v", "w")), "y")
    new = frame_of(4, x=["a", "c", "c", ""], z=["t", "u", "u", "u"])
    message = r"x 'c' \(2 rows\), x '\(missing\)' \(1 row\), z 't' \(1 row\)\.$"
    with pytest.warns(UserWarning, match=message) as caught:
        encoded = schema.encode(new)
    assert len(caught) == 1
    np.testing.assert_array_equal(encoded[:, :2], [[1, 0], [0, 0], [0, 0], [0, 0]])


def test_an_encoding_report_counts_over_several_calls():
    schema = Schema.of(frame_of(x=cycle("a", "b"), z=X), "y")
    report = EncodingReport()
    for _ in range(2):
        schema.encode(frame_of(2, x=["c", "a"], z=["", "1"]), report)
    assert list(report.messages()) == [
        "Categories unseen in the fit are encoded as zeros: x 'c' (2 rows).",
        "Missing numbers, of which the fit had none, are imputed with the median: z (2 rows).",
    ]


def test_typed_values_are_encoded_like_the_strings_of_a_csv():
    typed = pd.DataFrame(
        {
            "number": np.arange(N) ** 2 + 0.5,
            "flag": np.arange(N) % 2 == 0,
            "kind": pd.Categorical(cycle("p", "q", None)),
            "day": pd.date_range("2024-01-01", periods=N),
            "y": np.arange(N) * 0.5,
        }
    )
    as_text = typed.astype(object).where(typed.notna(), "").map(str)
    assert Schema.of(typed, "y") == Schema.of(as_text, "y")
    schema = Schema.of(typed, "y")
    np.testing.assert_array_equal(schema.encode(typed), schema.encode(as_text))


def test_dates_are_encoded_as_days():
    x = [f"2024-01-{1 + i % 28:02d}T12:00" for i in range(N)]
    schema = Schema.of(frame_of(x=x), "y")
    assert "'x' holds dates, encoded as days since 1970-01-01 (UTC)" in notes_of(schema)
    assert schema.encode(frame_of(x=x))[0, 0] == 19723.5
    with pytest.raises(TableError, match=r"line 2, column 'x': '2024-02-31' is not a date"):
        schema.encode(frame_of(1, x=["2024-02-31"]))


def test_rare_categories_are_pooled_with_a_note():
    x = [f"common {i % 50}" for i in range(200)] + [f"rare {i}" for i in range(30)]
    y = [f"{0.5 * i}" for i in range(230)]
    schema = Schema.of(frame_of(230, y=y, x=x), "y")
    assert len(schema.inputs) == 50
    assert "has 80 categories: the 50 most frequent have an input each, the others (30 rows)" in (
        notes_of(schema)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not schema.encode(frame_of(1, x=["rare 3"])).any()


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (cycle("1.5"), "constant"),
        (cycle("a"), "constant"),
        (cycle("0.1", "0.10000000000000001"), "constant"),
        (cycle("0.3", "0.30000000000000004"), "constant up to rounding"),
        (cycle("1e-300", "3e-300"), "constant up to rounding"),
        (cycle("2", ""), "constant except where it is missing"),
        (cycle("", "NA"), "all cells are missing"),
        ([f"person {i}" for i in range(N)], "an identifier: nearly all cells are distinct"),
        ([str(2**60 + i) for i in range(N)], "an identifier: distinct integers beyond 2^53"),
        (Y, "a copy of the target"),
        ([f"{float(y):.3f}" for y in Y], "a copy of the target"),
    ],
)
def test_an_uninformative_column_is_left_out_with_a_note(cells, reason):
    schema = Schema.of(frame_of(x=X, z=cells), "y")
    assert schema.inputs == ["x"]
    assert f"Column 'z' is left out: {reason}." in schema.notes


@pytest.mark.parametrize(
    ("name", "cells", "note"),
    [
        ("z", cycle(str(2**60), str(2**61 + 1)), "holds integers beyond 2^53"),
        ("year", [str(1980 + i) for i in range(N)], "numbers the rows, and is treated as a number"),
        ("z", cycle("1", "2", "3"), "3 distinct integers, and is treated as a number"),
        ("z", cycle("1", "2", "3+"), "mixes 27 numbers with 13 other cells"),
    ],
)
def test_an_ambiguous_column_is_noted(name, cells, note):
    schema = Schema.of(frame_of(x=X, **{name: cells}), "y")
    assert len(schema.columns) == 2
    assert note in notes_of(schema)


def test_large_measurements_are_not_identifiers():
    x = [f"{1.5 * (i + 1)}e20" for i in range(N)]
    schema = Schema.of(frame_of(x=x), "y")
    assert schema.inputs == ["x"]
    assert "2^53" not in notes_of(schema)


def test_a_column_called_id_that_numbers_the_rows_is_left_out():
    schema = Schema.of(frame_of(x=X, user_id=[str(i) for i in range(N)]), "y")
    assert "Column 'user_id' is left out: an identifier: it numbers the rows." in schema.notes


def test_columns_are_dropped_and_made_categorical_on_request():
    codes = cycle("1", "2.0", "3", "2")
    schema = Schema.of(frame_of(x=X, z=codes), "y", drop=["x"], categorical=["z"])
    assert schema.inputs == ["z = 1", "z = 2", "z = 3"]
    assert "Column 'x' is left out: excluded by --drop." in schema.notes
    np.testing.assert_array_equal(schema.encode(frame_of(x=X, z=codes))[1], [0, 1, 0])


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            [*X[:-2], "n.a", "x"],
            r"line 40, column 'z': 'n.a' is not a number \(1 more such cell\), while",
        ),
        (["1_000", *X[1:]], "line 2, column 'z': '1_000' is not a number"),
        ([*X[:-1], "inf"], r"line 41, column 'z': 'inf' is infinite"),
        ([*X[:-1], "1e300"], r"line 41, column 'z': '1e300' is beyond 1e\+100. Rescale"),
        (cycle("0x1F", "0x2a"), r"line 2, column 'z': '0x1F' is not a plain number.*--drop 'z'"),
    ],
)
def test_the_error_of_a_bad_cell_names_its_line(cells, message):
    with pytest.raises(TableError, match=message):
        Schema.of(frame_of(x=X, z=cells), "y")


@pytest.mark.parametrize(
    ("y", "task", "classes"),
    [
        (cycle("yes", "no"), "classification", ("no", "yes")),
        (cycle("0", "1"), "classification", (0, 1)),
        (cycle("0.0", "1.0", "2"), "classification", (0, 1, 2)),
        (cycle("10", "9", "2"), "classification", (2, 9, 10)),
        (cycle("0.5", "1"), "classification", (0.5, 1.0)),
        (cycle("True", "False"), "classification", ("False", "True")),
        ([str(i) for i in range(N)], "regression", ()),
        (sorted("00000000000000000001111111111222233345"), "regression", ()),  # counts
        (sorted("1111111111111111222222222333334445567"), "regression", ()),
        (cycle(*"012345"), "classification", tuple(range(6))),
        (sorted("3334444555555555566666666667778"), "classification", (3, 4, 5, 6, 7, 8)),
        (sorted("0000000000000000000000111112222"), "classification", (0, 1, 2)),
    ],
)
def test_the_task_is_inferred_with_a_note(y, task, classes):
    x = X[: len(y)]
    schema = Schema.of(frame_of(len(y), y=y, x=x), "y")
    assert (schema.task, schema.classes) == (task, classes)
    assert list(map(type, schema.classes)) == list(map(type, classes))
    assert f"The task is inferred to be {task}" in notes_of(schema)
    target = schema.target(frame_of(len(y), y=y, x=x))
    if task == "classification":
        assert np.unique(target).tolist() == list(classes)


def test_a_given_task_is_used_without_a_note():
    schema = Schema.of(frame_of(y=cycle("0", "1"), x=X), "y", "regression")
    assert schema.task == "regression"
    assert schema.notes == ()


def test_rows_without_a_target_are_left_out_and_counted():
    frame = frame_of(y=["", "NA", *Y[2:]], x=X)
    schema = Schema.of(frame, "y")
    assert schema.notes[0] == "Left out: 2 rows without a target."
    rows, n_left_out = schema.with_target(frame)
    assert n_left_out == 2
    np.testing.assert_array_equal(schema.target(rows), np.array(Y[2:], dtype=float))
    with pytest.raises(TableError, match=r"line 2, column 'y': the empty cell cannot be a target"):
        schema.target(frame)


@pytest.mark.parametrize(
    ("y", "task", "message"),
    [
        (cycle("a"), None, "'y', the target, has a single class, 'a'"),
        (cycle("1.5"), "regression", r"'y', the target, is constant \(1.5\)"),
        (cycle("1", "1.00000000000000002"), "regression", "is constant"),
        (cycle("1e-300", "2e-300"), "regression", "is constant"),
        (cycle("0.3", "0.30000000000000004"), None, "is constant"),
        (["1e300", *Y[1:]], None, r"line 2, column 'y': '1e300' is beyond"),
        (["-inf", *Y[1:]], None, "line 2, column 'y': '-inf' is infinite"),
        ([*Y[:-1], "oops"], None, "line 41, column 'y': 'oops' is not a number, while 39"),
        (cycle("a", "b"), "regression", "line 2, column 'y': 'a' is not a number, which a regr"),
        (Y, "classification", "has 40 classes in 40 rows"),
        ([f"name {i}" for i in range(N)], None, "has 40 classes in 40 rows.*an identifier"),
        ([f"2024-01-{1 + i % 28:02d}" for i in range(N)], None, "'2024-01-01' is a date"),
        (cycle(""), None, "has 0 rows with a target; a fit needs at least 5"),
        (["1.5", *cycle("")[1:]], None, "has 1 row with a target; a fit needs at least 5"),
    ],
)
def test_an_unusable_target_is_rejected(y, task, message):
    with pytest.raises(TableError, match=message):
        Schema.of(frame_of(y=y, x=X), "y", task)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "zzz"}, r"has no column 'zzz' \(--target\); it has 'price', 'x', 'y'"),
        ({"target": "Price"}, r"has no column 'Price' \(--target\); did you mean 'price'\?"),
        ({"target": "y", "drop": ["pric"]}, r"'pric' \(--drop\); did you mean 'price'\?"),
        ({"target": "y", "drop": ["y"]}, "'y' is the target and cannot be dropped with --drop"),
        (
            {"target": "y", "drop": ["x", "price"]},
            r"no column to predict 'y' from.*'x' \(excluded by",
        ),
    ],
)
def test_the_error_of_an_unknown_column_suggests_similar_names(options, message):
    with pytest.raises(TableError, match=message):
        Schema.of(frame_of(price=X, x=X), **options)


def test_too_many_columns_are_rejected():
    frame = frame_of(5, **{f"x{i}": X[:5] for i in range(MAX_INPUTS + 1)})
    with pytest.raises(TableError, match=f"has {MAX_INPUTS + 1} inputs.*at most {MAX_INPUTS}"):
        Schema.of(frame, "y")


def test_names_are_checked_quickly_in_a_wide_table():
    names = [f"column number {i}" for i in range(100_000)]
    started = time.perf_counter()
    with pytest.raises(TableError, match=r"no column 'column numbr 5' \(--target\); did you mean"):
        check_names(names, "column numbr 5", [], [])
    with pytest.raises(TableError, match="has 99000 inputs, but a fit takes at most 2000"):
        check_names(names, names[0], names[1:1000], names[1:1000])
    assert time.perf_counter() - started < 3


def test_columns_may_be_in_another_order_with_further_columns_between_them():
    frame = frame_of(x=X, z=cycle("a", "b"))
    schema = Schema.of(frame, "y")
    other = frame.assign(new="1")[["new", "z", "x"]]
    np.testing.assert_array_equal(schema.encode(other), schema.encode(frame))
    assert schema.unused(other.columns) == ["new"]


def test_the_error_names_all_missing_columns():
    schema = Schema.of(frame_of(x=X, z=cycle("a", "b"), u=X), "y")
    with pytest.raises(TableError, match="has no column 'x', 'u', which the model was fitted with"):
        schema.encode(frame_of(z=cycle("a", "b")))


@pytest.mark.parametrize("bad", ["many", "inf", "1e200"])
def test_the_error_of_a_bad_cell_in_new_rows_names_its_line(bad):
    schema = Schema.of(frame_of(x=X), "y")
    with pytest.raises(TableError, match=f"line 3, column 'x': '{bad}' is"):
        schema.encode(frame_of(3, x=["1", bad, "2"]))


def test_the_error_of_an_unknown_class_lists_the_classes():
    schema = Schema.of(frame_of(y=cycle("a", "b"), x=X), "y")
    with pytest.raises(
        TableError, match=r"line 3, column 'y': 'c' is not one of the classes.*a, b"
    ):
        schema.target(frame_of(3, y=["a", "c", "b"], x=X[:3]))


def wide_frame():
    day = [f"2024-01-{1 + i % 28:02d}" for i in range(N)]
    y = cycle("no", "yes", n=N)
    return frame_of(y=y, x=["", *X[1:]], z=cycle("a", "", "b"), day=day, c=cycle("1"), u=X)


def test_a_schema_is_restored_from_strict_json():
    schema = Schema.of(wide_frame(), "y")
    text = json.dumps(schema.to_dict(), allow_nan=False)
    assert Schema.from_dict(json.loads(text)) == schema


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("task", "dancing"),
        ("classes", ["one"]),
        ("columns", []),
        ("columns", [{"kind": "Numeric", "name": "x", "median": float("nan")}]),
        ("columns", [{"kind": "Imaginary"}]),
        ("columns", [{"kind": "Categorical", "name": "x", "categories": [1]}]),
        ("dropped", [{"name": "x"}]),
        ("target", None),
    ],
)
def test_a_damaged_schema_is_rejected(change, value):
    stored = Schema.of(wide_frame(), "y").to_dict()
    with pytest.raises(ValueError, match="stored schema of the table is damaged"):
        Schema.from_dict({**stored, change: value})
    del stored[change]
    with pytest.raises(ValueError, match="stored schema of the table is damaged"):
        Schema.from_dict(stored)
