"""A listener on a free loopback port, and what sends to it: dcmtk and pynetdicom."""

import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from arriving import RULES, Arriving
from dimse_senders import associated
from pydicom import dcmread
from pynetdicom import build_context
from servers import wait_until

from service.container import Container
from service.listener import listening

BIN = Path("/usr/bin")
QUIET_S = 0.8  # longer than a busy machine pauses between two instances
PATIENCE_S = 60.0


@dataclass
class Listening(Arriving):
    """The listener runs in threads of the test's process, with the sweep of its own."""

    port: int = 0

    def dcmtk(self, command: str, *arguments: object, title: str = "AQCF", **options: Any) -> Any:
        """Run ``echoscu`` or ``storescu`` of dcmtk; the finished process."""
        call = [BIN / command, "-aec", title, *map(str, arguments)]
        where = ["127.0.0.1", str(self.port)]
        files = options.pop("files", ())
        return subprocess.run(
            [*call, *where, *files], capture_output=True, text=True, check=False, **options
        )

    def store(self, files: Iterable[Path], *arguments: object, **options: Any) -> Any:
        """``storescu``, which has to succeed; it proposes what the files are."""
        done = self.dcmtk("storescu", "-R", *arguments, files=list(files), **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def associated(self, contexts: Sequence[Any], **options: Any) -> Any:
        """An association of pynetdicom, whether or not it was established."""
        return associated(self.port, contexts, **options)

    def status(self, file: Path, **changes: Any) -> int:
        """The status that one instance is answered with; ``changes`` to its data set."""
        dataset = dcmread(file)
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        syntax = dataset.file_meta.TransferSyntaxUID
        with self.associated([build_context(dataset.SOPClassUID, syntax)]) as made:
            answer: int = made.send_c_store(dataset).Status
        return answer

    def wait_for(self, count: int, state: str = "submitted") -> None:
        """Until so many arrivals are in this state."""
        wait_until(
            lambda: sum(one.state == state for one in self.arrivals()) >= count,
            f"no {count} arrivals {state}",
            PATIENCE_S,
        )


@pytest.fixture
def listen(container: Container, tmp_path: Path, made: Any) -> Iterator[Callable[..., Listening]]:
    """Starts listeners: with a site, and changes to the settings."""
    with ExitStack() as stack:

        def start(site: Any = RULES, **changes: Any) -> Listening:
            idle = Listening(replace(container, site=site), tmp_path / "sent", made)
            wanted = {"listen_port": 0, "quiet_s": QUIET_S} | changes
            ready = idle.with_settings(**wanted)
            _, port = stack.enter_context(listening(ready.container))
            return replace(ready, port=port)

        yield start


@pytest.fixture
def listener(listen: Callable[..., Listening]) -> Listening:
    return listen()
