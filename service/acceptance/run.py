"""The acceptance test from its first question to its report."""

import importlib.metadata
import platform
import tempfile
import time
import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from model.errors import AqcfError

from ..container import Container
from ..dicom.quiet import quiet
from ..pacs.retrieve import moves_only
from ..registry import ACCEPTANCE
from .clean import clean, kept
from .fetch import Results, fetch
from .follow import Say, follow
from .judge import judge_seg
from .measured import judge_report
from .phantoms import chosen
from .records import Check, Plan, Report, Trial, Verdict
from .send import mark_asked, read_back, send, tell
from .way import Way, require_answers, require_rules, require_service, resolve
from .write import Run, write


def accept(container: Container, plan: Plan, say: Say = lambda _: None) -> Report:
    """Send the phantoms, wait, fetch, compare. ``say`` gets a line for each step.

    Raises, before anything is sent: ``InputError`` (``unknown_node``, ``unknown_destination``,
    ``no_destination``, ``no_acceptance_rule``, ``nobody_serves``, ``invalid_listener``,
    ``no_way_back``, ``unknown_phantom``), ``PacsUnavailableError``, ``PacsRefusedError``.
    """
    phantoms = chosen(plan.only)
    way = resolve(container.settings, container.site, plan)
    require_answers(container.settings, way)
    say(f"{way.name} answers")
    require_service(container)
    run = Run(uuid.uuid4().hex, datetime.now().astimezone())
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="aqcf-") as name:
        trials = [
            Trial(write(phantom, run, number, Path(name) / phantom.name))
            for number, phantom in enumerate(phantoms, start=1)
        ]
        if way.by_rules:
            require_rules(container.settings, container.site, way, trials)
        return _tried(container, plan, way, run, trials, started, say)


def _tried(
    container: Container,
    plan: Plan,
    way: Way,
    run: Run,
    trials: Sequence[Trial],
    started: float,
    say: Say,
) -> Report:
    _send(container, plan, way, trials, say)
    open_ones = [trial for trial in trials if not trial.ended]
    follow(container, way, open_ones, plan.timeout_s, say)
    checks = _judge(container, way, trials, say)
    studies = tuple(dict.fromkeys(trial.written.study for trial in trials))
    if plan.clean:
        say(f"deleting {len(studies)} studies")
    remains = clean(container.settings, way, studies) if plan.clean else kept(studies)
    return Report(
        at=run.at,
        seconds=time.monotonic() - started,
        facts=tuple(_facts(container, plan, way, trials)),
        checks=tuple(checks),
        trials=tuple(trials),
        studies=studies,
        remains=remains,
    )


def _send(container: Container, plan: Plan, way: Way, trials: Sequence[Trial], say: Say) -> None:
    by = container.site.destinations[way.destination].by
    where = "the listener" if way.listener else way.name
    for trial in trials:
        count = len(trial.written.files)
        say(f"{trial.name:<15} {count} image{'s' if count > 1 else ''} to {where}")
        mark_asked([trial])
        send(container.settings, way, by, trial)
    for trial in trials:
        if trial.skipped:
            say(f"{trial.name:<15} skipped: {trial.skipped}")
        elif not trial.ended and way.listener is None and not moves_only(way.node):
            read_back(container.settings, way, trial)
    if plan.through == "pacs":
        for trial in [one for one in trials if not one.ended]:
            mark_asked([trial])
            tell(container, way, trial)


def _judge(container: Container, way: Way, trials: Sequence[Trial], say: Say) -> list[Check]:
    say(f"fetching the results from {way.name}")
    tried = [trial for trial in trials if not trial.skipped]
    try:
        results = fetch(container.settings, way, tried)
    except AqcfError as error:
        return [Check("results come back", False, f"{error.code}: {error.message}")]
    for trial in tried:
        _judge_one(container, way, trial, results)
        say(f"{trial.name:<15} {trial.verdict}")
    found = f"{results.strays} of no phantom" if results.strays else "none"
    return [Check("no other results in the studies", not results.strays, found, "none")]


def _judge_one(container: Container, way: Way, trial: Trial, results: Results) -> None:
    trial.seconds["all results fetched"] = results.seconds
    job, phantom = trial.job, trial.written.phantom
    if job is None:
        return
    expected = container.models.acceptance().sha256
    model = f"{job.model_id} {job.model_sha256[:12]}"
    ok = job.model_sha256 == expected
    trial.check("model", ok, model, f"{ACCEPTANCE} {expected[:12]}")
    outcome = str(job.outcome or job.status)
    trial.check("outcome", job.outcome == phantom.outcome, outcome, phantom.outcome)
    _judge_results(way, trial, results)


def _judge_results(way: Way, trial: Trial, results: Results) -> None:
    series = trial.written.series
    try:
        with quiet():
            seg = judge_seg(trial, results.segs.get(series, ()))
            reports = results.reports.get(series, ())
            judge_report(trial, reports, seg, wanted=way.profile.sr)
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # it lacks what it needs
        trial.check("can be read", False, f"a result is not as it was ({type(error).__name__})")


def _facts(
    container: Container, plan: Plan, way: Way, trials: Sequence[Trial]
) -> list[tuple[str, str]]:
    settings, site, node = container.settings, container.site, way.node
    destination = site.destinations[way.destination]
    jobs = [trial.job for trial in trials if trial.job is not None]
    facts = [
        ("software", f"A-QCF-Net {_version()}, Python {platform.python_version()}"),
        ("host of this command", platform.node()),
        ("phantoms go", {"pacs": f"to {way.name}, and the service fetches them",
                         "forward": f"to {way.name}, which sends them on to the service",
                         "listener": "to the listener of the service"}[plan.through]),
        ("archive", way.name),
    ]  # fmt: skip
    if node.dimse is not None:
        dimse = node.dimse
        tls = " with TLS" if dimse.tls else ""
        facts.append(("archive, DIMSE", f"{dimse.ae_title} at {dimse.host}:{dimse.port}{tls}"))
    if node.dicomweb is not None:
        facts.append(("archive, DICOMweb", node.dicomweb.url))
    if way.listener is not None:
        one = way.listener
        facts.append(("listener", f"{one.ae_title} at {one.host}:{one.port}"))
    facts += [
        ("our AE title", settings.ae_title),
        ("results go by", f"{way.destination}: {destination.by}, profile {destination.profile}, "
                          f"confirm {destination.confirm}"),
        ("acceptance model", container.models.acceptance().sha256),
        ("model for patients", _default(container)),
        ("engine", ", ".join(sorted({job.engine for job in jobs if job.engine})) or "none"),
    ]  # fmt: skip
    tried = [trial for trial in trials if trial.verdict is not Verdict.SKIPPED]
    return [*facts, ("phantoms", f"{len(tried)} tried, {len(trials) - len(tried)} skipped")]


def _version() -> str:
    try:
        return importlib.metadata.version("a-qcf-net")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _default(container: Container) -> str:
    try:
        folder = container.models.default()
    except AqcfError as error:
        return error.code
    return f"{folder.spec.id} {folder.spec.version}, {folder.sha256}"
