"""What looks after a running job: its heartbeat, its progress, its turn at memory and device, its
time."""

import threading
import time
from concurrent.futures import Future, wait
from fractions import Fraction
from types import TracebackType
from typing import Any

from model.errors import CancelledError

from .container import Container
from .domain import Job, Stage
from .errors import TimeLimitError
from .lane import Lane
from .observability import get_logger
from .tracing import Span

log = get_logger("service.watch")

REPORT_EVERY_S = 0.5


class Watch:
    """A context around one running job of this process.

    The job tells of its progress through ``report``, which is also where it is stopped and where
    it waits for the device; for memory it waits in ``take_memory``. Time spent waiting counts for
    no limit. ``span`` gets its stages.
    """

    def __init__(
        self, container: Container, job: Job, claim_id: str, span: Span | None = None
    ) -> None:
        self._container = container
        self._span = span or Span()
        self._job, self._claim_id = job, claim_id
        self._done = threading.Event()
        self._lost = threading.Event()
        self._stage: Stage | None = None
        self._told_at = 0.0
        self._clock = _Clock()
        self._place: Fraction | None = None
        self._ticket: int | None = None
        self._memory: int | None = None
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    @property
    def waited_s(self) -> float:
        """Seconds that the job waited for memory and device so far."""
        return self._clock.waited_s()

    def take_memory(self, share: Fraction, place: Fraction) -> None:
        """Wait until there is room for this share of the memory, beside the other jobs of this
        process, and hold it until ``leave``. ``place``: the share of the device that the job takes
        when its turn comes. Raises as ``report`` does."""
        self._place = place
        self._memory = self._wait_at(self._container.memory, share)

    def report(self, stage: Stage, progress: float) -> None:
        """Enters the lane as inference begins, and leaves it as it ends.

        Raises ``CancelledError`` when the job was cancelled, deleted or taken, when the process
        stops, or when the device is broken; ``TimeLimitError`` after ``job_soft_limit_s``.
        """
        if stage is Stage.INFERENCE and progress < 1.0:
            self._enter_lane()
        else:
            self.leave_lane()
        self._say(stage, progress)

    def leave_lane(self) -> None:
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            self._container.lane.leave(ticket)

    def leave(self) -> None:
        """Leave the device and the memory to others; doing it twice changes nothing."""
        self.leave_lane()
        ticket, self._memory = self._memory, None
        if ticket is not None:
            self._container.memory.leave(ticket)

    def guard(self, work: "Future[Any]") -> bool:
        """Wait for the end of the job; ``False`` when it did not stop within
        ``job_hard_limit_s``."""
        limit_s = self._container.settings.job_hard_limit_s
        while True:
            left_s = limit_s - self._clock.worked_s()
            if wait([work], timeout=max(left_s, 0.0)).done:
                return True
            if self._clock.worked_s() >= limit_s:
                return False

    def abandon(self) -> None:
        """The job's thread is lost: if it ever comes back, it stops at its next report."""
        self._lost.set()
        self.leave()

    def _enter_lane(self) -> None:
        if self._ticket is not None:
            return
        metrics, before = self._container.metrics, self.waited_s
        self._say(Stage.WAIT, 0.0)
        try:
            self._ticket = self._wait_at(self._container.lane, self._place)
        finally:
            metrics.lane_wait_seconds.labels(self._job.priority).observe(self.waited_s - before)

    def _wait_at(self, lane: Lane, share: Fraction | None) -> int:
        self._clock.pause()
        try:
            return lane.enter(self._job.priority, lambda: self._say(Stage.WAIT, 0.0), share)
        finally:
            self._clock.resume()

    def _say(self, stage: Stage, progress: float) -> None:
        now = time.monotonic()
        if stage is not self._stage:
            self._span.stage(stage)
        if stage is not self._stage or now - self._told_at > REPORT_EVERY_S:
            self._stage, self._told_at = stage, now
            if not self._alive(stage, progress):
                self._lost.set()
        if self._lost.is_set() or self._container.queue.stopping():
            raise CancelledError("the job was told to stop")
        limit_s = self._container.settings.job_soft_limit_s
        if self._clock.worked_s() > limit_s:
            raise TimeLimitError(
                f"the job ran for more than {limit_s:g} s in stage {stage.value} and was stopped; "
                "choose a quicker profile or raise AQCF_JOB_SOFT_LIMIT_S"
            )

    def _beat(self) -> None:
        """A heartbeat that cannot be written is tried again: if the ledger is away for long, the
        sweep judges the job by its silence."""
        while not self._done.wait(self._container.settings.heartbeat_s):
            try:
                if not self._alive():
                    self._lost.set()
                    return
            except Exception as error:
                log.error("heartbeat_failed", job_id=self._job.id, exc_info=error)

    def _alive(self, stage: Stage | None = None, progress: float | None = None) -> bool:
        return self._container.jobs.beat(
            self._job.id, self._claim_id, stage=stage, progress=progress
        )


class _Clock:
    """Seconds since it was made, those between ``pause`` and ``resume`` apart."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._waited_s = 0.0
        self._paused_at: float | None = None

    def pause(self) -> None:
        self._paused_at = time.monotonic()

    def resume(self) -> None:
        self._waited_s, self._paused_at = self.waited_s(), None

    def waited_s(self) -> float:
        paused_at = self._paused_at
        return self._waited_s + (time.monotonic() - paused_at if paused_at is not None else 0.0)

    def worked_s(self) -> float:
        return time.monotonic() - self._start - self.waited_s()
