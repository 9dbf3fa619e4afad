"""Everything breaks again and again while images come in, and every accepted series has one result.

Figures are of the size that ``--full`` asks for. ``AQCF_CHAOS_SEED`` chooses other moments.
"""

import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from chaos import Fault, Slot, Storm, Tally, answers, each_in_a_thread, plan
from chaos_pacs import Held, held_by
from chaos_senders import Client, Modality, Reader, Series, make_series, spread
from disk import MIB, SmallDisk, can_mount, small_disk
from roles import Deployment
from servers import OrthancServer, PostgresServer, RedisServer, free_port, wait_until

from service.domain import Arrival, Delivery, DeliveryState, Job, Status
from service.storage.arrivals import ArrivalStore
from service.storage.database import open_database, patiently
from service.storage.deliveries import DeliveryStore
from service.storage.jobs import JobStore

SEED = int(os.environ.get("AQCF_CHAOS_SEED", "1"))
LANES = 2  # of each kind of sender
WORKERS = 2
SHAPE = (24, 64, 64)
LOOK_S = 0.25
LATER_S = 60.0
EXPECTED = re.compile(
    r"(POST|GET) (200|202|503 \w+|507 storage_full|not answered.*)"
    r"|C-STORE (0000|A700|broken off)|association not made"
)
SITE = """
nodes:
  pacs:
    dimse: {{host: 127.0.0.1, port: {dicom_port}, ae_title: {ae_title}}}
    dicomweb: {{url: "{url}", username: {username}, password_file: "{password_file}"}}
archive: pacs
destinations:
  by-dimse: {{node: pacs, by: dimse, confirm: qido}}
  by-web: {{node: pacs, by: dicomweb, confirm: qido, profile: no-report}}
profiles:
  no-report: {{sr: false}}
rules:
  - {{name: all, then: {{destinations: [by-dimse], profile: paper}}}}
"""


@dataclass(frozen=True)
class Size:
    """``blows``: at least, at most; ``gap_s``: between two; ``pause_s``: between two series of a
    sender; ``settle_s``: in which all has to have ended after the last blow."""

    series: int
    blows: tuple[int, int]
    gap_s: tuple[float, float]
    pause_s: float
    settle_s: float


QUICK = Size(series=10, blows=(12, 12), gap_s=(0.2, 1.2), pause_s=1.5, settle_s=90)
FULL = Size(series=100, blows=(96, 144), gap_s=(0.5, 3.5), pause_s=5.0, settle_s=180)


@dataclass(frozen=True)
class Hospital:
    """A whole deployment with its PACS."""

    deployment: Deployment
    slots: dict[str, Slot]
    redis: RedisServer
    postgres: PostgresServer
    orthanc: OrthancServer
    disk: SmallDisk | None

    def faults(self) -> list[Fault]:
        roles = [slot.fault(name) for name, slot in self.slots.items()]
        return [*roles, *self._stores(), *self._disks()]

    def _stores(self) -> Iterator[Fault]:
        redis, postgres, orthanc = self.redis, self.postgres, self.orthanc
        sits = partial(bool, 1)
        yield Fault("orthanc killed", "orthanc", orthanc.kill, orthanc.start, sits)
        yield Fault("redis killed", "redis", redis.kill, redis.start, sits)
        yield Fault("redis flushed", "redis", redis.flush, lambda: None, sits, longest_s=0)
        for how, name in ((signal.SIGINT, "stopped"), (signal.SIGQUIT, "ended at once")):
            stop = partial(postgres.stop, how)
            yield Fault(f"postgres {name}", "postgres", stop, postgres.start, sits)
        yield Fault(
            "postgres crashed", "postgres", postgres.crash, lambda: None, postgres.answers,
            longest_s=0,
        )  # fmt: skip

    def _disks(self) -> Iterator[Fault]:
        disk = self.disk
        if disk is None:
            return
        for left, name in ((0, "full"), (4 * MIB, "nearly full")):
            fill = partial(disk.fill, left)
            yield Fault(
                f"disk {name}", "disk", fill, disk.free, partial(bool, 1), hold=fill, longest_s=3
            )


@contextmanager
def hospital(folder: Path, models_dir: Path) -> Iterator[Hospital]:
    """Running and ready; ended and gone afterwards."""
    with ExitStack() as stack:
        disk = stack.enter_context(
            small_disk(folder / "disk") if can_mount() else nullcontext(None)
        )
        redis, postgres = RedisServer(folder / "redis"), PostgresServer()
        orthanc = OrthancServer(folder / "orthanc")
        stack.callback(redis.kill)
        stack.callback(postgres.close)
        stack.callback(orthanc.kill)
        for server in (redis, postgres, orthanc):
            server.start()
        environment = {
            "AQCF_STATE_DIR": str(folder / "disk" / "state"),
            "AQCF_MODELS_DIR": str(models_dir),
            "AQCF_REDIS_URL": redis.url,
            "AQCF_DATABASE_URL": postgres.new_database(),
            "AQCF_SITE_FILE": str(_site_file(folder, orthanc)),
            "AQCF_LISTEN_PORT": str(free_port()),
            "AQCF_QUEUE_LIMIT": "200",
            "AQCF_MIN_FREE_BYTES": str(8 * MIB),
            "AQCF_MAX_DEATHS": "50",  # here no job is to blame for a death
        }
        deployment = Deployment(folder, environment)
        stack.callback(deployment.close)
        yield Hospital(deployment, _started(deployment), redis, postgres, orthanc, disk)


def _started(deployment: Deployment) -> dict[str, Slot]:
    slots = {
        "gateway": Slot(deployment, "listening on", "gateway", "--port", str(deployment.port)),
        "listener": Slot(deployment, "listening as", "listen"),
        **{f"worker {n}": Slot(deployment, "ready as", "worker") for n in range(WORKERS)},
    }
    for slot in slots.values():
        slot.start()
    for name, slot in slots.items():
        wait_until(slot.well, f"{name} is not ready", 90)
    wait_until(partial(answers, deployment.url), "the gateway does not answer")
    return slots


def _site_file(folder: Path, orthanc: OrthancServer) -> Path:
    path = folder / "site.yaml"
    text = SITE.format(
        dicom_port=orthanc.dicom_port, ae_title=orthanc.ae_title, url=orthanc.dicomweb_url,
        username=orthanc.username, password_file=orthanc.password_file,
    )  # fmt: skip
    path.write_text(text)
    return path


class Traffic:
    """All senders; ``posted``: job ids by number of the series."""

    def __init__(self, place: Hospital, pause_s: float) -> None:
        self.told = Tally()
        self.posted: dict[int, str] = {}
        self.stored: set[int] = set()
        self._pause_s = pause_s
        url = place.deployment.url
        self._client = Client(url, {"destination": "by-web", "profile": "paper"}, self.told)
        self._reader = Reader(url, self.told)
        port = int(place.deployment.environment["AQCF_LISTEN_PORT"])
        self._modality = Modality(port, self.told)

    def works(self, by_web: list[Series], by_dimse: list[Series]) -> list[Callable[[], None]]:
        posts = [partial(self._post, each) for each in spread(by_web, LANES)]
        return [*posts, *(partial(self._store, each) for each in spread(by_dimse, LANES))]

    def look(self, done: threading.Event) -> None:
        while not done.wait(LOOK_S):
            self._reader.look()

    def _post(self, series: list[Series]) -> None:
        for count, one in enumerate(series):
            self.posted[one.number] = self._client.post(one, impatient=count % 4 == 1)
            time.sleep(self._pause_s)

    def _store(self, series: list[Series]) -> None:
        for count, one in enumerate(series):
            self._modality.send(one, breaks_off=count % 4 == 1)
            self.stored.add(one.number)
            time.sleep(self._pause_s)


@dataclass(frozen=True)
class Ledger:
    """What the database says, also while it is away for a moment."""

    jobs: tuple[Job, ...]
    deliveries: tuple[Delivery, ...]
    arrivals: tuple[Arrival, ...]

    @property
    def settled(self) -> bool:
        open_jobs = [job for job in self.jobs if not job.status.finished]
        open_deliveries = [one for one in self.deliveries if not one.state.finished]
        open_arrivals = [one for one in self.arrivals if one.state == "receiving"]
        return not (open_jobs or open_deliveries or open_arrivals)

    def summary(self) -> dict[str, int]:
        words = [f"job {one.status}" for one in self.jobs]
        words += [f"delivery {one.state}" for one in self.deliveries]
        words += [f"arrival {one.state} {one.code or ''}".strip() for one in self.arrivals]
        return dict(sorted(Counter(words).items()))


def read_ledger(url: str) -> Ledger:
    with closing(open_database(url)) as database:
        jobs, arrivals = JobStore(database), ArrivalStore(database)
        deliveries = DeliveryStore(database)

        def read() -> Ledger:
            return Ledger(
                jobs.page(limit=500).jobs,
                deliveries.listed(limit=1000),
                arrivals.page(limit=500).arrivals,
            )

        return patiently(read, LATER_S)


def settle(url: str, expected: int, seconds: float) -> Ledger:
    """The ledger when everything in it has ended, and all that was sent is in it."""
    end = time.monotonic() + seconds
    while True:
        ledger = read_ledger(url)
        if ledger.settled and len(ledger.jobs) >= expected:
            return ledger
        if time.monotonic() > end:
            pytest.fail(f"after {seconds:g} s: {ledger.summary()}")
        time.sleep(1.0)


def expected_in_pacs(by_web: list[Series], by_dimse: list[Series]) -> Counter[Held]:
    """Of each series its images, one SEG of one instance that refers to it, and one SR where the
    destination's profile has one."""
    found: Counter[Held] = Counter()
    for one in (*by_web, *by_dimse):
        found[Held(one.study_uid, one.modality, len(one.files), "")] += 1
        found[Held(one.study_uid, "SEG", 1, one.series_uid)] += 1
    for one in by_dimse:
        found[Held(one.study_uid, "SR", 1, "")] += 1
    return found


def progress(storm: Storm, traffic: Traffic, done: threading.Event) -> None:
    start = time.monotonic()
    while not done.wait(10.0):
        blows = sum(len(each) for each in storm.recovery_s.values())
        taken = len(traffic.posted) + len(traffic.stored)
        seconds = time.monotonic() - start
        print(f"  {seconds:4.0f} s: {blows} blows, {taken} series taken", flush=True)


def test_every_accepted_series_has_one_result_whatever_breaks(
    full: bool,
    record: Callable[[str, dict[str, Any]], None],
    tmp_path: Path,
    models_dir: Path,
    made: Any,
) -> None:
    size, start = FULL if full else QUICK, time.monotonic()
    print(f"\nseed {SEED}", flush=True)
    series = [make_series(made, tmp_path / "sent", n, SHAPE) for n in range(size.series)]
    half = size.series // 2
    by_web, by_dimse = series[:half], series[half:]
    with hospital(tmp_path, models_dir) as place:
        place.orthanc.load(file for one in series for file in one.files)
        url = place.deployment.environment["AQCF_DATABASE_URL"]
        traffic = Traffic(place, size.pause_s)
        storm = Storm(plan(place.faults(), SEED, size.gap_s), *size.blows)
        begun = time.monotonic()
        done = threading.Event()
        watching, _ = each_in_a_thread(
            [partial(traffic.look, done), partial(progress, storm, traffic, done)]
        )
        senders, problems = each_in_a_thread(traffic.works(by_web, by_dimse))
        storm.run(lambda: any(thread.is_alive() for thread in senders))
        calm = time.monotonic()
        for thread in senders:
            thread.join()
        ledger = settle(url, size.series, size.settle_s)
        ended = time.monotonic()
        done.set()
        for thread in watching:
            thread.join()
        held = held_by(place.orthanc)
        staging = tmp_path / "disk" / "state" / "staging"
        wait_until(lambda: not list(staging.iterdir()), "images are left in staging", 30)
    figures = _figures(storm, traffic, ledger, held, expected_in_pacs(by_web, by_dimse))
    record("chaos", {
        "seed": SEED,
        "seconds": round(time.monotonic() - start, 1),
        "seconds_of_chaos": round(calm - begun, 1),
        "seconds_from_the_last_blow_to_the_last_delivery": round(ended - calm, 1),
        **figures,
    })  # fmt: skip
    assert storm.problems == []
    assert problems == []
    assert traffic.posted.keys() == {one.number for one in by_web}
    assert traffic.stored == {one.number for one in by_dimse}
    _check_ledger(ledger, traffic, size.series)
    assert held == expected_in_pacs(by_web, by_dimse)
    assert [word for word in traffic.told.counts() if not EXPECTED.fullmatch(word)] == []


def _check_ledger(ledger: Ledger, traffic: Traffic, series: int) -> None:
    assert [job.error for job in ledger.jobs if job.status is not Status.SUCCEEDED] == []
    assert len(ledger.jobs) == series
    assert {job.id for job in ledger.jobs} >= set(traffic.posted.values())
    assert len(set(traffic.posted.values())) == len(traffic.posted)
    states = Counter(one.state for one in ledger.deliveries)
    assert states == {DeliveryState.DELIVERED: series}


def _figures(
    storm: Storm, traffic: Traffic, ledger: Ledger, held: Counter[Held], wanted: Counter[Held]
) -> dict[str, Any]:
    return {
        "series_accepted": len(traffic.posted) + len(traffic.stored),
        "blows": {kind: len(each) for kind, each in sorted(storm.recovery_s.items())},
        "longest_seconds_to_recovery": {
            kind: round(max(each), 1) for kind, each in sorted(storm.recovery_s.items())
        },
        "senders_were_told": traffic.told.counts(),
        "jobs": len(ledger.jobs),
        "jobs_run_again": sum(job.attempts > 1 for job in ledger.jobs),
        "attempts_of_jobs": sum(job.attempts for job in ledger.jobs),
        "deaths_of_workers_on_jobs": sum(job.deaths for job in ledger.jobs),
        "attempts_of_deliveries": sum(one.attempts for one in ledger.deliveries),
        "ledger": ledger.summary(),
        "lost": sum((wanted - held).values()),
        "duplicates": sum((held - wanted).values()),
    }
