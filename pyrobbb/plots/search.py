"""Plot of a search: held-out log density against KL weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .style import ACCENT, INK, SECOND, SOFT, prepare_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLUMNS = ("likelihood", "hidden", "epochs", "kl_weight", "log_density", "standard_error")
COLORS = (ACCENT, SECOND, INK, "#8a8f3c", "#7a5c99")


def plot_search(search: Any, *, ax: Axes | None = None) -> Axes:
    """Plot what an estimator has tried: the mean log density of held-out rows by KL weight.

    A line for each likelihood, network and number of epochs, with standard errors of the
    difference from the highest; a dashed line for the mixture of all chains.

    Parameters
    ----------
    search : BBBRegressor or DataFrame
        A fitted estimator, or its ``search_``.
    ax : Axes, optional
    """
    table = _table_of(search)
    ax = prepare_axes(ax)
    varying = [name for name in COLUMNS[:3] if table[name].nunique() > 1] or ["likelihood"]
    for i, (key, rows) in enumerate(table.groupby(list(COLUMNS[:3]), sort=False, dropna=False)):
        color = COLORS[i % len(COLORS)]
        label = _label(dict(zip(COLUMNS[:3], key, strict=True)), varying)
        single, mixture = rows[rows.kl_weight.notna()], rows[rows.kl_weight.isna()]
        if len(single):
            line = single.kl_weight, single.log_density, single.standard_error
            ax.errorbar(*line, color=color, marker="o", ms=3.5, lw=1.5, capsize=2, label=label)
        for value in mixture.log_density:
            ax.axhline(value, color=color, lw=1, ls="--", label=None if len(single) else label)
    ax.set(xlabel="KL weight", ylabel="held-out log density (nats per row)")
    weights = sorted(set(table.kl_weight.dropna()))
    if weights:
        ax.set_xscale("log")
        ax.set_xticks(weights, [f"{weight:g}" for weight in weights])
        ax.set_xticks([], minor=True)
        ax.plot([], [], color=SOFT, lw=1, ls="--", label="all chains together")
    else:
        ax.set_xticks([])
        ax.set_xlabel("")
    # Above the axes, as lines may lie anywhere within.
    ax.legend(frameon=False, fontsize="small", ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return ax


def _table_of(search: Any) -> pd.DataFrame:
    """Return the table of a search, or raise if there is none."""
    table = getattr(search, "search_", search)
    if table is None:
        raise ValueError(
            "`search` has tried nothing: its search_ is None. Fit with likelihood='auto', or with "
            "several restarts, kl_weight='auto' and rows held out for calibration."
        )
    missing = [name for name in COLUMNS if name not in getattr(table, "columns", ())]
    if missing:
        raise TypeError(
            "`search` must be a fitted estimator or its search_, a DataFrame, got a "
            f"{type(search).__name__} without the column {missing[0]!r}."
        )
    return table


def _label(key: dict[str, Any], varying: list[str]) -> str:
    """Return the label of a line, with what differs between lines."""
    words = {
        "likelihood": str(key["likelihood"]),
        "hidden": f"hidden {key['hidden']}",
        "epochs": f"{key['epochs']:,} epochs",
    }
    return ", ".join(words[name] for name in varying)
