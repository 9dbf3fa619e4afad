"""The artifact store: what holds for a folder, for a share on another disk, and for S3."""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from model.errors import ConfigError
from service.domain import ArtifactName
from service.errors import NotFoundError, StorageFullError
from service.settings import Settings
from service.storage.artifacts import ArtifactStore, FolderStore, open_store

KEY, OTHER = "a" * 64, "b" * 64
JOB = "0198f1d2-c0de-7a41-b6f0-a2c4e8d01357"
AT_WORK = """
import sys, time
from pathlib import Path
from service.storage.artifacts import FolderStore
with FolderStore(*map(Path, sys.argv[1:])).workspace() as folder:
    (folder / "image").write_bytes(b"pixels")
    print(folder.name, flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["folder", "share", "s3"])
def stored(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Settings]:
    """Settings of each kind of store; the share lies on another disk where there is one."""
    if request.param == "s3":
        found: Settings = request.getfixturevalue("s3_settings")
        yield found
    elif request.param == "share":
        memory = Path("/dev/shm")  # noqa: S108
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
            yield settings.model_copy(update={"artifacts_url": f"file://{folder}/a%20share"})
    else:
        yield settings


@pytest.fixture
def store(stored: Settings) -> ArtifactStore:
    return open_store(stored)


def elsewhere(stored: Settings, tmp_path: Path) -> ArtifactStore:
    """The same store as another host sees it (a folder has one host only)."""
    local = {"state_dir": tmp_path / "elsewhere"} if stored.artifacts_url else {}
    return open_store(stored.model_copy(update=local))


def sources(folder: Path, *contents: bytes) -> list[Path]:
    folder.mkdir(exist_ok=True)
    files = [folder / f"Doe^Jane {number}" for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    return files


def place(store: ArtifactStore, files: list[Path], key: str = KEY) -> None:
    with store.staged_input(files, ".dcm", key) as staged:
        store.place_input(staged, key)


def put(store: ArtifactStore, job_id: str = JOB, **contents: bytes) -> Any:
    with store.workspace() as folder:
        for name, content in contents.items():
            (folder / ArtifactName[name]).write_bytes(content)
        return store.put(job_id, folder)


def test_an_input_comes_back_in_order(stored: Settings, tmp_path: Path) -> None:
    store = open_store(stored)
    contents = [bytes([number]) * 1000 for number in range(30)]
    place(store, sources(tmp_path / "in", *contents))
    for reader in (store, elsewhere(stored, tmp_path)):
        files = reader.input_files(KEY)
        assert [file.name for file in files] == [f"{n:06d}.dcm" for n in range(1, 31)]
        assert [file.read_bytes() for file in files] == contents
        assert reader.input_keys() == (KEY,)
    assert {left.name for left in store.staging.iterdir()} <= {"cache"}


def test_the_same_input_twice_is_one(store: ArtifactStore, tmp_path: Path) -> None:
    files = sources(tmp_path / "in", b"one", b"two", b"one")
    place(store, files)
    place(store, files)
    assert [file.read_bytes() for file in store.input_files(KEY)] == [b"one", b"two", b"one"]
    assert store.input_keys() == (KEY,)


def test_threads_place_and_read_at_once(store: ArtifactStore, tmp_path: Path) -> None:
    contents = [os.urandom(5000) for _ in range(8)]
    files = sources(tmp_path / "in", *contents)

    def work(_: int) -> list[bytes]:
        place(store, files)
        return [file.read_bytes() for file in store.input_files(KEY)]

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(work, range(6))) == [contents] * 6


def test_results_are_described_and_come_back(stored: Settings, tmp_path: Path) -> None:
    store = open_store(stored)
    artifacts = put(store, SEG=b"seg", MASK=b"mask")
    assert {(a.name, a.size, a.sha256) for a in artifacts} == {
        (ArtifactName.SEG, 3, hashlib.sha256(b"seg").hexdigest()),
        (ArtifactName.MASK, 4, hashlib.sha256(b"mask").hexdigest()),
    }
    for reader in (store, elsewhere(stored, tmp_path)):
        assert reader.path(JOB, ArtifactName.SEG).read_bytes() == b"seg"
        assert reader.path(JOB, ArtifactName.MASK).name == "mask.nii.gz"
        assert reader.job_ids() == (JOB,)


def test_a_second_attempt_replaces_and_a_late_file_joins(stored: Settings, tmp_path: Path) -> None:
    store, other = open_store(stored), elsewhere(stored, tmp_path)
    put(store, SEG=b"first", MASK=b"mask")
    assert other.path(JOB, ArtifactName.SEG).read_bytes() == b"first"
    put(store, SEG=b"again")
    put(other, IMAGE=b"image")
    for reader in (store, other):
        assert reader.path(JOB, ArtifactName.SEG).read_bytes() == b"again"
        assert reader.path(JOB, ArtifactName.MASK).read_bytes() == b"mask"
        assert reader.path(JOB, ArtifactName.IMAGE).read_bytes() == b"image"


def test_what_is_deleted_is_gone_for_all(stored: Settings, tmp_path: Path) -> None:
    store, other = open_store(stored), elsewhere(stored, tmp_path)
    place(store, sources(tmp_path / "in", b"one"))
    place(store, sources(tmp_path / "in", b"two"), OTHER)
    put(store, SEG=b"seg")
    assert other.input_files(KEY)
    assert other.path(JOB, ArtifactName.SEG)
    for _ in range(2):
        store.delete_input(KEY)
        store.delete(JOB)
    for reader in (store, other):
        assert (reader.input_keys(), reader.job_ids()) == ((OTHER,), ())
        with pytest.raises(NotFoundError) as no_input:
            reader.input_files(KEY)
        with pytest.raises(NotFoundError) as no_artifact:
            reader.path(JOB, ArtifactName.SEG)
        assert no_input.value.code == "input_not_found"
        assert no_artifact.value.code == "artifact_not_found"
    place(store, sources(tmp_path / "in", b"new"))
    assert other.input_files(KEY)[0].read_bytes() == b"new"


@pytest.mark.parametrize("key", ["", "..", "../../etc", "a/b", "A" * 64, "a" * 65])
def test_other_keys_reach_nothing(store: ArtifactStore, key: str) -> None:
    for ask in (store.input_files, store.delete, store.delete_input):
        with pytest.raises(NotFoundError):
            ask(key)
    with pytest.raises(NotFoundError):
        store.path(key, ArtifactName.SEG)


def test_a_full_disk_is_told(store: ArtifactStore) -> None:
    store.require_room(0)
    with pytest.raises(StorageFullError):
        store.require_room(2**60)
    with pytest.raises(StorageFullError):
        store.require_room(0, incoming_bytes=2**60)


def test_housekeeping_leaves_what_is_stored(store: ArtifactStore, tmp_path: Path) -> None:
    place(store, sources(tmp_path / "in", b"one"))
    put(store, SEG=b"seg")
    (store.staging / "left").mkdir()
    store.ping()
    store.tidy()
    store.clear_staging()
    assert not (store.staging / "left").exists()
    assert store.input_files(KEY)[0].read_bytes() == b"one"
    assert store.path(JOB, ArtifactName.SEG).read_bytes() == b"seg"


def test_what_a_killed_process_was_at_work_on_goes(tmp_path: Path) -> None:
    """And nothing of what others still work on."""
    root, staging = tmp_path / "root", tmp_path / "staging"
    store = FolderStore(root, staging)
    command = [sys.executable, "-c", AT_WORK, str(root), str(staging)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process, store.workspace() as mine:
        assert process.stdout is not None
        theirs = staging / process.stdout.readline().decode().strip()
        store.drop_abandoned()
        assert {theirs, mine} == set(staging.iterdir())
        assert (theirs / "image").exists()
        process.kill()
        process.wait()
        store.drop_abandoned()
        assert [mine] == list(staging.iterdir())


@pytest.mark.parametrize("url", ["ftp://x/y", "/folder", "s3://", "file://host/folder", "file:///"])
def test_other_urls_are_refused(settings: Settings, url: str) -> None:
    with pytest.raises(ConfigError, match="AQCF_ARTIFACTS_URL"):
        open_store(settings.model_copy(update={"artifacts_url": url}))


def test_half_of_the_credentials_is_refused(s3_settings: Settings) -> None:
    with pytest.raises(ConfigError, match="go together"):
        open_store(s3_settings.model_copy(update={"s3_secret_key": None}))
