"""What is left in the process of associations that have ended."""

import gc
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from servers import wait_until

from service.arrive.files import SYNC


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Whatever is let go of, it is not by chance."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
def test_what_breaks_off_in_the_middle_of_an_instance_leaves_no_open_file(
    listener: Any, made: Any, tmp_path: Path
) -> None:
    file = made.series(tmp_path / "ct", made.phantom((3, 200, 200)))[0]
    with listener.associated([build_context(CTImageStorage, ExplicitVRLittleEndian)]) as sender:
        for pdata in _pieces(dcmread(file), sender.accepted_contexts[0].context_id)[:-1]:
            sender.dul.send_pdu(pdata)
        wait_until(lambda: bool(_held(listener)), "no instance is being received")
        sender.abort()
    wait_until(lambda: not _held(listener), "the half received file is still open")


def _pieces(dataset: Dataset, context_id: int) -> list[Any]:
    """A C-STORE request in small parts."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID = dataset.SOPClassUID
    request.AffectedSOPInstanceUID = dataset.SOPInstanceUID
    request.DataSet = io.BytesIO(encode(dataset, False, True) or b"")
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    return list(message.encode_msg(context_id, 16384))


def _held(listener: Any) -> list[str]:
    """Files for what is being received that this process has open, removed ones too."""
    incoming = str(listener.container.settings.arrivals_dir / "incoming")
    links = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return [name for name in map(_target, links) if name.startswith(incoming)]


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # closed in the meantime
        return ""


@pytest.mark.usefixtures("uncollected")
def test_an_association_that_ends_leaves_no_thread(listener: Any) -> None:
    before = set(threading.enumerate())
    for number in range(3):
        listener.store(listener.series(number)[:2])
    wait_until(
        lambda: not [one for one in threading.enumerate() if _is_for_sender(one, before)],
        "a thread of an association goes on",
    )


def _is_for_sender(thread: threading.Thread, before: set[threading.Thread]) -> bool:
    return thread not in before and thread.name.startswith((SYNC, "AcceptorThread", "Thread-"))
