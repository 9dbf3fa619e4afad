"""What a segmentation left: files, and pictures of its slices."""

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Path, Query, Response

from ...container import Container
from ...domain import ArtifactName, Job
from ...forms import FILES, Form, form_path
from ...images import image_path
from ..deps import Services, Slices, viewed
from ..responses import WholeFile, binary, deletion_told, problems
from ..schemas import BASE, MeasurementReport, SliceLayout
from ..slices import Plane, require_result

SEG_FORMS: Final = {
    "binary": Form.SEG,
    "deflated": Form.SEG_DEFLATED,
    "labelmap": Form.SEG_LABELMAP,
    "labelmap_deflated": Form.SEG_LABELMAP_DEFLATED,
}
SR_FORMS: Final = {
    "standard": Form.SR,
    "labelmap": Form.SR_LABELMAP,
    "viewer": Form.SR_VIEWER,
}

router = APIRouter(prefix=f"{BASE}/{{segmentation_id}}", tags=["results"])


def result_file(container: Container, job: Job, name: ArtifactName) -> WholeFile:
    """A result as a response; raises ``ConflictError`` or ``NotFoundError`` without one."""
    require_result(job)
    return WholeFile(container.artifacts.path(job.id, name), job, name)


def form_file(container: Container, job: Job, form: Form) -> WholeFile:
    """A form of the result, made now if it is not there; raises as ``result_file``."""
    require_result(job)
    with deletion_told(container, job):
        return WholeFile(form_path(container, job, form), job, FILES[form])


def _download(action: ArtifactName) -> object:
    return Depends(viewed(f"download:{action.value}"))


@router.get(
    "/seg",
    response_class=Response,
    responses=binary("application/dicom", "DICOM Segmentation Storage") | problems(404, 409, 422),
    summary="The DICOM-SEG",
)
def get_seg(
    container: Services,
    job: Annotated[Job, _download(ArtifactName.SEG)],
    form: Annotated[
        Literal["binary", "deflated", "labelmap", "labelmap_deflated"],
        Query(description="How the mask is stored; deflated: in a deflated transfer syntax."),
    ] = "binary",
) -> Response:
    """For DICOM input. Segment 1: liver without tumour, segment 2: tumour."""
    return form_file(container, job, SEG_FORMS[form])


@router.get(
    "/sr",
    response_class=Response,
    responses=binary("application/dicom", "DICOM SR, TID 1500") | problems(404, 409, 422),
    summary="The DICOM SR",
)
def get_sr(
    container: Services,
    job: Annotated[Job, _download(ArtifactName.SR)],
    form: Annotated[
        Literal["standard", "labelmap", "viewer"],
        Query(
            description="labelmap: refers to the LABELMAP. viewer: only the lesions' long axes, "
            "drawn on their slices, as OHIF takes them; absent without a lesion."
        ),
    ] = "standard",
) -> Response:
    """For DICOM input. The measurements as a structured report."""
    return form_file(container, job, SR_FORMS[form])


@router.get(
    "/rtstruct",
    response_class=Response,
    responses=binary("application/dicom", "RT Structure Set Storage") | problems(404, 409),
    summary="The contours",
)
def get_rtstruct(
    container: Services, job: Annotated[Job, _download(ArtifactName.RTSTRUCT)]
) -> Response:
    """For DICOM input. Closed planar contours of each segment and of the whole liver; made when
    they are asked for first."""
    return form_file(container, job, Form.RTSTRUCT)


@router.get(
    "/capture",
    response_class=Response,
    responses=binary("application/zip", "Secondary Capture Images") | problems(404, 409),
    summary="Pictures for a PACS",
)
def get_capture(
    container: Services, job: Annotated[Job, _download(ArtifactName.CAPTURE)]
) -> Response:
    """For DICOM input. A zip of a secondary-capture series with the outlines burnt in; made when it
    is asked for first."""
    return form_file(container, job, Form.CAPTURE)


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
    with deletion_told(container, job):
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
