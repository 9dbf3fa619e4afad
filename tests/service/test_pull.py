"""Studies are fetched from a real PACS once and completely, whatever is killed in between."""

import io
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage  # type: ignore[attr-defined]
from servers import OrthancServer, wait_until
from sqlalchemy.exc import OperationalError

from model.errors import InputError
from service import pull, wiring
from service.container import Container
from service.domain import ArrivalState, NewPull, Origin, Priority, PullState
from service.observability import configure_logging
from service.pacs.retrieve import PacsSendsOnlyError
from service.settings import Settings
from service.site import Rule, Site, When
from service.storage.pulls import MAX_ATTEMPTS, PullStore

STUDY = "1.2.3.1"
CT, MR = f"{STUDY}.1", f"{STUDY}.2"
RULES = (Rule(name="ct", when=When(modality="ct", thickness_mm=(1, 3), description="liver")),)


@pytest.fixture(scope="module")
def study(
    orthanc_server: OrthancServer, made: Any, tmp_path_factory: pytest.TempPathFactory
) -> OrthancServer:
    """A CT and an MR series of one study, of 12 images each, in the PACS. No test changes it."""
    orthanc_server.clear()
    for number, modality in ((1, "CT"), (2, "MR")):

        def edit(dataset: Dataset, index: int, number: int = number) -> None:
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, f"{STUDY}.{number}"
            dataset.SOPInstanceUID = f"{STUDY}.{number}.{index + 1}"
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.SeriesDescription = "Liver"

        folder, array = tmp_path_factory.mktemp(modality), made.phantom((12, 40, 40))
        orthanc_server.load(made.series(folder, array, modality=modality, edit=edit))
    return orthanc_server


def at_site(container: Container, orthanc: OrthancServer, *ways: str, **more: Any) -> Container:
    site = Site(nodes={"pacs": orthanc.node(*ways, **more)}, rules=RULES)
    return replace(container, site=site)


def asked(**changes: Any) -> NewPull:
    wanted = NewPull("pacs", STUDY, "somebody", modality="ct")
    return replace(wanted, **changes)


@pytest.mark.parametrize("way", ["dicomweb", "dimse"])
def test_a_modality_is_submitted_as_an_upload_is(
    container: Container, study: OrthancServer, way: str
) -> None:
    site = at_site(container, study, way)
    made = pull.ask(site, asked(profile="paper", priority=Priority.URGENT))
    assert (made.state, made.attempts) == (PullState.WAITING, 0)
    pull.run_once(site)
    done = site.pulls.require(made.id)
    assert (done.state, done.code, done.instances, done.expected) == ("done", None, 12, 12)
    job = site.jobs.require(done.job_id or "")
    assert (job.origin, job.modality, job.profile) == (Origin.PULL, "ct", "paper")
    assert (job.actor, job.priority) == ("somebody", Priority.URGENT)
    assert list(site.artifacts.staging.iterdir()) == []


def test_pulls_are_counted_by_how_they_ended(
    container: Container, study: OrthancServer, tmp_path: Path
) -> None:
    dead = OrthancServer(tmp_path)
    dead.password_file.write_text("any")
    nodes = {"pacs": study.node("dicomweb"), "dead": dead.node(timeout_s=0.5)}
    site = replace(container, site=Site(nodes=nodes, rules=RULES))
    wanted = (
        asked(),
        asked(series_uid=f"{STUDY}.9"),
        asked(node="dead"),
        asked(node="dead", modality="mr"),
    )
    for one in wanted[:3]:
        pull.ask(site, one)
    pull.run_once(site)
    site.pulls.create(wanted[3])
    claimed = site.pulls.claim("one")
    assert claimed is not None
    pull.run(site, replace(claimed, attempts=MAX_ATTEMPTS))
    pull.measure(site)
    sample = site.metrics.registry.get_sample_value

    def attempts(node: str, result: str) -> float | None:
        told = {"node": node, "result": result}
        return sample("aqcf_pull_attempts_total", told)

    assert (attempts("pacs", "done"), attempts("pacs", "failed")) == (1, 1)
    assert (attempts("dead", "postponed"), attempts("dead", "failed")) == (1, None)
    assert attempts("dead", "lost") == 1
    why = {"node": "pacs", "code": "nothing_to_pull"}
    assert sample("aqcf_pulls_failed_total", why) == 1
    assert sample("aqcf_pull_seconds_count", {"node": "pacs"}) == 2
    states = {state: sample("aqcf_pulls_now", {"state": state}) for state in PullState}
    assert states == {"waiting": 1, "fetching": 1, "done": 1, "failed": 1}


def test_the_last_try_is_a_failure(container: Container, tmp_path: Path) -> None:
    dead = OrthancServer(tmp_path)
    dead.password_file.write_text("any")
    pulls = PullStore(container.database, lease_s=0.0)
    site = replace(at_site(container, dead, timeout_s=0.5), pulls=pulls)
    made = pulls.create(asked())
    for number in range(MAX_ATTEMPTS):
        claimed = pulls.claim(f"w{number}")
    assert claimed is not None
    pull.run(site, claimed)
    assert pulls.require(made.id).state is PullState.FAILED
    sample = site.metrics.registry.get_sample_value
    why = {"node": "pacs", "code": "pacs_unavailable"}
    assert sample("aqcf_pulls_failed_total", why) == 1


class Restarting(PullStore):
    """Its database is away for a moment, in the middle of a pull."""

    away = True

    def renew(self, *arguments: Any, **more: Any) -> bool:
        if self.away:
            self.away = False
            raise OperationalError("UPDATE pulls", {}, Exception("the connection is closed"))
        return super().renew(*arguments, **more)


def test_a_ledger_that_restarts_costs_no_pull(container: Container, study: OrthancServer) -> None:
    restarting = Restarting(container.database)
    site = replace(at_site(container, study), pulls=restarting)
    made = pull.ask(site, asked())
    pull.run_once(site)
    waits = site.pulls.require(made.id)
    assert (waits.state, waits.code) == (PullState.WAITING, "ledger_unavailable")
    assert waits.attempts == 1


def test_one_series_is_one_job_with_the_same_upload(
    container: Container, study: OrthancServer
) -> None:
    site = at_site(container, study)
    jobs = set()
    for series in (MR, None):
        made = pull.ask(site, asked(modality="mr", series_uid=series))
        pull.run_once(site)
        jobs.add(site.pulls.require(made.id).job_id)
    assert len(jobs) == 1
    assert None not in jobs


def test_rules_get_what_they_may_take_as_an_arrival(
    container: Container, study: OrthancServer
) -> None:
    site = at_site(container, study)
    made = pull.ask(site, asked(modality=None))
    pull.run_once(site)
    done = site.pulls.require(made.id)
    assert (done.state, done.instances, done.job_id) == (PullState.DONE, 12, None)
    (arrival,) = site.arrivals.page().arrivals
    assert (arrival.origin, arrival.series_uid, arrival.instances) == (Origin.PULL, CT, 12)
    assert arrival.state is ArrivalState.RECEIVING


@pytest.fixture
def listener() -> Iterator[tuple[int, list[str]]]:
    """The port of an AE called AQCF, and what it got."""
    got: list[str] = []

    def store(event: evt.Event) -> int:
        got.append(event.request.AffectedSOPInstanceUID)
        return 0

    entity = AE("AQCF")
    entity.add_supported_context(CTImageStorage)
    server = entity.start_server(("127.0.0.1", 0), False, evt_handlers=[(evt.EVT_C_STORE, store)])
    yield server.server_address[1], got
    server.shutdown()


def test_a_node_that_moves_sends_to_the_listener(
    container: Container, study: OrthancServer, listener: tuple[int, list[str]]
) -> None:
    port, got = listener
    study.know("AQCF", port)
    site = at_site(container, study, retrieve="move")
    made = pull.ask(site, asked(modality=None))
    pull.run_once(site)
    assert site.pulls.require(made.id).state is PullState.DONE
    assert len(set(got)) == 12


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"node": "elsewhere"}, "unknown_node"),
        ({"study_uid": "*"}, "invalid_uid"),
        ({"series_uid": ""}, "invalid_uid"),
        ({"model": "none"}, "unknown_model"),
        ({"profile": "none"}, "unknown_profile"),
        ({"destinations": ("none",)}, "unknown_destination"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(
    container: Container, study: OrthancServer, changes: dict[str, Any], code: str
) -> None:
    site = at_site(container, study)
    with pytest.raises(InputError) as caught:
        pull.ask(site, asked(**changes))
    assert caught.value.code == code
    assert site.pulls.counts() == {}


def test_a_modality_of_a_node_that_moves_needs_rules(
    container: Container, study: OrthancServer
) -> None:
    with pytest.raises(InputError) as caught:
        pull.ask(at_site(container, study, retrieve="move"), asked())
    assert caught.value.code == "pull_needs_rules"
    assert PacsSendsOnlyError.code == "pacs_sends_only"


@pytest.mark.parametrize(
    "changes",
    [{"study_uid": "1.9"}, {"series_uid": "1.9"}, {"modality": None, "series_uid": MR}],
)
def test_nothing_to_fetch_is_a_failure_with_its_code(
    container: Container, study: OrthancServer, changes: dict[str, Any]
) -> None:
    site = at_site(container, study)
    made = pull.ask(site, asked(**changes))
    pull.run_once(site)
    done = site.pulls.require(made.id)
    assert (done.state, done.code) == (PullState.FAILED, "nothing_to_pull")


def test_a_dead_node_is_asked_again_and_given_up(container: Container, tmp_path: Path) -> None:
    dead = OrthancServer(tmp_path)
    dead.password_file.write_text("any")
    site = at_site(container, dead, timeout_s=0.5)
    made = pull.ask(site, asked())
    pull.run_once(site)
    waiting = site.pulls.require(made.id)
    assert (waiting.state, waiting.code) == (PullState.WAITING, "pacs_unavailable")
    assert site.pulls.claim("early") is None
    claimed = replace(waiting, state=PullState.FETCHING, attempts=MAX_ATTEMPTS)
    assert not site.pulls.postpone(claimed, "pacs_unavailable"), "the claim is not there any more"


def test_the_same_request_is_one_pull_until_it_is_finished(
    container: Container, study: OrthancServer
) -> None:
    site = at_site(container, study)
    first = pull.ask(site, asked())
    assert pull.ask(site, asked()).id == first.id
    assert pull.ask(site, asked(priority=Priority.URGENT)).id != first.id
    pull.run_once(site)
    assert pull.ask(site, asked()).id != first.id


def test_urgent_ones_are_claimed_first_and_each_by_one_process(container: Container) -> None:
    made = [container.pulls.create(asked(study_uid=f"1.{n}")) for n in range(1, 8)]
    urgent = container.pulls.create(asked(priority=Priority.URGENT))
    first = container.pulls.claim("one")
    assert first is not None
    assert first.id == urgent.id
    claimed: list[str] = []

    def claim(worker: str) -> None:
        while (found := container.pulls.claim(worker)) is not None:
            claimed.append(found.id)

    threads = [threading.Thread(target=claim, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(one.id for one in made)


def test_a_dead_process_loses_its_pull_to_another(container: Container) -> None:
    pulls = PullStore(container.database, lease_s=0.0)
    pulls.create(asked())
    dead = pulls.claim("dead")
    taken = pulls.claim("alive")
    assert dead is not None
    assert taken is not None
    assert (taken.id, taken.attempts, taken.worker_id) == (dead.id, 2, "alive")
    assert not pulls.done(dead, instances=1)
    assert not pulls.renew(dead, instances=1)
    assert pulls.done(taken, instances=1)


def test_what_kills_every_process_is_given_up(container: Container) -> None:
    pulls = PullStore(container.database, lease_s=0.0)
    made = pulls.create(asked())
    for number in range(MAX_ATTEMPTS):
        assert pulls.claim(f"w{number}") is not None
    assert pulls.claim("last") is None
    assert pulls.give_up() == 1
    assert (pulls.require(made.id).state, pulls.require(made.id).code) == ("failed", "worker_died")


def test_a_stop_in_the_middle_lets_go_of_it(container: Container, study: OrthancServer) -> None:
    site = at_site(container, study)
    made = pull.ask(site, asked())
    questions = iter([False] * 6)
    pull.run_once(site, lambda: next(questions, True))
    left = site.pulls.require(made.id)
    assert (left.state, left.attempts, left.code) == (PullState.WAITING, 0, None)
    pull.run_once(site)
    assert site.pulls.require(made.id).state is PullState.DONE


def test_an_archive_that_still_receives_is_asked_again(
    container: Container, study: OrthancServer, tmp_path: Path
) -> None:
    """The count is taken before the images are; what is missing is not overlooked."""
    site = at_site(container, study)
    made = pull.ask(site, asked())
    claimed = site.pulls.claim("w")
    assert claimed is not None
    errand = pull._Errand(site, claimed, lambda: False, came=11, expected=12)
    with pytest.raises(pull.PacsUnavailableError, match="12 instances and gave 11"):
        errand._check_whole()
    assert made.id == claimed.id


def test_finished_pulls_are_forgotten_with_their_uids(container: Container) -> None:
    made = container.pulls.create(asked())
    claimed = container.pulls.claim("w")
    assert claimed is not None
    container.pulls.failed(claimed, "nothing_to_pull")
    assert container.pulls.forget(older_than_s=60) == 0
    assert container.pulls.forget(older_than_s=0) == 1
    assert container.pulls.get(made.id) is None


def test_the_running_service_does_pulls(
    settings: Settings, study: OrthancServer, tmp_path: Path
) -> None:
    file = tmp_path / "site.yaml"
    dimse = f"{{host: 127.0.0.1, port: {study.dicom_port}, ae_title: {study.ae_title}}}"
    file.write_text(f"nodes: {{pacs: {{dimse: {dimse}}}}}")
    with wiring.embedded(settings.model_copy(update={"site_file": file})) as container:
        made = pull.ask(container, asked())
        wait_until(lambda: container.pulls.require(made.id).state.finished, "not pulled", 30)
        assert container.pulls.require(made.id).state is PullState.DONE


def test_the_archive_of_the_site_is_asked_for_counts(
    settings: Settings, study: OrthancServer, tmp_path: Path
) -> None:
    file = tmp_path / "site.yaml"
    dimse = f"{{host: 127.0.0.1, port: {study.dicom_port}, ae_title: {study.ae_title}}}"
    file.write_text(f"nodes: {{pacs: {{dimse: {dimse}}}}}\narchive: pacs")
    container = wiring.build(settings.model_copy(update={"site_file": file}))
    try:
        assert container.archive is not None
        counts = container.archive.counts(STUDY, datetime.now(UTC))
        assert counts == {CT: 12, MR: 12}
    finally:
        container.database.close()


def test_no_uid_of_a_pull_is_logged(container: Container, study: OrthancServer) -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    configure_logging("debug", stream)
    try:
        for way in ("dicomweb", "dimse"):
            for series in (None, "1.9"):
                site = at_site(container, study, way)
                pull.ask(site, asked(series_uid=series))
                pull.run_once(site)
    finally:
        root.handlers = handlers
        root.setLevel(level)
        logging.captureWarnings(False)
        structlog.reset_defaults()
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events.count("pulled") == 2
    assert events.count("pull_failed") == 2
    assert STUDY not in stream.getvalue()
