"""Archives and NIfTI files that lie, as strategies."""

import gzip
import io
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence

from hypothesis import strategies as st

MIB = 2**20
NAMES = (
    "a.dcm", "b/c.dcm", "a.dcm", "../x", "/etc/passwd", "..\\x", "C:\\x", "a/../../x", "", ".", "/",
    "x" * 5000, "nul\x00l", "\u202e.dcm", "__MACOSX/._a", ".DS_Store", "a.zip", "dir/", "\udcff",
)  # fmt: skip
CONTENTS = ("image", "image", "empty", "text", "zip", "gzip", "zeros", "noise")
MODES = (0, stat.S_IFREG, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFDIR)
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
FIELDS = (
    *((b"PK\x03\x04", at) for at in (4, 6, 8, 14, 18, 22, 26, 28)),
    *((b"PK\x01\x02", at) for at in (4, 6, 8, 10, 16, 20, 24, 28, 30, 32, 34, 38, 42)),
    *((b"PK\x05\x06", at) for at in (4, 6, 8, 10, 12, 16, 20)),
)
"""What records of a zip say, by the signature and the place behind it."""

members = st.tuples(
    st.sampled_from(NAMES), st.sampled_from(CONTENTS), st.sampled_from(MODES),
    st.sampled_from(METHODS),
)  # fmt: skip
lies = st.tuples(
    st.sampled_from(FIELDS),
    st.integers(0, 3),
    st.sampled_from((0, 1, 2, 8, 9, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1))
    | st.integers(0, 2**32 - 1),
)


def archive(
    made: Sequence[tuple[str, str, int, int]],
    told: Sequence[tuple[tuple[bytes, int], int, int]],
    images: Sequence[bytes],
    *,
    zip64: bool,
    cut: float | None,
) -> bytes:
    """A zip of ``images`` and of ``made``, whose records then say what ``told`` says."""
    packer = io.BytesIO()
    with zipfile.ZipFile(packer, "w") as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that come twice
        for number, image in enumerate(images):
            opened.writestr(f"{number}.dcm", image)
        for name, content, mode, method in made:
            _add(opened, name, _content(content, images), mode, method, zip64=zip64)
    data = bytearray(packer.getvalue())
    for (signature, at), which, value in told:
        _say(data, signature, at, which, value)
    return bytes(data if cut is None else data[: int(cut * len(data))])


def _add(
    opened: zipfile.ZipFile, name: str, content: bytes, mode: int, method: int, *, zip64: bool
) -> None:
    info = zipfile.ZipInfo(name.encode("utf-8", "replace").decode() or "x")
    info.external_attr, info.compress_type = (mode | 0o644) << 16, method
    with opened.open(info, "w", force_zip64=zip64) as stream:
        stream.write(content)


def _content(kind: str, images: Sequence[bytes]) -> bytes:
    if kind == "zip":
        return b"PK\x03\x04" + bytes(100)
    made: Mapping[str, bytes] = {
        "image": images[0] if images else b"x", "empty": b"", "text": b"Dear doctor",
        "gzip": gzip.compress(b"x"), "zeros": bytes(3 * MIB), "noise": bytes(range(256)) * 4,
    }  # fmt: skip
    return made[kind]


def _say(data: bytearray, signature: bytes, at: int, which: int, value: int) -> None:
    """Overwrite a field of one of the records, as many bytes as the value takes."""
    place = -1
    for _ in range(which + 1):
        found = data.find(signature, place + 1)
        place = found if found >= 0 else place
    size = 4 if value > 0xFFFF else 2
    if place >= 0 and place + at + size <= len(data):
        data[place + at : place + at + size] = value.to_bytes(size, "little")


NIFTI_FIELDS: Mapping[str, tuple[int, str]] = {
    "sizeof_hdr": (0, "i"), "rank": (40, "h"), "x": (42, "h"), "y": (44, "h"), "z": (46, "h"),
    "t": (48, "h"), "datatype": (70, "h"), "bitpix": (72, "h"), "qfac": (76, "f"),
    "dx": (80, "f"), "dy": (84, "f"), "dz": (88, "f"), "vox_offset": (108, "f"),
    "slope": (112, "f"), "inter": (116, "f"), "units": (123, "B"), "qform": (252, "h"),
    "sform": (254, "h"), "qb": (256, "f"), "qc": (260, "f"), "qd": (264, "f"), "qx": (268, "f"),
    "sx": (280, "f"), "sy": (300, "f"), "sz": (320, "f"), "st": (292, "f"), "magic": (344, "i"),
}  # fmt: skip
_floats = st.sampled_from(
    (float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e-30, 3e38, 1e6, 348.0, 0.5, 60.0)
) | st.floats(width=32)
_whole = st.sampled_from((0, 1, 2, 3, 4, 5, 7, 8, 16, 64, 100, 256, 1792, -1, -32768, 32767))
_bytes = st.integers(0, 255)


def _field(name: str) -> st.SearchStrategy[tuple[str, float]]:
    kind = NIFTI_FIELDS[name][1]
    return st.tuples(st.just(name), {"f": _floats, "B": _bytes}.get(kind, _whole))


nifti_lies = st.lists(st.sampled_from(sorted(NIFTI_FIELDS)).flatmap(_field), max_size=4)


def nifti(
    plain: bytes, told: Sequence[tuple[str, float]], *, packed: str, cut: float | None
) -> bytes:
    """A NIfTI-1 file with other words in its header; ``packed``: ``no``, ``gzip``, ``bomb`` (zeros
    follow that the header does not know of) or ``torn`` (a gzip with damage inside)."""
    data = bytearray(plain)
    for name, value in told:
        at, kind = NIFTI_FIELDS[name]
        struct.pack_into(f"<{kind}", data, at, value if kind == "f" else int(value))
    whole = bytes(data if cut is None else data[: int(cut * len(data))])
    if packed == "no":
        return whole
    if packed == "bomb":
        return zipped_zeros(whole, 256)
    done = bytearray(gzip.compress(whole, 1))
    if packed == "torn":
        done[len(done) // 2 : len(done) // 2 + 4] = b"\xff\x00\xff\x00"
    return bytes(done)


def zipped_zeros(start: bytes, megabytes: int) -> bytes:
    """A gzip that begins with ``start`` and goes on with zeros."""
    engine = zlib.compressobj(1, wbits=31)
    parts = [engine.compress(start), engine.flush(zlib.Z_FULL_FLUSH)]
    block = engine.compress(bytes(MIB)) + engine.flush(zlib.Z_FULL_FLUSH)
    return b"".join([*parts, block, *[block] * (megabytes - 1)]) + engine.flush()
