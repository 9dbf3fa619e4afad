"""`aqcf acceptance` against a running service and an archive."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import yaml
from doctored import Doctor
from pydicom import dcmread
from roles import COMMAND, QUICK, ROOT
from servers import OrthancServer
from web_peers import Answer, Asked, answering

from service import wiring
from service.acceptance import Plan, Report, Verdict, accept
from service.settings import Settings

RULE: Mapping[str, Any] = {
    "name": "acceptance",
    "when": {"description": "^AQCF ACCEPTANCE"},
    "then": {"model": "acceptance", "series": "every", "destinations": ["archive"]},
}
ARCHIVE: Mapping[str, Any] = {"node": "pacs", "by": "dicomweb"}
PROFILES: Mapping[str, Any] = {
    "lines": {"sr_viewer": True, "rtstruct": "always"},
    "masks": {"seg": "labelmap", "sr": False},
}
"""Of nodes and destinations of the same names: the same archive, which gets other results."""


@dataclass(frozen=True)
class Finished:
    """A command that has ended. ``report``: its JSON, ``page``: its HTML, where it wrote them."""

    code: int
    said: str
    report: dict[str, Any]
    page: str

    def failed(self) -> dict[str, set[str]]:
        """Names of the failed checks, by phantom."""
        return {
            one["name"]: {check["name"] for check in one["checks"] if not check["ok"]}
            for one in self.report["phantoms"]
            if one["verdict"] == "FAIL"
        }


@dataclass
class Scene:
    """A service that runs from ``folder``; its site names the archive ``pacs``."""

    folder: Path
    orthanc: OrthancServer
    environment: Mapping[str, str]
    listen_port: int

    def site(self, **changes: Any) -> Path:
        """The service's site file; with ``changes`` of sections another one, for the command."""
        node = self.orthanc.node().model_dump(mode="json", exclude_none=True)
        nodes, destinations, profiles = {"pacs": node}, {"archive": ARCHIVE}, {}
        if not changes:
            nodes |= dict.fromkeys(PROFILES, node | {"retrieve": "get"})
            profiles = PROFILES
            destinations |= {name: {"node": name, "by": "dimse", "profile": name}
                             for name in PROFILES}  # fmt: skip
        content = {
            "nodes": nodes,
            "profiles": profiles,
            "destinations": destinations,
            "callers": [{"ae_title": "TESTER"}, {"ae_title": self.orthanc.ae_title}],
            "rules": [RULE],
        } | changes
        path = self.folder / ("other.yaml" if changes else "site.yaml")
        path.write_text(yaml.safe_dump(json.loads(json.dumps(content))))  # without aliases
        return path

    def accept(self, *arguments: str, **environment: str) -> Finished:
        """Run the command to its end."""
        out = self.folder / f"out-{len(list(self.folder.glob('out-*')))}"
        known = {"AQCF_SITE_FILE": str(self.folder / "site.yaml")}
        done = subprocess.run(
            [*COMMAND, "acceptance", "--node", "pacs", "--out", str(out), *arguments],
            env=os.environ | dict(QUICK) | dict(self.environment) | known | environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        report = [json.loads(file.read_text()) for file in out.glob("*.json")]
        page = [file.read_text() for file in out.glob("*.html")]
        said = done.stdout + done.stderr
        return Finished(done.returncode, said, report[0] if report else {}, "".join(page))

    def accept_here(self, site: Path | None = None, node: str = "pacs", **plan: Any) -> Report:
        """The same in this process. Raises what keeps the test from being made."""
        settings = self.settings(site)
        container = wiring.build(settings, role="acceptance")
        try:
            return accept(container, Plan(node, **plan))
        finally:
            container.database.close()
            container.tracing.close()

    def settings(self, site: Path | None = None) -> Settings:
        """Those of the service, with another site file."""
        return Settings(
            state_dir=self.folder / "state",
            models_dir=Path(self.environment["AQCF_MODELS_DIR"]),
            default_model="tiny",
            site_file=site or self.folder / "site.yaml",
            listen_port=self.listen_port,
        )


def failed(report: Report) -> dict[str, set[str]]:
    """Names of the failed checks, by phantom."""
    return {
        trial.name: {check.name for check in trial.checks if not check.ok}
        for trial in report.trials
        if trial.verdict is Verdict.FAIL
    }


@contextmanager
def between(orthanc: OrthancServer, doctor: Doctor) -> Iterator[str]:
    """The URL of an archive's DICOMweb that gives SEGs back doctored and passes all else on."""
    with httpx.Client(base_url=orthanc.url, timeout=30) as client:

        def passed(asked: Asked) -> Answer:
            headers = {name: value for name, value in asked.headers.items() if name != "host"}
            found = client.request(asked.method, asked.path, headers=headers, content=asked.body)
            kind = found.headers.get("content-type", "")
            body = found.content
            if kind.startswith("multipart/related") and asked.method == "GET":
                body = _doctored(body, doctor)
            return Answer(found.status_code, body, {"Content-Type": kind})

        with answering(passed) as (url, _):
            yield f"{url}/dicom-web"


def _doctored(body: bytes, doctor: Doctor) -> bytes:
    """Of a multipart body (PS3.18 8.7.1)."""
    boundary = body[: body.index(b"\r\n")]
    first, *parts, last = body.split(boundary)
    made = []
    for part in parts:
        head, _, content = part.partition(b"\r\n\r\n")
        dataset = dcmread(BytesIO(content[:-2]))
        if dataset.Modality == "SEG":
            doctor(dataset)
        stored = BytesIO()
        dataset.save_as(stored)
        kept = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
        made.append(b"\r\n".join(kept) + b"\r\n\r\n" + stored.getvalue() + b"\r\n")
    return boundary.join([first, *made, last])
