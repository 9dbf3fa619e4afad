"""Fetch studies from a node on request.

A request is a row first, so that a kill at any moment loses none. What is fetched for a given
modality is submitted as an upload is; what is fetched for the rules joins the arrivals, as if it
had been sent here, and is decided on there.
"""

import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from model.errors import AqcfError, InputError

from .arrive import InstanceError, Reception
from .container import Container
from .domain import NewPull, Origin, Pull, PullState, SubmitOptions
from .errors import (
    BusyError,
    LedgerUnavailableError,
    ModelUnavailableError,
    StorageFullError,
    StoreUnavailableError,
)
from .intake import submit
from .observability import get_logger
from .pacs.errors import PacsUnavailableError
from .pacs.find import FoundSeries, find_series, is_uid
from .pacs.incoming import Limits, StoppedError
from .pacs.retrieve import PacsSendsOnlyError, Wanted, move, retrieve
from .registry import profile_of
from .site import Node, possible
from .storage.artifacts import full_disk_told
from .storage.database import UNREACHABLE
from .storage.pulls import MAX_ATTEMPTS
from .uploads import Upload

log = get_logger("service.pull")

DAY_S = 86400.0
BATCH = 20
RENEW_S = 2.0
INTERNAL = "internal_error"
LATER = (
    PacsUnavailableError,
    BusyError,
    StorageFullError,
    StoreUnavailableError,
    ModelUnavailableError,
)
Stopping = Callable[[], bool]


class UnknownNodeError(InputError):
    """The site file knows no node of this name."""

    code = "unknown_node"


class UnknownDestinationError(InputError):
    code = "unknown_destination"


class NothingToPullError(InputError):
    """The node has no such study, or none of its series is of the modality or for the rules."""

    code = "nothing_to_pull"


class _LostError(Exception):
    """Another process has taken the pull over."""


def ask(container: Container, asked: NewPull) -> Pull:
    """Write the request down; ``run_once`` does it. The same unfinished request is one pull.

    Raises ``InputError``: ``unknown_node``, ``unknown_destination``, ``invalid_uid``,
    ``unknown_model``, ``unknown_profile``, ``pull_needs_rules`` (of a node whose images come by
    C-MOVE, to the listener).
    """
    node = _node(container, asked)
    uids = [uid for uid in (asked.study_uid, asked.series_uid) if uid is not None]
    if not all(map(is_uid, uids)):
        raise InputError("no UID: digits and dots, 64 at most", code="invalid_uid")
    if asked.modality is not None:
        if node.retrieve == "move":
            raise InputError("this node sends images only; ask with rules", code="pull_needs_rules")
        folder = container.models.find(asked.model, asked.modality)
        profile_of(folder, asked.profile)
    for name in asked.destinations:
        if name not in container.site.destinations:
            raise UnknownDestinationError(_there_are("destination", container.site.destinations))
    _admit(container)
    pull = container.pulls.create(asked)
    container.audit.record(asked.actor, "pull")
    log.info("pull_asked", pull_id=pull.id)
    return pull


def run_once(container: Container, stopping: Stopping = lambda: False) -> None:
    """Fetch what is due, one after the other, until nothing is or ``stopping`` says so."""
    container.pulls.give_up()
    container.pulls.forget(older_than_s=container.settings.retention_days * DAY_S)
    for _ in range(BATCH):
        pull = None if stopping() else container.pulls.claim(container.worker_id)
        if pull is None:
            return
        run(container, pull, stopping)


def run(container: Container, pull: Pull, stopping: Stopping = lambda: False) -> None:
    """Do a claimed pull, and write down what became of it."""
    start, node = time.perf_counter(), pull.asked.node
    told = {"pull_id": pull.id, "attempts": pull.attempts, "modality": pull.asked.modality}
    with container.tracing.span("pull", None, **told) as span:
        result, code = _try(_Errand(container, pull, stopping))
        span.tell(outcome=result, code=code)
    seconds, metrics = time.perf_counter() - start, container.metrics
    metrics.pull_seconds.labels(node).observe(seconds)
    metrics.pull_attempts.labels(node, result).inc()
    if result == "failed":
        metrics.pulls_failed.labels(node, code).inc()


def measure(container: Container) -> None:
    """Refresh the gauge."""
    counts = container.pulls.counts()
    for state in PullState:
        container.metrics.pulls_now.labels(state).set(counts.get(state, 0))


def _try(errand: "_Errand") -> tuple[str, str | None]:
    """One word for what became of this attempt, and the code of what went wrong."""
    pulls, pull = errand.container.pulls, errand.pull
    try:
        job_id = errand.run()
    except StoppedError:
        pulls.release(pull)
        return "released", None
    except _LostError:
        log.warning("pull_lost", pull_id=pull.id)
        return "lost", None
    except (*LATER, *UNREACHABLE) as error:
        code = error.code if isinstance(error, LATER) else LedgerUnavailableError.code
        log.warning("pull_waits", pull_id=pull.id, code=code, attempts=pull.attempts)
        pulls.postpone(pull, code)
        return ("failed" if pull.attempts >= MAX_ATTEMPTS else "postponed"), code
    except AqcfError as error:
        log.warning("pull_failed", pull_id=pull.id, code=error.code)
        pulls.failed(pull, error.code)
        return "failed", error.code
    except Exception as error:  # the next pull may fare better
        log.error("pull_failed", pull_id=pull.id, exc_info=error)
        pulls.failed(pull, INTERNAL)
        return "failed", INTERNAL
    log.info("pulled", pull_id=pull.id, job_id=job_id, count=errand.came)
    counts = {"instances": errand.came, "expected": errand.expected}
    return ("done" if pulls.done(pull, **counts, job_id=job_id) else "lost"), None


@dataclass
class _Errand:
    """One try of one pull. ``came``: instances so far."""

    container: Container
    pull: Pull
    stopping: Stopping
    came: int = 0
    expected: int = 0
    renewed_at: float = -math.inf

    def run(self) -> str | None:
        """The id of the job, where no rules decide."""
        node = _node(self.container, self.pull.asked)
        self._renew(node)
        found = self._wanted(node)
        self.expected = sum(one.instances for one in found)
        wanted = Wanted(self.pull.asked.study_uid, tuple(one.uid for one in found))
        if self.pull.asked.modality is None:
            self._for_rules(node, wanted)
            return None
        return self._for_modality(node, wanted)

    def _wanted(self, node: Node) -> list[FoundSeries]:
        """What has to be fetched; raises ``NothingToPullError``."""
        asked, title = self.pull.asked, self.container.settings.ae_title
        found = find_series(node, asked.study_uid, calling=title, details=asked.modality is None)
        wanted = [one for one in found if self._is_wanted(one)]
        if not wanted:
            raise NothingToPullError("the node has no series that is asked for")
        return wanted

    def _is_wanted(self, one: FoundSeries) -> bool:
        asked = self.pull.asked
        if asked.series_uid is not None and one.uid != asked.series_uid:
            return False
        if asked.modality is None:
            return possible(self.container.site, one.facts, Origin.PULL)
        return one.facts.modality == asked.modality.upper()

    def _for_modality(self, node: Node, wanted: Wanted) -> str:
        asked = self.pull.asked
        options = SubmitOptions(
            modality=asked.modality or "ct",
            model=asked.model,
            profile=asked.profile,
            actor=asked.actor,
            priority=asked.priority,
            origin=Origin.PULL,
            destinations=asked.destinations,
        )
        with self.container.artifacts.workspace() as folder:
            self._retrieve(node, wanted, folder, lambda _: None)
            return submit(self.container, Upload((folder,)), options).id

    def _for_rules(self, node: Node, wanted: Wanted) -> None:
        """Into the arrivals; an instance that came in an earlier try is there already."""
        try:
            with (
                self.container.artifacts.workspace() as folder,
                Reception(self.container, Origin.PULL, self.pull.asked.actor) as reception,
            ):
                self._retrieve(node, wanted, folder, _received(reception))
        except PacsSendsOnlyError:
            self._move(node, wanted)

    def _retrieve(
        self, node: Node, wanted: Wanted, folder: Path, take: Callable[[Path], None]
    ) -> None:
        settings = self.container.settings
        self.container.artifacts.require_room(settings.min_free_bytes)

        def taken(file: Path) -> None:
            take(file)
            self._count(node, self.came + 1)

        with full_disk_told():
            retrieve(
                node,
                wanted,
                folder,
                Limits(settings.max_upload_bytes, settings.max_files),
                calling=settings.ae_title,
                taken=taken,
                stopping=self.stopping,
            )
        self._check_whole()

    def _move(self, node: Node, wanted: Wanted) -> None:
        title = self.container.settings.ae_title
        move(node, wanted, title, calling=title, moved=partial(self._count, node))
        self._check_whole()

    def _check_whole(self) -> None:
        if self.came < self.expected:
            raise PacsUnavailableError(
                f"the node has {self.expected} instances and gave {self.came}; is it still "
                "receiving them?"
            )

    def _count(self, node: Node, came: int) -> None:
        if self.stopping():
            raise StoppedError
        self.came = came
        if time.monotonic() - self.renewed_at > RENEW_S:
            self._renew(node)

    def _renew(self, node: Node) -> None:
        self.renewed_at = time.monotonic()
        renewed = self.container.pulls.renew(
            self.pull,
            instances=self.came,
            expected=self.expected or None,
            silence_s=node.timeout_s,
        )
        if not renewed:
            raise _LostError


def _received(reception: Reception) -> Callable[[Path], None]:
    """One instance that cannot be read does not cost the others."""

    def take(file: Path) -> None:
        with suppress(InstanceError):
            reception.take(file)
        file.unlink(missing_ok=True)

    return take


def _admit(container: Container) -> None:
    settings, counts = container.settings, container.pulls.counts()
    unfinished = sum(count for state, count in counts.items() if not state.finished)
    if unfinished >= settings.queue_limit:
        raise BusyError(
            f"{unfinished} pulls wait already; try again later",
            retry_after_s=settings.retry_after_s,
        )


def _node(container: Container, asked: NewPull) -> Node:
    node = container.site.nodes.get(asked.node)
    if node is None:
        raise UnknownNodeError(_there_are("node", container.site.nodes))
    return node


def _there_are(what: str, names: Iterable[str]) -> str:
    """The name that was asked for is the caller's own text: it is not repeated."""
    return f"the site file has no such {what}; there are: {', '.join(names) or 'none'}"
