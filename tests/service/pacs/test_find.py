"""Questions to a real PACS by both protocols, and to peers that answer badly."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from dicom_phantoms import ROOT, Grid, Recipe, body, write_enhanced, write_series
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)
from servers import OrthancServer
from web_peers import Answer, Asked, answering

from model.errors import InputError
from service.pacs.errors import PacsDeniedError, PacsRefusedError, PacsUnavailableError
from service.pacs.find import count_instances, find_instances, find_series, find_studies
from service.site import DicomWebNode, DimseNode, Node, SeriesFacts

STUDY = f"{ROOT}.0"
BOTH = pytest.mark.parametrize("way", ["dicomweb", "dimse"])
GRID = Grid()


def described(words: str, part: str) -> Callable[[Dataset, int], None]:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.SeriesDescription, dataset.BodyPartExamined = words, part

    return edit


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A CT and a coronal MR series of one study."""
    ct = Recipe(series=1, edit=described("Abdomen venös", "ABDOMEN"))
    mr = Recipe(series=2, modality="MR", edit=described("T1 in phase", "LIVER"))
    coronal = Grid(orientation=(1, 0, 0, 0, 0, -1), spacing=(2.5, 1.0, 1.0))
    first = write_series(tmp_path / "ct", body(GRID), GRID, ct)
    return first + write_series(tmp_path / "mr", body(coronal), coronal, mr)


@BOTH
def test_series_with_what_rules_ask_of_them(
    orthanc: OrthancServer, files: list[Path], way: str
) -> None:
    orthanc.load(files)
    first, second = find_series(orthanc.node(way), STUDY)
    assert (first.uid, first.number, first.study_uid) == (f"{ROOT}.1", 1, STUDY)
    assert first.facts == SeriesFacts("CT", "Abdomen venös", "ABDOMEN", 5.0, 8, "", "axial")
    assert second.facts == SeriesFacts("MR", "T1 in phase", "LIVER", 2.5, 8, "", "coronal")
    quick = find_series(orthanc.node(way), STUDY, details=False)
    assert [one.facts.thickness_mm for one in quick] == [None, None]


@BOTH
def test_frames_of_an_enhanced_image_are_images(
    orthanc: OrthancServer, tmp_path: Path, way: str
) -> None:
    orthanc.load([write_enhanced(tmp_path / "enhanced.dcm", [body(GRID)], GRID)])
    (found,) = find_series(orthanc.node(way), STUDY)
    assert (found.instances, found.facts.images) == (1, 8)
    assert list(count_instances(orthanc.node(way), STUDY).values()) == [1]


@BOTH
def test_counts_grow_while_they_are_asked(
    orthanc: OrthancServer, files: list[Path], way: str
) -> None:
    node, uid = orthanc.node(way), f"{ROOT}.1"
    loading = threading.Thread(target=orthanc.load, args=(files,))
    loading.start()
    counts = [0]
    while loading.is_alive():
        counts.append(count_instances(node, STUDY).get(uid, 0))
    loading.join()
    assert counts == sorted(counts)
    assert count_instances(node, STUDY) == {uid: 8, f"{ROOT}.2": 8}


@BOTH
def test_instances_and_studies(orthanc: OrthancServer, files: list[Path], way: str) -> None:
    orthanc.load(files)
    node = orthanc.node(way)
    found = find_instances(node, STUDY, f"{ROOT}.2")
    assert sorted(found) == sorted(f"{ROOT}.2.{number}" for number in range(1, 9))
    assert find_studies(node, "20200101", "ct") == (STUDY,)
    assert find_studies(node, "20191230-20200102") == (STUDY,)
    assert find_studies(node, "20200101", "US") == ()
    assert find_studies(node, "20200102") == ()


@BOTH
def test_what_is_not_there_is_empty(orthanc: OrthancServer, way: str) -> None:
    node = orthanc.node(way)
    assert find_series(node, "1.2.3") == ()
    assert count_instances(node, "1.2.3") == {}
    assert find_instances(node, "1.2.3", "1.2.3.4") == ()


@BOTH
@pytest.mark.parametrize("uid", ["", "*", "1.2.*", "1.2/../3", "1" * 65, "1..2", "1.2\\3"])
def test_only_a_uid_is_asked_for(orthanc: OrthancServer, way: str, uid: str) -> None:
    with pytest.raises(InputError) as caught:
        find_series(orthanc.node(way), uid)
    assert caught.value.code == "invalid_uid"
    assert not uid or uid not in caught.value.message


def test_only_a_date_is_asked_for(orthanc: OrthancServer) -> None:
    for date in ("", "*", "2020-01-01", "20200101-"):
        with pytest.raises(InputError) as caught:
            find_studies(orthanc.node(), date)
        assert caught.value.code == "invalid_date"


@BOTH
def test_a_dead_pacs_is_unavailable(tmp_path: Path, way: str) -> None:
    dead = OrthancServer(tmp_path)
    dead.password_file.write_text("any")
    with pytest.raises(PacsUnavailableError):
        count_instances(dead.node(way, timeout_s=1), STUDY)


def test_a_wrong_password_is_denied(orthanc: OrthancServer, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("guess")
    node = DicomWebNode(url=orthanc.dicomweb_url, username="tester", password_file=wrong)
    with pytest.raises(PacsDeniedError):
        count_instances(Node(dicomweb=node), STUDY)


@contextmanager
def finding(*answers: tuple[int, dict[str, object] | None]) -> Iterator[Node]:
    """A peer that gives the same answers to every C-FIND, of the level that is asked for."""

    def answer(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        level = event.identifier.QueryRetrieveLevel
        for status, values in answers:
            found = Dataset()
            with disable_value_validation():
                for keyword, value in ({} if values is None else values).items():
                    setattr(found, keyword, value)
            if values is None or values.get("QueryRetrieveLevel", level) == level:
                yield status, None if values is None else found

    entity = AE("PEER")
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    server = entity.start_server(("127.0.0.1", 0), False, evt_handlers=[(evt.EVT_C_FIND, answer)])
    try:
        port = server.server_address[1]
        yield Node(dimse=DimseNode(host="127.0.0.1", port=port, ae_title="PEER"), timeout_s=5)
    finally:
        server.shutdown()


def series(uid: str, **more: object) -> tuple[int, dict[str, object]]:
    return 0xFF00, {"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": uid} | more


def image(uid: str) -> tuple[int, dict[str, object]]:
    return 0xFF00, {"QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": uid}


def test_an_archive_that_does_not_count_is_counted() -> None:
    with finding(series("1.2.3"), image("1.2.3.1"), image("1.2.3.2")) as node:
        assert count_instances(node, STUDY) == {"1.2.3": 2}


def test_odd_answers_do_not_hide_the_others() -> None:
    answers = [
        series("*", NumberOfSeriesRelatedInstances=1),
        series("1.2.3", NumberOfSeriesRelatedInstances=7, Modality="CT"),
    ]
    with finding(*answers) as node:
        (found,) = find_series(node, STUDY)
    assert (found.uid, found.facts) == ("1.2.3", SeriesFacts("CT", images=7))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(0xA700, PacsUnavailableError), (0xA900, PacsRefusedError), (0xC001, PacsRefusedError)],
)
def test_failures_of_a_question_are_typed(status: int, kind: type[Exception]) -> None:
    with finding((status, None)) as node, pytest.raises(kind):
        count_instances(node, STUDY)


def test_a_node_that_answers_no_questions_refuses() -> None:
    entity = AE("PEER")
    entity.add_supported_context(Verification)
    server = entity.start_server(("127.0.0.1", 0), False)
    node = DimseNode(host="127.0.0.1", port=server.server_address[1], ae_title="PEER")
    try:
        with pytest.raises(PacsRefusedError):
            count_instances(Node(dimse=node), STUDY)
    finally:
        server.shutdown()


def dicom_json(*found: dict[str, Any]) -> Answer:
    kind = {"Content-Type": "application/dicom+json"}
    return Answer(200, json.dumps(found).encode(), kind)


def as_json(**values: tuple[str, object]) -> dict[str, Any]:
    tags = {"series": "0020000E", "count": "00201209", "study": "0020000D", "image": "00080018"}
    return {tags[name]: {"vr": vr, "Value": [value]} for name, (vr, value) in values.items()}


def web_node(url: str) -> Node:
    return Node(dicomweb=DicomWebNode(url=url), timeout_s=5)


def test_a_server_that_cannot_page_is_asked_twice_at_most() -> None:
    found = [as_json(image=("UI", f"1.2.{number}")) for number in range(500)]
    with answering(dicom_json(*found)) as (url, asked):
        assert len(find_instances(web_node(url), STUDY, "1.2")) == 500
    assert len(asked) == 2


def test_pages_are_put_together() -> None:
    found = [as_json(study=("UI", f"1.2.{number}")) for number in range(1203)]

    def page(request: Asked) -> Answer:
        offset = int(request.path.partition("offset=")[2])
        return dicom_json(*found[offset : offset + 500])

    with answering(page) as (url, asked):
        assert len(find_studies(web_node(url), "20200101")) == 1203
    assert len(asked) == 3


def test_odd_json_does_not_hide_the_rest() -> None:
    odd = as_json(series=("UI", "1.2.3"), count=("IS", 4)) | {"00080060": {"vr": "??"}, "x": {}}
    with answering(dicom_json(odd, {}, as_json(count=("IS", "many")))) as (url, _):
        assert count_instances(web_node(url), STUDY) == {"1.2.3": 4}


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[1]", b'{"a":'])
def test_what_is_no_dicom_json_is_unavailable(body: bytes) -> None:
    with answering(Answer(200, body)) as (url, _), pytest.raises(PacsUnavailableError):
        count_instances(web_node(url), STUDY)


def test_no_content_is_nothing() -> None:
    with answering(Answer(204)) as (url, _):
        assert count_instances(web_node(url), STUDY) == {}
