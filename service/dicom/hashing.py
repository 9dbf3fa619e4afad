"""The content key: what makes two uploads the same input."""

import hashlib
import struct
from itertools import groupby

from .planes import Plane
from .rawpixels import FileReader
from .series import Series


def content_key(series: Series) -> str:
    """SHA-256 (hex) over every slice's SOP instance UID, frame, place, rescale and stored pixels,
    in the order of ``series.instances``. The order and the names of the files do not matter."""
    digest = hashlib.sha256(f"{series.modality}\x00{len(series.instances)}".encode())
    for _, run in groupby(series.instances, key=lambda plane: plane.file.path):
        _add_run(digest, list(run))
    return digest.hexdigest()


def _add_run(digest: "hashlib._Hash", planes: list[Plane]) -> None:
    reader = FileReader.open(planes[0].file)
    for plane in planes:
        digest.update(_head(plane))
        if reader.native:
            digest.update(reader.raw(plane.frame))
    if not reader.native:
        digest.update(reader.raw(None))


def _head(plane: Plane) -> bytes:
    place = (*(plane.position or ()), *(plane.orientation or ()), *(plane.pixel_spacing or ()))
    numbers = (*place, *plane.rescale)
    text = f"{plane.file.sop_instance_uid}\x00{plane.frame}\x00{plane.file.syntax}\x00"
    return text.encode() + struct.pack(f"<{len(numbers)}d", *numbers)
