"""Images out of a real PACS in three ways, and out of peers that break off or lie."""

import hashlib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dicom_phantoms import ROOT, Grid, Recipe, body, write_series
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, RLELossless
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    CTImageStorage,
    MRImageStorage,
    StudyRootQueryRetrieveInformationModelGet,
)
from servers import OrthancServer
from web_peers import Answer, answering

from service.errors import UploadTooLargeError
from service.pacs.errors import PacsRefusedError, PacsUnavailableError
from service.pacs.find import find_series
from service.pacs.incoming import Limits, StoppedError
from service.pacs.retrieve import PacsSendsOnlyError, Wanted, move, retrieve
from service.site import DicomWebNode, DimseNode, Node

BOTH = pytest.mark.parametrize("way", ["dicomweb", "dimse"])
PLENTY = Limits(1024**3, 1000)
GRID = Grid()
CT, MR = f"{ROOT}.1", f"{ROOT}.2"
STUDY = f"{ROOT}.0"
BOTH_SERIES = Wanted(STUDY, (CT, MR))


@pytest.fixture
def files(tmp_path: Path, orthanc: OrthancServer) -> list[Path]:
    """A CT and an MR series of one study, loaded."""
    first = write_series(tmp_path / "ct", body(GRID), GRID, Recipe(series=1))
    second = write_series(tmp_path / "mr", body(GRID), GRID, Recipe(series=2, modality="MR"))
    orthanc.load(first + second)
    return first + second


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def pixels(files: list[Path]) -> dict[str, str]:
    """Hash of the pixels by SOP instance UID."""
    found = map(dcmread, files)
    return {one.SOPInstanceUID: hashlib.sha256(one.PixelData).hexdigest() for one in found}


@BOTH
def test_every_instance_comes_as_it_was(
    orthanc: OrthancServer, files: list[Path], out: Path, way: str
) -> None:
    taken: list[Path] = []
    count = retrieve(orthanc.node(way), BOTH_SERIES, out, PLENTY, taken=taken.append)
    assert count == len(files) == len(taken)
    assert pixels(sorted(out.iterdir())) == pixels(files)


@BOTH
@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_images_come_as_they_are_stored(
    orthanc: OrthancServer, tmp_path: Path, out: Path, way: str, syntax: str
) -> None:
    files = write_series(tmp_path / "series", body(GRID), GRID)
    for file in files:
        image = dcmread(file)
        image.compress(syntax)
        image.save_as(file)
    orthanc.load(files)
    assert retrieve(orthanc.node(way), Wanted(STUDY, (CT,)), out, PLENTY) == len(files)
    assert pixels(sorted(out.iterdir())) == pixels(files)
    assert dcmread(next(out.iterdir())).file_meta.TransferSyntaxUID == syntax


@BOTH
def test_what_is_not_there_is_an_error_without_its_uid(
    orthanc: OrthancServer, out: Path, way: str
) -> None:
    with pytest.raises((PacsUnavailableError, PacsRefusedError)) as caught:
        retrieve(orthanc.node(way), Wanted("1.2.3", ("1.2.3.4",)), out, PLENTY)
    assert not isinstance(caught.value, PacsSendsOnlyError)
    assert "1.2.3" not in caught.value.message
    assert not list(out.iterdir())


@BOTH
@pytest.mark.parametrize("limits", [Limits(10_000, 100), Limits(1024**3, 5)])
def test_limits_are_kept(
    orthanc: OrthancServer, files: list[Path], out: Path, way: str, limits: Limits
) -> None:
    with pytest.raises(UploadTooLargeError):
        retrieve(orthanc.node(way), BOTH_SERIES, out, limits)
    left = sorted(out.iterdir())
    assert len(left) <= 5
    assert sum(file.stat().st_size for file in left) <= limits.max_bytes


@BOTH
def test_it_stops_between_two_files(
    orthanc: OrthancServer, files: list[Path], out: Path, way: str
) -> None:
    with pytest.raises(StoppedError):
        retrieve(
            orthanc.node(way),
            BOTH_SERIES,
            out,
            PLENTY,
            stopping=lambda: len(list(out.iterdir())) > 3,
        )
    assert len(pixels(sorted(out.iterdir()))) == 4


@BOTH
def test_real_series_of_every_syntax_come_as_they_are_stored(
    orthanc: OrthancServer, data_dir: Path, tmp_path: Path, out: Path, way: str
) -> None:
    """RLE, JPEG, JPEG-LS and JPEG 2000, and colour in a secondary capture."""
    with zipfile.ZipFile(data_dir / "dicom" / "edge_dicom2nifti_compressed.zip") as archive:
        archive.extractall(tmp_path / "real")
    files = [path for path in (tmp_path / "real").rglob("*") if is_dicom(path)]
    orthanc.load(files)
    node, stored, before = orthanc.node(way), 0, syntaxes(files)
    for study in orthanc.tags("studies", "StudyInstanceUID"):
        found = find_series(node, study)
        wanted = Wanted(study, tuple(one.uid for one in found))
        assert retrieve(node, wanted, out, PLENTY) == sum(one.instances for one in found)
        came = [dcmread(path, stop_before_pixels=True) for path in out.iterdir()]
        for one in came:
            assert one.file_meta.TransferSyntaxUID == before[one.SOPInstanceUID]
        stored += len(came)
        for path in out.iterdir():
            path.unlink()
    assert stored == orthanc.count()


def syntaxes(files: list[Path]) -> dict[str, str]:
    heads = [dcmread(file, specific_tags=["SOPInstanceUID"]) for file in files]
    return {one.SOPInstanceUID: one.file_meta.TransferSyntaxUID for one in heads}


def is_dicom(path: Path) -> bool:
    return path.is_file() and path.read_bytes()[128:132] == b"DICM"


def test_both_interfaces_take_wado_and_a_choice_is_kept(
    orthanc: OrthancServer, files: list[Path], out: Path
) -> None:
    dead = DicomWebNode(url="http://127.0.0.1:9/dicom-web")
    node = orthanc.node("dimse").model_copy(update={"dicomweb": dead})
    with pytest.raises(PacsUnavailableError):
        retrieve(node, BOTH_SERIES, out, PLENTY)
    get = node.model_copy(update={"retrieve": "get"})
    assert retrieve(get, BOTH_SERIES, out, PLENTY) == len(files)


@contextmanager
def listening(store: Callable[[evt.Event], int]) -> Iterator[int]:
    """A listener that a PACS can send to; its port."""
    entity = AE("AQCF")
    entity.add_supported_context(CTImageStorage)
    entity.add_supported_context(MRImageStorage)
    server = entity.start_server(("127.0.0.1", 0), False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def test_c_move_sends_to_the_listener(orthanc: OrthancServer, files: list[Path]) -> None:
    got: list[str] = []

    def store(event: evt.Event) -> int:
        got.append(event.request.AffectedSOPInstanceUID)
        return 0

    told: list[int] = []
    with listening(store) as port:
        orthanc.know("AQCF", port)
        sent = move(orthanc.node(), BOTH_SERIES, "AQCF", moved=told.append)
    assert sent == len(files) == told[-1]
    assert set(got) == set(pixels(files))
    assert told == sorted(told)


def test_c_move_to_nobody_and_to_a_listener_that_refuses(
    orthanc: OrthancServer, files: list[Path]
) -> None:
    with pytest.raises(PacsRefusedError):
        move(orthanc.node(), BOTH_SERIES, "NOBODY")
    with listening(lambda _: 0xA700) as port:
        orthanc.know("AQCF", port)
        with pytest.raises((PacsUnavailableError, PacsRefusedError)):
            move(orthanc.node(), BOTH_SERIES, "AQCF")


def test_a_node_that_only_moves_says_so(orthanc: OrthancServer, out: Path) -> None:
    with pytest.raises(PacsSendsOnlyError):
        retrieve(orthanc.node(retrieve="move"), BOTH_SERIES, out, PLENTY)
    entity = AE("PEER")
    entity.add_supported_context(CTImageStorage, scu_role=True, scp_role=True)
    server = entity.start_server(("127.0.0.1", 0), False)
    node = DimseNode(host="127.0.0.1", port=server.server_address[1], ae_title="PEER")
    try:
        with pytest.raises(PacsSendsOnlyError):
            retrieve(Node(dimse=node, timeout_s=5), BOTH_SERIES, out, PLENTY)
    finally:
        server.shutdown()


@contextmanager
def getting(*answers: tuple[int, Dataset | None]) -> Iterator[Node]:
    """A peer that answers every C-GET like this."""

    def handle(_: evt.Event) -> Iterator[object]:
        yield 2
        yield from answers

    entity = AE("PEER")
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
    entity.add_supported_context(CTImageStorage, scu_role=True, scp_role=True)
    server = entity.start_server(("127.0.0.1", 0), False, evt_handlers=[(evt.EVT_C_GET, handle)])
    node = DimseNode(host="127.0.0.1", port=server.server_address[1], ae_title="PEER")
    try:
        yield Node(dimse=node, timeout_s=5)
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "kind"), [(0xA701, PacsUnavailableError), (0xC123, PacsRefusedError)]
)
def test_failures_are_typed(out: Path, status: int, kind: type[Exception]) -> None:
    with getting((status, Dataset())) as node, pytest.raises(kind):
        retrieve(node, Wanted(STUDY, (CT,)), out, PLENTY)


def test_an_instance_that_cannot_be_sent_is_not_overlooked(out: Path, tmp_path: Path) -> None:
    image = dcmread(write_series(tmp_path / "series", body(GRID), GRID)[0])
    foreign = Dataset()
    foreign.SOPClassUID, foreign.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.3"
    with getting((0xFF00, image), (0xFF00, foreign)) as node, pytest.raises(PacsUnavailableError):
        retrieve(node, Wanted(STUDY, (CT,)), out, PLENTY)


KIND = {"Content-Type": 'multipart/related; type="application/dicom"; boundary="cut here"'}
PART = b"--cut here\r\nContent-Type: application/dicom\r\n\r\nabc\r\n"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(200, PART, KIND), PacsUnavailableError),
        (Answer(200, PART + b"--cut here\r\nContent", KIND), PacsUnavailableError),
        (Answer(200, b"nonsense", KIND), PacsUnavailableError),
        (Answer(200, b"", KIND), PacsUnavailableError),
        (Answer(200, b"x", {"Content-Type": "multipart/related"}), PacsUnavailableError),
        (Answer(200, b"<html>", {"Content-Type": "text/html"}), PacsRefusedError),
        (Answer(503), PacsUnavailableError),
    ],
)
def test_answers_that_are_not_whole(out: Path, answer: Answer, kind: type[Exception]) -> None:
    with answering(answer) as (url, _):
        node = Node(dicomweb=DicomWebNode(url=url), timeout_s=5)
        with pytest.raises(kind):
            retrieve(node, Wanted(STUDY, (CT,)), out, PLENTY)
    assert all(file.read_bytes() == b"abc" for file in out.iterdir())


def test_one_instance_without_parts_is_taken(out: Path) -> None:
    with answering(Answer(200, b"abc", {"Content-Type": "application/dicom"})) as (url, asked):
        node = Node(dicomweb=DicomWebNode(url=url))
        assert retrieve(node, Wanted(STUDY, (CT,)), out, PLENTY) == 1
    assert next(out.iterdir()).read_bytes() == b"abc"
    assert "transfer-syntax=*" in asked[0].headers["accept"]


@pytest.mark.parametrize("uid", ["*", "", "../1.2"])
def test_no_wildcard_leaves_the_house(orthanc: OrthancServer, out: Path, uid: str) -> None:
    for ask in (
        lambda: retrieve(orthanc.node(), Wanted(STUDY, (uid,)), out, PLENTY),
        lambda: move(orthanc.node(), Wanted(uid, (CT,)), "AQCF"),
    ):
        with pytest.raises(PacsRefusedError):
            ask()
