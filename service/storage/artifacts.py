"""The artifact store: one folder, files named by job id or content hash, never by a patient.

``inputs/<content hash>/`` holds the chosen series or NIfTI file of one or more jobs,
``jobs/<job id>/`` the results. Everything arrives by write, fsync, rename, so that a kill at any
moment leaves either the whole file or none.
"""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from model.spec import sha256_of

from ..domain import Artifact, ArtifactName
from ..errors import NotFoundError, StorageFullError

KEY = re.compile(r"[0-9a-f-]{32,64}")


@contextmanager
def full_disk_told() -> Iterator[None]:
    """A write that finds the disk full becomes ``StorageFullError``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFullError("the disk is full; try again later") from error
        raise


class ArtifactStore:
    """Results and inputs in a folder. ``staging``: a folder on its disk for unfinished work."""

    def __init__(self, root: Path, staging: Path) -> None:
        self.root = root
        self.staging = staging
        for folder in (root / "inputs", root / "jobs", staging):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """An empty private folder on the store's disk, removed afterwards."""
        folder = self.staging / uuid.uuid4().hex
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def staged_input(self, files: Iterable[Path], suffix: str) -> Iterator[Path]:
        """Copies of ``files`` as ``000001<suffix>``, ..., synced, for ``place_input``; removed
        afterwards when they were not placed. A file that lies in ``staging`` is moved instead."""
        with self.workspace() as folder:
            for number, file in enumerate(files, start=1):
                self._take(file, folder / f"{number:06d}{suffix}")
            _sync_tree(folder)
            yield folder

    def place_input(self, staged: Path, key: str) -> None:
        """Make a staged input the input of this content hash; a no-op when it is there already."""
        target = self.input_folder(key)
        if not target.is_dir():
            staged.rename(target)
            _sync(target.parent)

    def input_folder(self, key: str) -> Path:
        return self.root / "inputs" / _checked(key)

    def input_files(self, key: str) -> tuple[Path, ...]:
        """The stored input; raises ``NotFoundError`` (``input_not_found``) when it was purged."""
        files = tuple(sorted(self.input_folder(key).glob("*")))
        if not files:
            raise NotFoundError("the job's input is no longer stored", code="input_not_found")
        return files

    def put(self, job_id: str, folder: Path) -> tuple[Artifact, ...]:
        """Take the result files of ``folder`` (named as ``ArtifactName``) for a job, replacing
        what an earlier attempt left."""
        target = self._job_folder(job_id)
        target.mkdir(exist_ok=True, mode=0o700)
        artifacts = []
        for name in ArtifactName:
            if (file := folder / name.value).is_file():
                artifacts.append(Artifact(name, file.stat().st_size, sha256_of(file)))
                _sync(file)
                file.replace(target / name.value)
        _sync(target)
        return tuple(artifacts)

    def path(self, job_id: str, name: ArtifactName) -> Path:
        """Where a result lies; raises ``NotFoundError`` (``artifact_not_found``)."""
        file = self._job_folder(job_id) / name.value
        if not file.is_file():
            raise NotFoundError(f"this job has no {name.value}", code="artifact_not_found")
        return file

    def delete(self, job_id: str) -> None:
        shutil.rmtree(self._job_folder(job_id), ignore_errors=True)

    def delete_input(self, key: str) -> None:
        shutil.rmtree(self.input_folder(key), ignore_errors=True)

    def input_keys(self) -> tuple[str, ...]:
        return _keys_in(self.root / "inputs")

    def job_ids(self) -> tuple[str, ...]:
        """Jobs with results here, whether the ledger still knows them or not."""
        return _keys_in(self.root / "jobs")

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.root).free

    def require_room(self, min_free_bytes: int, incoming_bytes: int = 0) -> None:
        """Raise ``StorageFullError`` when less than ``min_free_bytes`` would stay free."""
        free = self.free_bytes()
        if free - incoming_bytes < min_free_bytes:
            raise StorageFullError(
                f"{free // 1024**2} MiB are free and {min_free_bytes // 1024**2} MiB have to stay "
                "free; delete finished segmentations or try again later"
            )

    def clear_staging(self) -> None:
        """Remove what a killed process left; only while no other process uses the store."""
        for left in self.staging.iterdir():
            shutil.rmtree(left, ignore_errors=True)

    def _take(self, file: Path, target: Path) -> None:
        if file.resolve().is_relative_to(self.staging.resolve()):
            file.rename(target)
        else:
            shutil.copyfile(file, target)

    def _job_folder(self, job_id: str) -> Path:
        return self.root / "jobs" / _checked(job_id)


def _keys_in(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(found.name for found in folder.iterdir() if KEY.fullmatch(found.name)))


def _checked(key: str) -> str:
    if not KEY.fullmatch(key):
        raise NotFoundError("this is no id of the store", code="artifact_not_found")
    return key


def _sync_tree(folder: Path) -> None:
    for file in folder.iterdir():
        _sync(file)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
