"""What a user can do about a column, in the words of the command line or of data frames."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["COMMAND_LINE", "FRAME", "Remedies"]


@dataclass(frozen=True)
class Remedies:
    """What a user can do about a column: parts of messages.

    Attributes
    ----------
    categories, drop : str
        Make the column categorical; leave it out. ``{}`` is for its name.
    decide_decimal, other_decimal, comma : str
        What to do if numbers may be read in two ways; if they are not written as in the fit; and if
        the points of a column separate thousands: ``{}`` is for such a number.
    """

    categories: str
    drop: str
    decide_decimal: str
    other_decimal: str
    comma: str

    def either(self, name: str) -> str:
        """Return the ways to treat a column that is not numeric as a whole."""
        return f"{self.categories.format(repr(name))} or {self.drop.format(repr(name))}"


COMMAND_LINE = Remedies(
    categories="--categorical {}",
    drop="--drop {}",
    decide_decimal="set --decimal . or --decimal , to decide",
    other_decimal=" Set --decimal if all of the table has another decimal separator.",
    comma="Set --decimal , if it is {}, or rewrite one of the columns.",
)
FRAME = Remedies(
    categories='X[{}].astype("category")',
    drop="X.drop(columns={})",
    decide_decimal="convert the column to numbers",
    other_decimal="",
    comma="Convert both columns to numbers.",
)
