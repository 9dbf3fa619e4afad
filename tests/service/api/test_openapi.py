"""The committed document is the one that is served, and client generators can work with it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from service.api.app import bare_app

COMMITTED = Path(__file__).parents[3] / "openapi" / "openapi.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(COMMITTED.read_text(encoding="utf-8"))
    return found


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [found for path in document["paths"].values() for found in path.values()]


def test_committed_equals_built(document: dict[str, Any]) -> None:
    assert document == bare_app().openapi(), "run scripts/openapi"


def test_committed_equals_served(document: dict[str, Any], shared: Any) -> None:
    assert shared.http.get("/openapi.json").json() == document


def test_operation_ids_make_good_names(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for operation in operations(document)]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)+", name) for name in ids)
    assert all(operation.get("summary") for operation in operations(document))


def test_problems_are_declared_everywhere(document: dict[str, Any]) -> None:
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    for path, found in document["paths"].items():
        for operation in found.values():
            failures = {s: r for s, r in operation["responses"].items() if s >= "400"}
            if path.startswith("/v1/"):
                assert {"401", "403"} <= failures.keys(), path
                assert all(
                    failure["content"] == {"application/problem+json": problem}
                    for failure in failures.values()
                ), path


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    names = re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document))
    assert set(names) <= document["components"]["schemas"].keys()


def test_upload_bodies_are_described(document: dict[str, Any]) -> None:
    body = document["paths"]["/v1/segmentations"]["post"]["requestBody"]
    assert {"multipart/form-data", "application/zip", "application/dicom"} <= body["content"].keys()
