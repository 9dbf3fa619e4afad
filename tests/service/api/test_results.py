"""What a finished segmentation offers, and how it is listed, followed, cancelled and deleted."""

import asyncio
import gzip
import io
import json
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydicom import dcmread

from service.api.responses import WholeFile, deletion_told
from service.domain import ArtifactName
from service.errors import NotFoundError
from service.sweep import purge

BASE = "/v1/segmentations"


@pytest.fixture
def nifti(made: Any, tmp_path: Path) -> bytes:
    data: bytes = made.make_nifti(tmp_path / "ct.nii.gz").read_bytes()
    return data


@pytest.fixture
def job(live: Any, nifti: bytes) -> dict[str, Any]:
    found: dict[str, Any] = live.done(nifti, kind="application/gzip")
    return found


def test_downloads(live: Any, job: dict[str, Any]) -> None:
    kinds = {
        "mask": "application/gzip",
        "image": "application/gzip",
        "measurements": "application/json",
        "preview": "image/png",
    }
    for name, kind in kinds.items():
        response = live.http.get(job["links"][name], headers={"Range": "bytes=0-3"})
        assert (response.status_code, response.headers["content-type"]) == (200, kind), name
        assert f'filename="{job["id"][:8]}-' in response.headers["content-disposition"]
        assert response.headers["cache-control"] == "no-store"
    assert len(gzip.decompress(live.http.get(job["links"]["mask"]).content)) == 352 + 24 * 40 * 40


def test_measurements_are_those_of_the_job(live: Any, job: dict[str, Any]) -> None:
    report = live.http.get(job["links"]["measurements"]).json()
    assert report["measurements"] == job["measurements"]
    assert job["measurements"]["lesions"][0]["volume_ml"] == pytest.approx(4 * 6 * 8 * 0.008)


def test_slices_and_lesion_places(live: Any, job: dict[str, Any]) -> None:
    layout = live.http.get(job["links"]["slices"]).json()
    assert {name: plane["count"] for name, plane in layout["planes"].items()} == {
        "axial": 24,
        "coronal": 40,
        "sagittal": 40,
    }
    place = layout["lesions"][0]
    assert 10 <= place["axial"] <= 13
    url = f"{job['links']['slices']}/{place['axial']}.png"
    shown = Image.open(io.BytesIO(live.http.get(url).content))
    hidden = Image.open(io.BytesIO(live.http.get(url, params={"overlay": 0}).content))
    assert shown.size == hidden.size
    assert len(hidden.convert("RGB").getcolors(2**24)) < len(shown.convert("RGB").getcolors(2**24))
    for plane in ("coronal", "sagittal"):
        response = live.http.get(f"{job['links']['slices']}/3.png", params={"plane": plane})
        assert response.headers["content-type"] == "image/png"
    live.problem(live.http.get(f"{job['links']['slices']}/24.png"), 404, "slice_not_found")
    live.problem(live.http.get(f"{job['links']['slices']}/x.png"), 422, "invalid_parameter")


def test_list_filters_and_pages(live: Any, made: Any, tmp_path: Path) -> None:
    ids = []
    for seed in range(3):
        path = made.make_nifti(tmp_path / f"{seed}.nii.gz", made.phantom(seed=seed))
        ids.insert(0, live.done(path.read_bytes(), kind="application/gzip")["id"])
    first = live.http.get(BASE, params={"limit": 2}).json()
    assert [item["id"] for item in first["items"]] == ids[:2]
    second = live.http.get(BASE, params={"limit": 2, "cursor": first["next"]}).json()
    assert ([item["id"] for item in second["items"]], second["next"]) == (ids[2:], None)
    assert live.http.get(BASE, params={"status": "failed"}).json()["items"] == []
    assert len(live.http.get(BASE, params={"outcome": "lesion_found"}).json()["items"]) == 3


def test_unfinished_has_no_result(idle: Any, nifti: bytes) -> None:
    job = idle.post(nifti, kind="application/gzip").json()
    for name in ("seg", "mask.nii.gz", "image.nii.gz", "measurements", "slices", "slices/0.png"):
        response = idle.http.get(f"{job['links']['self']}/{name}")
        idle.problem(response, 409, "not_finished")


def test_cancel_then_no_result_then_delete(idle: Any, nifti: bytes) -> None:
    job = idle.post(nifti, kind="application/gzip").json()
    cancelled = idle.http.post(job["links"]["cancel"])
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    idle.problem(idle.http.get(f"{job['links']['self']}/seg"), 409, "no_result")
    assert idle.http.delete(job["links"]["self"]).status_code == 204
    idle.problem(idle.http.get(job["links"]["self"]), 404, "job_not_found")
    assert idle.container.artifacts.input_keys() == ()


def test_finished_cannot_be_cancelled_but_deleted(live: Any, job: dict[str, Any]) -> None:
    live.problem(live.http.post(job["links"]["cancel"]), 409, "already_finished")
    live.http.get(job["links"]["slices"])
    assert live.http.delete(job["links"]["self"]).status_code == 204
    live.problem(live.http.get(job["links"]["slices"]), 404, "job_not_found")
    assert live.container.artifacts.job_ids() == ()


def events_of(text: str) -> list[dict[str, Any]]:
    lines = (line for line in text.splitlines() if line.startswith("data: "))
    return [json.loads(line[6:]) for line in lines]


def test_a_download_survives_the_deletion_of_its_file(live: Any, job: dict[str, Any]) -> None:
    found = live.container.jobs.require(job["id"])
    path = live.container.artifacts.path(found.id, ArtifactName.MASK)
    whole = path.read_bytes()
    answer = WholeFile(path, found, ArtifactName.MASK)
    live.container.artifacts.delete(found.id)

    async def body() -> bytes:
        return b"".join([bytes(chunk) async for chunk in answer.body_iterator])

    with ThreadPoolExecutor(1) as pool:  # a browser's loop may run in this thread
        assert pool.submit(asyncio.run, body()).result() == whole
    assert answer.headers["content-length"] == str(len(whole))
    with pytest.raises(NotFoundError) as caught:
        WholeFile(path, found, ArtifactName.MASK)
    assert caught.value.code == "artifact_not_found"


def test_a_segmentation_that_is_deleted_while_it_is_read_is_not_found(
    live: Any, job: dict[str, Any]
) -> None:
    found = live.container.jobs.require(job["id"])
    with pytest.raises(FileNotFoundError), deletion_told(live.container, found):
        raise FileNotFoundError
    live.http.delete(job["links"]["self"]).raise_for_status()
    with pytest.raises(NotFoundError) as caught, deletion_told(live.container, found):
        raise FileNotFoundError
    assert caught.value.code == "job_not_found"


def test_events_run_to_the_end(live: Any, nifti: bytes) -> None:
    job = live.post(nifti, kind="application/gzip").json()
    with live.http.stream("GET", job["links"]["events"]) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        text = response.read().decode()
    events = events_of(text)
    assert events[-1]["status"] == "succeeded"
    assert events[-1]["outcome"] == "lesion_found"
    revisions = [event["revision"] for event in events]
    assert revisions == sorted(set(revisions))


def test_events_end_when_the_job_is_deleted(idle: Any, nifti: bytes) -> None:
    job = idle.post(nifti, kind="application/gzip").json()
    timer = threading.Timer(0.5, purge, [idle.container, job["id"]])
    timer.start()
    with idle.http.stream("GET", job["links"]["events"]) as response:
        assert "event: deleted" in response.read().decode()
    timer.join()


def test_server_stops_in_spite_of_an_open_stream(container: Any, start: Any, nifti: bytes) -> None:
    with start(container) as service:
        job = service.post(nifti, kind="application/gzip").json()
        reader = threading.Thread(target=service.http.get, args=[job["links"]["events"]])
        reader.start()
        time.sleep(0.5)
        began = time.monotonic()
        service.stop()
        assert time.monotonic() - began < 4
        reader.join(5)
        assert not reader.is_alive()


def test_audit_has_a_row_for_each_access(live: Any, job: dict[str, Any]) -> None:
    for link in ("self", "measurements", "mask", "preview", "slices"):
        live.http.get(job["links"][link])
    live.http.get(f"{job['links']['slices']}/1.png")
    live.http.delete(job["links"]["self"])
    actions = [entry.action for entry in live.container.audit.entries(job["id"])]
    assert set(actions) >= {
        "submit",
        "read",
        "download:measurements.json",
        "download:mask.nii.gz",
        "download:preview.png",
        "slices",
        "slice",
        "delete",
    }


def test_other_forms_of_a_dicom_result(live: Any, ct_zip: Path) -> None:
    job = live.done(ct_zip.read_bytes())
    links = job["links"]
    answers = {
        links["seg"]: ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.1.2.1"),
        f"{links['seg']}?form=deflated": ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.1.2.1.99"),
        f"{links['seg']}?form=labelmap": ("1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.1.2.1"),
        f"{links['seg']}?form=labelmap_deflated": (
            "1.2.840.10008.5.1.4.1.1.66.7",
            "1.2.840.10008.1.2.1.99",
        ),
        f"{links['sr']}?form=labelmap": ("1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.1.2.1"),
        f"{links['sr']}?form=viewer": ("1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.1.2.1"),
        links["rtstruct"]: ("1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.1.2"),
    }
    for path, expected in answers.items():
        response = live.http.get(path)
        assert response.headers["content-type"] == "application/dicom", response.text
        dataset = dcmread(io.BytesIO(response.content))
        assert (dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID) == expected
    pictures = live.http.get(links["capture"])
    assert pictures.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(pictures.content)) as archive:
        first = dcmread(io.BytesIO(archive.read(archive.namelist()[0])))
    assert first.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    live.problem(live.http.get(f"{links['seg']}?form=jpeg"), 422, "invalid_parameter")
    again = live.http.get(f"/v1/segmentations/{job['id']}").json()
    assert again["links"] == links


def test_a_nifti_result_has_no_dicom_form(live: Any, job: dict[str, Any]) -> None:
    for path in ("seg?form=labelmap", "rtstruct", "capture"):
        response = live.http.get(f"{BASE}/{job['id']}/{path}")
        live.problem(response, 404, "artifact_not_found")
    assert not {"seg", "rtstruct", "capture"} & {k for k, v in job["links"].items() if v}
