"""Sphinx extension: docstrings become valid reST, and get the example of their object.

The examples are those of ``_examples``, which the tests run.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

STARRED = re.compile(r"(?<=[(, ])\*(?=[a-z])")  # as in "Tensor of shape (*batch, n)"
PAGE = re.compile(r"\bdocs/((?:[a-z-]+/)?[a-z-]+)\.md\b")


def edit_lines(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape the stars of shapes, which would begin an emphasis, and link the pages named."""
    lines[:] = [STARRED.sub(r"\\*", line) if " of shape (" in line else line for line in lines]
    lines[:] = [PAGE.sub(r":doc:`/\1`", line) for line in lines]


def add_example(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Append the example of a public object to its docstring, before its methods."""
    code = app.config.autosummary_context["examples"].get(name)
    if code is not None:
        lines += ["", ".. rubric:: Example", "", ".. code-block:: python", ""]
        lines += [f"   {line}" for line in code.splitlines()] + [""]


def setup(app: Sphinx) -> dict[str, bool]:
    """Edit docstrings before numpydoc does, and add examples after it."""
    app.connect("autodoc-process-docstring", edit_lines, priority=400)
    app.connect("autodoc-process-docstring", add_example, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
