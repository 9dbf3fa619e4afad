"""The forms in which a result can go to an archive or a viewer.

SEG and SR are made with the job. The others are made from the stored SEG when somebody asks, and
kept; the mask comes from the SEG itself, which was proved, so that all forms show the same.
"""

import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Final

from model.measure import Measurements

from .cases import find_series
from .container import Container
from .dicom.capture import build_capture
from .dicom.derived import same_moment
from .dicom.proof import prove
from .dicom.rtstruct import build_rtstruct
from .dicom.sanitise import Sources, canonical_sources
from .dicom.seg import build_seg, to_bytes
from .dicom.segread import SegContent, open_seg, read_seg
from .dicom.series import Series
from .dicom.sr import build_sr
from .dicom.sr_viewer import build_sr_viewer
from .domain import ArtifactName, Job
from .errors import NotFoundError
from .storage.artifacts import full_disk_told

ZIP_LEVEL: Final = 1  # pictures of 100 MB: nearly as small as at 6, in a third of the time


class Form(StrEnum):
    """``sr_labelmap``: the SR that refers to the LABELMAP, for who gets no BINARY SEG.
    ``sr_viewer``: lines on images, for OHIF. ``capture``: several files."""

    SEG = "seg"
    SEG_DEFLATED = "seg_deflated"
    SEG_LABELMAP = "seg_labelmap"
    SEG_LABELMAP_DEFLATED = "seg_labelmap_deflated"
    SR = "sr"
    SR_LABELMAP = "sr_labelmap"
    SR_VIEWER = "sr_viewer"
    CAPTURE = "capture"
    RTSTRUCT = "rtstruct"


FILES: Final[Mapping[Form, ArtifactName]] = {
    Form.SEG: ArtifactName.SEG,
    Form.SEG_DEFLATED: ArtifactName.SEG_DEFLATED,
    Form.SEG_LABELMAP: ArtifactName.LABELMAP,
    Form.SEG_LABELMAP_DEFLATED: ArtifactName.LABELMAP_DEFLATED,
    Form.SR: ArtifactName.SR,
    Form.SR_LABELMAP: ArtifactName.SR_LABELMAP,
    Form.SR_VIEWER: ArtifactName.SR_VIEWER,
    Form.CAPTURE: ArtifactName.CAPTURE,
    Form.RTSTRUCT: ArtifactName.RTSTRUCT,
}


@dataclass(frozen=True, eq=False)
class Material:
    """What forms are made of. ``seg``: the proved BINARY SEG of this series; ``uid_key``: the key
    it was made with."""

    series: Series
    seg: Path
    measurements: Measurements
    uid_key: str

    @cached_property
    def content(self) -> SegContent:
        return read_seg(self.seg, self.series.usable_grid())

    @cached_property
    def sources(self) -> Sources:
        return canonical_sources(self.series, self.uid_key)


@contextmanager
def make(container: Container, job: Job, form: Form) -> Iterator[tuple[Path, ...]]:
    """The files of a form, in DICOM's file format; they may be gone after the block.

    None for ``sr_viewer`` where there is no line to draw. Raises as ``form_path``.
    """
    try:
        path = form_path(container, job, form)
    except NothingToDrawError:
        yield ()
        return
    if form is not Form.CAPTURE:
        yield (path,)
        return
    with container.artifacts.workspace() as folder:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        yield tuple(sorted(folder.iterdir()))


def form_path(container: Container, job: Job, form: Form) -> Path:
    """The stored file of a form, made now if it is not there; ``capture`` is a zip.

    Raises ``NotFoundError``: ``artifact_not_found`` for NIfTI input or a job without a result (and,
    as ``NothingToDrawError``, for ``sr_viewer`` without a lesion); ``input_not_found`` when the
    input was purged before. Raises ``SegMismatchError`` when a form does not hold the mask.
    """
    name = FILES[form]
    try:
        return container.artifacts.path(job.id, name)
    except NotFoundError:
        seg = container.artifacts.path(job.id, ArtifactName.SEG)
        if form in (Form.SEG, Form.SR):
            raise
    files = container.artifacts.input_files(job.input_key)
    series = find_series(files, job.modality, container.settings, job.input_key)
    measurements = Measurements.from_dict(job.measurements or {})
    with full_disk_told(), container.artifacts.workspace() as folder:
        write_form(form, Material(series, seg, measurements, job.content_key), folder)
        container.artifacts.put(job.id, folder)
    return container.artifacts.path(job.id, name)


class NothingToDrawError(NotFoundError):
    """There is no lesion with a long axis."""

    code = "artifact_not_found"


def write_form(form: Form, material: Material, folder: Path) -> Path:
    """Make one form and write it into ``folder`` by its ``ArtifactName``.

    Raises ``SegMismatchError``, ``NothingToDrawError``, and ``DicomInputError`` where pixels are
    needed and cannot be decoded. ``Form.SEG`` and ``Form.SR`` are not made here: ``ValueError``.
    """
    if form not in _WRITERS:
        raise ValueError(f"{form} is made with the job")
    path = folder / FILES[form]
    _WRITERS[form](material, path)
    return path


def _deflated(material: Material, path: Path) -> None:
    path.write_bytes(to_bytes(open_seg(material.seg), deflate=True))
    prove(path, material.series, material.content.mask)


def _labelmap(material: Material, path: Path, *, deflate: bool = False) -> None:
    content = material.content
    dataset = build_seg(
        material.series,
        content.mask,
        content.labels,
        content.algorithm,
        material.uid_key,
        material.sources,
        "LABELMAP",
    )
    same_moment(dataset, content)
    path.write_bytes(to_bytes(dataset, deflate=deflate))
    prove(path, material.series, content.mask)


def _labelmap_deflated(material: Material, path: Path) -> None:
    _labelmap(material, path, deflate=True)


def _sr_labelmap(material: Material, path: Path) -> None:
    content = material.content
    _labelmap(material, path)
    dataset = build_sr(
        material.series,
        open_seg(path),
        material.measurements,
        content.labels,
        content.algorithm,
        material.uid_key,
        material.sources,
        "sr labelmap",
    )
    same_moment(dataset, content)
    path.write_bytes(to_bytes(dataset))


def _sr_viewer(material: Material, path: Path) -> None:
    lesions = material.measurements.lesions
    dataset = build_sr_viewer(
        material.series, material.content, lesions, material.uid_key, material.sources
    )
    if dataset is None:
        raise NothingToDrawError("this job has no lesion with a long axis to draw")
    path.write_bytes(to_bytes(dataset))


def _rtstruct(material: Material, path: Path) -> None:
    dataset = build_rtstruct(material.series, material.content, material.uid_key, material.sources)
    path.write_bytes(to_bytes(dataset))


def _capture(material: Material, path: Path) -> None:
    pictures = build_capture(material.series, material.content, material.uid_key, material.sources)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=ZIP_LEVEL) as archive:
        for picture in pictures:
            member = zipfile.ZipInfo(f"image-{int(picture.InstanceNumber):05d}.dcm")
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, to_bytes(picture), compresslevel=ZIP_LEVEL)


_WRITERS: Final[Mapping[Form, Callable[[Material, Path], None]]] = {
    Form.SEG_DEFLATED: _deflated,
    Form.SEG_LABELMAP: _labelmap,
    Form.SEG_LABELMAP_DEFLATED: _labelmap_deflated,
    Form.SR_LABELMAP: _sr_labelmap,
    Form.SR_VIEWER: _sr_viewer,
    Form.CAPTURE: _capture,
    Form.RTSTRUCT: _rtstruct,
}
