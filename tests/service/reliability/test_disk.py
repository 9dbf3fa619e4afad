"""A disk that becomes full at the moment that matters: refused or tried again, and nothing lost."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from arriving import RULES, Arriving
from disk import MIB, SmallDisk, can_mount, small_disk
from servers import wait_until

from model.backends import open_backend
from model.types import Batch
from service import execute, intake, wiring
from service.api.app import create_app
from service.api.server import Server, bind, url_of
from service.arrive import Reception
from service.container import Container
from service.domain import ArrivalState, Origin, Status, SubmitOptions
from service.errors import StorageFullError
from service.listener.spool import Spool
from service.settings import Settings
from service.uploads import Upload

pytestmark = pytest.mark.skipif(not can_mount(), reason="a disk of its own needs root")

QUIET_S = 0.2


class Engine:
    """The real one; ``before`` is called ahead of each batch."""

    name, engine, precision = "fake", "fake", "f32"

    def __init__(self, container: Container, before: Callable[[], None]) -> None:
        folder = container.models.find(None, "ct")
        self._real = open_backend(folder, "ct", "onnxruntime", threads=1)
        self._before = before

    def logits(self, batch: Batch) -> Batch:
        self._before()
        return self._real.logits(batch)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 16 * MIB) as made:
        yield made


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    """On another disk, as a database server's is."""
    return f"sqlite:///{tmp_path / 'ledger.sqlite3'}"


@pytest.fixture
def container(disk: SmallDisk, ledger: str, settings: Settings) -> Iterator[Container]:
    changes = {"state_dir": disk.folder / "state", "database_url": ledger, "quiet_s": QUIET_S}
    built = wiring.build(settings.model_copy(update=changes))
    yield replace(built, site=RULES)
    built.database.close()


@pytest.fixture
def http(container: Container) -> Iterator[httpx.Client]:
    """Of a gateway; jobs stay queued."""
    server = Server(create_app(container), "127.0.0.1", 0)
    with bind("127.0.0.1", 0) as bound:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        with httpx.Client(base_url=url_of(bound), timeout=60) as client:
            wait_until(lambda: client.get("/healthz").is_success, "no answer")
            yield client
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def arriving(container: Container, disk: SmallDisk, made: Any) -> Arriving:
    return Arriving(container, disk.folder / "sent", made)


@pytest.fixture
def large_zip(tmp_path: Path, made: Any) -> bytes:
    """CT of 6 MiB that does not get smaller."""
    noise = np.random.default_rng(0).integers(-50, 50, (48, 256, 256)).astype("int16")
    files = made.series(tmp_path / "large", made.phantom((48, 256, 256)) + noise)
    return Path(made.zip(tmp_path / "large.zip", files)).read_bytes()


def test_a_job_whose_results_find_no_room_waits_for_it(
    container: Container, disk: SmallDisk, ct_zip: Path
) -> None:
    job = intake.submit(container, Upload((ct_zip,)), SubmitOptions("ct"))
    filling = replace(container, open_backend=lambda *_: Engine(container, disk.fill))
    execute.run(filling, job.id)
    left = container.jobs.require(job.id)
    assert (left.status, left.attempts, left.deaths, left.error) == (Status.QUEUED, 1, 0, None)
    disk.free()
    execute.run(container, job.id)
    assert container.jobs.require(job.id).status is Status.SUCCEEDED
    assert not list(container.artifacts.staging.iterdir())


def test_an_upload_that_fills_the_disk_is_507_and_leaves_nothing(
    container: Container, disk: SmallDisk, http: httpx.Client, large_zip: bytes
) -> None:
    disk.fill(leave_bytes=len(large_zip) // 2)
    for body in ({"content": large_zip}, {"files": {"files": ("a.zip", large_zip)}}):
        answer = http.post("/v1/segmentations?modality=ct", **body)
        assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
        assert not list(container.artifacts.staging.iterdir())
    disk.free()
    answer = http.post("/v1/segmentations?modality=ct", content=large_zip)
    assert answer.status_code == 202, answer.text


@pytest.mark.parametrize("room", [1.0, 1.5, 2.0, 2.5])
def test_an_upload_that_finds_no_room_to_be_unpacked_is_507(
    container: Container, disk: SmallDisk, http: httpx.Client, large_zip: bytes, room: float
) -> None:
    disk.fill(leave_bytes=int(room * len(large_zip)))
    answer = http.post("/v1/segmentations?modality=ct", content=large_zip)
    if answer.status_code != 202:
        assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
        assert not container.jobs.page().jobs
    assert not list(container.artifacts.staging.iterdir())


def test_instances_by_stow_are_told_to_come_again(
    disk: SmallDisk, http: httpx.Client, arriving: Arriving
) -> None:
    [first, *_] = arriving.series()
    disk.fill()
    headers = {"Content-Type": "application/dicom"}
    answer = http.post("/dicomweb/studies", content=first.read_bytes(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
    disk.free()
    answer = http.post("/dicomweb/studies", content=first.read_bytes(), headers=headers)
    assert answer.status_code == 200


def test_an_instance_that_breaks_off_at_a_full_disk_is_told(
    container: Container, disk: SmallDisk, arriving: Arriving
) -> None:
    [first, *_] = arriving.series()
    with Reception(container, Origin.DIMSE, "CT1").files.incoming() as folder:
        disk.fill()
        spool = Spool(lambda: (folder / "one.dcm", b""), 16 * MIB)
        spool.write(first.read_bytes())
        with pytest.raises(StorageFullError):
            spool.finish()
        spool.drop()
    assert not container.arrivals.page().arrivals


def test_a_complete_study_waits_for_room(
    container: Container, disk: SmallDisk, arriving: Arriving
) -> None:
    sent = arriving.series()
    arriving.send(sent)
    time.sleep(QUIET_S)
    disk.fill_names()
    arriving.complete()
    [arrival] = arriving.arrivals()
    assert (arrival.state, arrival.code) == (ArrivalState.RECEIVING, None)
    disk.free()
    wait_until(lambda: _submitted(arriving), "it is not taken up again")
    [job] = container.jobs.page().jobs
    assert len(container.artifacts.input_files(job.input_key)) == len(sent)


@pytest.mark.parametrize("route", ["/v1/segmentations?modality=ct", "/dicomweb/studies"])
def test_without_a_name_for_another_file_an_upload_is_507(
    disk: SmallDisk, http: httpx.Client, arriving: Arriving, route: str
) -> None:
    [first, *_] = arriving.series()
    content = first.read_bytes()
    disk.fill_names()
    answer = http.post(route, content=content, headers={"Content-Type": "application/dicom"})
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")


def _submitted(arriving: Arriving) -> bool:
    arriving.complete()
    return bool(arriving.arrivals(ArrivalState.SUBMITTED))
