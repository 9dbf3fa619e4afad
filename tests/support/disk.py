"""A small file system of its own, which a test fills until nothing more can be written."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

MIB = 1024**2
PAGE = 4096
INODES = 8192  # tmpfs counts every link as one


@dataclass(frozen=True)
class SmallDisk:
    """``folder`` is the mounted file system's root."""

    folder: Path

    @property
    def free_bytes(self) -> int:
        return shutil.disk_usage(self.folder).free

    def fill(self, leave_bytes: int = 0) -> None:
        """Take what is free but for so many bytes; more and more when called again."""
        surplus = self.free_bytes - leave_bytes
        if surplus < PAGE:
            return
        with self._ballast.open("ab") as stream:
            try:
                os.posix_fallocate(stream.fileno(), stream.tell(), surplus // PAGE * PAGE)
            except OSError:  # somebody else was quicker with a part of it
                return

    def fill_names(self) -> None:
        """Take every name that the file system can still give: no file, folder or link more."""
        self._names.mkdir(exist_ok=True)
        with suppress(OSError):
            while True:
                (self._names / uuid.uuid4().hex).touch()

    def free(self) -> None:
        """Give everything back."""
        self._ballast.unlink(missing_ok=True)
        shutil.rmtree(self._names, ignore_errors=True)

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    @property
    def _names(self) -> Path:
        return self.folder / "names"


def can_mount() -> bool:
    """Whether this process may mount a file system: root outside of a locked-down container."""
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff"))
    return bool(int(effective.split()[1], 16) >> 21 & 1)  # CAP_SYS_ADMIN


@contextmanager
def small_disk(folder: Path, size_bytes: int = 64 * MIB) -> Iterator[SmallDisk]:
    """In memory; gone at the end of the block, whoever still has files open there."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={size_bytes},nr_inodes={INODES},mode=700", "tmpfs"]
    subprocess.run(["mount", *options, folder], check=True, capture_output=True)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, capture_output=True)
