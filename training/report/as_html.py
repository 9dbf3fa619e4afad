"""A report as one HTML page: no script, nothing fetched, opens from disk."""

from collections.abc import Sequence
from functools import singledispatch
from html import escape
from importlib.resources import files

from .blocks import (
    Block,
    Bullets,
    Cell,
    Column,
    Command,
    Details,
    Document,
    Facts,
    Figure,
    Gallery,
    Heading,
    Row,
    Table,
    Text,
    column_groups,
)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header><h1>{title}</h1></header>
<nav aria-label="Contents"><ul>
{contents}
</ul></nav>
<main>
{body}
</main>
</body>
</html>
"""


def to_html(document: Document) -> str:
    """The whole page; every text of ``document`` is escaped."""
    headings = [b for b in document.blocks if isinstance(b, Heading) and b.level == 2]
    contents = (f'<li><a href="#{_anchor(h.text)}">{escape(h.text)}</a></li>' for h in headings)
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    return _PAGE.format(
        title=escape(document.title),
        style=style,
        contents="\n".join(contents),
        body=_all(document.blocks),
    )


def _all(blocks: Sequence[Block]) -> str:
    return "\n".join(_html(block) for block in blocks)


@singledispatch
def _html(block: Block) -> str:
    raise TypeError(f"no HTML for {type(block).__name__}")


@_html.register
def _(block: Heading) -> str:
    return f'<h{block.level} id="{_anchor(block.text)}">{escape(block.text)}</h{block.level}>'


@_html.register
def _(block: Text) -> str:
    return f'<p class="{block.kind}">{escape(block.text)}</p>'


@_html.register
def _(block: Command) -> str:
    return f"<pre><code>{escape(block.text)}</code></pre>"


@_html.register
def _(block: Bullets) -> str:
    items = "".join(f"<li>{escape(item)}</li>\n" for item in block.items)
    return f"<ul>\n{items}</ul>"


@_html.register
def _(block: Facts) -> str:
    pairs = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>\n"
        for name, value in block.pairs
    )
    return f"<dl>\n{pairs}</dl>"


@_html.register
def _(block: Details) -> str:
    summary = f"<summary>{escape(block.summary)}</summary>"
    return f"<details>{summary}\n{_all(block.blocks)}\n</details>"


@_html.register
def _(block: Figure) -> str:
    picture = f'<img src="{escape(block.file)}" alt="{escape(block.alt)}" loading="eager">'
    return f"<figure>{picture}<figcaption>{escape(block.caption)}</figcaption></figure>"


@_html.register
def _(block: Gallery) -> str:
    return f'<div class="gallery">{_all(block.figures)}</div>'


@_html.register
def _(block: Table) -> str:
    rows = "".join(_row(row, len(block.columns)) for row in block.rows)
    notes = "".join(f"<li><sup>{a}</sup> {escape(text)}</li>\n" for a, text in block.notes)
    return (
        '<div class="table"><div class="scroll" tabindex="0"><table>'
        f"<caption>{escape(block.caption)}</caption>\n"
        f"<thead>{_head(block.columns)}</thead>\n<tbody>\n{rows}</tbody></table></div>"
        + (f'\n<ul class="notes">\n{notes}</ul></div>' if notes else "</div>")
    )


def _head(columns: Sequence[Column]) -> str:
    names = "".join(f'<th scope="col">{escape(c.name)}</th>' for c in columns)
    if not any(column.group for column in columns):
        return f"<tr>{names}</tr>"
    groups = "".join(
        f'<th scope="colgroup" colspan="{span}">{escape(name)}</th>' if name else "<td></td>"
        for name, span in column_groups(columns)
    )
    return f'<tr class="groups">{groups}</tr>\n<tr>{names}</tr>'


def _row(row: Row, width: int) -> str:
    first, *rest = row.cells
    if row.part:
        return f'<tr class="part"><th colspan="{width}">{_cell(first)}</th></tr>\n'
    cells = "".join(f"<td>{_cell(cell)}</td>" for cell in rest)
    return f'<tr><th scope="row">{_cell(first)}</th>{cells}</tr>\n'


def _cell(cell: Cell) -> str:
    text = f"<strong>{escape(cell.text)}</strong>" if cell.best else escape(cell.text)
    return text + (f"<sup>{', '.join(cell.marks)}</sup>" if cell.marks else "")


def _anchor(text: str) -> str:
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in text)
    return "-".join(part for part in kept.lower().split("-") if part)
