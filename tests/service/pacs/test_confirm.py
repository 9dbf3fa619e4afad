"""Asking back: QIDO-RS, C-FIND and storage commitment with Orthanc, and with what offers less."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from dicom_makers import capture, report, segmentation
from dimse_peers import store_scp
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from servers import OrthancServer, free_port
from web_peers import Answer, answering

from service.pacs.commitment import Report, accept_reports
from service.pacs.confirm import Commitments, Confirmation, Patience, confirm, ways_of
from service.pacs.errors import PacsDeniedError, PacsRefusedError, PacsUnavailableError
from service.pacs.objects import DicomObject, read_objects
from service.pacs.send import send_dimse
from service.site import Destination, DicomWebNode, DimseNode, Node

PUSH = "1.2.840.10008.1.20.1"
EXPLICIT = "1.2.840.10008.1.2.1"
QUICK = Patience(pause_s=0.05, report_s=20.0)


class Ledger:
    """A ledger of one transaction."""

    def __init__(self) -> None:
        self.uid = ""
        self.known: bool | None = None
        self.side = Commitments(self._begin, self.heard, lambda: self.known)

    def _begin(self, uid: str) -> None:
        self.uid, self.known = uid, None

    def heard(self, told: Report) -> None:
        if told.transaction_uid == self.uid:
            self.known = told.committed


@pytest.fixture
def objects(tmp_path: Path) -> tuple[DicomObject, ...]:
    made = [segmentation(tmp_path / "seg.dcm"), report(tmp_path / "sr.dcm")]
    return read_objects([*made, capture(tmp_path / "c.dcm")])


@pytest.fixture
def node(orthanc: OrthancServer) -> Node:
    return Node(
        dimse=DimseNode(host="127.0.0.1", port=orthanc.dicom_port, ae_title="PEER"),
        dicomweb=DicomWebNode(
            url=orthanc.dicomweb_url, username=orthanc.username, password_file=orthanc.password_file
        ),
    )


def asked(
    node: Node,
    objects: Any,
    confirmed_by: str = "auto",
    ledger: Ledger | None = None,
    patience: Patience = QUICK,
    **more: Any,
) -> Confirmation:
    destination = Destination.model_validate(
        {"node": "pacs", "by": "dimse", "confirm": confirmed_by} | more
    )
    side = (ledger or Ledger()).side
    return confirm(node, destination, objects, "AQCF", side, patience=patience)


@pytest.mark.parametrize("way", ["qido", "find"])
def test_asking_finds_what_is_there_and_what_is_not(node: Node, objects: Any, way: str) -> None:
    assert node.dimse is not None
    assert asked(node, objects[:1], way).missing == objects[:1]
    send_dimse(node.dimse, objects[1:], "AQCF")
    found = asked(node, objects, way)
    assert (found.way, found.missing) == (way, objects[:1])
    assert asked(node, objects[1:], way).missing == ()


@contextmanager
def reports_taken(ledger: Ledger, port: int) -> Iterator[None]:
    entity = AE("AQCF")
    handler = accept_reports(entity, ledger.heard)
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[handler])
    try:
        yield
    finally:
        server.shutdown()


def test_commitment_comes_on_an_association_of_the_pacs(
    orthanc: OrthancServer, node: Node, objects: Any
) -> None:
    assert node.dimse is not None
    send_dimse(node.dimse, objects, "AQCF")
    ledger, port = Ledger(), free_port()
    orthanc.know("AQCF", port)
    with reports_taken(ledger, port):
        assert asked(node, objects, "commitment", ledger).missing == ()
    assert ledger.known is True


def test_commitment_of_what_is_not_there_fails(
    orthanc: OrthancServer, node: Node, objects: Any
) -> None:
    ledger, port = Ledger(), free_port()
    orthanc.know("AQCF", port)
    with reports_taken(ledger, port):
        assert asked(node, objects, "commitment", ledger).missing == objects
    assert ledger.known is False


@contextmanager
def committing(report_of: Callable[[Dataset], tuple[int, Dataset]]) -> Iterator[int]:
    """A peer that reports on the association of the request."""

    def act(event: evt.Event) -> tuple[int, None]:
        kind, information = report_of(event.action_information)

        def tell() -> None:
            event.assoc.send_n_event_report(information, kind, PUSH, "1.2.840.10008.1.20.1.1")

        threading.Timer(0.1, tell).start()
        return 0x0000, None

    entity = AE("PEER")
    entity.add_supported_context(PUSH, [EXPLICIT])
    handlers = [(evt.EVT_N_ACTION, act)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def peer(port: int) -> Node:
    return Node(dimse=DimseNode(host="127.0.0.1", port=port, ae_title="PEER"), timeout_s=5)


def whole(request: Dataset) -> tuple[int, Dataset]:
    return 1, request


def partial(request: Dataset) -> tuple[int, Dataset]:
    answer = Dataset()
    answer.TransactionUID = request.TransactionUID
    answer.ReferencedSOPSequence = request.ReferencedSOPSequence[1:]
    answer.FailedSOPSequence = request.ReferencedSOPSequence[:1]
    answer.FailedSOPSequence[0].FailureReason = 0x0112
    return 2, answer


@pytest.mark.parametrize(("told", "known"), [(whole, True), (partial, False)])
def test_commitment_on_the_same_association(objects: Any, told: Any, known: bool) -> None:
    ledger = Ledger()
    with committing(told) as port:
        missing = asked(peer(port), objects, "commitment", ledger).missing
    assert ledger.known is known
    assert missing == (() if known else objects)


def test_no_report_in_time_is_not_yet_confirmed(objects: Any) -> None:
    def other(request: Dataset) -> tuple[int, Dataset]:
        request.TransactionUID = "2.25.1"
        return 1, request

    ledger = Ledger()
    hasty = Patience(linger_s=0.5, report_s=0.6)
    with committing(other) as port:
        found = asked(peer(port), objects, "commitment", ledger, hasty)
    assert (found.missing, found.waiting, ledger.known) == (objects, True, None)


def test_auto_goes_on_to_what_is_offered(objects: Any) -> None:
    with committing(whole) as port:
        assert asked(peer(port), objects).way == "commitment"


def test_nothing_is_offered(objects: Any) -> None:
    with store_scp() as server, pytest.raises(PacsRefusedError) as caught:
        asked(peer(server.port), objects)
    assert caught.value.code == "not_confirmable"


def test_a_denial_is_told_in_the_end(objects: Any) -> None:
    with answering(Answer(403)) as (url, _), pytest.raises(PacsDeniedError, match="403"):
        asked(Node(dicomweb=DicomWebNode(url=url)), objects, by="dicomweb")


def test_unavailable_does_not_go_on(objects: Any) -> None:
    with pytest.raises(PacsUnavailableError):
        asked(peer(free_port()), objects)


def test_none_asks_nobody(objects: Any) -> None:
    assert asked(peer(free_port()), objects, "none") == Confirmation("none", ())


def test_the_order_of_ways(node: Node) -> None:
    def ways(found: Node, **more: str) -> tuple[str, ...]:
        return ways_of(found, Destination.model_validate({"node": "n", "by": "dimse"} | more))

    assert ways(node) == ("find", "commitment", "qido")
    assert ways(node, by="dicomweb") == ("qido", "find", "commitment")
    assert ways(node, confirm="qido") == ("qido",)
    assert ways(peer(1)) == ("find", "commitment")
