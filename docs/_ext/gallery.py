"""Sphinx extension: the small pictures of the gallery get alternative text."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

THUMBNAIL = re.compile(r'<img alt="" (?=src="[^"]*/sphx_glr_(?:plot|task)_(\w+)_thumb)')


def describe_thumbnails(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Name the pictures of the overview after their scripts."""
    if page == "gallery/index":
        context["body"] = THUMBNAIL.sub(
            lambda match: f'<img alt="Picture: {match[1].replace("_", " ")}" ', context["body"]
        )


def setup(app: Sphinx) -> dict[str, bool]:
    """Edit the overview before it is written."""
    app.connect("html-page-context", describe_thumbnails)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
