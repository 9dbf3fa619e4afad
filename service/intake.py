"""Take an upload in: look at it, store it, write the job down, then hand it to the queue."""

import hashlib
import uuid
from collections.abc import Iterable
from functools import partial

from model.errors import InputError
from model.spec import ModelFolder

from .admission import Need, admit
from .cases import SUFFIXES, Case, examine, settings_key
from .container import Container
from .domain import Job, NewJob, Priority, Status, SubmitOptions
from .errors import UnknownDestinationError
from .observability import get_logger
from .phantoms import NOTE, settled
from .registry import ACCEPTANCE, profile_of
from .storage.artifacts import full_disk_told
from .uploads import Upload, open_upload

log = get_logger("service.intake")


def submit(container: Container, upload: Upload, options: SubmitOptions) -> Job:
    """The queued job for this upload, or the live one that has the same content and settings; that
    one becomes urgent when this upload is.

    Files below the store's staging folder are moved, others copied. Raises ``InputError`` (the
    upload, the model, the profile, a destination), ``BusyError``, ``StorageFullError``,
    ``ModelUnavailableError``; then neither a job nor a file is left behind.
    """
    try:
        with container.tracing.span("intake", modality=options.modality) as span:
            job, created = _submit(container, upload, options)
            span.accepted(job.id, new=created)
    except InputError as error:
        container.metrics.rejected.labels(error.code).inc()
        log.info("rejected", code=error.code, modality=options.modality)
        raise
    container.audit.record(options.actor, "submit", job.id)
    if created:
        log.info("queued", job_id=job.id, modality=job.modality, kind=job.kind)
        container.queue.send(job.id, job.priority)
    elif options.priority is Priority.URGENT:
        job = _lift(container, job)
    return job


def _lift(container: Container, job: Job) -> Job:
    """A job that waits goes before routine ones; one that was urgent before is not sent again."""
    if not container.jobs.lift(job.id):
        return job
    lifted = container.jobs.get(job.id) or job
    log.info("lifted", job_id=job.id, status=lifted.status)
    if lifted.status is Status.QUEUED:
        container.queue.send(job.id, lifted.priority)
    return lifted


def check_destinations(container: Container, names: Iterable[str]) -> None:
    """Raises ``UnknownDestinationError`` for a name that the site file does not have."""
    known = container.site.destinations
    if any(name not in known for name in names):
        there = ", ".join(known) or "none"
        raise UnknownDestinationError(f"there is no such destination; there are: {there}")


def _check_deliverable(case: Case, options: SubmitOptions) -> None:
    if options.destinations and case.kind != "dicom":
        raise UnknownDestinationError(
            "destinations take DICOM, and images that are no DICOM give no DICOM results",
            code="no_dicom_results",
        )


def _submit(container: Container, upload: Upload, options: SubmitOptions) -> tuple[Job, bool]:
    settings = container.settings
    check_destinations(container, options.destinations)
    folder = container.models.find(options.model, options.modality)
    profile = profile_of(folder, options.profile)
    room = partial(container.artifacts.require_room, settings.min_free_bytes)
    room()
    with full_disk_told(), container.artifacts.workspace() as workspace:
        opened = open_upload(upload, workspace, settings, room)
        case = examine(opened, options.modality, options.series, settings)
        if (own := settled(container.models, folder, case)) is not folder:
            folder, profile = own, own.spec.default_profile
        _check_deliverable(case, options)
        need = admit(container, case.grid, folder.spec, case.modality, profile)
        return _write_down(container, case, _new_job(case, folder, profile, options, need))


def _new_job(
    case: Case, folder: ModelFolder, profile: str, options: SubmitOptions, need: Need
) -> NewJob:
    return NewJob(
        id=str(uuid.uuid4()),
        modality=case.modality,
        kind=case.kind,
        model_id=folder.spec.id,
        model_sha256=folder.sha256,
        profile=profile,
        input_key=case.content,
        content_key=settings_key(case, folder.sha256, profile),
        receipt=case.receipt,
        notes=(*case.notes, *need.notes, *([NOTE] if folder.spec.id == ACCEPTANCE else [])),
        idempotency_key=_fingerprint(options.idempotency_key),
        actor=options.actor,
        priority=options.priority,
        origin=options.origin,
        destinations=options.destinations,
        predicted_bytes=need.bytes,
    )


def _fingerprint(key: str | None) -> str | None:
    """All that is kept of an Idempotency-Key, for which clients take numbers of patients, too."""
    return None if key is None else hashlib.sha256(key.encode()).hexdigest()


def _write_down(container: Container, case: Case, new: NewJob) -> tuple[Job, bool]:
    """Store, then commit; what was stored for a job that is not created goes again."""
    settings, store = container.settings, container.artifacts
    with store.staged_input(case.files, SUFFIXES[case.kind], new.input_key) as staged:
        return container.jobs.create(
            new,
            queue_limit=settings.queue_limit,
            retry_after_s=settings.retry_after_s,
            place_input=lambda: store.place_input(staged, new.input_key),
        )
