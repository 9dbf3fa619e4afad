"""The image of a job as NIfTI, made when somebody asks for it: packing a CT takes seconds."""

from pathlib import Path

from model.nifti import write_nifti

from .cases import LoadedCase, load_case
from .container import Container
from .domain import ArtifactName, Job
from .errors import NotFoundError


def image_path(container: Container, job: Job) -> Path:
    """``image.nii.gz`` of a job, on the grid of its mask. Raises ``NotFoundError`` when the input
    was purged."""
    try:
        return container.artifacts.path(job.id, ArtifactName.IMAGE)
    except NotFoundError:
        volume = load_image(container, job).volume
    with container.artifacts.workspace() as folder:
        write_nifti(folder / ArtifactName.IMAGE, volume.array, volume.affine)
        container.artifacts.put(job.id, folder)
    return container.artifacts.path(job.id, ArtifactName.IMAGE)


def load_image(container: Container, job: Job) -> LoadedCase:
    """The volume that a job segments or segmented."""
    files = container.artifacts.input_files(job.input_key)
    return load_case(job.kind, files, job.modality, container.settings, job.input_key)
