"""scripts/audit with the real pip-audit and an advisory service on loopback."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "run_audit.py"
ADVISORY = {"vulns": [{"id": "PYSEC-1", "modified": "2026-01-01T00:00:00Z", "affected": []}]}
Answers = Callable[[str], dict[str, Any]]


@contextmanager
def advisories(answers: Answers) -> Iterator[str]:
    """OSV's query interface; ``answers`` by package."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps(answers(asked["package"]["name"])).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """An environment of two packages."""
    for name in ("lovely", "shaky"):
        folder = tmp_path / "site" / f"{name}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    return tmp_path / "site"


def audit(url: str, installed: Path) -> "subprocess.CompletedProcess[str]":
    options = ["-s", "osv", "--osv-url", url, "--timeout", "5", "--path", str(installed)]
    return subprocess.run(
        [sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=False
    )


def test_a_known_vulnerability_is_told(installed: Path) -> None:
    with advisories(lambda name: ADVISORY if name in {"urllib3", "shaky"} else {}) as url:
        done = audit(url, installed)
    assert (done.returncode, done.stdout) == (1, "shaky 1.0: PYSEC-1, fixed in no release yet\n")


def test_nothing_known_is_good(installed: Path) -> None:
    with advisories(lambda name: ADVISORY if name == "urllib3" else {}) as url:
        done = audit(url, installed)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_service_that_knows_nothing_is_not_believed(installed: Path) -> None:
    with advisories(lambda _: {}) as url:
        done = audit(url, installed)
    assert done.returncode == 2
    assert "Nothing was audited" in done.stderr


def test_a_service_that_is_away_is_told(installed: Path) -> None:
    done = audit("http://127.0.0.1:9/v1/query", installed)
    assert done.returncode == 2
    assert "Nothing was audited" in done.stderr
