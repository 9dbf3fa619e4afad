"""The artifact store as a folder: on this machine, or on a share of several.

``inputs/<content hash>/`` holds the chosen series or NIfTI file of one or more jobs,
``jobs/<job id>/`` the results. Everything arrives by write, fsync, rename, so that a kill at any
moment leaves either the whole file or none. ``incoming/`` takes what comes from another disk.
"""

import errno
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from model.spec import sha256_of

from ..domain import Artifact, ArtifactName
from .store import KEY, ArtifactStore, checked, no_artifact, no_input, sync, sync_all, sync_tree

LEFT_AFTER_S: Final = 86400.0
THERE: Final = (errno.ENOTEMPTY, errno.EEXIST)


class FolderStore(ArtifactStore):
    """Results and inputs below ``root``, which several hosts may share."""

    def __init__(self, root: Path, staging: Path) -> None:
        super().__init__(staging)
        self.root = root
        for folder in (root / "inputs", root / "jobs"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def place_input(self, staged: Path, key: str) -> None:
        target = self.input_folder(key)
        if target.is_dir():
            return
        try:
            _rename_unless_there(staged, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with self._copied(staged) as copy:
                _rename_unless_there(copy, target)
        sync(target.parent)

    def input_folder(self, key: str) -> Path:
        return self.root / "inputs" / checked(key)

    def input_files(self, key: str) -> tuple[Path, ...]:
        files = tuple(sorted(self.input_folder(key).glob("*")))
        if not files:
            raise no_input()
        return files

    def put(self, job_id: str, folder: Path) -> tuple[Artifact, ...]:
        target = self._job_folder(job_id)
        target.mkdir(exist_ok=True, mode=0o700)
        made = {name: folder / name.value for name in ArtifactName}
        files = {name: file for name, file in made.items() if file.is_file()}
        sync_all(files.values())
        artifacts = tuple(
            Artifact(name, file.stat().st_size, sha256_of(file)) for name, file in files.items()
        )
        for name, file in files.items():
            self._replace(file, target / name.value)
        sync(target)
        return artifacts

    def path(self, job_id: str, name: ArtifactName) -> Path:
        file = self._job_folder(job_id) / name.value
        if not file.is_file():
            raise no_artifact(name)
        return file

    def delete(self, job_id: str) -> None:
        shutil.rmtree(self._job_folder(job_id), ignore_errors=True)

    def delete_input(self, key: str) -> None:
        shutil.rmtree(self.input_folder(key), ignore_errors=True)

    def input_keys(self) -> tuple[str, ...]:
        return _keys_in(self.root / "inputs")

    def job_ids(self) -> tuple[str, ...]:
        return _keys_in(self.root / "jobs")

    def free_bytes(self) -> int:
        return min(shutil.disk_usage(place).free for place in (self.root, self.staging))

    def purge_helps(self, watermark: int) -> bool:
        return shutil.disk_usage(self.root).free < watermark

    def ping(self) -> None:
        next((self.root / "inputs").iterdir(), None)

    def tidy(self) -> None:
        """Remove what killed processes left half copied."""
        for left in self._incoming().iterdir():
            if time.time() - left.stat().st_mtime > LEFT_AFTER_S:
                shutil.rmtree(left, ignore_errors=True)

    def _replace(self, file: Path, target: Path) -> None:
        try:
            file.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with self._copied(file) as copy:
                copy.replace(target)

    @contextmanager
    def _copied(self, source: Path) -> Iterator[Path]:
        """A synced copy of a file or folder on the disk of ``root``; gone afterwards unless it was
        renamed."""
        holder = self._incoming() / uuid.uuid4().hex
        holder.mkdir(mode=0o700)
        copy = holder / "copy"
        try:
            if source.is_dir():
                shutil.copytree(source, copy)
                sync_tree(copy)
            else:
                shutil.copyfile(source, copy)
                sync(copy)
            yield copy
        finally:
            shutil.rmtree(holder, ignore_errors=True)

    def _incoming(self) -> Path:
        folder = self.root / "incoming"
        folder.mkdir(exist_ok=True, mode=0o700)
        return folder

    def _job_folder(self, job_id: str) -> Path:
        return self.root / "jobs" / checked(job_id)


def _rename_unless_there(source: Path, target: Path) -> None:
    """Another host may place the same content at the same moment: it is the same."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno not in THERE:
            raise


def _keys_in(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(found.name for found in folder.iterdir() if KEY.fullmatch(found.name)))
