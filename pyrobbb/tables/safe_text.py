"""Text from a table that neither a spreadsheet nor a terminal takes for a command."""

from __future__ import annotations

import re

from ..columns.number_format import CURRENCY, is_plain, split

__all__ = ["escape_controls", "escape_formula", "printable", "unescape_formula"]

FORMULA_STARTS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
HARMLESS_AFFIX = re.compile(rf"%?|{CURRENCY}")
# The control characters C0 and C1 except tab and line feed, and those that change the direction of
# text or end a line.
CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def escape_formula(cell: str) -> str:
    """Return a cell with an apostrophe before it if a spreadsheet would take it for a formula.

    Text that begins with one of = + - @, a tab or a line end, and is not a number, is taken for a
    formula, which may run programs. The apostrophe, as OWASP advises, makes it text.
    """
    return f"'{cell}" if _is_formula(cell.lstrip("'")) else cell


def unescape_formula(cell: str) -> str:
    """Return the cell that `escape_formula` was given."""
    return cell[1:] if cell[:1] == "'" and _is_formula(cell.lstrip("'")) else cell


def escape_controls(text: str) -> str:
    r"""Return a text with escape sequences such as \x1b in place of control characters.

    Tabs and line feeds are kept.
    """
    return CONTROLS.sub(lambda match: repr(match[0])[1:-1], text)


def printable(text: str) -> str:
    """Return a text on one line, with escape sequences in place of all that is invisible."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _is_formula(cell: str) -> bool:
    if not cell.lstrip(" ").startswith(tuple(FORMULA_STARTS)):
        return False
    parts = split(cell)
    return not is_plain(cell) and (parts is None or not HARMLESS_AFFIX.fullmatch(parts.affix))
