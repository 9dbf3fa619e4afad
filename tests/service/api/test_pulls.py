"""POST /v1/pulls: what is asked is written down, and nothing of it is repeated."""

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from service import wiring
from service.api.app import create_app
from service.api.errors import UploadTimeoutError
from service.api.receive import chunks
from service.container import Container
from service.domain import PullState
from service.settings import Settings

STUDY = "1.2.826.0.1.3680043.8.498.4711"
ASKED = {"study_instance_uid": STUDY, "node": "pacs", "modality": "ct"}


@pytest.fixture
def at_site(settings: Settings, tmp_path: Path, start: Callable[[Container], Any]) -> Iterator[Any]:
    """A service without workers that knows two nodes."""
    file = tmp_path / "site.yaml"
    dimse = "dimse: {host: 127.0.0.1, port: 9, ae_title: PACS}"
    file.write_text(
        f"nodes: {{pacs: {{{dimse}}}, mover: {{{dimse}, retrieve: move}}}}\n"
        "destinations: {archive: {node: pacs, by: dimse}}\n"
    )
    changes = {"site_file": file, "queue_limit": 3}
    container = wiring.build(settings.model_copy(update=changes))
    with start(container) as service:
        yield service
    container.database.close()


def ask(service: Any, **changes: object) -> Any:
    body = {name: value for name, value in (ASKED | changes).items() if value is not None}
    return service.http.post("/v1/pulls", json=body)


def test_a_pull_is_accepted_and_can_be_followed(at_site: Any) -> None:
    answer = ask(at_site, profile="paper", destinations=["archive"], priority="urgent")
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert (body["state"], body["node"], body["rules"]) == ("waiting", "pacs", False)
    assert STUDY not in answer.text
    place = answer.headers["location"]
    assert place == body["links"]["self"] == f"/v1/pulls/{body['id']}"
    assert at_site.http.get(place).json() == body
    row = at_site.container.pulls.require(body["id"])
    assert (row.asked.study_uid, row.asked.destinations) == (STUDY, ("archive",))
    assert (row.state, row.asked.profile, row.asked.priority) == (
        PullState.WAITING, "paper", "urgent",
    )  # fmt: skip


def test_a_caller_who_hangs_up_or_falls_silent_is_let_go(at_site: Any) -> None:
    """Neither is a fault of the service."""
    head = {"type": "http", "method": "POST", "path": "/v1/pulls", "query_string": b""}
    scope = head | {"headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1)}
    sent: list[dict[str, Any]] = []

    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def keep(message: dict[str, Any]) -> None:
        sent.append(message)

    async def drain() -> None:
        async for _ in chunks(Request(scope, asyncio.Event().wait), silence_s=0.01):
            pass

    app = create_app(at_site.container)
    with ThreadPoolExecutor(1) as pool:  # this thread may have the loop of a browser
        pool.submit(asyncio.run, app(scope, gone, keep)).result()
        assert sent[0]["status"] == 400
        with pytest.raises(UploadTimeoutError):
            pool.submit(asyncio.run, drain()).result()


def test_by_rules_and_the_same_twice(at_site: Any) -> None:
    first = ask(at_site, modality=None, rules=True, node="mover")
    assert first.status_code == 202
    assert (first.json()["modality"], first.json()["rules"]) == (None, True)
    assert ask(at_site, modality=None, rules=True, node="mover").json() == first.json()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"study_instance_uid": None}, "invalid_parameter"),
        ({"study_instance_uid": "1.2.*"}, "invalid_parameter"),
        ({"study_instance_uid": "1" * 65}, "invalid_parameter"),
        ({"series_instance_uid": ""}, "invalid_parameter"),
        ({"modality": "us"}, "invalid_parameter"),
        ({"modality": None}, "invalid_parameter"),
        ({"rules": True}, "invalid_parameter"),
        ({"rules": True, "modality": None, "profile": "paper"}, "invalid_parameter"),
        ({"colour": "red"}, "invalid_parameter"),
        ({"destinations": ["x"] * 17}, "invalid_parameter"),
        ({"destinations": ["nowhere"]}, "unknown_destination"),
        ({"node": "elsewhere"}, "unknown_node"),
        ({"node": "mover"}, "pull_needs_rules"),
        ({"model": "none"}, "unknown_model"),
        ({"profile": "none"}, "unknown_profile"),
    ],
)
def test_what_cannot_be_done_is_refused(at_site: Any, changes: dict[str, Any], code: str) -> None:
    problem = at_site.problem(ask(at_site, **changes), 422, code)
    assert STUDY not in json.dumps(problem)
    assert "1.2.*" not in json.dumps(problem)
    assert at_site.container.pulls.counts() == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"node": "Mustermann"},
        {"destinations": ["Mustermann"]},
        {"Mustermann": "Mustermann"},
        {"modality": "Mustermann", "study_instance_uid": "Mustermann"},
    ],
)
def test_a_refusal_repeats_nothing(at_site: Any, changes: dict[str, Any]) -> None:
    answer = ask(at_site, **changes)
    assert answer.status_code == 422
    assert "Mustermann" not in answer.text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 10_000])
def test_what_is_no_request_is_refused(at_site: Any, body: bytes) -> None:
    at_site.problem(at_site.http.post("/v1/pulls", content=body), 422, "invalid_parameter")


def test_a_huge_request_is_refused(at_site: Any) -> None:
    answer = at_site.http.post("/v1/pulls", content=b" " * 100_000)
    at_site.problem(answer, 413, "upload_too_large")


def test_more_than_can_wait_is_told_when_to_come_back(at_site: Any) -> None:
    for number in range(3):
        assert ask(at_site, study_instance_uid=f"{STUDY}.{number}").status_code == 202
    answer = ask(at_site)
    at_site.problem(answer, 429, "queue_full")
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("name", ["none", "0" * 32, "%00"])
def test_what_is_not_there_is_not_found(at_site: Any, name: str) -> None:
    at_site.problem(at_site.http.get(f"/v1/pulls/{name}"), 404, "pull_not_found")
