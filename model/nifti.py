"""NIfTI-1 and NIfTI-2 in, NIfTI-1 out. The header is judged before a voxel is read."""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from .errors import GeometryError, InputError, InputTooLargeError
from .types import Affine, Modality, NativeArray, ShapeZYX
from .volume import Volume, check_grid, lean_of, straight

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MAX_OFFSET = 1 << 24  # header extensions end long before
_GZIP = b"\x1f\x8b"
_GZIP_LEVEL = 1  # masks shrink a hundredfold at any level
_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4",
           1024: "i8", 1280: "u8"}  # fmt: skip
_CODES = {np.dtype(text): code for code, text in _DTYPES.items()}
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unknown counts as mm, as everywhere

_NIFTI1 = np.dtype(
    {
        "names": ["sizeof_hdr", "dim", "datatype", "bitpix", "pixdim", "vox_offset", "scl_slope",
                  "scl_inter", "xyzt_units", "qform_code", "sform_code", "quatern", "qoffset",
                  "srow", "magic"],
        "formats": ["<i4", ("<i2", 8), "<i2", "<i2", ("<f4", 8), "<f4", "<f4", "<f4", "u1", "<i2",
                    "<i2", ("<f4", 3), ("<f4", 3), ("<f4", (3, 4)), "S4"],
        "offsets": [0, 40, 70, 72, 76, 108, 112, 116, 123, 252, 254, 256, 268, 280, 344],
        "itemsize": 348,
    }
)  # fmt: skip
_NIFTI2 = np.dtype(
    {
        "names": ["sizeof_hdr", "magic", "datatype", "bitpix", "dim", "pixdim", "vox_offset",
                  "scl_slope", "scl_inter", "qform_code", "sform_code", "quatern", "qoffset",
                  "srow", "xyzt_units"],
        "formats": ["<i4", "S4", "<i2", "<i2", ("<i8", 8), ("<f8", 8), "<i8", "<f8", "<f8", "<i4",
                    "<i4", ("<f8", 3), ("<f8", 3), ("<f8", (3, 4)), "<i4"],
        "offsets": [0, 4, 12, 14, 16, 104, 168, 176, 184, 344, 348, 352, 376, 400, 500],
        "itemsize": 540,
    }
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """``max_voxels``: declared voxels of one volume."""

    max_voxels: int = 400_000_000


def read_nifti(path: Path, modality: Modality, *, limits: Limits = Limits()) -> Volume:
    """One 3-D volume from a ``.nii`` or ``.nii.gz`` file (told apart by content, not by name).

    The sform places it where there is one, else the qform. Integer voxels stay as stored unless
    the header scales them (float32 then). A fourth dimension of length 1 is dropped.

    Raises ``InputError`` with code ``not_nifti``, ``truncated_file``, ``unsupported_pixels``,
    ``no_finite_voxels`` or ``non_finite_voxels``; ``GeometryError`` with ``not_3d``,
    ``no_spacing`` or a code of ``check_grid``; ``InputTooLargeError``. All but the non-finite and
    truncation checks speak before voxels are read.
    """
    try:
        with _open(path) as stream:
            header = _read_header(stream)
            shape = _shape(header, limits)
            affine = _affine(header)
            check_grid(shape, affine)
            array = _scaled(_read_voxels(stream, header, shape), header)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError("the file ends or breaks off early", code="truncated_file") from error
    _check_finite(array)
    return Volume(array, affine, modality)


def write_nifti(path: Path, array: NDArray[np.generic], affine: Affine) -> None:
    """Write ``(z, y, x)`` voxels as NIfTI-1 with equal sform and qform; gzip when the name ends in
    ``.gz``. Equal input gives equal bytes.

    Slices that lean have an exact sform and no qform, which cannot say it: a reader without shear
    (ITK) refuses such a file instead of putting it elsewhere. ``pixdim`` multiplies to the volume
    of a voxel.
    """
    header = _new_header(array, affine)
    body = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    with path.open("wb") as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as stream:
                stream.write(header)
                stream.write(body.data.cast("B"))
        else:
            raw.write(header)
            raw.write(body.data.cast("B"))


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as raw:
        packed = raw.read(2) == _GZIP
    return cast(BinaryIO, gzip.open(path, "rb")) if packed else path.open("rb")


def _read_header(stream: BinaryIO) -> np.void:
    head = stream.read(_NIFTI2.itemsize)
    for dtype, magics in ((_NIFTI1, (b"n+1",)), (_NIFTI2, (b"n+2",))):
        for order in ("<", ">"):
            if len(head) < dtype.itemsize:
                continue
            header = np.frombuffer(head, dtype.newbyteorder(order), 1)[0]
            if header["sizeof_hdr"] == dtype.itemsize and header["magic"] in magics:
                return header  # type: ignore[no-any-return]
    raise InputError("the file is not a single-file NIfTI image", code="not_nifti")


def _shape(header: np.void, limits: Limits) -> ShapeZYX:
    rank, *sides = (int(side) for side in header["dim"])
    if not (3 <= rank <= 7 and min(sides[:3]) >= 2 and all(n == 1 for n in sides[3:rank])):
        shown = " x ".join(str(side) for side in sides[: min(max(rank, 0), 7)])
        raise GeometryError(f"the image is {shown}; a volume has 3 dimensions", code="not_3d")
    x, y, z = sides[:3]
    if x * y * z > limits.max_voxels:
        raise InputTooLargeError(
            f"the header declares {x} x {y} x {z} voxels; the limit is {limits.max_voxels}"
        )
    return z, y, x


def _affine(header: np.void) -> Affine:
    """RAS of the file to LPS, in mm."""
    pixdim = header["pixdim"][1:4].astype(np.float64)
    placed = header["sform_code"] > 0 or header["qform_code"] > 0
    if not (placed and np.isfinite(pixdim).all() and (pixdim > 0).all()):
        raise GeometryError(
            f"the header gives no place in space (pixdim {pixdim.tolist()}, qform code "
            f"{int(header['qform_code'])}, sform code {int(header['sform_code'])})",
            code="no_spacing",
        )
    ras = np.eye(4)
    with np.errstate(invalid="ignore", over="ignore"):  # ``check_grid`` refuses what comes of it
        ras[:3] = header["srow"] if header["sform_code"] > 0 else _qform(header, pixdim)
        ras[:3] *= _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
        return _RAS_TO_LPS @ ras


def _qform(header: np.void, pixdim: NDArray[np.float64]) -> NDArray[np.float64]:
    b, c, d = header["quatern"].astype(np.float64)
    a = np.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    qfac = -1.0 if header["pixdim"][0] < 0 else 1.0
    rotation = Rotation.from_quat([b, c, d, a]).as_matrix()
    axes = rotation * pixdim * [1.0, 1.0, qfac]
    return np.column_stack([axes, header["qoffset"].astype(np.float64)])


def _read_voxels(stream: BinaryIO, header: np.void, shape: ShapeZYX) -> NativeArray:
    code = int(header["datatype"])
    if code not in _DTYPES:
        raise InputError(
            f"NIfTI data type {code} is not one number per voxel", code="unsupported_pixels"
        )
    order = header.dtype["sizeof_hdr"].byteorder
    dtype = np.dtype(_DTYPES[code]).newbyteorder("<" if order in "=<" else ">")
    stream.seek(_offset(header))
    array = np.empty(shape, dtype)
    view, filled = array.reshape(-1).view(np.uint8).data, 0
    while filled < len(view):
        count = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        filled += count
    return array.astype(dtype.newbyteorder("="), copy=False)


def _offset(header: np.void) -> int:
    """Where the voxels begin: after the header, and not so far that seeking there is work."""
    offset = float(header["vox_offset"])
    if not header.dtype.itemsize <= offset <= _MAX_OFFSET:
        raise InputError(f"the header puts the voxels at byte {offset}", code="not_nifti")
    return int(offset)


def _scaled(array: NativeArray, header: np.void) -> NativeArray:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if not (np.isfinite(slope) and np.isfinite(inter)) or slope == 0 or (slope, inter) == (1, 0):
        return array
    with np.errstate(over="ignore", invalid="ignore"):  # ``_check_finite`` looks at it
        scaled = array.astype(np.float32)
        scaled *= np.float32(slope)
        scaled += np.float32(inter)
    return scaled


def _check_finite(array: NativeArray) -> None:
    if array.dtype.kind != "f":
        return
    finite = np.abs(array) <= np.finfo(np.float32).max  # what is beyond becomes infinite later
    if not finite.any():
        raise InputError("the image holds no finite voxel", code="no_finite_voxels")
    if not finite.all():
        count = int(finite.size - np.count_nonzero(finite))
        raise InputError(
            f"the image holds {count} NaN, infinite or immense voxels", code="non_finite_voxels"
        )


def _new_header(array: NDArray[np.generic], affine: Affine) -> bytes:
    header = np.zeros(1, _NIFTI1)[0]
    ras = _RAS_TO_LPS @ affine
    upright = _RAS_TO_LPS @ straight(affine)
    spacing = np.linalg.norm(upright[:3, :3], axis=0)
    axes = upright[:3, :3] / spacing
    qfac = 1.0 if np.linalg.det(axes) > 0 else -1.0
    quaternion = Rotation.from_matrix(axes * [1.0, 1.0, qfac]).as_quat(canonical=True)
    header["sizeof_hdr"], header["magic"], header["vox_offset"] = 348, b"n+1", 352
    header["dim"] = [3, *reversed(array.shape), 1, 1, 1, 1]
    header["datatype"] = _CODES[array.dtype.newbyteorder("=")]
    header["bitpix"] = 8 * array.dtype.itemsize
    header["pixdim"] = [qfac, *spacing, 0, 0, 0, 0]
    header["scl_slope"], header["xyzt_units"] = 1.0, 2
    header["qform_code"], header["sform_code"] = int(not lean_of(affine).any()), 1
    header["quatern"], header["qoffset"] = quaternion[:3], ras[:3, 3]
    header["srow"] = ras[:3]
    return bytes(header.tobytes()) + bytes(4)
