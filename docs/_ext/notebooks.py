"""Sphinx extension: the notebooks of the repository become pages of the tutorials.

They are copied into the source tree without their stored outputs, except for those that take too
long, so that a page shows what this build has computed. A quick build, whose outputs do not show
what the text describes, adds a warning below the title. A copy is written only if it differs, which
keeps incremental builds fast. Those that have changed are executed before Sphinx reads any page,
one on each core: Sphinx itself would read neighbouring pages, such as these, one after another.
"""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

from jupyter_cache import get_cache
from jupyter_cache.executors import load_executor
from sphinx.application import Sphinx

STORED = {"03-vi-against-nuts.ipynb"}
"""Notebooks that take longer than the whole build: their pages show the stored outputs."""
LINKS = "](../docs/", "](../"
"""Beginning of a link to a page, from a notebook in the repository and from its copy."""
QUICK_WARNING = """
:::{warning}
This page is from a quick build (`make docs QUICK=1`), in which fits take only a few steps: outputs
and figures differ from what the text describes. `make docs` computes the real ones.
:::
"""


def copy_notebooks(source: Path, target: Path, *, is_quick: bool) -> None:
    """Copy all notebooks of a folder without outputs, and remove copies of others.

    Parameters
    ----------
    source, target : Path
    is_quick : bool
        Whether the notebooks will be executed with few steps.
    """
    names = {path.name for path in source.glob("*.ipynb")}
    for stale in target.glob("*.ipynb"):
        if stale.name not in names:
            stale.unlink()
    for name in names:
        notebook = json.loads((source / name).read_text(encoding="utf-8"))
        if is_quick and name not in STORED:
            add_quick_warning(notebook["cells"][0])
        heading = ""
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                heading = last_heading(cell["source"]) or heading
                cell["source"] = [line.replace(*LINKS) for line in cell["source"]]
            elif name not in STORED:
                cell["outputs"], cell["execution_count"] = [], None
            if cell["cell_type"] == "code":
                is_answer = "hide-cell" in cell["metadata"].get("tags", ())
                cell["metadata"]["mystnb"] = {
                    "image": {"alt": f"Figure: {heading}"},
                    "code_prompt_show": "Show the answer" if is_answer else "Show the settings",
                    "code_prompt_hide": "Hide the answer" if is_answer else "Hide the settings",
                }
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        copy = target / name
        if not copy.exists() or copy.read_text(encoding="utf-8") != text:
            copy.write_text(text, encoding="utf-8")


def add_quick_warning(cell: dict[str, Any]) -> None:
    """Insert the warning below the title, which is the first line of the first cell."""
    title, *rest = "".join(cell["source"]).splitlines(keepends=True)
    cell["source"] = [title.rstrip() + "\n", *QUICK_WARNING.splitlines(keepends=True), *rest]


def last_heading(source: list[str]) -> str:
    """Return the text of the last heading of a cell; empty if it has none."""
    headings = re.findall(r"^#+ (?:\d+\. )?(.+)$", "".join(source), re.MULTILINE)
    return re.sub(r"[$\\]", "", headings[-1]) if headings else ""


def execute_notebooks(app: Sphinx) -> None:
    """Execute the notebooks that are not in the cache, from which myst-nb then takes the outputs.

    It executes again, and reports, one that has failed.
    """
    cache = get_cache(app.config.nb_execution_cache_path)
    paths = sorted(Path(app.srcdir, "tutorials").glob("*.ipynb"))
    uris = [str(path) for path in paths if path.name not in STORED]
    for uri in uris:
        cache.add_nb_to_project(uri)
    logger = logging.getLogger("jupyter_cache")
    logger.setLevel(logging.WARNING)  # also that of the processes, which would log their ends
    executor = load_executor("local-parallel", cache, logger)
    executor.run_and_cache(filter_uris=uris, timeout=app.config.nb_execution_timeout)


def setup(app: Sphinx) -> dict[str, bool]:
    """Copy the notebooks before Sphinx looks for pages."""
    docs = Path(app.srcdir)
    is_quick = bool(os.environ.get("PYROBBB_QUICK"))
    copy_notebooks(docs.parent / "notebooks", docs / "tutorials", is_quick=is_quick)
    app.connect("builder-inited", execute_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
