"""The audit: who was turned away, what becomes of keys, export, and nothing is rewritten."""

import ast
import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import service
from service.api.denied import ROWS, WINDOW_S, DeniedTrail
from service.audit import AuditFilter
from service.cli import app
from service.container import Container

SOURCES = sorted(Path(service.__file__).parent.rglob("*.py"))
CHANGING = {"delete", "update", "merge", "bulk_update_mappings", "execution_options"}
JOB = "0198f1d2-c0de-7a41-b6f0-a2c4e8d01357"


def actions(container: Container, actor: str | None = None) -> list[str]:
    page = container.audit.page(AuditFilter(actor=actor), limit=1000)
    return [entry.action for entry in page.entries]


def test_keys_leave_rows(container: Container) -> None:
    key, _ = container.keys.create(["read"])
    container.keys.revoke(key.id)
    container.keys.revoke(key.id)
    container.keys.adopt("aqcf_0123abcd_" + "s" * 40)
    container.keys.adopt("aqcf_0123abcd_" + "s" * 40)
    assert actions(container, "cli") == [f"revoke_key:{key.id}", f"create_key:{key.id}"]
    assert actions(container, "settings") == ["create_key:0123abcd"]


def test_pages_meet_and_filters_narrow(container: Container) -> None:
    start = datetime.now(UTC)
    for number in range(7):
        container.audit.record("me" if number % 2 else "you", f"do:{number}", JOB)
    seen: list[str] = []
    cursor = None
    while True:
        page = container.audit.page(AuditFilter(since=start), cursor=cursor, limit=3)
        seen += [entry.action for entry in page.entries]
        if (cursor := page.cursor) is None:
            break
    assert seen == [f"do:{number}" for number in reversed(range(7))]
    assert actions(container, "me") == ["do:5", "do:3", "do:1"]
    assert list(container.audit.export(AuditFilter(until=start, job_id=JOB))) == []
    exported = container.audit.export(AuditFilter(since=start, job_id=JOB))
    assert [entry.action for entry in exported] == list(reversed(seen))


def scope(**changes: Any) -> dict[str, Any]:
    return {"type": "http", "state": {}, "path_params": {}} | changes


def test_strangers_cannot_fill_the_disk(container: Container) -> None:
    now = [1000.0]
    trail = DeniedTrail(container, lambda: now[0])
    for _ in range(ROWS + 25):
        trail.record(scope(), 401)
    trail.record(scope(state={"actor": "0123abcd"}, path_params={"segmentation_id": JOB}), 403)
    assert actions(container, "unknown") == ["denied:401:unknown"] * ROWS
    assert container.audit.entries(JOB)[0].actor == "0123abcd"
    now[0] += WINDOW_S
    trail.record(scope(path_params={"segmentation_id": "Doe^Jane"}), 401)
    assert actions(container, "unknown")[:2] == ["denied:401:unknown", "denied:left_out:25"]
    counted = container.metrics.registry.get_sample_value("aqcf_denied_total", {"status": "401"})
    assert counted == ROWS + 26


def test_export_as_csv_and_as_json_lines(container: Container) -> None:
    container.audit.record("me", 'say "=1+1", please', JOB)
    container.audit.record("=1+1", "receive", JOB)
    container.audit.record("me", "other")
    state = ["--state", str(container.settings.state_dir)]
    text = CliRunner().invoke(app, ["audit", "export", "--job", JOB, *state]).stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["actor"], row["action"], row["job"]) for row in rows] == [
        ("me", 'say "=1+1", please', JOB),
        ("'=1+1", "receive", JOB),
        ("cli", "audit_export", JOB),
    ]
    assert datetime.fromisoformat(rows[0]["at"]).tzinfo is not None

    today = f"{datetime.now(UTC):%Y-%m-%d}"
    tomorrow = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}"
    options = ["--format", "jsonl", "--since", today, "--until", tomorrow, *state]
    lines = CliRunner().invoke(app, ["audit", "export", *options]).stdout.splitlines()
    assert [json.loads(line)["action"] for line in lines][2] == "other"
    later = CliRunner().invoke(app, ["audit", "export", "--since", tomorrow, *state])
    assert later.stdout.splitlines() == ["at,actor,action,job"]


def calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def name_of(call: ast.Call) -> str:
    found = call.func
    return found.attr if isinstance(found, ast.Attribute) else getattr(found, "id", "")


def names_in(node: ast.AST) -> set[str]:
    return {found.id for found in ast.walk(node) if isinstance(found, ast.Name)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_code_changes_or_removes_a_row(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for call in calls(tree):
        arguments = [*call.args, *(word.value for word in call.keywords)]
        named = set().union(*(names_in(argument) for argument in arguments))
        assert not (name_of(call) in CHANGING and "AuditRow" in named), ast.unparse(call)
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    sql = re.compile(r"(?i)\b(update|delete\s+from|truncate(\s+table)?)\s+\"?audit\b")
    assert not [text for text in texts if isinstance(text, str) and sql.search(text)]


def test_only_few_modules_know_the_table_and_they_only_add_and_select() -> None:
    """``tables`` declares it, ``audit`` and ``keys`` add rows; ``audit`` reads them."""
    knowing = {
        path.relative_to(SOURCES[0].parent).as_posix(): ast.parse(path.read_text())
        for path in SOURCES
        if "AuditRow" in path.read_text()
    }
    assert knowing.keys() == {"audit.py", "storage/keys.py", "storage/tables.py"}
    changing = {name_of(call) for call in calls(knowing["audit.py"])} & CHANGING
    assert not changing
    columns = {"at", "actor", "action", "job_id"}
    for tree in knowing.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                targets = [t for t in node.targets if isinstance(t, ast.Attribute)]
                assert not [target for target in targets if target.attr in columns]
