"""Who gets in: titles, hosts, numbers, TLS, addresses."""

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification
from servers import wait_until
from structlog.testing import capture_logs

from service.errors import ServiceError, UnsafeAddressError
from service.listener import check_listen_address, transport
from service.listener.callers import is_known
from service.settings import Settings
from service.site import Caller, Site

ECHO = [build_context(Verification)]


def site(*callers: Caller) -> Site:
    return Site(callers=callers)


def rejection(listener: Any, **options: str) -> tuple[int, int, int] | None:
    """Result, source and reason (PS3.8 9.3.4); ``None`` when let in."""
    with listener.associated(ECHO, **options) as made:
        if made.is_established:
            return None
        answer = made.acceptor.primitive
        return answer.result, answer.result_source, answer.diagnostic


def test_callers_and_called_titles(listen: Callable[..., Any]) -> None:
    listener = listen(site(Caller(ae_title="SCANNER"), Caller(ae_title="PACS", host="10.0.0.7")))
    assert rejection(listener, calling="SCANNER") is None
    assert rejection(listener, calling="STRANGER") == (1, 1, 3)
    assert rejection(listener, calling="PACS") == (1, 1, 3)  # from another host
    assert rejection(listener, calling="SCANNER", title="OTHER") == (1, 1, 7)
    refused = listener.dcmtk("echoscu", "-aet", "STRANGER")
    assert refused.returncode != 0
    assert "Calling AE Title Not Recognized" in refused.stderr


def reasons(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    return [line["status"] for line in lines if line["event"] == "association_rejected"]


def test_the_log_says_what_a_rejected_caller_got_wrong(listen: Callable[..., Any]) -> None:
    callers = Caller(ae_title="SCANNER"), Caller(ae_title="PACS", host="10.0.0.7")
    with capture_logs() as lines:
        listener = listen(site(*callers))
        rejection(listener, calling="STRANGER")
        rejection(listener, calling="PACS")
        rejection(listener, calling="SCANNER", title="OTHER")
        small = listen(site(*callers), max_associations=1)
        with small.associated(ECHO, calling="SCANNER"):
            rejection(small, calling="SCANNER")
        wait_until(lambda: len(reasons(lines)) == 4, "not every rejection is logged")
    wanted = ["called_title", "calling_host", "calling_title", "too_many_associations"]
    assert sorted(reasons(lines)) == wanted


@pytest.mark.parametrize(
    ("host", "address", "known"),
    [
        (None, "10.0.0.8", True),
        ("10.0.0.7", "10.0.0.7", True),
        ("10.0.0.7", "::ffff:10.0.0.7", True),
        ("10.0.0.7", "10.0.0.8", False),
        ("localhost", "127.0.0.1", True),
        ("no-such-host.invalid", "10.0.0.7", False),
    ],
)
def test_a_caller_may_be_bound_to_a_host(host: str | None, address: str, known: bool) -> None:
    callers = (Caller(ae_title="PACS", host=host),)
    assert is_known(callers, "PACS ", address) is known
    assert not is_known(callers, "PACS2", address)
    assert is_known((), "ANYBODY", address)


def test_too_many_associations_are_turned_away_for_now(listen: Callable[..., Any]) -> None:
    listener = listen(max_associations=2)
    with ExitStack() as stack:
        for _ in range(2):
            assert stack.enter_context(listener.associated(ECHO)).is_established
        assert rejection(listener) == (2, 3, 2)
    wait_until(lambda: rejection(listener) is None, "nobody gets in again")


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00\x00"])
def test_callers_who_hang_up_hold_no_place(listen: Callable[..., Any], sent: bytes) -> None:
    listener = listen(max_associations=1)
    for _ in range(12):  # more than are taken in at once
        with socket.create_connection(("127.0.0.1", listener.port), timeout=5) as caller:
            caller.sendall(sent)
    wait_until(lambda: gets_in(listener), "those who hung up are waited for", 5)
    wait_until(lambda: not visitors(), "those who hung up are still there", 5)


def gets_in(listener: Any) -> bool:
    """The last of them may be taken in, or turned away, at the same moment."""
    with listener.associated(ECHO) as made:
        return bool(made.is_established)


def test_silent_callers_hold_no_place(listen: Callable[..., Any]) -> None:
    listener = listen(max_associations=1)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(socket.create_connection(("127.0.0.1", listener.port), timeout=5))
        wait_until(lambda: len(visitors()) == 2, "nobody is taken in", 5)
        assert rejection(listener) is None


def visitors() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "AcceptorThread" in thread.name]


def test_a_request_that_drips_in_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "REQUEST_S", 0.4)
    ours, theirs = socket.socketpair()
    bounded = transport.BoundedSocket(Association(AE(), "acceptor"), client_socket=ours)
    began, sent = time.monotonic(), threading.Event()

    def drip() -> None:
        while not sent.wait(0.1):
            theirs.sendall(b"\x01")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        with pytest.raises(TimeoutError):
            bounded.recv(1000)
    finally:
        sent.set()
        thread.join()
        ours.close()
        theirs.close()
    assert 0.3 < time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("host", "callers", "ca", "safe"),
    [
        ("127.0.0.1", (), None, True),
        ("192.0.2.1", (), None, False),
        ("192.0.2.1", (Caller(ae_title="PACS"),), None, True),
        ("192.0.2.1", (), Path("ca.pem"), True),
    ],
)
def test_public_addresses_need_known_callers(
    host: str, callers: tuple[Caller, ...], ca: Path | None, safe: bool
) -> None:
    settings = Settings(listen_host=host, listen_tls_ca=ca)
    if safe:
        check_listen_address(settings, site(*callers))
        return
    with pytest.raises(UnsafeAddressError, match="callers"):
        check_listen_address(settings, site(*callers))


def test_a_taken_port_is_told(listen: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ServiceError) as caught:
        listen(listen_port=taken.getsockname()[1])
    assert caught.value.code == "address_unavailable"


@dataclass(frozen=True)
class Certificates:
    """A CA of ours and what it signed, as PEM files."""

    folder: Path

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def server(self) -> dict[str, Path]:
        return {
            "listen_tls_cert": self.path("server"),
            "listen_tls_key": self.path("server-key"),
        }

    def client(self, *, shown: bool) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.path("ca"))
        if shown:
            context.load_cert_chain(self.path("client"), self.path("client-key"))
        return context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("pem"))
    ca_key = ec.generate_private_key(ec.SECP256R1())
    _write(made, "ca", ca_key, ca_key, is_ca=True)
    for name in ("server", "client"):
        _write(made, name, ec.generate_private_key(ec.SECP256R1()), ca_key, is_ca=False)
    return made


def _write(made: Certificates, name: str, key: Any, signer: Any, *, is_ca: bool) -> None:
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
    loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([loopback]), critical=False)
    )
    usage = x509.KeyUsage(True, False, False, False, False, is_ca, is_ca, False, False)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    for extension in (usage, identifier, authority):
        builder = builder.add_extension(extension, critical=extension is usage)
    pem = serialization.Encoding.PEM
    made.path(name).write_bytes(builder.sign(signer, hashes.SHA256()).public_bytes(pem))
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    made.path(f"{name}-key").write_bytes(private)


def echo(listener: Any, tls: ssl.SSLContext | None) -> bool:
    with listener.associated(ECHO, tls=tls) as made:
        return bool(made.is_established and made.send_c_echo().Status == 0)


def test_tls(listen: Callable[..., Any], certificates: Certificates) -> None:
    listener = listen(**certificates.server())
    assert echo(listener, certificates.client(shown=False))


def test_tls_with_certificates_of_callers(
    listen: Callable[..., Any], certificates: Certificates
) -> None:
    listener = listen(**certificates.server(), listen_tls_ca=certificates.path("ca"))
    assert echo(listener, certificates.client(shown=True))
    assert not echo(listener, certificates.client(shown=False))
    assert not echo(listener, None)
    assert echo(listener, certificates.client(shown=True))


def test_a_silent_connection_does_not_hold_up_handshakes(
    listen: Callable[..., Any], certificates: Certificates
) -> None:
    listener = listen(**certificates.server())
    with socket.create_connection(("127.0.0.1", listener.port)):
        assert echo(listener, certificates.client(shown=False))


def test_a_series_over_tls_with_dcmtk(
    listen: Callable[..., Any], certificates: Certificates
) -> None:
    listener = listen(**certificates.server(), listen_tls_ca=certificates.path("ca"))
    client = certificates.path("client-key"), certificates.path("client")
    listener.store(listener.series(), "+tls", *client, "+cf", certificates.path("ca"))
    listener.wait_for(1)


def test_certificates_that_cannot_be_used_are_told(
    listen: Callable[..., Any], certificates: Certificates
) -> None:
    with pytest.raises(ServiceError) as caught:
        listen(
            listen_tls_cert=certificates.path("server"),
            listen_tls_key=certificates.path("client-key"),
        )
    assert caught.value.code == "unusable_certificate"
