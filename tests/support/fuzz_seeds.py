"""Valid inputs of every target, from which its corpus grows, and the words of its language."""

import gzip
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from dicom_phantoms import Grid, Recipe, body, without_meta, write_enhanced, write_series
from fuzz_targets import BOUNDARY, packed
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from model.nifti import write_nifti

GRID = Grid(shape=(3, 32, 32))  # the smallest that JPEG 2000 compresses
VALUES = body(GRID)
NATIVE = (
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)  # fmt: skip
ENCAPSULATED = (RLELossless, JPEGLSLossless, JPEG2000Lossless)
SITE = """
nodes:
  pacs:
    dimse: {host: 10.0.0.1, port: 104, ae_title: PACS}
    dicomweb: {url: "https://pacs.example/dicom-web", username: u, password_file: secret}
    timeout_s: 20
destinations:
  archive: {node: pacs, by: dimse, confirm: auto, profile: thin}
profiles:
  thin: {seg: labelmap, deflate: true, capture: never}
callers: [{ae_title: CT1, host: 10.0.0.9}]
archive: pacs
rules:
  - name: liver
    when: {modality: ct, description: "liver|abd", thickness_mm: [0.5, 5], origin: [dimse]}
    then: {model: small, priority: urgent, series: best, destinations: [archive]}
  - name: rest
    then: {ignore: true}
"""
TAGGED = ("!!bool x", "!!int x", "!!float 1:2", "!!timestamp x", "!!binary x", "!!set {a: 1}",
          "!!null x", "!!omap [a: 1]", "1e999", "2020-01-01", "- ? {a: b}")  # fmt: skip
QIDO = [
    {
        "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
        "0020000E": {"vr": "UI", "Value": ["1.2.3.4"]},
        "00080018": {"vr": "UI", "Value": ["1.2.3.4.5"]},
        "00200011": {"vr": "IS", "Value": [2]},
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "0008103E": {"vr": "LO", "Value": ["liver"]},
        "00180015": {"vr": "CS", "Value": ["ABDOMEN"]},
        "00201209": {"vr": "IS", "Value": ["120"]},
        "00180050": {"vr": "DS", "Value": [1.5]},
        "00200037": {"vr": "DS", "Value": [1, 0, 0, 0, 1, 0]},
        "00280008": {"vr": "IS", "Value": [1]},
        "00081199": {"vr": "SQ", "Value": [{"00081150": {"vr": "UI", "Value": ["1.2"]}}]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B"}]},
        "7FE00010": {"vr": "OW", "InlineBinary": "AAAA"},
    }
]
CURSORS = (
    b"MjAyNi0wMS0wMVQwMDowMDowMCswMDowMHwwMTk4ZjFkMi1jMGRlLTdhNDEtYjZmMC1hMmM0ZThkMDEzNTc=",
    b"12345", b"wait=10, respond-async", b'wait="3"; x', b"application/dicom; q=1, */*",
    b"[::1]:8080", b"localhost:80",
)  # fmt: skip


def seeds(name: str, folder: Path) -> list[bytes]:
    """Inputs that target ``name`` takes; ``folder`` is for scratch."""
    return list(MAKERS[name](folder))


def dicom_series(folder: Path) -> Iterator[list[bytes]]:
    """A tiny CT series in every kind of syntax, one without file meta, one multi-frame."""
    for syntax in (*NATIVE, *ENCAPSULATED):
        paths = write_series(folder / syntax, VALUES, GRID, Recipe(syntax=syntax))
        yield [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    paths = write_series(folder / "bare", VALUES, GRID, Recipe(syntax=ImplicitVRLittleEndian))
    for path in paths:
        without_meta(path)
    yield [path.read_bytes() for path in paths]
    recipe = Recipe(modality="CT", intercept=0)
    yield [write_enhanced(folder / "enhanced", [VALUES], GRID, recipe).read_bytes()]


def _files(folder: Path) -> Iterator[bytes]:
    return (files[0] for files in dicom_series(folder))


def _series(folder: Path) -> Iterator[bytes]:
    return (packed(files) for files in dicom_series(folder))


def _codestreams(folder: Path) -> Iterator[bytes]:
    for number, one in enumerate(_files(folder)):
        yield bytes([number]) + one[-1500:]
    yield b"\x00\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x0b\x08\x00\x06\x00\x08\x01\x01\x11\x00"


def _niftis(folder: Path) -> Iterator[bytes]:
    write_nifti(folder / "x.nii", VALUES, np.diag([1.0, 1.5, 5.0, 1.0]))
    plain = (folder / "x.nii").read_bytes()
    yield plain
    yield gzip.compress(plain)
    write_nifti(folder / "f.nii", VALUES.astype(np.float32), np.diag([1.0, 1.5, 5.0, 1.0]))
    yield (folder / "f.nii").read_bytes()


def _archives(folder: Path) -> Iterator[bytes]:
    for names in (["a.dcm", "b/c.dcm"], ["../a", "/b"], ["__MACOSX/._a", "a.zip"], []):
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
            packer = io.BytesIO()
            with zipfile.ZipFile(packer, "w", method) as archive:
                for name in names:
                    archive.writestr(name, bytes(128) + b"DICM" + bytes(40))
            yield packer.getvalue()
    yield from _niftis(folder)


def _stow(_: Path) -> Iterator[bytes]:
    head = b"--%b\r\nContent-Type: application/dicom\r\n\r\n" % BOUNDARY
    end = b"\r\n--%b--\r\n" % BOUNDARY
    yield head + b"abc" + end
    yield head + b"abc\r\n" + head + b"\r\n-def" + end


def _forms(_: Path) -> Iterator[bytes]:
    head = b'--B\r\nContent-Disposition: form-data; name="files"; filename="%b"\r\n\r\n'
    yield b"B\n" + head % b"a.dcm" + b"abc" + b"\r\n--B--\r\n"
    yield b"B\n" + head % b".DS_Store" + b"abc\r\n" + head % b"\xff" + b"\r\n--B--\r\n"


def _sites(_: Path) -> Iterator[bytes]:
    yield SITE.encode()
    for text in TAGGED:
        yield text.encode()
        yield f"rules: [{{name: {text}}}]".encode()


def _qidos(_: Path) -> Iterator[bytes]:
    yield json.dumps(QIDO).encode()
    yield json.dumps([{"00081190": {"vr": "UR", "BulkDataURI": "http://x"}}]).encode()


MAKERS: Mapping[str, Callable[[Path], Iterator[bytes]]] = {
    "header": _files, "head": _files, "codestream": _codestreams, "series": _series,
    "arrival": _series, "nifti": _niftis, "archive": _archives, "stow": _stow, "form": _forms,
    "site": _sites, "qido": _qidos, "query": lambda _: iter(CURSORS),
}  # fmt: skip
_TAGS = (
    "08001800", "08006000", "28001000", "28001100", "28000001", "28000800", "20003200",
    "20003700", "28003000", "E07F1000", "FEFF00E0", "FEFFDDE0", "3052 2992".replace(" ", ""),
)  # fmt: skip
_DICOM = (*map(bytes.fromhex, _TAGS), b"UI", b"SQ", b"DS", b"OW", b"UN", b"ISO 2022 IR 87",
          b"\xff\xff\xff\xff", b"nan", b"1e400", b"MONOCHROME2", b"CT",
          *(str(uid).encode() for uid in (*NATIVE, *ENCAPSULATED)))  # fmt: skip
WORDS: Mapping[str, tuple[bytes, ...]] = {
    "header": _DICOM, "head": _DICOM, "series": _DICOM, "arrival": _DICOM,
    "codestream": (b"\xff\xd8", b"\xff\x4f\xff\x51", b"\xff\xc0", b"\xff\xf7"),
    "nifti": (b"n+1", b"n+2", b"ni1", b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\x1f\x8b\x08"),
    "archive": (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07",
                b"../", b"\xff\xff\xff\xff"),
    "stow": (b"\r\n--XX", b"--XX--", b"\r\n\r\n"),
    "form": (b"\r\n--B", b"--B--", b"\r\n\r\n", b'name="files"', b"filename="),
    "site": (b"!!bool ", b"!!timestamp ", b"!!int ", b"rules:", b"when:", b"then:", b"&a", b"*a",
             b"<<: ", b"modality: ct", b"thickness_mm: [1, 2]", b"? ", b"- "),
    "qido": (b'"vr"', b'"Value"', b'"InlineBinary"', b'"Alphabetic"', b"NaN", b"1e999",
             b"null", b'"SQ"', b'"AT"', b'"DA"'),
    "query": (b"wait=", b"|", b"+00:00", b"application/dicom", b"Mj"),
}  # fmt: skip


def dictionary(name: str) -> str:
    """``WORDS`` as libFuzzer reads them."""
    quoted = ("".join(f"\\x{byte:02X}" for byte in word) for word in WORDS[name])
    return "".join(f'"{word}"\n' for word in quoted)
