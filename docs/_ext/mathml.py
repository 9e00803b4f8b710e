"""Sphinx extension: formulas as MathML, which browsers show without scripts or network."""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

STYLED = re.compile(r'<mi mathvariant="(double-struck|script)">([A-Z])</mi>')


def as_mathml(formula: str, display: str = "inline") -> str:
    """Return a formula of LaTeX as MathML.

    Browsers have dropped the attribute for double-struck and script letters: these are characters.
    """
    return STYLED.sub(lambda m: f"<mi>{styled(m[1], m[2])}</mi>", convert(formula, display=display))


def styled(style: str, letter: str) -> str:
    """Return a letter in a mathematical style; some are outside of the block of the others."""
    for prefix in ("MATHEMATICAL ", ""):
        with suppress(KeyError):
            return unicodedata.lookup(f"{prefix}{style.upper()} CAPITAL {letter}")
    return letter


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    """Write a formula within a line."""
    self.body.append(as_mathml(node.astext()))
    raise nodes.SkipNode


def visit_math_block(self: HTML5Translator, node: nodes.math_block) -> None:
    """Write a displayed formula, with its number if it has one."""
    self.body.append(self.starttag(node, "div", CLASS="formula"))
    self.body.append(as_mathml(node.astext(), display="block"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({node["number"]})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer, which `html_math_renderer` names."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
