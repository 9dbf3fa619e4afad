"""Complete studies through the rules into jobs; late, lacking, foreign and broken ones."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from sqlalchemy.exc import OperationalError

from service import arrive, execute, sweep
from service.arrive.complete import ASIDE_S
from service.arrive.verdict import PATIENCE
from service.domain import ArrivalState, ArtifactName, Job, Origin, Priority
from service.errors import BusyError
from service.pacs.archive import Archive
from service.site import Site
from service.storage.jobs import JobStore


def describe(text: str) -> Any:
    def edit(dataset: Dataset, _index: int) -> None:
        dataset.SeriesDescription = text

    return edit


def archive_of(counts: dict[str, int]) -> Archive:
    """An archive of ours, asked as often as the sweep runs."""
    seconds = iter(range(0, 10**9, 1000))
    return Archive(lambda _study: counts, lambda: float(next(seconds)))


def test_a_quiet_study_becomes_a_job_as_the_rule_says(arriving: Any) -> None:
    arriving.send(arriving.series())
    arriving.complete()
    assert arriving.jobs() == []
    arriving.wait()
    (job,) = arriving.jobs()
    assert (job.modality, job.profile, job.priority) == ("ct", "paper", Priority.URGENT)
    assert (job.origin, job.actor) == (Origin.DIMSE, "MODALITY")
    (arrival,) = arriving.arrivals()
    assert (arrival.state, arrival.instances) == (ArrivalState.SUBMITTED, 12)
    assert (arrival.rule, arrival.job_id, arrival.code) == ("liver-ct", job.id, None)
    assert arriving.stored() == 0


def test_the_job_runs(arriving: Any) -> None:
    arriving.send(arriving.series(slices=24))
    arriving.wait()
    (job,) = arriving.jobs()
    execute.run(arriving.container, job.id)
    assert arriving.container.jobs.require(job.id).error is None


def test_every_series_gets_its_reason(arriving: Any) -> None:
    arriving.send(arriving.series(2, slices=8))
    arriving.send(arriving.series(3, slices=20))
    arriving.send(arriving.series(4, edit=describe("thick slices")))
    arriving.send(arriving.series(5, modality="PT"))
    arriving.send(arriving.series(6, slices=2))
    arriving.wait()
    assert arriving.states() == {
        "2": ("set_aside", "not_best"),
        "3": ("submitted", None),
        "4": ("set_aside", "ignored_by_rule"),
        "5": ("set_aside", "no_rule"),
        "6": ("failed", "too_few_slices"),
    }
    assert len(arriving.jobs()) == 1
    assert arriving.stored() == 8 + 12 + 12 + 2  # all but what was submitted


def test_a_rule_can_take_every_series(arriving: Any) -> None:
    arriving.send(arriving.series(2, modality="MR"))
    arriving.send(arriving.series(3, modality="MR", seed=1))
    arriving.wait()
    assert set(arriving.states().values()) == {("submitted", None)}
    assert len(arriving.jobs()) == 2


def test_without_rules_everything_is_set_aside(arriving: Any) -> None:
    bare = replace(arriving, container=replace(arriving.container, site=Site()))
    bare.send(arriving.series())
    bare.wait()
    assert arriving.states() == {"2": ("set_aside", "no_rule")}


def test_what_comes_twice_is_one_job(arriving: Any) -> None:
    files = arriving.series()
    for _ in range(2):
        arriving.send(files)
        arriving.wait()
    assert len(arriving.jobs()) == 1
    assert [one.job_id for one in arriving.arrivals()] == [arriving.jobs()[0].id] * 2


def test_late_instances_join_what_was_submitted(arriving: Any) -> None:
    files = arriving.series()
    arriving.send(files[:8])
    arriving.wait()
    arriving.send(files[7:])
    arriving.wait()
    late, early = arriving.jobs()
    assert len(arriving.container.artifacts.input_files(early.input_key)) == 8
    assert len(arriving.container.artifacts.input_files(late.input_key)) == 12


def test_late_instances_make_a_failed_series_whole(arriving: Any) -> None:
    files = arriving.series()
    arriving.send(files[:2])
    arriving.wait()
    assert arriving.states() == {"2": ("failed", "too_few_slices")}
    arriving.send(files[2:])
    arriving.wait()
    (job,) = arriving.jobs()
    assert len(arriving.container.artifacts.input_files(job.input_key)) == 12
    assert arriving.stored() == 0


def test_late_instances_make_a_series_whole_that_was_set_aside(arriving: Any) -> None:
    arriving.send(arriving.series(2, slices=12))
    files = arriving.series(3, slices=20)
    arriving.send(files[:8])
    arriving.wait()
    assert arriving.states()["3"] == ("set_aside", "not_best")
    arriving.send(files[8:])
    arriving.wait()
    late, _ = arriving.jobs()
    assert len(arriving.container.artifacts.input_files(late.input_key)) == 20
    assert arriving.stored() == 0


def test_what_is_set_aside_goes_after_an_hour_or_when_the_disk_is_full(arriving: Any) -> None:
    ignored = describe("thick slices")
    for number, study in ((2, 1), (3, 2)):
        arriving.send(arriving.series(number, study, edit=ignored))
    arriving.wait()
    arrive.tidy(arriving.container)
    assert arriving.stored() == 24
    arriving.container.arrivals.let_go(arriving.arrivals()[0].id, abandoned_s=ASIDE_S + 1)
    arrive.tidy(arriving.container)
    assert arriving.stored() == 12
    arrive.tidy(arriving.with_settings(purge_free_bytes=2**60).container)
    assert arriving.stored() == 0
    assert {one.state for one in arriving.arrivals()} == {ArrivalState.SET_ASIDE}


@pytest.mark.parametrize(("slices", "state"), [(8, "set_aside"), (20, "submitted")])
def test_a_late_series_competes_with_what_was_submitted(
    arriving: Any, slices: int, state: str
) -> None:
    arriving.send(arriving.series(2, slices=12))
    arriving.wait()
    arriving.send(arriving.series(3, slices=slices))
    arriving.wait()
    assert arriving.states()["3"][0] == state


def test_the_archive_says_when_a_study_is_complete(arriving: Any) -> None:
    asking = arriving.with_settings(quiet_s=8.0).asking(
        archive_of({"1.2.3.1.2": 12, "1.2.3.1.3": 4})
    )
    asking.send(arriving.series(2))
    asking.send(arriving.series(3, slices=3))
    for _ in range(3):
        asking.complete()
    assert {one.expected for one in arriving.arrivals()} == {None}  # the burst is not over
    quick = asking.with_settings(quiet_s=0.4)
    quick.wait()
    assert {one.expected for one in arriving.arrivals()} == {12, 4}
    assert arriving.jobs() == []
    asking.send(arriving.series(3, slices=4)[3:])
    quick.wait()
    assert arriving.states() == {"2": ("submitted", None), "3": ("set_aside", "not_best")}


def test_a_series_that_stays_incomplete_is_told_and_not_segmented(arriving: Any) -> None:
    hasty = arriving.with_settings(quiet_s=0.02).asking(archive_of({"1.2.3.1.2": 13}))
    hasty.send(arriving.series(2))
    time.sleep(0.02 * PATIENCE)
    hasty.wait()
    assert arriving.states() == {"2": ("failed", "incomplete_series")}
    assert arriving.jobs() == []


def test_a_silent_archive_is_as_none(arriving: Any) -> None:
    def silent(_study: str) -> dict[str, int]:
        raise TimeoutError

    asking = arriving.asking(Archive(silent))
    asking.send(arriving.series())
    asking.wait()
    assert len(arriving.jobs()) == 1


def test_own_results_do_not_start_a_loop(arriving: Any, tmp_path: Path) -> None:
    arriving.send(arriving.series(slices=24))
    arriving.wait()
    (job,) = arriving.jobs()
    execute.run(arriving.container, job.id)
    store = arriving.container.artifacts
    arriving.send([store.path(job.id, ArtifactName.SEG), store.path(job.id, ArtifactName.SR)])
    arriving.wait()
    codes = [one.code for one in arriving.arrivals()]
    assert codes == [None, "own_result", "own_result"]
    assert len(arriving.jobs()) == 1
    assert arriving.stored() == 0


def test_results_of_others_are_no_images(arriving: Any, tmp_path: Path) -> None:
    arriving.send(arriving.series(slices=24))
    arriving.wait()
    (job,) = arriving.jobs()
    execute.run(arriving.container, job.id)
    dataset = dcmread(arriving.container.artifacts.path(job.id, ArtifactName.SEG))
    dataset.Manufacturer = "Somebody else"
    dataset.save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    arriving.send([tmp_path / "seg.dcm"])
    arriving.wait()
    assert arriving.arrivals()[-1].code == "not_an_image"


def test_a_full_queue_postpones(arriving: Any) -> None:
    busy = arriving.with_settings(queue_limit=1, heartbeat_timeout_s=0.1)
    busy.send(arriving.series(2, study=1))
    busy.wait()
    busy.send(arriving.series(2, study=2, seed=1))
    busy.wait()
    assert len(busy.jobs()) == 1
    assert [one.state for one in arriving.arrivals()][-1] is ArrivalState.RECEIVING
    execute.run(busy.container, busy.jobs()[0].id)
    busy.wait()
    assert len(busy.jobs()) == 2
    assert arriving.stored() == 0


def test_a_study_that_waits_for_the_queue_goes_on_as_soon_as_there_is_room(arriving: Any) -> None:
    """It was not taken for evaluation in vain, and late instances still join it."""
    busy = arriving.with_settings(queue_limit=1, heartbeat_timeout_s=600.0)
    busy.send(arriving.series(2, study=1))
    busy.wait()
    late = arriving.series(2, study=2, seed=1)
    busy.send(late[:-1])
    busy.wait()
    busy.send(late[-1:])
    busy.wait()
    execute.run(busy.container, busy.jobs()[0].id)
    busy.complete()
    assert len(busy.jobs()) == 2
    assert [one.instances for one in arriving.arrivals()] == [12, 12]


def test_a_study_that_another_overtook_at_the_queue_is_taken_up_again(arriving: Any) -> None:
    class Overtaken(JobStore):
        def create(self, *_: object, **__: object) -> tuple[Job, bool]:
            raise BusyError("full", retry_after_s=1)

    arriving.send(arriving.series())
    container = arriving.container
    late = replace(arriving, container=replace(container, jobs=Overtaken(container.database)))
    late.wait()
    assert arriving.states() == {"2": ("receiving", None)}
    arriving.complete()
    assert len(arriving.jobs()) == 1


def test_a_study_that_cannot_be_used_does_not_stop_the_next(arriving: Any, tmp_path: Path) -> None:
    dataset = dcmread(arriving.series(2, study=1)[0])
    dataset.PixelData = b"\0\0"
    dataset.save_as(tmp_path / "broken.dcm", enforce_file_format=True)
    arriving.send([tmp_path / "broken.dcm"])
    arriving.send(arriving.series(2, study=2))
    arriving.wait()
    assert [one.code for one in arriving.arrivals()] == ["truncated_pixel_data", None]
    assert len(arriving.jobs()) == 1


def test_a_model_that_is_not_installed_is_told(arriving: Any) -> None:
    rule = arriving.container.site.rules[1]
    then = rule.then.model_copy(update={"model": "no-such"})
    site = Site(rules=(rule.model_copy(update={"then": then}),))
    lost = replace(arriving, container=replace(arriving.container, site=site))
    lost.send(arriving.series())
    lost.wait()
    assert arriving.states() == {"2": ("failed", "unknown_model")}


def test_many_sweeps_make_one_job_of_each_study(arriving: Any) -> None:
    for study in range(4):
        arriving.send(arriving.series(2, study=study, seed=study))
    arriving.wait()
    sweeps = [threading.Thread(target=arriving.complete) for _ in range(4)]
    for one in sweeps:
        one.start()
    for one in sweeps:
        one.join()
    assert len(arriving.jobs()) == 4
    assert {one.state for one in arriving.arrivals()} == {ArrivalState.SUBMITTED}


def test_a_ledger_that_is_away_for_a_moment_fails_no_series(arriving: Any) -> None:
    """The connection is lost as the job is written down; the next statement works again."""

    class Away(JobStore):
        def create(self, *_: object, **__: object) -> tuple[Job, bool]:
            raise OperationalError("INSERT", {}, Exception("the server closed the connection"))

    arriving.send(arriving.series())
    container = arriving.container
    away = replace(arriving, container=replace(container, jobs=Away(container.database)))
    away.wait()
    assert arriving.states() == {"2": ("receiving", None)}
    arriving.with_settings(heartbeat_timeout_s=0.1).wait()
    assert len(arriving.jobs()) == 1


def test_a_restart_gives_the_sender_time_to_come_again(arriving: Any) -> None:
    patient = arriving.with_settings(quiet_s=1.5)
    patient.send(arriving.series())
    time.sleep(1.6)
    arrive.resume(patient.container)
    patient.complete()
    assert arriving.jobs() == []
    time.sleep(1.6)
    patient.complete()
    assert len(arriving.jobs()) == 1


def test_retention_forgets_arrivals_with_their_files(arriving: Any) -> None:
    arriving.send(arriving.series(slices=2))
    arriving.wait()
    arrive.tidy(arriving.container)
    assert (len(arriving.arrivals()), arriving.stored()) == (1, 2)
    full = arriving.with_settings(purge_free_bytes=2**60)
    arrive.tidy(full.container)
    assert (len(arriving.arrivals()), arriving.stored()) == (1, 0)
    arrive.tidy(arriving.with_settings(retention_days=1e-9).container)
    assert arriving.arrivals() == []


def test_files_that_no_row_knows_go(arriving: Any) -> None:
    root = arriving.container.settings.arrivals_dir
    left = root / "0198f1d2-c0de-7a41-b6f0-a2c4e8d01357"
    left.mkdir(parents=True)
    (left / "a.dcm").write_bytes(b"x")
    (root / "incoming" / "half").mkdir(parents=True)
    arrive.tidy(arriving.container)
    assert not left.exists()
    assert (root / "incoming" / "half").exists()  # it may still be in use


def test_the_sweep_completes_studies(arriving: Any) -> None:
    arriving.send(arriving.series())
    sweep.run_once(arriving.container)
    arriving.wait()
    sweep.run_once(arriving.container)
    assert len(arriving.jobs()) == 1
    registry = arriving.container.metrics.registry
    labels = {"origin": "dimse", "state": "submitted"}
    assert registry.get_sample_value("aqcf_arrivals_total", labels) == 1
