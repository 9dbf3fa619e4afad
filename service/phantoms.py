"""Which model phantoms get, and that patients never get theirs.

`aqcf acceptance` sends phantoms through the site's PACS. They carry a mark in two places, and the
mark alone decides: marked images are segmented by the acceptance model, whatever was asked for, and
the acceptance model takes no others.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from model.spec import ModelFolder

from .cases import Case
from .dicom.heads import UnreadableHeadError, read_head
from .errors import PhantomsOnlyError
from .registry import ACCEPTANCE, ModelRegistry

PATIENT_ID: Final = "AQCF-ACCEPTANCE"
DEVICE: Final = "AQCF acceptance phantom"
NOTE: Final = "A phantom of the acceptance test, not a patient; the acceptance model segmented it."


def settled(models: ModelRegistry, asked: ModelFolder, case: Case) -> ModelFolder:
    """The model that segments the case: the one asked for, or for phantoms their own.

    Raises ``PhantomsOnlyError`` when the acceptance model is asked for anything else,
    ``ModelUnavailableError`` when it is not installed.
    """
    if case.kind == "dicom" and marked(case.files):
        return models.acceptance()
    if asked.spec.id == ACCEPTANCE:
        raise PhantomsOnlyError(
            f"the model {ACCEPTANCE} takes the phantoms of `aqcf acceptance` and nothing else"
        )
    return asked


def marked(files: Iterable[Path]) -> bool:
    """Whether every image is a phantom's: its ManufacturerModelName (0008,1090) is ours, and its
    PatientID (0010,0020) holds ours; archives put something before or behind a PatientID."""
    found = False
    for file in files:
        found = _is_marked(file)
        if not found:
            return False
    return found


def _is_marked(file: Path) -> bool:
    try:
        head = read_head(file)
    except UnreadableHeadError:
        return False
    return head.model_name == DEVICE and PATIENT_ID in head.patient_id
