"""Notations of numbers: separators, signs, currencies and units; how they are read and inferred."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

__all__ = [
    "PLAIN",
    "AmbiguousNumberError",
    "NumberFormat",
    "infer_format",
    "is_plain",
    "nearest_format",
    "split",
]

DECIMALS = {
    ".": "a decimal point",
    ",": "a decimal comma",
    "·": "a raised decimal point",
    "\u066b": "the Arabic decimal separator",
}
GROUPINGS = {
    ",": "commas",
    ".": "points",
    " ": "spaces",
    "'": "apostrophes",
    "\u066c": "the Arabic thousands separator",
}
INFINITE = ("inf", "infinity")
MAX_LENGTH = 60
"""A longer cell is not a number."""

# Variants of a character that have the same meaning: full-width forms, dashes, spaces, apostrophes.
VARIANTS = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
VARIANTS |= dict.fromkeys([0x2010, 0x2011, 0x2012, 0x2013, 0x2014, 0x2212, 0xFE63], ord("-"))
VARIANTS |= dict.fromkeys([0x09, 0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], ord(" "))
VARIANTS |= dict.fromkeys([0x2018, 0x2019, 0x2BC, 0x2032, 0xB4, 0x60], ord("'"))

MINUS = "-\u2212\uff0d"

SYMBOLS = "$¢£¤¥֏؋৲৳฿៛﷼﹩￠￡￥￦\u20a0-\u20cf"
CODES = """AED ARS AUD BGN BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP HKD HUF IDR ILS INR ISK JPY
KRW KZT MXN MYR NGN NOK NZD PEN PHP PKR PLN QAR RMB RON RSD RUB SAR SEK SGD THB TRY TWD UAH USD VND
ZAR Fr kr Rs"""
CURRENCY = rf"[A-Z]{{0,3}}[{SYMBOLS}]|(?:{'|'.join(CODES.split())})\.?"
UNITS = """mg g kg t lb lbs oz mm cm m km in ft yd mi m² km² ha ml cl l L s ms min h hr hrs d K °C
°F W kW MW kWh MWh V Hz kHz MHz GHz B kB KB MB GB TB Pa kPa hPa bar J kJ kcal mol px pt % ‰ ° k M"""
"""Suffixes of numbers; others are regarded as such only where most cells of a column have them."""
BODY = r"[\d.,'·\u066b\u066c]+(?: \d[\d.,'·\u066b\u066c]*)*"
SUFFIX = rf"(?:[^\W\d_]|[%‰°/{SYMBOLS}])[^\d()]{{0,19}}?"
# The dash in 5.- and 5,- is in place of the cents.
NUMBER = re.compile(
    rf"(?P<sign>[+-]?) *(?P<outer>{CURRENCY})? *(?P<open>\(?) *(?P<inner_sign>[+-]?) *"
    rf"(?P<prefix>{CURRENCY})? *(?P<digits>{BODY})((?<=[.,])--?|(?P<exponent>[eE][+-]?\d+))? *"
    rf"(?P<suffix>{SUFFIX})? *((?P<close>\)) *(?P<last>{SUFFIX})?)? *(?P<trailing>-?)"
)
# Numbers that have to be rewritten: hexadecimal, and with a power of ten written out.
FOREIGN_NUMBER = re.compile(
    r"[+-]?(0[xX][0-9a-fA-F]+|[\d.,]+ ?[x*\u00d7·] ?10 ?(\^|\*\*)? ?[+-⁺⁻]?[\d⁰¹²³⁴-⁹]+)"
)


class AmbiguousNumberError(ValueError):
    """The cells of a column may be read as different numbers.

    Attributes
    ----------
    cell : str
    values : tuple of float
    """

    def __init__(self, cell: str, values: tuple[float, ...]) -> None:
        super().__init__(cell)
        self.cell, self.values = cell, values


class Parts(NamedTuple):
    """The parts of a number; `digits` include the separators."""

    sign: int
    digits: str
    exponent: str
    affix: str
    is_accounting: bool


@dataclass(frozen=True)
class NumberFormat:
    """How the numbers of a column are written.

    Attributes
    ----------
    decimal : str
        Decimal separator.
    grouping : str
        The characters that may separate thousands; a number has one of them at most.
    affix : str
        Currency, percent sign or unit that each number has, before or behind it. Percentages are
        not divided by 100.
    is_accounting : bool
        Whether a negative number may be in parentheses, or have its sign behind it.
    """

    decimal: str = "."
    grouping: str = ""
    affix: str = ""
    is_accounting: bool = False

    def __post_init__(self) -> None:
        if (
            self.decimal not in DECIMALS
            or self.decimal in self.grouping
            or not set(self.grouping) <= set(GROUPINGS)
            or not isinstance(self.affix, str)
            or not isinstance(self.is_accounting, bool)
        ):
            raise ValueError("unknown number format")

    def parse(self, cell: str | None) -> float:
        """Return the number in a cell; NaN if it is missing or not a number in this format."""
        if cell is None:
            return math.nan
        if not self.affix and (self.decimal == "." or "." not in cell) and is_plain(cell):
            return float(cell)
        parts = split(cell)
        if parts is None or parts.affix != self.affix:
            return math.nan
        if parts.is_accounting and not self.is_accounting:
            return math.nan
        return self.value(parts)

    def value(self, parts: Parts) -> float:
        """Return the number with these digits; NaN if it has other separators."""
        if not _pattern(self.decimal, self.grouping).fullmatch(parts.digits):
            return math.nan
        digits = parts.digits.translate({ord(c): None for c in self.grouping})
        return parts.sign * float(digits.replace(self.decimal, ".") + parts.exponent)

    def with_decimal(self, decimal: str) -> NumberFormat:
        """Return the format with a decimal separator that the user has given.

        Each other separator can then only separate thousands.
        """
        grouping = "".join(character for character in GROUPINGS if character != decimal)
        return replace(self, decimal=decimal, grouping=grouping)

    def __str__(self) -> str:
        words = f"with {DECIMALS[self.decimal]}"
        if len(self.grouping) == 1:
            words += f" and thousands separated by {GROUPINGS[self.grouping]}"
        words += f", in {self.affix}" if self.affix else ""
        return words + (
            ", negative where in parentheses or before a minus" if self.is_accounting else ""
        )


PLAIN = NumberFormat()


def is_plain(cell: str) -> bool:
    """Return whether a cell is a number as Python and most programs write it."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def split(cell: str) -> Parts | None:
    """Return the parts of a cell that looks like a number in some format; None if it does not."""
    if len(cell) > MAX_LENGTH:
        return None
    match = NUMBER.fullmatch(cell.translate(VARIANTS).strip())
    if match is None or (match["trailing"] and cell[-1] not in MINUS):
        return None
    part = {name: text or "" for name, text in match.groupdict().items()}
    is_in_parentheses = part["open"] != ""
    signs = part["sign"] + part["inner_sign"] + part["trailing"] + "-" * is_in_parentheses
    if is_in_parentheses != (part["close"] != "") or len(signs) > 1:
        return None
    affixes = (part[name].strip() for name in ("outer", "prefix", "suffix", "last"))
    return Parts(
        -1 if signs == "-" else 1,
        part["digits"],
        part["exponent"],
        " ".join(affix for affix in affixes if affix),
        is_in_parentheses or part["trailing"] != "",
    )


def infer_format(cells: Sequence[str], decimal: str | None = None) -> NumberFormat | None:
    """Return the format in which all cells are numbers.

    Parameters
    ----------
    cells : sequence of str
        Distinct cells of a column, without missing ones. Infinite ones are in any format.
    decimal : str, optional
        The decimal separator, if the user has given it.

    Returns
    -------
    NumberFormat or None
        None: there is no such format.

    Raises
    ------
    AmbiguousNumberError
        If the cells are different numbers in different formats. Cells such as 1.234 without a
        currency or unit are not ambiguous: they have a decimal point.
    """
    cells = [cell for cell in cells if cell.lstrip("+-").lower() not in INFINITE]
    parts = [split(cell) for cell in cells]
    numbers = [part for part in parts if part is not None]
    affixes = {part.affix for part in numbers}
    if not numbers or len(numbers) < len(parts) or len(affixes) > 1:
        return None
    is_accounting = any(part.is_accounting for part in numbers)
    formats = _formats(decimal, affixes.pop(), is_accounting)
    for part in numbers:
        formats = [f for f in formats if _pattern(f.decimal, f.grouping).fullmatch(part.digits)]
    if PLAIN in formats or not formats:
        return PLAIN if formats else None
    for cell, part in zip(cells, numbers, strict=True):
        values = tuple(dict.fromkeys(format_.value(part) for format_ in formats))
        if len(values) > 1:
            raise AmbiguousNumberError(cell, values)
    return formats[0]


def nearest_format(
    cells: Sequence[str], counts: Sequence[int], decimal: str | None = None
) -> tuple[NumberFormat, int]:
    """Return the format in which most cells are numbers, and how many cells look like numbers.

    Parameters
    ----------
    cells : sequence of str
        Distinct cells of a column, without missing ones.
    counts : sequence of int
        How often each of them occurs.
    decimal : str, optional
        The decimal separator, if the user has given it.
    """
    weights: Counter[Parts] = Counter()
    n_foreign = 0
    for cell, count in zip(cells, counts, strict=True):
        part = split(cell)
        if part is not None:
            weights[part] += count
        elif FOREIGN_NUMBER.fullmatch(cell):
            n_foreign += count
    affixes: Counter[str] = Counter()
    for part, count in weights.items():
        affixes[part.affix] += count
    common, n_common = next(iter(affixes.most_common(1)), ("", 0))
    known = {a for a in affixes if not a or a in UNITS.split() or re.fullmatch(CURRENCY, a)}
    known |= {common} if 2 * n_common > sum(counts) else set()
    is_accounting = any(part.is_accounting for part in weights)
    formats = _formats(decimal, common if common in known else "", is_accounting)
    every = _formats(None, "", True)
    n_alike = sum(
        count for part, count in weights.items() if part.affix in known and _is_in_any(part, every)
    )

    def n_numbers(format_: NumberFormat) -> int:
        fitting = _pattern(format_.decimal, format_.grouping).fullmatch
        return sum(
            count
            for part, count in weights.items()
            if part.affix == format_.affix and fitting(part.digits)
        )

    return max(formats, key=n_numbers), n_alike + n_foreign


def _formats(decimal: str | None, affix: str, is_accounting: bool) -> list[NumberFormat]:
    """Return all formats with these properties, those without grouping first."""
    decimals = DECIMALS if decimal is None else (decimal,)
    return [
        NumberFormat(separator, grouping, affix, is_accounting)
        for separator in decimals
        for grouping in ("", *GROUPINGS)
        if grouping != separator
    ]


def _is_in_any(part: Parts, formats: Iterable[NumberFormat]) -> bool:
    return any(_pattern(f.decimal, f.grouping).fullmatch(part.digits) for f in formats)


@lru_cache(maxsize=256)
def _pattern(decimal: str, grouping: str) -> re.Pattern[str]:
    """Return the pattern of digits with these separators; groups of two digits are Indian."""
    grouped = [
        rf"(?!0)\d{{1,3}}(?:{g}\d{{3}})+|(?!0)\d{{1,2}}(?:{g}\d{{2}})+{g}\d{{3}}"
        for g in map(re.escape, grouping)
    ]
    point = re.escape(decimal)
    return re.compile(rf"(?:{'|'.join([chr(92) + 'd+', *grouped])})(?:{point}\d*)?|{point}\d+")
