"""The content key: what makes two uploads the same input."""

import hashlib
import struct
from itertools import groupby

import numpy as np
from pydicom.uid import ExplicitVRLittleEndian

from .planes import Plane, SourceFile
from .rawpixels import FileReader, is_native
from .series import Series


def content_key(series: Series) -> str:
    """SHA-256 (hex) over every slice's SOP instance UID, frame, place, rescale and stored pixels,
    in the order of ``series.instances``, and over whose images they are: once an archive has
    corrected a patient or a study, a result under the old one must not come back. The order and
    the names of the files do not matter, nor in which of the uncompressed transfer syntaxes the
    pixels are.

    Compressed pixels are hashed as they are stored, and with their transfer syntax: to decode them
    takes longer than all else that is done before an upload is answered.
    """
    digest = hashlib.sha256(f"{series.modality}\x00{len(series.instances)}".encode())
    for _, run in groupby(series.instances, key=lambda plane: plane.file.path):
        _add_run(digest, list(run))
    return digest.hexdigest()


def _add_run(digest: "hashlib._Hash", planes: list[Plane]) -> None:
    reader = FileReader.open(planes[0].file)
    for plane in planes:
        digest.update(_head(plane))
        if reader.native:
            digest.update(_little_endian(reader.raw(plane.frame), plane.file))
    if not reader.native:
        digest.update(reader.raw(None))


def _head(plane: Plane) -> bytes:
    place = (*(plane.position or ()), *(plane.orientation or ()), *(plane.pixel_spacing or ()))
    numbers = (*place, *plane.rescale)
    syntax = ExplicitVRLittleEndian if is_native(plane.file) else plane.file.syntax
    uid, owner = plane.file.sop_instance_uid, "\x00".join(plane.file.owner)
    text = f"{uid}\x00{owner}\x00{plane.frame}\x00{syntax}\x00"
    return text.encode() + struct.pack(f"<{len(numbers)}d", *numbers)


def _little_endian(raw: bytes, file: SourceFile) -> bytes:
    size = file.bits[0] // 8
    if file.little_endian or size == 1:
        return raw
    whole = raw[: len(raw) - len(raw) % size]
    return np.frombuffer(whole, f">u{size}").astype(f"<u{size}").tobytes()
