"""Public data sets in the layout in which they are downloaded, one file each.

An adaptor is ``find(folder) -> list[Record]``: it looks at names only; voxels are read when a
record is loaded. ``SOURCES`` lists them by the name that ``aqcf-train prepare`` takes.
"""

from collections.abc import Callable
from pathlib import Path

from model.errors import ConfigError

from . import atlas, chaos, ircadb, lits, liverhccseg, msd
from .checks import Facts, check_case
from .duplicates import Duplicate, Entry, find_duplicates
from .record import Labelled, Record

SOURCES: dict[str, Callable[[Path], list[Record]]] = {
    "lits": lits.find,
    "msd": msd.find,
    "atlas": atlas.find,
    "ircadb": ircadb.find,
    "liverhccseg": liverhccseg.find,
    "chaos": chaos.find,
}

__all__ = [
    "SOURCES",
    "Duplicate",
    "Entry",
    "Facts",
    "Labelled",
    "Record",
    "check_case",
    "find_duplicates",
    "find_records",
]


def find_records(source: str, folder: Path) -> list[Record]:
    """The cases of ``source`` below ``folder``, by name.

    Raises ``ConfigError`` for an unknown source, a missing folder, and one that holds no case.
    """
    if source not in SOURCES:
        raise ConfigError(f"source {source!r}: choose one of {', '.join(SOURCES)}")
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; give the unpacked download of {source}")
    records = sorted(SOURCES[source](folder), key=lambda record: record.name)
    if not records:
        layout = (SOURCES[source].__doc__ or "").partition("\n")[0]
        raise ConfigError(f"{folder} holds no case of {source}. Looked for: {layout}")
    return records
