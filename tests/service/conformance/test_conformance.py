"""The statement says what the running service does, and nothing else."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynetdicom.sop_class
import pytest
from pydicom import dcmread
from pynetdicom import ALL_TRANSFER_SYNTAXES, build_context, evt
from typer.testing import CliRunner

from service import execute, intake
from service.cli import app
from service.conformance import FORM_KINDS, Statement, as_markdown, collect
from service.container import Container
from service.domain import SubmitOptions
from service.forms import Form, make
from service.listener import listening
from service.pacs.errors import PacsRefusedError
from service.pacs.find import find_series
from service.pacs.incoming import Limits
from service.pacs.retrieve import Wanted, move, retrieve
from service.settings import Settings
from service.site import DimseNode, Node, Site, load_site
from service.sitecheck import echo
from service.uploads import Upload

ROOT = Path(__file__).resolve().parents[3]
PRIVATE = "1.3.12.2.1107.5.9.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
VERIFICATION = "1.2.840.10008.1.1"
SITE = """
nodes:
  hidden-archive:
    dimse: {host: hidden-host.example, port: 11999, ae_title: HIDDENAE}
    dicomweb:
      url: https://hidden-web.example/dicom-web
      username: hidden-user
      password_file: hidden-password
archive: hidden-archive
destinations:
  hidden-target: {node: hidden-archive, by: dimse, confirm: commitment}
callers:
  - {ae_title: HIDDENCT, host: 10.98.76.54}
"""


@pytest.fixture
def port(container: Container) -> Iterator[int]:
    settings = container.settings.model_copy(update={"listen_port": 0})
    object.__setattr__(container, "settings", settings)
    with listening(container) as (_, port):
        yield port


@pytest.fixture
def site_file(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(SITE, encoding="utf-8")
    (tmp_path / "hidden-password").write_text("very-secret", encoding="utf-8")
    return path


def accepted(port: int, pairs: list[tuple[str, str]]) -> set[tuple[str, str]]:
    """Of pairs of a SOP class and a transfer syntax, those that the listener accepts."""
    found: set[tuple[str, str]] = set()
    for start in range(0, len(pairs), 120):
        some = pairs[start : start + 120]
        entity = pynetdicom.AE("PROBE")
        contexts = [build_context(uid, syntax) for uid, syntax in some]
        made = entity.associate("127.0.0.1", port, contexts, ae_title="AQCF")
        found |= {(str(c.abstract_syntax), c.transfer_syntax[0]) for c in made.accepted_contexts}
        if made.is_established:
            made.release()
        made.join(10)
    return found


def stated(statement: Statement) -> dict[str, set[str]]:
    return {offer.sop_class: set(offer.syntaxes) for offer in statement.accepted}


def known_classes() -> set[str]:
    """Every SOP class that pynetdicom has a name for, of all services."""
    tables = vars(pynetdicom.sop_class).items()
    found = {
        str(uid)
        for name, table in tables
        if name.endswith("_CLASSES") and isinstance(table, dict)
        for uid in table.values()
        if isinstance(uid, str)
    }
    assert len(found) > 200
    return found


def test_every_sop_class_that_is_accepted_stands_in_it_and_the_reverse(
    container: Container, port: int
) -> None:
    syntax = "1.2.840.10008.1.2"
    pairs = [(uid, syntax) for uid in sorted({*known_classes(), PRIVATE})]
    taken = {uid for uid, _ in accepted(port, pairs)}
    expected = set(stated(collect(container.settings, Site())))
    assert taken - {PRIVATE} == expected - {"private"}
    assert PRIVATE in taken
    assert "private" in expected


@pytest.mark.parametrize(
    ("sop_class", "shown"),
    [(CT, CT), (SECONDARY_CAPTURE,) * 2, (VERIFICATION,) * 2, (PRIVATE, "private")],
)
def test_every_transfer_syntax_that_is_accepted_stands_in_it_and_the_reverse(
    container: Container, port: int, sop_class: str, shown: str
) -> None:
    pairs = [(sop_class, str(syntax)) for syntax in ALL_TRANSFER_SYNTAXES]
    taken = {syntax for _, syntax in accepted(port, pairs)}
    assert taken == stated(collect(container.settings, Site()))[shown]


def test_every_sop_class_that_is_proposed_stands_in_it(
    container: Container, tmp_path: Path
) -> None:
    """As a peer sees it that refuses everything."""
    seen: set[str] = set()

    def look(event: evt.Event) -> None:
        asked = event.assoc.requestor.requested_contexts
        seen.update(str(context.abstract_syntax) for context in asked)

    entity = pynetdicom.AE("PEER")
    entity.add_supported_context("1.2.3")
    handlers = [(evt.EVT_REQUESTED, look)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    dimse = DimseNode(host="127.0.0.1", port=server.server_address[1], ae_title="PEER")
    node, wanted, limits = Node(dimse=dimse), Wanted("1.2", ("1.2.3",)), Limits(1, 1)
    errands: list[Callable[[], object]] = [
        lambda: echo(container.settings, node),
        lambda: find_series(node, "1.2"),
        lambda: retrieve(node, wanted, tmp_path, limits),
        lambda: retrieve(node, wanted, tmp_path, limits, results=True),
        lambda: move(node, wanted, "AQCF"),
    ]
    try:
        for errand in errands:
            with pytest.raises(PacsRefusedError):
                errand()
    finally:
        server.shutdown()
    stated = {offer.sop_class for offer in collect(container.settings, Site()).proposed}
    assert VERIFICATION in seen
    assert seen <= stated


def test_no_queries_and_no_fetches_are_served(container: Container) -> None:
    stated = collect(container.settings, Site())
    served = {one.service for one in (*stated.accepted, *stated.proposed) if one.role == "SCP"}
    assert served == {"Verification", "Storage", "Storage, during C-GET"}


def test_results_are_of_the_kinds_that_are_stated(container: Container, ct_zip: Path) -> None:
    job = intake.submit(container, Upload((ct_zip,)), SubmitOptions("ct"))
    execute.run(container, job.id)
    for form in Form:
        with make(container, container.jobs.require(job.id), form) as paths:
            for path in paths[:2]:
                made = dcmread(path, stop_before_pixels=True)
                kind = (str(made.SOPClassUID), str(made.file_meta.TransferSyntaxUID))
                assert kind == FORM_KINDS[form], form


def test_the_site_is_told_when_asked_for_and_secrets_never(
    settings: Settings, site_file: Path
) -> None:
    site = load_site(site_file)
    shown = as_markdown(collect(settings, site))
    assert "hidden" not in shown.lower()
    assert "10.98.76.54" not in shown
    assert "node 1: asked whether a study is complete; DIMSE; DICOMweb" in shown
    full = as_markdown(collect(settings, site, addresses=True))
    for word in ("hidden-host.example:11999", "HIDDENAE", "hidden-web.example", "10.98.76.54"):
        assert word in full
    for word in ("hidden-user", "very-secret", "hidden-password"):
        assert word not in full


def test_the_command_writes_both_formats(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, site_file: Path
) -> None:
    monkeypatch.setenv("AQCF_SITE_FILE", str(site_file))
    monkeypatch.setenv("AQCF_AE_TITLE", "OURTITLE")
    out = tmp_path / "statement.json"
    told = CliRunner().invoke(app, ["conformance", "--format", "json", "--out", str(out)])
    assert (told.exit_code, told.stdout) == (0, "")
    read: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    page = CliRunner().invoke(app, ["conformance"]).stdout
    assert read["ae_title"] == "OURTITLE"
    assert "`OURTITLE`" in page
    offers = [*read["accepted"], *read["proposed"]]
    assert len(offers) > 150
    for offer in offers:
        assert offer["sop_class"] == "private" or f"| {offer['sop_class']} |" in page
        assert set(offer["syntaxes"]) <= {word.strip() for word in page.split("|")}


def test_the_page_about_dicom_names_the_command() -> None:
    page = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    assert "aqcf conformance" in page
    first = page.partition("\n## ")[0]
    assert "No network protocol" not in first
