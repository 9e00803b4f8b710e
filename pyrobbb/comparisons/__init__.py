"""Comparisons with independent results: other routes to a loss, NUTS, and simulated truth."""

from .cross_check import Comparison, CrossCheck, crosscheck
from .nuts import NUTSComparison, compare_with_nuts
from .simulation import SBC, sbc

__all__ = [
    "SBC",
    "Comparison",
    "CrossCheck",
    "NUTSComparison",
    "compare_with_nuts",
    "crosscheck",
    "sbc",
]
