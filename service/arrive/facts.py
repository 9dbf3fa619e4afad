"""What rules ask of a series, read from its files."""

from collections.abc import Sequence
from pathlib import Path

from model.types import Modality

from ..dicom.header import FileRecord, read_record
from ..dicom.quiet import quiet
from ..dicom.ranking import rank
from ..dicom.series import Series, scan
from ..settings import Settings
from ..site import Candidate, SeriesFacts, orientation_of
from ..site.rules import SEGMENTED, Ranking


def candidate_of(key: str, files: Sequence[Path], ae_title: str, settings: Settings) -> Candidate:
    """A series from the header of its first image; of multi-frame files every one is read, for
    their number of frames. ``files``: at least one."""
    with quiet():
        record = _first_image(files, settings)
        images = _images(record, files, settings)
    problem = record.problem if record.problem == "not_an_image" else None
    return Candidate(key, _facts(record, images, ae_title), problem=problem)


def ranked(candidate: Candidate, files: Sequence[Path], settings: Settings) -> Candidate:
    """The candidate with its rank among others, or with the code of why it has none."""
    modality = SEGMENTED.get(candidate.facts.modality)
    if modality is None:
        return candidate
    best = _best(files, modality, settings)
    if isinstance(best, str):
        return Candidate(candidate.key, candidate.facts, problem=best)
    return Candidate(candidate.key, candidate.facts, rank=_rank(best))


def _first_image(files: Sequence[Path], settings: Settings) -> FileRecord:
    """The first file that is an image and no scout, or just the first."""
    first = read_record(files[0], settings.max_voxels)
    if first.problem == "not_an_image":
        return first
    records = (read_record(file, settings.max_voxels) for file in files)
    return next((one for one in records if one.planes and not one.localizer), first)


def _images(record: FileRecord, files: Sequence[Path], settings: Settings) -> int:
    if record.file is None or not record.file.multi_frame:
        return len(files)
    return sum(max(1, len(read_record(file, settings.max_voxels).planes)) for file in files)


def _facts(record: FileRecord, images: int, ae_title: str) -> SeriesFacts:
    if record.facts is None:
        return SeriesFacts(modality="", images=images, ae_title=ae_title)
    plane = record.planes[0] if record.planes else None
    return SeriesFacts(
        modality=record.facts.modality,
        description=record.facts.description,
        body_part=record.facts.body_part,
        thickness_mm=plane.thickness if plane else None,
        images=images,
        ae_title=ae_title,
        orientation=orientation_of(plane.orientation) if plane else None,
    )


def _best(files: Sequence[Path], modality: Modality, settings: Settings) -> Series | str:
    found = scan(files, modality, settings).series
    usable = [series for series in found if series.code is None]
    if not usable:
        codes = {series.code for series in found if series.code} or {"no_usable_series"}
        return codes.pop() if len(codes) == 1 else "no_usable_series"
    return max(usable, key=_rank)


def _rank(series: Series) -> Ranking:
    return rank(series.facts, series.instances, series.usable_grid())
