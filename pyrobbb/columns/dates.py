"""Dates: how the cells of a column are written, and their cycles: hour, weekday and season."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np

from .cells import Cells

__all__ = [
    "CYCLES",
    "LAYOUTS",
    "Layout",
    "cycles_in",
    "days_by_layout",
    "days_of",
    "infer_layouts",
    "nearest_layout",
]

TIME = (
    r"(?:(?:T|,? +)(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2}(?:\.\d+)?))?"
    r"(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?(?P<offset>Z| ?[+-]\d{2}:?\d{2})?)?"
)
YEAR, MONTH, DAY, NAME = (
    r"(?P<year>\d{4})",
    r"(?P<month>\d{1,2})",
    r"(?P<day>\d{1,2})",
    (r"(?P<name>[A-Za-z]{3,9})"),
)
WEEKDAY = r"(?:[A-Za-z]{3,9},? +)?"
MONTHS = ["january", "february", "march", "april", "may", "june", "july", "august"]
MONTHS += ["september", "october", "november", "december"]
NUMBER_OF_MONTH = {
    **{name: i for i, name in enumerate(MONTHS, 1)},
    **{name[:3]: i for i, name in enumerate(MONTHS, 1)},
    "sept": 9,
}
DAYS_PER_YEAR = 365.2425
MIN_DAYS_OF_SEASON = 180
"""Dates within fewer days hardly show the season."""


@dataclass(frozen=True)
class Layout:
    """One way to write dates.

    Attributes
    ----------
    name : str
    pattern : re.Pattern
        With groups for the parts of the date and the time.
    example : str
    """

    name: str
    pattern: re.Pattern[str]
    example: str

    def parse(self, cell: str) -> float:
        """Return the days from 1970-01-01 UTC to a date; NaN if the cell is not one."""
        match = self.pattern.fullmatch(cell)
        if match is None:
            return np.nan
        try:
            parts = match.groupdict()
            return (_date(parts) - date(1970, 1, 1)).days + _time(parts)
        except (KeyError, ValueError):  # such as February 30, or a word that is not a month
            return np.nan


def _layout(name: str, pattern: str, example: str) -> Layout:
    return Layout(name, re.compile(pattern), example)


LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        _layout("year-month-day", rf"{YEAR}([./-]){MONTH}\2{DAY}{TIME}", "2024-01-31"),
        _layout("day-month-year", rf"{DAY}([./-]){MONTH}\2{YEAR}{TIME}", "31.01.2024"),
        # Points between the numbers are for dates that begin with the day.
        _layout("month-day-year", rf"{MONTH}([/-]){DAY}\2{YEAR}{TIME}", "01/31/2024"),
        _layout(
            "day, month by name, year",
            rf"{WEEKDAY}{DAY}(?:st|nd|rd|th|\.)?[ -]{NAME}\.?,?[ -]{YEAR}{TIME}",
            "31 January 2024",
        ),
        _layout(
            "month by name, day, year",
            rf"{WEEKDAY}{NAME}\.? {DAY}(?:st|nd|rd|th)?,? {YEAR}{TIME}",
            "January 31, 2024",
        ),
        _layout("month by name, year", rf"{NAME}\.?,?[ -]{YEAR}", "January 2024"),
        _layout("year-month", rf"{YEAR}-(?P<month>\d{{2}})", "2024-01"),
        _layout("ISO week", rf"{YEAR}-?W(?P<week>\d{{2}})(?:-?(?P<weekday>[1-7]))?", "2024-W05"),
    )
}

CYCLES = {
    "hour": lambda days: days % 1,
    "weekday": lambda days: (np.floor(days) + 3) % 7 / 7,  # 1970-01-01 was a Thursday
    "season": lambda days: days / DAYS_PER_YEAR % 1,
}
"""Phases in [0, 1) as functions of the days since 1970-01-01; weeks begin on Monday."""


def days_by_layout(cells: Cells) -> dict[str, np.ndarray]:
    """Return the `days_of` the cells in each layout."""
    return {name: days_of(cells, name) for name in LAYOUTS}


def infer_layouts(days: Mapping[str, np.ndarray], is_present: np.ndarray) -> tuple[str, ...]:
    """Return the names of the layouts in which all cells that are present are dates.

    More than one if only the order of day and month is unknown, as in 03/04/2024.
    """
    present = {name: values[is_present] for name, values in days.items()}
    names = tuple(name for name, values in present.items() if not np.isnan(values).any())
    are_equal = all((present[name] == present[names[0]]).all() for name in names)
    return names[:1] if are_equal else names


def nearest_layout(days: Mapping[str, np.ndarray]) -> tuple[str, np.ndarray]:
    """Return the layout in which most cells are dates, and which of the cells are."""
    is_date = {name: ~np.isnan(values) for name, values in days.items()}
    most = max(is_date, key=lambda name: is_date[name].sum())
    return most, is_date[most]


def days_of(cells: Cells, layout: str) -> np.ndarray:
    """Return the cells as days since 1970-01-01 UTC; NaN where missing or not in the layout."""
    return cells.map_text(LAYOUTS[layout].parse)


def cycles_in(days: np.ndarray) -> tuple[str, ...]:
    """Return the names of the cycles that dates of these days go through.

    The hour if they have different times of day, the weekday unless all are weeks or months apart,
    the season if they span half a year.
    """
    dates = np.unique(np.floor(days))
    found = {
        "hour": len(np.unique(days % 1)) > 1,
        "weekday": len(dates) > 2 and bool(np.diff(dates).min() < 7),
        "season": np.ptp(days) >= MIN_DAYS_OF_SEASON,
    }
    return tuple(name for name, is_found in found.items() if is_found)


def _date(parts: Mapping[str, str | None]) -> date:
    year = int(parts["year"] or 0)
    if parts.get("week"):
        return date.fromisocalendar(year, int(parts["week"] or 0), int(parts["weekday"] or 1))
    name = parts.get("name")
    month = NUMBER_OF_MONTH[name.lower()] if name else int(parts["month"] or 0)
    return date(year, month, int(parts.get("day") or 1))


def _time(parts: Mapping[str, str | None]) -> float:
    """Return the time of day in UTC, in days."""
    if parts.get("hour") is None:
        return 0.0
    hour, minute, second = int(parts["hour"] or 0), int(parts["minute"] or 0), parts["second"]
    half = parts["half"]
    if half is not None:
        if not 1 <= hour <= 12:
            raise ValueError("not an hour of a 12-hour clock")
        hour = hour % 12 + 12 * (half.lower() == "p")
    seconds = float(second or 0.0)
    datetime(2000, 1, 1, hour, minute, int(seconds))  # raises outside of the clock
    since_midnight = timedelta(hours=hour, minutes=minute, seconds=seconds)
    return (since_midnight - _offset(parts["offset"])) / timedelta(days=1)


def _offset(text: str | None) -> timedelta:
    if text is None or text == "Z":
        return timedelta(0)
    text = text.strip()
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[-2:]))
    return -offset if text[0] == "-" else offset
