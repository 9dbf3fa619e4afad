"""The processes of a deployment, as an administrator starts them."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
from servers import free_port, wait_until

COMMAND = [sys.executable, "-c", "from service.cli import main; main()"]
ROOT = Path(__file__).resolve().parents[2]
QUICK: Mapping[str, str] = {
    "AQCF_DEFAULT_MODEL": "tiny",
    "AQCF_ENGINE": "onnxruntime",
    "AQCF_THREADS": "1",
    "AQCF_MIN_FREE_BYTES": "0",
    "AQCF_PURGE_FREE_BYTES": "0",
    "AQCF_HEARTBEAT_S": "0.3",
    "AQCF_HEARTBEAT_TIMEOUT_S": "5",
    "AQCF_STALE_QUEUED_S": "0.5",
    "AQCF_SWEEP_S": "0.4",
    "OMP_NUM_THREADS": "1",
}
START_S = 90.0  # on a machine that has other work


@dataclass
class Role:
    """A running ``aqcf`` process; its log is JSON lines."""

    kind: str
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def says(self, text: str) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"it ended: {self.log.read_text()[-2000:]}")
        return text in self.log.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def has_loaded(self, library: str) -> bool:
        """Whether a file whose path holds this word is mapped into the process."""
        return library in Path(f"/proc/{self.pid}/maps").read_text()

    def stop(self, seconds: float = 30.0) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


@dataclass
class Deployment:
    """What the processes have in common. ``close`` kills those that live."""

    folder: Path
    environment: Mapping[str, str]
    port: int = field(default_factory=free_port)
    roles: list[Role] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *arguments: str) -> Role:
        log = self.folder / f"{arguments[0]}-{len(self.roles)}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*COMMAND, *arguments],
                env=os.environ | dict(QUICK) | dict(self.environment),
                cwd=ROOT,
                stdout=stream,
                stderr=stream,
            )
        self.roles.append(Role(arguments[0], process, log))
        return self.roles[-1]

    def gateway(self) -> Role:
        """Answering when this returns."""
        role = self.start("gateway", "--port", str(self.port))
        wait_until(lambda: role.says("listening on"), "the gateway does not listen", START_S)
        wait_until(self._answers, "the gateway does not answer", START_S)
        return role

    def workers(self, count: int) -> list[Role]:
        """The living workers, at least so many, ready when this returns."""
        made = [role for role in self.living() if role.kind == "worker"]
        made += [self.start("worker") for _ in range(count - len(made))]
        for role in made:
            wait_until(partial(role.says, "ready as"), "no ready worker", START_S)
        return made

    def kill(self, kind: str) -> None:
        """Those that are ``gateway`` or ``worker``."""
        for role in self.living():
            if role.kind == kind:
                role.kill()

    def living(self) -> list[Role]:
        return [role for role in self.roles if role.process.poll() is None]

    def close(self) -> None:
        for role in self.living():
            role.kill()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz").is_success
        except httpx.TransportError:
            return False
