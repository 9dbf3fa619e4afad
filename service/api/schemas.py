"""The resources of /v1 as clients see them; the source of ``openapi/openapi.json``."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from model.types import Modality

from ..domain import ArtifactName, InputKind, Job, Outcome, Priority, Stage, Status

Point: TypeAlias = tuple[float, float, float]

BASE = "/v1/segmentations"
EXAMPLE_ID = "0198f1d2c0de7a41b6f0a2c4e8d01357"


class Schema(BaseModel):
    model_config = ConfigDict(frozen=True)


class ReceiptLine(BaseModel):
    """One series (or one kind of refused file) that was looked at, and what became of it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    key: str | None = Field(None, description="Pass it as `series=` to choose this series.")
    modality: str | None = None
    images: int | None = None
    rows: int | None = None
    columns: int | None = None
    spacing_mm: list[float] | None = Field(None, description="z, y, x")
    description: str | None = Field(None, description="SeriesDescription, as it was sent.")
    status: Literal["chosen", "usable", "rejected", "set_aside"]
    code: str | None = Field(None, description="Stable reason, where not chosen.")
    reason: str | None = None
    notes: list[str] = Field(default_factory=list, description="What was repaired or made up.")


class FieldProblem(Schema):
    """Which parameter is wrong, and why."""

    in_: str = Field(alias="in", examples=["query"])
    parameter: str = Field(examples=["modality"])
    detail: str


class Problem(Schema):
    """RFC 9457 problem details. `code` is stable: switch on it, show `detail`."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:aqcf:problem:too_few_slices",
                    "title": "Too few slices",
                    "status": 422,
                    "detail": "the series has 1 image, a volume needs 3",
                    "code": "too_few_slices",
                    "receipt": [
                        {
                            "key": "s1",
                            "modality": "CT",
                            "images": 1,
                            "status": "rejected",
                            "code": "too_few_slices",
                        }
                    ],
                }
            ]
        },
    )

    type: str
    title: str
    status: int
    detail: str
    code: str
    receipt: list[ReceiptLine] | None = None
    errors: list[FieldProblem] | None = None


class Lesion(Schema):
    """One tumour component; the largest is number 1. Points are LPS millimetres."""

    model_config = ConfigDict(frozen=True, extra="allow")

    number: int
    voxels: int
    volume_ml: float
    long_axis_mm: float
    long_axis_slice: int = Field(description="Slice of the stored image, from 0")
    long_axis_ends_mm: tuple[Point, Point]
    centroid_mm: Point
    intensity_mean: float
    intensity_sd: float


class Measurements(Schema):
    """Volumes in ml. The burden is tumour over the whole liver."""

    model_config = ConfigDict(frozen=True, extra="allow")

    liver_ml: float = Field(description="Tumour included")
    liver_without_tumour_ml: float
    tumour_ml: float
    tumour_burden_percent: float
    intensity_unit: str = Field(description="HU, or 1 where the scanner's numbers have no unit")
    lesions: list[Lesion]


class ModelVersion(Schema):
    """The model as a report names it."""

    id: str
    version: str
    sha256: str


class ModelRef(Schema):
    """The model that made the mask. ``sha256`` is its manifest's, which covers the weights."""

    id: str
    sha256: str


class Failure(Schema):
    """Why a job failed."""

    code: str
    detail: str


class Links(Schema):
    """Paths of what belongs to the segmentation; a result that is not there is absent."""

    self_: str = Field(alias="self")
    events: str
    cancel: str
    seg: str | None = Field(None, description="DICOM Segmentation (DICOM input only)")
    sr: str | None = Field(None, description="DICOM SR, TID 1500 (DICOM input only)")
    rtstruct: str | None = Field(None, description="RT Structure Set (DICOM input only)")
    capture: str | None = Field(None, description="Zip of pictures as DICOM (DICOM input only)")
    mask: str | None = Field(None, description="NIfTI: 0 background, 1 liver, 2 tumour")
    image: str | None = Field(None, description="NIfTI: the image that was segmented")
    measurements: str | None = None
    preview: str | None = None
    slices: str | None = None
    deliveries: str | None = Field(None, description="Where destinations get the results.")


class Segmentation(Schema):
    """One segmentation: what was asked for, where it is, what came out."""

    id: str = Field(examples=[EXAMPLE_ID])
    status: Status
    outcome: Outcome | None = Field(None, description="What a succeeded segmentation found.")
    stage: Stage | None = None
    progress: float = Field(description="0..1 within the stage")
    revision: int = Field(description="Grows with every change.")
    modality: Modality
    kind: InputKind
    priority: Priority
    destinations: list[str] = Field(description="Names of who gets the results.")
    model: ModelRef
    profile: str
    engine: str | None = None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    seconds: dict[str, float] = Field(description="Seconds per stage")
    measurements: Measurements | None = None
    receipt: list[ReceiptLine]
    applied: list[str] = Field(description="Postprocessing rules that changed something")
    notes: list[str]
    proof: dict[str, Any] | None = Field(None, description="Figures of the SEG's self-proof")
    error: Failure | None = None
    links: Links


class MeasurementReport(Schema):
    """The measurements with what made them."""

    model_config = ConfigDict(frozen=True, extra="allow")

    outcome: Outcome
    measurements: Measurements
    applied: list[str]
    model: ModelVersion
    profile: str
    engine: str


class SegmentationList(Schema):
    """Newest first."""

    items: list[Segmentation]
    next: str | None = Field(None, description="Pass it as `cursor=`; null on the last page.")


class Progress(Schema):
    """The data of a `progress` event."""

    id: str
    status: Status
    outcome: Outcome | None = None
    stage: Stage | None = None
    progress: float
    revision: int


class PlaneLayout(Schema):
    """``start``: where the largest cut of the finding lies."""

    count: int
    start: int


class LesionPlace(Schema):
    """The slices through a lesion's centre."""

    number: int
    axial: int
    coronal: int
    sagittal: int


class SliceLayout(Schema):
    """How many slices each plane has. Axial runs feet to head, coronal front to back, sagittal
    right to left."""

    planes: dict[str, PlaneLayout]
    lesions: list[LesionPlace]


class ProfileInfo(Schema):
    """``agreement`` (Dice) and ``speedup`` are against the profile ``paper``, where measured."""

    name: str
    overlap: float
    precision: str
    agreement: float | None
    speedup: float | None


class ModelInfo(Schema):
    """An installed model."""

    id: str
    version: str
    description: str
    licence: str
    sha256: str
    default: bool
    modalities: list[Modality]
    profiles: list[ProfileInfo]
    default_profile: str
    scores: dict[str, Any]


class ModelList(Schema):
    items: list[ModelInfo]


class Health(Schema):
    status: Literal["ok"] = "ok"


class Readiness(Schema):
    """``checks``: each part that has to work, and whether it does."""

    status: Literal["ready", "not_ready"]
    checks: dict[str, bool]


ARTIFACT_LINKS: Mapping[str, ArtifactName] = {
    "seg": ArtifactName.SEG,
    "sr": ArtifactName.SR,
    "mask": ArtifactName.MASK,
    "image": ArtifactName.IMAGE,
    "measurements": ArtifactName.MEASUREMENTS,
    "preview": ArtifactName.PREVIEW,
}
ARTIFACT_PATHS: Mapping[ArtifactName, str] = {
    ArtifactName.SEG: "seg",
    ArtifactName.SR: "sr",
    ArtifactName.MASK: "mask.nii.gz",
    ArtifactName.IMAGE: "image.nii.gz",
    ArtifactName.MEASUREMENTS: "measurements",
    ArtifactName.PREVIEW: "preview.png",
}


def segmentation(job: Job) -> Segmentation:
    """The resource of a job."""
    return Segmentation(
        id=job.id,
        status=job.status,
        outcome=job.outcome,
        stage=job.stage,
        progress=job.progress,
        revision=job.revision,
        modality=job.modality,
        kind=job.kind,
        priority=job.priority,
        destinations=list(job.destinations),
        model=ModelRef(id=job.model_id, sha256=job.model_sha256),
        profile=job.profile,
        engine=job.engine,
        created_at=job.created_at,
        updated_at=job.updated_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        seconds=dict(job.seconds),
        measurements=_measured(job),
        receipt=[ReceiptLine.model_validate(line) for line in job.receipt],
        applied=list(job.applied),
        notes=list(job.notes),
        proof=None if job.proof is None else dict(job.proof),
        error=None if job.error is None else Failure(code=job.error.code, detail=job.error.message),
        links=links(job),
    )


def _measured(job: Job) -> Measurements | None:
    return None if job.measurements is None else Measurements.model_validate(job.measurements)


def links(job: Job) -> Links:
    """Only what exists."""
    base = f"{BASE}/{job.id}"
    found: dict[str, str] = {
        key: f"{base}/{ARTIFACT_PATHS[name]}"
        for key, name in ARTIFACT_LINKS.items()
        if job.artifact(name)
    }
    if "seg" in found:  # made when they are asked for, as the image is
        found |= {"rtstruct": f"{base}/rtstruct", "capture": f"{base}/capture"}
    if "mask" in found:
        found |= {"image": f"{base}/image.nii.gz", "slices": f"{base}/slices"}
    if job.destinations:
        found["deliveries"] = f"{base}/deliveries"
    return Links(**{"self": base, "events": f"{base}/events", "cancel": f"{base}/cancel", **found})


def progress(job: Job) -> Progress:
    """What changes while a job runs."""
    return Progress(
        id=job.id,
        status=job.status,
        outcome=job.outcome,
        stage=job.stage,
        progress=job.progress,
        revision=job.revision,
    )
