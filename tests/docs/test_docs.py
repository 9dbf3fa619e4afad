"""The pages say what the code does: settings, error codes, links."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import model.errors
import service.api.errors
import service.cli
import service.dicom.errors
import service.errors
import training.cli
from model.errors import AqcfError
from service.api.app import bare_app
from service.api.errors import HTTP_CODES, status_of
from service.dicom.refusals import REASONS
from service.domain import Outcome, Status
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
FIRST_CELL = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)
ERROR_ROW = re.compile(r"^\| `([a-z0-9_]+)` \| (\d{3}) \|", re.MULTILINE)
ERROR_MODULES = (model.errors, service.errors, service.api.errors, service.dicom.errors)
RAISED_WITH_CODE_FIRST = ("GateError", "JobError")


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_relative_links_resolve(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in (one or two for one, two in LINK.findall(text)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = path if not name else (path.parent / name).resolve()
        assert file.exists(), f"{path.name} links to {target}"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{path.name}: {target}"


def test_every_setting_is_documented_with_its_default() -> None:
    text = page("configuration.md")
    rows = dict(re.findall(r"^\| `(AQCF_[A-Z0-9_]+)` \| ([^|]+) \|", text, re.MULTILINE))
    assert set(rows) == {f"AQCF_{name.upper()}" for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        shown = rows[f"AQCF_{name.upper()}"]
        if name == "models_dir":
            assert "model/zoo" in shown
        elif field.default is None:
            assert shown == "unset"
        else:
            assert shown == f"`{field.default}`"


def test_every_error_code_is_documented_and_no_other() -> None:
    documented = set(FIRST_CELL.findall(page("api.md").partition("\n## Errors")[2]))
    assert documented == set(codes_in_source())


def test_documented_statuses_are_those_of_the_error_classes() -> None:
    documented = {code: int(status) for code, status in ERROR_ROW.findall(page("api.md"))}
    checked = 0
    for kind in error_classes():
        if kind.code in documented:
            assert documented[kind.code] == status_of(kind), kind.__name__
            checked += 1
    assert checked > 20


def test_every_endpoint_is_documented() -> None:
    documented = set(re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", page("api.md"), re.MULTILINE))
    served = {
        f"{method.upper()} {path.replace('{segmentation_id}', '{id}')}"
        for path, methods in bare_app().openapi()["paths"].items()
        for method in methods
    }
    assert documented == served | {"GET /"}


def test_states_and_outcomes_are_documented() -> None:
    cells = set(FIRST_CELL.findall(page("api.md")))
    assert {str(status) for status in Status} | {str(outcome) for outcome in Outcome} <= cells


def test_ranking_is_documented() -> None:
    """Twelve rules in the module's docstring, twelve on the page."""
    source = (ROOT / "service" / "dicom" / "ranking.py").read_text(encoding="utf-8")
    rules = re.findall(r"(?:^|; )(\d+)\. ", ast.get_docstring(ast.parse(source)) or "", re.M)
    shown = page("conformance.md").partition("### Which series")[2].partition("\n## ")[0]
    assert rules == re.findall(r"^(\d+)\. ", shown, re.MULTILINE)


def error_classes() -> Iterator[type[AqcfError]]:
    for module in ERROR_MODULES:
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, AqcfError):
                yield kind


def codes_in_source() -> Iterator[str]:
    """Every code that the packages write as a literal, but for ``model.explain``, which the service
    never reaches."""
    yield from REASONS
    yield from HTTP_CODES.values()
    yield "invalid_parameter"
    for package in ("model", "service"):
        files = set((ROOT / package).rglob("*.py"))
        for file in files - set((ROOT / "model" / "explain").rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                yield from codes_at(node)


def codes_at(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ClassDef):
        for line in node.body:
            if isinstance(line, ast.Assign) and "code" in (ast.unparse(t) for t in line.targets):
                yield from literal(line.value)
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg == "code":
                yield from literal(keyword.value)
        if ast.unparse(node.func) in RAISED_WITH_CODE_FIRST and node.args:
            yield from literal(node.args[0])


def literal(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def test_the_training_page_names_commands_and_options_that_exist() -> None:
    """Every ``aqcf-train`` line can be typed; every command is told of."""
    commands = typer.main.get_group(training.cli.app).commands
    text = page("training.md")
    lines = re.findall(r"^ +aqcf-train ([a-z-]+)(.*)$", text, re.MULTILINE)
    for name, rest in lines:
        options = {option for part in commands[name].params for option in part.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= options, name
    shown = {name for name, command in commands.items() if not command.hidden}
    assert {
        name for name in shown if f"`aqcf-train {name}`" in text or f"`{name}`" in text
    } == shown
    assert len(lines) > 10


RUN_BY = re.compile(
    r"(?:^ +|`)(?:aqcf|docker compose (?:run --rm|exec) \w+(?: aqcf)?) ([a-z][^`\n]*)", re.MULTILINE
)


@pytest.mark.parametrize("name", ["operations.md", "site.md"])
def test_pages_name_commands_and_options_that_exist(name: str) -> None:
    """Every ``aqcf`` line can be typed, on the host or in a container."""
    root = typer.main.get_group(service.cli.app)
    lines = [line.partition("#")[0] for line in RUN_BY.findall(page(name))]
    assert len(lines) > 5
    for line in lines:
        words = line.split()
        command: Any = root
        while hasattr(command, "commands"):
            assert words, line
            command = command.commands[words.pop(0)]
        options = {option for part in command.params for option in part.opts}
        given = {word for word in words if word.startswith("--")}
        assert given <= options, line


def test_the_operations_page_knows_every_alert_and_panel() -> None:
    text = page("operations.md")
    alerts = (ROOT / "docker" / "metrics" / "alerts.yml").read_text(encoding="utf-8")
    for alert in re.findall(r"- alert: (\w+)", alerts):
        assert f"`{alert}`" in text, alert
    board = json.loads((ROOT / "docker" / "metrics" / "dashboard.json").read_text(encoding="utf-8"))
    for panel in board["panels"]:
        assert panel["title"].partition(" (")[0].partition(", by")[0] in text, panel["title"]


def test_the_page_of_reliability_links_what_was_measured_at_full_size() -> None:
    text, found = (
        page("reliability.md"),
        sorted((ROOT / "docs/evidence/reliability").glob("*.json")),
    )
    assert {"chaos.json", "fuzz.json", "load.json", "viewer.json"} <= {path.name for path in found}
    for path in found:
        assert json.loads(path.read_text(encoding="utf-8"))["full"], path.name
        assert f"evidence/reliability/{path.name}" in text, path.name


def test_the_page_of_reliability_says_what_chaos_did() -> None:
    chaos = json.loads(page("evidence/reliability/chaos.json"))
    lines = page("reliability.md").splitlines()
    told = {
        key.strip(): said.strip()
        for _, key, said, _ in (line.split("|") for line in lines if line.count("|") == 3)
    }
    assert told["series accepted"] == str(chaos["series_accepted"])
    assert told["lost, duplicates"] == f"{chaos['lost']}, {chaos['duplicates']}"
    assert told[f"blows in {chaos['seconds_of_chaos']:.0f} s"].startswith(
        f"{sum(chaos['blows'].values())}:"
    )
