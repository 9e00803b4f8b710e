"""A report on a fit: one self-contained page of HTML."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from . import model_sections, prediction_sections
from .content import percentage
from .findings import Findings

if TYPE_CHECKING:
    import pandas as pd

    from ..tables.held_out import HeldOutScores
    from ..tables.schema import Schema


def write(
    path: str | os.PathLike[str],
    estimator: Any,
    schema: Schema,
    frame: pd.DataFrame,
    *,
    seed: int = 0,
    held_out: HeldOutScores | None = None,
) -> None:
    """Write a page on a fit, its predictions for a table, and their reliability.

    For large tables, expensive results are computed on a random sample of the rows, and the page
    states so.

    Parameters
    ----------
    path : path-like
        File for the page. An existing file is replaced once the new page is complete.
    estimator : BBBRegressor or BBBClassifier
        Fitted to ``schema.encode`` and ``schema.target`` of a table.
    schema : Schema
        How a table becomes inputs and target.
    frame : DataFrame
        Rows with their target: those of the fit, or others. Its index identifies the rows, and the
        name of the index is the header of these numbers, such as ``"line"``.
    seed : int
        Seed of the draws and of the sampled rows.
    held_out : scores of held-out rows, optional
        Such as those of `TableModel.held_out`, to be shown first.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        If the folder of the page does not exist, or `path` is a folder.
    ValueError
        If estimator, schema and frame do not match, or there are several targets.
    """
    target = Path(path).absolute()
    if not target.parent.is_dir():
        raise FileNotFoundError(f"`path` must lie in a folder that exists, got {str(path)!r}.")
    if target.is_dir():
        raise IsADirectoryError(f"`path` must be a file, got the folder {str(path)!r}.")
    _replace(target, render(Findings.of(estimator, schema, frame, seed, held_out)))


def render(findings: Findings) -> str:
    """Return the page as HTML. All text is escaped by the templates."""
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "is_classification": findings.is_classification,
        "n_rows": len(findings.y),
    }
    return environment.get_template("page.html").render(
        target=findings.schema.target_name,
        n_fitted=findings.n_fitted,
        has_held_out=findings.held_out is not None,
        tiles=_tiles(findings),
        sections=[
            prediction_sections.scores(findings),
            prediction_sections.predictions(findings),
            prediction_sections.columns(findings),
            prediction_sections.uncertainty(findings),
            prediction_sections.rows(findings),
            model_sections.diagnosis(findings),
            *model_sections.search(findings),
            model_sections.training(findings),
            model_sections.fitted(findings),
        ],
        version=model_sections.version_of("pyrobbb"),
    )


def _tiles(findings: Findings) -> list[dict[str, str]]:
    """Return the numbers at the top of the page."""
    by_key = {score.key: score.values for score in findings.scores}
    known: Mapping[str, float] = {} if findings.held_out is None else findings.held_out.model
    rows = "held-out rows" if known else "the rows"
    if findings.is_classification:
        error = by_key["error"]
        accuracy = 1 - known.get("error", error["model"])
        tiles = [
            (
                percentage(accuracy, 1),
                f"of {rows} are classified correctly; "
                f"{percentage(1 - error['constant'], 1)} by always predicting the most frequent "
                "class",
            ),
            (
                percentage(by_key["ece"]["model"], 1),
                "is the average difference between predicted probabilities and observed "
                "frequencies",
            ),
        ]
    else:
        tiles = [
            (
                percentage(known.get("R2", by_key["r2"]["model"])),
                f"of the variance of {findings.schema.target_name} is explained by the predicted "
                f"mean{', in held-out rows' if 'R2' in known else ''}",
            ),
            (
                percentage(known.get("90 % coverage", by_key["coverage_90"]["model"])),
                f"of {rows} lie in their 90% interval",
            ),
        ]
    tiles.append(
        (
            percentage(findings.epistemic_share),
            "of the uncertainty is epistemic, which more data would reduce",
        )
    )
    return [{"value": value, "meaning": meaning} for value, meaning in tiles]


def _replace(target: Path, html: str) -> None:
    """Write a file atomically: complete, or not at all."""
    scratch = target.with_name(f".{target.name}-{secrets.token_hex(8)}")
    try:
        # Names may hold lone surrogates, which cannot be encoded.
        scratch.write_bytes(html.encode("utf-8", "replace"))
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)
