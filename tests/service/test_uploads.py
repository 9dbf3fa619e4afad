"""Uploads from strangers: each refused by its code, quickly, or unpacked safely."""

import gzip
import stat
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.errors import InputError
from service.errors import StorageFullError, UploadTooLargeError
from service.settings import Settings
from service.storage.artifacts import FolderStore
from service.uploads import Opened, Receiver, Upload, open_upload

MIB = 1024**2
DICOM = bytes(128) + b"DICM" + bytes(100)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """No upload takes 5 s (of CPU: the machine may be busy) or 200 MB."""
    tracemalloc.start()
    start = time.process_time()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - start < 5
    assert peak < 200 * MIB


def refusal(path: Path, workspace: Path, settings: Settings) -> str:
    """The code; and nothing may lie outside the workspace afterwards."""
    before = sorted(workspace.parent.iterdir())
    with pytest.raises(InputError) as caught:
        open_upload(Upload((path,)), workspace, settings)
    assert sorted(workspace.parent.iterdir()) == before
    return caught.value.code


def raw_zip(path: Path, name: str, data: bytes, **changes: Any) -> Path:
    """One member whose directory entry says what ``changes`` say."""
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo(name)
        for key, value in changes.items():
            setattr(info, key, value)
        archive.writestr(info, data)
    return path


def patch_zip(path: Path, signature: bytes, offset: int, value: bytes) -> Path:
    """Overwrite a field after the first ``signature``."""
    data = bytearray(path.read_bytes())
    at = data.find(signature) + offset
    data[at : at + len(value)] = value
    path.write_bytes(data)
    return path


def test_a_zip_of_dicom(tmp_path: Path, workspace: Path, settings: Settings, made: Any) -> None:
    junk = {"__MACOSX/._a.dcm": b"x", "s/.DS_Store": b"y", "s/b.dcm": DICOM, "s/empty": b""}
    archive = made.zip(tmp_path / "a.zip", {"s/a.dcm": DICOM, **junk})
    opened = open_upload(Upload((archive,)), workspace, settings)
    assert (opened.kind, len(opened.files)) == ("dicom", 2)
    assert all(file.read_bytes() == DICOM for file in opened.files)
    assert opened.notes == ("2 files of the operating system ignored", "1 empty files ignored")


def test_a_folder_with_links_and_junk(tmp_path: Path, workspace: Path, settings: Settings) -> None:
    folder = tmp_path / "folder" / "deep"
    folder.mkdir(parents=True)
    (folder / "a").write_bytes(DICOM)
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "picture").write_bytes(b"\x89PNG\r\n" + bytes(20))
    (folder / "link").symlink_to("/etc/passwd")
    opened = open_upload(Upload((tmp_path / "folder",)), workspace, settings)
    assert opened == Opened(
        "dicom",
        (folder / "a",),
        ("1 files of the operating system ignored", "1 files that are no images ignored"),
    )


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("zipped", [False, True])
def test_nifti_plain_packed_and_zipped(
    tmp_path: Path, workspace: Path, settings: Settings, *, made: Any, name: str, zipped: bool
) -> None:
    path = made.nifti(tmp_path / name)
    if zipped:
        path = made.zip(tmp_path / "a.zip", {"any name.bin": path})
    opened = open_upload(Upload((path,)), workspace, settings)
    assert (opened.kind, len(opened.files)) == ("nifti", 1)


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:\\evil", "\\\\host\\evil", "a\x00b"],
)
def test_paths_that_leave_the_folder(
    tmp_path: Path, workspace: Path, settings: Settings, name: str
) -> None:
    path = raw_zip(tmp_path / "a.zip", "x" * len(name), DICOM)
    path.write_bytes(path.read_bytes().replace(b"x" * len(name), name.encode()))
    assert refusal(path, workspace, settings) == "unsafe_archive"
    assert not list(workspace.iterdir())


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices(tmp_path: Path, workspace: Path, settings: Settings, kind: int) -> None:
    path = raw_zip(tmp_path / "a.zip", "a", b"/etc/passwd", external_attr=(kind | 0o777) << 16)
    assert refusal(path, workspace, settings) == "unsafe_archive"


def test_a_member_without_a_name(
    tmp_path: Path, workspace: Path, settings: Settings, made: Any
) -> None:
    path = made.zip(tmp_path / "a.zip", {"a": DICOM})
    patch_zip(path, b"PK\x01\x02", 28, struct.pack("<3H", 0, 0, 1))  # its letter is a comment
    assert refusal(path, workspace, settings) == "unsafe_archive"


def test_an_encrypted_zip(tmp_path: Path, workspace: Path, settings: Settings) -> None:
    path = raw_zip(tmp_path / "a.zip", "a", DICOM)
    patch_zip(path, b"PK\x03\x04", 6, b"\x01\x00")
    patch_zip(path, b"PK\x01\x02", 8, b"\x01\x00")
    assert refusal(path, workspace, settings) == "encrypted_archive"


@pytest.mark.parametrize("inner", ["zip", "gzip", "7z", "tar"])
def test_a_nested_archive(
    tmp_path: Path, workspace: Path, settings: Settings, made: Any, inner: str
) -> None:
    content = {
        "zip": made.zip(tmp_path / "inner.zip", {"a": DICOM}).read_bytes(),
        "gzip": gzip.compress(DICOM),
        "7z": b"7z\xbc\xaf\x27\x1c" + bytes(50),
        "tar": bytes(257) + b"ustar" + bytes(300),
    }[inner]
    path = made.zip(tmp_path / "a.zip", {"a.dcm": DICOM, "b": content})
    assert refusal(path, workspace, settings) == "nested_archive"


def test_ten_gigabytes_of_zeros(tmp_path: Path, workspace: Path, settings: Settings) -> None:
    """A real bomb of 10 GB: one deflate stream of zeros, written by hand in a second."""
    path = tmp_path / "bomb.zip"
    size = 10 * 1024**3
    body = zero_stream(size)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("zeros", b"")
    head = struct.pack("<4s5H3I2H", b"PK\x03\x04", 45, 0, 8, 0, 0, 0, 0, 0, 5, 0) + b"zeros"
    extra = struct.pack("<2HQ", 1, 8, size)
    entry = struct.pack(
        "<4s6H3I5H2I", b"PK\x01\x02", 45, 45, 0, 8, 0, 0, 0, len(body), 0xFFFFFFFF, 5, len(extra),
        0, 0, 0, 0, 0,
    ) + b"zeros" + extra  # fmt: skip
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(entry), len(head) + len(body), 0)
    path.write_bytes(head + body + entry + end)
    with zipfile.ZipFile(path) as archive:
        assert archive.infolist()[0].file_size == size
    assert refusal(path, workspace, settings) == "archive_too_large"
    assert not list(workspace.iterdir())


def zero_stream(size: int) -> bytes:
    """Deflated zeros: one megabyte's block, repeated (a full flush makes it independent)."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (size // MIB) + packer.flush()


def test_a_bomb_that_understates_its_size(
    tmp_path: Path, workspace: Path, settings: Settings, made: Any
) -> None:
    path = made.zip(tmp_path / "a.zip", {"a": bytes(8 * MIB)})
    patch_zip(path, b"PK\x01\x02", 24, struct.pack("<I", 1000))
    assert refusal(path, workspace, settings) == "corrupt_archive"
    assert sum(file.stat().st_size for file in workspace.iterdir()) <= 1000


def test_ratio_sum_and_count_limits(
    tmp_path: Path, workspace: Path, settings: Settings, made: Any
) -> None:
    zeros = made.zip(tmp_path / "zeros.zip", {str(n): bytes(16 * MIB) for n in range(8)})
    assert refusal(zeros, workspace, settings) == "archive_too_large"
    small = settings.model_copy(update={"max_extracted_bytes": MIB, "max_files": 3})
    two = made.zip(tmp_path / "two.zip", {"a": bytes(MIB), "b": b"1"})
    assert refusal(two, workspace, small) == "archive_too_large"
    many = made.zip(tmp_path / "many.zip", {str(n): DICOM for n in range(4)})
    assert refusal(many, workspace, small) == "too_many_files"


def test_a_huge_directory_is_not_read(
    tmp_path: Path, workspace: Path, settings: Settings, made: Any
) -> None:
    path = made.zip(tmp_path / "a.zip", {"a": DICOM})
    patch_zip(path, b"PK\x05\x06", 12, struct.pack("<I", 2**31))
    assert refusal(path, workspace, settings) == "too_many_files"


@pytest.mark.parametrize("said", [47, 2**32 - 1])
def test_a_huge_directory_behind_a_small_one(
    tmp_path: Path, workspace: Path, settings: Settings, said: int
) -> None:
    """``zipfile`` believes the ZIP64 record, whatever the record behind it says."""
    path, entries, small = tmp_path / "a.zip", 100_000, {"max_files": 3000}
    folder = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", *[0] * 9, 1, *[0] * 6) + b"/"
    size = entries * len(folder)
    zip64 = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, entries, entries, size, 4)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, 4 + size, 1)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, said, 4, 0)
    path.write_bytes(b"PK\x03\x04" + entries * folder + zip64 + locator + end)
    assert refusal(path, workspace, settings.model_copy(update=small)) == "too_many_files"


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_compressions_are_refused(
    tmp_path: Path, workspace: Path, settings: Settings, method: int
) -> None:
    path = raw_zip(tmp_path / "a.zip", "a", DICOM, compress_type=method)
    assert refusal(path, workspace, settings) == "corrupt_archive"


def test_damaged_archives(tmp_path: Path, workspace: Path, settings: Settings, made: Any) -> None:
    whole = made.zip(tmp_path / "a.zip", {str(n): DICOM * 50 for n in range(5)}).read_bytes()
    path = tmp_path / "damaged.zip"
    for cut in range(30, len(whole), 97):
        path.write_bytes(whole[:cut])
        assert refusal(path, workspace, settings) == "corrupt_archive"
    path.write_bytes(whole[:60] + bytes(20) + whole[80:])
    assert refusal(path, workspace, settings) == "corrupt_archive"
    path.write_bytes(whole)
    patch_zip(path, b"PK\x05\x06", 16, struct.pack("<I", 2**31))  # members before the start
    assert refusal(path, workspace, settings) == "corrupt_archive"
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"\x1f\x8b\x08\x00damaged")
    assert refusal(path, workspace, settings) == "corrupt_archive"


@pytest.mark.parametrize("kind", ["nothing", "empty file", "empty zip", "junk", "empty folder"])
def test_empty_uploads(
    tmp_path: Path, workspace: Path, settings: Settings, made: Any, kind: str
) -> None:
    path = tmp_path / "upload"
    if kind == "empty folder":
        path.mkdir()
    elif kind == "empty zip":
        made.zip(path, {})
    elif kind == "junk":
        made.zip(path, {".DS_Store": b"x"})
    else:
        path.write_bytes(b"")
    upload = Upload(() if kind == "nothing" else (path,))
    with pytest.raises(InputError) as caught:
        open_upload(upload, workspace, settings)
    assert caught.value.code == "empty_upload"


@pytest.mark.parametrize("head", [b"\x89PNG\r\n\x1a\n", b"%PDF-1.7", b"Rar!\x1a\x07\x00", b"{}"])
def test_other_kinds(tmp_path: Path, workspace: Path, settings: Settings, head: bytes) -> None:
    path = tmp_path / "upload"
    path.write_bytes(head + bytes(300))
    assert refusal(path, workspace, settings) == "unsupported_media"


def test_one_image_at_a_time(
    tmp_path: Path, workspace: Path, settings: Settings, made: Any
) -> None:
    nifti, dicom = made.nifti(tmp_path / "a.nii.gz"), tmp_path / "b.dcm"
    dicom.write_bytes(DICOM)
    archive = made.zip(tmp_path / "c.zip", {"b.dcm": dicom})
    for paths in ((nifti, nifti), (nifti, dicom), (archive, dicom), (archive, archive)):
        with pytest.raises(InputError) as caught:
            open_upload(Upload(paths), workspace, settings)
        assert caught.value.code == "unsupported_media"


def test_the_receiver_counts_what_it_writes(tmp_path: Path, settings: Settings) -> None:
    store = FolderStore(tmp_path / "store", tmp_path / "staging")
    small = settings.model_copy(update={"max_upload_bytes": 1000, "max_files": 2})
    with store.workspace() as folder:
        receiver = Receiver(folder, small, store)
        with receiver.part("../../Doe^Jane.dcm") as write:
            write(b"a" * 600)
        with receiver.part("x/.DS_Store") as write:
            write(b"b" * 100)
        upload = receiver.upload()
        assert [path.name for path in upload.paths] == ["part-000001"]
        assert upload.ignored == 1
        with pytest.raises(UploadTooLargeError), receiver.part() as write:
            write(b"c" * 400)
    assert not list(store.staging.iterdir())


def test_a_full_disk_refuses_uploads(tmp_path: Path, settings: Settings) -> None:
    store = FolderStore(tmp_path / "store", tmp_path / "staging")
    full = settings.model_copy(update={"min_free_bytes": 2**60})
    with pytest.raises(StorageFullError):
        Receiver(tmp_path, full, store)
