"""Every error class has a status; every answer that is no success is a problem."""

import importlib
import pkgutil
from types import ModuleType
from typing import Any

import httpx
import pytest

import service
from model.errors import AqcfError, InputError
from service.api.errors import STATUS, problem_of, status_of
from service.errors import BusyError, ServiceError, UnauthorizedError

ROOTS = {AqcfError, ServiceError}
APART = "service.storage.migrations"  # Alembic runs these


def import_all(package: ModuleType) -> None:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not found.name.startswith(APART):
            importlib.import_module(found.name)


def tree(root: type[AqcfError]) -> list[type[AqcfError]]:
    """The classes that can reach the service: not those of the training."""
    kinds = [root, *(kind for child in root.__subclasses__() for kind in tree(child))]
    return [kind for kind in kinds if kind.__module__.split(".")[0] in ("model", "service")]


def test_every_error_class_has_a_status_below_the_roots() -> None:
    import_all(service)
    kinds = [kind for kind in tree(AqcfError) if kind not in ROOTS]
    assert len(kinds) > 25
    unmapped = [
        kind.__name__
        for kind in kinds
        if next(base for base in kind.__mro__ if base in STATUS) in ROOTS
    ]
    assert not unmapped


def test_what_a_client_sends_is_never_a_5xx() -> None:
    import_all(service)
    assert all(400 <= status_of(kind) < 500 for kind in tree(InputError))


def test_every_code_is_a_stable_word() -> None:
    import_all(service)
    for kind in tree(AqcfError):
        assert kind.code.replace("_", "").isalnum()
        assert kind.code == kind.code.lower()


def test_internal_details_stay_inside() -> None:
    response = problem_of(ServiceError("the password is 1234"))
    assert response.status_code == 500
    assert b"1234" not in bytes(response.body)


def test_headers_of_busy_and_unauthorized() -> None:
    assert problem_of(BusyError("full", retry_after_s=7)).headers["retry-after"] == "7"
    assert "Bearer" in problem_of(UnauthorizedError("who?")).headers["www-authenticate"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/web/../app.py", 404, "not_found"),
        ("GET", "/web/%2e%2e/app.py", 404, "not_found"),
        ("PUT", "/v1/segmentations", 405, "method_not_allowed"),
        ("DELETE", "/healthz", 405, "method_not_allowed"),
        ("GET", "/v1/segmentations/none", 404, "job_not_found"),
        ("GET", "/v1/segmentations/%00%ff", 404, "job_not_found"),
        ("GET", f"/v1/segmentations/{'0' * 32}", 404, "job_not_found"),
        ("GET", f"/v1/segmentations/{'0' * 32}/seg", 404, "job_not_found"),
        ("GET", f"/v1/segmentations/{'0' * 32}/events", 404, "job_not_found"),
        ("POST", f"/v1/segmentations/{'0' * 32}/cancel", 404, "job_not_found"),
        ("DELETE", f"/v1/segmentations/{'0' * 32}", 404, "job_not_found"),
        ("GET", "/v1/segmentations?limit=0", 422, "invalid_parameter"),
        ("GET", "/v1/segmentations?limit=many", 422, "invalid_parameter"),
        ("GET", "/v1/segmentations?status=lost", 422, "invalid_parameter"),
        ("GET", "/v1/segmentations?cursor=abc", 422, "invalid_cursor"),
        ("GET", "/v1/segmentations?cursor=%F0%9F%98%80", 422, "invalid_cursor"),
    ],
)
def test_wrong_requests(shared: Any, method: str, path: str, status: int, code: str) -> None:
    shared.problem(shared.http.request(method, path), status, code)


def test_405_says_what_is_allowed(shared: Any) -> None:
    response = shared.http.put("/v1/segmentations")
    assert set(response.headers["allow"].split(", ")) <= {"GET", "POST"}


def test_problems_never_repeat_what_was_sent(shared: Any) -> None:
    canary = "Mustermann"
    answers: list[httpx.Response] = [
        shared.http.get(f"/v1/{canary}"),
        shared.http.get("/v1/segmentations", params={"status": canary, "limit": canary}),
        shared.http.get(f"/v1/segmentations/{canary}"),
        shared.post(b"PK", params={"modality": canary, "model": canary}),
        shared.post(b"PK", params={"model": canary}),
        shared.post(b"x", kind=f"text/{canary}"),
        shared.http.post(
            "/v1/segmentations?modality=ct", files={canary: (f"{canary}.dcm", b"nonsense")}
        ),
    ]
    for answer in answers:
        assert 400 <= answer.status_code < 500
        assert canary not in answer.text
