"""Asking a destination whether it has what it was sent."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, TypeAlias

from ..site import Destination, Node
from .commitment import LINGER_S, Report, ask_commitment, new_transaction_uid
from .errors import PacsDeniedError, PacsRefusedError
from .find import find_instances, timeouts_of
from .objects import Alive, DicomObject

Way: TypeAlias = Literal["qido", "find", "commitment", "none"]

POLL_S = 0.2
ASKED = 3


@dataclass(frozen=True)
class Commitments:
    """The ledger's side of storage commitment. ``begin`` writes a transaction down before it is
    asked for, ``heard`` takes a report, ``state`` tells what is known by now."""

    begin: Callable[[str], object]
    heard: Callable[[Report], object]
    state: Callable[[], bool | None]


@dataclass(frozen=True)
class Patience:
    """Seconds. ``pause_s``: between questions, since an archive indexes what it has stored.
    ``report_s``: for a commitment, of which ``linger_s`` on the association of the request."""

    pause_s: float = 1.0
    report_s: float = 60.0
    linger_s: float = LINGER_S


PATIENCE = Patience()


@dataclass(frozen=True)
class Confirmation:
    """``way``: how it was asked in the end. ``missing``: what it does not have, or has not yet.
    ``waiting``: it has not answered by now, and may still do so."""

    way: Way
    missing: tuple[DicomObject, ...]
    waiting: bool = False


def confirm(
    node: Node,
    destination: Destination,
    objects: Sequence[DicomObject],
    calling: str,
    commitments: Commitments,
    *,
    alive: Alive = lambda: None,
    patience: Patience = PATIENCE,
) -> Confirmation:
    """Ask in the destination's way; ``auto`` goes on to the next where one is not offered.

    Raises ``PacsUnavailableError`` and ``PacsDeniedError``, and ``PacsRefusedError``
    (``not_confirmable``) when it answers no such question.
    """
    inquiry = _Inquiry(node, calling, commitments, alive, patience)
    denied: PacsDeniedError | None = None
    for way in ways_of(node, destination):
        try:
            return _ask(way, inquiry, objects)
        except PacsDeniedError as error:
            denied = error
        except PacsRefusedError:
            continue
    raise denied or PacsRefusedError(
        "the destination cannot be asked whether it has the objects; set confirm: none to do "
        "without",
        code="not_confirmable",
    )


def ways_of(node: Node, destination: Destination) -> tuple[Way, ...]:
    """In the order in which they are tried."""
    if destination.confirm != "auto":
        return (destination.confirm,)
    dimse: tuple[Way, ...] = ("find", "commitment") if node.dimse else ()
    web: tuple[Way, ...] = ("qido",) if node.dicomweb else ()
    return dimse + web if destination.by == "dimse" else web + dimse


@dataclass(frozen=True)
class _Inquiry:
    node: Node
    calling: str
    commitments: Commitments
    alive: Alive
    patience: Patience


def _ask(way: Way, inquiry: _Inquiry, objects: Sequence[DicomObject]) -> Confirmation:
    if way == "none":
        return Confirmation(way, ())
    if way == "commitment":
        known = _by_commitment(inquiry, objects)
        return Confirmation(way, () if known else tuple(objects), waiting=known is None)
    unused = "dimse" if way == "qido" else "dicomweb"
    return Confirmation(way, _by_finding(inquiry, unused, objects))


def _by_finding(
    inquiry: _Inquiry, unused: str, objects: Sequence[DicomObject]
) -> tuple[DicomObject, ...]:
    """What no answer of the series' instances names."""
    node = inquiry.node.model_copy(update={unused: None})
    missing = tuple(objects)
    for number in range(ASKED):
        inquiry.alive()
        if number:
            time.sleep(inquiry.patience.pause_s)
        missing = tuple(_not_found(node, missing, inquiry.calling))
        if not missing:
            break
    return missing


def _not_found(node: Node, objects: Iterable[DicomObject], calling: str) -> Iterator[DicomObject]:
    series = lambda sent: (sent.study, sent.series)  # noqa: E731
    for (study, uid), members in groupby(sorted(objects, key=series), series):
        there = set(find_instances(node, study, uid, calling=calling))
        yield from (sent for sent in members if sent.sop_instance not in there)


def _by_commitment(inquiry: _Inquiry, objects: Sequence[DicomObject]) -> bool | None:
    """Whether the node keeps them all; ``None`` while it has not reported."""
    node, commitments, patience = inquiry.node, inquiry.commitments, inquiry.patience
    if node.dimse is None:
        raise PacsRefusedError("storage commitment needs dimse in the node's section")
    transaction = new_transaction_uid()
    commitments.begin(transaction)
    deadline = time.monotonic() + patience.report_s
    ask_commitment(
        node.dimse,
        objects,
        transaction,
        inquiry.calling,
        on_report=commitments.heard,
        known=lambda: commitments.state() is not None,
        timeouts=timeouts_of(node),
        linger_s=patience.linger_s,
    )
    while commitments.state() is None and time.monotonic() < deadline:
        inquiry.alive()
        time.sleep(POLL_S)
    return commitments.state()
