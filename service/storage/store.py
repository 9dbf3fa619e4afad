"""What every artifact store does, wherever it keeps its files.

Names are job ids and content hashes, never a patient's. Callers get local paths to read from.
"""

import errno
import fcntl
import os
import re
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..domain import Artifact, ArtifactName
from ..errors import NotFoundError, StorageFullError
from .parallel import in_parallel

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


class ArtifactStore(ABC):
    """Inputs by content hash and results by job id.

    ``staging``: a local folder for unfinished work. A store that is far away raises
    ``StoreUnavailableError`` from every method that has to reach it.
    """

    def __init__(self, staging: Path) -> None:
        self.staging = staging
        staging.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """An empty private local folder, removed afterwards, or by ``drop_abandoned`` when this
        process is killed. Raises ``StorageFullError``."""
        folder = self.staging / uuid.uuid4().hex
        with full_disk_told():
            handle = _begun(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)

    @contextmanager
    def staged_input(self, files: Iterable[Path], suffix: str, key: str) -> Iterator[Path]:
        """Copies of ``files`` as ``000001<suffix>``, ..., synced, ready for a quick
        ``place_input`` under ``key``; removed afterwards when they were not placed. A file that
        lies in ``staging`` is moved instead."""
        with self.workspace() as folder:
            for number, file in enumerate(files, start=1):
                self._take(file, folder / f"{number:06d}{suffix}")
            sync_tree(folder)
            self._prepare(folder, checked(key))
            yield folder

    @abstractmethod
    def place_input(self, staged: Path, key: str) -> None:
        """Make a staged input the input of this content hash, at once for all readers; a no-op
        when it is there already."""

    @abstractmethod
    def input_files(self, key: str) -> tuple[Path, ...]:
        """The stored input; raises ``NotFoundError`` (``input_not_found``) when it was purged."""

    @abstractmethod
    def put(self, job_id: str, folder: Path) -> tuple[Artifact, ...]:
        """Take the result files of ``folder`` (named as ``ArtifactName``) for a job, replacing
        what an earlier attempt left."""

    @abstractmethod
    def path(self, job_id: str, name: ArtifactName) -> Path:
        """A local path of a result; raises ``NotFoundError`` (``artifact_not_found``)."""

    @abstractmethod
    def delete(self, job_id: str) -> None:
        """Remove the results of a job, if there are any."""

    @abstractmethod
    def delete_input(self, key: str) -> None:
        """Remove an input, if it is there."""

    @abstractmethod
    def input_keys(self) -> tuple[str, ...]:
        """Inputs that are stored, and what killed uploads left of others."""

    @abstractmethod
    def job_ids(self) -> tuple[str, ...]:
        """Jobs with results here, whether the ledger still knows them or not."""

    @abstractmethod
    def free_bytes(self) -> int:
        """Free space where an upload needs it."""

    @abstractmethod
    def purge_helps(self, watermark: int) -> bool:
        """Whether less than ``watermark`` bytes are free where purging old jobs gives room."""

    @abstractmethod
    def ping(self) -> None:
        """Raise when the store cannot be read now."""

    @abstractmethod
    def tidy(self) -> None:
        """Local housekeeping; called now and then by every long-lived process."""

    def search_due(self) -> bool:
        """Whether to look for files now that no job needs: a search of everything."""
        return True

    def require_room(self, min_free_bytes: int, incoming_bytes: int = 0) -> None:
        """Raise ``StorageFullError`` when less than ``min_free_bytes`` would stay free."""
        free = self.free_bytes()
        if free - incoming_bytes < min_free_bytes:
            raise StorageFullError(
                f"{free // 1024**2} MiB are free and {min_free_bytes // 1024**2} MiB have to stay "
                "free; delete finished segmentations or try again later"
            )

    def drop_abandoned(self) -> None:
        """Remove the workspaces of processes that were killed; others may use ``staging``."""
        for left in self.staging.iterdir():
            if KEY.fullmatch(left.name) and _is_abandoned(left):
                shutil.rmtree(left, ignore_errors=True)

    def clear_staging(self) -> None:
        """Remove what a killed process left; only while no other process uses ``staging``."""
        for left in self.staging.iterdir():
            shutil.rmtree(left, ignore_errors=True)

    def _prepare(self, staged: Path, key: str) -> None:  # noqa: B027  (most have nothing to do)
        """Do ahead what would make ``place_input`` slow."""

    def _take(self, file: Path, target: Path) -> None:
        if file.resolve().is_relative_to(self.staging.resolve()):
            file.rename(target)
        else:
            shutil.copyfile(file, target)


def _begun(folder: Path) -> int:
    """Make a folder and hold it; the system lets go however the process ends. Nobody sees the
    folder under its name before it is held."""
    hidden = folder.with_name(f".{folder.name}")
    hidden.mkdir(mode=0o700)
    handle = os.open(hidden, os.O_RDONLY)
    _hold(handle)
    hidden.rename(folder)
    return handle


def _is_abandoned(folder: Path) -> bool:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # it was finished just now
        return False
    try:
        return _hold(handle)
    finally:
        os.close(handle)


def _hold(handle: int) -> bool:
    """Whether nobody else holds it. A file system without such locks says no."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def no_input() -> NotFoundError:
    return NotFoundError("the job's input is no longer stored", code="input_not_found")


def no_artifact(name: ArtifactName) -> NotFoundError:
    return NotFoundError(f"this job has no {name.value}", code="artifact_not_found")


def checked(key: str) -> str:
    """A key or id as this project makes them; ``NotFoundError`` for anything else."""
    if not KEY.fullmatch(key):
        raise NotFoundError("this is no id of the store", code="artifact_not_found")
    return key


def sync_tree(folder: Path) -> None:
    sync_all((*folder.iterdir(), folder))


def sync_all(paths: Iterable[Path]) -> None:
    """``sync`` of each, at the same time: a disk writes many as quickly as few."""
    in_parallel(sync, paths)


def sync(path: Path) -> None:
    """Have the system write a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
