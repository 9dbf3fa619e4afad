"""Canaries: patient data planted in headers and names turns up nowhere it does not belong."""

import io
import json
import logging
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from service import execute, intake, sweep
from service.container import Container
from service.domain import SubmitOptions
from service.observability import configure_logging, get_logger
from service.uploads import Upload

CANARY = "Zwitscherbein"
UID_ROOT = "1.2.826.0.1.3680043.8.498.77"
DATES = ("19010203", "19040506")
CT = SubmitOptions("ct")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    configure_logging("debug", stream)
    yield stream
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


@pytest.fixture
def archive(tmp_path: Path, made: Any) -> Path:
    files = made.series(tmp_path / CANARY, made.phantom(), canary=CANARY)
    return made.zip(tmp_path / f"{CANARY}.zip", files)


def leaks(text: str) -> list[str]:
    return [word for word in (CANARY, UID_ROOT, *DATES) if word.lower() in text.lower()]


def test_a_purged_job_leaves_no_byte(container: Container, archive: Path) -> None:
    job = intake.submit(container, Upload((archive,)), CT)
    execute.run(container, job.id)
    sweep.remove(container, job.id)
    with sqlite3.connect(container.settings.state_dir / "ledger.sqlite3") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    for file in container.settings.state_dir.rglob("*"):
        if file.is_file():
            assert CANARY not in file.read_bytes().decode("latin1")


def test_only_safe_keys_and_plain_values_are_logged(log: io.StringIO) -> None:
    get_logger("service.test").info(
        "queued",
        job_id="7372c79c-7920-4171-b743-1d3c5ff84556",
        patient=CANARY,
        code=f"{CANARY}^Jane",
        engine=f"{UID_ROOT}.5",
        seconds=1.5,
        host="127.0.0.1",
    )
    assert json.loads(log.getvalue()) | {"timestamp": ""} == {
        "event": "queued",
        "level": "info",
        "timestamp": "",
        "job_id": "7372c79c-7920-4171-b743-1d3c5ff84556",
        "code": "[redacted]",
        "engine": "[redacted]",
        "seconds": 1.5,
        "host": "127.0.0.1",
    }


def test_third_parties_and_exceptions_lose_their_words(log: io.StringIO) -> None:
    logging.getLogger("third.party").warning("bad value %s", CANARY)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"Invalid value for VR PN: {CANARY}", stacklevel=1)
    try:
        raise ValueError(CANARY)
    except ValueError:
        get_logger("service.test").exception("failed")
        logging.getLogger("pynetdicom").exception("failed %s", CANARY)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert leaks(log.getvalue()) == []
    assert [line.get("logger") for line in lines] == [
        "third.party",
        "py.warnings",
        None,
        "pynetdicom",
    ]
    assert lines[2]["error"] == "ValueError"
    assert lines[2]["where"].startswith("test_privacy:")


CRASHES = f"""
import threading, sys
from service.observability import configure_logging
class Careless:
    def __del__(self):
        raise LookupError({CANARY!r})
def fail():
    raise ValueError({CANARY!r})
configure_logging()
thread = threading.Thread(target=fail)
thread.start()
thread.join()
Careless()
thread = threading.Thread(target=sys.exit)
thread.start()
thread.join()
raise KeyError({CANARY!r})
"""


def test_what_nobody_catches_loses_its_words() -> None:
    done = subprocess.run([sys.executable, "-c", CRASHES], capture_output=True, check=False)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["event"], line["error"]) for line in lines] == [
        ("thread_crashed", "ValueError"),
        ("unraisable", "LookupError"),
        ("crashed", "KeyError"),
    ]
    assert leaks(done.stderr.decode()) == []
    assert done.returncode == 1
