"""Plots of predictions, weights, training and ArviZ DataTrees, on matplotlib axes.

Each function draws on the axes `ax`, or on those of a new figure without it, and returns the axes.
y has a value for each predicted row; for classes, their indices.
"""

from .calibration import plot_coverage, plot_reliability, plot_risk_coverage
from .datatree import plot_forest, plot_khat, plot_loo_pit, plot_ppc, plot_sbc
from .nuts import plot_nuts
from .predictions import plot_band, plot_intervals, plot_parts, plot_uncertainty
from .search import plot_search
from .style import ACCENT, INK, SECOND, SOFT
from .training import plot_history
from .weights import plot_snr, plot_weights

__all__ = [
    "ACCENT",
    "INK",
    "SECOND",
    "SOFT",
    "plot_band",
    "plot_coverage",
    "plot_forest",
    "plot_history",
    "plot_intervals",
    "plot_khat",
    "plot_loo_pit",
    "plot_nuts",
    "plot_parts",
    "plot_ppc",
    "plot_reliability",
    "plot_risk_coverage",
    "plot_sbc",
    "plot_search",
    "plot_snr",
    "plot_uncertainty",
    "plot_weights",
]
