"""Sphinx extension: formulas as MathML, which browsers show without scripts or network."""

from __future__ import annotations

import re
import unicodedata
import xml.etree.ElementTree as ET
from contextlib import suppress
from itertools import pairwise

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

STYLED = re.compile(r'<mi mathvariant="(double-struck|script)">([A-Z])</mi>')
NAMED = re.compile(r"<mo>([a-z]{2,})</mo>")  # by \operatorname
NAMESPACE = "http://www.w3.org/1998/Math/MathML"
ET.register_namespace("", NAMESPACE)


def as_mathml(formula: str, display: str = "inline") -> str:
    """Return a formula of LaTeX as MathML.

    Browsers have dropped the attribute for double-struck and script letters: these are characters.
    """
    markup = STYLED.sub(
        lambda m: f"<mi>{styled(m[1], m[2])}</mi>", convert(formula, display=display)
    )
    markup = markup.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")  # \sim
    tree = ET.fromstring(NAMED.sub(r"<mi>\1</mi>", markup))
    for row in list(tree.iter(f"{{{NAMESPACE}}}mrow")):
        add_thin_spaces(row)
    return ET.tostring(tree, encoding="unicode", short_empty_elements=False)


def add_thin_spaces(row: ET.Element) -> None:
    """Add the spaces that TeX has around log and other functions, unless a parenthesis follows."""
    children = list(row)
    for left, right in list(pairwise(children)):
        is_function = is_function_name(left) or is_function_name(right)
        if is_function and not left.tag.endswith("}mo") and not right.tag.endswith("}mo"):
            space = ET.Element(f"{{{NAMESPACE}}}mspace", width="0.167em")
            row.insert(list(row).index(right), space)


def is_function_name(element: ET.Element) -> bool:
    """Return whether an element is a name of several letters, such as log."""
    text = element.text or ""
    return element.tag.endswith("}mi") and len(text) > 1 and text.isascii() and text.isalpha()


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
