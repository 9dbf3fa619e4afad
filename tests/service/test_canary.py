"""Canaries in every header, name and request, sent in by every way, refused, failed, delivered and
deleted; then every log, metric, trace, Redis key, name, error, answer and column is searched.

What may hold patient data is in docs/security.md, row by row, and in ``ALLOWED``.
"""

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from canary import Allowed, Hit, disguises, planted, search
from canary_acts import (
    Series,
    alone,
    broken_off,
    delivered,
    looked_at,
    pulled,
    refused,
    sent_by_network,
    submitted,
    typed,
    zipped,
)
from canary_scene import Scene, staged
from object_store import S3Server
from prometheus_client import CollectorRegistry, Counter
from roles import ROOT as CHECKOUT
from roles import Role
from servers import OrthancServer, PostgresServer, RedisServer
from web_peers import Answer, answering

from service.audit import AuditLog
from service.scrape import show_metrics
from service.storage.database import open_database

UID = frozenset({"a UID"})
DESCRIBED = frozenset({"SeriesDescription"})
ALLOWED = (
    Allowed("stored images", "stored image"),
    Allowed("results in DICOM", "stored result|result"),
    Allowed(
        "arrivals and pulls in the ledger", r"ledger (arrivals|pulls)\.(study|series)_uid", UID
    ),
    Allowed("receipts", r"receipt|ledger jobs\.receipt|ledger file", DESCRIBED),
    Allowed("answers to STOW-RS", "STOW answer", UID),
    Allowed("the terminal of `aqcf rules test`", "terminal of rules", DESCRIBED),
)


CODES = {
    "bad_multipart", "corrupt_archive", "cross_site_request", "empty_upload", "forbidden",
    "invalid_cursor", "invalid_instance", "invalid_parameter", "job_not_found",
    "ledger_unavailable", "method_not_allowed", "nested_archive", "not_found", "nothing_to_pull",
    "pacs_refused", "pacs_unavailable", "store_unavailable", "time_limit", "too_few_slices",
    "truncated_pixel_data", "unauthorized", "undecodable_pixel_data", "unknown_destination",
    "unknown_host", "unknown_model", "unknown_node", "unknown_profile", "unknown_series",
    "unsafe_archive", "unsupported_media", "wrong_modality",
}  # fmt: skip
PLACES = {
    "log of gateway", "log of worker", "log of listen", "log of serve", "log of a server",
    "metrics", "trace", "Redis", "name", "answer", "answer headers", "error", "receipt",
    "ledger audit.action", "ledger file", "stored file", "stored image", "stored result",
    "terminal of audit", "terminal of deliveries", "terminal of rules", "terminal of segment",
}  # fmt: skip


@pytest.fixture(scope="module")
def scene(
    tmp_path_factory: pytest.TempPathFactory,
    models_dir: Path,
    made: Any,
    orthanc_server: OrthancServer,
    redis_server: RedisServer,
    postgres_server: PostgresServer,
    s3_server: S3Server,
) -> Iterator[Scene]:
    """Played to the end; its processes have stopped."""
    folder = tmp_path_factory.mktemp("canary")
    orthanc_server.clear()
    redis_server.flush()
    with staged(
        folder, models_dir, orthanc_server, redis_server, postgres_server, s3_server
    ) as scene:
        try:
            play(scene, made, orthanc_server)
        finally:
            scene.close()
        scene.collect()
        yield scene


def play(scene: Scene, made: Any, pacs: OrthancServer) -> None:
    began, series = time.monotonic(), Series(made, scene.folder)

    def told(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}", flush=True)

    gateway, listener, whole = scene.role("gateway"), scene.role("listen"), scene.alone()
    scene.wait_for(gateway, "listening on")
    told("a gateway")
    jobs = submitted(scene, series, made)
    worker = scene.role("worker")
    told("submitted")
    refused(scene, series)
    told("refused")
    scene.wait_for(listener, "listening as")
    sent_by_network(scene, series, pacs)
    told("sent by network")
    scene.wait_for(worker, "ready as")
    scene.finished(*jobs.values())
    told("segmented")
    pulled(scene, made, pacs)
    told("pulled")
    delivered(scene, jobs["delivered"])
    told("delivered")
    looked_at(scene, jobs)
    scene.ask("GET", "/metrics", "metrics")
    scene.show_metrics()
    scene.evidence.add("Redis", scene.broker.content())
    told("looked at")
    worker.kill()
    late = scene.submit(zipped(series.write()), params={"profile": "paper"})
    scene.role("worker", AQCF_JOB_SOFT_LIMIT_S="0.1")
    typed(scene, series)
    told("typed")
    scene.wait_for(whole, "listening on")
    alone(scene, series)
    told("alone")
    scene.finished(late)
    told("late")
    broken_off(scene, series, jobs["delivered"])
    scene.evidence.add("Redis", scene.broker.content())
    told("broken off")
    scene.stop()
    told("stopped")


@pytest.fixture(scope="module")
def hits(scene: Scene) -> list[Hit]:
    return scene.evidence.hits()


def test_nothing_planted_is_found(hits: list[Hit]) -> None:
    """But where docs/security.md says so."""
    leaks = [hit for hit in hits if not any(allowed.covers(hit) for allowed in ALLOWED)]
    assert not leaks, "\n".join(map(str, leaks))


@pytest.mark.parametrize("allowed", ALLOWED, ids=lambda one: one.row)
def test_what_is_allowed_is_needed(hits: list[Hit], allowed: Allowed) -> None:
    assert any(allowed.covers(hit) for hit in hits)


def test_the_page_on_security_says_where_patient_data_is() -> None:
    page = (CHECKOUT / "docs" / "security.md").read_text(encoding="utf-8")
    table = page.partition("### Where patient data is")[2].partition("\n#")[0]
    rows = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)[1:]
    assert rows == [allowed.row for allowed in ALLOWED]


def test_all_of_it_happened(scene: Scene) -> None:
    """What was refused, failed and given up, by code; and every place was looked at."""
    seen = set(re.findall(r'"code": "([a-z_]+)"', scene.evidence.text()))
    seen |= set(re.findall(r"^error ([a-z_]+):", scene.evidence.text("terminal"), re.MULTILINE))
    assert seen >= CODES, CODES - seen
    states = set(scene.evidence.text("ledger jobs.status").split())
    assert {"succeeded", "failed", "cancelled"} <= states
    assert scene.evidence.places() >= PLACES
    for place in PLACES:
        assert len(scene.evidence.text(place)) > 300, place


def test_the_archive_has_the_patients_names(scene: Scene, orthanc_server: OrthancServer) -> None:
    """What was delivered is whole: nothing was found because nothing was there."""
    with orthanc_server.http() as http:
        studies = http.get("/studies", params={"expand": ""}).raise_for_status().json()
    modalities = orthanc_server.tags("series", "Modality")
    assert {"CT", "SEG", "SR"} <= set(modalities)
    names = "".join(study["PatientMainDicomTags"]["PatientName"] for study in studies)
    assert "Zwitscherbein" in names


DISGUISED = {
    "PatientID": "as it is utf-8 ",
    "AccessionNumber": "lower utf-8 hex",
    "OtherPatientNames": "as it is utf-8 base64 at 1",
    "InstitutionName": "upper utf-8 ",
    "PatientBirthDate": "German with . utf-8 ",
    "StudyDate": "ISO with - utf-8 ",
    "StudyTime": "clock utf-8 ",
    "PatientName 3": "as it is iso2022_jp ",
    "PatientName 8": "as it is JSON",
    "PatientName 9": "as it is utf-8 percent",
    "a UID": "as it is utf-8 ",
}
"""Canaries, each in another disguise."""
WATCHED = ("log of gateway", "metrics", "trace", "Redis", "name", "ledger audit.action",
           "stored file", "answer", "answer headers", "error")  # fmt: skip


@pytest.fixture(scope="module")
def spoilt(
    tmp_path_factory: pytest.TempPathFactory,
    models_dir: Path,
    orthanc_server: OrthancServer,
    redis_server: RedisServer,
    postgres_server: PostgresServer,
    s3_server: S3Server,
) -> set[tuple[str, str]]:
    """A deployment without processes, in every place of which somebody wrote every canary; what the
    search found of that, as place and canary."""
    folder = tmp_path_factory.mktemp("spoilt")
    servers = (orthanc_server, redis_server, postgres_server, s3_server)
    with staged(folder, models_dir, *servers) as scene:
        try:
            for value, way in DISGUISED.items():
                spoil(scene, disguises(planted()[value])[way].decode("ascii"))
        finally:
            scene.close()
        scene.collect()
    return {(hit.place, hit.value) for hit in scene.evidence.hits()}


def spoil(scene: Scene, word: str) -> None:
    log = scene.folder / "gateway.log"
    with log.open("a") as stream:
        process = subprocess.Popen(["echo", f'{{"event": "{word}"}}'], stdout=stream)
    process.wait()
    scene.deployment.roles[:] = [Role("gateway", process, log)]
    registry = CollectorRegistry()
    Counter("done", "Done", ["what"], registry=registry).labels(word).inc()
    server = show_metrics(registry, 0)
    scene.metrics["gateway"] = server.server_port
    scene.show_metrics()
    server.shutdown()
    server.server_close()
    scene.collector.bodies.append(word.encode())
    with scene.broker.client() as redis:
        redis.set(f"aqcf:{word}", 1)
        redis.delete(f"aqcf:{word}")
    (scene.folder / "state" / word).mkdir(parents=True)
    (scene.folder / "state" / word / "measurements.json").write_text(word)
    ledger = open_database(scene.deployment.environment["AQCF_DATABASE_URL"])
    ledger.upgrade()
    AuditLog(ledger).record("local", word)
    ledger.close()
    for status in (200, 404):
        with answering(Answer(status, word.encode(), {"X-Note": word})) as (url, _):
            scene.ask("GET", url)


@pytest.mark.parametrize("place", WATCHED)
@pytest.mark.parametrize("value", DISGUISED)
def test_a_canary_is_found_wherever_it_is(
    spoilt: set[tuple[str, str]], place: str, value: str
) -> None:
    assert (place, value) in spoilt


@pytest.mark.parametrize("value", planted())
def test_the_search_knows_every_disguise(value: str) -> None:
    for way, written in disguises(planted()[value]).items():
        assert list(search("here", b"{" + written + b"}")), way
