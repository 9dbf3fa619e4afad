"""What compose starts fits the code: settings, secrets, site, commands, metrics."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from prometheus_client import generate_latest

import service.cli
from service.errors import UnsafeAddressError
from service.listener import check_listen_address
from service.observability import Metrics
from service.settings import Settings
from service.site.load import load_site

ROOT = Path(__file__).resolve().parents[2]
METRIC = re.compile(r"aqcf_[a-z_]+")
WORKER_ONLY = {"aqcf_worker_ready"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The docker folder after ``docker/init``."""
    folder = tmp_path_factory.mktemp("node") / "docker"
    shutil.copytree(ROOT / "docker", folder, ignore=shutil.ignore_patterns("secrets", "site.yaml"))
    for _ in range(2):
        subprocess.run([sys.executable, str(folder / "init")], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker-compose.cpu.yml"])
def test_compose_files_keep_to_the_specification(name: str, tmp_path: Path) -> None:
    file = tmp_path / name  # the schema knows no tag of compose's own
    file.write_text((ROOT / name).read_text(encoding="utf-8").replace("!reset ", ""))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_variable_is_a_setting(compose: dict[str, Any]) -> None:
    known = {f"AQCF_{name.upper()}" for name in Settings.model_fields}
    for name, settings in compose["services"].items():
        given = {key for key in settings.get("environment", {}) if key.startswith("AQCF_")}
        assert given <= known, name


def test_init_makes_every_secret_once_and_keeps_it(compose: dict[str, Any], made: Path) -> None:
    for name, secret in compose["secrets"].items():
        file = made.parent / secret["file"]
        before = file.read_bytes()
        assert before, name
    before_all = {file.name: file.read_bytes() for file in (made / "secrets").iterdir()}
    subprocess.run([sys.executable, str(made / "init")], check=True, capture_output=True)
    assert before_all == {file.name: file.read_bytes() for file in (made / "secrets").iterdir()}
    assert (made / "secrets").stat().st_mode & 0o077 == 0
    password = (made / "secrets" / "postgres_password").read_text(encoding="utf-8")
    assert f":{password}@postgres/" in (made / "secrets" / "aqcf_database_url").read_text(
        encoding="utf-8"
    )


def test_every_configuration_file_is_there(compose: dict[str, Any], made: Path) -> None:
    for config in compose["configs"].values():
        assert (made.parent / config["file"]).is_file()


def test_the_example_site_loads(made: Path) -> None:
    site = load_site(made / "site.yaml")
    assert site.archive in site.nodes
    assert all(rule.then.ignore or rule.then.destinations for rule in site.rules)


def test_the_listener_starts_with_the_example_site(compose: dict[str, Any], made: Path) -> None:
    """On an address that others reach it wants to know who may send."""
    words = compose["services"]["listener"]["command"]
    settings = Settings(listen_host=words[words.index("--host") + 1])
    site = load_site(made / "site.yaml")
    check_listen_address(settings, site)
    with pytest.raises(UnsafeAddressError):
        check_listen_address(settings, site.model_copy(update={"callers": ()}))


def test_services_run_commands_that_exist(compose: dict[str, Any]) -> None:
    commands = typer.main.get_group(service.cli.app).commands
    for name in ("gateway", "worker", "listener"):
        first, *options = compose["services"][name]["command"]
        known = {option for part in commands[first].params for option in part.opts}
        assert {option for option in options if option.startswith("--")} <= known, name


def test_our_services_give_up_every_privilege(compose: dict[str, Any]) -> None:
    for name in ("gateway", "worker", "listener"):
        ours = compose["services"][name]
        assert ours["read_only"] is True
        assert ours["cap_drop"] == ["ALL"]
        assert ours["healthcheck"]["test"][:3] == ["CMD", "python", "/opt/health.py"]
    assert "USER 10001" in (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")


def test_dashboard_and_alerts_ask_for_metrics_that_exist() -> None:
    shown = set(METRIC.findall(generate_latest(Metrics().registry).decode())) | WORKER_ONLY
    suffixes = ("", "_total", "_bucket", "_sum", "_count")
    known = {name + suffix for name in shown for suffix in suffixes}
    asked = {
        name
        for file in ("dashboard.json", "alerts.yml")
        for name in METRIC.findall((ROOT / "docker" / "metrics" / file).read_text(encoding="utf-8"))
    }
    assert len(asked) > 15
    assert asked <= known


def test_no_panel_covers_another() -> None:
    board = json.loads((ROOT / "docker" / "metrics" / "dashboard.json").read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + dx, place["y"] + dy)
            for dx in range(place["w"])
            for dy in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
