"""Pieces of a page. Whatever comes in as text is text: ``Markup.format`` escapes it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

from markupsafe import Markup

Cell = str | Markup


def table(header: Sequence[Cell], rows: Iterable[Sequence[Cell]], *, style: str = "") -> Markup:
    """Write a table."""
    head = _row("th", header)
    body = Markup("").join(_row("td", row) for row in rows)
    return Markup('<table class="{}"><thead>{}</thead><tbody>{}</tbody></table>').format(style, head, body)


def facts(pairs: Iterable[tuple[Cell, Cell]]) -> Markup:
    """Write a list of names and what they are."""
    rows = Markup("").join(Markup("<tr><th>{}</th><td>{}</td></tr>").format(*pair) for pair in pairs)
    return Markup('<table class="facts"><tbody>{}</tbody></table>').format(rows)


def paragraph(text: Cell, style: str = "") -> Markup:
    """Write a paragraph."""
    return Markup('<p class="{}">{}</p>').format(style, text) if style else Markup("<p>{}</p>").format(text)


def bullets(items: Iterable[Cell]) -> Markup:
    """Write a list; nothing where there is nothing to list."""
    inner = Markup("").join(Markup("<li>{}</li>").format(one) for one in items)
    return Markup("<ul>{}</ul>").format(inner) if inner else Markup("")


def heading(text: Cell) -> Markup:
    """Write a heading inside a section."""
    return Markup("<h3>{}</h3>").format(text)


def section(number: int, title: Cell, content: Markup) -> Markup:
    """Write a numbered section."""
    return Markup('<section id="s{}"><h2>{}&ensp;{}</h2>{}</section>').format(number, number, title, content)


def picture(png: bytes, alt: str) -> Markup:
    """Write a picture that is part of the page."""
    data = base64.b64encode(png).decode()
    return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(alt, data)


def stacked(text: str) -> Markup:
    """Put what stands in brackets on a line of its own, small; neither line is broken."""
    value, _, rest = text.partition(" (")
    below = Markup("<br><small>{}</small>").format(rest.removesuffix(")")) if rest else ""
    return Markup('<span class="figure">{}{}</span>').format(value, below)


def _row(tag: str, cells: Sequence[Cell]) -> Markup:
    inner = Markup("").join(Markup("<{}>{}</{}>").format(tag, one, tag) for one in cells)
    return Markup("<tr>{}</tr>").format(inner)
