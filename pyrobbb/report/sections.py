"""Sections of a report on predictions: how good they are, where, and why."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tables.encoding import Numeric
from . import figures
from .findings import LEVEL, Findings
from .html import (
    Cell,
    Markup,
    Section,
    aligned,
    cell,
    figure,
    number,
    paragraph,
    share,
    table,
    text,
)

N_ROWS = 10
N_VALUES = 4
"""Columns whose values are shown of the most uncertain rows."""
MOST_CLASSES = 10


def scores(found: Findings) -> Section:
    """Tell how well predictions are, beside a constant one, and whether they are calibrated."""
    constant = "shares of the classes in" if found.is_classification else "mean and spread of"
    rows = []
    for own in found.scores:
        shown = (lambda value: share(value, 1)) if own.is_share else number
        rows.append([Cell(own.name, "name"), shown(own.value), shown(own.constant), own.meaning])
    heads = ["score", Cell("model", "number"), Cell("constant", "number"), "what it says"]
    words = (
        f"The constant is a yardstick: it predicts the {constant} these rows for each of them. A "
        "model that does not beat it has learnt nothing from its inputs."
    )
    calibration = (
        figure(
            figures.calibration(found),
            "Are probabilities right?",
            "Each point is the rows whose predicted class had about that probability, its area "
            "their number. Below the dotted line, the model is too sure of itself; above it, not "
            "sure enough.",
        )
        if found.is_classification
        else figure(
            figures.calibration(found),
            "Do intervals hold what they promise?",
            "For each probability, the share of rows inside the interval of that probability. "
            "Below the dotted line, intervals are too narrow; above it, too wide."
            + _of_some(found, len(found.chosen)),
        )
    )
    html = (
        table(heads, rows)
        + paragraph(words, kind="quiet")
        + f'<h3>Calibration</h3>\n<div class="pictures beside">{calibration}</div>'
    )
    return Section("scores", "Scores and calibration", html)


def predictions(found: Findings) -> Section:
    """Show predictions beside what was seen."""
    if found.is_classification:
        pictures = _confusion(found) + figure(
            figures.uncertainty(found),
            "Unsure where it is wrong?",
            "How unsure the model was of rows that it got right and of rows that it got wrong. Of "
            "a good model, what is wrong lies to the right of what is right.",
        )
    else:
        n = len(figures.points(found))
        pictures = figure(
            figures.predicted_and_observed(found),
            "Predicted and observed",
            "Each row at its predicted mean, with the 90% interval in which it should lie: about "
            "one in ten should be outside. Points on the line were predicted exactly."
            + _of_some(found, n),
        )
    kind = "pictures" if found.is_classification else "pictures beside"
    return Section("predictions", "Predictions", f'<div class="{kind}">{pictures}</div>')


def columns(found: Findings) -> Section:
    """Tell which columns move predictions, and along which curves."""
    influence = list(found.influence.items())
    largest = max([value for _, value in influence] + [1e-300])
    rows = [
        [
            Cell(name, "name"),
            moved,
            Cell(
                Markup(f'<span class="meter" style="width: {100 * value / largest:.1f}%"></span>'),
                "meters",
            ),
        ]
        for (name, value), moved in zip(
            influence[:N_ROWS], aligned([value for _, value in influence[:N_ROWS]]), strict=True
        )
    ]
    unit = "probability" if found.is_classification else "units of the target"
    rest = f" The other {len(influence) - N_ROWS} move them less." * (len(influence) > N_ROWS)
    pictures = "".join(
        figure(figures.partial(found, own), f"Along {own.column.name}", _how_to_read(found))
        for own in found.curves()
    )
    html = (
        paragraph(
            "By how much predictions move, on average, when the values of a column are shuffled "
            f"among the rows ({unit}).{rest} It tells what the model uses, not what causes what."
        )
        + table(["column", Cell("moves by", "number"), ""], rows, "influence")
        + (
            "<h3>Numeric columns with the most influence</h3>\n"
            f'<div class="pictures three">{pictures}</div>'
            if pictures
            else paragraph("No column is a number: there is no curve to draw.", kind="quiet")
        )
    )
    return Section("columns", "What predictions lean on", html)


def doubt(found: Findings) -> Section:
    """Tell how much of the uncertainty is noise and how much doubt."""
    doubt = found.doubt_share
    what = "entropy" if found.is_classification else "variance"
    bar = (
        f'<div class="bar"><i class="noise" style="width: {100 * (1 - doubt):.1f}%"></i>'
        f'<i class="doubt" style="width: {100 * doubt:.1f}%"></i></div>'
        f'<div class="key"><span><i class="noise"></i>noise {share(1 - doubt, 1)}</span>'
        f'<span><i class="doubt"></i>doubt {share(doubt, 1)}</span></div>\n'
    )
    picture = figure(
        figures.noise_and_doubt(found),
        "Noise and doubt, row by row",
        "How many rows have how much of each. Rows with doubt far to the right are unlike those of "
        "the fit, or lie where those were few.",
    )
    html = (
        paragraph(
            "Noise is what the inputs cannot tell, however much data there are. Doubt is what the "
            "model does not know about its weights: more data could lift it. Shares of the "
            f"{what}, over all rows:"
        )
        + bar
        + f'<div class="pictures beside">{picture}</div>'
    )
    return Section("doubt", "Noise and doubt", html)


def rows(found: Findings) -> Section:
    """Show the rows that are predicted with the largest uncertainty."""
    worst = np.argsort(-found.uncertainty, kind="stable")[:N_ROWS]
    noise, doubt = (part[worst] for part in found.parts)
    shares = doubt / np.maximum(noise + doubt, 1e-300)
    where = str(found.frame.index.name or "row")
    columns = list(found.influence)[:N_VALUES]
    widths = aligned(found.uncertainty[worst])
    prediction = found.estimator.predict_distribution(found.x[worst])
    if found.is_classification:
        classes, probs = found.estimator.classes_, prediction.probs
        middle: list[Any] = ["predicted", Cell("probability", "number")]
        told = [[cell(classes[p.argmax()]), share(p.max())] for p in probs]
        seen = [cell(classes[own]) for own in found.y[worst]]
        measure, kind = "entropy", ""
    else:
        lower, upper = prediction.interval(LEVEL)
        middle = [Cell("predicted", "number"), Cell("90% interval", "number")]
        bounds = aligned([*lower, *upper])
        told = [
            [mean, f"{bounds[k]} to {bounds[k + len(worst)]}"]
            for k, mean in enumerate(aligned(prediction.mean))
        ]
        seen = aligned(found.y[worst])
        measure, kind = "sd", "number"
    rows = [
        [
            Cell(found.frame.index[i], "index"),
            seen[k],
            *told[k],
            widths[k],
            share(shares[k]),
            *(cell(found.frame[name].iloc[i]) for name in columns),
        ]
        for k, i in enumerate(worst)
    ]
    long = "entropy" if found.is_classification else "standard deviation (sd)"
    heads = [
        where,
        Cell("observed", kind),
        *middle,
        Cell(measure, "number"),
        Cell("of it doubt", "number"),
        *(Cell(name, "number" if _is_numeric(found, name) else "") for name in columns),
    ]
    html = paragraph(
        f"The {len(worst)} rows with the largest {long}. Where doubt is large, look whether "
        "the row is a mistake, or gather more like it; where it is small, the row is hard to "
        f"predict by nature. Last come the {len(columns)} columns with the most influence."
        if len(columns) > 1
        else f"The {len(worst)} rows with the largest {long}."
    ) + table(heads, rows)
    return Section("rows", f"The {len(worst)} most uncertain rows", html)


def _confusion(found: Findings) -> str:
    """Give the table of classes seen and predicted; rare classes together."""
    classes, predicted = found.estimator.classes_, np.asarray(found.prediction.label)
    counts = np.bincount(found.y, minlength=len(classes))
    kept = np.sort(np.argsort(-counts, kind="stable")[:MOST_CLASSES])
    place = np.full(len(classes), len(kept))
    place[kept] = np.arange(len(kept))
    names = [str(own)[: figures.LONGEST_NAME] for own in classes[kept]]
    names += ["others"] if len(classes) > len(kept) else []
    seen_and_said = np.zeros((len(names), len(names)), int)
    np.add.at(seen_and_said, (place[found.y], place[predicted]), 1)
    heads = "".join(f'<th scope="col">{text(name)}</th>' for name in names)
    lines = [f'<thead><tr><th scope="col">seen \\ predicted</th>{heads}</tr></thead><tbody>']
    for i, name in enumerate(names):
        shares = seen_and_said[i] / max(seen_and_said[i].sum(), 1)
        color = ["var(--tint)"] * len(names)
        cells = "".join(
            f'<td style="background: rgba({color[j]}, {0.55 * shares[j]:.2f})">'
            f"{seen_and_said[i, j]:,}</td>"
            for j in range(len(names))
        )
        lines.append(f'<tr><th scope="row">{text(name)}</th>{cells}</tr>')
    return (
        '<figure><div class="scroll"><table class="confusion">'
        + "\n".join(lines)
        + "</tbody></table></div><figcaption><b>Which classes are mistaken for which?</b> Rows of "
        "the table by the class seen (down) and the most probable one (across); the stronger the "
        "colour, the larger the share of that class. Numbers off the diagonal are mistakes."
        "</figcaption></figure>"
    )


def _how_to_read(found: Findings) -> str:
    rest = "The other columns stay at their median or most frequent category."
    if found.is_classification:
        many = len(found.estimator.classes_) > len(figures.CLASSES)
        most = " (of the most frequent ones)" if many else ""
        return (
            f"{rest} Above, the probability of each class{most}; below, noise and doubt, which sum "
            "to the entropy."
        )
    return f"{rest} Dark is the doubt about the mean; the light band has the noise in it as well."


def _is_numeric(found: Findings, name: str) -> bool:
    return any(own.name == name and isinstance(own, Numeric) for own in found.schema.columns)


def _of_some(found: Findings, n: int) -> str:
    return f" Drawn of {n:,} of the {len(found.y):,} rows, at random." if n < len(found.y) else ""
