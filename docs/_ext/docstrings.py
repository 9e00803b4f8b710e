"""Sphinx extension: docstrings that are plain text for readers of the source become valid reST."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

STARRED = re.compile(r"(?<=[(, ])\*(?=[a-z])")  # as in "Tensor of shape (*batch, n)"
PAGE = re.compile(r"\bdocs/([a-z]+)\.md\b")


def edit_lines(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape the stars of shapes, which would begin an emphasis, and link the pages named."""
    lines[:] = [STARRED.sub(r"\\*", line) if " of shape (" in line else line for line in lines]
    lines[:] = [PAGE.sub(r":doc:`/\1`", line) for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    """Edit docstrings before numpydoc does."""
    app.connect("autodoc-process-docstring", edit_lines, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
