"""The listener's threads: accepting, signs of life of senders, and judging what has arrived."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from .. import arrive, deliver
from ..container import Container
from ..errors import ServiceError
from ..observability import get_logger
from ..pacs.commitment import accept_reports
from ..settings import Settings
from .callers import check_listen_address
from .transport import MAX_PDU_BYTES, SILENCE_S, Server, make_tls
from .visit import Visit

ACSE_S = 15.0
GRACE_S = 5.0
MAX_JUDGE_S = 2.0

log = get_logger("service.listener")


@contextmanager
def listening(container: Container) -> Iterator[tuple[str, int]]:
    """Take instances and storage commitment reports in until the end of the block; gives the
    address that is listened on.

    Then open associations have ``GRACE_S`` seconds to end. Raises ``UnsafeAddressError``, and
    ``ServiceError``: ``address_unavailable``, ``unusable_certificate``.
    """
    settings = container.settings
    check_listen_address(settings, container.site)
    arrive.resume(container)
    visits = _Visits(container)
    server = _server(container, visits)
    with ExitStack() as stack:
        stack.callback(visits.send_away)
        stack.callback(server.stop)
        for name, work in (
            ("listener", server.serve_forever),
            ("listener-beat", visits.beat),
            ("listener-judge", visits.judge),
        ):
            threading.Thread(target=work, name=name, daemon=True).start()
        host, port = server.server_address[:2]
        log.info("listening", host=host, port=port)
        yield host, port


class _Visits:
    """The open associations."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._lock = threading.Lock()
        self._open: set[Visit] = set()
        self._stop = threading.Event()

    def make(self, ae: AE) -> Visit:
        visit = Visit(ae, self._container, self._left)
        with self._lock:
            self._open.add(visit)
        return visit

    def beat(self) -> None:
        """Say in the ledger who still sends."""
        while not self._stop.wait(arrive.flush_s(self._container.settings.quiet_s)):
            for visit in self._now():
                if visit.is_established and visit.reception is not None:
                    _quietly(visit.reception.beat)

    def judge(self) -> None:
        """More often than the sweep: a study is wanted as soon as it is complete."""
        every_s = min(MAX_JUDGE_S, self._container.settings.quiet_s / 4)
        while not self._stop.wait(every_s):
            _quietly(lambda: arrive.complete(self._container))

    def send_away(self) -> None:
        end = time.monotonic() + GRACE_S
        while any(visit.is_alive() for visit in self._now()) and time.monotonic() < end:
            time.sleep(0.05)
        self._stop.set()
        for visit in self._now():
            visit.abort()

    def _now(self) -> tuple[Visit, ...]:
        with self._lock:
            return tuple(self._open)

    def _left(self, visit: Visit) -> None:
        with self._lock:
            self._open.discard(visit)


def _quietly(work: Callable[[], object]) -> None:
    try:
        work()
    except Exception as error:  # a ledger that is away comes back
        log.error("listener_failed", exc_info=error)


def offered(settings: Settings) -> list[PresentationContext]:
    """What is accepted of everybody; ``contexts_for`` adds the storage that a caller proposes."""
    entity = _entity(settings)
    accept_reports(entity, bool)
    return list(entity.supported_contexts)


def _server(container: Container, visits: _Visits) -> Server:
    settings = container.settings
    entity = _entity(settings)
    handlers = [
        (evt.EVT_REQUESTED, lambda event: event.assoc.welcome()),
        (evt.EVT_C_STORE, lambda event: event.assoc.store(event.request)),
        accept_reports(entity, partial(deliver.hear, container)),
    ]
    address = settings.listen_host, settings.listen_port
    try:
        return Server(entity, address, visits.make, _tls(settings), handlers)
    except OSError as error:
        raise ServiceError(
            f"cannot listen on {settings.listen_host} port {settings.listen_port}: "
            f"{error.strerror}",
            code="address_unavailable",
        ) from error


class _Entity(AE):
    @property
    def active_associations(self) -> list[Association]:
        """Those that have asked for one: silent connections hold no place, they have a limit of
        their own (``Server.verify_request``)."""
        return [one for one in super().active_associations if one.requestor.primitive is not None]


def _entity(settings: Settings) -> AE:
    _config.LOG_HANDLER_LEVEL = "none"  # its own handlers write down what they see
    entity = _Entity(settings.ae_title)
    entity.require_called_aet = True
    entity.maximum_associations = settings.max_associations
    entity.maximum_pdu_size = MAX_PDU_BYTES
    entity.acse_timeout = ACSE_S
    entity.network_timeout = SILENCE_S
    entity.add_supported_context(Verification)
    return entity


def _tls(settings: Settings) -> Any:
    if settings.listen_tls_cert is None:
        return None
    try:
        cert, key = settings.listen_tls_cert, settings.listen_tls_key
        return make_tls(cert, key, settings.listen_tls_ca)
    except OSError as error:
        raise ServiceError(
            "the listener's certificate or key cannot be used; check AQCF_LISTEN_TLS_CERT, _KEY "
            "and _CA",
            code="unusable_certificate",
        ) from error
