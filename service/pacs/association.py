"""One association with a node: TLS, timeouts, and no waiting for full packets."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation, AssociationSocket

from ..site import DimseNode, Tls
from .errors import PacsDeniedError, PacsRefusedError, PacsUnavailableError

Context: TypeAlias = tuple[str, Sequence[str]]
"""An abstract syntax (a SOP class) and the transfer syntaxes that are offered for it."""

Handler: TypeAlias = tuple[Any, Callable[..., Any]]
"""An event of ``pynetdicom.evt`` and what is called for it."""

PERMANENT = 1  # A-ASSOCIATE-RJ, PS3.8 9.3.4


@dataclass(frozen=True)
class Timeouts:
    """Seconds. ``dimse_s``: from a request to its answer, its sending included. ``network_s``: how
    long a peer may take or give no byte."""

    connect_s: float = 10.0
    acse_s: float = 30.0
    dimse_s: float = 120.0
    network_s: float = 60.0


PATIENT = Timeouts()


@contextmanager
def association(
    node: DimseNode,
    contexts: Iterable[Context],
    calling: str,
    *,
    timeouts: Timeouts = PATIENT,
    handlers: Iterable[Handler] = (),
    negotiation: Iterable[Any] = (),
) -> Iterator[Association]:
    """An established association, called ``calling``; released at the end, aborted on an error.

    At least one context was accepted; ``accepted_contexts`` says which. ``handlers`` are called for
    requests of the peer (C-GET, N-EVENT-REPORT); ``negotiation`` holds items of PS3.7 D.3.

    Raises ``PacsUnavailableError`` when the node is not reached or breaks off, ``PacsDeniedError``
    when it rejects the association for good, ``PacsRefusedError`` when it accepts no context.
    """
    made = _request(node, contexts, calling, timeouts, handlers, negotiation)
    try:
        _check(made, node)
        yield made
    except RuntimeError as error:  # so the library says that the peer went between two questions
        gone = not made.is_established
        made.abort()
        if gone:
            raise PacsUnavailableError(f"{where(node)} broke off") from error
        raise
    except BaseException:
        made.abort()
        raise
    finally:
        if made.is_established:
            made.release()


def where(node: DimseNode) -> str:
    return f"{node.ae_title} at {node.host}:{node.port}"


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Trust ``tls.ca`` alone; show ``tls.cert`` where the peer asks. Raises ``PacsDeniedError`` for
    files that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise PacsDeniedError("the TLS files of the node cannot be read; check tls") from error
    return context


def without_delay(event: evt.Event, silence_s: float = PATIENT.network_s) -> None:
    """For ``EVT_CONN_OPEN``, on either side: send small packets at once (an instance takes 4 ms
    instead of 90), and give up on a peer that is silent in the middle of a message."""
    wrapped = event.assoc.dul.socket
    sock = None if wrapped is None else wrapped.socket
    if sock is None:  # closed already
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.settimeout(silence_s)


class _ClosingSocket(AssociationSocket):
    """Closes also what never was connected, which the base leaves to the garbage collector."""

    def _shutdown_socket(self) -> None:
        super()._shutdown_socket()
        if self.socket is not None:
            self.socket.close()


class _Checkpoint(threading.Event):
    """Where the association's reactor waits while we ask something.

    The library's own tells that the reactor waits also in the moment when it has just been let go;
    then it takes our answer for a request and drops it (pynetdicom 3.0.4, one message in 600 on a
    busy machine). Here both change under one lock.
    """

    def __init__(self, owner: Association) -> None:
        super().__init__()
        self._owner = owner
        self._changed = threading.Condition()
        self._open = True

    def is_set(self) -> bool:
        return self._open

    def set(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def clear(self) -> None:
        with self._changed:
            self._open = False

    def wait(self, timeout: float | None = None) -> bool:
        with self._changed:
            passed = self._changed.wait_for(lambda: self._open, timeout)
            if passed:
                self._owner._is_paused = False
            return passed


class _Entity(AE):
    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: Any
    ) -> AssociationSocket:
        assoc._reactor_checkpoint = _Checkpoint(assoc)
        made = _ClosingSocket(assoc, address=address)
        made.tls_args = tls_args
        return made


def _request(
    node: DimseNode,
    contexts: Iterable[Context],
    calling: str,
    timeouts: Timeouts,
    handlers: Iterable[Handler],
    negotiation: Iterable[Any],
) -> Association:
    try:
        return _entity(calling, timeouts).associate(
            node.host,
            node.port,
            [build_context(abstract, list(syntaxes)) for abstract, syntaxes in contexts],
            node.ae_title,
            ext_neg=list(negotiation),
            tls_args=None if node.tls is None else (tls_context(node.tls), node.host),
            evt_handlers=[(evt.EVT_CONN_OPEN, without_delay, [timeouts.network_s]), *handlers],
        )
    except OSError as error:  # the name is not known
        raise PacsUnavailableError(f"{where(node)} is not reached; is the host right?") from error


def _entity(calling: str, timeouts: Timeouts) -> AE:
    entity = _Entity(calling)
    entity.connection_timeout = timeouts.connect_s
    entity.acse_timeout = timeouts.acse_s
    entity.dimse_timeout = timeouts.dimse_s
    entity.network_timeout = timeouts.network_s
    return entity


def _check(made: Association, node: DimseNode) -> None:
    if made.is_established:
        return
    if made.is_rejected:
        raise _rejection(made, node)
    if made.rejected_contexts:
        raise PacsRefusedError(f"{where(node)} accepts nothing of what was proposed")
    raise PacsUnavailableError(f"{where(node)} is not reached, or broke off")


def _rejection(made: Association, node: DimseNode) -> PacsUnavailableError:
    answer = made.acceptor.primitive
    if answer is None or answer.result != PERMANENT:
        return PacsUnavailableError(f"{where(node)} takes no association now")
    return PacsDeniedError(f"{where(node)} rejects the association: {answer.reason_str}")
