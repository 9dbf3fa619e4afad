"""What a segmentation left: files, and pictures of its slices."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from ...container import Container
from ...domain import ArtifactName, Job
from ...images import image_path
from ..deps import Services, Slices, viewed
from ..responses import WholeFile, binary, problems
from ..schemas import BASE, MeasurementReport, SliceLayout
from ..slices import Plane, require_result

router = APIRouter(prefix=f"{BASE}/{{segmentation_id}}", tags=["results"])


def result_file(container: Container, job: Job, name: ArtifactName) -> WholeFile:
    """A result as a response; raises ``ConflictError`` or ``NotFoundError`` without one."""
    require_result(job)
    return WholeFile(container.artifacts.path(job.id, name), job, name)


def _download(action: ArtifactName) -> object:
    return Depends(viewed(f"download:{action.value}"))


@router.get(
    "/seg",
    response_class=Response,
    responses=binary("application/dicom", "DICOM Segmentation Storage") | problems(404, 409),
    summary="The DICOM-SEG",
)
def get_seg(container: Services, job: Annotated[Job, _download(ArtifactName.SEG)]) -> Response:
    """For DICOM input. Segment 1: liver without tumour, segment 2: tumour."""
    return result_file(container, job, ArtifactName.SEG)


@router.get(
    "/sr",
    response_class=Response,
    responses=binary("application/dicom", "DICOM SR, TID 1500") | problems(404, 409),
    summary="The DICOM SR",
)
def get_sr(container: Services, job: Annotated[Job, _download(ArtifactName.SR)]) -> Response:
    """For DICOM input. The measurements as a structured report."""
    return result_file(container, job, ArtifactName.SR)


@router.get(
    "/mask.nii.gz",
    response_class=Response,
    responses=binary("application/gzip", "NIfTI mask") | problems(404, 409),
    summary="The mask as NIfTI",
)
def get_mask(container: Services, job: Annotated[Job, _download(ArtifactName.MASK)]) -> Response:
    """On the grid of the image. 0: background, 1: liver without tumour, 2: tumour."""
    return result_file(container, job, ArtifactName.MASK)


@router.get(
    "/image.nii.gz",
    response_class=Response,
    responses=binary("application/gzip", "NIfTI image") | problems(404, 409),
    summary="The image as NIfTI",
)
def get_image(container: Services, job: Annotated[Job, _download(ArtifactName.IMAGE)]) -> Response:
    """What was segmented, as a volume; packed when it is asked for first."""
    require_result(job)
    return WholeFile(image_path(container, job), job, ArtifactName.IMAGE)


@router.get(
    "/measurements",
    response_model=MeasurementReport,
    responses=problems(404, 409),
    summary="The measurements",
)
def get_measurements(
    container: Services, job: Annotated[Job, _download(ArtifactName.MEASUREMENTS)]
) -> Response:
    """Liver volume, tumour burden, and each lesion."""
    return result_file(container, job, ArtifactName.MEASUREMENTS)


@router.get(
    "/preview.png",
    response_class=Response,
    responses=binary("image/png", "A contact sheet") | problems(404, 409),
    summary="A picture of the result",
)
def get_preview(
    container: Services, job: Annotated[Job, _download(ArtifactName.PREVIEW)]
) -> Response:
    """A few slices with the mask over them."""
    return result_file(container, job, ArtifactName.PREVIEW)


@router.get(
    "/slices",
    response_model=SliceLayout,
    responses=problems(404, 409),
    summary="Which slices there are",
)
def get_slice_layout(slices: Slices, job: Annotated[Job, Depends(viewed("slices"))]) -> SliceLayout:
    """Slices per plane, the widest cut of the finding, and the slices through each lesion."""
    return slices.get(job).layout()


@router.get(
    "/slices/{number}.png",
    response_class=Response,
    responses=binary("image/png", "One slice") | problems(404, 409, 422),
    summary="One slice as a picture",
)
def get_slice(
    slices: Slices,
    job: Annotated[Job, Depends(viewed("slice"))],
    number: Annotated[int, Path(ge=0, le=100_000, description="From 0; see the layout.")],
    plane: Annotated[Plane, Query()] = "axial",
    overlay: Annotated[bool, Query(description="Draw the mask over the image.")] = True,
) -> Response:
    """The patient's right is on the left; front or head is up."""
    return Response(slices.get(job).png(plane, number, overlay=overlay), media_type="image/png")
