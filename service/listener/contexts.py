"""Which presentation contexts are accepted: all of storage, in what can be read.

Contexts are made for what a caller proposes, so that a study with a private or a new kind of object
comes over whole: an archive that cannot send everything often sends it all again.
"""

from collections.abc import Iterable

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom import ALL_TRANSFER_SYNTAXES
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

IMAGE_SYNTAXES: tuple[str, ...] = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
    JPEGLosslessSV1,
    JPEGLossless,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    JPEG2000,
    HTJ2K,
)
"""What CT and MR images are taken in, preferred first: all that ``service.dicom`` decodes."""

OTHER_SYNTAXES: tuple[str, ...] = (
    *IMAGE_SYNTAXES,
    *(syntax for syntax in ALL_TRANSFER_SYNTAXES if syntax not in IMAGE_SYNTAXES),
)
"""What else may lie in a study (a video, a report) is stored and set aside, never decoded."""

DICOM_ROOT = "1.2.840.10008."
CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"


def is_storage(sop_class_uid: str) -> bool:
    """A storage class of the standard, or a private one, which nothing but storage uses."""
    private = not sop_class_uid.startswith(DICOM_ROOT)
    return private or uid_to_service_class(sop_class_uid) is StorageServiceClass


def contexts_for(proposed: Iterable[PresentationContext]) -> list[PresentationContext]:
    """What to support of what a caller proposes."""
    classes = dict.fromkeys(str(context.abstract_syntax) for context in proposed)
    return [build_context(UID(uid), list(_syntaxes(uid))) for uid in classes if is_storage(uid)]


def _syntaxes(sop_class_uid: str) -> tuple[str, ...]:
    images = any(sop_class_uid == root or sop_class_uid.startswith(f"{root}.") for root in (CT, MR))
    return IMAGE_SYNTAXES if images else OTHER_SYNTAXES
