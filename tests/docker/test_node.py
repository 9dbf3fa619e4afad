"""What compose starts fits the code: settings, secrets, site, commands, metrics."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from prometheus_client import CollectorRegistry, Gauge, generate_latest, start_http_server

import service.cli
from service.errors import UnsafeAddressError
from service.listener import check_listen_address
from service.observability import Metrics
from service.settings import Settings
from service.site.load import load_site

ROOT = Path(__file__).resolve().parents[2]
METRIC = re.compile(r"aqcf_[a-z_]+")
WORKER_ONLY = {"aqcf_worker_ready"}
OURS = ("gateway", "worker", "listener")
FILES = (["docker-compose.yml"], ["docker-compose.yml", "docker-compose.cpu.yml"])
FIXED = {"state_dir", "site_file", "metrics_host", "metrics_port"}  # inside the containers
FILLED_BY_HAND = {"aqcf_s3_secret_key"}


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


def resolved(folder: Path, files: list[str], *profiles: str) -> dict[str, Any]:
    """What compose makes of its files and of ``.env``; it needs no engine for that."""
    program = Path(sys.executable).parent / "docker-compose"
    options = [f"--file={file}" for file in files] + [f"--profile={one}" for one in profiles]
    done = subprocess.run(
        [program, *options, "config", "--format=json"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """A checkout after ``docker/init``."""
    shutil.copytree(made, tmp_path / "docker")
    for name in FILES[1]:
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("files", FILES, ids=["gpu", "cpu"])
@pytest.mark.parametrize("profiles", [(), ("pacs",), ("metrics",), ("pacs", "metrics")])
def test_compose_takes_every_combination(
    project: Path, files: list[str], profiles: tuple[str, ...]
) -> None:
    services = resolved(project, files, *profiles)["services"]
    more = {"pacs": {"orthanc"}, "metrics": {"prometheus", "grafana"}}
    wanted = {*OURS, "redis", "postgres"}.union(*(more[one] for one in profiles))
    assert set(services) == wanted
    assert bool(services["worker"].get("deploy")) == (files == FILES[0])


@pytest.mark.parametrize("files", FILES, ids=["gpu", "cpu"])
def test_every_setting_is_reached_from_the_env_file(project: Path, files: list[str]) -> None:
    wanted = {name: f"set-{name}" for name in Settings.model_fields}
    lines = [f"AQCF_{name.upper()}={value}" for name, value in wanted.items()]
    (project / ".env").write_text("\n".join(lines))
    services = resolved(project, files)["services"]
    for role in OURS:
        given = services[role]["environment"]
        fixed = {name for name in wanted if given[f"AQCF_{name.upper()}"] != wanted[name]}
        assert fixed == FIXED, role


def test_without_an_env_file_settings_have_their_defaults(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for role in OURS:
        given = resolved(project, FILES[1])["services"][role]["environment"]
        settings = _settings(given, monkeypatch)
        known = {"redis_url", "artifacts_url", *FIXED}
        assert settings.model_fields_set - known <= {"ae_title", "log_level", "quiet_s"} | {
            "workers", "engine"
        }  # fmt: skip
        defaults = Settings.model_construct().model_dump(exclude=known)
        assert settings.model_dump(exclude=known) == defaults


def _settings(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings()


def test_secret_settings_come_as_secrets(project: Path) -> None:
    """Whatever ``repr`` hides, except URLs that name services of this file."""
    hidden = {f"aqcf_{name}" for name, field in Settings.model_fields.items() if not field.repr}
    services = resolved(project, FILES[0])["services"]
    for role in OURS:
        given = {secret["source"] for secret in services[role]["secrets"]}
        assert hidden - given == {"aqcf_redis_url", "aqcf_s3_access_key"}
        folders = {one["target"]: one for one in services[role]["volumes"]}
        assert folders["/etc/aqcf/files"]["read_only"] is True


def test_a_secret_that_nobody_filled_is_unset(made: Path) -> None:
    secrets = made / "secrets"
    settings = Settings(_secrets_dir=secrets)  # type: ignore[call-arg]
    assert settings.s3_secret_key is None
    assert (settings.database_url or "").startswith("postgresql+psycopg://")
    assert settings.model_fields_set == {"database_url", "admin_key"}


def test_every_variable_is_a_setting(compose: dict[str, Any]) -> None:
    known = {f"AQCF_{name.upper()}" for name in Settings.model_fields}
    for name, settings in compose["services"].items():
        given = {key for key in settings.get("environment", {}) if key.startswith("AQCF_")}
        assert given <= known, name


def test_init_makes_every_secret_once_and_keeps_it(compose: dict[str, Any], made: Path) -> None:
    for name, secret in compose["secrets"].items():
        file = made.parent / secret["file"]
        before = file.read_bytes()
        assert bool(before) != (name in FILLED_BY_HAND), name
    before_all = contents(made / "secrets")
    subprocess.run([sys.executable, str(made / "init")], check=True, capture_output=True)
    assert before_all == contents(made / "secrets")
    assert (made / "secrets").stat().st_mode & 0o077 == 0
    password = (made / "secrets" / "postgres_password").read_text(encoding="utf-8")
    assert f":{password}@postgres/" in (made / "secrets" / "aqcf_database_url").read_text(
        encoding="utf-8"
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def test_containers_can_read_what_a_strict_umask_hides(tmp_path: Path) -> None:
    folder = tmp_path / "docker"
    shutil.copytree(ROOT / "docker", folder, ignore=shutil.ignore_patterns("secrets", "site.yaml"))
    for file in (folder / "site.example.yaml", *(folder / "metrics").iterdir()):
        file.chmod(0o640)
    command = [sys.executable, str(folder / "init")]
    subprocess.run(command, check=True, capture_output=True, umask=0o077)
    hidden = [
        file
        for file in (folder / "site.yaml", *(folder / "metrics").iterdir())
        if not file.stat().st_mode & stat.S_IROTH
    ]
    assert hidden == []
    assert stat.S_IMODE((folder / "secrets").stat().st_mode) == 0o700
    for secret in (folder / "secrets").iterdir():
        assert secret.stat().st_mode & stat.S_IROTH, secret.name


@pytest.fixture
def answering() -> Iterator[str]:
    """The URL of something that says "aqcf_worker_ready 1.0"."""
    registry = CollectorRegistry()
    Gauge("aqcf_worker_ready", "Ready", registry=registry).set(1)
    server, _ = start_http_server(0, "127.0.0.1", registry)
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("rest", "healthy"),
    [([], True), (["aqcf_worker_ready 1.0"], True), (["aqcf_worker_ready 0.0"], False)],
)
def test_health_is_asked_of_the_container_itself(
    answering: str, rest: list[str], healthy: bool
) -> None:
    """Docker gives the proxies of its configuration to every container."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "docker" / "health.py"), answering, *rest],
        env={"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode == 0) is healthy, done.stderr


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
    for name in OURS:
        first, *options = compose["services"][name]["command"]
        known = {option for part in commands[first].params for option in part.opts}
        assert {option for option in options if option.startswith("--")} <= known, name


def test_metrics_are_open_inside_the_network_only(compose: dict[str, Any]) -> None:
    for name in OURS:
        ours = compose["services"][name]
        assert ours["environment"]["AQCF_METRICS_HOST"] == "0.0.0.0"  # noqa: S104
        port = ours["environment"]["AQCF_METRICS_PORT"]
        assert not [given for given in ours.get("ports", []) if given.endswith(f":{port}")]


@pytest.mark.parametrize(
    ("env", "http", "dicom"),
    [
        ("", "127.0.0.1", "127.0.0.1"),
        ("AQCF_BIND=192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("AQCF_DICOM_BIND=192.0.2.1", "127.0.0.1", "192.0.2.1"),
    ],
)
def test_dicom_can_be_open_while_http_is_not(
    project: Path, env: str, http: str, dicom: str
) -> None:
    (project / ".env").write_text(env)
    services = resolved(project, FILES[1], "pacs", "metrics")["services"]
    opened = {
        name: {port["host_ip"] for port in one["ports"]}
        for name, one in services.items()
        if one.get("ports")
    }
    assert opened.pop("listener") == {dicom}
    assert opened.pop("gateway") == {http}
    assert all(addresses == {http} for addresses in opened.values())


def test_our_services_give_up_every_privilege(compose: dict[str, Any]) -> None:
    for name in OURS:
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


@pytest.mark.parametrize("check", [("check", "rules"), ("test", "rules")])
def test_alerts_fire_when_they_should_and_are_silent_otherwise(check: tuple[str, str]) -> None:
    file = "docker/metrics/alerts.yml" if check[0] == "check" else "tests/docker/alerts.yaml"
    command = ["/usr/bin/promtool", *check, file]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried_both_ways() -> None:
    rules = yaml.safe_load((ROOT / "docker/metrics/alerts.yml").read_text(encoding="utf-8"))
    tests = yaml.safe_load((ROOT / "tests/docker/alerts.yaml").read_text(encoding="utf-8"))
    tried = {
        (one["alertname"], bool(one["exp_alerts"]))
        for test in tests["tests"]
        for one in test.get("alert_rule_test", ())
    }
    names = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert tried == {(name, fires) for name in names for fires in (True, False)}
