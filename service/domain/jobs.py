"""A job, its states and its outcome."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypeAlias

from model.types import Modality

InputKind: TypeAlias = Literal["dicom", "nifti"]
ANONYMOUS = "local"  # the actor where no key is asked for: embedded, on loopback


class Status(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        return self in FINISHED

    @property
    def live(self) -> bool:
        """A live job answers for its content key; a failed or cancelled one may be resubmitted."""
        return self in LIVE


FINISHED = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})
LIVE = frozenset({Status.QUEUED, Status.RUNNING, Status.SUCCEEDED})


class Priority(StrEnum):
    """Urgent jobs go before routine ones that wait; a running job is never interrupted."""

    ROUTINE = "routine"
    URGENT = "urgent"


class Origin(StrEnum):
    """How the images came."""

    API = "api"
    DIMSE = "dimse"
    STOW = "stow"
    PULL = "pull"


class Outcome(StrEnum):
    """What a succeeded job found."""

    LESION_FOUND = "lesion_found"
    NO_LESION = "no_lesion"
    NOT_EVALUABLE = "not_evaluable"


class Stage(StrEnum):
    """Where a running job is, in order; ``Job.seconds`` has the same keys, and ``load_model``.
    ``wait``: for its turn at the device."""

    READ = "read"
    PREPARE = "prepare"
    WAIT = "wait"
    INFERENCE = "inference"
    RESTORE = "restore"
    POSTPROCESS = "postprocess"
    MEASURE = "measure"
    SEG = "seg"
    SR = "sr"
    STORE = "store"


class ArtifactName(StrEnum):
    """The files a job can leave. Those of DICOM exist for DICOM input only; from
    ``SEG_DEFLATED`` on they are other forms of the result, made when somebody asks."""

    SEG = "seg.dcm"
    SR = "sr.dcm"
    MASK = "mask.nii.gz"
    IMAGE = "image.nii.gz"
    MEASUREMENTS = "measurements.json"
    PREVIEW = "preview.png"
    SEG_DEFLATED = "seg_deflated.dcm"
    LABELMAP = "seg_labelmap.dcm"
    LABELMAP_DEFLATED = "seg_labelmap_deflated.dcm"
    SR_LABELMAP = "sr_labelmap.dcm"
    SR_VIEWER = "sr_viewer.dcm"
    RTSTRUCT = "rtstruct.dcm"
    CAPTURE = "capture.zip"


MEDIA_TYPES: Mapping[ArtifactName, str] = {
    ArtifactName.SEG: "application/dicom",
    ArtifactName.SR: "application/dicom",
    ArtifactName.MASK: "application/gzip",
    ArtifactName.IMAGE: "application/gzip",
    ArtifactName.MEASUREMENTS: "application/json",
    ArtifactName.PREVIEW: "image/png",
    ArtifactName.SEG_DEFLATED: "application/dicom",
    ArtifactName.LABELMAP: "application/dicom",
    ArtifactName.LABELMAP_DEFLATED: "application/dicom",
    ArtifactName.SR_LABELMAP: "application/dicom",
    ArtifactName.SR_VIEWER: "application/dicom",
    ArtifactName.RTSTRUCT: "application/dicom",
    ArtifactName.CAPTURE: "application/zip",
}


@dataclass(frozen=True)
class Artifact:
    """A stored result file."""

    name: ArtifactName
    size: int  # bytes
    sha256: str

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self.name]


@dataclass(frozen=True)
class JobError:
    """Why a job failed: a stable code and a sentence without patient data."""

    code: str
    message: str


@dataclass(frozen=True)
class SubmitOptions:
    """What a client asks for. ``model`` and ``profile``: ``None`` takes the default.

    ``series``: ``auto`` (the documented ranking) or a key from a receipt. ``actor``: id of the API
    key, for the audit row and as the scope of ``idempotency_key``. ``destinations``: names of the
    site's destinations that get the results.
    """

    modality: Modality
    model: str | None = None
    profile: str | None = None
    series: str = "auto"
    idempotency_key: str | None = None
    actor: str = ANONYMOUS
    priority: Priority = Priority.ROUTINE
    origin: Origin = Origin.API
    destinations: tuple[str, ...] = ()


@dataclass(frozen=True)
class NewJob:
    """What ``intake`` knows of a job before it exists in the ledger. ``idempotency_key``: the hash
    of what the client sent."""

    id: str
    modality: Modality
    kind: InputKind
    model_id: str
    model_sha256: str
    profile: str
    input_key: str
    content_key: str
    receipt: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    idempotency_key: str | None = None
    actor: str = ANONYMOUS
    priority: Priority = Priority.ROUTINE
    origin: Origin = Origin.API
    destinations: tuple[str, ...] = ()
    predicted_bytes: int | None = None


@dataclass(frozen=True)
class Finding:
    """What a finished segmentation adds to its job."""

    outcome: Outcome
    measurements: Mapping[str, Any]
    seconds: Mapping[str, float]
    engine: str
    applied: tuple[str, ...] = ()
    proof: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    artifacts: tuple[Artifact, ...] = ()


@dataclass(frozen=True)
class Job:
    """One row of the ledger, as it was when it was read. Times are UTC.

    ``receipt``: one JSON-able mapping per series looked at (``service.dicom`` ``ReceiptLine``).
    ``progress``: 0..1 within ``stage``. ``revision`` grows with every change. ``predicted_bytes``:
    memory that the job is expected to need where it runs.
    """

    id: str
    status: Status
    modality: Modality
    kind: InputKind
    model_id: str
    model_sha256: str
    profile: str
    input_key: str
    content_key: str
    created_at: datetime
    updated_at: datetime
    revision: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    heartbeat_at: datetime | None = None
    stage: Stage | None = None
    progress: float = 0.0
    outcome: Outcome | None = None
    measurements: Mapping[str, Any] | None = None
    receipt: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    applied: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    proof: Mapping[str, Any] | None = None
    engine: str | None = None
    error: JobError | None = None
    attempts: int = 0
    deaths: int = 0
    worker_id: str | None = None
    cancel_requested: bool = False
    idempotency_key: str | None = None
    actor: str = ANONYMOUS
    priority: Priority = Priority.ROUTINE
    origin: Origin = Origin.API
    destinations: tuple[str, ...] = ()
    predicted_bytes: int | None = None
    artifacts: tuple[Artifact, ...] = ()

    def artifact(self, name: ArtifactName) -> Artifact | None:
        return next((found for found in self.artifacts if found.name == name), None)


@dataclass(frozen=True)
class JobFilter:
    """Which jobs a listing shows; ``None`` means any."""

    status: Status | None = None
    modality: Modality | None = None
    outcome: Outcome | None = None
    actor: str | None = None


@dataclass(frozen=True)
class Page:
    """Newest first. ``cursor`` asks for the next page; ``None`` on the last one."""

    jobs: tuple[Job, ...]
    cursor: str | None


@dataclass(frozen=True)
class ApiKey:
    """A key as the ledger knows it; the secret itself is never stored."""

    id: str
    scopes: frozenset[str]
    created_at: datetime
    revoked_at: datetime | None = None
    name: str = ""
