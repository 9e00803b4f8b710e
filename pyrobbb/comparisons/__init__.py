"""Comparisons with independent results: cross-check, NUTS, and simulation-based calibration."""

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
