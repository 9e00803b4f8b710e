"""Text that neither a spreadsheet nor a terminal takes for a command."""

import csv
import io

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrobbb.tables import TableFile
from pyrobbb.tables.safe_text import (
    escape_controls,
    escape_formula,
    printable,
    unescape_formula,
)
from pyrobbb.tables.writer import open_writer

FORMULAS = [
    "=1+1",
    "=HYPERLINK(0)",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "-1 cmd|'x'!A",
    "-5 kg",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "\nx",
    " =1",
    "\uff1d1",
    "\uff20x",
    "'=1",
    "''-a",
    "-",
    "+",
]
HARMLESS = [
    *("", "a", "a=1", "3", "-5", "+5", "-1e5", "-.5", "-inf", "-1,5", "-1.234,5", "-5 %", "-$5"),
    *("+1 234", "'", "'a", "'-5", "1-2", "\u22125", "a'=b"),
]


@pytest.mark.parametrize("cell", FORMULAS)
def test_a_formula_gets_an_apostrophe_which_is_removed_when_it_is_read(cell):
    assert escape_formula(cell) == f"'{cell}"
    assert unescape_formula(f"'{cell}") == cell


@pytest.mark.parametrize("cell", HARMLESS)
def test_numbers_and_other_text_are_unchanged(cell):
    assert escape_formula(cell) == unescape_formula(cell) == cell


CELL = st.text(max_size=8) | st.text("=+-@'\t\r\n 1a.,$%", max_size=8)


@given(CELL)
@settings(max_examples=500, deadline=None)
def test_escaping_is_undone_and_leaves_no_formula(cell):
    escaped = escape_formula(cell)
    assert unescape_formula(escaped) == cell
    assert escape_formula(cell).startswith("'") or escaped == cell


@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.csv.gz", "out.parquet"])
def test_a_written_table_is_read_back_unchanged_and_holds_no_formula(tmp_path, name):
    cells = [cell for cell in FORMULAS + HARMLESS if cell == cell.lstrip(" ")]
    frame = pd.DataFrame(
        {"=name": cells, "self": -1.5, "kind": pd.Categorical(["=a"] * len(cells))}
    )
    with open_writer(tmp_path / name) as write:
        write(frame.iloc[:5])
        write(frame.iloc[5:])
    table = TableFile.of(tmp_path / name)
    assert table.columns == ("=name", "self", "kind")
    assert table.read()["=name"].tolist() == cells
    if name == "out.csv":
        rows = list(csv.reader(io.StringIO((tmp_path / name).read_bytes().decode(), newline="")))
        assert rows[0] == ["'=name", "self", "kind"]
        assert [row[0] for row in rows[1:]] == [escape_formula(cell) for cell in cells]
        assert rows[1][1:] == ["-1.5", "'=a"]


CONTROLS = ["\x1b[31m", "\x07", "\r", "\x00", "\x7f", "\x9b", "\u202e", "\u2066", "\u2028"]


@pytest.mark.parametrize("text", CONTROLS)
def test_control_characters_are_escaped(text):
    for escape in (escape_controls, printable):
        shown = escape(f"a{text}b")
        assert shown.isprintable()
        assert shown.startswith("a\\")


def test_other_characters_are_not_escaped():
    text = "na\u00efve \u4e2d\u6587 \U0001f600 \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    assert escape_controls(f"{text}\t\n") == f"{text}\t\n"
    assert printable("na\u00efve \u4e2d\u6587 \U0001f600") == "na\u00efve \u4e2d\u6587 \U0001f600"
    assert printable("a\nb\u200b\u00a0") == "a\\nb\\u200b\\xa0"


def test_a_file_keeps_control_characters_and_stdout_shows_them_escaped(tmp_path, capfdbinary):
    frame = pd.DataFrame({"x\x1b": ["\x1b[31mred\u202e", "a\nb"]})
    with open_writer(tmp_path / "out.csv") as write:
        write(frame)
    assert TableFile.of(tmp_path / "out.csv").read()["x\x1b"].tolist() == frame["x\x1b"].tolist()
    with open_writer("-") as write:
        write(frame)
    assert capfdbinary.readouterr().out == b'x\\x1b\n\\x1b[31mred\\u202e\n"a\nb"\n'
