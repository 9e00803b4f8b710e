"""Figures of a report, as SVG with the colours and fonts of the page."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import plots
from ..columns.encoding import Date
from ..fitted import History
from ..plots import ACCENT, INK, SECOND, SOFT
from .findings import LEVEL, Curve, Findings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_POINTS = 300
MAX_LABEL = 32
CLASSES = (ACCENT, SECOND, INK, "#8a8f3c", "#7a5c99")
"""Colours of the most frequent classes."""
CSS_VARIABLES = {
    INK: "var(--ink)",
    ACCENT: "var(--accent)",
    SECOND: "var(--second)",
    SOFT: "var(--soft)",
}
STYLE = {
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.linewidth": 0.7,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def calibration(findings: Findings) -> str:
    """Draw the coverage of intervals, or the accuracy of predicted classes."""
    if findings.is_classification:
        return _to_svg(
            lambda ax: plots.plot_reliability(findings.prediction, findings.y, ax=ax), "calibration"
        )
    y = findings.y[findings.sampled]
    return _to_svg(
        lambda ax: plots.plot_coverage(findings.sampled_prediction, y, ax=ax), "calibration"
    )


def predicted_and_observed(findings: Findings) -> str:
    """Draw observations against predicted means, with intervals."""
    rows = points(findings)
    prediction = findings.estimator.predict_distribution(findings.x[rows])
    mean, y = prediction.mean, findings.y[rows]
    lower, upper = prediction.interval(LEVEL)
    outside = (y < lower) | (y > upper)

    def draw(ax: Axes) -> None:
        ax.vlines(mean, lower, upper, color=SOFT, lw=1.2, alpha=0.7, label=f"{LEVEL:.0%} interval")
        ends = [mean.min(), mean.max()]
        ax.plot(ends, ends, color=ACCENT, lw=1.2, label="mean")
        ax.plot(mean[~outside], y[~outside], "o", ms=2.6, mew=0, color=INK, label="inside")
        ax.plot(mean[outside], y[outside], "o", ms=3.4, mew=0, color=SECOND, label="outside")
        name = shorten(findings.schema.target_name)
        ax.set(xlabel=f"{name}, predicted", ylabel=f"{name}, observed")
        ax.legend(frameon=False, fontsize="small")

    return _to_svg(draw, "predicted")


def entropy_by_correctness(findings: Findings) -> str:
    """Draw histograms of the entropy of correct and of incorrect predictions."""
    return _to_svg(
        lambda ax: plots.plot_uncertainty(findings.prediction, findings.y, ax=ax), "uncertainty"
    )


def risk_coverage(findings: Findings) -> str:
    """Draw the error rate of the most certain predictions."""
    return _to_svg(
        lambda ax: plots.plot_risk_coverage(findings.prediction, findings.y, ax=ax), "risk"
    )


def uncertainty_by_row(findings: Findings) -> str:
    """Draw histograms of the aleatoric and epistemic uncertainty of the rows."""
    aleatoric, epistemic = findings.parts
    label = "entropy (nats)"
    if not findings.is_classification:
        aleatoric, epistemic = np.sqrt(aleatoric), np.sqrt(epistemic)
        label = f"standard deviation of {shorten(findings.schema.target_name)}"

    def draw(ax: Axes) -> None:
        largest = max(aleatoric.max(), epistemic.max(), 1e-12)
        bins = np.linspace(0, 1.02 * largest, 41).tolist()
        ax.hist(aleatoric, bins, color=SECOND, alpha=0.6, label="aleatoric")
        ax.hist(epistemic, bins, color=ACCENT, alpha=0.6, label="epistemic")
        ax.set(xlabel=label, ylabel="rows")
        ax.legend(frameon=False, fontsize="small")

    return _to_svg(draw, "aleatoric")


def dependence(findings: Findings, curve: Curve) -> str:
    """Draw the prediction over the range of one column, with the others fixed."""
    if findings.is_classification:
        return _to_svg(
            lambda above, below: _class_dependence(findings, curve, above, below),
            f"dependence on {curve.column.name}",
            n_axes=2,
            size=(3.3, 3.5),
        )

    def draw(ax: Axes) -> None:
        plots.plot_band(curve.at, curve.prediction, ax=ax, level=LEVEL)
        ax.set(xlabel=shorten(curve.column.name), ylabel=shorten(findings.schema.target_name))
        ax.legend(frameon=False, fontsize="small")
        _format_dates(ax, curve)

    return _to_svg(draw, f"dependence on {curve.column.name}", size=(3.3, 2.6))


def history(losses: History) -> str:
    """Draw the losses of a fit."""
    from matplotlib.ticker import MaxNLocator, SymmetricalLogLocator

    def draw(ax: Axes) -> None:
        plots.plot_history(losses, ax=ax)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        low, high = ax.get_ylim()
        # With ticks at powers of ten only, less than two decades would have one or two.
        subs = [1.0, 2.0, 5.0] if low > 0 and high < 100 * low else [1.0]
        ax.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=2, subs=subs))
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ax.yaxis.set_minor_formatter(lambda *_: "")

    return _to_svg(draw, "history")


def search(findings: Findings) -> str:
    """Draw the held-out log density of what the estimator has tried, by KL weight."""
    return _to_svg(
        lambda ax: plots.plot_search(findings.estimator, ax=ax), "search", size=(6.0, 3.6)
    )


def points(findings: Findings) -> np.ndarray:
    """Return the positions of the rows that are drawn as points."""
    rng = np.random.default_rng(findings.seed)
    n = min(MAX_POINTS, len(findings.sampled))
    return np.sort(rng.choice(findings.sampled, n, replace=False))


def shown_classes(findings: Findings) -> np.ndarray:
    """Return the indices of the most frequent classes, one per colour."""
    counts = np.bincount(findings.y, minlength=len(findings.estimator.classes_))
    return np.sort(np.argsort(-counts, kind="stable")[: len(CLASSES)])


def shorten(name: Any, max_length: int = MAX_LABEL) -> str:
    """Return a label for a figure: short, on one line, and never parsed as a formula."""
    text = "".join(c if c.isprintable() else " " for c in str(name))
    text = text if len(text) <= max_length else f"{text[: max_length - 1]}…"
    return text.replace("$", r"\$")


def _class_dependence(findings: Findings, curve: Curve, above: Axes, below: Axes) -> None:
    at, prediction = curve.at, curve.prediction
    for index, color in zip(shown_classes(findings), CLASSES, strict=False):
        label = shorten(findings.estimator.classes_[index], 14)
        # Matplotlib omits labels that begin with _ from the legend.
        above.plot(at, prediction.probs[:, index], color=color, lw=1.8, label=f"\u200b{label}")
    above.set(ylabel="probability", ylim=(0, 1.02))
    n_columns = (len(above.lines) + 1) // 2
    above.legend(
        frameon=False, fontsize="small", ncols=n_columns, loc="lower left", bbox_to_anchor=(0, 1)
    )
    aleatoric, epistemic = prediction.expected_entropy, prediction.mutual_information
    below.fill_between(at, 0, aleatoric, color=SOFT, lw=0, label="aleatoric")
    below.fill_between(
        at, aleatoric, aleatoric + epistemic, color=ACCENT, alpha=0.7, lw=0, label="epistemic"
    )
    below.set(
        xlabel=shorten(curve.column.name),
        ylabel="nats",
        ylim=(0, 1.4 * (aleatoric + epistemic).max()),
    )
    below.legend(frameon=False, fontsize="small", ncols=2, loc="upper right")
    for ax in (above, below):
        _format_dates(ax, curve)


def _format_dates(ax: Axes, curve: Curve) -> None:
    """Show days since 1970 as dates if the column holds dates."""
    if isinstance(curve.column, Date):
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(maxticks=6)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _to_svg(
    draw: Callable[..., Any],
    salt: str,
    *,
    n_axes: int = 1,
    size: tuple[float, float] = (4.2, 3.0),
) -> str:
    """Draw a new figure and return it as SVG, with ids that are unique on the page."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=size, layout="constrained")
        if n_axes == 1:
            axes = [figure.subplots()]
        else:
            axes = figure.subplots(n_axes, sharex=True, height_ratios=(2, *[1] * (n_axes - 1)))
        draw(*axes)
        return _svg(figure)


def _svg(figure: Figure) -> str:
    text = StringIO()
    with warnings.catch_warnings():
        # The browser renders the text, with fonts that have more glyphs than matplotlib's.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(text, format="svg", transparent=True)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # these ids are not unique on the page
    svg = re.sub(r'^<svg ([^>]*?)\b(height|width)="[^"]*" ', r"<svg \1", svg)
    svg = re.sub(r'^<svg ([^>]*?)\b(height|width)="[^"]*" ', r"<svg \1", svg)
    for color, variable in CSS_VARIABLES.items():
        svg = svg.replace(color, variable)
    return svg.strip()
