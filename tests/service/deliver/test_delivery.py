"""Results of a real job on their way to a real PACS, and to peers that refuse or break."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dimse_peers import ALL_CLASSES, dcmtk_storescp, store_scp
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    SegmentationStorage,
)
from servers import OrthancServer, free_port

from service import deliver
from service.deliver.attempt import Attempt
from service.domain import BreakerState, DeliveryState, Outcome
from service.site import Site
from service.sweep import remove

DELIVERED, PENDING, FAILED = DeliveryState.DELIVERED, DeliveryState.PENDING, DeliveryState.FAILED
BOTH = {"SEG": [1], "SR": [1]}

NewScene = Callable[..., Any]


def series_of(orthanc: OrthancServer) -> dict[str, list[int]]:
    """How many instances each series has, by modality."""
    found: dict[str, list[int]] = {}
    with orthanc.http() as http:
        for name in http.get("/series").json():
            series = http.get(f"/series/{name}").json()
            kind = series["MainDicomTags"]["Modality"]
            found.setdefault(kind, []).append(len(series["Instances"]))
    return found


@pytest.mark.parametrize(("by", "way"), [("dimse", "find"), ("dicomweb", "qido")])
def test_seg_and_sr_arrive_and_are_asked_for(
    orthanc: OrthancServer, scene: NewScene, tools: Any, by: str, way: str
) -> None:
    here = scene(tools.dimse(orthanc.dicom_port) | tools.web(orthanc), by=by)
    found = here.run()
    assert (found.state, found.code, found.notes) == (DELIVERED, None, ())
    assert here.forms == {"seg": "confirmed", "sr": "confirmed"}
    assert {item["confirmed_by"] for item in found.sent} == {way}
    assert series_of(orthanc) == BOTH
    assert here.sends() == 1


def test_no_liver_is_a_result_that_is_delivered(
    orthanc: OrthancServer, scene: NewScene, tools: Any, finish: Any, made: Any
) -> None:
    job = finish(np.minimum(made.phantom(), 20))
    assert job.outcome is Outcome.NOT_EVALUABLE
    assert scene(tools.dimse(orthanc.dicom_port), of=job).run().state is DELIVERED
    assert series_of(orthanc) == BOTH


def test_every_form_that_a_profile_asks_for(scene: NewScene, tools: Any) -> None:
    everything = {
        "seg": "labelmap",
        "sr_viewer": True,
        "capture": "always",
        "rtstruct": "always",
    }
    with store_scp() as peer:
        here = scene(tools.dimse(peer.port), profile=everything, confirm="none")
        found = here.run()
    assert found.state is DELIVERED
    beside = {"sr_labelmap", "sr_viewer", "capture", "rtstruct"}
    assert set(here.forms) == {"seg_labelmap", *beside}
    assert len(peer.got) == sum(item["objects"] for item in found.sent) > 10
    assert peer.associations == 2, "the report waits for the fate of the label map"


@pytest.mark.parametrize("seg", ["binary", "labelmap"])
def test_where_there_is_no_line_to_draw_nothing_is_sent_and_it_is_told(
    scene: NewScene, tools: Any, finish: Any, made: Any, seg: str
) -> None:
    job = finish(np.minimum(made.phantom(), 20))
    wanted = {"seg": seg, "sr": False, "sr_viewer": True}
    with store_scp() as peer:
        here = scene(tools.dimse(peer.port), of=job, profile=wanted, confirm="none")
        found = here.run()
    assert found.state is DELIVERED
    assert set(here.forms.values()) == {"confirmed"}
    assert {item["form"]: item["objects"] for item in found.sent}["sr_viewer"] == 0
    assert any("nothing to draw" in note for note in found.notes)
    assert len(peer.got) == 1


def test_labelmap_refused_goes_as_binary(scene: NewScene, tools: Any) -> None:
    with store_scp([SegmentationStorage, *ALL_CLASSES[2:]]) as peer:
        here = scene(tools.dimse(peer.port), profile={"seg": "labelmap"}, confirm="none")
        found = here.run()
    assert found.state is DELIVERED
    assert here.forms == {"seg_labelmap": "refused", "seg": "confirmed", "sr": "confirmed"}
    assert any("seg_labelmap" in note and "instead: seg" in note for note in found.notes)


@pytest.mark.parametrize(
    ("syntaxes", "forms"),
    [
        (
            [ExplicitVRLittleEndian],
            {"seg_deflated": "refused", "sr": "confirmed", "seg": "confirmed"},
        ),
        (
            [DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian],
            {"seg_deflated": "confirmed", "sr": "confirmed"},
        ),
    ],
)
def test_deflated_where_it_is_taken(
    scene: NewScene, tools: Any, syntaxes: list[str], forms: dict[str, str]
) -> None:
    with store_scp(syntaxes=syntaxes) as peer:
        here = scene(tools.dimse(peer.port), profile={"deflate": True}, confirm="none")
        assert here.run().state is DELIVERED
    assert here.forms == forms


def test_dcmtk_refuses_segmentation_storage_and_gets_pictures(
    tmp_path: Path, scene: NewScene, tools: Any
) -> None:
    folder = tmp_path / "got"
    with dcmtk_storescp(
        folder, ["SecondaryCaptureImageStorage", "Comprehensive3DSRStorage"]
    ) as port:
        here = scene(tools.dimse(port), confirm="none")
        found = here.run()
    assert found.state is DELIVERED
    assert here.forms == {"seg": "refused", "sr": "confirmed", "capture": "confirmed"}
    (capture,) = [item for item in found.sent if item["form"] == "capture"]
    assert capture["instead_of"] == "seg"
    assert any(note.endswith("; instead: capture") for note in found.notes)
    pictures = [dcmread(path) for path in folder.iterdir()]
    assert sum("BurnedInAnnotation" in picture for picture in pictures) == capture["objects"] > 5


def test_a_refusal_without_a_substitute_fails_and_may_be_retried(
    orthanc: OrthancServer, scene: NewScene, tools: Any
) -> None:
    with store_scp([SegmentationStorage]) as peer:
        here = scene(tools.dimse(peer.port), confirm="none")
        found = here.run()
    assert (found.state, found.code) == (FAILED, "pacs_refused")
    assert here.forms == {"seg": "confirmed", "sr": "refused"}
    there = here.elsewhere(tools.dimse(orthanc.dicom_port))
    there.container.deliveries.retry(found.id)
    assert there.run().state is DELIVERED


def test_a_destination_that_answers_no_question(scene: NewScene, tools: Any) -> None:
    with store_scp() as peer:
        found = scene(tools.dimse(peer.port)).run()
    assert (found.state, found.code) == (FAILED, "not_confirmable")


def test_wrong_credentials_wait_for_somebody_to_put_them_right(
    tmp_path: Path, orthanc: OrthancServer, scene: NewScene, tools: Any
) -> None:
    password = tmp_path / "password"
    password.write_text("wrong")
    node = tools.web(orthanc)
    node["dicomweb"]["password_file"] = str(password)
    here = scene(node)
    found = here.run()
    assert (found.state, found.code) == (PENDING, "pacs_denied")
    assert orthanc.count() == 0
    password.write_text(orthanc.password)
    here.until(DELIVERED)


def test_a_destination_that_is_down_holds_up_no_other(
    orthanc: OrthancServer, scene: NewScene, tools: Any
) -> None:
    dead, good = scene(tools.dimse(free_port())), scene(tools.dimse(orthanc.dicom_port))
    breakers = dead.container.deliveries.breakers
    for _ in range(5):
        assert breakers.state(dead.name) is BreakerState.CLOSED
        dead.wait_ends()
        dead.run()
    found = dead.found
    assert (found.state, found.code, found.attempts) == (PENDING, "pacs_unavailable", 5)
    assert dead.name not in dead.container.deliveries.due_destinations()
    assert good.run().state is DELIVERED

    deliver.measure(dead.container)
    value = dead.container.metrics.registry.get_sample_value
    assert value("aqcf_breakers_now", {"destination": dead.name}) == 2
    assert value("aqcf_deliveries_now", {"destination": dead.name, "state": "pending"}) == 1
    assert value("aqcf_deliveries_now", {"destination": dead.name, "state": "failed"}) == 0
    assert (value("aqcf_delivery_oldest_seconds", {"destination": dead.name}) or 0) > 0
    attempts = {"destination": dead.name, "result": "postponed"}
    assert value("aqcf_delivery_attempts_total", attempts) == 5

    dead.breaker_half_opens()
    dead.elsewhere(tools.dimse(orthanc.dicom_port)).until(DELIVERED)
    assert breakers.state(dead.name) is BreakerState.CLOSED
    assert series_of(orthanc) == BOTH


def test_out_of_resources_is_tried_again(scene: NewScene, tools: Any) -> None:
    answers = {SegmentationStorage: 0xA700}
    with store_scp(statuses=answers) as peer:
        here = scene(tools.dimse(peer.port), confirm="none")
        here.run()
        assert here.found.code == "pacs_unavailable"
        assert here.forms == {"sr": "stored"}, "it is not refused, and no picture is sent"
        answers.clear()
        here.until(DELIVERED)
    assert here.forms == {"sr": "confirmed", "seg": "confirmed"}


def test_a_failure_without_a_reason_counts_as_a_refusal_in_the_end(
    scene: NewScene, tools: Any
) -> None:
    with store_scp(statuses={SegmentationStorage: 0x0110}) as peer:
        here = scene(tools.dimse(peer.port), confirm="none")
        found = here.until(DELIVERED)
    assert found.attempts == 4
    assert here.forms == {"seg": "refused", "sr": "confirmed", "capture": "confirmed"}


def test_warnings_are_noted(scene: NewScene, tools: Any) -> None:
    with store_scp(statuses={SegmentationStorage: 0xB000}) as peer:
        found = scene(tools.dimse(peer.port), confirm="none").run()
    assert found.state is DELIVERED
    assert found.notes == ("seg: stored with a warning (0xb000)",)


def test_a_deleted_job_is_not_sent(
    orthanc: OrthancServer, scene: NewScene, tools: Any, finish: Any, made: Any
) -> None:
    here = scene(tools.dimse(orthanc.dicom_port), of=finish(made.phantom(seed=3)))
    remove(here.container, here.job.id)
    assert here.run().state is DeliveryState.CANCELLED
    assert orthanc.count() == 0


def test_a_destination_that_left_the_site_file(scene: NewScene, tools: Any) -> None:
    with store_scp() as peer:
        here = scene(tools.dimse(peer.port))
        found = replace(here, container=replace(here.container, site=Site())).run()
    assert (found.state, found.code) == (FAILED, "unknown_destination")
    assert peer.got == []


def test_a_profile_that_asks_for_nothing(scene: NewScene, tools: Any) -> None:
    with store_scp() as peer:
        found = scene(tools.dimse(peer.port), profile={"seg": "none", "sr": False}).run()
    assert (found.state, found.code) == (FAILED, "nothing_to_deliver")


class DiedError(BaseException):
    """The process is gone."""


def test_crash_between_sending_and_writing_down(
    orthanc: OrthancServer, scene: NewScene, tools: Any
) -> None:
    """The PACS has everything and the ledger knows nothing of it."""
    here = scene(tools.dimse(orthanc.dicom_port))
    attempt = Attempt(here.container, here.claim(), lambda: None, tools.patience)

    def die() -> None:
        raise DiedError

    attempt._write_down = die  # type: ignore[method-assign]
    with pytest.raises(DiedError):
        attempt.run()
    assert series_of(orthanc) == BOTH
    assert here.found.sent == ()
    here.lease_ends()
    here.until(DELIVERED)
    assert here.sends() == 2
    assert series_of(orthanc) == BOTH


def test_what_is_there_is_not_sent_again_and_what_was_lost_is(
    orthanc: OrthancServer, scene: NewScene, tools: Any
) -> None:
    """Sent and written down, then the sender dies before it asks; then the PACS loses the SEG."""
    here = scene(tools.dimse(orthanc.dicom_port))
    Attempt(here.container, here.claim(), lambda: None, tools.patience)._send_all()
    assert here.forms == {"seg": "stored", "sr": "stored"}
    forget(orthanc, "SEG")
    assert series_of(orthanc) == {"SR": [1]}
    here.lease_ends()
    found = here.until(DELIVERED)
    assert found.attempts == 2
    assert series_of(orthanc) == BOTH
    assert here.sends() == 2


def forget(orthanc: OrthancServer, modality: str) -> None:
    with orthanc.http() as http:
        for name in http.get("/series").json():
            if http.get(f"/series/{name}").json()["MainDicomTags"]["Modality"] == modality:
                http.delete(f"/series/{name}").raise_for_status()
