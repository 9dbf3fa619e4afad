"""The audit behind ``scripts/audit``: pip-audit, believed only where its service really answers.

pip-audit calls a package that its service does not know "skipped", and ends well. Behind a mirror
without advisories everything is skipped. So an old release with known vulnerabilities is asked
about first: a service that knows nothing of that one has not been asked at all.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

CANARY: Final = "urllib3==1.24.1"
OURS: Final = "a-qcf-net"
CLEAN, VULNERABLE, NOT_ASKED = 0, 1, 2
TIMEOUT_S: Final = 1800

Report = dict[str, Any]


def main(options: Sequence[str]) -> int:
    """Print what is known of the installed packages. Exit codes are those of ``scripts/audit``."""
    if not findings(ask(["-r", canary_file(), "--no-deps", "--disable-pip", *service(options)])):
        print(
            "The advisory service was not reached, or is a mirror without advisories: "
            f"it knows nothing of {CANARY}. Nothing was audited.",
            file=sys.stderr,
        )
        return NOT_ASKED
    report = ask(options)
    for line in findings(report):
        print(line)
    for name in left_out(report):
        print(f"not audited: {name}", file=sys.stderr)
    return verdict(report)


def verdict(report: Report) -> int:
    """One package that nobody could be asked about spoils a clean bill."""
    if findings(report):
        return VULNERABLE
    return NOT_ASKED if left_out(report) or not packages(report) else CLEAN


def findings(report: Report) -> list[str]:
    """A line for each known vulnerability."""
    return [
        f"{found['name']} {found['version']}: {advisory['id']}, fixed in "
        f"{', '.join(advisory.get('fix_versions', ())) or 'no release yet'}"
        for found in packages(report)
        for advisory in found.get("vulns", ())
    ]


def left_out(report: Report) -> list[str]:
    """Packages the service does not know, but for this project and local builds (``+cpu``), whose
    plain versions it does not list."""
    skipped = [found for found in packages(report) if "skip_reason" in found]
    return [
        found["name"]
        for found in skipped
        if found["name"] != OURS and "+" not in found["skip_reason"]
    ]


def packages(report: Report) -> list[Report]:
    found: list[Report] = report.get("dependencies", [])
    return found


def ask(options: Sequence[str]) -> Report:
    """pip-audit's report; empty when it could not make one."""
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "-f", "json"]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    try:
        report: Report = json.loads(done.stdout)
    except ValueError:
        print("\n".join(done.stderr.strip().splitlines()[-1:]), file=sys.stderr)
        return {}
    return report


def service(options: Sequence[str]) -> list[str]:
    """Those of the options that say whom to ask."""
    names = ("-s", "--vulnerability-service", "--osv-url", "--timeout")
    pairs = pairwise(options)
    return [word for name, value in pairs if name in names for word in (name, value)]


def canary_file() -> str:
    file = Path(tempfile.mkdtemp()) / "requirements.txt"
    file.write_text(f"{CANARY}\n", encoding="utf-8")
    return str(file)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
