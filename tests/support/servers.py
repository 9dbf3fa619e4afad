"""Real servers for tests, each on free loopback ports and in a folder of its own."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ORTHANC = Path("/usr/sbin/Orthanc")
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until(true: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Poll until ``true()``; a ``TimeoutError`` that says ``what`` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} after {seconds:g} s")
        time.sleep(0.02)


@dataclass
class OrthancServer:
    """A PACS. ``kill`` and ``start`` again keep ports and content; ``clear`` empties it.

    Everybody may C-STORE, C-FIND, C-GET and C-MOVE; C-MOVE reaches what ``know`` named.
    DICOMweb asks for ``username`` and ``password``.
    """

    folder: Path
    http_port: int = field(default_factory=free_port)
    dicom_port: int = field(default_factory=free_port)
    ae_title: str = "TESTPACS"
    username: str = "tester"
    password: str = "only-for-tests"  # noqa: S105
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dicomweb_url(self) -> str:
        return f"{self.url}/dicom-web"

    @property
    def password_file(self) -> Path:
        return self.folder / "password"

    def start(self) -> None:
        """Ready when this returns, in about 0.3 s."""
        if not (ORTHANC.is_file() and DICOMWEB.is_file()):
            raise FileNotFoundError("apt-get install -y orthanc orthanc-dicomweb")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.password_file.write_text(f"{self.password}\n")
        config = self.folder / "orthanc.json"
        config.write_text(json.dumps(self._config()))
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [ORTHANC, config], env=os.environ | {"TCP_NODELAY": "1"}, stdout=log, stderr=log
            )
        wait_until(self._ready, "Orthanc is not ready")

    def kill(self) -> None:
        """SIGKILL; it is gone when this returns."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def http(self) -> httpx.Client:
        """A client of its REST interface."""
        return httpx.Client(base_url=self.url, auth=(self.username, self.password), timeout=30)

    def clear(self) -> None:
        """Forget every study and every modality."""
        with self.http() as http:
            for kind in ("patients", "modalities"):
                for name in http.get(f"/{kind}").raise_for_status().json():
                    http.delete(f"/{kind}/{name}").raise_for_status()

    def load(self, files: Iterable[Path]) -> None:
        """Store instances, by REST."""
        with self.http() as http:
            for file in files:
                http.post("/instances", content=file.read_bytes()).raise_for_status()

    def know(self, ae_title: str, port: int) -> None:
        """Make an application entity on this machine a target for C-MOVE."""
        with self.http() as http:
            body = {"AET": ae_title, "Host": "127.0.0.1", "Port": port}
            http.put(f"/modalities/{ae_title}", json=body).raise_for_status()

    def count(self, kind: str = "instances") -> int:
        """How many ``patients``, ``studies``, ``series`` or ``instances`` there are."""
        with self.http() as http:
            return len(http.get(f"/{kind}").raise_for_status().json())

    def _ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"Orthanc ended: {(self.folder / 'log').read_text()[-2000:]}")
        try:
            with self.http() as http:
                return http.get("/system").is_success
        except httpx.TransportError:
            return False

    def _config(self) -> dict[str, object]:
        return {
            "Name": "TestPACS",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "index"),
            "Plugins": [str(DICOMWEB)],
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": self.ae_title,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {self.username: self.password},
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "DicomAlwaysAllowStore": True,
            "DicomCheckCalledAet": False,
            "UnknownSopClassAccepted": False,
            "OverwriteInstances": True,
            "StableAge": 2,
            "HttpsCACertificates": "",
            "DicomWeb": {
                "Enable": True,
                "Root": "/dicom-web/",
                "StudiesMetadata": "Full",
                "SeriesMetadata": "Full",
            },
        }
