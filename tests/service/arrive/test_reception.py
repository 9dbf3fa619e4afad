"""Instances on their way to disk and ledger."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from sqlalchemy.exc import OperationalError

from service import arrive
from service.arrive import Claim, InstanceError, MismatchedInstanceError, Reception
from service.domain import Origin
from service.errors import StorageFullError
from service.storage.arrivals import ArrivalStore


@pytest.fixture
def reception(arriving: Any) -> Reception:
    return Reception(arriving.container, Origin.DIMSE, "MODALITY")


def test_an_instance_is_counted_once_however_often_it_comes(arriving: Any) -> None:
    files = arriving.series()
    arriving.send([*files, *files[:5]])
    arriving.send(files)
    (arrival,) = arriving.arrivals()
    assert arrival.instances == arriving.stored() == len(files)
    assert (arrival.origin, arrival.caller) == (Origin.DIMSE, "MODALITY")


def test_what_is_stored_is_what_came_under_a_name_without_uids(arriving: Any) -> None:
    files = arriving.series(slices=3)
    arriving.send(files)
    stored = sorted(arriving.container.settings.arrivals_dir.rglob("*.dcm"))
    assert sorted(file.read_bytes() for file in stored) == sorted(f.read_bytes() for f in files)
    assert not any("1.2.3" in str(file) for file in stored)


def test_interleaved_series_of_threads_stay_apart(arriving: Any) -> None:
    first, second = arriving.series(1), arriving.series(2)

    def send(files: list[Path]) -> None:
        arriving.send(files)

    threads = [threading.Thread(target=send, args=(files,)) for files in (first, second, first)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.instances for one in arriving.arrivals()} == {12}
    assert len(arriving.arrivals()) == 2


def test_an_instance_that_meets_a_closed_arrival_opens_another(
    arriving: Any, reception: Reception
) -> None:
    files = arriving.series()
    store = arriving.container.arrivals
    with reception:
        reception.take(files[0])
        assert len(store.close(store.of_study("1.2.3.1", abandoned_s=60))) == 1
        reception.take(files[1])
        reception.take(files[2])
    first, second = arriving.arrivals()
    places = reception.files
    assert len(places.of(second.id)) == second.instances == 2
    assert places.of(first.id)


def test_a_broken_leftover_is_replaced(arriving: Any, reception: Reception) -> None:
    file, *_ = arriving.series()
    with reception:
        reception.take(file)
        (stored,) = arriving.container.settings.arrivals_dir.rglob("*.dcm")
        broken = stored.with_name("broken")
        broken.write_bytes(file.read_bytes()[:1000])
        broken.replace(stored)
        reception.take(file)
    assert stored.read_bytes() == file.read_bytes()
    assert arriving.arrivals()[0].instances == 1


@pytest.mark.parametrize(
    "claim",
    [
        Claim(sop_class_uid="1.2.840.10008.5.1.4.1.1.4"),
        Claim(sop_instance_uid="1.2.3"),
        Claim(study_uid="1.2.3.9"),
    ],
)
def test_what_is_not_what_was_said_is_refused(
    arriving: Any, reception: Reception, claim: Claim
) -> None:
    file, *_ = arriving.series()
    with pytest.raises(MismatchedInstanceError) as caught:
        reception.take(file, claim)
    assert "1.2.3" not in caught.value.message
    assert arriving.stored() == 0


@pytest.mark.parametrize("content", [b"", b"nonsense" * 100, b"\0" * 128 + b"DICM"])
def test_what_is_no_dicom_is_refused(reception: Reception, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(InstanceError):
        reception.take(file)


def test_an_instance_without_a_series_is_refused(
    arriving: Any, reception: Reception, tmp_path: Path
) -> None:
    dataset = dcmread(arriving.series()[0])
    del dataset.SeriesInstanceUID
    dataset.save_as(tmp_path / "file", enforce_file_format=True)
    with pytest.raises(InstanceError):
        reception.take(tmp_path / "file")


def test_an_instance_without_a_study_is_taken(
    arriving: Any, reception: Reception, tmp_path: Path
) -> None:
    dataset = dcmread(arriving.series()[0])
    dataset.StudyInstanceUID = ""
    dataset.save_as(tmp_path / "file", enforce_file_format=True)
    assert reception.take(tmp_path / "file").study_uid == "1.2.3.1.2"


def test_a_full_disk_refuses_and_leaves_nothing(arriving: Any) -> None:
    full = arriving.with_settings(min_free_bytes=2**60)
    with pytest.raises(StorageFullError):
        full.send(arriving.series())
    assert arriving.arrivals() == []


def test_a_sender_that_is_still_there_keeps_its_study_open(
    arriving: Any, reception: Reception
) -> None:
    files = arriving.series()
    reception.take(files[0])
    reception.beat()
    (before,) = arriving.arrivals()
    reception.beat()
    (after,) = arriving.arrivals()
    assert after.last_at > before.last_at
    assert after.instances == 1


def test_a_sender_that_went_on_to_another_study_lets_the_first_go(
    arriving: Any, reception: Reception
) -> None:
    with reception:
        reception.take(arriving.series(1, study=1)[0])
        reception.beat()
        reception.take(arriving.series(1, study=2)[0])
        reception.beat()
        before = {one.study_uid: one.last_at for one in arriving.arrivals()}
        reception.beat()
        after = {one.study_uid: one.last_at for one in arriving.arrivals()}
    assert after["1.2.3.1"] == before["1.2.3.1"]
    assert after["1.2.3.2"] > before["1.2.3.2"]


class Blinking(ArrivalStore):
    """Its database is away the first time that instances are counted."""

    away = True

    def add(self, arrival_id: str, instances: int = 0) -> bool:
        if self.away:
            self.away = False
            raise OperationalError("UPDATE arrivals", {}, Exception("the connection is closed"))
        return super().add(arrival_id, instances)


def test_an_instance_is_counted_when_the_ledger_is_back(arriving: Any) -> None:
    (file, *_) = arriving.series()
    blinking = replace(arriving.container, arrivals=Blinking(arriving.container.database))
    with Reception(blinking, Origin.DIMSE, "X") as reception:
        with pytest.raises(OperationalError):
            reception.take(file)
        reception.take(file)
    assert arriving.arrivals()[0].instances == 1


def test_metrics_count_instances_and_bytes(arriving: Any) -> None:
    files = arriving.series()
    arriving.send(files)
    arrive.measure(arriving.container)
    registry = arriving.container.metrics.registry
    size = sum(file.stat().st_size for file in files)
    dimse = {"origin": "dimse"}
    assert registry.get_sample_value("aqcf_instances_total", dimse) == len(files)
    assert registry.get_sample_value("aqcf_instance_bytes_total", dimse) == size
    waiting = dimse | {"state": "receiving"}
    assert registry.get_sample_value("aqcf_arrivals_now", waiting) == 1
