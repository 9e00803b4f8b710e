"""Sphinx extension: what a search finds.

A public name finds its page, or the build has a warning. The words by which people ask find the
guide that answers.
"""

from __future__ import annotations

import json
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.logging import getLogger

logger = getLogger(__name__)
PAGES = "reference/api/generated/"
"""Pages of the public names, which are called after them."""
WORDS = {
    "explanation/mean-field": "collapse, constant predictions, underfitting",
    "how-to/callbacks": "early stopping, TensorBoard, MLflow, progress",
    "how-to/command-line": "csv, tsv, parquet, command line",
    "how-to/estimators": "scikit-learn, sklearn, pandas, polars, classification, regression",
    "how-to/gpu": "GPU, CUDA, bfloat16, precision",
    "how-to/intervals": "interval, prediction interval, credible interval, confidence interval",
    "how-to/kl-weight": "KL weight, kl_weight, beta, tempering, cold posterior",
    "how-to/labels": "active learning, labels, BALD, BatchBALD, EPIG",
    "how-to/last-layer": "last layer, head, Bayesian head, pretrained network, transfer learning",
    "how-to/resume": "crash, resume, checkpoint, interrupted fit",
    "how-to/r": "R, reticulate",
    "how-to/serve": "save, load, serve, deployment, pickle",
    "how-to/uncertainty": "epistemic, aleatoric, out of distribution, OOD, uncertainty",
    "reference/citing": "cite, citation, BibTeX",
}
"""Words for which the index has an entry, by page."""


def add_words(app: Sphinx, page: str, source: list[str]) -> None:
    """Add index entries below the title of a page."""
    if page in WORDS:
        title, _, rest = source[0].partition("\n")
        entries = ", ".join(f"! {word}" for word in WORDS[page].split(", "))  # main entries
        source[0] = f"{title}\n\n```{{index}} {entries}\n```\n{rest}"


def read_objects(path: Path) -> set[tuple[str, str]]:
    """Return the page and the full name of each Python object in a search index."""
    text = path.read_text(encoding="utf-8")
    index = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    return {
        (index["docnames"][page], f"{module}.{name}")
        for module, objects in index["objects"].items()
        for page, _, _, _, name in objects
    }


def check_names(app: Sphinx, error: Exception | None) -> None:
    """Warn of each public name that the search of the written site does not know."""
    if error is not None or app.builder.name != "html":
        return
    objects = read_objects(Path(app.outdir, "searchindex.js"))
    for page in sorted(app.env.found_docs):
        if page.startswith(PAGES) and (page, page.removeprefix(PAGES)) not in objects:
            logger.warning("a search for %s does not find its page", page.removeprefix(PAGES))


def setup(app: Sphinx) -> dict[str, bool]:
    """Add words when a page is read, and check the index when the site has been written."""
    app.connect("source-read", add_words)
    app.connect("build-finished", check_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
