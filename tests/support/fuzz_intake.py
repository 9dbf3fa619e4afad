"""The whole way of an upload from a stranger: the answer, the job, and what is made of the job."""

import re
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from service import execute
from service.container import Container
from service.domain import Status

ROOT = Path(__file__).resolve().parents[2]
FIRST_CELL = re.compile(r"^\| `([a-z0-9_]+)` \|", re.MULTILINE)
ERROR_ROW = re.compile(r"^\| `([a-z0-9_]+)` \| (\d{3}) \|", re.MULTILINE)
LIMIT_S = 10.0  # of processor time, for one answer or one job, however busy the machine is
OURS = {"internal_error", "internal", "seg_mismatch", "worker_died", "time_limit"}
"""Codes that say that the service failed, not the input."""
FORMS = (
    "seg", "seg?form=labelmap_deflated", "sr", "sr?form=viewer", "rtstruct", "capture",
    "mask.nii.gz", "image.nii.gz", "measurements", "preview.png", "slices", "slices/1.png",
)  # fmt: skip


def known_codes() -> dict[str, int]:
    """Every code that docs/api.md promises, with its status; 0 where no answer ever has it."""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").partition("\n## Errors")[2]
    statuses = {code: int(status) for code, status in ERROR_ROW.findall(page)}
    return dict.fromkeys(FIRST_CELL.findall(page), 0) | statuses


class Memory:
    """The most resident memory of this process since it was made."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self.before_mib = self.now_mib("VmRSS")

    @property
    def growth_mib(self) -> int:
        return self.now_mib("VmHWM") - self.before_mib

    @staticmethod
    def now_mib(what: str) -> int:
        status = Path("/proc/self/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith(what))
        return int(line.split()[1]) // 1024


@dataclass
class Gate:
    """A service without workers; jobs are run here, one after the other."""

    container: Container
    http: httpx.Client
    answers: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slowest_job_s: float = 0.0
    codes: dict[str, int] = field(default_factory=known_codes)

    def send(self, content: bytes | list[bytes], kind: str = "application/octet-stream") -> None:
        """Upload; check the answer; if a job was accepted, run it and check how it ended. What
        fails is kept, and the failure says where."""
        try:
            self._send(content, kind)
        except Exception as error:
            error.add_note(f"the upload is kept in {self._kept(content)}")
            raise

    def _send(self, content: bytes | list[bytes], kind: str) -> None:
        began, spent = time.monotonic(), time.process_time()
        answer = self._post(content, kind)
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        assert time.process_time() - spent < LIMIT_S
        if answer.is_success:
            self._finish(answer.json())
        else:
            self._refused(answer)

    def figures(self) -> dict[str, Any]:
        return {
            "examples": self.answers.total(), "answers": dict(self.answers.most_common()),
            "jobs": dict(self.ends.most_common()), "slowest_answer_s": round(self.slowest_s, 2),
            "slowest_job_s": round(self.slowest_job_s, 2),
        }  # fmt: skip

    def _kept(self, content: bytes | list[bytes]) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="fuzz-upload-"))
        for number, data in enumerate([content] if isinstance(content, bytes) else content):
            (folder / f"{number:03d}").write_bytes(data)
        return folder

    def _post(self, content: bytes | list[bytes], kind: str) -> httpx.Response:
        url = "/v1/segmentations?modality=ct"
        if isinstance(content, bytes):
            return self.http.post(url, content=content, headers={"Content-Type": kind})
        parts = [("files", (f"{number}", data)) for number, data in enumerate(content)]
        return self.http.post(url, files=parts)

    def _refused(self, answer: httpx.Response) -> None:
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        code = answer.json()["code"]
        self.answers[code] += 1
        assert self.codes.get(code) == answer.status_code, answer.text
        lines = answer.json().get("receipt") or []
        assert {line["code"] for line in lines if line.get("code")} <= self.codes.keys()

    def _finish(self, job: dict[str, Any]) -> None:
        self.answers["accepted"] += 1
        began, spent = time.monotonic(), time.process_time()
        execute.run(self.container, job["id"])
        self.slowest_job_s = max(self.slowest_job_s, time.monotonic() - began)
        assert time.process_time() - spent < LIMIT_S
        self._ended(job["id"])
        self.http.delete(f"/v1/segmentations/{job['id']}").raise_for_status()  # the next is new

    def _ended(self, job_id: str) -> None:
        job = self.container.jobs.require(job_id)
        if job.status is Status.FAILED:
            assert job.error is not None
            self.ends[job.error.code] += 1
            assert job.error.code in self.codes.keys() - OURS
            return
        assert job.status is Status.SUCCEEDED
        self.ends[str(job.outcome)] += 1
        for form in FORMS if self.ends.total() % 4 == 1 else FORMS[:1]:
            answer = self.http.get(f"/v1/segmentations/{job_id}/{form}")
            assert answer.status_code < 500, (form, answer.text)
