"""Connections: small packets at once, handshakes off the accepting thread, bounded memory."""

import errno
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from socketserver import BaseRequestHandler, BaseServer
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.transport import (
    AddressInformation,
    AssociationSocket,
    ThreadedAssociationServer,
)

from ..observability import get_logger

MAX_PDU_BYTES = 2**18  # that we ask senders to keep to
MAX_RECEIVED_BYTES = 2**21  # of one PDU: a long list of proposed contexts has no limit of its own
SILENCE_S = 60.0
HANDSHAKE_S = 10.0
REQUEST_S = 15.0
CONNECTIONS_PER_ASSOCIATION = 4

log = get_logger("service.listener")

MakeAssociation = Callable[[AE], Association]


class Server(ThreadedAssociationServer):
    """Accepts connections; each gets a thread, an association and a handshake there."""

    def __init__(
        self,
        ae: AE,
        address: tuple[str, int],
        make: MakeAssociation,
        tls: ssl.SSLContext | None,
        handlers: Sequence[Any],
    ) -> None:
        self.make = make
        self.tls = tls
        super().__init__(
            ae, address, ae.ae_title, ae.supported_contexts, None, list(handlers), Connection
        )

    def get_request(self) -> tuple[socket.socket, Any]:
        listening: Any = self.socket
        accepted, address = listening.accept()
        accepted.settimeout(SILENCE_S)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return accepted, address

    def verify_request(self, _request: Any, _address: Any) -> bool:
        """Connections that never ask for an association must not use up threads."""
        return (
            len(self.active_associations)
            < CONNECTIONS_PER_ASSOCIATION * self.ae.maximum_associations
        )

    def handle_error(self, _request: Any, _address: Any) -> None:
        """The base prints a traceback with the caller's address."""
        log.warning("connection_failed", exc_info=True)

    def stop(self) -> None:
        """Accept nothing any more."""
        BaseServer.shutdown(self)
        self.server_close()


class Connection(BaseRequestHandler):
    """One connection, up to the start of its association's own thread."""

    server: Server

    def handle(self) -> None:
        if self.server.tls is not None:
            self.request = _shaken(self.request, self.server.tls)
        association = self.server.make(self.server.ae)
        association._server = self.server
        association.set_socket(BoundedSocket(association, client_socket=self.request))
        self._introduce(association)
        self._bind(association)
        evt.trigger(association, evt.EVT_CONN_OPEN, {"address": self.client_address})
        association.start()

    def _introduce(self, association: Association) -> None:
        ae, acceptor = self.server.ae, association.acceptor
        association.name = "AcceptorThread"
        acceptor.maximum_length = ae.maximum_pdu_size
        acceptor.ae_title = self.server.ae_title
        acceptor.address_info = AddressInformation.from_tuple(self.server.server_address)
        acceptor.implementation_class_uid = ae.implementation_class_uid
        acceptor.implementation_version_name = ae.implementation_version_name
        acceptor.supported_contexts = deepcopy(self.server.contexts)
        association.requestor.address_info = AddressInformation.from_tuple(self.client_address)

    def _bind(self, association: Association) -> None:
        handlers: Mapping[Any, Any] = self.server._handlers
        for event, bound in handlers.items():
            for handler in [bound] if event.is_intervention else bound:
                if handler[0] is not None:
                    association.bind(event, *handler)


class BoundedSocket(AssociationSocket):
    """Reads a PDU in few steps, and none that declares more than anybody may send. A request for an
    association has to be whole within ``REQUEST_S``, or callers that send it byte by byte would
    keep the others out. Closes also what the peer has closed, which the base leaves to the garbage
    collector."""

    def __init__(self, association: Association, client_socket: socket.socket) -> None:
        super().__init__(association, client_socket=client_socket)
        self._until = time.monotonic() + REQUEST_S

    def _shutdown_socket(self) -> None:
        super()._shutdown_socket()
        if self.socket is not None:
            self.socket.close()

    def recv(self, nr_bytes: int) -> bytearray:
        if nr_bytes > MAX_RECEIVED_BYTES:
            raise OSError(errno.EMSGSIZE, "a PDU beyond all bounds")
        connection: Any = self.socket
        data, at = bytearray(nr_bytes), 0
        view = memoryview(data)
        while at < nr_bytes:
            connection.settimeout(self._patience_s())
            count = connection.recv_into(view[at:])
            if count == 0:
                return bytearray(view[:at])
            at += count
        connection.settimeout(SILENCE_S)
        return data

    def _patience_s(self) -> float:
        if self.assoc.is_established:
            return SILENCE_S
        return max(0.001, self._until - time.monotonic())


def make_tls(cert: Any, key: Any, ca: Any) -> ssl.SSLContext:
    """TLS 1.2 or newer with our certificate; with ``ca`` callers have to show one of its.

    Raises ``OSError`` for files that cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert, key)
    if ca is not None:
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _shaken(connection: socket.socket, tls: ssl.SSLContext) -> ssl.SSLSocket:
    connection.settimeout(HANDSHAKE_S)
    secured = tls.wrap_socket(connection, server_side=True)
    secured.settimeout(SILENCE_S)
    return secured
