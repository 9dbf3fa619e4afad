"""`aqcf acceptance` against a running service and an archive."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from roles import COMMAND, QUICK, ROOT
from servers import OrthancServer

RULE: Mapping[str, Any] = {
    "name": "acceptance",
    "when": {"description": "^AQCF ACCEPTANCE"},
    "then": {"model": "acceptance", "series": "every", "destinations": ["archive"]},
}


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
        """A site file; ``changes`` replace its sections."""
        node = self.orthanc.node().model_dump(mode="json", exclude_none=True)
        content = {
            "nodes": {"pacs": node},
            "destinations": {"archive": {"node": "pacs", "by": "dicomweb"}},
            "callers": [{"ae_title": "TESTER"}, {"ae_title": self.orthanc.ae_title}],
            "rules": [RULE],
        } | changes
        path = self.folder / "site.yaml"
        path.write_text(yaml.safe_dump(content))
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
