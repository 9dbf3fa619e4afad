"""The words for what was refused, and for what a usable series lacked."""

from collections import Counter
from collections.abc import Iterable

from .header import FileRecord, SeriesFacts
from .planes import Plane
from .receipt import ReceiptLine
from .uids import is_uid

REASONS = {
    "not_dicom": "not DICOM",
    "invalid_dicom": "begins as DICOM but its header is corrupt",
    "not_an_image": "a DICOM object that is not an image (segmentation, structures, report, ...)",
    "wrong_modality": "the series is of another modality",
    "localizer": "a localizer (scout), not a volume",
    "colour_image": "colour images; a volume needs grey values",
    "no_pixel_data": "images without pixel data",
    "truncated_pixel_data": "the pixel data ends before the image does",
    "unsupported_pixel_format": "pixels of an unsupported kind (syntax, float, bits, or rescale)",
    "input_too_large": "more voxels declared than this service accepts",
    "incomplete_concatenation": "parts of a multi-frame image are missing",
    "invalid_geometry": "frames without the description that a multi-frame image needs",
}


def refused_lines(records: Iterable[FileRecord]) -> tuple[ReceiptLine, ...]:
    """One line for each kind of file that belongs to no image series (keys ``x1``, ``x2``...)."""
    kinds = Counter(
        (record.problem or "", record.facts.modality if record.facts else "")
        for record in records
        if record.problem and (record.facts is None or record.problem == "not_an_image")
    )
    return tuple(
        ReceiptLine(
            key=f"x{number}",
            modality=modality,
            images=kinds[code, modality],
            rows=None,
            columns=None,
            spacing_mm=None,
            description="",
            status="rejected",
            code=code,
            reason=REASONS[code],
        )
        for number, (code, modality) in enumerate(sorted(kinds), start=1)
    )


def made_up(facts: SeriesFacts, planes: tuple[Plane, ...]) -> tuple[str, ...]:
    """What the results will carry that the headers lacked."""
    lacking = (
        ("study UID", not is_uid(facts.study_uid)),
        ("series UID", not is_uid(facts.uid)),
        ("instance UIDs", any(not is_uid(plane.file.sop_instance_uid) for plane in planes)),
        ("modality", not facts.modality),
    )
    return tuple(
        f"no valid {what} in the headers; one is made up" for what, found in lacking if found
    )
