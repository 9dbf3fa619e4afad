"""The audit over HTTP: for admins only, and rows for everybody who was turned away."""

from typing import Any

import pytest

PATH, BASE = "/v1/audit", "/v1/segmentations"
JOB = "0198f1d2-c0de-7a41-b6f0-a2c4e8d01357"


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def test_only_admins_read_it_and_that_leaves_a_row(idle: Any) -> None:
    reader, reads = idle.container.keys.create(["read", "write"])
    chief, rules = idle.container.keys.create(["admin"])
    idle.problem(idle.http.get(PATH), 401, "unauthorized")
    idle.problem(idle.http.get(PATH, headers=bearer(reads)), 403, "forbidden")
    idle.http.get(PATH, headers=bearer(rules))
    lines = idle.http.get(PATH, headers=bearer(rules)).json()["items"]
    assert [(line["actor"], line["action"]) for line in lines] == [
        (chief.id, "audit"),
        (reader.id, "denied:403:list_audit"),
        ("unknown", "denied:401:list_audit"),
        ("cli", f"create_key:{chief.id}"),
        ("cli", f"create_key:{reader.id}"),
    ]


def test_denied_access_names_the_segmentation_and_never_what_was_sent(idle: Any) -> None:
    key, writes = idle.container.keys.create(["write"])
    idle.http.get(f"{BASE}/{JOB}/seg", headers=bearer(writes))
    idle.http.get(f"{BASE}/Doe^Jane/seg", headers=bearer(writes))
    idle.http.get(f"{BASE}/{JOB}", headers=bearer("aqcf_00000000_Doe"))
    idle.http.delete(f"{BASE}/{JOB}", headers={"Origin": "https://evil.example"})
    entries = idle.container.audit.entries()[:4]
    assert [(entry.actor, entry.action, entry.job_id) for entry in reversed(entries)] == [
        (key.id, "denied:403:get_seg", JOB),
        (key.id, "denied:403:get_seg", None),
        ("unknown", "denied:401:get_segmentation", JOB),
        ("unknown", "denied:403:unknown", None),
    ]


def test_pages_and_filters(idle: Any) -> None:
    for number in range(5):
        idle.container.audit.record("listener", f"do:{number}", JOB)
    first = idle.http.get(PATH, params={"limit": 3, "actor": "listener"}).json()
    rest = idle.http.get(
        PATH, params={"limit": 3, "actor": "listener", "cursor": first["next"]}
    ).json()
    seen = [line["action"] for line in first["items"] + rest["items"]]
    assert seen == [f"do:{number}" for number in reversed(range(5))]
    assert rest["next"] is None
    about = idle.http.get(PATH, params={"segmentation": JOB, "until": "2000-01-01T00:00:00Z"})
    assert about.json()["items"] == []


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("cursor", "x", "invalid_cursor"),
        ("cursor", "9" * 30, "invalid_cursor"),
        ("cursor", str(2**31), "invalid_cursor"),
        ("cursor", "0" * 21 + "9" * 11, "invalid_cursor"),
        ("cursor", "²", "invalid_cursor"),
        ("limit", "0", "invalid_parameter"),
        ("since", "yesterday", "invalid_parameter"),
        ("since", "0.5", "invalid_parameter"),
        ("since", "20260101", "invalid_parameter"),
        ("since", "2026-01-01T00:00:00", "invalid_parameter"),
        ("since", "0001-01-01T00:00:00+14:00", "invalid_parameter"),
        ("until", "9999-12-31T23:59:59-14:00", "invalid_parameter"),
        ("segmentation", "Doe^Jane", "invalid_parameter"),
        ("actor", "\0", "invalid_parameter"),
    ],
)
def test_wrong_parameters(shared: Any, name: str, value: str, code: str) -> None:
    answer = shared.http.get(PATH, params={name: value})
    shared.problem(answer, 422, code)
    assert "Jane" not in answer.text
