"""POST /v1/segmentations: bodies, answers, one job per content."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service import wiring
from service.settings import Settings

LINKS = {"seg", "sr", "mask", "image", "measurements", "preview", "slices"}


def test_zip_of_dicom_is_accepted_and_finishes(live: Any, ct_zip: Path) -> None:
    response = live.post(ct_zip.read_bytes())
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/v1/segmentations/{job['id']}" == job["links"]["self"]
    assert job["kind"] == "dicom"
    assert [line["status"] for line in job["receipt"]] == ["chosen"]

    done = live.done(ct_zip.read_bytes())
    assert done["id"] == job["id"]
    assert (done["status"], done["outcome"]) == ("succeeded", "lesion_found")
    assert {name for name, link in done["links"].items() if link} >= LINKS
    assert done["seconds"]["inference"] > 0


def test_multipart_dicom_instances_are_one_series(live: Any, made: Any, tmp_path: Path) -> None:
    files = made.write_series(tmp_path / "s", made.phantom())
    parts = [("files", (str(n), file.read_bytes())) for n, file in enumerate(files)]
    response = live.http.post("/v1/segmentations?modality=ct", files=parts)
    assert response.status_code == 202
    assert response.json()["receipt"][0]["images"] == len(files)


def test_nifti_has_no_dicom_results(live: Any, made: Any, tmp_path: Path) -> None:
    nifti = made.make_nifti(tmp_path / "ct.nii.gz").read_bytes()
    job = live.done(nifti, kind="application/gzip")
    assert job["kind"] == "nifti"
    assert job["links"]["seg"] is None
    live.problem(live.http.get(f"{job['links']['self']}/seg"), 404, "artifact_not_found")


def test_one_round_trip_gives_the_seg(live: Any, ct_zip: Path) -> None:
    headers = {"Prefer": "wait=60", "Accept": "application/dicom"}
    response = live.post(ct_zip.read_bytes(), headers=headers)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/dicom"
    assert response.headers["preference-applied"] == "wait=60"
    assert response.content[128:132] == b"DICM"


def test_without_worker_waiting_ends_in_202(idle: Any, ct_zip: Path) -> None:
    headers = {"Prefer": "respond-async, wait=1", "Accept": "application/dicom"}
    response = idle.post(ct_zip.read_bytes(), headers=headers)
    assert response.status_code == 202
    assert response.json()["status"] == "queued"


def test_same_idempotency_key_same_job_other_content_refused(
    idle: Any, ct_zip: Path, made: Any, tmp_path: Path
) -> None:
    headers = {"Idempotency-Key": "order-1"}
    first = idle.post(ct_zip.read_bytes(), headers=headers).json()
    assert idle.post(ct_zip.read_bytes(), headers=headers).json()["id"] == first["id"]
    other = made.make_nifti(tmp_path / "x.nii.gz").read_bytes()
    response = idle.post(other, kind="application/gzip", headers=headers)
    idle.problem(response, 422, "idempotency_key_reused")


@pytest.fixture
def narrow(settings: Settings, start: Any) -> Iterator[Any]:
    with built(settings.model_copy(update={"queue_limit": 2}), start) as service:
        yield service


@pytest.fixture
def full(settings: Settings, start: Any) -> Iterator[Any]:
    with built(settings.model_copy(update={"min_free_bytes": 2**60}), start) as service:
        yield service


@contextmanager
def built(settings: Settings, start: Any) -> Iterator[Any]:
    container = wiring.build(settings)
    try:
        with start(container) as service:
            yield service
    finally:
        container.database.close()


def test_full_queue_is_429_with_retry_after(
    narrow: Any, ct_zip: Path, made: Any, tmp_path: Path
) -> None:
    for seed in range(2):
        nifti = made.make_nifti(tmp_path / f"{seed}.nii.gz", made.phantom(seed=seed))
        assert narrow.post(nifti.read_bytes(), kind="application/gzip").status_code == 202
    response = narrow.post(ct_zip.read_bytes())
    narrow.problem(response, 429, "queue_full")
    assert int(response.headers["retry-after"]) > 0


def test_in_a_full_queue_what_waits_can_still_be_made_urgent(
    narrow: Any, ct_zip: Path, made: Any, tmp_path: Path
) -> None:
    bodies = [
        made.make_nifti(tmp_path / f"{seed}.nii.gz", made.phantom(seed=seed)).read_bytes()
        for seed in range(2)
    ]
    jobs = [narrow.post(body, kind="application/gzip").json() for body in bodies]
    urgent = {"priority": "urgent"}
    for _ in range(2):
        again = narrow.post(bodies[1], kind="application/gzip", params=urgent)
        assert again.status_code == 202
        assert (again.json()["id"], again.json()["priority"]) == (jobs[1]["id"], "urgent")
    narrow.problem(narrow.post(ct_zip.read_bytes(), params=urgent), 429, "queue_full")
    first = narrow.http.get(jobs[0]["links"]["self"]).json()
    assert first["priority"] == "routine"


def test_full_disk_is_507(full: Any, ct_zip: Path) -> None:
    full.problem(full.post(ct_zip.read_bytes()), 507, "storage_full")
    assert full.http.get("/readyz").json()["checks"]["disk"] is False


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"modality": "pet"}, "invalid_parameter"),
        ({"model": "none-such"}, "unknown_model"),
        ({"profile": "none-such"}, "unknown_profile"),
        ({"series": "none-such"}, "unknown_series"),
        ({"profile": "x" * 1000}, "invalid_parameter"),
        ({"priority": "stat"}, "invalid_parameter"),
    ],
)
def test_bad_parameters_are_422(idle: Any, ct_zip: Path, params: dict[str, str], code: str) -> None:
    idle.problem(idle.post(ct_zip.read_bytes(), params=params), 422, code)
    assert idle.http.get("/v1/segmentations").json()["items"] == []


def test_priority_is_kept_and_shown(idle: Any, ct_zip: Path) -> None:
    posted = idle.post(ct_zip.read_bytes(), params={"priority": "urgent"}).json()
    assert posted["priority"] == "urgent"
    assert idle.http.get(posted["links"]["self"]).json()["priority"] == "urgent"


def test_modality_is_required(idle: Any, ct_zip: Path) -> None:
    response = idle.http.post("/v1/segmentations", content=ct_zip.read_bytes())
    problem = idle.problem(response, 422, "invalid_parameter")
    assert problem["errors"] == [
        {"in": "query", "parameter": "modality", "detail": "Field required"}
    ]


def test_bad_idempotency_key_is_422(idle: Any) -> None:
    response = idle.post(b"PK", headers={"Idempotency-Key": "a b"})
    idle.problem(response, 422, "invalid_parameter")
