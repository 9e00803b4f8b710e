"""A report on a fit: one page of HTML that needs nothing beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import model, sections
from .findings import Findings
from .html import Markup, page, paragraph, share, text, write_whole

if TYPE_CHECKING:
    import pandas as pd

    from ..tables.schema import Schema

__all__ = ["write"]


def write(
    path: str | os.PathLike[str],
    estimator: Any,
    schema: Schema,
    frame: pd.DataFrame,
    *,
    seed: int = 0,
) -> None:
    """Write a page on what was fitted, how well it predicts a table, and how far to trust it.

    Of large tables, what takes long is computed of some rows, which the page says.

    Parameters
    ----------
    path : path-like
        The page; what stands there is replaced when the new one is complete.
    estimator : BBBRegressor or BBBClassifier
        Fitted to ``schema.encode`` and ``schema.target`` of a table.
    schema : Schema
        How a table becomes inputs and target.
    frame : DataFrame
        Rows with their target: those of the fit, or others. Its index tells where a row stands,
        and the index's name what that counts: lines, say.
    seed : int
        Of the draws and of the rows that are chosen.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        If there is no folder for the page, or one in its place.
    ValueError
        If estimator, schema and frame are not of one kind, or there are several targets.
    """
    target = Path(path).absolute()
    if not target.parent.is_dir():
        raise FileNotFoundError(f"`path` must lie in a folder that exists, got {str(path)!r}.")
    if target.is_dir():
        raise IsADirectoryError(f"`path` must be a file, got the folder {str(path)!r}.")
    write_whole(path, _html(Findings.of(estimator, schema, frame, seed)))


def _html(found: Findings) -> str:
    name = found.schema.target_name
    return page(
        title=f"{name} · pyrobbb report",
        heading=f"Predictions of {name}",
        lede=_lede(found),
        tiles=_tiles(found),
        sections=[
            sections.scores(found),
            sections.predictions(found),
            sections.columns(found),
            sections.doubt(found),
            sections.rows(found),
            model.diagnosis(found),
            model.training(found),
            model.fitted(found),
        ],
        footer=f"Written by pyrobbb {model.version_of('pyrobbb')}. This page needs no network.",
    )


def _lede(found: Findings) -> str:
    n = len(found.y)
    words = (
        f"A Bayesian neural network was fitted to predict {found.schema.target_name}, and to say "
        "how unsure it is. This page holds it against a table whose answers are known."
    )
    known = found.n_fitted
    if known is None:
        which = ""
    elif known == n:
        which = "The fit saw as many: if they are the same rows, expect somewhat worse of new ones."
    else:
        which = f"The fit saw {known:,} rows, so these are not just the rows that it was fitted to."
    told = Markup(
        f"<strong>Scores on the {n:,} rows given; on the rows it was fitted to they flatter."
        "</strong>"
    )
    return paragraph(words, kind="lede") + paragraph(told, which)


def _tiles(found: Findings) -> str:
    by_name = {own.name: own for own in found.scores}
    if found.is_classification:
        error = by_name["error"]
        tiles = [
            (
                share(1 - error.value, 1),
                f"of the rows are classified rightly; {share(1 - error.constant, 1)} if one always "
                "said the most frequent class",
            ),
            (
                share(by_name["ECE"].value, 1),
                "is how far probabilities are from what comes true, on average",
            ),
        ]
    else:
        held = by_name["90% intervals hold"].value
        tiles = [
            (
                share(by_name["R²"].value),
                f"of the variance of {found.schema.target_name} is explained by the predicted mean",
            ),
            (share(held), "of the rows lie in their 90% interval"),
        ]
    tiles.append(
        (share(found.doubt_share), "of the uncertainty is doubt, which more data could lift")
    )
    boxes = "".join(
        f'<div class="tile"><b>{text(b)}</b><span>{text(s)}</span></div>' for b, s in tiles
    )
    return f'<div class="tiles">{boxes}</div>'
