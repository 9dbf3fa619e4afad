"""One attempt at one delivery: ask after what was sent before, send the rest, ask again."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Final

import httpx

from model.errors import AqcfError

from ..container import Container
from ..domain import Delivery, Job, Status
from ..errors import (
    NotConfirmedError,
    StorageFullError,
    StoreUnavailableError,
    UndeliverableError,
)
from ..forms import Form, make
from ..observability import get_logger
from ..pacs.association import Timeouts
from ..pacs.commitment import Report
from ..pacs.confirm import PATIENCE, Commitments, Confirmation, Patience, confirm
from ..pacs.errors import PacsRefusedError, PacsUnavailableError
from ..pacs.objects import DicomObject, Fate, ObjectResult, read_objects
from ..pacs.send import send_dimse, send_stow
from ..site import Destination, Node, Site
from .parcel import Lot, Parcel

log = get_logger("service.deliver")

ACTOR: Final = "service"
UNCLEAR_TRIES: Final = 3  # attempts after which a failure without a reason counts as a refusal
STORE_S: Final = 120.0  # at least; a large object takes longer than an answer


class GivenUpError(Exception):
    """The claim was lost, the delivery cancelled, or the process is told to stop."""


class Attempt:
    """``alive`` raises ``GivenUpError``. What people should know goes to the delivery's notes."""

    def __init__(
        self,
        container: Container,
        delivery: Delivery,
        alive: Callable[[], None],
        patience: Patience = PATIENCE,
    ) -> None:
        """Raises ``UndeliverableError`` and ``GivenUpError``."""
        self._container, self._delivery = container, delivery
        self._alive, self._patience = alive, patience
        self._job = _job_of(container, delivery)
        self._destination, self._node = _target(container.site, delivery.destination)
        profile = container.site.all_profiles[self._destination.profile]
        self._parcel = Parcel(profile, delivery.sent)
        self._notes = list(delivery.notes)
        self._objects: dict[Form, tuple[DicomObject, ...]] = {}

    def run(self) -> None:
        """Until the destination has and confirms all that its profile asks for.

        Raises ``PacsUnavailableError``, ``NotConfirmedError`` and what the store raises while it is
        full or away: again later. ``PacsRefusedError``, ``UndeliverableError``: no use.
        ``GivenUpError``.
        """
        self._ask_after_earlier()
        self._send_all()
        self._confirm_all()
        self._require_all()

    def _ask_after_earlier(self) -> None:
        """What an earlier attempt stored is asked for before it is sent again."""
        before = self._parcel.unconfirmed()
        if not before:
            return
        if self._delivery.committed:
            self._parcel.confirm(before, "commitment")
            self._write_down()
            return
        for form in before:
            self._identify(form)
        found = self._asked(before)
        if found.waiting and self._delivery.committed is None:  # else it reported a failure
            raise NotConfirmedError("the destination has not reported yet")
        self._settle(before, found)
        self._parcel.forget(self._parcel.unconfirmed())
        self._write_down()

    def _identify(self, form: Form) -> None:
        with make(self._container, self._job, form) as paths:
            self._objects[form] = read_objects(paths)

    def _send_all(self) -> None:
        while forms := self._parcel.wanted():
            self._send(forms)

    def _send(self, forms: Iterable[Form]) -> None:
        with ExitStack() as stack:
            ready = [form for form in forms if self._prepare(form, stack)]
            objects = [sent for form in ready for sent in self._objects[form]]
            if not objects:
                self._judge(ready, ())
                return
            self._forget_commitment()
            self._container.audit.record(ACTOR, self._action(), self._job.id)
            self._judge(ready, self._sent(objects))

    def _prepare(self, form: Form, stack: ExitStack) -> bool:
        """Whether the form could be made; one that cannot counts as refused."""
        try:
            paths = stack.enter_context(make(self._container, self._job, form))
            self._objects[form] = read_objects(paths)
        except (StorageFullError, StoreUnavailableError, OSError):
            raise
        except Exception as error:  # one broken form does not hold up the others
            code = error.code if isinstance(error, AqcfError) else "internal_error"
            log.error("form_failed", job_id=self._job.id, code=code, kind=form, exc_info=error)
            self._refuse(form, f"cannot be made ({code})", 0)
            return False
        return True

    def _sent(self, objects: Sequence[DicomObject]) -> tuple[ObjectResult, ...]:
        self._alive()
        title, seconds = self._container.settings.ae_title, max(self._node.timeout_s, STORE_S)
        if self._destination.by == "dimse" and self._node.dimse is not None:
            timeouts = Timeouts(dimse_s=seconds, network_s=self._node.timeout_s)
            return send_dimse(
                self._node.dimse, objects, title, alive=self._alive, timeouts=timeouts
            )
        if self._node.dicomweb is None:
            raise _unknown(self._delivery.destination)
        timeout = httpx.Timeout(seconds, connect=10.0)
        return send_stow(self._node.dicomweb, objects, alive=self._alive, timeout=timeout)

    def _judge(self, forms: Iterable[Form], results: Sequence[ObjectResult]) -> None:
        """A form is stored when all its objects are. Raises ``PacsUnavailableError`` when the
        destination asks for patience, after the rest is written down."""
        busy = False
        for form in forms:
            of_form = [result for result in results if result.object in self._objects[form]]
            if not self._objects[form]:
                self._parcel.put(form, Lot.CONFIRMED, 0)
                self._note(f"{form}: there is nothing to draw, so nothing is sent")
            elif any(self._is_busy(result) for result in of_form):
                busy = True
            else:
                self._record(form, of_form)
        self._write_down()
        if busy:
            raise PacsUnavailableError("the destination has no resources for an object now")

    def _is_busy(self, result: ObjectResult) -> bool:
        early = self._delivery.attempts <= UNCLEAR_TRIES
        return result.fate is Fate.BUSY or (result.fate is Fate.UNCLEAR and early)

    def _record(self, form: Form, results: Sequence[ObjectResult]) -> None:
        refused = [result for result in results if result.fate is not Fate.STORED]
        if refused:
            self._refuse(form, f"is refused: {refused[0].note}", len(results))
            return
        self._parcel.put(form, Lot.STORED, len(results))
        for note in dict.fromkeys(result.note for result in results if result.note):
            self._note(f"{form}: {note}")

    def _refuse(self, form: Form, why: str, objects: int) -> None:
        self._parcel.put(form, Lot.REFUSED, objects)
        instead = ", ".join(self._parcel.substitutes())
        self._note(f"{form} {why}" + (f"; instead: {instead}" if instead else ""))

    def _confirm_all(self) -> None:
        stored = self._parcel.unconfirmed()
        if not stored:
            return
        found = self._asked(stored)
        self._settle(stored, found)
        self._write_down()
        if found.missing:
            raise NotConfirmedError("the destination does not show all that it took")

    def _asked(self, forms: Iterable[Form]) -> Confirmation:
        objects = [sent for form in forms for sent in self._objects[form]]
        title = self._container.settings.ae_title
        return confirm(
            self._node,
            self._destination,
            objects,
            title,
            self._commitments(),
            alive=self._alive,
            patience=self._patience,
        )

    def _settle(self, forms: Iterable[Form], found: Confirmation) -> None:
        missing = set(found.missing)
        whole = [form for form in forms if not missing & set(self._objects[form])]
        self._parcel.confirm(whole, found.way)

    def _commitments(self) -> Commitments:
        deliveries, delivery_id = self._container.deliveries, self._delivery.id
        return Commitments(
            begin=lambda uid: deliveries.await_commitment(
                delivery_id, self._container.worker_id, uid
            ),
            heard=lambda report: hear(self._container, report),
            state=lambda: deliveries.require(delivery_id).committed,
        )

    def _forget_commitment(self) -> None:
        """What was promised before is no promise for what is sent from now on."""
        deliveries = self._container.deliveries
        if not deliveries.forget_commitments(self._delivery.id, self._container.worker_id):
            raise GivenUpError

    def _require_all(self) -> None:
        if not list(self._parcel):
            raise UndeliverableError("the destination's profile asks for nothing")
        if lacking := self._parcel.lacking():
            raise PacsRefusedError(f"the destination has no {', '.join(lacking)}")

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)

    def _write_down(self) -> None:
        deliveries, sent = self._container.deliveries, self._parcel.as_json()
        if not deliveries.note(self._delivery.id, self._container.worker_id, sent, self._notes):
            raise GivenUpError

    def _action(self) -> str:
        return f"deliver:{self._delivery.destination}"[:64]


def hear(container: Container, report: Report) -> bool:
    """Take a storage commitment report, from whichever association and however late; ``False``:
    nobody asked for it, or the objects were sent again since."""
    return container.deliveries.report_commitment(
        report.transaction_uid, committed=report.committed
    )


def _job_of(container: Container, delivery: Delivery) -> Job:
    job = container.jobs.get(delivery.job_id)
    if job is None or job.status is not Status.SUCCEEDED:
        raise GivenUpError
    if job.kind != "dicom":
        raise UndeliverableError("the images were no DICOM, and so are the results")
    return job


def _target(site: Site, name: str) -> tuple[Destination, Node]:
    destination = site.destinations.get(name)
    if destination is None:
        raise _unknown(name)
    return destination, site.nodes[destination.node]


def _unknown(name: str) -> UndeliverableError:
    return UndeliverableError(
        f"the site file has no destination {name!r} now", code="unknown_destination"
    )
