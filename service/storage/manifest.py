"""The list of files that makes a set of objects one thing: believed whole or not at all."""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from model.spec import sha256_of

from ..errors import DamagedArtifactError

VERSION: Final = 1
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class StoredFile:
    """``name``: what readers call it; its bytes lie under ``sha256``. ``size`` in bytes."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Files by name, in order."""

    files: tuple[StoredFile, ...] = ()

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def find(self, name: str) -> StoredFile | None:
        return next((file for file in self.files if file.name == name), None)

    def replaced(self, files: Iterable[StoredFile]) -> "Manifest":
        """With ``files`` instead of those of the same names."""
        merged = {file.name: file for file in (*self.files, *files)}
        return Manifest(tuple(merged[name] for name in sorted(merged)))

    def to_bytes(self) -> bytes:
        plain = {"version": VERSION, "files": [asdict(file) for file in self.files]}
        return json.dumps(plain).encode()


def describe(path: Path) -> StoredFile:
    """A local file as it will be listed."""
    return StoredFile(path.name, path.stat().st_size, sha256_of(path))


def parse(data: bytes) -> Manifest:
    """Raises ``DamagedArtifactError`` for anything that ``to_bytes`` did not make: its names
    become names of local files."""
    try:
        plain = json.loads(data)
        files = tuple(_file(line) for line in plain["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedArtifactError("a list of stored files cannot be read") from error
    return Manifest(files)


def damaged() -> DamagedArtifactError:
    return DamagedArtifactError("a stored file does not have the content it was stored with")


def _file(line: dict[str, Any]) -> StoredFile:
    file = StoredFile(str(line["name"]), int(line["size"]), str(line["sha256"]))
    if not NAME.fullmatch(file.name) or not SHA256.fullmatch(file.sha256) or file.size < 0:
        raise ValueError("no name, hash or size of ours")
    return file
