"""The pictures of a report, as SVG that takes its colours and letters from the page."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import plots
from ..plots import ACCENT, INK, SECOND, SOFT
from .findings import LEVEL, Curve, Findings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 300
LONGEST_NAME = 32
CLASSES = (ACCENT, SECOND, INK, "#8a8f3c", "#7a5c99")
"""Colours of the most frequent classes."""
OF_THE_PAGE = {
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


def calibration(found: Findings) -> str:
    """Draw the coverage of intervals, or how often predicted classes are right."""
    if found.is_classification:
        return _drawn(
            lambda ax: plots.plot_reliability(found.prediction, found.y, ax=ax), "calibration"
        )
    y = found.y[found.chosen]
    return _drawn(lambda ax: plots.plot_coverage(found.chosen_prediction, y, ax=ax), "calibration")


def predicted_and_observed(found: Findings) -> str:
    """Draw observations against predicted means, with intervals."""
    rows = points(found)
    prediction = found.estimator.predict_distribution(found.x[rows])
    mean, y = prediction.mean, found.y[rows]
    lower, upper = prediction.interval(LEVEL)
    outside = (y < lower) | (y > upper)

    def draw(ax: Axes) -> None:
        ax.vlines(mean, lower, upper, color=SOFT, lw=1.2, alpha=0.7, label=f"{LEVEL:.0%} interval")
        ends = [mean.min(), mean.max()]
        ax.plot(ends, ends, color=ACCENT, lw=1.2, label="mean")
        ax.plot(mean[~outside], y[~outside], "o", ms=2.6, mew=0, color=INK, label="inside")
        ax.plot(mean[outside], y[outside], "o", ms=3.4, mew=0, color=SECOND, label="outside")
        name = written(found.schema.target_name)
        ax.set(xlabel=f"{name}, predicted", ylabel=f"{name}, observed")
        ax.legend(frameon=False, fontsize="small")

    return _drawn(draw, "predicted")


def uncertainty(found: Findings) -> str:
    """Draw histograms of the entropy where predictions are right and where they are wrong."""
    return _drawn(
        lambda ax: plots.plot_uncertainty(found.prediction, found.y, ax=ax), "uncertainty"
    )


def noise_and_doubt(found: Findings) -> str:
    """Draw histograms of the two parts of the uncertainty of a row."""
    noise, doubt = found.parts
    label = "entropy (nats)"
    if not found.is_classification:
        noise, doubt = np.sqrt(noise), np.sqrt(doubt)
        label = f"standard deviation of {written(found.schema.target_name)}"

    def draw(ax: Axes) -> None:
        largest = max(noise.max(), doubt.max(), 1e-12)
        bins = np.linspace(0, 1.02 * largest, 41).tolist()
        ax.hist(noise, bins, color=SECOND, alpha=0.6, label="noise")
        ax.hist(doubt, bins, color=ACCENT, alpha=0.6, label="doubt")
        ax.set(xlabel=label, ylabel="rows")
        ax.legend(frameon=False, fontsize="small")

    return _drawn(draw, "noise")


def partial(found: Findings, curve: Curve) -> str:
    """Draw what is predicted while one column goes through its range."""
    if found.is_classification:
        return _drawn(
            lambda above, below: _partial_classes(found, curve, above, below),
            f"along {curve.column.name}",
            n_axes=2,
            size=(3.3, 3.5),
        )

    def draw(ax: Axes) -> None:
        plots.plot_band(curve.at, curve.prediction, ax=ax, level=LEVEL)
        ax.set(xlabel=written(curve.column.name), ylabel=written(found.schema.target_name))
        ax.legend(frameon=False, fontsize="small")
        _dated(ax, curve)

    return _drawn(draw, f"along {curve.column.name}", size=(3.3, 2.6))


def history(found: Findings) -> str:
    """Draw the course of the training."""

    def draw(ax: Axes) -> None:
        plots.plot_history(found.estimator.posterior_.chains[0].history, ax=ax)
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ax.yaxis.set_minor_formatter(lambda *_: "")

    return _drawn(draw, "history")


def points(found: Findings) -> np.ndarray:
    """Give the positions of the rows that are drawn one by one."""
    rng = np.random.default_rng(found.seed)
    n = min(MOST_POINTS, len(found.chosen))
    return np.sort(rng.choice(found.chosen, n, replace=False))


def shown_classes(found: Findings) -> np.ndarray:
    """Give the indices of the most frequent classes, as many as there are colours."""
    counts = np.bincount(found.y, minlength=len(found.estimator.classes_))
    return np.sort(np.argsort(-counts, kind="stable")[: len(CLASSES)])


def written(name: Any, longest: int = LONGEST_NAME) -> str:
    """Give a name for a picture: short, on one line, and no formula whatever it holds."""
    text = "".join(c if c.isprintable() else " " for c in str(name))
    text = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return text.replace("$", r"\$")


def _partial_classes(found: Findings, curve: Curve, above: Axes, below: Axes) -> None:
    at, prediction = curve.at, curve.prediction
    for index, color in zip(shown_classes(found), CLASSES, strict=False):
        label = written(found.estimator.classes_[index], 14)
        # A label that begins with _ would be left out of the legend.
        above.plot(at, prediction.probs[:, index], color=color, lw=1.8, label=f"\u200b{label}")
    above.set(ylabel="probability", ylim=(0, 1.02))
    n_columns = (len(above.lines) + 1) // 2
    above.legend(
        frameon=False, fontsize="small", ncols=n_columns, loc="lower left", bbox_to_anchor=(0, 1)
    )
    noise, doubt = prediction.expected_entropy, prediction.mutual_information
    below.fill_between(at, 0, noise, color=SOFT, lw=0, label="noise")
    below.fill_between(at, noise, noise + doubt, color=ACCENT, alpha=0.7, lw=0, label="doubt")
    below.set(
        xlabel=written(curve.column.name), ylabel="nats", ylim=(0, 1.4 * (noise + doubt).max())
    )
    below.legend(frameon=False, fontsize="small", ncols=2, loc="upper right")
    for ax in (above, below):
        _dated(ax, curve)


def _dated(ax: Axes, curve: Curve) -> None:
    """Write days since 1970 as dates, if that is what they are."""
    if curve.column.is_date:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(maxticks=6)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _drawn(
    draw: Callable[..., Any],
    salt: str,
    *,
    n_axes: int = 1,
    size: tuple[float, float] = (4.2, 3.0),
) -> str:
    """Draw into a new figure, and give it as SVG, with ids that no other picture has."""
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
        # The letters are the browser's, which has more of them than matplotlib.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(text, format="svg", transparent=True)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # the same in every picture
    svg = re.sub(r'^<svg ([^>]*?)\b(height|width)="[^"]*" ', r"<svg \1", svg)
    svg = re.sub(r'^<svg ([^>]*?)\b(height|width)="[^"]*" ', r"<svg \1", svg)
    for color, variable in OF_THE_PAGE.items():
        svg = svg.replace(color, variable)
    return svg.strip()
