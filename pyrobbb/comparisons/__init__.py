"""Comparisons with independent results: other routes to a loss, NUTS, and simulated truth."""

from .crosscheck import Comparison, CrossCheck, crosscheck
from .nuts import NUTSComparison, compare_with_nuts
from .sbc import SBC, sbc

__all__ = [
    "SBC",
    "Comparison",
    "CrossCheck",
    "NUTSComparison",
    "compare_with_nuts",
    "crosscheck",
    "sbc",
]
