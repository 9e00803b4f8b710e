"""Figures of a report, as SVG with the colours and fonts of the page."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import plots
from ..columns.encoding import Date
from ..plots import ACCENT, INK, SECOND, SOFT
from ..plots.predictions import epistemic_part
from .findings import LEVEL, Effect, Findings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..estimators.loss_curves import LossCurve

HALF, THIRD = (4.6, 2.5), (3.3, 2.7)
"""Sizes in inches of figures of which two or three are side by side."""
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
            lambda ax: plots.plot_reliability(findings.prediction, findings.y, ax=ax),
            "calibration",
            size=THIRD,
        )
    y = findings.y[findings.sampled]
    return _to_svg(
        lambda ax: plots.plot_coverage(findings.sampled_prediction, y, ax=ax),
        "calibration",
        size=THIRD,
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
        _legend_above(ax, 4)

    return _to_svg(draw, "predicted", size=THIRD)


def residuals(findings: Findings) -> str:
    """Draw standardised residuals against predicted means."""
    rows = points(findings)
    mean, sd = findings.prediction.mean[rows], findings.prediction.sd[rows]
    residual = (findings.y[rows] - mean) / np.maximum(sd, 1e-300)
    outside = np.abs(residual) > 2

    def draw(ax: Axes) -> None:
        ax.axhspan(-2, 2, color=SOFT, alpha=0.4, lw=0)
        ax.axhline(0, color=ACCENT, lw=1.2)
        ax.plot(mean[~outside], residual[~outside], "o", ms=2.6, mew=0, color=INK)
        ax.plot(mean[outside], residual[outside], "o", ms=3.4, mew=0, color=SECOND)
        largest = max(3.0, 1.1 * float(np.abs(residual).max()))
        name = shorten(findings.schema.target_name)
        ax.set(xlabel=f"{name}, predicted", ylabel="residual / sd", ylim=(-largest, largest))

    return _to_svg(draw, "residuals", size=THIRD)


def entropy_by_correctness(findings: Findings) -> str:
    """Draw histograms of the entropy of correct and of incorrect predictions."""
    return _to_svg(
        lambda ax: plots.plot_uncertainty(findings.prediction, findings.y, ax=ax),
        "uncertainty",
        size=THIRD,
    )


def risk_coverage(findings: Findings) -> str:
    """Draw the error rate of the most certain predictions."""
    return _to_svg(
        lambda ax: plots.plot_risk_coverage(findings.prediction, findings.y, ax=ax),
        "risk",
        size=THIRD,
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

    return _to_svg(draw, "aleatoric", size=HALF)


def dependence(findings: Findings, curve: Effect) -> str:
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
        _legend_above(ax, 3)
        _format_dates(ax, curve)

    return _to_svg(draw, f"dependence on {curve.column.name}", size=THIRD)


def effect(findings: Findings, of_column: Effect) -> str:
    """Draw the prediction for the categories of one column, with the others fixed."""
    prediction = of_column.prediction
    labels = [f"\u200b{shorten(name, 18)}" for name in of_column.at]
    at = np.arange(len(labels))

    def draw_numbers(ax: Axes) -> None:
        lower, upper = prediction.interval(LEVEL)
        inner = epistemic_part(prediction, lower, upper)
        ax.hlines(at, lower, upper, color=SOFT, lw=5, alpha=0.6, label=f"{LEVEL:.0%} interval")
        ax.hlines(at, *inner, color=ACCENT, lw=5, alpha=0.45, label="epistemic part")
        ax.plot(prediction.mean, at, "o", ms=4.5, color=ACCENT, label="mean")
        ax.set(xlabel=shorten(findings.schema.target_name))

    def draw_classes(ax: Axes) -> None:
        left = np.zeros(len(at))
        for index, color in zip(shown_classes(findings), CLASSES, strict=False):
            name = shorten(findings.estimator.classes_[index], 14)
            probs = prediction.probs[:, index]
            ax.barh(at, probs, 0.6, left, color=color, alpha=0.85, label=f"\u200b{name}")
            left = left + probs
        ax.set(xlabel="probability", xlim=(0, 1))

    def draw(ax: Axes) -> None:
        (draw_classes if findings.is_classification else draw_numbers)(ax)
        ax.set_yticks(at, labels)
        ax.set_ylim(len(at) - 0.4, -0.6)
        _legend_above(ax, 3)

    height = 1.1 + 0.22 * len(labels)
    return _to_svg(draw, f"effect of {of_column.column.name}", size=(THIRD[0], height))


def history(first: Sequence[LossCurve], last: Sequence[LossCurve]) -> str:
    """Draw the losses of all chains: of the first fit, if there is one, and of the last."""
    from matplotlib.ticker import MaxNLocator

    def draw(ax: Axes) -> None:
        before = max((curve.n_epochs for curve in first), default=0)
        shown = [values for c in (*first, *last) for values in (c.nelbo, c.nll, c.kl)]
        # The first epochs are far above all others, and would flatten them.
        settled = np.concatenate([values[len(values) // 20 :] for values in shown])
        for start, curves in ((0, first), (before, last)):
            for i, curve in enumerate(curves):
                for values, color, label in (
                    (curve.nelbo, INK, "negative ELBO"),
                    (curve.nll, SECOND, "negative log-likelihood"),
                    (curve.kl, ACCENT, "KL divergence"),
                ):
                    is_first = i == 0 and curves is (first or last)
                    ax.plot(
                        start + curve.epoch,
                        values,
                        color=color,
                        lw=1.1,
                        alpha=0.75,
                        label=label if is_first else None,
                    )
        if before:
            ax.axvline(before, color=INK, lw=0.8, ls=":")
        low, high = settled.min(), settled.max()
        margin = 0.06 * max(high - low, 1e-12)
        n_epochs = before + max(curve.n_epochs for curve in last)
        ax.set(xlabel="epoch", ylabel="nats per row", xlim=(1, max(n_epochs, 2)))
        ax.set_ylim(low - margin, high + margin)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        _legend_above(ax, 2)

    return _to_svg(draw, "history", size=HALF)


def search(findings: Findings) -> str:
    """Draw the held-out log density of what the estimator has tried, by KL weight."""
    return _to_svg(
        lambda ax: plots.plot_search(findings.estimator, ax=ax), "search", size=(HALF[0], 3.0)
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


def _class_dependence(findings: Findings, curve: Effect, above: Axes, below: Axes) -> None:
    at, prediction = curve.at, curve.prediction
    for index, color in zip(shown_classes(findings), CLASSES, strict=False):
        label = shorten(findings.estimator.classes_[index], 14)
        # Matplotlib omits labels that begin with _ from the legend.
        above.plot(at, prediction.probs[:, index], color=color, lw=1.8, label=f"\u200b{label}")
    above.set(ylabel="probability", ylim=(0, 1.02))
    n_columns = (len(above.lines) + 1) // 2
    _legend_above(above, n_columns)
    aleatoric, epistemic = prediction.expected_entropy, prediction.mutual_information
    total = aleatoric + epistemic
    below.fill_between(at, 0, aleatoric, color=SECOND, alpha=0.6, lw=0, label="aleatoric")
    below.fill_between(at, aleatoric, total, color=ACCENT, alpha=0.6, lw=0, label="epistemic")
    below.set(
        xlabel=shorten(curve.column.name),
        ylabel="nats",
        ylim=(0, 1.4 * total.max()),
    )
    below.legend(frameon=False, fontsize="small", ncols=2, loc="upper right")
    for ax in (above, below):
        _format_dates(ax, curve)


def _legend_above(ax: Axes, n_columns: int) -> None:
    """Add a legend above the axes, where it hides nothing."""
    ax.legend(
        frameon=False,
        fontsize="x-small",
        ncols=n_columns,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        handlelength=1.2,
        columnspacing=1.0,
    )


def _format_dates(ax: Axes, curve: Effect) -> None:
    """Show days since 1970 as dates if the column holds dates."""
    if isinstance(curve.column, Date):
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(minticks=3, maxticks=5)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _to_svg(
    draw: Callable[..., Any],
    salt: str,
    *,
    n_axes: int = 1,
    size: tuple[float, float] = HALF,
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
