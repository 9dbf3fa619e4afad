"""Traces as a collector receives them, and what they cost where nobody asks for them."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from collector import Collector, collecting
from servers import OrthancServer

from service import deliver, execute, intake, pull, wiring
from service.api.app import create_app
from service.api.server import Server, bind, url_of
from service.container import Container
from service.domain import NewPull, Status, SubmitOptions
from service.errors import TracingUnavailableError
from service.settings import Settings
from service.uploads import Upload

CANARY = "Zwitscherbein"
LEAKS = (CANARY, "1.2.826.0.1.3680043.8.498.77", "19010203", "19040506", "127.0.0.1")
CT = SubmitOptions("ct")
STAGES = {"read", "prepare", "inference", "restore", "postprocess", "measure", "seg", "sr", "store"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@contextmanager
def traced(
    settings: Settings, collector: Collector, role: str = "serve", **changes: Any
) -> Iterator[Container]:
    """A container that tells the collector; all is sent after the block."""
    wanted = settings.model_copy(update={"otlp_endpoint": collector.url, **changes})
    container = wiring.build(wanted, role=role)
    try:
        yield container
    finally:
        container.database.close()
        container.tracing.close()


@contextmanager
def answering(container: Container) -> Iterator[httpx.Client]:
    """A client of the real server over this container."""
    server = Server(create_app(container), "127.0.0.1", 0)
    with bind("127.0.0.1", 0) as bound:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        try:
            with httpx.Client(base_url=url_of(bound), timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(10)


def test_a_job_is_one_trace_over_two_processes(
    settings: Settings, collector: Collector, ct_zip: Path
) -> None:
    """Only the id goes from one to the other."""
    with traced(settings, collector, "gateway") as gateway:
        job = intake.submit(gateway, Upload((ct_zip,)), CT)
    with traced(settings, collector, "worker") as worker:
        execute.run(worker, job.id)
        assert worker.jobs.require(job.id).status is Status.SUCCEEDED
    assert set(collector.paths) == {"/v1/traces"}

    [intake_span], [root] = collector.named("intake"), collector.named("job")
    assert (root.trace_id, root.parent_id) == (UUID(job.id).hex, "")
    assert root.links == ((intake_span.trace_id, intake_span.span_id),)
    assert intake_span.attributes["job_id"] == job.id
    [waited], [attempt] = collector.named("queue"), collector.named("attempt")
    for span in (waited, attempt):
        assert (span.service, span.trace_id, span.parent_id) == (
            "aqcf-worker",
            root.trace_id,
            root.span_id,
        )
        assert span.attributes["job_id"] == job.id
    assert waited.start == int(job.created_at.timestamp() * 1e9)
    assert waited.end <= attempt.start
    assert attempt.attributes["outcome"] == "lesion_found"
    stages = [span for span in collector.spans() if span.parent_id == attempt.span_id]
    assert {span.name for span in stages} >= STAGES
    for span in stages:
        assert attempt.start <= span.start <= span.end <= attempt.end


def test_a_request_is_its_method_route_and_status(
    settings: Settings, collector: Collector, ct_zip: Path
) -> None:
    with traced(settings, collector) as container, answering(container) as client:
        body = ct_zip.read_bytes()
        foreign = f"00-{'ab' * 16}-{'cd' * 8}-01"
        headers = {"traceparent": foreign, "Content-Type": "application/zip"}
        query = {"modality": "ct", "unknown": CANARY}
        answer = client.post("/v1/segmentations", params=query, content=body, headers=headers)
        assert answer.status_code == 202
        client.get(f"/v1/segmentations/{CANARY}")
        client.get(f"/{CANARY}")
        client.request(CANARY.upper(), "/v1/models")
        client.get("/healthz")
    [posted] = collector.named("POST /v1/segmentations")
    assert posted.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/segmentations",
        "http.response.status_code": 202,
    }
    assert posted.trace_id != "ab" * 16
    [intake_span] = collector.named("intake")
    assert (intake_span.trace_id, intake_span.parent_id) == (posted.trace_id, posted.span_id)
    assert collector.named("GET /v1/segmentations/{segmentation_id}")
    assert collector.named("GET other")
    assert not collector.named("GET /healthz")
    assert any(span.name.startswith("other ") for span in collector.spans())
    assert not [word for word in LEAKS if word.lower() in collector.text().lower()]


def test_a_delivery_is_in_the_trace_of_its_job(
    settings: Settings, collector: Collector, ct_zip: Path, orthanc: OrthancServer, tmp_path: Path
) -> None:
    site = tmp_path / "site.yaml"
    node = f"{{host: 127.0.0.1, port: {orthanc.dicom_port}, ae_title: {orthanc.ae_title}}}"
    site.write_text(
        f"nodes: {{pacs: {{dimse: {node}}}}}\ndestinations: {{archive: {{node: pacs, by: dimse}}}}"
    )
    with traced(settings, collector, site_file=site) as container:
        options = SubmitOptions("ct", destinations=("archive",))
        job = intake.submit(container, Upload((ct_zip,)), options)
        execute.run(container, job.id)
        deliver.run_once(container)
    [delivery] = collector.named("delivery")
    assert delivery.trace_id == UUID(job.id).hex
    assert delivery.attributes == {
        "job_id": job.id,
        "destination": "archive",
        "attempts": 1,
        "outcome": "delivered",
    }


def test_a_pull_is_a_span_and_intake_is_below_it(
    settings: Settings, collector: Collector, orthanc: OrthancServer, made: Any, tmp_path: Path
) -> None:
    orthanc.load(made.series(tmp_path / "images", made.phantom(), canary=CANARY))
    [study] = orthanc.tags("studies", "StudyInstanceUID")
    site = tmp_path / "site.yaml"
    node = f"{{host: 127.0.0.1, port: {orthanc.dicom_port}, ae_title: {orthanc.ae_title}}}"
    site.write_text(f"nodes: {{pacs: {{dimse: {node}}}}}")
    with traced(settings, collector, site_file=site) as container:
        asked = pull.ask(container, NewPull("pacs", study, "somebody", modality="ct"))
        gone = pull.ask(container, NewPull("pacs", "1.2.3.4", "somebody", modality="ct"))
        pull.run_once(container)
    spans = {span.attributes["pull_id"]: span for span in collector.named("pull")}
    done, failed = spans[asked.id], spans[gone.id]
    told = {"pull_id": asked.id, "attempts": 1, "modality": "ct", "outcome": "done"}
    assert done.attributes == told
    assert (failed.failed, failed.attributes["code"]) == (True, "nothing_to_pull")
    [intake_span] = collector.named("intake")
    assert intake_span.trace_id == done.trace_id
    assert not [word for word in LEAKS if word.lower() in collector.text().lower()]


def test_what_fails_says_its_code_and_nothing_of_the_patient(
    settings: Settings, collector: Collector, tmp_path: Path, made: Any
) -> None:
    files = made.series(tmp_path / CANARY, made.phantom(), canary=CANARY)
    archive = made.zip(tmp_path / f"{CANARY}.zip", files)
    with traced(settings, collector) as container:
        with pytest.raises(Exception, match="MR"):
            intake.submit(container, Upload((archive,)), SubmitOptions("mr"))
        job = intake.submit(container, Upload((archive,)), CT)
        container.artifacts.delete_input(job.input_key)
        execute.run(container, job.id)
        code = container.jobs.require(job.id).error
    refused, accepted = sorted(collector.named("intake"), key=lambda span: span.start)
    assert (refused.failed, refused.attributes["code"]) == (True, "wrong_modality")
    assert not accepted.failed
    [attempt] = collector.named("attempt")
    assert code is not None
    assert (attempt.failed, attempt.attributes["code"]) == (True, code.code)
    assert len(collector.spans()) >= 5
    assert not [word for word in LEAKS if word.lower() in collector.text().lower()]


def test_without_a_collector_nothing_is_loaded(tmp_path: Path) -> None:
    """FastAPI and redis-py load other parts of OpenTelemetry, which do nothing alone."""
    code = (
        "import sys; from pathlib import Path; from service import wiring, server, worker\n"
        "from service.api.app import create_app; from service.settings import Settings\n"
        f"made = wiring.build(Settings(state_dir=Path({str(tmp_path)!r})))\n"
        "create_app(made)\n"
        "heavy = ('service.tracing.otlp', 'opentelemetry.exporter', 'opentelemetry.sdk.trace')\n"
        "sys.exit(any(name.startswith(heavy) for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_the_web_framework_tells_nobody_of_requests(tmp_path: Path) -> None:
    """It would, with path and query, as soon as a process has a provider of traces."""
    code = (
        "import asyncio, httpx, sys; from pathlib import Path; from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import SimpleSpanProcessor\n"
        "from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter\n"
        "from service import wiring; from service.api.app import create_app\n"
        "from service.settings import Settings\n"
        "kept, provider = InMemorySpanExporter(), TracerProvider()\n"
        "provider.add_span_processor(SimpleSpanProcessor(kept))\n"
        "trace.set_tracer_provider(provider)\n"
        f"app = create_app(wiring.build(Settings(state_dir=Path({str(tmp_path)!r}))))\n"
        "async def ask():\n"
        "    url, transport = 'http://127.0.0.1', httpx.ASGITransport(app)\n"
        "    async with httpx.AsyncClient(transport=transport, base_url=url) as client:\n"
        "        return (await client.get('/healthz?name=x')).status_code\n"
        "assert asyncio.run(ask()) == 200\n"
        "trace.get_tracer('check').start_span('check').end()\n"
        "sys.exit([span.name for span in kept.get_finished_spans()] != ['check'])"
    )
    places = {"FASTAPI_OTEL_AUTO_CONFIGURE": "true"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | places, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def test_a_role_without_the_extra_says_so_and_does_not_start(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['opentelemetry.sdk'] = None\n"
        "from service.cli import main; sys.argv = ['aqcf', 'serve', '--port', '0']; main()"
    )
    places = {"AQCF_OTLP_ENDPOINT": "http://127.0.0.1:9", "AQCF_STATE_DIR": str(tmp_path / "s")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | places, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"error tracing_unavailable" in done.stderr
    assert b"a-qcf-net[trace]" in done.stderr
    assert b"Traceback" not in done.stderr
    assert TracingUnavailableError.code == "tracing_unavailable"


def test_a_collector_that_is_away_stops_nothing(settings: Settings, ct_zip: Path) -> None:
    with collecting() as gone:
        pass
    with traced(settings, gone) as container:
        job = intake.submit(container, Upload((ct_zip,)), CT)
        execute.run(container, job.id)
        assert container.jobs.require(job.id).status is Status.SUCCEEDED
