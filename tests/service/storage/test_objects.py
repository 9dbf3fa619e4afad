"""S3: kills, several processes, big files, damage, and a server that is away."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from object_store import S3Server
from servers import wait_until

from service import execute, wiring
from service.api.errors import problem_of
from service.container import Container
from service.domain import ArtifactName, Status, SubmitOptions
from service.errors import DamagedArtifactError, NotFoundError, StoreUnavailableError
from service.intake import submit
from service.settings import Settings
from service.storage.artifacts import ArtifactStore, open_store
from service.storage.cache import KEEP_S
from service.storage.objects import ABANDONED_S
from service.uploads import Upload

KEY = "c" * 64
JOB = "0198f1d2-c0de-7a41-b6f0-a2c4e8d01357"
MIB = 1024**2

# One host that places the files of a folder: arguments are settings as JSON, folder, key.
PLACE = """
import sys
from pathlib import Path
from service.settings import Settings
from service.storage.artifacts import open_store

settings = Settings.model_validate_json(sys.argv[1])
files, key = sorted(Path(sys.argv[2]).iterdir()), sys.argv[3]
store = open_store(settings)
sys.stdin.read(1)
with store.staged_input(files, ".dcm", key) as staged:
    store.place_input(staged, key)
"""


def placing(settings: Settings, folder: Path, host: Path) -> "subprocess.Popen[bytes]":
    plain = settings.model_copy(update={"state_dir": host}).model_dump_json()
    command = [sys.executable, "-c", PLACE, plain, str(folder), KEY]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def go(*processes: "subprocess.Popen[bytes]") -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"x")
        process.stdin.flush()


def place(store: ArtifactStore, folder: Path) -> None:
    with store.staged_input(sorted(folder.iterdir()), ".dcm", KEY) as staged:
        store.place_input(staged, KEY)


def make(folder: Path, count: int, size: int) -> list[bytes]:
    folder.mkdir()
    contents = [os.urandom(size) for _ in range(count)]
    for number, content in enumerate(contents):
        (folder / f"{number:04d}").write_bytes(content)
    return contents


def prefix_of(settings: Settings) -> str:
    return (settings.artifacts_url or "").rpartition("/")[2]


def cached(store: ArtifactStore) -> list[Path]:
    return sorted(file for file in (store.staging / "cache").rglob("*") if file.is_file())


@pytest.fixture
def store(s3_settings: Settings) -> ArtifactStore:
    return open_store(s3_settings)


@contextmanager
def stopped(server: S3Server) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()


def test_a_kill_in_the_middle_of_an_upload_leaves_nothing_visible(
    store: ArtifactStore, s3_settings: Settings, s3_server: S3Server, tmp_path: Path
) -> None:
    contents = make(tmp_path / "in", 120, MIB // 4)
    folder = f"{prefix_of(s3_settings)}/inputs/{KEY}"
    process = placing(s3_settings, tmp_path / "in", tmp_path / "host")
    go(process)
    wait_until(lambda: len(s3_server.keys(folder)) > 2, "nothing is uploaded")
    s3_server.pause()
    process.kill()
    process.communicate()
    s3_server.resume()
    left = s3_server.keys(prefix_of(s3_settings))
    assert 2 < len(left) < 120
    assert not any("manifests" in key for key in left)
    assert store.input_keys() == ()
    with pytest.raises(NotFoundError):
        store.input_files(KEY)

    place(store, tmp_path / "in")
    assert [file.read_bytes() for file in store.input_files(KEY)] == contents
    assert len(s3_server.keys(folder)) == 120


def test_what_a_kill_left_is_listed_for_the_sweep_when_it_is_old(
    store: ArtifactStore, s3_settings: Settings, s3_server: S3Server, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_bytes(b"left")
    with store.staged_input([tmp_path / "in" / "a"], ".dcm", KEY):
        pass  # uploaded, never placed
    (left,) = s3_server.keys(prefix_of(s3_settings))
    assert store.input_keys() == ()
    old = time.time() - ABANDONED_S - 60
    os.utime(s3_server.objects / left, (old, old))
    with stopped(s3_server):  # it has the old time in memory
        pass
    assert store.input_keys() == (KEY,)
    store.delete_input(KEY)
    assert s3_server.keys(prefix_of(s3_settings)) == []


def test_two_processes_place_the_same_input_at_once(
    store: ArtifactStore, s3_settings: Settings, s3_server: S3Server, tmp_path: Path
) -> None:
    contents = make(tmp_path / "in", 40, 20_000)
    both = [placing(s3_settings, tmp_path / "in", tmp_path / name) for name in ("one", "two")]
    go(*both)
    for process in both:
        process.communicate(timeout=30)
    assert [process.returncode for process in both] == [0, 0]
    assert [file.read_bytes() for file in store.input_files(KEY)] == contents
    assert len(s3_server.keys(prefix_of(s3_settings))) == 41


def test_a_big_file_goes_in_parts_both_ways(
    store: ArtifactStore, s3_settings: Settings, tmp_path: Path
) -> None:
    (content,) = make(tmp_path / "in", 1, 30 * MIB + 17)
    place(store, tmp_path / "in")
    (file,) = store.input_files(KEY)
    assert file.read_bytes() == content


def test_an_empty_file_is_a_file(store: ArtifactStore, tmp_path: Path) -> None:
    make(tmp_path / "in", 2, 0)
    place(store, tmp_path / "in")
    assert [file.read_bytes() for file in store.input_files(KEY)] == [b"", b""]


@pytest.mark.parametrize("damage", ["changed", "shortened", "removed"])
def test_a_damaged_local_copy_is_fetched_again(
    store: ArtifactStore, tmp_path: Path, damage: str
) -> None:
    contents = make(tmp_path / "in", 3, 1000)
    place(store, tmp_path / "in")
    copy = store.input_files(KEY)[1]
    if damage == "removed":
        copy.unlink()
    else:
        copy.write_bytes(b"x" * (1000 if damage == "changed" else 10))
    assert [file.read_bytes() for file in store.input_files(KEY)] == contents


@pytest.mark.parametrize("damage", ["changed", "shortened", "removed"])
def test_a_damaged_object_is_an_error_never_a_result(
    store: ArtifactStore, s3_settings: Settings, s3_server: S3Server, tmp_path: Path, damage: str
) -> None:
    make(tmp_path / "in", 3, 1000)
    place(store, tmp_path / "in")
    key = s3_server.keys(f"{prefix_of(s3_settings)}/inputs")[0]
    if damage == "removed":
        (s3_server.objects / key).unlink()
    else:
        (s3_server.objects / key).write_bytes(b"x" * (1000 if damage == "changed" else 10))
    with stopped(s3_server):
        pass
    with pytest.raises(DamagedArtifactError):
        store.input_files(KEY)
    assert cached(store) == []


@pytest.mark.parametrize(
    "text", [b"", b"[]", b'{"files": [{"name": "../../x", "size": 1, "sha256": "a"}]}', b"\xff"]
)
def test_a_manifest_that_is_not_ours_is_not_believed(
    store: ArtifactStore, s3_settings: Settings, s3_server: S3Server, tmp_path: Path, text: bytes
) -> None:
    make(tmp_path / "in", 1, 10)
    place(store, tmp_path / "in")
    (key,) = s3_server.keys(f"{prefix_of(s3_settings)}/manifests")
    (s3_server.objects / key).write_bytes(text)
    with stopped(s3_server):
        pass
    with pytest.raises(DamagedArtifactError):
        store.input_files(KEY)


def test_the_cache_is_bounded_and_the_least_used_goes_first(
    s3_settings: Settings, tmp_path: Path
) -> None:
    store = open_store(s3_settings.model_copy(update={"cache_bytes": 2500}))
    make(tmp_path / "in", 1, 1000)
    keys = ["1" * 64, "2" * 64, "3" * 64]
    for age, key in zip((900, 1800, 1200), keys, strict=True):
        with store.staged_input(sorted((tmp_path / "in").iterdir()), ".dcm", key) as staged:
            store.place_input(staged, key)
        entry = store.input_files(key)[0].parent
        os.utime(entry, (time.time() - age, time.time() - age))
    assert [file.parent.name[-1] for file in cached(store)] == ["1", "3"]
    assert store.input_files(keys[1])[0].read_bytes()
    assert [file.parent.name[-1] for file in cached(store)] == ["1", "2"]


def test_what_was_just_handed_out_stays(s3_settings: Settings, tmp_path: Path) -> None:
    store = open_store(s3_settings.model_copy(update={"cache_bytes": 0}))
    contents = make(tmp_path / "in", 1, 1000)
    place(store, tmp_path / "in")
    (file,) = store.input_files(KEY)
    store.tidy()
    assert file.read_bytes() == contents[0]


def test_unused_copies_go_after_an_hour(store: ArtifactStore, tmp_path: Path) -> None:
    """A purge on another host reaches this host's copies, too."""
    make(tmp_path / "in", 1, 1000)
    place(store, tmp_path / "in")
    entry = store.input_files(KEY)[0].parent
    os.utime(entry, (time.time() - KEEP_S - 1, time.time() - KEEP_S - 1))
    store.tidy()
    assert cached(store) == []


def test_uploads_push_the_cache_aside(store: ArtifactStore, tmp_path: Path) -> None:
    make(tmp_path / "in", 1, 1000)
    place(store, tmp_path / "in")
    entry = store.input_files(KEY)[0].parent
    os.utime(entry, (time.time() - 600, time.time() - 600))
    store.require_room(0)
    assert cached(store)
    store.require_room(store.free_bytes() - 64 * MIB)
    assert cached(store)
    with pytest.raises(Exception, match="have to stay free"):
        store.require_room(2**60)
    assert cached(store) == []


def test_a_restart_of_the_server_is_not_noticed(
    store: ArtifactStore, s3_server: S3Server, tmp_path: Path
) -> None:
    contents = make(tmp_path / "in", 2, 1000)
    s3_server.kill()
    timer = Timer(0.3, s3_server.start)
    timer.start()
    place(store, tmp_path / "in")
    timer.join()
    assert [file.read_bytes() for file in store.input_files(KEY)] == contents


def test_a_server_that_is_away_is_told_as_such(
    s3_settings: Settings, s3_server: S3Server, tmp_path: Path
) -> None:
    store = open_store(s3_settings)
    make(tmp_path / "in", 1, 10)
    with stopped(s3_server):
        for ask in (lambda: store.input_files(KEY), store.input_keys, store.ping):
            with pytest.raises(StoreUnavailableError) as caught:
                ask()
            assert s3_server.url not in str(caught.value)
    answer = problem_of(caught.value)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_wrong_keys_are_not_taken_for_a_missing_input(s3_settings: Settings) -> None:
    store = open_store(s3_settings.model_copy(update={"s3_secret_key": "wrong"}))
    for ask in (lambda: store.input_files(KEY), store.ping):
        with pytest.raises(StoreUnavailableError):
            ask()


def test_the_bucket_is_not_searched_in_every_round(store: ArtifactStore) -> None:
    assert [store.search_due(), store.search_due()] == [True, False]


def test_purging_is_no_answer_to_a_full_local_disk(store: ArtifactStore) -> None:
    assert not store.purge_helps(2**60)


@pytest.fixture
def hosts(s3_settings: Settings, tmp_path: Path) -> Iterator[tuple[Container, Container]]:
    """Two hosts over one ledger and one bucket."""
    shared = {"database_url": s3_settings.ledger_url}
    built = [
        wiring.build(s3_settings.model_copy(update=shared | {"state_dir": tmp_path / name}))
        for name in ("front", "back")
    ]
    yield built[0], built[1]
    for container in built:
        container.database.close()


def test_a_job_goes_from_one_host_to_the_other(
    hosts: tuple[Container, Container], s3_server: S3Server, s3_settings: Settings, ct_zip: Path
) -> None:
    front, back = hosts
    job = submit(front, Upload((ct_zip,)), SubmitOptions("ct"))
    execute.run(back, job.id)
    assert front.jobs.require(job.id).status is Status.SUCCEEDED
    assert front.artifacts.path(job.id, ArtifactName.SEG).read_bytes()[128:132] == b"DICM"
    names = {Path(key).stem for key in s3_server.keys(prefix_of(s3_settings))}
    assert all(len(name) in {36, 64} and name.strip("0123456789abcdef-") == "" for name in names)


def test_a_job_whose_store_is_away_goes_back_into_the_queue(
    hosts: tuple[Container, Container], s3_server: S3Server, ct_zip: Path
) -> None:
    front, back = hosts
    job = submit(front, Upload((ct_zip,)), SubmitOptions("ct"))
    with stopped(s3_server):
        execute.run(back, job.id)
    waiting = front.jobs.require(job.id)
    assert (waiting.status, waiting.deaths) == (Status.QUEUED, 0)
    execute.run(back, job.id)
    assert front.jobs.require(job.id).status is Status.SUCCEEDED


def test_an_upload_while_the_store_is_away_leaves_no_job(
    hosts: tuple[Container, Container], s3_server: S3Server, ct_zip: Path
) -> None:
    front, _ = hosts
    with stopped(s3_server), pytest.raises(StoreUnavailableError):
        submit(front, Upload((ct_zip,)), SubmitOptions("ct"))
    assert sum(front.jobs.counts().values()) == 0


class _Failing:
    """A store that fails when results are stored."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, *_: object) -> Any:
        raise StoreUnavailableError("away")


def test_results_that_cannot_be_stored_now_are_made_again_later(
    hosts: tuple[Container, Container], ct_zip: Path
) -> None:
    front, back = hosts
    job = submit(front, Upload((ct_zip,)), SubmitOptions("ct"))
    execute.run(replace(back, artifacts=_Failing(back.artifacts)), job.id)  # type: ignore[arg-type]
    assert front.jobs.require(job.id).status is Status.QUEUED
