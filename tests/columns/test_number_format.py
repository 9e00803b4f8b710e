"""Notations of numbers: what is read as which number, what is ambiguous, what is refused."""

import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrobbb.columns.number_format import (
    PLAIN,
    AmbiguousNumberError,
    NumberFormat,
    infer_format,
    is_plain,
    nearest_format,
)

COLUMNS = {
    "decimal comma": (["3,14", "-2,5", "7"], [3.14, -2.5, 7]),
    "decimal comma with exponent": (["1,5e3", "2E-1"], [1500, 0.2]),
    "points and comma": (["1.234.567,8", "12"], [1234567.8, 12]),
    "points and comma once": (["1.234,5"], [1234.5]),
    "points only": (["1.234.567", "1.234"], [1234567, 1234]),
    "commas and point": (["1,234.5", "1,234"], [1234.5, 1234]),
    "commas only": (["1,234,567", "1,234"], [1234567, 1234]),
    "commas too short to group": (["1,234", "12,5"], [1.234, 12.5]),
    "commas after zero": (["1,234", "0,500"], [1.234, 0.5]),
    "spaces": (["1 234", "12 345 678"], [1234, 12345678]),
    "spaces and comma": (["1 234,5"], [1234.5]),
    "spaces and point": (["1 234.5"], [1234.5]),
    "no-break spaces": (["1\u00a0234,5", "1 234"], [1234.5, 1234]),
    "narrow no-break spaces": (["1\u202f234,5"], [1234.5]),
    "thin spaces": (["1\u2009234,5"], [1234.5]),
    "apostrophes": (["1'234.5", "1'234'567"], [1234.5, 1234567]),
    "typographic apostrophes": (["1\u2019234.5"], [1234.5]),
    "Indian groups": (["12,34,567.5", "1,23,456"], [1234567.5, 123456]),
    "unicode minus": (["\u22125", "3"], [-5, 3]),
    "en dash": (["\u20131.5", "3"], [-1.5, 3]),
    "full-width minus": (["\uff0d5", "3"], [-5, 3]),
    "space after the sign": (["- 5", "+ 3"], [-5, 3]),
    "leading plus": (["+5,5", "-3"], [5.5, -3]),
    "trailing minus": (["5.00-", "3.25"], [-5, 3.25]),
    "parentheses": (["(1,234.50)", "3.10"], [-1234.5, 3.1]),
    "full-width digits": (["\uff11\uff12\uff0e\uff15"], [12.5]),
    "Arabic digits": (["\u0663\u066b\u0665"], [3.5]),
    "raised point": (["3\u00b714"], [3.14]),
    "dollars": (["$5.50", "$1,200"], [5.5, 1200]),
    "negative dollars": (["-$5.25", "($3.10)", "$-1"], [-5.25, -3.1, -1]),
    "euros behind": (["1.234,50 €", "3,00€"], [1234.5, 3]),
    "pounds": (["£ 3", "£4.5"], [3, 4.5]),
    "code before or behind": (["EUR 5,5", "7 EUR"], [5.5, 7]),
    "francs without cents": (["CHF 5.\u2013", "CHF 7.50", "CHF 1'200.-"], [5, 7.5, 1200]),
    "no cents": (["5,-", "6,50"], [5, 6.5]),
    "symbol with letters": (["R$ 5,10", "US$ 1"], None),
    "reais": (["R$ 5,10", "R$ 12,00"], [5.1, 12]),
    "per cent": (["12 %", "7.5%"], [12, 7.5]),
    "per mille": (["12\u00a0‰"], [12]),
    "kilograms": (["5 kg", "6.5kg"], [5, 6.5]),
    "square metres": (["50 m²", "62,5 m²"], [50, 62.5]),
    "degrees": (["-5 °C", "21,5 °C"], [-5, 21.5]),
    "price per unit": (["5,00 €/kg", "7,25 €/kg"], [5, 7.25]),
    "infinite": (["inf", "3,5"], [math.inf, 3.5]),
    # No numbers, or not of one notation.
    "both separators": (["1,2", "1.2"], None),
    "two currencies": (["5 USD", "5 EUR"], None),
    "two units": (["5 kg", "300 g"], None),
    "sometimes a per cent sign": (["5 %", "0.3"], None),
    "two groupings": (["1 234 567", "1'234'567"], None),
    "wrong groups": (["12,34,56.1"], None),
    "groups after a zero": (["0,123,456"], None),
    "version": (["1.2.3"], None),
    "ordinals": (["1st", "2nd"], None),
    "range": (["18-25"], None),
    "date": (["2024-01-31"], None),
    "time": (["12:30"], None),
    "hexadecimal": (["0x1f"], None),
    "underscore": (["1_000"], None),
    "name": (["person 1", "person 2"], None),
    "star rating": (["5-star"], None),
    "two signs": (["--5"], None),
    "sign in parentheses": (["(-5)"], None),
    "half a parenthesis": (["(5"], None),
    "incomplete range": (["5\u2013"], None),
    "separators only": ([".", ","], None),
    "doubled comma": (["1,,2"], None),
    "long": (["1" * 100], None),
}


@pytest.mark.parametrize(("cells", "values"), COLUMNS.values(), ids=COLUMNS)
def test_a_column_is_read_in_the_one_format_of_all_its_cells(cells, values):
    found = infer_format(cells)
    if values is None:
        assert found is None
    else:
        assert [found.parse(cell) for cell in cells] == values


AMBIGUOUS = {
    "a group or three decimals": (["1,234", "5,678"], 1234, 1.234),
    "with small numbers": (["7", "1,234"], 1234, 1.234),
    "with a sign": (["-1,234"], -1234, -1.234),
    "currency": (["€1.234"], 1.234, 1234),
    "parentheses": (["(1.234)"], -1.234, -1234),
    "per cent": (["1,234 %"], 1234, 1.234),
}


@pytest.mark.parametrize(("cells", "of_point", "of_comma"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_an_ambiguous_column_is_refused_until_the_decimal_separator_is_given(
    cells, of_point, of_comma
):
    with pytest.raises(AmbiguousNumberError) as caught:
        infer_format(cells)
    assert set(caught.value.values) == {of_point, of_comma}
    for decimal, value in ((".", of_point), (",", of_comma)):
        assert infer_format(cells, decimal).parse(caught.value.cell) == value


def test_a_point_without_further_signs_is_a_decimal_point():
    assert infer_format(["1.234", "5.678"]) == PLAIN
    assert infer_format(["\u22121.234"]) == PLAIN
    assert infer_format(["1.234", "5.678"], ",").parse("1.234") == 1234


def test_a_given_decimal_separator_excludes_formats_with_the_other():
    assert infer_format(["2.5"], ",") is None
    assert infer_format(["2,5"], ".") is None


@pytest.mark.parametrize(
    ("number_format", "cell"),
    [
        (PLAIN, "3,14"),
        (PLAIN, "1,234"),
        (PLAIN, "1 234"),
        (PLAIN, "5 %"),
        (PLAIN, "(5)"),
        (PLAIN, "5-"),
        (PLAIN, "1_000"),
        (NumberFormat(","), "3.14"),
        (NumberFormat(","), "1.234,5"),
        (NumberFormat(",", "."), "1.5"),
        (NumberFormat(affix="%"), "5"),
        (NumberFormat(affix="€"), "5 $"),
    ],
)
def test_a_number_in_another_format_is_none(number_format, cell):
    assert math.isnan(number_format.parse(cell))


DECIMALS = st.sampled_from([".", ","])
GROUPINGS = st.sampled_from(["", ".", ",", " ", "'", "\u00a0", "\u202f"])
AFFIXES = st.sampled_from(["{}", "{} €", "${}", "EUR {}", "{}%", "{} km/h"])


@given(
    values=st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=8),
    decimal=DECIMALS,
    grouping=GROUPINGS,
    affix=AFFIXES,
    n_decimals=st.integers(0, 4),
    minus=st.sampled_from(["-", "\u2212"]),
)
@settings(max_examples=400, deadline=None)
def test_formatted_numbers_are_read_back_or_ambiguous(
    values, decimal, grouping, affix, n_decimals, minus
):
    if grouping == decimal:
        return
    numbers = [value / 10**n_decimals for value in values]
    swap = str.maketrans({",": grouping, ".": decimal, "-": minus})
    cells = [affix.format(f"{number:,.{n_decimals}f}".translate(swap)) for number in numbers]
    try:
        found = infer_format(cells)
    except AmbiguousNumberError:
        found = infer_format(cells, decimal)
    if found == PLAIN and decimal == ",":  # 1.234 in all cells, which is plain
        found = infer_format(cells, ",")
    assert [found.parse(cell) for cell in cells] == numbers


@given(st.text(max_size=20) | st.text("0123456789.,' -+()%$€eE", max_size=12))
@settings(max_examples=400, deadline=None)
def test_any_cell_is_read_or_refused_and_plain_numbers_are_unchanged(cell):
    for decimal in (None, ".", ","):
        try:
            found = infer_format([cell], decimal)
        except AmbiguousNumberError:
            continue
        if found is not None:
            found.parse(cell)
    if is_plain(cell) and cell == cell.strip():
        assert str(PLAIN.parse(cell)) == str(float(cell))


def test_the_nearest_format_is_that_of_most_cells():
    cells = ["1,5 €", "2,5 €", "7 €", "12 $", "unknown", "0x10", "1.5\u00d710^3", "x"]
    found, n_alike = nearest_format(cells, [3, 1, 1, 1, 1, 1, 1, 1])
    assert found == NumberFormat(",", affix="€")
    assert n_alike == 8


@pytest.mark.parametrize(
    "fields",
    [
        {"decimal": ";"},
        {"decimal": ",", "grouping": ","},
        {"grouping": "x"},
        {"affix": 3},
        {"is_accounting": "yes"},
    ],
)
def test_an_unknown_format_is_rejected(fields):
    with pytest.raises(ValueError, match="unknown number format"):
        NumberFormat(**fields)


def test_the_examples_of_the_document_are_numbers():
    text = (Path(__file__).parents[2] / "docs" / "tables.md").read_text(encoding="utf-8")
    text = text[text.index("## Numbers") : text.index("## Dates")]
    rows = [line.split("|")[2] for line in text.splitlines() if line.startswith("|")][2:]
    cells = [cell for row in rows for cell in re.findall("`(.*?)`", row)]
    assert len(cells) > 15
    assert [cell for cell in cells if infer_format([cell]) is None] == []


def test_a_format_is_described_in_words():
    assert str(PLAIN) == "with a decimal point"
    words = "with a decimal comma and thousands separated by points, in €"
    assert str(NumberFormat(",", ".", "€")) == words
