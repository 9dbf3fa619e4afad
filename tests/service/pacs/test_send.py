"""C-STORE and STOW-RS to real servers, and what becomes of each object."""

import json
from collections.abc import Callable, Mapping
from email import message_from_bytes
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from dicom_makers import capture, report, segmentation
from dimse_peers import ALL_CLASSES, dcmtk_storescp, store_scp
from pydicom import dcmread
from pydicom.uid import (
    ComprehensiveSRStorage,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from servers import OrthancServer, free_port
from web_peers import Answer, Asked, answering

from service.pacs.errors import PacsDeniedError, PacsUnavailableError
from service.pacs.objects import DicomObject, Fate, fate_of, read_objects
from service.pacs.send import send_dimse, send_stow
from service.site import DicomWebNode, DimseNode


@pytest.fixture
def objects(tmp_path: Path) -> tuple[DicomObject, ...]:
    """A SEG, a report and two captures."""
    made = [segmentation(tmp_path / "seg.dcm"), report(tmp_path / "sr.dcm")]
    return read_objects([*made, *(capture(tmp_path / f"{n}.dcm") for n in range(2))])


def dimse(port: int) -> DimseNode:
    return DimseNode(host="127.0.0.1", port=port, ae_title="PEER")


def orthanc_web(orthanc: OrthancServer) -> DicomWebNode:
    return DicomWebNode(
        url=orthanc.dicomweb_url, username=orthanc.username, password_file=orthanc.password_file
    )


def fates(results: Any) -> list[str]:
    return [result.fate.value for result in results]


def test_c_store_to_a_pacs_twice(orthanc: OrthancServer, objects: Any) -> None:
    for _ in range(2):
        results = send_dimse(dimse(orthanc.dicom_port), objects, "AQCF")
        assert fates(results) == ["stored"] * 4
        assert [result.note for result in results] == [None] * 4
    assert orthanc.count("instances") == 4


def test_stow_to_a_pacs_twice(orthanc: OrthancServer, objects: Any) -> None:
    for _ in range(2):
        assert fates(send_stow(orthanc_web(orthanc), objects)) == ["stored"] * 4
    assert orthanc.count("instances") == 4
    with orthanc.http() as http:
        names = http.get("/instances").json()
        found = {http.get(f"/instances/{name}/file").content for name in names}
    assert found == {sent.path.read_bytes() for sent in objects}


def test_many_objects_use_one_association(objects: Any) -> None:
    with store_scp() as peer:
        send_dimse(dimse(peer.port), objects, "AQCF")
    assert peer.associations == 1
    assert [instance for _, instance, _ in peer.got] == [sent.sop_instance for sent in objects]


def test_a_class_that_is_not_accepted(objects: Any) -> None:
    others = [sop_class for sop_class in ALL_CLASSES if sop_class != SegmentationStorage]
    with store_scp(others) as peer:
        results = send_dimse(dimse(peer.port), objects, "AQCF")
    assert fates(results) == ["refused", "stored", "stored", "stored"]
    assert "not accepted" in (results[0].note or "")


def test_a_peer_that_accepts_none_of_it(objects: Any) -> None:
    with store_scp([ComprehensiveSRStorage]) as peer:
        assert fates(send_dimse(dimse(peer.port), objects[:1], "AQCF")) == ["refused"]


def test_dcmtk_refuses_segmentation_storage(tmp_path: Path, objects: Any) -> None:
    folder = tmp_path / "got"
    taken = ["SecondaryCaptureImageStorage", "ComprehensiveSRStorage"]
    with dcmtk_storescp(folder, taken) as port:
        results = send_dimse(dimse(port), objects, "AQCF")
    assert fates(results) == ["refused", "stored", "stored", "stored"]
    kinds = sorted(dcmread(path).Modality for path in folder.iterdir())
    assert kinds == ["OT", "OT", "SR"]


def test_implicit_vr_where_nothing_else_is_taken(objects: Any) -> None:
    with store_scp(syntaxes=[ImplicitVRLittleEndian]) as peer:
        assert fates(send_dimse(dimse(peer.port), objects, "AQCF")) == ["stored"] * 4
    assert {syntax for _, _, syntax in peer.got} == {ImplicitVRLittleEndian}


def test_deflated_is_not_inflated_on_the_quiet(tmp_path: Path) -> None:
    made = [segmentation(tmp_path / "a.dcm", deflated=True), report(tmp_path / "sr.dcm")]
    with store_scp() as peer:
        results = send_dimse(dimse(peer.port), read_objects(made), "AQCF")
    assert fates(results) == ["refused", "stored"]


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        (0x0000, "stored"),
        (0xB000, "stored"),
        (0xB007, "stored"),
        (0x0111, "stored"),
        (0xA700, "busy"),
        (0xA7FF, "busy"),
        (0x0213, "busy"),
        (0x0110, "unclear"),
        (0xA900, "refused"),
        (0xC000, "refused"),
        (0x0122, "refused"),
    ],
)
def test_statuses(objects: Any, status: int, fate: str) -> None:
    with store_scp(statuses={SegmentationStorage: status}) as peer:
        results = send_dimse(dimse(peer.port), objects[:2], "AQCF")
    assert fates(results) == [fate, "stored"]
    assert results[0].status == status
    assert (results[0].note is None) is (status == 0)


def test_not_authorised_is_denied(objects: Any) -> None:
    with (
        store_scp(statuses={SegmentationStorage: 0x0124}) as peer,
        pytest.raises(PacsDeniedError),
    ):
        send_dimse(dimse(peer.port), objects, "AQCF")


def test_an_abort_in_the_middle(objects: Any) -> None:
    with store_scp(abort_after=1) as peer, pytest.raises(PacsUnavailableError, match="broke off"):
        send_dimse(dimse(peer.port), objects, "AQCF")


def test_nobody_there(objects: Any) -> None:
    port = free_port()
    with pytest.raises(PacsUnavailableError):
        send_dimse(dimse(port), objects, "AQCF")
    with pytest.raises(PacsUnavailableError):
        send_stow(DicomWebNode(url=f"http://127.0.0.1:{port}"), objects)


def test_who_has_to_stop_stops_between_objects(objects: Any) -> None:
    calls = []

    def alive() -> None:
        calls.append(1)
        if len(calls) > 2:
            raise InterruptedError

    with store_scp() as peer, pytest.raises(InterruptedError):
        send_dimse(dimse(peer.port), objects, "AQCF", alive=alive)
    assert len(peer.got) == 2


def reply(failed: Mapping[str, int] | None, stored: Mapping[str, int | None]) -> bytes:
    """A store response; a number in ``stored`` is a warning reason."""

    def items(named: Mapping[str, int | None], tag: str) -> list[dict[str, Any]]:
        found = []
        for uid, reason in named.items():
            item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
            if reason is not None:
                item[tag] = {"vr": "US", "Value": [reason]}
            found.append(item)
        return found

    body: dict[str, Any] = {"00081199": {"vr": "SQ", "Value": items(stored, "00081196")}}
    if failed is not None:
        body["00081198"] = {"vr": "SQ", "Value": items(failed, "00081197")}
    return json.dumps(body).encode()


def per_class(answers: Mapping[str, Callable[[list[str]], Answer]]) -> Callable[[Asked], Answer]:
    """A STOW-RS server that answers by SOP class, given the SOP instance UIDs of the request."""

    def answer(asked: Asked) -> Answer:
        head = f"Content-Type: {asked.headers['content-type']}\r\n\r\n".encode()
        parts = message_from_bytes(head + asked.body).get_payload()
        assert isinstance(parts, list)
        found = []
        for part in parts:
            data = part.get_payload(decode=True)
            assert isinstance(data, bytes)
            assert data[128:132] == b"DICM"
            found.append(dcmread(BytesIO(data)))
        uids = [dataset.SOPInstanceUID for dataset in found]
        return answers[found[0].SOPClassUID](uids)

    return answer


def accept(uids: list[str]) -> Answer:
    return Answer(200, reply(None, dict.fromkeys(uids)))


def test_stow_partial_failure(objects: Any) -> None:
    def partly(uids: list[str]) -> Answer:
        return Answer(202, reply({uids[0]: 0xA700}, {uids[1]: 0xB007}))

    server = per_class(
        {
            SegmentationStorage: lambda uids: Answer(409, reply({uids[0]: 0x0122}, {})),
            ComprehensiveSRStorage: lambda uids: Answer(200, reply({}, dict.fromkeys(uids))),
            SecondaryCaptureImageStorage: partly,
        }
    )
    with answering(server) as (url, asked):
        results = send_stow(DicomWebNode(url=url), objects)
    assert fates(results) == ["refused", "stored", "busy", "stored"]
    assert [result.status for result in results] == [0x0122, 0, 0xA700, 0xB007]
    assert [request.path for request in asked] == ["/studies"] * 3
    assert int(asked[0].headers["content-length"]) == len(asked[0].body)
    assert "transfer-encoding" not in asked[0].headers


@pytest.mark.parametrize(
    ("answer", "fate"),
    [
        (Answer(200), "stored"),
        (Answer(200, b"<NativeDicomModel/>"), "stored"),
        (Answer(200, b"[]"), "stored"),
        (Answer(409), "refused"),
        (Answer(415), "refused"),
        (Answer(409, reply({"1.2": 0xA900}, {})), "unclear"),
        (Answer(200, b'{"00081198": 5}'), "stored"),
        (Answer(200, b'{"00081198": {"Value": [5, {"00081155": {}}]}}'), "stored"),
    ],
)
def test_answers_that_say_little(objects: Any, answer: Answer, fate: str) -> None:
    with answering(answer) as (url, _):
        assert fates(send_stow(DicomWebNode(url=url), objects[:1])) == [fate]


def test_stow_unavailable_and_denied(objects: Any) -> None:
    with answering(Answer(503)) as (url, _), pytest.raises(PacsUnavailableError):
        send_stow(DicomWebNode(url=url), objects)
    with answering(Answer(401)) as (url, _), pytest.raises(PacsDeniedError):
        send_stow(DicomWebNode(url=url), objects)


def test_deflated_says_so_in_its_part(tmp_path: Path) -> None:
    made = read_objects([segmentation(tmp_path / "a.dcm", deflated=True)])
    with answering(Answer(200)) as (url, asked):
        send_stow(DicomWebNode(url=url), made)
    assert b"transfer-syntax=1.2.840.10008.1.2.1.99" in asked[0].body[:300]


NOTHING = b'{"00081198": {"vr": "SQ"}, "00081199": {"vr": "SQ"}}'


def test_a_part_that_was_dropped_for_its_syntax_goes_without(tmp_path: Path) -> None:
    made = read_objects([segmentation(tmp_path / "a.dcm", deflated=True)])
    stored = reply({}, {made[0].sop_instance: 0})
    answers = [Answer(200, NOTHING), Answer(200, stored)]
    with answering(lambda _: answers.pop(0)) as (url, asked):
        assert fates(send_stow(DicomWebNode(url=url), made)) == ["stored"]
    assert b"transfer-syntax" not in asked[1].body[:300]


def test_a_part_that_is_dropped_again_is_not_stored(tmp_path: Path) -> None:
    made = read_objects([segmentation(tmp_path / "a.dcm", deflated=True)])
    with answering(Answer(200, NOTHING)) as (url, asked):
        assert fates(send_stow(DicomWebNode(url=url), made)) == ["unclear"]
    assert len(asked) == 2


def test_orthanc_takes_deflated_objects(tmp_path: Path, orthanc: OrthancServer) -> None:
    made = read_objects([segmentation(tmp_path / "a.dcm", deflated=True)])
    node = orthanc.node().dicomweb
    assert node is not None
    assert fates(send_stow(node, made)) == ["stored"]
    assert orthanc.count() == 1


def test_every_status_has_a_fate() -> None:
    assert {fate_of(status) for status in range(0x10000)} == set(Fate)
