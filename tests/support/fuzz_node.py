"""A whole service in a process of its own, with its listener and keys, and a finished job in it."""

import io
import socket
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from dimse_senders import associated
from pynetdicom import build_context
from pynetdicom.sop_class import Verification
from roles import Deployment, Role
from servers import free_port, wait_until

KEY = "aqcf_0123abcd_" + "only-for-tests-" * 3
ASSOCIATIONS = 8
SITE = """
nodes:
  pacs: {dimse: {host: 127.0.0.1, port: 1, ae_title: PACS}}
destinations:
  archive: {node: pacs, by: dimse}
rules:
  - {name: liver, when: {modality: ct}, then: {series: best}}
"""


@dataclass(frozen=True)
class LiveNode:
    """``job``: the id of a segmentation that has succeeded."""

    url: str
    dicom_port: int
    role: Role
    job: str = ""

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.role.pid)

    @property
    def rss_mib(self) -> int:
        return int(self.process.memory_info().rss) // 2**20

    @property
    def threads(self) -> int:
        return int(self.process.num_threads())

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"X-API-Key": KEY}, timeout=60)

    def connect(self) -> socket.socket:
        """A connection to the listener."""
        return socket.create_connection(("127.0.0.1", self.dicom_port), timeout=10)

    def echoes(self) -> bool:
        """Whether it answers a C-ECHO."""
        with associated(self.dicom_port, [build_context(Verification)]) as made:
            return bool(made.is_established and made.send_c_echo().Status == 0)

    def listens(self) -> bool:
        try:
            self.connect().close()
        except OSError:
            return False
        return True


@contextmanager
def live_node(folder: Path, models: Path, images: Iterable[Path]) -> Iterator[LiveNode]:
    """Answering, listening, and done with ``images`` when it is handed out."""
    (folder / "site.yaml").write_text(SITE)
    dicom_port = free_port()
    environment = {
        "AQCF_STATE_DIR": str(folder / "state"), "AQCF_MODELS_DIR": str(models),
        "AQCF_SITE_FILE": str(folder / "site.yaml"), "AQCF_ADMIN_KEY": KEY,
        "AQCF_LISTEN_PORT": str(dicom_port), "AQCF_MAX_ASSOCIATIONS": str(ASSOCIATIONS),
        "AQCF_QUIET_S": "0.5", "AQCF_QUEUE_LIMIT": "1000", "AQCF_MAX_UPLOAD_BYTES": str(2**25),
        "AQCF_MAX_EXTRACTED_BYTES": str(2**26), "AQCF_MAX_VOXELS": "4000000",
        "AQCF_MAX_FILES": "300",
    }  # fmt: skip
    deployment = Deployment(folder, environment)
    role = deployment.start("serve", "--port", str(deployment.port), "--listen")
    node = LiveNode(deployment.url, dicom_port, role)
    try:
        wait_until(lambda: role.says("listening on"), "the service does not start", 90)
        wait_until(node.listens, "the listener does not start", 30)
        yield LiveNode(node.url, dicom_port, role, _done(node, images))
    finally:
        deployment.close()


def _done(node: LiveNode, images: Iterable[Path]) -> str:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, image in enumerate(images):
            archive.write(image, f"{number}.dcm")
    headers = {"Content-Type": "application/zip", "Prefer": "wait=60"}
    url = "/v1/segmentations?modality=ct&destination=archive"
    with node.http() as http:
        wait_until(lambda: http.get("/healthz").is_success, "the service does not answer", 30)
        answer = http.post(url, content=packed.getvalue(), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "succeeded", answer.text
    return str(answer.json()["id"])


def settled(node: LiveNode, threads: int, seconds: float = 30.0) -> int:
    """Threads of the process, once there are at most so many or the time is up."""
    until = time.monotonic() + seconds
    while node.threads > threads and time.monotonic() < until:
        time.sleep(0.1)
    return node.threads
