"""Peers that answer as they are told: pynetdicom's server, and dcmtk's storescp."""

import os
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from servers import free_port, wait_until

STORESCP = Path("/usr/bin/storescp")
PLAIN = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
PUSH = "1.2.840.10008.1.20.1"
ALL_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.66.7",
    "1.2.840.10008.5.1.4.1.1.88.33",
    "1.2.840.10008.5.1.4.1.1.88.34",
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.7.4",
    "1.2.840.10008.5.1.4.1.1.481.3",
)


@dataclass
class StoreScp:
    """``got``: (SOP class, SOP instance, transfer syntax) of each C-STORE, in order. ``asked``:
    each request for storage commitment."""

    port: int
    got: list[tuple[str, str, str]] = field(default_factory=list)
    asked: list[Dataset] = field(default_factory=list)
    associations: int = 0

    def report(self, port: int, request: Dataset, *, committed: bool = True) -> int:
        """What became of a request, on an association of its own; the status of the answer."""
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        kept, lost = "ReferencedSOPSequence", "FailedSOPSequence"
        setattr(report, kept if committed else lost, request.ReferencedSOPSequence)
        archive, role = AE("PEER"), build_role(PUSH, scp_role=True)
        archive.add_requested_context(PUSH)
        opened = archive.associate("127.0.0.1", port, ext_neg=[role])
        try:
            kind = 1 if committed else 2
            answer, _ = opened.send_n_event_report(report, kind, PUSH, f"{PUSH}.1")
        finally:
            opened.release()
        return int(answer.Status)


@contextmanager
def store_scp(
    classes: Iterable[str] = ALL_CLASSES,
    syntaxes: Iterable[str] = PLAIN,
    statuses: Mapping[str, int] | None = None,
    *,
    abort_after: int | None = None,
    wait: threading.Event | None = None,
    commits: bool = False,
) -> Iterator[StoreScp]:
    """Takes ``classes`` in ``syntaxes``; answers with a status by SOP class, else success; aborts
    instead of the answer ``abort_after``; answers nothing before ``wait`` is set; ``commits`` when
    it is told to ``report``."""
    peer = StoreScp(0)

    def store(event: evt.Event) -> int:
        context = event.context
        peer.got.append(
            (event.request.AffectedSOPClassUID, event.request.AffectedSOPInstanceUID,
             context.transfer_syntax)
        )  # fmt: skip
        if abort_after is not None and len(peer.got) > abort_after:
            event.assoc.abort()
        if wait is not None:
            wait.wait(30)
        return (statuses or {}).get(event.request.AffectedSOPClassUID, 0)

    def count(_: evt.Event) -> None:
        peer.associations += 1

    entity = AE("PEER")
    for sop_class in classes:
        entity.add_supported_context(sop_class, list(syntaxes))
    if commits:
        entity.add_supported_context(PUSH)

    def ask(event: evt.Event) -> tuple[int, None]:
        peer.asked.append(event.action_information)
        return 0, None

    handlers = [(evt.EVT_C_STORE, store), (evt.EVT_ACCEPTED, count), (evt.EVT_N_ACTION, ask)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    peer.port = server.server_address[1]
    try:
        yield peer
    finally:
        server.shutdown()


PROFILE = """
[[TransferSyntaxes]]
[Plain]
TransferSyntax1 = LocalEndianExplicit
TransferSyntax2 = LittleEndianImplicit
[[PresentationContexts]]
[Some]
{contexts}
[[Profiles]]
[Default]
PresentationContexts = Some
"""


@contextmanager
def dcmtk_storescp(folder: Path, classes: Iterable[str]) -> Iterator[int]:
    """dcmtk's server that takes only these classes; its port. What it gets lies in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"PresentationContext{number} = {sop_class}\\Plain"
        for number, sop_class in enumerate(["VerificationSOPClass", *classes], start=1)
    ]
    profile = folder.parent / f"{folder.name}.cfg"
    profile.write_text(PROFILE.format(contexts="\n".join(lines)))
    port = free_port()
    process = subprocess.Popen(
        [STORESCP, "-xf", profile, "Default", "-od", folder, str(port)],
        env=os.environ | {"TCP_NODELAY": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _echoes(port), "storescp is not ready")
        yield port
    finally:
        process.kill()
        process.wait()


def _echoes(port: int) -> bool:
    done = subprocess.run(
        ["/usr/bin/echoscu", "127.0.0.1", str(port)], capture_output=True, check=False
    )
    return done.returncode == 0
