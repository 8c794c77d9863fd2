"""The one page maker: plain results in, one self-contained HTML page out.

No script, no external font, image or style: the page works offline, from a mail, on paper, and in dark and light.
Packages below return plain results and never HTML.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template

from hushrec_cli.output import Cell, person_cell
from hushrec_cli.plots import Bars, Lines, svg

__all__ = ["Section", "Table", "render_page"]


@dataclass(frozen=True)
class Table:
    """Rows under named columns; numbers are aligned to the right.

    Attributes:
        columns: Names of the columns.
        rows: One value a column in each row.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Section:
    """One part of a page.

    Attributes:
        heading: Its title.
        text: Paragraphs in plain text.
        blocks: Tables and plots, in order.
    """

    heading: str
    text: tuple[str, ...] = ()
    blocks: tuple[Table | Bars | Lines, ...] = ()


def render_page(title: str, sections: Sequence[Section]) -> str:
    """Make the page.

    Args:
        title: Shown in the browser's tab and on top.
        sections: The parts, in order. Every text is escaped; none is read as HTML.

    >>> page = render_page("Sizes <now>", [Section("Steps", ("All.",), (Table(("step", "bytes"), (("int8", 310),)),))])
    >>> "<h1>Sizes &lt;now&gt;</h1>" in page, "<td class=n>310</td>" in page
    (True, True)
    """
    body = "\n".join(_section(section) for section in sections)
    template = Template(files("hushrec_cli").joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(title), body=body)


def _section(section: Section) -> str:
    paragraphs = "".join(f"<p>{escape(text)}</p>\n" for text in section.text)
    blocks = "\n".join(_table(block) if isinstance(block, Table) else _figure(block) for block in section.blocks)
    return f"<section>\n<h2>{escape(section.heading)}</h2>\n{paragraphs}{blocks}\n</section>"


def _table(table: Table) -> str:
    numeric = [any(isinstance(row[i], (int, float)) for row in table.rows) for i in range(len(table.columns))]
    kinds = [" class=n" if flag else "" for flag in numeric]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for name, kind in zip(table.columns, kinds, strict=True))
    rows = (
        "".join(f"<td{kind}>{escape(person_cell(cell))}</td>" for cell, kind in zip(row, kinds, strict=True))
        for row in table.rows
    )
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _figure(plot: Bars | Lines) -> str:
    return f"<figure>\n<figcaption>{escape(plot.title)}</figcaption>\n{svg(plot)}\n</figure>"
