"""Associations with a real PACS, and with servers that misbehave."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, Verification
from servers import OrthancServer, free_port, wait_until

from service.pacs.association import Timeouts, association
from service.pacs.errors import PacsDeniedError, PacsRefusedError, PacsUnavailableError
from service.site import DimseNode, Tls

LITTLE = "1.2.840.10008.1.2"
ECHO = [(Verification, [LITTLE])]
QUICK = Timeouts(connect_s=0.5, acse_s=0.5, dimse_s=0.5, network_s=0.5)


def node(port: int, **changes: object) -> DimseNode:
    return DimseNode.model_validate(
        {"host": "127.0.0.1", "port": port, "ae_title": "PEER"} | changes
    )


@contextmanager
def listening(entity: AE, **options: object) -> Iterator[int]:
    server = entity.start_server(("127.0.0.1", 0), block=False, **options)
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def test_echo_with_no_delay_on_the_socket(orthanc: OrthancServer) -> None:
    with association(node(orthanc.dicom_port), ECHO, "AQCF") as made:
        assert made.send_c_echo().Status == 0
        sock = made.dul.socket.socket
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.gettimeout() == Timeouts().network_s
    assert made.is_released


def test_an_error_aborts(orthanc: OrthancServer) -> None:
    with (
        pytest.raises(KeyError),
        association(node(orthanc.dicom_port), ECHO, "AQCF") as made,
    ):
        raise KeyError
    assert made.is_aborted or not made.is_established


def test_a_peer_that_goes_between_two_questions_is_unavailable() -> None:
    entity, told = AE("PEER"), threading.Event()
    entity.add_supported_context(Verification)

    def leave(event: evt.Event) -> None:
        told.wait(10)
        event.assoc.abort()

    def ask(port: int) -> None:
        with association(node(port), ECHO, "AQCF") as made:
            told.set()
            wait_until(lambda: not made.is_established, "it stays")
            made.send_c_echo()

    with (
        listening(entity, evt_handlers=[(evt.EVT_ESTABLISHED, leave)]) as port,
        pytest.raises(PacsUnavailableError, match="broke off"),
    ):
        ask(port)


def test_an_error_of_ours_stays_what_it_is(orthanc: OrthancServer) -> None:
    with (
        pytest.raises(RuntimeError, match="ours"),
        association(node(orthanc.dicom_port), ECHO, "AQCF"),
    ):
        raise RuntimeError("ours")


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_nobody_there(host: str) -> None:
    with (
        pytest.raises(PacsUnavailableError, match="not reached"),
        association(node(free_port(), host=host), ECHO, "AQCF"),
    ):
        pass


def test_a_peer_that_says_nothing_does_not_hold_us() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        start = time.monotonic()
        with (
            pytest.raises(PacsUnavailableError),
            association(node(mute.getsockname()[1]), ECHO, "AQCF", timeouts=QUICK),
        ):
            pass
    assert time.monotonic() - start < 5


def test_no_common_context_is_a_refusal() -> None:
    entity = AE("PEER")
    entity.add_supported_context(Verification)
    with (
        listening(entity) as port,
        pytest.raises(PacsRefusedError),
        association(node(port), [(CTImageStorage, [LITTLE])], "AQCF"),
    ):
        pass


def test_an_unknown_caller_is_denied() -> None:
    entity = AE("PEER")
    entity.add_supported_context(Verification)
    entity.require_calling_aet = ["SOMEBODY"]
    with (
        listening(entity) as port,
        pytest.raises(PacsDeniedError, match="alling AE"),
        association(node(port), ECHO, "AQCF"),
    ):
        pass


def test_a_full_peer_is_unavailable() -> None:
    entity = AE("PEER")
    entity.add_supported_context(Verification)
    entity.maximum_associations = 1
    with listening(entity) as port, association(node(port), ECHO, "FIRST"):
        with (
            pytest.raises(PacsUnavailableError) as caught,
            association(node(port), ECHO, "SECOND"),
        ):
            pass
        assert not isinstance(caught.value, PacsDeniedError)


def test_tls(tls_files: dict[str, Path]) -> None:
    entity = AE("PEER")
    entity.add_supported_context(Verification)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls_files["ca"])
    server.load_cert_chain(tls_files["cert"], tls_files["key"])
    server.verify_mode = ssl.CERT_REQUIRED
    ours = Tls(ca=tls_files["ca"], cert=tls_files["cert"], key=tls_files["key"])
    with listening(entity, ssl_context=server) as port:
        with association(node(port, tls=ours, host="localhost"), ECHO, "AQCF") as made:
            assert made.send_c_echo().Status == 0
        with (
            pytest.raises(PacsUnavailableError),
            association(node(port, host="localhost"), ECHO, "AQCF", timeouts=QUICK),
        ):
            pass


def test_missing_tls_files_are_told(tmp_path: Path) -> None:
    with (
        pytest.raises(PacsDeniedError, match="tls"),
        association(node(1, tls=Tls(ca=tmp_path / "none")), ECHO, "AQCF"),
    ):
        pass


def test_the_reactor_is_paused_before_anything_is_asked(orthanc: OrthancServer) -> None:
    """Whoever clears the checkpoint sees "paused" only when the reactor waits there."""
    with association(node(orthanc.dicom_port), ECHO, "AQCF") as made:
        for _ in range(200):
            made._reactor_checkpoint.clear()
            deadline = time.monotonic() + 5
            while not made._is_paused and time.monotonic() < deadline:
                pass
            made.dimse.msg_queue.put((1, "untouched"))
            time.sleep(0.0005)
            assert made.dimse.msg_queue.get_nowait() == (1, "untouched")
            made._reactor_checkpoint.set()


def test_threads_end(orthanc: OrthancServer) -> None:
    before = threading.active_count()
    for _ in range(3):
        with association(node(orthanc.dicom_port), ECHO, "AQCF") as made:
            made.send_c_echo()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
