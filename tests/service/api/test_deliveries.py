"""Destinations over HTTP and on the command line, with a running service that delivers."""

import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dimse_peers import StoreScp, store_scp
from pydicom.uid import SegmentationStorage
from servers import free_port, wait_until
from typer.testing import CliRunner

from service import wiring
from service.cli import app
from service.settings import Settings

SITE = """
nodes:
  near: {{dimse: {{host: 127.0.0.1, port: {near}, ae_title: NEAR}}, timeout_s: 5}}
  far: {{dimse: {{host: 127.0.0.1, port: {far}, ae_title: FAR}}, timeout_s: 5}}
destinations:
  near: {{node: near, by: dimse, confirm: none}}
  far: {{node: far, by: dimse, confirm: none}}
"""


@pytest.fixture
def peer() -> Iterator[StoreScp]:
    with store_scp() as found:
        yield found


@pytest.fixture
def delivering(
    tmp_path: Path, peer: StoreScp, settings: Settings, start: Callable[..., Any]
) -> Iterator[Any]:
    """A service whose site has ``near``, which takes everything, and ``far``, which is down."""
    site = tmp_path / "site.yaml"
    site.write_text(SITE.format(near=peer.port, far=free_port()))
    changed = settings.model_copy(update={"site_file": site})
    with wiring.embedded(changed) as container, start(container) as service:
        yield service


def deliveries(service: Any, job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    answer = service.http.get(job["links"]["deliveries"])
    assert answer.status_code == 200, answer.text
    return {item["destination"]: item for item in answer.json()["items"]}


def test_named_destinations_get_the_results(
    delivering: Any, peer: StoreScp, ct_zip: Path, settings: Settings
) -> None:
    job = delivering.done(ct_zip.read_bytes(), params={"destination": ["near", "far", "near"]})
    assert job["destinations"] == ["near", "far"]

    wait_until(lambda: deliveries(delivering, job)["near"]["state"] == "delivered", "near", 30)
    wait_until(lambda: deliveries(delivering, job)["far"]["code"] is not None, "far", 30)
    found = deliveries(delivering, job)
    near, far = found["near"], found["far"]
    assert [item["form"] for item in near["sent"]] == ["seg", "sr"]
    assert SegmentationStorage in [sop_class for sop_class, _, _ in peer.got]
    assert (far["state"], far["code"]) == ("pending", "pacs_unavailable")
    assert far["segmentation"] == job["id"]
    assert not re.search(r"\d+(\.\d+){3,}", str(near)), "no UID leaves"

    again = delivering.http.post(f"/v1/deliveries/{far['id']}/retry")
    assert again.status_code == 200
    assert again.json()["attempts"] in (0, 1)
    problem = delivering.http.post(f"/v1/deliveries/{near['id']}/retry")
    delivering.problem(problem, 409, "already_delivered")
    _ask_on_the_command_line(settings, near["id"], far["id"])
    rows = delivering.container.audit.entries(job["id"])
    assert [row.actor for row in rows if row.action == "retry_delivery"] == ["cli", "local"]

    delivering.http.delete(job["links"]["self"])
    state = delivering.container.deliveries.require(far["id"]).state
    assert state == "cancelled"


def _ask_on_the_command_line(settings: Settings, near: str, far: str) -> None:
    def said(*words: str) -> str:
        done = CliRunner().invoke(app, ["deliveries", *words, "--state", str(settings.state_dir)])
        return f"{done.exit_code} {done.output}"

    both = said("list")
    assert both.startswith("0 ")
    assert {near, far} <= set(both.split())
    assert near in said("list", "--only", "delivered")
    assert far not in said("list", "--destination", "near")
    assert said("list", "--only", "lost").startswith("2 ")
    assert "already" in said("retry", near)
    assert said("retry").startswith("2 ")
    assert said("retry", "--destination", "far") == "0 ", "nothing of it has failed for good"
    wait_until(lambda: said("retry", far).startswith("0 "), "the retry was never taken")


def test_no_destination_no_link(delivering: Any, ct_zip: Path) -> None:
    job = delivering.done(ct_zip.read_bytes())
    assert job["destinations"] == []
    assert job["links"]["deliveries"] is None
    answer = delivering.http.get(f"{job['links']['self']}/deliveries")
    assert answer.json() == {"items": []}


def test_refused(shared: Any, delivering: Any, tmp_path: Path, made: Any) -> None:
    wrong = {"destination": "Mustermann"}
    problem = delivering.problem(delivering.post(b"PK", params=wrong), 422, "unknown_destination")
    assert "near, far" in problem["detail"]
    assert "Mustermann" not in problem["detail"]
    nifti = made.make_nifti(tmp_path / "a.nii.gz").read_bytes()
    answer = delivering.post(nifti, "application/octet-stream", params={"destination": "near"})
    delivering.problem(answer, 422, "no_dicom_results")
    many = shared.post(b"PK", params={"destination": ["a"] * 17})
    shared.problem(many, 422, "invalid_parameter")
    for name in (uuid.uuid4(), "none", "%00"):
        answer = shared.http.post(f"/v1/deliveries/{name}/retry")
        shared.problem(answer, 404, "delivery_not_found")
    answer = shared.http.get(f"/v1/segmentations/{uuid.uuid4()}/deliveries")
    shared.problem(answer, 404, "job_not_found")
