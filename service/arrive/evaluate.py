"""A complete study: ask the rules, submit what they choose, write down what became of each series.

Several processes may evaluate the same study one after the other: the same images are the same job
by content, and an arrival finishes once.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from model.errors import AqcfError

from ..container import Container
from ..dicom.algorithm import MANUFACTURER
from ..dicom.heads import UnreadableHeadError, read_head
from ..domain import Arrival, ArrivalState, Job, Origin
from ..errors import BusyError, ServiceError, StorageFullError, StoreUnavailableError
from ..intake import submit
from ..observability import get_logger
from ..site import Candidate, Choice, choose, contenders, submit_options
from ..storage.artifacts import full_disk_told
from ..storage.database import UNREACHABLE
from ..uploads import Upload
from .facts import candidate_of, ranked
from .files import ArrivalFiles, link_all
from .parts import Part, parts_of, rivals_of

log = get_logger("service.arrive")

DERIVED_ROOT = "2.25."
SENT_BY_AE = (Origin.DIMSE, Origin.PULL)
LATER = (*UNREACHABLE, StorageFullError, StoreUnavailableError)
"""No fault of the images: the arrivals stay closed and are evaluated again."""
ASIDE = ("localizer", "localizer_only", "not_an_image")  # nothing went wrong with these


class _Fate(NamedTuple):
    state: ArrivalState
    code: str


def evaluate(
    container: Container, closed: Sequence[Arrival], lacking: frozenset[str] = frozenset()
) -> None:
    """Finish these arrivals, all of one study, that this process has closed. ``lacking``: UIDs of
    series that the archive has more of.

    What may work later (the queue is full, the disk too) stays closed and is evaluated again.
    """
    try:
        with full_disk_told():
            _evaluate(container, closed, lacking)
    except LATER:
        raise
    except Exception as error:
        log.error("study_failed", exc_info=error)
        for one in closed:
            state, code = ArrivalState.FAILED, "internal_error"
            _finish(container, Part(one, (), one.instances), state, code=code)


def _evaluate(container: Container, closed: Sequence[Arrival], lacking: frozenset[str]) -> None:
    earlier = container.arrivals.finished(closed[0].study_uid)
    with container.artifacts.workspace() as folder:
        parts = parts_of(container, closed, earlier, folder)
        unsettled = [part for part in parts if not _settled(container, part)]
        if unsettled:
            rivals = rivals_of(container, closed, earlier)
            _by_rules(container, unsettled, rivals, lacking)


def _settled(container: Container, part: Part) -> bool:
    """Finish what no rule has to be asked about."""
    if not part.files and part.arrival.instances == 0:
        container.arrivals.delete(part.arrival.id)  # a kill came before the first instance
    elif not part.files:
        _finish(container, part, ArrivalState.FAILED, code="files_missing")
    elif _is_own(part.files[0]):
        _finish(container, part, ArrivalState.SET_ASIDE, code="own_result")
    else:
        return False
    return True


def _is_own(file: Path) -> bool:
    """Whether a PACS sends back what this service made."""
    try:
        head = read_head(file)
    except UnreadableHeadError:
        return False
    return head.manufacturer == MANUFACTURER and head.series_uid.startswith(DERIVED_ROOT)


def _by_rules(
    container: Container,
    parts: Sequence[Part],
    rivals: Mapping[str, tuple[Path, ...]],
    lacking: frozenset[str],
) -> None:
    """``rivals``: files of series of the study that were submitted earlier, by any key: they
    compete for being the best, and nothing else happens to them."""
    files = {**rivals, **{part.arrival.id: part.files for part in parts}}
    candidates = _candidates(container, files, parts[0].arrival)
    choices = {one.key: one for one in choose(container.site, candidates, parts[0].arrival.origin)}
    problems = {one.key: one.problem for one in candidates}
    for number, part in enumerate(parts):
        container.arrivals.hold(one.arrival.id for one in parts[number:])
        choice = choices[part.arrival.id]
        lacks = part.arrival.series_uid in lacking
        fate = _fate(choice, problems[part.arrival.id], lacks)
        if fate is None:
            _submit(container, part, choice)
        else:
            _finish(container, part, fate.state, code=fate.code, rule=choice.decision.rule)


def _candidates(
    container: Container, files: Mapping[str, tuple[Path, ...]], arrival: Arrival
) -> list[Candidate]:
    """All series of the study; those that compete with their ranks."""
    settings = container.settings
    ae_title = arrival.caller if arrival.origin in SENT_BY_AE else ""
    found = [candidate_of(key, each, ae_title, settings) for key, each in files.items()]
    compared = contenders(container.site, found, arrival.origin)

    def with_rank(one: Candidate) -> Candidate:
        container.arrivals.hold(files)  # many series take their time
        return ranked(one, files[one.key], settings)

    return [with_rank(one) if one.key in compared else one for one in found]


def _fate(choice: Choice, problem: str | None, lacks: bool) -> _Fate | None:
    """Why a series is not submitted; ``None`` when it is."""
    then = choice.decision.then
    if choice.chosen:
        return _Fate(ArrivalState.FAILED, code="incomplete_series") if lacks else None
    if problem is not None:
        aside = then is None or then.ignore or problem in ASIDE
        return _Fate(ArrivalState.SET_ASIDE if aside else ArrivalState.FAILED, problem)
    if then is None:
        return _Fate(ArrivalState.SET_ASIDE, code="no_rule")
    if then.ignore:
        return _Fate(ArrivalState.SET_ASIDE, code="ignored_by_rule")
    return _Fate(ArrivalState.SET_ASIDE, code="not_best")


def _submit(container: Container, part: Part, choice: Choice) -> None:
    arrival, rule = part.arrival, choice.decision.rule
    try:
        with full_disk_told():
            job = _job(container, part, choice)
    except UNREACHABLE:  # of this study nothing can be written down now
        raise
    except BusyError as error:  # another was quicker; see ``complete``
        log.warning("arrival_waits", arrival_id=arrival.id, code=error.code)
        silent_s = container.settings.heartbeat_timeout_s
        container.arrivals.let_go(arrival.id, abandoned_s=silent_s)
    except ServiceError as error:  # no fault of the images: the disk is full
        log.warning("arrival_waits", arrival_id=arrival.id, code=error.code)
    except AqcfError as error:
        _finish(container, part, ArrivalState.FAILED, code=error.code, rule=rule)
    except Exception as error:  # the other series may fare better
        log.error("arrival_failed", arrival_id=arrival.id, exc_info=error)
        _finish(container, part, ArrivalState.FAILED, code="internal_error", rule=rule)
    else:
        _finish(container, part, ArrivalState.SUBMITTED, job_id=job.id, rule=rule)


def _job(container: Container, part: Part, choice: Choice) -> Job:
    """Links go in: ``intake`` moves what lies in staging, and the originals have to outlive a
    refusal."""
    arrival = part.arrival
    options = submit_options(choice.decision, choice.facts, arrival.origin, arrival.caller)
    with container.artifacts.workspace() as folder:
        link_all(part.files, folder)
        return submit(container, Upload((folder,)), options)


def _finish(
    container: Container,
    part: Part,
    state: ArrivalState,
    *,
    code: str | None = None,
    rule: str | None = None,
    job_id: str | None = None,
) -> None:
    """What could not be submitted keeps its files for a while: late instances may make it whole."""
    arrival, store = part.arrival, container.arrivals
    if not store.finish(
        arrival.id, state, instances=part.received, code=code, rule=rule, job_id=job_id
    ):
        return
    container.metrics.arrivals.labels(arrival.origin, state).inc()
    log.info(
        "arrival", arrival_id=arrival.id, status=state, code=code, files=part.received,
        job_id=job_id,
    )  # fmt: skip
    if state is ArrivalState.SUBMITTED or code == "own_result":
        for arrival_id in (arrival.id, *part.joined):
            ArrivalFiles(container.settings.arrivals_dir).drop(arrival_id)
