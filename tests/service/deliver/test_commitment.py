"""Storage commitment that comes late, from archives that report hours after they were asked."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from dimse_peers import store_scp
from pynetdicom import AE
from servers import OrthancServer, free_port, wait_until

from service import deliver
from service.deliver.attempt import Attempt
from service.domain import DeliveryState
from service.errors import NotConfirmedError
from service.pacs.commitment import Report, accept_reports
from service.pacs.confirm import Patience
from service.pacs.errors import PacsUnavailableError

DELIVERED, PENDING, FAILED = DeliveryState.DELIVERED, DeliveryState.PENDING, DeliveryState.FAILED
HASTY = Patience(report_s=0.0, linger_s=0.0)
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"

NewScene = Callable[..., Any]


@contextmanager
def reports_taken(hear: Callable[[Report], object]) -> Iterator[int]:
    entity, port = AE("AQCF"), free_port()
    handler = accept_reports(entity, hear)
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[handler])
    try:
        yield port
    finally:
        server.shutdown()


def test_a_report_that_comes_late_delivers(
    orthanc: OrthancServer, scene: NewScene, tools: Any
) -> None:
    """Storage commitment, told on an association of the PACS after the sender stopped waiting."""
    here = scene(tools.dimse(orthanc.dicom_port), confirm="commitment")
    given_up = threading.Event()

    def hear(report: Report) -> None:
        given_up.wait(30)
        deliver.hear(here.container, report)

    with reports_taken(hear) as port:
        orthanc.know("AQCF", port)
        with pytest.raises(NotConfirmedError):
            Attempt(here.container, here.claim(), lambda: None, HASTY).run()
        assert here.forms == {"seg": "stored", "sr": "stored"}
        given_up.set()
        wait_until(lambda: here.found.committed is True, "no report", 30)
    here.lease_ends()
    found = here.until(DELIVERED)
    assert {item["confirmed_by"] for item in found.sent} == {"commitment"}
    assert sorted(orthanc.tags("series", "Modality")) == ["SEG", "SR"]
    assert here.sends() == 1


def test_an_archive_that_reports_over_night_is_heard(scene: NewScene, tools: Any) -> None:
    """It was asked three times by then, and tells what it was asked first."""
    with store_scp(commits=True) as peer:
        here = scene(tools.dimse(peer.port), confirm="commitment")
        for _ in range(3):
            here.wait_ends()
            waiting = here.run(HASTY)
            assert (waiting.state, waiting.code) == (PENDING, "not_confirmed")
        with reports_taken(partial(deliver.hear, here.container)) as port:
            assert peer.report(port, peer.asked[0]) == 0
            assert peer.report(port, peer.asked[1], committed=False) == 0
            assert here.run(HASTY).state is DELIVERED
            assert peer.report(port, peer.asked[2]) == 0
    assert here.forms == {"seg": "confirmed", "sr": "confirmed"}
    assert len({request.TransactionUID for request in peer.asked}) == len(peer.asked) == 3
    assert (here.sends(), len(peer.got)) == (1, 2)


def test_a_failure_that_is_reported_over_night_sends_again(scene: NewScene, tools: Any) -> None:
    """Then only what is asked after that counts."""
    with store_scp(commits=True) as peer:
        here = scene(tools.dimse(peer.port), confirm="commitment")
        for _ in range(2):
            here.wait_ends()
            assert here.run(HASTY).code == "not_confirmed"
        with reports_taken(partial(deliver.hear, here.container)) as port:
            peer.report(port, peer.asked[0], committed=False)
            assert here.run(HASTY).state is PENDING
            assert here.sends() == 2
            for old in peer.asked[:3]:
                peer.report(port, old)
            assert here.found.committed is None
            peer.report(port, peer.asked[3])
            assert here.run(HASTY).state is DELIVERED
    assert (here.sends(), len(peer.got), len(peer.asked)) == (2, 4, 4)


def test_a_report_is_of_what_it_was_asked_for_and_of_nothing_that_was_sent_later(
    scene: NewScene, tools: Any
) -> None:
    """The SEG is promised; then the SR is sent, and the sender dies before it asks again."""
    with store_scp(statuses={COMPREHENSIVE_3D_SR: 0xA700}) as full:
        here = scene(tools.dimse(full.port), confirm="commitment")
        claimed, me = here.claim(), here.container.worker_id
        with pytest.raises(PacsUnavailableError):
            Attempt(here.container, claimed, lambda: None, tools.patience)._send_all()
    deliveries = here.container.deliveries
    assert deliveries.await_commitment(claimed.id, me, "2.25.77")
    assert deliver.hear(here.container, Report("2.25.77", committed=True))
    here.lease_ends()
    with store_scp() as peer:
        there = here.elsewhere(tools.dimse(peer.port), confirm="commitment")
        attempt = Attempt(there.container, there.claim(), lambda: None, tools.patience)
        attempt._ask_after_earlier()
        attempt._send_all()
        assert there.forms == {"seg": "confirmed", "sr": "stored"}
        there.lease_ends()
        found = there.run()
    assert (found.state, found.code) == (FAILED, "not_confirmable")
    assert there.forms["sr"] != "confirmed"
