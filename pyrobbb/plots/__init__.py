"""Pictures of fits and of ArviZ trees: matplotlib axes in, axes out."""

from .fits import (
    plot_band,
    plot_coverage,
    plot_history,
    plot_intervals,
    plot_nuts,
    plot_parts,
    plot_reliability,
    plot_snr,
    plot_uncertainty,
    plot_weights,
)
from .trees import plot_forest, plot_khat, plot_loo_pit, plot_ppc, plot_sbc

__all__ = [
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
    "plot_sbc",
    "plot_snr",
    "plot_uncertainty",
    "plot_weights",
]
