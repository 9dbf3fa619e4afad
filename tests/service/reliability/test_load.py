"""A hospital's peak hour, replayed faster than real time: gateway, worker and listener as processes
over PostgreSQL and Redis, a PACS that gets every result, and a model that costs next to nothing."""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import yaml
from load import Clients, Done, Planned, Requests, Room, Sample, Watch, Way, asking, summary, thirds
from load_studies import CT, MR, Shape, Template
from roles import Deployment
from servers import OrthancServer, RedisServer, free_port, wait_until

from model.spec import load_model_folder
from service.admission import expected
from service.cases import Grid

MIB, GIB = 1024**2, 1024**3
HOUR_S = 3600.0
MORE_FILES = 18  # ten of them connections with the ledger
WAYS: tuple[Way, ...] = ("zip", "store", "multipart", "store")
STUB = "threshold by a 1x1x1 convolution at 2 mm (the tests' model tiny), ONNX Runtime, 1 thread"


@dataclass(frozen=True)
class Plan:
    """``hour_s``: what the hour is compressed to. ``look_s``: between two looks at the processes,
    ``poll_s``: at a job. ``growth``: bytes by which gateway and listener may grow from the second
    third to the last, and half of what they may grow in all. ``room``: bytes of the studies under
    way, twice, as clients and service each have them."""

    ct: Shape
    mr: tuple[Shape, ...]
    counts: tuple[int, int]
    hour_s: float
    quiet_s: float
    look_s: float
    poll_s: float
    growth: int
    workers: int = 2
    room: int = 3 * GIB
    queue_limit: int = 6


QUICK = Plan(
    ct=replace(CT, slices=40, spacing=(5.0, 0.75)),
    mr=(replace(MR[0], slices=24, side=128, spacing=(6.0, 3.0)),),
    counts=(8, 6),
    hour_s=7.0,
    quiet_s=1.0,
    look_s=0.1,
    poll_s=0.4,
    growth=16 * MIB,
    queue_limit=2,
)
FULL = Plan(CT, MR, (30, 25), hour_s=360.0, quiet_s=3.0, look_s=1.0, poll_s=1.0, growth=64 * MIB)


@pytest.fixture(scope="module")
def plan(full: bool) -> Plan:
    return FULL if full else QUICK


@pytest.fixture
def deployment(
    plan: Plan,
    tmp_path: Path,
    broker: RedisServer,
    postgres_url: str,
    orthanc: OrthancServer,
    models_dir: Path,
) -> Iterator[Deployment]:
    """One of each role."""
    site = tmp_path / "site.yaml"
    site.write_text(yaml.safe_dump(_site(orthanc)))
    environment = {
        "AQCF_STATE_DIR": str(tmp_path / "state"),
        "AQCF_MODELS_DIR": str(models_dir),
        "AQCF_REDIS_URL": broker.url,
        "AQCF_DATABASE_URL": postgres_url,
        "AQCF_SITE_FILE": str(site),
        "AQCF_LISTEN_PORT": str(free_port()),
        "AQCF_QUIET_S": str(plan.quiet_s),
        "AQCF_WORKERS": str(plan.workers),
        "AQCF_QUEUE_LIMIT": str(plan.queue_limit),
        "AQCF_RETRY_AFTER_S": "1",
        "AQCF_HEARTBEAT_TIMEOUT_S": "60",
        "AQCF_STALE_QUEUED_S": "5",
        "AQCF_SWEEP_S": "1",
    }
    made = Deployment(tmp_path, environment)
    try:
        made.gateway()
        listener = made.start("listen")
        made.workers(1)
        wait_until(lambda: listener.says("listening as"), "the listener does not listen", 60)
        yield made
    finally:
        made.close()


def _site(orthanc: OrthancServer) -> Mapping[str, Any]:
    """Every CT and MR is segmented, and the results go to the archive."""
    node = orthanc.node().model_dump(mode="json", exclude_none=True)
    rules = [
        {"name": kind, "when": {"modality": kind}, "then": {"destinations": ["archive"]}}
        for kind in ("ct", "mr")
    ]
    return {
        "nodes": {"pacs": node},
        "destinations": {"archive": {"node": "pacs", "by": "dimse"}},
        "rules": rules,
    }


def schedule(plan: Plan) -> list[Planned]:
    """Kinds and ways take turns; the times are random, as patients come."""
    chance = random.Random(4)  # noqa: S311
    ct, mr = Template(plan.ct), [Template(shape) for shape in plan.mr]
    kinds = [(i / plan.counts[0], "ct") for i in range(plan.counts[0])]
    kinds += [((i + 0.5) / plan.counts[1], "mr") for i in range(plan.counts[1])]
    times = sorted(chance.uniform(0, plan.hour_s) for _ in kinds)
    turns = {"ct": 0, "mr": 0}
    planned = []
    for number, (at, (_, kind)) in enumerate(zip(times, sorted(kinds), strict=True), start=1):
        turn = turns[kind]
        turns[kind] += 1
        template = ct if kind == "ct" else mr[turn % len(mr)]
        planned.append(Planned(template.study(number), WAYS[turn % len(WAYS)], at))
    return planned


def test_a_peak_hour(
    plan: Plan,
    deployment: Deployment,
    orthanc: OrthancServer,
    models_dir: Path,
    tmp_path: Path,
    record: Callable[[str, dict[str, Any]], None],
) -> None:
    """Every study ends as results in the archive, nothing is refused for good, and no process gets
    larger the longer it goes on."""
    planned = schedule(plan)
    (tmp_path / "sent").mkdir()
    requests = Requests(deployment.url)
    clients = Clients(
        requests=requests,
        listen_port=int(deployment.environment["AQCF_LISTEN_PORT"]),
        archive=orthanc,
        destination="archive",
        folder=tmp_path / "sent",
        room=Room(plan.room),
        poll_s=plan.poll_s,
    )
    watch = Watch({role.kind: role.pid for role in deployment.living()}, tmp_path, plan.look_s)
    rest = watch.now()
    with watch, asking(requests, plan.look_s):
        start = time.monotonic()
        with ThreadPoolExecutor(len(planned)) as pool:
            done = list(pool.map(lambda one: clients.run(one, start), planned))
        wall_s = time.monotonic() - start
    requests.close()
    left = [problem for problem in map(_problem, done) if problem]
    record("load", figures(plan, done, requests, watch, wall_s))
    assert not left
    assert len({one.job["id"] for one in done}) == len(planned)
    assert set(requests.statuses) <= {200, 202, 204, 429}
    assert requests.statuses[204] == len(planned)
    assert not _complaints(deployment)
    assert orthanc.count("studies") == 0
    assert max(watch.folder_bytes) < plan.room + GIB  # the archive is on the same disk
    wait_until(lambda: _is_empty(tmp_path / "state"), "files of deleted segmentations", 30)
    wait_until(lambda: _more_files(rest, watch.now()) < MORE_FILES, "open files", 30)
    most = worker_bound(plan, models_dir)
    growths = {name: _growth(samples) for name, samples in watch.samples.items()}
    assert growths.pop("worker") < most / 4
    assert max(growths.values()) < plan.growth, growths
    peaks = {name: max(one.rss for one in samples) for name, samples in watch.samples.items()}
    assert peaks.pop("worker") < most
    assert all(peak - rest[name].rss < 2 * plan.growth for name, peak in peaks.items()), peaks


def _problem(done: Done) -> str:
    return done.problem and f"{done.planned.way} {done.planned.study.number}: {done.problem}"


def _complaints(deployment: Deployment) -> list[str]:
    """What went wrong by the logs."""
    lines = [line for role in deployment.roles for line in role.log.read_text().splitlines()]
    return [line for line in lines if '"level": "error"' in line or "Traceback" in line]


def _is_empty(state: Path) -> bool:
    return {file.name for file in state.rglob("*") if file.is_file()} <= {"lock"}


def _growth(samples: Sequence[Sample]) -> float:
    """Bytes between the medians of the second and the last third."""
    _, middle, last = (median(one.rss for one in part) for part in thirds(samples))
    return last - middle


def _more_files(before: Mapping[str, Sample], now: Mapping[str, Sample]) -> int:
    """That any process has open. Pools of connections stay open."""
    return max(now[name].files - one.files for name, one in before.items())


def worker_bound(plan: Plan, models_dir: Path) -> int:
    """What the service itself predicts for its largest study, times the jobs at a time."""
    (between, pixel), shape = plan.ct.spacing, plan.ct.volume
    grid = Grid(shape, np.diag([pixel, pixel, between, 1.0]), 2)
    spec = load_model_folder(models_dir / "tiny").spec
    return plan.workers * expected(grid, spec, "ct", "balanced").bytes


def figures(
    plan: Plan, done: Sequence[Done], requests: Requests, watch: Watch, wall_s: float
) -> dict[str, Any]:
    """Seconds, but for what is named otherwise."""
    posted = [one for one in done if one.planned.way != "store"]
    stored = [one for one in done if one.planned.way == "store"]
    total = sum(one.planned.study.bytes for one in done)
    return {
        "engine": STUB,
        "studies": _studies(plan),
        "hour_compressed_to_s": plan.hour_s,
        "wall_s": round(wall_s, 1),
        "hours_of_load_per_hour": round(HOUR_S / wall_s, 1),
        "gigabytes": round(total / 1e9, 2),
        "megabytes_per_s": round(total / 1e6 / wall_s, 1),
        "late_s": summary([one.late_s for one in done]),
        "post_s": {
            kind: summary([one.upload_s + one.answer_s for one in group])
            for kind, group in _groups(posted).items()
        },
        "post_answer_s": {
            kind: summary([one.answer_s for one in group])
            for kind, group in _groups(posted).items()
        },
        "post_megabytes_per_s": summary(
            [one.planned.study.bytes / 1e6 / one.upload_s for one in posted if one.upload_s]
        ),
        "store_ms_per_instance": summary(
            [1000 * one.upload_s / one.planned.study.shape.slices for one in stored]
        ),
        "last_image_to_finished_s": {
            way: summary([one.finish_s for one in done if one.planned.way == way])
            for way in dict.fromkeys(WAYS)
        },
        "quiet_s": plan.quiet_s,
        "last_image_to_delivered_s": summary([one.delivered_s for one in done]),
        "stages_s": {kind: _stages(group) for kind, group in _groups(done).items()},
        "get_s": {name: summary(found, 4) for name, found in sorted(requests.seconds.items())},
        "statuses": {str(status): count for status, count in sorted(requests.statuses.items())},
        "refused_with_429": sum(len(one.refusals) for one in done),
        "peak_disk_gigabytes": round(max(watch.folder_bytes) / 1e9, 2),
        "processes_mib": {name: _memory(samples) for name, samples in watch.samples.items()},
    }


def _groups(done: Sequence[Done]) -> dict[str, list[Done]]:
    kinds = ("ct", "mr")
    return {
        kind: [one for one in done if one.planned.study.shape.modality == kind] for kind in kinds
    }


def _studies(plan: Plan) -> dict[str, Any]:
    return {
        kind: {"count": count, "slices": [shape.slices for shape in shapes], "side": shapes[0].side}
        for kind, count, shapes in zip(
            ("ct", "mr"), plan.counts, ((plan.ct,), plan.mr), strict=True
        )
    }


def _stages(done: Sequence[Done]) -> dict[str, Any]:
    names = dict.fromkeys(name for one in done for name in one.job.get("seconds", {}))
    return {name: summary([one.job["seconds"][name] for one in done if one.job]) for name in names}


def _memory(samples: Sequence[Sample]) -> dict[str, Any]:
    parts = thirds(samples)
    every = max(1, len(samples) // 60)
    return {
        "at_rest": samples[0].rss // MIB,
        "peak": max(one.rss for one in samples) // MIB,
        "at_end": samples[-1].rss // MIB,
        "median_of_thirds": str([int(median(one.rss for one in part)) // MIB for part in parts]),
        "over_time": " ".join(str(one.rss // MIB) for one in samples[::every]),
        "open_files_of_thirds": str([max(one.files for one in part) for part in parts]),
        "cpu_s": round(samples[-1].cpu_s - samples[0].cpu_s, 1),
    }
