"""`aqcf acceptance` as an engineer runs it: a real archive, a running service."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import yaml
from accepting import PROFILES, RULE, Scene, between, failed
from doctored import mirrored, one_frame_less, one_slice_on
from servers import OrthancServer, free_port

from model.errors import InputError
from service.acceptance import Plan, accept
from service.acceptance.fetch import SHOWN_S
from service.acceptance.report import as_page
from service.container import Container
from service.site import load_site

SET = "ct-feet-first,ct-enhanced,ct-compressed,mr-coronal,ct-no-liver"


def test_phantoms_go_to_the_archive_and_their_results_come_back(
    scene: Scene, archive: OrthancServer
) -> None:
    done = scene.accept("--only", SET)
    assert (done.code, done.report["passed"]) == (0, True), done.said
    phantoms = {one["name"]: one for one in done.report["phantoms"]}
    assert list(phantoms) == SET.split(",")
    for one in phantoms.values():
        names = {check["name"] for check in one["checks"]}
        assert {"sent", "images come back", "delivered", "outcome", "mask", "one SR"} <= names
        assert {"send", "to the service", "segmented", "delivered"} <= set(one["seconds"])
    assert archive.count("studies") == 2
    assert set(archive.tags("studies", "StudyInstanceUID")) == set(done.report["studies"])
    assert archive.count("series") == 3 * len(phantoms)
    assert "only-for-tests" not in done.page + done.said + str(done.report)
    assert done.page.count("data:image/png") == 2 * len(phantoms)
    assert "<script" not in done.page
    assert f"TESTPACS at 127.0.0.1:{archive.dicom_port}" in done.page


def test_through_the_listener_and_the_rules_and_gone_again(
    scene: Scene, archive: OrthancServer
) -> None:
    where = f"127.0.0.1:{scene.listen_port}"
    report = scene.accept_here(
        through="listener", listener=where, only=("ct-no-lesion",), clean=True
    )
    assert report.passed, failed(report)
    assert archive.count() == 0
    assert report.remains == "nothing; 1 study deleted"


def test_an_archive_that_forwards_and_speaks_dimse_only(
    scene: Scene, archive: OrthancServer
) -> None:
    """Asked by C-FIND, and the results fetched by C-GET."""
    node = archive.node("dimse", retrieve="get").model_dump(mode="json", exclude_none=True)
    site = scene.site(
        nodes={"pacs": node}, destinations={"archive": {"node": "pacs", "by": "dimse"}}
    )
    with forwarding(archive, scene.listen_port):
        report = scene.accept_here(site, through="forward", only=("mr-axial",))
    assert report.passed, failed(report)


@pytest.mark.parametrize("node", PROFILES)
def test_a_destination_with_a_profile_of_its_own(
    scene: Scene, archive: OrthancServer, node: str
) -> None:
    """A report of lines on images is none of something else; where no report is sent, none is
    missed."""
    report = scene.accept_here(node=node, only=("ct-feet-first", "ct-no-liver"))
    assert report.passed, (failed(report), report.checks)
    assert all(one.seconds["all results fetched"] < SHOWN_S for one in report.trials)


@contextmanager
def forwarding(archive: OrthancServer, port: int) -> Iterator[None]:
    """An archive's rule: each new study goes to the listener when nothing more of it comes."""
    archive.know("AQCF", port)
    stop = threading.Event()

    def forward() -> None:
        with archive.http() as http:
            while not stop.wait(0.1):
                for study in http.get("/studies", params={"expand": ""}).json():
                    if study["IsStable"]:
                        http.post("/modalities/AQCF/store", json=study["ID"]).raise_for_status()
                        return

    thread = threading.Thread(target=forward)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_seg_that_the_archive_changes_is_caught(scene: Scene, archive: OrthancServer) -> None:
    with between(archive, mirrored) as url:
        done = scene.accept("--site", str(scene.site(nodes=doctored(archive, url))),
                            "--only", "ct-axial")  # fmt: skip
    assert (done.code, done.failed()) == (1, {"ct-axial": {"mask"}}), done.said
    assert "FAIL     ct-axial" in done.said
    assert '<span class="fail">FAIL</span></h1>' in done.page


@pytest.mark.parametrize(
    ("doctor", "checks"),
    [(one_slice_on, {"mask"}), (one_frame_less, {"mask", "liver in the SEG"})],
    ids=["shifted", "lacks a frame"],
)
def test_so_is_one_that_is_shifted_or_lacks_a_frame(
    scene: Scene, archive: OrthancServer, doctor: Any, checks: set[str]
) -> None:
    with between(archive, doctor) as url:
        site = scene.site(nodes=doctored(archive, url))
        report = scene.accept_here(site, only=("ct-enhanced",))
    volumes = {"liver in the SEG", "tumour in the SEG"}
    assert checks <= failed(report)["ct-enhanced"] <= checks | volumes


def doctored(archive: OrthancServer, url: str) -> dict[str, Any]:
    node = archive.node("dicomweb").model_dump(mode="json", exclude_none=True)
    node["dicomweb"]["url"] = url
    return {"pacs": node}


def test_what_the_service_cannot_do_is_told_with_its_code(
    scene: Scene, archive: OrthancServer
) -> None:
    """The service's own site file knows no node of this name."""
    node = archive.node().model_dump(mode="json", exclude_none=True)
    destinations = {"archive": {"node": "other", "by": "dicomweb"}}
    site = scene.site(nodes={"other": node}, destinations=destinations)
    report = scene.accept_here(site, "other", only=("ct-enhanced",))
    assert failed(report) == {"ct-enhanced": {"fetched by the service"}}
    assert "unknown_node" in as_page(report)


def test_time_is_bounded(scene: Scene, archive: OrthancServer) -> None:
    """Nobody forwards anything."""
    began = time.monotonic()
    report = scene.accept_here(through="forward", only=("ct-enhanced",), timeout_s=1)
    assert (report.passed, failed(report)) == (False, {"ct-enhanced": {"in time"}})
    assert time.monotonic() - began < 30


UNUSABLE: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "node": ("unknown_node", {"node": "nowhere"}, {}),
    "destination": ("unknown_destination", {"destination": "nowhere"}, {}),
    "phantom": ("unknown_phantom", {"only": ("ct-axial", "unicorn")}, {}),
    "no destination": ("no_destination", {}, {"destinations": {}, "rules": []}),
    "no SEG": (
        "no_way_back",
        {},
        {
            "profiles": {"bare": {"seg": "none"}},
            "destinations": {"archive": {"node": "pacs", "by": "dicomweb", "profile": "bare"}},
        },
    ),
    "no rule": ("no_acceptance_rule", {"through": "forward"}, {"rules": []}),
    "rule without destination": (
        "no_acceptance_rule",
        {"through": "forward"},
        {"rules": [{"name": "all", "then": {"series": "every"}}]},
    ),
    "listener": ("invalid_listener", {"through": "listener", "listener": "here"}, {}),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_test_that_cannot_be_made_is_refused_before_anything_is_sent(
    scene: Scene, archive: OrthancServer, case: str
) -> None:
    code, plan, changes = UNUSABLE[case]
    with pytest.raises(InputError) as refused:
        scene.accept_here(scene.site(**changes), **{"only": ("ct-enhanced",)} | plan)
    assert refused.value.code == code
    assert archive.count() == 0


def test_the_missing_rule_is_told_and_would_do(scene: Scene, archive: OrthancServer) -> None:
    with pytest.raises(InputError) as refused:
        scene.accept_here(scene.site(rules=[]), through="forward", only=("ct-enhanced",))
    told = refused.value.message
    assert yaml.safe_load(told.partition("service:\n")[2]) == [RULE]


def test_an_archive_that_is_away_exits_with_2(scene: Scene, archive: OrthancServer) -> None:
    node = archive.node().model_dump(mode="json", exclude_none=True)
    node["dimse"]["port"] = free_port()
    done = scene.accept("--site", str(scene.site(nodes={"pacs": node})))
    assert (done.code, done.report) == (2, {}), done.said
    assert "error pacs_unavailable:" in done.said


def test_without_a_service_nothing_is_sent(container: Container, scene: Scene) -> None:
    lonely = replace(container, site=load_site(scene.folder / "site.yaml"))
    with pytest.raises(InputError) as refused:
        accept(lonely, Plan("pacs"))
    assert refused.value.code == "nobody_serves"
