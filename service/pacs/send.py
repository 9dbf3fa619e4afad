"""Objects to a node, by C-STORE or STOW-RS, with the fate of each one."""

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import httpx
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association

from ..site import DicomWebNode, DimseNode
from .association import PATIENT, Context, Timeouts, association, where
from .errors import PacsDeniedError, PacsRefusedError, PacsUnavailableError
from .http import DICOM_JSON, TIMEOUT, Web, web
from .objects import (
    NOT_AUTHORISED,
    PROCESSING_FAILURE,
    Alive,
    DicomObject,
    Fate,
    ObjectResult,
    result_of,
)

CHUNK = 1024**2
REQUEST_BYTES = 64 * 1024**2  # of a STOW-RS request, unless one object is larger
TAG_CLASS, TAG_INSTANCE = "00081150", "00081155"
TAG_FAILED, TAG_STORED = "00081198", "00081199"
TAG_FAILURE, TAG_WARNING = "00081197", "00081196"


def send_dimse(
    node: DimseNode,
    objects: Sequence[DicomObject],
    calling: str,
    *,
    alive: Alive = lambda: None,
    timeouts: Timeouts = PATIENT,
) -> tuple[ObjectResult, ...]:
    """C-STORE them over one association, each class in the syntax of its files; what is in plain
    Explicit VR goes as Implicit VR where nothing else is accepted.

    Raises ``PacsUnavailableError`` when the node is not reached or breaks off, ``PacsDeniedError``
    when it lets us do nothing; then some of the objects may be stored.
    """
    kinds = ((sent.sop_class, sent.syntax) for sent in objects)
    contexts = list(contexts_of(kinds))
    try:
        with association(node, contexts, node.calling or calling, timeouts=timeouts) as opened:
            return tuple(_each(opened, node, objects, alive))
    except PacsRefusedError:
        return tuple(_not_proposable(sent) for sent in objects)


def send_stow(
    node: DicomWebNode,
    objects: Sequence[DicomObject],
    *,
    alive: Alive = lambda: None,
    timeout: httpx.Timeout = TIMEOUT,
) -> tuple[ObjectResult, ...]:
    """STOW-RS (PS3.18 10.5), streamed from disk, one kind of object at a time. Raises as
    ``send_dimse``."""
    with web(node, timeout) as client:
        results: list[ObjectResult] = []
        for batch in _batches(objects):
            alive()
            results += _stored(client, batch, alive)
        return tuple(results)


def contexts_of(kinds: Iterable[tuple[str, str]]) -> Iterator[Context]:
    """What is proposed for objects of these SOP classes and transfer syntaxes: a context of its own
    for each syntax, so that the peer answers for each."""
    for sop_class, syntax in dict.fromkeys(kinds):
        yield sop_class, [syntax]
        if syntax == ExplicitVRLittleEndian:
            yield sop_class, [ImplicitVRLittleEndian]


def _each(
    opened: Association, node: DimseNode, objects: Iterable[DicomObject], alive: Alive
) -> Iterator[ObjectResult]:
    accepted = {(cx.abstract_syntax, cx.transfer_syntax[0]) for cx in opened.accepted_contexts}
    for number, sent in enumerate(objects, start=1):
        alive()
        if _takes(accepted, sent):
            yield _store(opened, node, sent, number)
        else:
            yield _not_proposable(sent)


def _takes(accepted: Iterable[tuple[object, object]], sent: DicomObject) -> bool:
    syntaxes = {syntax for sop_class, syntax in accepted if sop_class == sent.sop_class}
    plain = sent.syntax == ExplicitVRLittleEndian and ImplicitVRLittleEndian in syntaxes
    return plain or sent.syntax in syntaxes


def _not_proposable(sent: DicomObject) -> ObjectResult:
    return ObjectResult(sent, Fate.REFUSED, note="its class or transfer syntax is not accepted")


def _store(opened: Association, node: DimseNode, sent: DicomObject, number: int) -> ObjectResult:
    if not opened.is_established:
        raise PacsUnavailableError(f"{where(node)} broke off")
    try:
        answer = opened.send_c_store(dcmread(sent.path), msg_id=number % 65535 + 1)
    except (RuntimeError, OSError) as error:  # it broke off since we looked
        raise PacsUnavailableError(f"{where(node)} broke off") from error
    status = answer.get("Status")
    if status is None:
        raise PacsUnavailableError(f"{where(node)} broke off, or did not answer in time")
    if status == NOT_AUTHORISED:
        raise PacsDeniedError(f"{where(node)} does not let us store")
    return result_of(sent, int(status))


def _batches(objects: Iterable[DicomObject]) -> Iterator[list[DicomObject]]:
    """Requests of one kind each, so that a refusal of the kind hits nothing else."""
    kind = lambda sent: (sent.sop_class, sent.syntax)  # noqa: E731
    for _, same in groupby(objects, kind):
        batch: list[DicomObject] = []
        size = 0
        for sent in same:
            length = sent.path.stat().st_size
            if batch and size + length > REQUEST_BYTES:
                yield batch
                batch, size = [], 0
            batch.append(sent)
            size += length
        yield batch


def _stored(client: Web, batch: Sequence[DicomObject], alive: Alive) -> list[ObjectResult]:
    """Orthanc drops parts that name their transfer syntax, and answers 200 with an empty list of
    what it stored: they go again without. A file says its own syntax (PS3.10)."""
    answer = client.send("/studies", **_request(batch, alive))
    if _names_syntax(batch[0]) and _dropped_all(answer):
        alive()
        answer = client.send("/studies", **_request(batch, alive, named=False))
        if _dropped_all(answer):
            return [result_of(sent, PROCESSING_FAILURE) for sent in batch]
    return _understood(answer, batch)


def _dropped_all(answer: httpx.Response) -> bool:
    """Success, and the list of what was stored is there and empty, as is that of failures."""
    body = _body_of(answer)
    lists = (_values(body, TAG_STORED), _values(body, TAG_FAILED))
    return answer.is_success and TAG_STORED in body and not any(lists)


def _request(batch: Sequence[DicomObject], alive: Alive, *, named: bool = True) -> dict[str, Any]:
    boundary = uuid.uuid4().hex
    parts = [(_part_head(boundary, sent, named=named), sent) for sent in batch]
    parts[0] = (parts[0][0].lstrip(), batch[0])  # before the first part there is nothing to end
    end = f"\r\n--{boundary}--\r\n".encode()
    length = sum(len(head) + sent.path.stat().st_size for head, sent in parts) + len(end)
    return {
        "content": _body(parts, end, alive),
        "headers": {
            "Accept": DICOM_JSON,
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(length),
        },
    }


def _names_syntax(sent: DicomObject) -> bool:
    return sent.syntax != ExplicitVRLittleEndian


def _part_head(boundary: str, sent: DicomObject, *, named: bool) -> bytes:
    kind = "application/dicom"
    if named and _names_syntax(sent):
        kind += f"; transfer-syntax={sent.syntax}"
    return f"\r\n--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode()


def _body(parts: Iterable[tuple[bytes, DicomObject]], end: bytes, alive: Alive) -> Iterator[bytes]:
    for head, sent in parts:
        yield head
        with sent.path.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                alive()
                yield chunk
    yield end


def _understood(answer: httpx.Response, batch: Sequence[DicomObject]) -> list[ObjectResult]:
    """The store response (PS3.18 10.5.3). An absent or empty FailedSOPSequence is success, where
    the status does not say otherwise; what a body does not tell, the status decides."""
    body = _body_of(answer)
    failed = _by_instance(body, TAG_FAILED, TAG_FAILURE, 0xC000)
    stored = _by_instance(body, TAG_STORED, TAG_WARNING, 0)
    rest = _rest(answer, told=bool(failed or stored))
    return [
        result_of(sent, failed.get(sent.sop_instance, stored.get(sent.sop_instance, rest)))
        for sent in batch
    ]


def _rest(answer: httpx.Response, *, told: bool) -> int:
    """The status of objects of which the body does not tell. A refusal that names some objects
    leaves the others open; they are sent again."""
    if answer.is_success:
        return 0
    return 0x0110 if told else 0xC000


def _body_of(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        found = answer.json()
    except ValueError:  # no body, or XML
        return {}
    if isinstance(found, list) and found:
        found = found[0]
    return found if isinstance(found, dict) else {}


def _by_instance(body: Mapping[str, Any], sequence: str, tag: str, default: int) -> dict[str, int]:
    """SOP instance UID -> failure or warning reason, of the items of a sequence."""
    return {
        str(instance): _number(_first(item, tag)) or default
        for item in _values(body, sequence)
        if isinstance(item, dict) and (instance := _first(item, TAG_INSTANCE)) is not None
    }


def _values(item: Mapping[str, Any], tag: str) -> Sequence[Any]:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _first(item: Mapping[str, Any], tag: str) -> Any:
    return next(iter(_values(item, tag)), None)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
