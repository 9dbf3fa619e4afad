"""Bad uploads over HTTP: each a typed 4xx in time, nothing left behind, and the service goes on."""

import io
import socket
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

LIMIT_S = 5.0
GIB = 1024**3


class Bench:
    """Makes one bad upload; ``made`` are the makers that the service's tests share."""

    def __init__(self, made: Any, folder: Path) -> None:
        self.made = made
        self.folder = folder

    def series(self, *, slices: int = 24, modality: str = "CT") -> list[Path]:
        array = self.made.phantom()[:slices]
        files: list[Path] = self.made.write_series(self.folder / "s", array, modality=modality)
        return files

    def changed(self, change: Callable[[Any, int], None], slices: int = 24) -> list[bytes]:
        """A series whose headers were changed one by one."""
        result = []
        for index, path in enumerate(self.series(slices=slices)):
            dataset = dcmread(path)
            change(dataset, index)
            buffer = io.BytesIO()
            dataset.save_as(buffer, enforce_file_format=True)
            result.append(buffer.getvalue())
        return result

    def nifti(self, array: Any, change: Callable[[bytearray], None] = lambda _: None) -> bytes:
        path = self.folder / "x.nii.gz"
        self.made.make_nifti(path, array)
        raw = bytearray(zlib.decompress(path.read_bytes(), wbits=31))
        change(raw)
        return bytes(raw)


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def symlink_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("link.dcm")
        link.create_system = 3
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return buffer.getvalue()


def encrypted_zip() -> bytes:
    raw = bytearray(zipped({"a.dcm": b"x" * 100}))
    raw[6] |= 1  # the flag in the local header
    raw[raw.index(b"PK\x01\x02") + 8] |= 1  # and in the directory
    return bytes(raw)


def zeros_zip(size: int = 10 * GIB) -> bytes:
    """A zip member of ``size`` zeros in about ``size`` / 1030 bytes, made from one deflated block
    that is repeated."""
    block = 64 * 1024**2
    packer = zlib.compressobj(9, wbits=-15)
    piece = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    body = piece * (size // block) + b"\x03\x00"
    name = b"zeros.dcm"
    zip64 = struct.pack("<HHQQ", 1, 16, size, len(body))
    head = struct.pack("<4s5H3I2H", b"PK\x03\x04", 45, 0, 8, 0, 0, 0, 2**32 - 1, 2**32 - 1,
                       len(name), len(zip64)) + name + zip64  # fmt: skip
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 45, 45, 0, 8, 0, 0, 0, 2**32 - 1, 2**32 - 1,
                        len(name), len(zip64), 0, 0, 0, 0, 0) + name + zip64  # fmt: skip
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(entry), len(head) + len(body), 0)
    return head + body + entry + end


def dims(*sizes: int) -> Callable[[bytearray], None]:
    def change(raw: bytearray) -> None:
        struct.pack_into("<8h", raw, 40, len(sizes), *sizes, *[1] * (7 - len(sizes)))

    return change


def no_spacing(raw: bytearray) -> None:
    struct.pack_into("<4f", raw, 76, 1.0, 0.0, 0.0, 0.0)
    struct.pack_into("<2h", raw, 252, 0, 0)


def unchanged(_dataset: Any, _index: int) -> None:
    """For a series that is bad by its number of slices alone."""


def colour(dataset: Any, _index: int) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
    dataset.PlanarConfiguration, dataset.PixelRepresentation = 0, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = bytes(dataset.Rows * dataset.Columns * 3)


def localizer(dataset: Any, _index: int) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


def matrix(dataset: Any, index: int) -> None:
    if index == 5:
        dataset.Rows -= 2
        dataset.PixelData = dataset.PixelData[: dataset.Rows * dataset.Columns * 2]


def orientations(dataset: Any, index: int) -> None:
    if index % 3 == 1:
        dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    elif index % 3 == 2:
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    dataset.ImagePositionPatient = [0, 0, 7.0 * (index // 3) ** 2]


def reclassed(uid: str, modality: str) -> Callable[[Any, int], None]:
    """A SEG or an RTSTRUCT, as far as headers say."""

    def change(dataset: Any, _index: int) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid
        dataset.Modality = modality
        if modality == "RTSTRUCT":
            del dataset.PixelData, dataset.Rows, dataset.Columns

    return change


def vast(dataset: Any, _index: int) -> None:
    dataset.Rows = dataset.Columns = 65535


def truncated(bench: Bench) -> list[bytes]:
    return [path.read_bytes()[:-500] for path in bench.series()]


def nan(bench: Bench) -> bytes:
    path = bench.folder / "nan.nii.gz"
    bench.made.make_nifti(path, np.full((8, 8, 8), np.nan, np.float32))
    return path.read_bytes()


SEG, RTSTRUCT = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.3"
CASES: dict[str, tuple[Callable[[Bench], bytes | list[bytes]], dict[int, str]]] = {
    "empty": (lambda _: b"", {400: "empty_upload"}),
    "text": (lambda _: b"Dear doctor, " * 200, {422: "not_dicom"}),
    "picture": (lambda _: b"\x89PNG\r\n\x1a\n" + bytes(100), {415: "unsupported_media"}),
    "one slice": (lambda b: b.changed(unchanged, 1), {422: "too_few_slices"}),
    "truncated": (truncated, {422: "truncated_pixel_data"}),
    "corrupt zip": (lambda _: b"PK\x03\x04" + bytes(500), {422: "corrupt_archive"}),
    "traversal": (lambda _: zipped({"../../evil.dcm": b"x"}), {422: "unsafe_archive"}),
    "absolute": (lambda _: zipped({"/evil.dcm": b"x"}), {422: "unsafe_archive"}),
    "symlink": (lambda _: symlink_zip(), {422: "unsafe_archive"}),
    "nested": (lambda _: zipped({"a.zip": zipped({"b": b"c"})}), {422: "nested_archive"}),
    "encrypted": (lambda _: encrypted_zip(), {422: "encrypted_archive"}),
    "10 GB of zeros": (lambda _: zeros_zip(), {413: "archive_too_large"}),
    "empty zip": (lambda _: zipped({}), {400: "empty_upload"}),
    "2-D": (lambda b: b.nifti(None, dims(40, 40)), {422: "not_3d"}),
    "4-D": (lambda b: b.nifti(None, dims(40, 40, 12, 2)), {422: "not_3d"}),
    "all NaN": (nan, {422: "no_finite_voxels"}),
    "no spacing": (lambda b: b.nifti(None, no_spacing), {422: "no_spacing"}),
    "billions": (lambda b: b.nifti(None, dims(3000, 3000, 3000)), {413: "input_too_large"}),
    "vast slices": (lambda b: b.changed(vast), {413: "input_too_large"}),
    "cut gzip": (
        lambda b: b.made.make_nifti(b.folder / "c.nii.gz").read_bytes()[:300],
        {422: "truncated_file"},
    ),
    "MR sent as ct": (
        lambda b: [p.read_bytes() for p in b.series(modality="MR")],
        {422: "wrong_modality"},
    ),
    "colour": (lambda b: b.changed(colour), {422: "colour_image"}),
    "SEG": (lambda b: b.changed(reclassed(SEG, "SEG")), {422: "not_an_image"}),
    "RTSTRUCT": (lambda b: b.changed(reclassed(RTSTRUCT, "RTSTRUCT")), {422: "not_an_image"}),
    "localizer": (lambda b: b.changed(localizer), {422: "localizer_only"}),
    "orientations": (lambda b: b.changed(orientations, 9), {422: "no_usable_series"}),
    "matrix": (lambda b: b.changed(matrix), {422: "inconsistent_pixel_grid"}),
}
WITH_RECEIPT = {"one slice", "MR sent as ct", "colour", "SEG", "RTSTRUCT", "localizer", "matrix"}


def send(live: Any, content: bytes | list[bytes]) -> Any:
    if isinstance(content, bytes):
        return live.post(content, kind="application/octet-stream")
    parts = [("files", (str(index), data)) for index, data in enumerate(content)]
    return live.http.post("/v1/segmentations?modality=ct", files=parts)


@pytest.mark.parametrize("name", CASES)
def test_bad_input(shared: Any, made: Any, tmp_path: Path, name: str) -> None:
    make, expected = CASES[name]
    content = make(Bench(made, tmp_path))
    began = time.monotonic()
    response = send(shared, content)
    seconds = time.monotonic() - began

    ((status, code),) = expected.items()
    problem = shared.problem(response, status, code)
    assert seconds < LIMIT_S
    if name in WITH_RECEIPT:
        assert {line["status"] for line in problem["receipt"]} <= {"rejected", "set_aside"}
    assert_clean(shared)


def assert_clean(live: Any) -> None:
    """No job, no file, and the next request is answered."""
    assert live.http.get("/v1/segmentations").json()["items"] == []
    assert live.container.artifacts.input_keys() == ()
    assert not list(live.container.artifacts.staging.iterdir())
    assert live.http.get("/healthz").status_code == 200


def test_no_liver_is_not_evaluable(live: Any, made: Any, tmp_path: Path) -> None:
    air = np.where(made.phantom() > 0, 20, -1000).astype(np.int16)
    files = made.write_series(tmp_path / "head", air)
    archive = zipped({file.name: file.read_bytes() for file in files})
    job = live.done(archive)
    assert (job["status"], job["outcome"]) == ("succeeded", "not_evaluable")
    seg = dcmread(io.BytesIO(live.http.get(job["links"]["seg"]).content))
    assert seg.Modality == "SEG"
    assert seg.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert live.http.get(job["links"]["measurements"]).json()["measurements"]["lesions"] == []


def test_declared_too_large_is_refused_unread(shared: Any) -> None:
    size = 10 * shared.container.settings.max_upload_bytes
    head = (
        "POST /v1/segmentations?modality=ct HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/zip\r\nContent-Length: {size}\r\n\r\n"
    )
    url = shared.http.base_url
    with socket.create_connection((url.host, url.port), timeout=LIMIT_S) as raw:
        raw.sendall(head.encode())
        assert raw.recv(1024).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("multipart", [False, True])
def test_undeclared_too_large_is_refused_while_it_streams(shared: Any, multipart: bool) -> None:
    limit = shared.container.settings.max_upload_bytes
    kind = "multipart/form-data; boundary=x" if multipart else "application/zip"

    def body() -> Any:
        if multipart:
            yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        for _ in range(limit // 2**20 + 8):
            yield bytes(2**20)

    shared.problem(shared.post(body(), kind=kind), 413, "upload_too_large")
    assert_clean(shared)


def test_too_many_parts(shared: Any) -> None:
    count = shared.container.settings.max_files + 1
    parts = [("files", (str(index), b"x")) for index in range(count)]
    response = shared.http.post("/v1/segmentations?modality=ct", files=parts)
    shared.problem(response, 413, "too_many_files")
    assert_clean(shared)


PART = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\ndata\r\n'


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (PART, "multipart/form-data; boundary=x", 400, "bad_multipart"),
        (PART + b"--x--", "multipart/form-data", 400, "bad_multipart"),
        (PART + b"--x--", f"multipart/form-data; boundary={'y' * 300}", 400, "bad_multipart"),
        (b"nothing", "multipart/form-data; boundary=x", 400, "bad_multipart"),
        (b"--x\r\nnonsense\r\n\r\n", "multipart/form-data; boundary=x", 400, "bad_multipart"),
        (PART.replace(b"files", b"file") + b"--x--", "multipart/form-data; boundary=x", 400,
         "bad_multipart"),
        (b"--x--\r\n", "multipart/form-data; boundary=x", 400, "empty_upload"),
        (b"{}", "application/json", 415, "unsupported_media"),
        (b"a=b", "application/x-www-form-urlencoded", 415, "unsupported_media"),
    ],
)  # fmt: skip
def test_bad_bodies(shared: Any, body: bytes, kind: str, status: int, code: str) -> None:
    shared.problem(shared.post(body, kind=kind), status, code)
    assert_clean(shared)


def test_compressed_bodies_are_not_unpacked(shared: Any) -> None:
    response = shared.post(b"x", headers={"Content-Encoding": "gzip"})
    shared.problem(response, 415, "unsupported_media")


def test_a_broken_connection_leaves_nothing(shared: Any) -> None:
    def body() -> Any:
        yield bytes(2**20)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        shared.post(body())
    time.sleep(0.5)
    assert_clean(shared)
