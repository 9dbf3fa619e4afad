"""A report as GitHub's Markdown."""

import re
from collections.abc import Sequence
from functools import singledispatch

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
)

_SPECIAL = re.compile(r"([\\`*_\[\]|~#$])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def to_markdown(document: Document) -> str:
    """The whole text; what means something to Markdown or HTML is escaped."""
    return f"# {_plain(document.title)}\n\n{_all(document.blocks)}"


def _all(blocks: Sequence[Block]) -> str:
    return "\n".join(_markdown(block) for block in blocks)


@singledispatch
def _markdown(block: Block) -> str:
    raise TypeError(f"no Markdown for {type(block).__name__}")


@_markdown.register
def _(block: Heading) -> str:
    return f"{'#' * block.level} {_plain(block.text)}\n"


@_markdown.register
def _(block: Text) -> str:
    lead = {"plain": "", "missing": "> ", "warning": "> **Note:** "}[block.kind]
    return f"{lead}{_plain(block.text)}\n"


@_markdown.register
def _(block: Command) -> str:
    lines = "\n".join(f"    {line}" for line in block.text.splitlines())
    return f"{lines}\n"


@_markdown.register
def _(block: Bullets) -> str:
    return "".join(f"- {_plain(item)}\n" for item in block.items)


@_markdown.register
def _(block: Facts) -> str:
    return "".join(f"- **{_plain(name)}:** {_plain(value)}\n" for name, value in block.pairs)


@_markdown.register
def _(block: Details) -> str:
    summary = f"<summary>{_plain(block.summary)}</summary>"
    return f"<details>{summary}\n\n{_all(block.blocks)}\n</details>\n"


@_markdown.register
def _(block: Figure) -> str:
    return f"![{_plain(block.alt)}]({block.file})\n\n{_plain(block.caption)}\n"


@_markdown.register
def _(block: Gallery) -> str:
    return _all(block.figures)


@_markdown.register
def _(block: Table) -> str:
    head = _line([_column(column) for column in block.columns])
    rule = _line(["---", *("---:" for _ in block.columns[1:])])
    rows = "".join(_row(row, len(block.columns)) for row in block.rows)
    notes = "".join(f"- <sup>{mark}</sup> {_plain(text)}\n" for mark, text in block.notes)
    caption = f"**{_plain(block.caption)}**"
    return f"{caption}\n\n{head}{rule}{rows}" + (f"\n{notes}" if notes else "")


def _column(column: Column) -> str:
    return _plain(f"{column.group}: {column.name}" if column.group else column.name)


def _row(row: Row, width: int) -> str:
    if row.part:
        return _line([f"*{_cell(row.cells[0])}*", *([""] * (width - 1))])
    return _line([_cell(cell) for cell in row.cells])


def _cell(cell: Cell) -> str:
    text = f"**{_plain(cell.text)}**" if cell.best else _plain(cell.text)
    return text + (f"<sup>{', '.join(cell.marks)}</sup>" if cell.marks else "")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _plain(text: str) -> str:
    joined = " ".join(text.split())
    for letter, entity in _ENTITIES.items():
        joined = joined.replace(letter, entity)
    return _SPECIAL.sub(r"\\\1", joined)
