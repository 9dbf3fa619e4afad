"""What a report is made of, whichever language it is written in. All text is plain text."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias


@dataclass(frozen=True)
class Heading:
    """``level`` 2 opens a section, 3 a part of it."""

    text: str
    level: Literal[2, 3] = 2


@dataclass(frozen=True)
class Text:
    text: str
    kind: Literal["plain", "missing", "warning"] = "plain"


@dataclass(frozen=True)
class Command:
    """A command line to copy."""

    text: str


@dataclass(frozen=True)
class Bullets:
    items: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """Names with their values."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Cell:
    """``marks``: the letters of footnotes."""

    text: str
    best: bool = False
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """``group`` spans neighbours that share it."""

    name: str
    group: str = ""


@dataclass(frozen=True)
class Row:
    """One cell for each column; a ``part`` has one cell, which spans them all."""

    cells: tuple[Cell, ...]
    part: bool = False


@dataclass(frozen=True)
class Table:
    """The first column heads its rows. ``notes``: a letter and its text."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Figure:
    """``file`` lies beside the report."""

    file: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Gallery:
    """Small figures side by side."""

    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Details:
    """Folded away until it is asked for."""

    summary: str
    blocks: tuple["Block", ...]


Block: TypeAlias = Heading | Text | Command | Bullets | Facts | Table | Figure | Gallery | Details


@dataclass(frozen=True)
class Document:
    title: str
    blocks: tuple[Block, ...]


@dataclass
class Notes:
    """Footnotes of one table: one letter for one text."""

    texts: list[str] = field(default_factory=list)

    def mark(self, text: str) -> str:
        if text not in self.texts:
            self.texts.append(text)
        return _letter(self.texts.index(text))

    def listed(self) -> tuple[tuple[str, str], ...]:
        return tuple((_letter(n), text) for n, text in enumerate(self.texts))


def plain_row(*texts: str) -> Row:
    return Row(tuple(Cell(text) for text in texts))


def plain_columns(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name) for name in names)


def column_groups(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Neighbouring columns of one group, with how many they are."""
    groups: list[tuple[str, int]] = []
    for column in columns:
        if groups and column.group and groups[-1][0] == column.group:
            groups[-1] = (column.group, groups[-1][1] + 1)
        else:
            groups.append((column.group, 1))
    return groups


def _letter(number: int) -> str:
    high, low = divmod(number, 26)
    return (_letter(high - 1) if high else "") + chr(ord("a") + low)
