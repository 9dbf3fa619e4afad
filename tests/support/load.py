"""Clients that send studies to a deployment at given times, and a look at its processes."""

import os
import shutil
import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Literal

import httpx
import psutil
from load_studies import Body, Study
from servers import OrthancServer, wait_until

Way = Literal["zip", "multipart", "store"]

STORESCU = "/usr/bin/storescu"
PATIENCE_S = 600.0  # for one study, whatever waits before it
API = "/v1/segmentations"


@dataclass(frozen=True)
class Planned:
    """``at``: seconds after the start."""

    study: Study
    way: Way
    at: float


@dataclass
class Done:
    """One study's way, in seconds. ``upload_s``: until the last byte left; ``answer_s``: from then
    to the 202; ``finish_s``: from the last image to the finished job; ``late_s``: behind its time;
    ``refusals``: the ``Retry-After`` of each 429."""

    planned: Planned
    late_s: float = 0.0
    upload_s: float = 0.0
    answer_s: float = 0.0
    finish_s: float = 0.0
    delivered_s: float = 0.0
    refusals: list[int] = field(default_factory=list)
    job: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


class Room:
    """Bytes of studies that may be under way at the same time: the disk is not endless."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._changed = threading.Condition()

    @contextmanager
    def of(self, size: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._left >= size)
            self._left -= size
        try:
            yield
        finally:
            with self._changed:
                self._left += size
                self._changed.notify_all()


class Requests:
    """An HTTP client of all threads that remembers how long answers took, and their statuses."""

    def __init__(self, url: str) -> None:
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self.statuses: Counter[int] = Counter()
        self._http = httpx.Client(base_url=url, timeout=PATIENCE_S, limits=httpx.Limits())
        self._lock = threading.Lock()

    def get(self, name: str, path: str, **params: str) -> Any:
        """Its JSON; counted under ``name``. Raises for an error."""
        start = time.perf_counter()
        answer = self._http.get(path, params=params)
        self.seconds[name].append(time.perf_counter() - start)
        return self._counted(answer).raise_for_status().json()

    def post(self, body: "_Clocked", **params: str) -> httpx.Response:
        return self._counted(
            self._http.post(API, params=params, content=iter(body), headers=body.headers)
        )

    def delete(self, path: str) -> None:
        self._counted(self._http.delete(path)).raise_for_status()

    def close(self) -> None:
        self._http.close()

    def _counted(self, answer: httpx.Response) -> httpx.Response:
        with self._lock:
            self.statuses[answer.status_code] += 1
        return answer


class _Clocked:
    """A body that knows when its last byte was taken."""

    def __init__(self, body: Body) -> None:
        self.headers = body.headers
        self._parts = body.parts
        self.ended_at = 0.0

    def __iter__(self) -> Iterator[bytes]:
        yield from self._parts()
        self.ended_at = time.time()


@dataclass(frozen=True)
class Clients:
    """Send studies, follow each to its end, look whether the archive has its results, and delete
    it in both places."""

    requests: Requests
    listen_port: int
    archive: OrthancServer
    destination: str
    folder: Path
    room: Room
    poll_s: float

    def run(self, planned: Planned, start: float) -> Done:
        """``start``: the monotonic time of the schedule's beginning. Never raises."""
        done = Done(planned)
        time.sleep(max(0.0, start + planned.at - time.monotonic()))
        try:
            with self.room.of(2 * planned.study.bytes):
                done.late_s = time.monotonic() - start - planned.at
                sent_at = self._send(done)
                self._follow(done, sent_at)
        except Exception as error:
            done.problem = f"{type(error).__name__}: {error}"
        return done

    def _send(self, done: Done) -> float:
        """When its last image was sent."""
        if done.planned.way == "store":
            return self._store(done)
        return self._post(done)

    def _post(self, done: Done) -> float:
        """A 429 is obeyed, however often it comes."""
        study = done.planned.study
        while True:
            body = _Clocked(study.zip() if done.planned.way == "zip" else study.multipart())
            began = time.time()
            answer = self.requests.post(
                body, modality=study.shape.modality, destination=self.destination
            )
            if answer.status_code != 429:
                break
            done.refusals.append(int(answer.headers["Retry-After"]))
            time.sleep(done.refusals[-1])
        if answer.status_code != 202:
            raise RuntimeError(f"{answer.status_code} {answer.text[:200]}")
        done.job = answer.json()
        done.upload_s, done.answer_s = body.ended_at - began, time.time() - body.ended_at
        return body.ended_at

    def _store(self, done: Done) -> float:
        """dcmtk's storescu, with a title of its own for each study, by which it is found again."""
        title = f"S{done.planned.study.number:04d}"
        folder = self.folder / title
        try:
            files = done.planned.study.write(folder)
            began = time.time()
            self._storescu(title, files)
            ended = time.time()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        done.upload_s = ended - began
        arrival = self._until(lambda: self._arrived(title), "no job of a stored study")
        done.job = {"id": arrival["segmentation"]}
        return ended

    def _storescu(self, title: str, files: Sequence[Path]) -> None:
        where = ["127.0.0.1", str(self.listen_port)]
        subprocess.run(
            [STORESCU, "-R", "-aet", title, "-aec", "AQCF", *where, *files],
            check=True,
            capture_output=True,
            timeout=PATIENCE_S,
            env=os.environ | {"TCP_NODELAY": "1"},
        )

    def _arrived(self, title: str) -> dict[str, Any] | None:
        items = self.requests.get("arrivals", "/v1/arrivals", sender=title)["items"]
        for item in items:
            if item["code"]:
                raise RuntimeError(f"{item['state']}: {item['code']}")
        return next((item for item in items if item["segmentation"]), None)

    def _follow(self, done: Done, sent_at: float) -> None:
        path = f"{API}/{done.job['id']}"
        done.job = self._until(lambda: self._finished(path), "an unfinished job")
        if done.job["status"] != "succeeded":
            raise RuntimeError(f"{done.job['status']}: {done.job.get('error')}")
        done.finish_s = datetime.fromisoformat(done.job["finished_at"]).timestamp() - sent_at
        delivery = self._until(lambda: self._delivered(path), "results that were not delivered")
        done.delivered_s = datetime.fromisoformat(delivery["delivered_at"]).timestamp() - sent_at
        self._forget(done.planned.study)
        self.requests.delete(path)

    def _finished(self, path: str) -> dict[str, Any] | None:
        job: dict[str, Any] = self.requests.get("job", path)
        return job if job["status"] not in ("queued", "running") else None

    def _delivered(self, path: str) -> dict[str, Any] | None:
        items: list[dict[str, Any]] = self.requests.get("deliveries", f"{path}/deliveries")["items"]
        return next((item for item in items if item["delivered_at"]), None)

    def _forget(self, study: Study) -> None:
        """Out of the archive; its disk is the same."""
        with self.archive.http() as http:
            found = http.post("/tools/lookup", content=study.uid).raise_for_status().json()
            if len(found) != 1:
                raise RuntimeError(f"the archive has the study {len(found)} times")
            http.delete(found[0]["Path"]).raise_for_status()

    def _until(self, look: Any, what: str) -> dict[str, Any]:
        """Poll until there is something."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found.append(look())
            if found[-1] is None:
                time.sleep(self.poll_s)
            return found[-1] is not None

        wait_until(there, what, PATIENCE_S)
        return found[-1]


@dataclass(frozen=True)
class Sample:
    """``at``: monotonic seconds. ``files``: how many are open, sockets too."""

    at: float
    rss: int
    files: int
    cpu_s: float


class Watch:
    """Looks at processes and at the size of a folder every so often, until it is left."""

    def __init__(self, pids: Mapping[str, int], folder: Path, every_s: float) -> None:
        self.samples: dict[str, list[Sample]] = {name: [] for name in pids}
        self.folder_bytes: list[int] = []
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._folder, self._every_s = folder, every_s
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()

    def now(self) -> dict[str, Sample]:
        return {name: _sample(process) for name, process in self._processes.items()}

    def _run(self) -> None:
        while True:
            for name, sample in self.now().items():
                self.samples[name].append(sample)
            self.folder_bytes.append(tree_bytes(self._folder))
            if self._left.wait(self._every_s):
                return


def _sample(process: psutil.Process) -> Sample:
    with process.oneshot():
        spent = process.cpu_times()
        rss, files = process.memory_info().rss, process.num_fds()
    return Sample(time.monotonic(), rss, files, spent.user + spent.system)


@contextmanager
def asking(requests: Requests, every_s: float) -> Iterator[None]:
    """Somebody who asks /healthz all the time."""
    left = threading.Event()

    def ask() -> None:
        while not left.wait(every_s):
            requests.get("healthz", "/healthz")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def tree_bytes(folder: Path) -> int:
    """What lies below a folder that others change: hard links count once."""
    sizes: dict[int, int] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.lstat(os.path.join(place, name))  # noqa: PTH118
            except FileNotFoundError:
                continue
            sizes[found.st_ino] = found.st_size
    return sum(sizes.values())


def thirds(samples: Sequence[Sample]) -> list[list[Sample]]:
    """By time."""
    first, last = samples[0].at, samples[-1].at
    each = (last - first) / 3
    parts: list[list[Sample]] = [[], [], []]
    for sample in samples:
        parts[min(2, int((sample.at - first) / each))].append(sample)
    return parts


def summary(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Median, 95th percentile, largest, and how many."""
    if not values:
        return {"count": 0}
    ordered = sorted(values)
    p95 = quantiles(ordered, n=20, method="inclusive")[-1] if len(ordered) > 1 else ordered[0]
    found = {"p50": median(ordered), "p95": p95, "max": ordered[-1]}
    return {name: round(value, digits) for name, value in found.items()} | {"count": len(ordered)}
