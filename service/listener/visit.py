"""One association: who calls, what is taken, how each instance is answered."""

import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import create_file_meta, encode_file_meta
from pynetdicom.dul import DULServiceProvider
from pynetdicom.service_class import StorageServiceClass

from model.errors import AqcfError

from ..arrive import Claim, InstanceError, MismatchedInstanceError, Reception
from ..container import Container
from ..domain import Origin
from ..observability import get_logger
from .callers import is_known, is_title
from .contexts import contexts_for
from .spool import Spool

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700  # senders try again later
MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
STORE_REQUEST = 0x0001
REJECTED_CALLER = (1, 1, 3)  # permanently, by the service user, calling AE title; PS3.8 9.3.4
REJECTIONS = {(1, 1, 7): "called_title", (2, 3, 2): "too_many_associations"}

log = get_logger("service.listener")


class Visit(Association):
    """An acceptor that stores. ``reception`` is there from the first instance on."""

    def __init__(self, ae: AE, container: Container, left: "Callable[[Visit], None]") -> None:
        super().__init__(ae, "acceptor")
        self.container = container
        self.reception: Reception | None = None
        self.dul = _UpperLayer(self)
        self.dimse: _Messages = _Messages(self)
        self.acse_timeout, self.network_timeout = ae.acse_timeout, ae.network_timeout
        self._left = left
        self._stack = ExitStack()
        self._folder: Path | None = None
        self._count = 0

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        finally:
            self._leave()

    def welcome(self) -> None:
        """Reject strangers; offer the storage contexts that are proposed."""
        caller: Any = self.requestor
        asked, address = caller.primitive, str(caller.address_info.address)
        if not is_known(self.container.site.callers, asked.calling_ae_title, address):
            self.acse.send_reject(*REJECTED_CALLER)
            self.kill()
            return
        proposed = contexts_for(asked.presentation_context_definition_list)
        self.acceptor.supported_contexts = [*self.acceptor.supported_contexts, *proposed]

    def place(self) -> Path:
        """Where the next instance is written. Raises ``StorageFullError``."""
        reception = self._reception()
        self.container.artifacts.require_room(self.container.settings.min_free_bytes)
        if self._folder is None:
            self._folder = self._stack.enter_context(reception.files.incoming())
        return self._folder / f"{uuid.uuid4().hex}.dcm"

    def store(self, request: C_STORE) -> int:
        """The status of a C-STORE request (PS3.4 B.2.3); success only for what is safe on disk."""
        spool = request.DataSet
        if not isinstance(spool, Spool):
            return CANNOT_UNDERSTAND
        claim = Claim(str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID))
        try:
            self._reception().take(spool.finish(), claim)
        except (AqcfError, OSError) as error:
            return self._refuse(error)
        except Exception as error:  # such as a ledger that is away: the sender may try again
            log.error("instance_failed", exc_info=error)
            return OUT_OF_RESOURCES
        finally:
            spool.drop()
        self._count += 1
        return SUCCESS

    def _refuse(self, error: Exception) -> int:
        code = getattr(error, "code", "internal_error")
        self.container.metrics.rejected.labels(code).inc()
        log.warning("instance_refused", code=code, exc_info=error)
        if isinstance(error, MismatchedInstanceError):
            return MISMATCH
        return CANNOT_UNDERSTAND if isinstance(error, InstanceError) else OUT_OF_RESOURCES

    def _reception(self) -> Reception:
        if self.reception is None:
            caller: Any = self.requestor
            title = str(caller.primitive.calling_ae_title).strip()
            reception = Reception(self.container, Origin.DIMSE, title)
            self.reception = self._stack.enter_context(reception)
        return self.reception

    def _serve_request(self, msg: Any, context_id: int) -> None:
        """A private class is stored too; the base knows those of the standard only."""
        context = self._accepted_cx.get(context_id)
        if isinstance(msg, C_STORE) and msg.is_valid_request and context is not None:
            StorageServiceClass(self).SCP(msg, context)
        else:
            super()._serve_request(msg, context_id)

    def _leave(self) -> None:
        try:
            self.dimse.drop()
            self._stack.close()
        except Exception as error:  # the counts of the ledger lag behind; the files are there
            log.error("association_failed", exc_info=error)
        outcome = "released" if self.is_released else "aborted"
        if self.is_rejected:
            outcome = "rejected"
            log.warning("association_rejected", status=self._why_rejected())
        elif self.is_released or self._count:
            log.info("association", status=outcome, count=self._count)
        self.container.metrics.associations.labels(outcome).inc()
        self._left(self)

    def _why_rejected(self) -> str:
        """What to mend. The peer's words, title and address, are not told."""
        caller: Any = self.requestor
        answer: Any = self.acceptor.primitive
        given = answer.result, answer.result_source, answer.diagnostic
        if given != REJECTED_CALLER:
            return REJECTIONS.get(given, "other")
        known = is_title(self.container.site.callers, caller.primitive.calling_ae_title)
        return "calling_host" if known else "calling_title"


class _UpperLayer(DULServiceProvider):
    """Says that it has ended. The base lets its association wait for a request that cannot come
    any more, so that everybody who hangs up early (a health check) would hold a place."""

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        except Exception as error:  # an event that its state machine does not know
            log.warning("connection_failed", exc_info=error)
        finally:
            nothing: Any = None
            self.to_user_queue.put(nothing)


class _Messages(DIMSEServiceProvider):
    """Lets the data sets of instances go to disk instead of into memory."""

    def __init__(self, visit: Visit) -> None:
        super().__init__(visit)
        self._visit = visit

    def receive_primitive(self, primitive: Any) -> None:
        if self.message is None:
            self.message = DIMSEMessage()
            self.message.data_set = self._spool(self.message)
        super().receive_primitive(primitive)

    def drop(self) -> None:
        """Close the files of what nobody serves any more: a removed file that is open still takes
        its place on the disk."""
        begun = None if self.message is None else self.message.data_set
        whole = iter(lambda: self.get_msg()[1], None)
        for data in (begun, *(getattr(message, "DataSet", None) for message in whole)):
            if isinstance(data, Spool):
                data.drop()

    def _spool(self, message: DIMSEMessage) -> Spool:
        def begin() -> tuple[Path, bytes] | None:
            if message.command_set.get("CommandField") != STORE_REQUEST:
                return None
            return self._visit.place(), self._file_meta(message)

        return Spool(begin, self._visit.container.settings.max_upload_bytes)

    def _file_meta(self, message: DIMSEMessage) -> bytes:
        """Preamble and file meta group (PS3.10 7.1) for the data set as it is sent."""
        command, contexts = message.command_set, self._visit._accepted_cx
        try:
            meta = create_file_meta(
                sop_class_uid=command.AffectedSOPClassUID,
                sop_instance_uid=command.AffectedSOPInstanceUID,
                transfer_syntax=contexts[message.context_id or 0].transfer_syntax[0],
            )
            return bytes(128) + b"DICM" + encode_file_meta(meta)
        except (AttributeError, KeyError, ValueError, TypeError) as error:
            raise InstanceError("the request names no SOP class, instance or context") from error
