"""``aqcf listen`` as a process of its own, killed in the middle of what it is sent."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from dimse_senders import associated
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import build_context
from roles import Deployment, Role
from servers import RedisServer, free_port, wait_until

from service import wiring
from service.container import Container
from service.dicom.heads import read_head
from service.domain import ArrivalState
from service.settings import Settings

CT = [build_context("1.2.840.10008.5.1.4.1.1.2", ExplicitVRLittleEndian)]
CANARY = "Q7ZEBRA"
QUIET_S = 4.0
SLICES = 30
SITE = "rules: [{name: liver, when: {modality: ct}, then: {priority: urgent}}]\n"


@pytest.fixture
def deployment(tmp_path: Path, models_dir: Path, broker: RedisServer) -> Iterator[Deployment]:
    (tmp_path / "site.yaml").write_text(SITE)
    made = Deployment(
        tmp_path,
        {
            "AQCF_STATE_DIR": str(tmp_path / "state"),
            "AQCF_MODELS_DIR": str(models_dir),
            "AQCF_REDIS_URL": broker.url,
            "AQCF_SITE_FILE": str(tmp_path / "site.yaml"),
            "AQCF_LISTEN_PORT": str(free_port()),
            "AQCF_QUIET_S": str(QUIET_S),
        },
    )
    yield made
    made.close()


@pytest.fixture
def ledger(deployment: Deployment, settings: Settings) -> Iterator[Container]:
    """The same state, seen from the test."""
    state = Path(deployment.environment["AQCF_STATE_DIR"])
    built = wiring.build(settings.model_copy(update={"state_dir": state}))
    yield built
    built.database.close()


@pytest.fixture
def files(tmp_path: Path, made: Any) -> list[Path]:
    def spread(dataset: Dataset, index: int) -> None:
        dataset.SOPInstanceUID = f"1.2.3.4.{index + 1}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID

    array = made.phantom((SLICES, 64, 64))
    found: list[Path] = made.series(tmp_path / "in", array, canary=CANARY, edit=spread)
    return found


def listen(deployment: Deployment) -> Role:
    role = deployment.start("listen")
    wait_until(lambda: role.says("listening as"), "no listener", 90.0)
    return role


def send(deployment: Deployment, files: list[Path], after: Callable[[int], None]) -> list[str]:
    """Send one instance after the other; the UIDs of those that were answered with success."""
    taken = []
    with associated(int(deployment.environment["AQCF_LISTEN_PORT"]), CT) as made:
        for number, file in enumerate(files):
            after(number)
            dataset = dcmread(file)
            if not made.is_established or made.send_c_store(dataset).get("Status") != 0:
                break
            taken.append(str(dataset.SOPInstanceUID))
    return taken


def lying(state: Path) -> set[str]:
    return {read_head(file).sop_instance_uid for file in waiting(state)}


def waiting(state: Path) -> list[Path]:
    return list(state.joinpath("arrivals").glob("*-*/*.dcm"))


def test_a_kill_between_instances_loses_nothing_that_was_answered(
    deployment: Deployment, ledger: Container, files: list[Path]
) -> None:
    state = Path(deployment.environment["AQCF_STATE_DIR"])
    role = listen(deployment)
    taken = send(deployment, files, lambda number: role.kill() if number == 11 else None)
    assert len(taken) == 11
    assert lying(state) == set(taken)

    listen(deployment)
    assert len(send(deployment, files, lambda _: None)) == SLICES
    wait_until(lambda: bool(ledger.jobs.page().jobs), "no job", 60)
    wait_until(lambda: not waiting(state), "instances are left", 60)

    (job,) = ledger.jobs.page().jobs
    assert len(ledger.artifacts.input_files(job.input_key)) == SLICES
    (arrival,) = ledger.arrivals.page().arrivals
    assert (arrival.state, arrival.instances) == (ArrivalState.SUBMITTED, SLICES)
    assert arrival.rule == "liver"


def test_kills_at_any_moment_leave_whole_files_and_no_secret(
    deployment: Deployment, files: list[Path]
) -> None:
    state = Path(deployment.environment["AQCF_STATE_DIR"])
    sizes = {str(dcmread(file).SOPInstanceUID): file.stat().st_size for file in files}
    role = listen(deployment)
    port = deployment.environment["AQCF_LISTEN_PORT"]
    sender = subprocess.Popen(
        ["/usr/bin/storescu", "-R", "-aec", "AQCF", "127.0.0.1", port, *map(str, files)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: len(waiting(state)) > 3, "nothing arrives", 60)
    role.kill()
    assert sender.wait(30) != 0
    left = waiting(state)
    assert left
    assert all(dcmread(file).PixelData for file in left)
    assert {read_head(file).sop_instance_uid for file in left} <= sizes.keys()
    written = role.log.read_text() + "".join(str(path) for path in state.rglob("*"))
    assert CANARY not in written
    assert "1.2.3.4" not in written


def test_a_stop_lets_the_sender_finish(
    deployment: Deployment, ledger: Container, files: list[Path]
) -> None:
    role = listen(deployment)

    def stop(number: int) -> None:
        if number == 3:
            role.process.terminate()

    taken = send(deployment, files[:8], stop)
    assert len(taken) == 8
    assert role.process.wait(30) == os.EX_OK
    (arrival,) = ledger.arrivals.page().arrivals
    assert arrival.instances == 8


def test_a_public_address_is_refused(deployment: Deployment) -> None:
    role = deployment.start("listen", "--host", "192.0.2.1")
    assert role.process.wait(60) == 1
    assert "unsafe_address" in role.log.read_text()


def test_serve_listens_where_it_is_told_to(deployment: Deployment, files: list[Path]) -> None:
    role = deployment.start("serve", "--port", str(deployment.port), "--listen")
    wait_until(lambda: role.says("listening on"), "it does not serve", 90)
    assert len(send(deployment, files, lambda _: None)) == SLICES
    with closing(_client(deployment)) as client:
        wait_until(lambda: bool(_segmented(client)), "no result", 120)
        (arrival,) = client.get("/v1/arrivals").json()["items"]
    assert arrival["state"] == "submitted"


def _client(deployment: Deployment) -> Any:
    import httpx  # noqa: PLC0415

    return httpx.Client(base_url=deployment.url, timeout=30)


def _segmented(client: Any) -> list[Any]:
    items: list[Any] = client.get("/v1/segmentations?status=succeeded").json()["items"]
    return items
