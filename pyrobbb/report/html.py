"""The pieces of a page: tables, figures and numbers. Whatever is text here is escaped here."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

LONGEST_CELL = 80
MINUS, UNKNOWN = "\u2212", "\u2013"


@dataclass(frozen=True)
class Markup:
    """Text that is HTML already."""

    html: str


@dataclass(frozen=True)
class Cell:
    """A cell of a table, with a class of the style sheet."""

    content: Any
    kind: str = ""
    style: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading, which the contents name."""

    anchor: str
    title: str
    html: str


def text(value: Any) -> str:
    """Give HTML for a value."""
    if isinstance(value, Markup):
        return value.html
    return escape(str(value))


def paragraph(*sentences: Any, kind: str = "") -> str:
    """Give a paragraph."""
    words = " ".join(text(own) for own in sentences if own)
    return f"<p{_attribute('class', kind)}>{words}</p>\n" if words else ""


def table(heads: Sequence[Any], rows: Iterable[Sequence[Any]], kind: str = "") -> str:
    """Give a table; on a narrow screen, the cells of a row stand below each other.

    Parameters
    ----------
    heads : sequence
        Strings or cells; empty for a table without a head.
    rows : iterable of sequences
        Values or cells, as many as heads. Those without a kind have the kind of their head.
    kind : str
        Classes of the style sheet.
    """
    columns = [own if isinstance(own, Cell) else Cell(own) for own in heads]
    html = [f'<div class="scroll"><table class="{f"stacked {kind}".strip()}">']
    if any(column.content for column in columns):
        head = "".join(
            f'<th scope="col"{_attribute("class", own.kind)}>{text(own.content)}</th>'
            for own in columns
        )
        html.append(f"<thead><tr>{head}</tr></thead>")
    html.append("<tbody>")
    for row in rows:
        cells = []
        for column, value in zip(columns, row, strict=True):
            cell = value if isinstance(value, Cell) else Cell(value)
            kinds = _attribute("class", cell.kind or column.kind)
            label = f' data-label="{escape(str(column.content))}"'
            style = _attribute("style", cell.style)
            cells.append(f"<td{kinds}{label}{style}>{text(cell.content)}</td>")
        html.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([*html, "</tbody></table></div>\n"])


def figure(svg: str, title: str, caption: str) -> str:
    """Give a picture with its title and how to read it."""
    stop = "" if title.endswith("?") else "."
    named = svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
    return (
        f"<figure>\n{named}\n<figcaption><b>{escape(title + stop)}</b> {escape(caption)}"
        "</figcaption>\n</figure>\n"
    )


def bullets(sentences: Iterable[Any]) -> str:
    """Give a list."""
    items = "".join(f"<li>{text(own)}</li>" for own in sentences)
    return f"<ul>{items}</ul>\n" if items else ""


def number(value: float) -> str:
    """Give a number to four digits; whole ones in groups of three."""
    value = float(value)
    if not math.isfinite(value):
        return UNKNOWN
    plain = f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.4g}"
    return plain.replace("-", MINUS)


def aligned(values: Collection[float]) -> list[str]:
    """Give numbers with the same decimals: four digits of the largest."""
    largest = max((abs(float(own)) for own in values if math.isfinite(own)), default=0.0)
    if not 1e-4 <= largest < 1e12:
        return [number(own) for own in values]
    decimals = max(3 - math.floor(math.log10(largest)), 0)
    return [
        f"{float(own):,.{decimals}f}".replace("-", MINUS) if math.isfinite(own) else UNKNOWN
        for own in values
    ]


def share(value: float, digits: int = 0) -> str:
    """Give a percentage."""
    return f"{100 * float(value):.{digits}f}%" if math.isfinite(value) else UNKNOWN


def cell(value: Any) -> str:
    """Give a cell of somebody's table, not too long."""
    words = "" if value is None else str(value)
    if words in ("", "nan", "NaT", "<NA>"):
        return "(missing)"
    return words if len(words) <= LONGEST_CELL else f"{words[: LONGEST_CELL - 1]}…"


def page(
    *, title: str, heading: str, lede: str, tiles: str, sections: Sequence[Section], footer: str
) -> str:
    """Put the page together; all but title, heading and footer is HTML."""
    contents = " ".join(f'<a href="#{own.anchor}">{escape(own.title)}</a>' for own in sections)
    bodies = "".join(
        f'<section id="{own.anchor}">\n<h2>{escape(own.title)}</h2>\n{own.html}</section>\n'
        for own in sections
    )
    template = files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=escape(title),
        heading=escape(heading),
        lede=lede,
        tiles=tiles,
        contents=contents,
        sections=bodies,
        footer=escape(footer),
    )


def write_whole(path: str | os.PathLike[str], html: str) -> None:
    """Write a file that appears when it is complete, or not at all."""
    target = Path(path).absolute()
    scratch = target.with_name(f".{target.name}-{secrets.token_hex(8)}")
    try:
        # Names may hold halves of characters, which no encoding has.
        scratch.write_bytes(html.encode("utf-8", "replace"))
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)


def _attribute(name: str, value: str) -> str:
    return f' {name}="{escape(value)}"' if value else ""
