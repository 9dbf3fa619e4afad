"""Every question of the dashboard and every alert, asked of a real Prometheus that watches real
roles at work."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from dimse_senders import associated
from prometheus import METRICS, PrometheusServer
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import build_context
from roles import Deployment
from servers import RedisServer, free_port, wait_until

ROLES = ("gateway", "worker", "listener")
CT = [build_context(CTImageStorage, ExplicitVRLittleEndian)]


def expressions() -> dict[str, list[str]]:
    board = json.loads((METRICS / "dashboard.json").read_text(encoding="utf-8"))
    return {one["title"]: [t["expr"] for t in one["targets"]] for one in board["panels"]}


def site() -> dict[str, Any]:
    """A destination that nobody listens at."""
    return {
        "nodes": {
            "pacs": {"dimse": {"host": "127.0.0.1", "port": free_port(), "ae_title": "PACS"}}
        },
        "destinations": {"pacs": {"node": "pacs", "by": "dimse", "confirm": "none"}},
        "rules": [{"name": "ct", "when": {"modality": "ct"}, "then": {"destinations": ["pacs"]}}],
    }


@pytest.fixture(scope="module")
def deployment(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer, models_dir: Path
) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("watched")
    (folder / "site.yaml").write_text(yaml.safe_dump(site()))
    environment = {
        "AQCF_STATE_DIR": str(folder / "state"),
        "AQCF_MODELS_DIR": str(models_dir),
        "AQCF_REDIS_URL": redis_server.url,
        "AQCF_SITE_FILE": str(folder / "site.yaml"),
        "AQCF_LISTEN_PORT": str(free_port()),
        "AQCF_QUIET_S": "0.5",
    }
    made = Deployment(folder, environment)
    yield made
    made.close()


@pytest.fixture(scope="module")
def prometheus(deployment: Deployment) -> Iterator[PrometheusServer]:
    """It watches one of each role."""
    ports = {name: free_port() for name in ROLES}
    environment = deployment.environment
    for name, command in (("worker", "worker"), ("listener", "listen")):
        deployment.environment = {**environment, "AQCF_METRICS_PORT": str(ports[name])}
        deployment.start(command)
    deployment.environment = {**environment, "AQCF_METRICS_PORT": str(ports["gateway"])}
    deployment.gateway()
    deployment.workers(1)
    server = PrometheusServer(deployment.folder / "prometheus", ports)
    server.start()
    yield server
    server.stop()


def upload(deployment: Deployment, content: bytes) -> httpx.Response:
    return httpx.post(
        f"{deployment.url}/v1/segmentations?modality=ct",
        content=content,
        headers={"Content-Type": "application/zip", "Prefer": "wait=30"},
        timeout=60,
    )


def pull(deployment: Deployment, study_uid: str) -> None:
    asked = {"node": "pacs", "study_instance_uid": study_uid, "modality": "ct"}
    assert httpx.post(f"{deployment.url}/v1/pulls", json=asked, timeout=60).status_code == 202


def store(deployment: Deployment, files: list[Path]) -> None:
    with associated(int(deployment.environment["AQCF_LISTEN_PORT"]), CT) as made:
        assert all(made.send_c_store(dcmread(file)).Status == 0 for file in files)


@pytest.fixture(scope="module")
def busy(
    deployment: Deployment,
    prometheus: PrometheusServer,
    tmp_path_factory: pytest.TempPathFactory,
    made: Any,
) -> PrometheusServer:
    """After an upload, one that was refused, a study from the network whose result cannot be
    delivered, and two that cannot be fetched. Prometheus saw the second of a kind after the first,
    as a rate needs it."""
    folder = tmp_path_factory.mktemp("sent")
    files = made.series(folder / "a", made.phantom())
    assert upload(deployment, made.zip(folder / "a.zip", files).read_bytes()).status_code == 200
    assert upload(deployment, b"no zip").is_client_error
    wait_until(lambda: bool(prometheus.ask("aqcf_jobs_total")), "the job is not seen", 20)
    pull(deployment, "1.2.3")
    wait_until(lambda: bool(prometheus.ask("aqcf_pull_attempts_total")), "nobody tried to pull", 20)
    store(deployment, made.series(folder / "b", made.phantom(seed=1)))
    pull(deployment, "1.2.4")
    done = "aqcf_jobs_total"
    wait_until(lambda: sum(prometheus.ask(done).values()) == 2, "the study is not seen", 60)
    tried = "aqcf_delivery_attempts_total"
    wait_until(lambda: bool(prometheus.ask(tried)), "nobody tried to deliver", 30)
    return prometheus


def test_roles_are_found_by_the_name_of_their_service(busy: PrometheusServer) -> None:
    found = {
        one["labels"]["role"]: (one["health"], one["labels"]["job"])
        for one in busy.get("targets")["activeTargets"]
    }
    assert found == dict.fromkeys(ROLES, ("up", "aqcf"))


@pytest.mark.parametrize("title", expressions())
def test_every_panel_shows_something(busy: PrometheusServer, title: str) -> None:
    """A number for each of its questions, on a machine without a GPU too."""
    for expression in expressions()[title]:

        def answered(asked: str = expression) -> bool:
            values = busy.ask(asked).values()
            return bool(values) and not any(math.isnan(value) for value in values)

        wait_until(answered, expression, 10)


def test_the_first_of_each_kind_counts(busy: PrometheusServer) -> None:
    """Prometheus' own increase() leaves it out."""
    panels = expressions()
    (finished,) = panels["Finished per hour, by outcome"]
    assert sum(busy.ask(finished).values()) == pytest.approx(2, abs=0.2)
    (refused,) = panels["Uploads refused per hour"]
    assert list(busy.ask(refused).values()) == [1]
    (ready,), (waiting,) = panels["Workers ready"], panels["Results on the way"]
    assert list(busy.ask(ready).values()) == [1]
    assert list(busy.ask(waiting).values()) == [1]


def test_alerts_are_understood_and_a_working_node_fires_none(busy: PrometheusServer) -> None:
    def rules() -> list[dict[str, Any]]:
        return [one for group in busy.get("rules")["groups"] for one in group["rules"]]

    wait_until(lambda: {one["health"] for one in rules()} == {"ok"}, "not evaluated", 10)
    assert {one["state"] for one in rules()} == {"inactive"}
