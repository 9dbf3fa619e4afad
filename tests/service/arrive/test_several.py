"""Several processes, on this host and on others, that look at the same arrivals."""

import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service import arrive
from service.arrive import Reception
from service.domain import ArrivalState, Job, Origin
from service.storage.jobs import JobStore

RECEIVING = ArrivalState.RECEIVING


def test_an_evaluation_that_died_is_taken_over(arriving: Any) -> None:
    arriving.send(arriving.series())
    store = arriving.container.arrivals
    assert store.close(store.of_study("1.2.3.1", abandoned_s=60))
    arriving.wait()
    assert arriving.jobs() == []
    arriving.with_settings(heartbeat_timeout_s=0.1).wait()
    assert len(arriving.jobs()) == 1


def test_files_that_lie_on_another_host_are_left_to_it(arriving: Any, tmp_path: Path) -> None:
    arriving.send(arriving.series())
    elsewhere = arriving.with_settings(state_dir=tmp_path / "elsewhere")
    elsewhere.wait()
    assert arriving.arrivals()[0].state is ArrivalState.RECEIVING
    arriving.complete()
    assert len(arriving.jobs()) == 1


def test_files_that_were_lost_are_taken_again(arriving: Any) -> None:
    """They might lie on another host: the series waits for whoever has them."""
    arriving.send(arriving.series())
    shutil.rmtree(arriving.container.settings.arrivals_dir)
    arriving.wait()
    assert arriving.states() == {"2": ("receiving", None)}
    arriving.send(arriving.series())
    arriving.wait()
    assert arriving.states() == {"2": ("submitted", None)}


def test_the_first_instance_is_known_to_other_hosts_at_once(arriving: Any, tmp_path: Path) -> None:
    """Its listener is killed right after the answer; another host does not have the file."""
    arriving = arriving.with_settings(quiet_s=1.0)
    killed = Reception(arriving.container, Origin.DIMSE, "X")
    killed.take(arriving.series()[0])
    time.sleep(1.0)
    arriving.with_settings(state_dir=tmp_path / "elsewhere").complete()
    arrive.tidy(arriving.container)
    assert (len(arriving.arrivals()), arriving.stored()) == (1, 1)


def test_an_arrival_without_instances_goes(arriving: Any) -> None:
    files = arriving.series()
    with Reception(arriving.container, Origin.DIMSE, "X") as reception:
        reception.take(files[0])
    arriving.container.arrivals.add(arriving.arrivals()[0].id, -1)
    reception.files.drop(arriving.arrivals()[0].id)
    arriving.wait()
    assert arriving.arrivals() == []


def test_an_evaluation_that_takes_long_holds_all_that_it_has_closed(arriving: Any) -> None:
    """Or another would begin the same in the middle of it, and find the files of series gone."""
    seen: list[bool] = []
    before = datetime.now(UTC)

    class Slow(JobStore):
        def create(self, *arguments: Any, **more: Any) -> tuple[Job, bool]:
            nonlocal before
            seen.append(all(one.last_at >= before for one in arriving.arrivals(RECEIVING)))
            before = datetime.now(UTC)
            return super().create(*arguments, **more)

    for number in (2, 3, 4):
        arriving.send(arriving.series(number, modality="MR", seed=number))
    container = arriving.container
    before = datetime.now(UTC)
    replace(arriving, container=replace(container, jobs=Slow(container.database))).wait()
    assert seen == [True, True, True]
