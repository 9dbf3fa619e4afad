"""Storage commitment, push model (PS3.4 J): the node promises to keep what it was sent.

The promise comes as an N-EVENT-REPORT, on the association of the request or on one that the node
opens to us, minutes later.
"""

import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from ..site import DimseNode
from .association import PATIENT, Context, Handler, Timeouts, association, where
from .errors import PacsRefusedError, PacsUnavailableError
from .objects import OUT_OF_RESOURCES, RESOURCE_LIMIT, DicomObject

REQUEST = 1  # the only action type; PS3.4 J.3.2
ALL_COMMITTED = 1  # event type, PS3.4 J.3.3
LINGER_S = 3.0
POLL_S = 0.1
SUCCESS, CANNOT_HANDLE = 0x0000, 0x0110
SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
CONTEXTS: tuple[Context, ...] = ((StorageCommitmentPushModel, SYNTAXES),)


@dataclass(frozen=True)
class Report:
    """``committed``: of every object of the transaction. ``transaction_uid`` is one of ours."""

    transaction_uid: str
    committed: bool


def new_transaction_uid() -> str:
    return f"2.25.{uuid.uuid4().int}"


def accept_reports(entity: AE, on_report: Callable[[Report], object]) -> Handler:
    """Let a listener take reports; bind the returned handler. ``on_report`` hears of all of them,
    also of such that nobody asked for."""
    entity.add_supported_context(
        StorageCommitmentPushModel, list(SYNTAXES), scu_role=True, scp_role=True
    )
    return evt.EVT_N_EVENT_REPORT, partial(_answering, on_report)


def ask_commitment(
    node: DimseNode,
    objects: Iterable[DicomObject],
    transaction_uid: str,
    calling: str,
    *,
    on_report: Callable[[Report], object],
    known: Callable[[], bool],
    timeouts: Timeouts = PATIENT,
    linger_s: float = LINGER_S,
) -> None:
    """N-ACTION, then a short wait for a report on the same association; ``known`` ends it.

    Raises ``PacsUnavailableError``, ``PacsDeniedError``, and ``PacsRefusedError`` where the node
    offers no storage commitment.
    """
    handlers = [(evt.EVT_N_EVENT_REPORT, partial(_answering, on_report))]
    title = node.calling or calling
    with association(node, CONTEXTS, title, timeouts=timeouts, handlers=handlers) as opened:
        answer, _ = opened.send_n_action(
            _request(objects, transaction_uid),
            REQUEST,
            StorageCommitmentPushModel,
            StorageCommitmentPushModelInstance,
        )
        _check(answer.get("Status"), node)
        _linger(opened, known, linger_s)


def _request(objects: Iterable[DicomObject], transaction_uid: str) -> Dataset:
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = Sequence(_reference(sent) for sent in objects)
    return request


def _reference(sent: DicomObject) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sent.sop_class
    item.ReferencedSOPInstanceUID = sent.sop_instance
    return item


def _check(status: int | None, node: DimseNode) -> None:
    if status == SUCCESS:
        return
    if status is None or status in OUT_OF_RESOURCES or status == RESOURCE_LIMIT:
        raise PacsUnavailableError(f"{where(node)} broke off, or is overloaded (N-ACTION)")
    raise PacsRefusedError(f"{where(node)} refuses storage commitment with {status:#06x}")


def _linger(opened: Association, known: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while opened.is_established and not known() and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _answering(
    on_report: Callable[[Report], object], event: evt.Event
) -> tuple[int, Dataset | None]:
    try:
        information = event.event_information
        failed = information.get("FailedSOPSequence") or ()
        committed = event.event_type == ALL_COMMITTED and not failed
        on_report(Report(str(information.TransactionUID), committed))
    except Exception:  # the peer's data, or our ledger: it may report again
        return CANNOT_HANDLE, None
    return SUCCESS, None
