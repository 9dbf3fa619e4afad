"""Real servers for tests, each on free loopback ports and in a folder of its own."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import redis

from service.site import Node

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

    def node(self, *interfaces: str, **more: object) -> Node:
        """It as a site file has it, with ``dimse``, ``dicomweb``, or both."""
        dimse = {"host": "127.0.0.1", "port": self.dicom_port, "ae_title": self.ae_title}
        dicomweb = {
            "url": self.dicomweb_url,
            "username": self.username,
            "password_file": self.password_file,
        }
        known = {"dimse": dimse, "dicomweb": dicomweb}
        wanted = interfaces or tuple(known)
        return Node.model_validate({name: known[name] for name in wanted} | more)

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
        """Store instances, in one request."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for number, file in enumerate(files):
                archive.write(file, f"{number:06d}.dcm")
        with self.http() as http:
            answer = http.post("/instances", content=packed.getvalue()).raise_for_status()
        if any(one["Status"] not in ("Success", "AlreadyStored") for one in answer.json()):
            raise RuntimeError("Orthanc does not take every instance")

    def know(self, ae_title: str, port: int) -> None:
        """Make an application entity on this machine a target for C-MOVE."""
        with self.http() as http:
            body = {"AET": ae_title, "Host": "127.0.0.1", "Port": port}
            http.put(f"/modalities/{ae_title}", json=body).raise_for_status()

    def count(self, kind: str = "instances") -> int:
        """How many ``patients``, ``studies``, ``series`` or ``instances`` there are."""
        with self.http() as http:
            return len(http.get(f"/{kind}").raise_for_status().json())

    def tags(self, kind: str, keyword: str) -> list[str]:
        """A main DICOM tag of each of the ``studies``, ``series`` or ``instances``."""
        with self.http() as http:
            found = http.get(f"/{kind}", params={"expand": ""}).raise_for_status().json()
        return [one["MainDicomTags"][keyword] for one in found]

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
            "SyncStorageArea": False,  # a kill loses nothing; a power cut is not tested
            "StableAge": 2,
            "HttpsCACertificates": "",
            "DicomWeb": {
                "Enable": True,
                "Root": "/dicom-web/",
                "StudiesMetadata": "Full",
                "SeriesMetadata": "Full",
            },
        }


@dataclass
class RedisServer:
    """A broker that keeps nothing on disk: a restart flushes it."""

    folder: Path
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Ready when this returns."""
        if shutil.which("redis-server") is None:
            raise FileNotFoundError("apt-get install -y redis-server")
        self.folder.mkdir(parents=True, exist_ok=True)
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        self._process = subprocess.Popen(
            ["redis-server", *options, "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
        )
        wait_until(self._ready, "Redis is not ready")

    def kill(self) -> None:
        """SIGKILL; it is gone when this returns."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def send_signal(self, which: signal.Signals) -> None:
        """SIGSTOP makes it hang, SIGCONT go on."""
        if self._process is not None:
            self._process.send_signal(which)

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=5)

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def content(self) -> bytes:
        """Every key, and every value as Redis serialises it."""
        with self.client() as client:
            return b"\n".join(key + b" " + _value(client, key) for key in client.scan_iter())

    def _ready(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False


def _value(client: redis.Redis, key: bytes) -> bytes:
    kind = client.type(key)
    readers: dict[bytes, Callable[[], object]] = {
        b"string": lambda: client.get(key),
        b"list": lambda: client.lrange(key, 0, -1),
        b"set": lambda: client.smembers(key),
        b"hash": lambda: client.hgetall(key),
        b"zset": lambda: client.zrange(key, 0, -1, withscores=True),
    }
    return repr(readers[kind]()).encode() if kind in readers else b""


@dataclass
class PostgresServer:
    """Runs as the user postgres where the tests run as root. ``stop`` and ``start`` again keep
    port and content; ``close`` removes everything."""

    port: int = field(default_factory=free_port)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="postgres-")))
    _process: subprocess.Popen[bytes] | None = None
    _databases: int = 0

    def start(self) -> None:
        """Ready when this returns; the first time takes some seconds."""
        if not (self.folder / "data").exists():
            self._initialise()
        options = ["-p", str(self.port), "-k", str(self.folder), "-h", "127.0.0.1", "-F"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command("postgres"), "-D", str(self.folder / "data"), *options],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        wait_until(self._ready, "PostgreSQL is not ready", 30)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Ends every session; SIGINT in order, SIGQUIT at once."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def crash(self) -> None:
        """SIGKILL the processes of all sessions; the server recovers by itself."""
        if self._process is None:
            return
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for pid in children.read_text().split():
            with suppress(FileNotFoundError, ProcessLookupError):
                if b"postgres: aqcf" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(int(pid), signal.SIGKILL)

    def answers(self) -> bool:
        """Whether a session can be had now. Raises ``RuntimeError`` when the server has ended."""
        return self._ready()

    def close(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def new_database(self) -> str:
        """SQLAlchemy's URL of an empty database."""
        self._databases += 1
        name = f"test{self._databases}"
        with self._connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
        return f"postgresql+psycopg://aqcf@127.0.0.1:{self.port}/{name}"

    def _connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="aqcf", dbname="postgres", autocommit=True
        )

    def _initialise(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        options = ["-U", "aqcf", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(
            [*self._command("initdb"), "-D", str(self.folder / "data"), *options],
            check=True,
            capture_output=True,
            cwd=self.folder,
        )

    def _command(self, name: str) -> list[str]:
        found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
        if not found:
            raise FileNotFoundError("apt-get install -y postgresql")
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        return [*(user if os.geteuid() == 0 else []), str(found[-1])]

    def _ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"PostgreSQL ended: {(self.folder / 'log').read_text()[-2000:]}")
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True
