"""``aqcf serve`` as a process of its own: killed in the middle of a job, it finishes it later."""

import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

COMMAND = [sys.executable, "-c", "from service.cli import main; main()"]
ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environment(models_dir: Path) -> dict[str, str]:
    return os.environ | {
        "AQCF_MODELS_DIR": str(models_dir),
        "AQCF_DEFAULT_MODEL": "tiny",
        "AQCF_ENGINE": "onnxruntime",
        "AQCF_THREADS": "1",
        "AQCF_MIN_FREE_BYTES": "0",
        "AQCF_PURGE_FREE_BYTES": "0",
    }


@contextmanager
def serving(state: Path, models_dir: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A running server, killed at the end, and its address."""
    port = free_port()
    log = state.with_suffix(".log").open("ab")
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", str(port), "--state", str(state)],
        env=environment(models_dir),
        cwd=ROOT,
        stderr=log,
        stdout=log,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: answers(url, process), 90)
        yield process, url
    finally:
        process.kill()
        process.wait()
        log.close()


def answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def until(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def submit(url: str, archive: Path) -> str:
    answer = httpx.post(
        f"{url}/v1/segmentations",
        params={"modality": "ct", "profile": "paper"},
        content=archive.read_bytes(),
        headers={"Content-Type": "application/zip"},
        timeout=120,
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def job(url: str, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{url}/v1/segmentations/{job_id}").json()
    return found


def ledger(state: Path) -> list[tuple[str, str, int, int]]:
    with closing(sqlite3.connect(state / "ledger.sqlite3")) as connection:
        return connection.execute("SELECT id, status, attempts, deaths FROM jobs").fetchall()


def test_a_stop_and_a_kill_in_the_middle_lose_and_double_nothing(
    tmp_path: Path, models_dir: Path, made: Any
) -> None:
    """The `paper` profile on a larger phantom gives the seconds in which to stop and to kill."""
    state = tmp_path / "state"
    files = made.series(tmp_path / "series", made.phantom((48, 128, 128)))
    archive = made.zip(tmp_path / "a.zip", files)

    with serving(state, models_dir) as (process, url):
        job_id = submit(url, archive)
        until(lambda: job(url, job_id)["stage"] == "inference", 60)
        process.terminate()
        assert process.wait(60) == 0
    assert ledger(state) == [(job_id, "queued", 1, 0)]

    with serving(state, models_dir) as (process, url):
        until(lambda: job(url, job_id)["stage"] == "inference", 60)
        process.kill()
        process.wait()
    assert ledger(state) == [(job_id, "running", 2, 0)]
    assert not list((state / "artifacts" / "jobs").iterdir())

    with serving(state, models_dir) as (process, url):
        assert submit(url, archive) == job_id
        until(lambda: job(url, job_id)["status"] in ("succeeded", "failed"), 120)
        assert httpx.get(f"{url}/v1/segmentations/{job_id}/seg").status_code == 200
        second = run_serve(state, models_dir, "--port", str(free_port()))
        assert (second.returncode, "state_locked" in second.stderr) == (1, True)
    assert ledger(state) == [(job_id, "succeeded", 3, 1)]
    assert not list((state / "staging").iterdir())


def test_a_public_address_needs_keys(tmp_path: Path, models_dir: Path) -> None:
    refused = run_serve(tmp_path / "state", models_dir, "--host", "0.0.0.0")  # noqa: S104
    assert (refused.returncode, "unsafe_address" in refused.stderr) == (1, True)


def run_serve(state: Path, models_dir: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, "serve", "--state", str(state), *arguments],
        env=environment(models_dir),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(autouse=True)
def _quick_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
