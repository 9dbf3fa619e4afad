"""What import-linter cannot see: what serving loads. And that the face of the project is there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOADED = """
import json, sys
{imports}
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""
HEAVY = {"torch", "monai", "lightning_fabric", "matplotlib", "onnx", "training"}
ENGINES = {"openvino", "onnxruntime"}
SERVING = """
import service.cli, service.server, service.wiring, service.oneshot, service.doctor
import model.pipeline, model.backends.onnx, model.backends.openvino
from model.backends import available_engines
available_engines()
"""
WEB = "import service.api.app, service.intake; service.api.app.bare_app()"


def loaded_by(imports: str) -> set[str]:
    command = [sys.executable, "-W", "ignore", "-c", LOADED.format(imports=imports)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_serving_loads_no_torch() -> None:
    assert not loaded_by(SERVING) & HEAVY


def test_web_loads_no_engine() -> None:
    assert not loaded_by(WEB) & (ENGINES | HEAVY)


def test_engines_report_to_nobody(tmp_path: Path) -> None:
    """Both leave an id of this machine in the home folder before they send."""
    command = [sys.executable, "-W", "ignore", "-c", LOADED.format(imports=SERVING)]
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("name", ["LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"])
def test_face_is_there(name: str) -> None:
    assert (ROOT / name).is_file()


def test_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize("name", ["scripts/demo", "scripts/test", ".ci/run"])
def test_commands_are_executable(name: str) -> None:
    assert (ROOT / name).stat().st_mode & 0o111


@pytest.mark.parametrize("name", ["scripts/demo", "scripts/test", "scripts/environment", ".ci/run"])
def test_commands_parse(name: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / name)], check=True)
