"""Images from a node: WADO-RS (PS3.18 10.4), C-GET or C-MOVE (PS3.4 C.4.2, C.4.3).

WADO-RS and C-GET bring the images into a folder of the caller's. C-MOVE makes the node send them to
a listener, by its AE title, as if somebody had sent them there.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from pydicom.dataset import Dataset
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom import build_role, evt, sop_class
from python_multipart.multipart import parse_options_header

from ..site import DimseNode, Node
from .association import Context, association, where
from .errors import PacsRefusedError, PacsUnavailableError
from .find import BUSY, PENDING, UNCOMPRESSED, is_uid, timeouts_of, web_timeout_of
from .http import web
from .incoming import BrokenOffError, Incoming, Limits, Parts, Single, Taken

GET: str = sop_class.StudyRootQueryRetrieveInformationModelGet  # type: ignore[attr-defined]
MOVE: str = sop_class.StudyRootQueryRetrieveInformationModelMove  # type: ignore[attr-defined]
IMAGES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT
    "1.2.840.10008.5.1.4.1.1.2.1",  # enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2",  # legacy converted enhanced CT
    "1.2.840.10008.5.1.4.1.1.4",  # MR
    "1.2.840.10008.5.1.4.1.1.4.1",  # enhanced MR
    "1.2.840.10008.5.1.4.1.1.4.3",  # enhanced MR colour
    "1.2.840.10008.5.1.4.1.1.4.4",  # legacy converted enhanced MR
)
PICTURES = (  # of a CT's or MR's protocol or dose, among its series
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.7.2",
    "1.2.840.10008.5.1.4.1.1.7.3",
    "1.2.840.10008.5.1.4.1.1.7.4",
)
COMPRESSED: tuple[UID, ...] = (
    DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEGLosslessSV1,
    JPEGLossless, JPEGLSLossless, JPEGLSNearLossless, JPEG2000Lossless, JPEG2000,
    JPEGBaseline8Bit, JPEGExtended12Bit, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K,
)  # fmt: skip
RESULTS = (
    "1.2.840.10008.5.1.4.1.1.66.4",  # segmentation
    "1.2.840.10008.5.1.4.1.1.66.7",  # label map segmentation
    "1.2.840.10008.5.1.4.1.1.88.33",  # comprehensive SR
    "1.2.840.10008.5.1.4.1.1.88.34",  # comprehensive 3D SR
)
OF_PICTURES = (JPEGBaseline8Bit, JPEGLosslessSV1, JPEG2000Lossless, RLELossless)
MOVE_CONTEXTS: tuple[Context, ...] = ((MOVE, UNCOMPRESSED),)
WHOLE = 'multipart/related; type="application/dicom"; transfer-syntax=*'
UNKNOWN_DESTINATION = 0xA801  # PS3.4 C.4.2.1.5
SOME_FAILED = 0xB000
SENDS_ONLY = "the node gives images away by C-MOVE only; ask with rules"
OUT_OF_RESOURCES, TAKEN = 0xA700, 0x0000


class PacsSendsOnlyError(PacsRefusedError):
    """The node gives images away by C-MOVE only: to the listener, where the rules decide."""

    code = "pacs_sends_only"


@dataclass(frozen=True)
class Wanted:
    """Series of one study; the UIDs are patient data."""

    study_uid: str
    series_uids: tuple[str, ...]


def retrieve(
    node: Node,
    wanted: Wanted,
    folder: Path,
    limits: Limits,
    *,
    calling: str = "AQCF",
    taken: Taken = lambda _: None,
    stopping: Callable[[], bool] = lambda: False,
    results: bool = False,
) -> int:
    """Bring every instance of the series into ``folder`` as a file of its own, by WADO-RS where
    the node has ``dicomweb``, else by C-GET; gives their number. ``taken`` and ``stopping``: see
    ``Incoming``. ``results``: the series are SEG or SR, for which C-GET has to ask otherwise.

    Raises ``PacsUnavailableError`` (also when not all came), ``PacsRefusedError``,
    ``PacsSendsOnlyError``, ``UploadTooLargeError``, ``StoppedError``.
    """
    incoming = Incoming(folder, limits, taken, stopping)
    *others, last = _ways(node, result_contexts() if results else get_contexts())
    try:
        for way in others:
            try:
                way(node, wanted, incoming, calling)
                return incoming.files
            except PacsRefusedError:  # the next way may be open
                if incoming.files:
                    raise
        last(node, wanted, incoming, calling)
        return incoming.files
    finally:
        incoming.close()


def move(
    node: Node,
    wanted: Wanted,
    to: str,
    *,
    calling: str = "AQCF",
    moved: Callable[[int], None] = lambda _: None,
) -> int:
    """Make the node send the series to the AE title ``to`` by C-MOVE; gives the number of
    instances sent. ``moved`` is called with it from time to time, and may raise.

    Raises ``PacsUnavailableError`` (also when not all were sent), ``PacsRefusedError`` (also when
    the node knows no such AE title, or has no ``dimse``).
    """
    dimse = node.dimse
    if dimse is None:
        raise PacsRefusedError("the node has no dimse, which C-MOVE needs")
    sent = 0
    with _opened(node, dimse, MOVE_CONTEXTS, calling) as opened:
        for uid in _checked(wanted):
            before = sent
            for status, _ in opened.send_c_move(_series(wanted.study_uid, uid), to, MOVE):
                _check(status, dimse, "C-MOVE", to)
                now = int(status.get("NumberOfCompletedSuboperations") or 0)
                sent = max(sent, before + now)
                moved(sent)
    return sent


def moves_only(node: Node) -> bool:
    """Whether the site file says that images come by C-MOVE."""
    return node.retrieve == "move"


Way = Callable[[Node, Wanted, Incoming, str], None]


def _ways(node: Node, contexts: Sequence[Context]) -> list[Way]:
    wado: list[Way] = [_wado] if node.dicomweb is not None else []
    get: list[Way] = [partial(_get, contexts)] if node.dimse is not None else []
    ways: dict[str, list[Way]] = {
        "auto": wado + get,
        "wado": wado,
        "get": get,
        "move": [_sends_only],
    }
    return ways[node.retrieve]


def _sends_only(node: Node, wanted: Wanted, incoming: Incoming, calling: str) -> None:  # noqa: ARG001
    raise PacsSendsOnlyError(SENDS_ONLY)


def _wado(node: Node, wanted: Wanted, incoming: Incoming, calling: str) -> None:  # noqa: ARG001
    if node.dicomweb is None:
        return
    with web(node.dicomweb, web_timeout_of(node)) as client:
        for uid in _checked(wanted):
            path = f"/studies/{wanted.study_uid}/series/{uid}"
            headers = {"Accept": WHOLE, "Accept-Encoding": "identity"}
            with client.stream("GET", path, headers=headers) as answer:
                _save(answer, incoming, node.dicomweb.url)


def _save(answer: httpx.Response, incoming: Incoming, url: str) -> None:
    kind, options = parse_options_header(answer.headers.get("content-type"))
    try:
        if kind.startswith(b"multipart/"):
            parts: Parts | Single = Parts(options.get(b"boundary", b""), incoming)
        elif kind in (b"application/dicom", b"application/octet-stream"):
            parts = Single(incoming)
        else:
            raise PacsRefusedError(f"{url} does not answer with DICOM files")
        for block in answer.iter_bytes(1024**2):
            parts.feed(block)
        parts.finish()
    except BrokenOffError as error:
        raise PacsUnavailableError(f"{url} broke off in the middle of its answer") from error


def _get(
    contexts: Sequence[Context], node: Node, wanted: Wanted, incoming: Incoming, calling: str
) -> None:
    dimse = node.dimse
    if dimse is None:
        return
    receiver = _Receiver(incoming)
    kinds = dict.fromkeys(kind for kind, _ in contexts if kind != GET)
    options = {
        "handlers": [(evt.EVT_C_STORE, receiver.take)],
        "negotiation": [build_role(kind, scp_role=True) for kind in kinds],
    }
    with ExitStack() as stack:
        try:
            opening = _opened(node, dimse, contexts, calling, **options)
            opened = stack.enter_context(opening)
        except PacsRefusedError as error:
            raise PacsSendsOnlyError(SENDS_ONLY) from error
        for uid in _checked(wanted):
            for status, _ in opened.send_c_get(_series(wanted.study_uid, uid), GET):
                receiver.check()
                _check(status, dimse, "C-GET")


def get_contexts() -> list[Context]:
    """At most 128 (PS3.8 9.3.2.2). One syntax in each: the node sends every image as it has it."""
    every = (*UNCOMPRESSED, *COMPRESSED)
    contexts: list[Context] = [(GET, UNCOMPRESSED)]
    contexts += [(image, [syntax]) for image in IMAGES for syntax in every]
    contexts += [(picture, UNCOMPRESSED) for picture in PICTURES]
    return contexts + [(PICTURES[0], [syntax]) for syntax in OF_PICTURES]


def result_contexts() -> list[Context]:
    """For what this service makes, deflated too."""
    syntaxes = (*UNCOMPRESSED, DeflatedExplicitVRLittleEndian)
    return [(GET, UNCOMPRESSED), *((kind, [one]) for kind in RESULTS for one in syntaxes)]


class _Receiver:
    """Takes the C-STORE sub-operations of a C-GET; what goes wrong is raised by ``check``."""

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self._error: BaseException | None = None

    def take(self, event: evt.Event) -> int:
        if self._error is not None:
            return OUT_OF_RESOURCES
        try:
            self._incoming.begin()
            self._incoming.write(event.encoded_dataset())
            self._incoming.end()
        except Exception as error:  # pynetdicom would only log it
            self._error = error
            return OUT_OF_RESOURCES
        return TAKEN

    def check(self) -> None:
        if self._error is not None:
            raise self._error


@contextmanager
def _opened(
    node: Node, dimse: DimseNode, contexts: Sequence[Context], calling: str, **options: Any
) -> Iterator[Any]:
    """An association in which the first context was accepted."""
    title = dimse.calling or calling
    with association(dimse, contexts, title, timeouts=timeouts_of(node), **options) as opened:
        if contexts[0][0] not in [one.abstract_syntax for one in opened.accepted_contexts]:
            raise PacsRefusedError(f"{where(dimse)} offers no such service")
        yield opened


def _check(status: Dataset, node: DimseNode, what: str, to: str = "") -> None:
    """Raise for a final response that is no full success."""
    code = status.get("Status")
    if code in PENDING or code == 0:
        return
    if code == UNKNOWN_DESTINATION:
        raise PacsRefusedError(f"{where(node)} knows no {to!r}; register it there")
    if code is None or code == SOME_FAILED or code in BUSY:
        raise PacsUnavailableError(f"{where(node)} broke off, or sent only a part ({what})")
    raise PacsRefusedError(f"{where(node)} refuses with {code:#06x} ({what})")


def _series(study_uid: str, series_uid: str) -> Dataset:
    question = Dataset()
    question.QueryRetrieveLevel = "SERIES"
    question.StudyInstanceUID, question.SeriesInstanceUID = study_uid, series_uid
    return question


def _checked(wanted: Wanted) -> Iterable[str]:
    """No wildcard and no path gets into a question."""
    if not all(map(is_uid, (wanted.study_uid, *wanted.series_uids))):
        raise PacsRefusedError("no UID: digits and dots, 64 at most")
    return wanted.series_uids
