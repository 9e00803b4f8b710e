"""Draw how long a step takes: a dot for each library, a panel for each net."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from harness import Row
from peers import PEERS
from problems import SIZES
from step import fastest
from summary import MS, pooled, select, significant, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, QUIET, ACCENT, OTHER, BAND = "#333333", "#8a8a8a", "#2a6f97", "#9aa5ad", "#eaf1f6"
"""Text; axes and notes; pyrobbb; the other libraries; the rows of pyrobbb."""


def draw_steps(rows: list[Row], path: Path) -> bool:
    """Draw the chart, and say whether there was something to draw."""
    times: dict[str, dict[str, list[float]]] = {}
    for size in SIZES:
        by_peer = {name: pooled(fastest(select(rows, size=size, peer=name))) for name in PEERS}
        if any(by_peer.values()):
            times[size] = {name: samples for name, samples in by_peer.items() if samples}
    if not times:
        return False

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    order = _order(times)
    figure, axes = plt.subplots(
        1,
        len(times),
        figsize=(3.3 * len(times) + 1.7, 0.34 * len(order) + 1.5),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, (size, by_peer) in zip(axes[0], times.items(), strict=True):
        _panel(ax, by_peer, order)
        ax.set_title(SIZES[size].title, loc="left", fontsize=10, color=INK, pad=8)
    _label_rows(axes[0][0], order)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1, wspace=0.02)
    figure.suptitle(
        "One training step, in milliseconds", x=0.012, ha="left", fontsize=13.5, color=INK
    )
    figure.supxlabel(
        "Medians and quartiles, on a logarithmic axis. "
        "The deterministic net, hollow, is the same net without Bayes.",
        x=0.012,
        ha="left",
        fontsize=8.5,
        color=QUIET,
    )
    figure.savefig(path, dpi=160, facecolor="white")
    plt.close(figure)
    return True


def _order(times: dict[str, dict[str, list[float]]]) -> list[str]:
    """Return the peers, the fastest last, by their mean rank over the nets that they ran on."""
    ranks: dict[str, list[float]] = {}
    for by_peer in times.values():
        ranked = sorted(by_peer, key=lambda name: median(by_peer[name]))
        for rank, name in enumerate(ranked):
            ranks.setdefault(name, []).append(rank / len(ranked))
    return sorted(ranks, key=lambda name: -sum(ranks[name]) / len(ranks[name]))


def _panel(ax: Axes, by_peer: dict[str, list[float]], order: list[str]) -> None:
    middles = {name: spread([s / MS for s in samples]) for name, samples in by_peer.items()}
    fastest_ms = min(middle.median for middle in middles.values())
    slowest_ms = max(middle.upper for middle in middles.values())
    span = max(slowest_ms / fastest_ms, 10.0)
    low = fastest_ms / span**0.12
    ax.set_xscale("log")
    ax.set_xlim(low, slowest_ms * span**0.3)  # room for the numbers
    ax.set_ylim(-0.6, len(order) - 0.4)
    for place, name in enumerate(order):
        ours = bool(PEERS[name].engine)
        if ours:
            ax.axhspan(place - 0.5, place + 0.5, color=BAND, lw=0, zorder=0)
        if name not in middles:
            continue
        middle, color = middles[name], ACCENT if ours else OTHER
        face = "white" if name == "deterministic" else color
        ax.hlines(place, low, middle.median, color=color, lw=1.4 if ours else 0.7, zorder=1)
        ax.hlines(place, middle.lower, middle.upper, color=color, lw=4.5, alpha=0.4, zorder=2)
        ax.plot(middle.median, place, "o", color=color, mfc=face, ms=7, mew=1.2, zorder=3)
        ax.annotate(
            significant(middle.median, 2),
            (middle.upper, place),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=ACCENT if ours else INK,
            fontweight="bold" if ours else "normal",
        )
    _quiet_axes(ax, subs=(1.0,) if span > 30 else (1.0, 2.0, 5.0))


def _quiet_axes(ax: Axes, subs: tuple[float, ...]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    ax.xaxis.set_major_locator(LogLocator(subs=subs))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.grid(axis="x", color="#e3e3e3", lw=0.7, zorder=0)
    ax.set_axisbelow(True)
    ax.tick_params(axis="both", which="both", length=0, labelsize=8.5, labelcolor=QUIET)
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    ax.spines["left"].set_color("#c9c9c9")


def _label_rows(ax: Axes, order: list[str]) -> None:
    ax.set_yticks(range(len(order)), [PEERS[name].label for name in order], fontsize=9.5)
    for name, label in zip(order, ax.get_yticklabels(), strict=True):
        ours = bool(PEERS[name].engine)
        label.set_color(ACCENT if ours else INK)
        label.set_fontweight("bold" if ours else "normal")
