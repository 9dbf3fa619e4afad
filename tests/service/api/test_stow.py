"""STOW-RS, and what the list of arrivals says afterwards."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from arriving import RULES
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset, dcmread

from service import arrive

STUDIES = "/dicomweb/studies"
ROOT = "1.2.826.0.1.3680043.8.498.77"
RELATED = 'multipart/related; type="application/dicom"; boundary=XX'


def related(*parts: bytes, end: bytes = b"--XX--\r\n") -> bytes:
    head = b"--XX\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(head + part + b"\r\n" for part in parts) + end


def post(service: Any, body: bytes, path: str = STUDIES, kind: str = RELATED) -> httpx.Response:
    response: httpx.Response = service.http.post(path, content=body, headers={"Content-Type": kind})
    return response


def count(response: httpx.Response, tag: str) -> int:
    return len(response.json().get(tag, {}).get("Value", []))


STORED, FAILED, OTHER = "00081199", "00081198", "0008119A"


@pytest.fixture
def files(made: Any, tmp_path: Path) -> list[Path]:
    found: list[Path] = made.write_series(tmp_path / "series", made.phantom((12, 40, 40)))
    return found


def arrivals(service: Any, **query: str) -> list[dict[str, Any]]:
    response = service.http.get("/v1/arrivals", params=query)
    assert response.status_code == 200, response.text
    items: list[dict[str, Any]] = response.json()["items"]
    return items


def test_a_client_of_dicomweb_stores_a_series_that_becomes_a_job(
    idle: Any, files: list[Path]
) -> None:
    client = DICOMwebClient(f"{idle.http.base_url}/dicomweb")
    answer = client.store_instances([dcmread(file) for file in files])
    assert len(answer.ReferencedSOPSequence) == len(files)
    assert "FailedSOPSequence" not in answer
    (arrival,) = arrivals(idle)
    assert (arrival["state"], arrival["instances"], arrival["origin"]) == ("receiving", 12, "stow")
    _complete(idle)
    (arrival,) = arrivals(idle)
    assert (arrival["state"], arrival["rule"]) == ("submitted", "liver-ct")
    job = idle.http.get(arrival["links"]["segmentation"]).json()
    assert job["id"] == arrival["segmentation"]
    assert job["status"] == "queued"


def _complete(service: Any) -> None:
    settings = service.container.settings.model_copy(update={"quiet_s": 0.02})
    time.sleep(0.1)
    arrive.complete(replace(service.container, settings=settings, site=RULES))


def test_the_answer_says_what_is_stored(idle: Any, files: list[Path]) -> None:
    response = post(idle, related(*(file.read_bytes() for file in files[:3])))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/dicom+json"
    answer = Dataset.from_json(response.json())
    assert {item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence} == {
        dcmread(file).SOPInstanceUID for file in files[:3]
    }
    assert post(idle, related(files[0].read_bytes())).status_code == 200
    assert arrivals(idle)[0]["instances"] == 3


def test_one_instance_without_a_multipart(idle: Any, files: list[Path]) -> None:
    response = post(idle, files[0].read_bytes(), kind="application/dicom")
    assert (response.status_code, count(response, STORED)) == (200, 1)


def test_some_and_none(idle: Any, files: list[Path]) -> None:
    good, bad = files[0].read_bytes(), b"no dicom"
    some = post(idle, related(good, bad))
    assert (some.status_code, count(some, STORED), count(some, OTHER)) == (202, 1, 1)
    none = post(idle, related(bad, bad))
    assert (none.status_code, count(none, STORED), count(none, OTHER)) == (409, 0, 2)
    assert none.json()[OTHER]["Value"][0]["00081197"]["Value"] == [0xC000]


def test_instances_of_another_study_are_refused(idle: Any, files: list[Path]) -> None:
    body = related(files[0].read_bytes())
    assert post(idle, body, f"{STUDIES}/{ROOT}.1").status_code == 200
    refused = post(idle, body, f"{STUDIES}/1.2.3")
    assert (refused.status_code, count(refused, FAILED)) == (409, 1)
    assert refused.json()[FAILED]["Value"][0]["00081197"]["Value"] == [0xA900]


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"", RELATED, 400, "bad_multipart"),
        (related(), RELATED, 400, "empty_upload"),
        (b"nonsense", RELATED, 400, "bad_multipart"),
        (related(b"x", end=b""), RELATED, 400, "bad_multipart"),
        (b"x", 'multipart/related; type="application/dicom"', 400, "bad_multipart"),
        (b"{}", "application/dicom+json", 415, "unsupported_media"),
        (b"x", 'multipart/related; type="application/dicom+json"; boundary=XX', 415,
         "unsupported_media"),
        (b"x", "multipart/form-data; boundary=XX", 415, "unsupported_media"),
    ],
)  # fmt: skip
def test_bodies_that_are_none(shared: Any, body: bytes, kind: str, status: int, code: str) -> None:
    shared.problem(post(shared, body, kind=kind), status, code)


def test_limits_hold(shared: Any) -> None:
    too_many = related(*[b"x"] * 501)
    shared.problem(post(shared, too_many), 413, "too_many_files")
    shared.problem(post(shared, related(bytes(65 * 2**20))), 413, "upload_too_large")
    folder = shared.container.settings.arrivals_dir / "incoming"
    assert list(folder.iterdir()) == []


def test_a_full_disk_is_told(container: Any, start: Any, files: list[Path]) -> None:
    settings = container.settings.model_copy(update={"min_free_bytes": 2**60})
    with start(replace(container, settings=settings)) as service:
        response = post(service, related(files[0].read_bytes()))
        service.problem(response, 507, "storage_full")


def test_keys_and_their_scopes(idle: Any, files: list[Path]) -> None:
    reader, secret = idle.container.keys.create(["read"])
    writer, other = idle.container.keys.create(["write"])
    body = related(files[0].read_bytes())
    idle.problem(post(idle, body), 401, "unauthorized")
    idle.http.headers["X-API-Key"] = secret
    idle.problem(post(idle, body), 403, "forbidden")
    idle.http.headers["X-API-Key"] = other
    assert post(idle, body).status_code == 200
    idle.problem(idle.http.get("/v1/arrivals"), 403, "forbidden")
    idle.http.headers["X-API-Key"] = secret
    assert arrivals(idle)[0]["caller"] == writer.id
    actions = {(entry.actor, entry.action) for entry in idle.container.audit.entries()}
    assert {(writer.id, "receive"), (reader.id, "list_arrivals")} <= actions


def test_the_list_has_pages_and_filters_and_no_uids(idle: Any, made: Any, tmp_path: Path) -> None:
    for number in range(3):

        def edit(dataset: Dataset, index: int, number: int = number) -> None:
            dataset.SeriesInstanceUID = f"{ROOT}.7.{number}"
            dataset.SOPInstanceUID = f"{ROOT}.8.{number}.{index}"
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID

        folder = tmp_path / str(number)
        (file, *_) = made.write_series(folder, made.phantom((2, 40, 40)), edit=edit)
        assert post(idle, related(file.read_bytes())).status_code == 200
    first = idle.http.get("/v1/arrivals", params={"limit": 2}).json()
    second = idle.http.get("/v1/arrivals", params={"cursor": first["next"]}).json()
    assert (len(first["items"]), len(second["items"]), second["next"]) == (2, 1, None)
    assert len(arrivals(idle, state="receiving", origin="stow", sender="local")) == 3
    assert arrivals(idle, state="failed") == arrivals(idle, sender="nobody") == []
    idle.problem(idle.http.get("/v1/arrivals?state=lost"), 422, "invalid_parameter")
    nul = idle.http.get("/v1/arrivals?sender=A%00B")  # PostgreSQL takes none
    idle.problem(nul, 422, "invalid_parameter")
    idle.problem(idle.http.get("/v1/arrivals?cursor=x"), 422, "invalid_cursor")
    assert ROOT not in idle.http.get("/v1/arrivals").text
