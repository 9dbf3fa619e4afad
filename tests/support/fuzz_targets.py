"""What strangers' bytes reach, as functions of bytes. Only an error that is typed may come out;
it is swallowed here, and everything else is a defect."""

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
from starlette.datastructures import Headers

from model.errors import InputError
from service.api.errors import BadMultipartError
from service.api.guard import host_name
from service.api.preferences import wait_seconds, wants_dicom
from service.api.receive import MultipartSink
from service.arrive.facts import candidate_of
from service.audit import _place_of as audit_place_of
from service.cases import examine
from service.dicom.codestream import declared_size
from service.dicom.errors import DicomInputError
from service.dicom.hashing import content_key
from service.dicom.header import read_record
from service.dicom.heads import UnreadableHeadError, read_head
from service.dicom.pixels import load
from service.dicom.refusals import REASONS
from service.dicom.series import ScanLimits, choose, scan
from service.pacs import find
from service.pacs.errors import PacsRefusedError, PacsUnavailableError
from service.pacs.http import Web
from service.pacs.incoming import BrokenOffError, Incoming, Limits, Parts
from service.settings import Settings
from service.site import DicomWebNode, SiteError, load_site
from service.storage.artifacts import FolderStore
from service.storage.rows import place_of
from service.uploads import Opened, Receiver, Upload, open_upload

MAX_VOXELS = 2**20
SYNTAXES = (
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.1",
)
NODE = DicomWebNode(url="http://node.invalid")
BOUNDARY = b"XX"

Target = Callable[[bytes, Path], None]


def header(data: bytes, folder: Path) -> None:
    record = read_record(_file(folder, data), MAX_VOXELS)
    assert record.problem in (None, *REASONS)
    assert record.planes or record.problem


def head(data: bytes, folder: Path) -> None:
    with suppress(UnreadableHeadError):
        read_head(_file(folder, data))


def codestream(data: bytes, _: Path) -> None:
    size = declared_size(data[1:], SYNTAXES[data[0] % len(SYNTAXES)] if data else "")
    assert size is None or len(size) == 2


def series(data: bytes, folder: Path) -> None:
    """Header, geometry, hash and pixels of the files that ``packed`` packs."""
    files = [_file(folder, one, f"{number}") for number, one in enumerate(unpacked(data))]
    with suppress(DicomInputError):
        chosen, receipt = choose(scan(files, "ct", ScanLimits(MAX_VOXELS)))
        json.dumps([line.as_json() for line in receipt], allow_nan=False)
        content_key(chosen)
        loaded = load(chosen)
        assert loaded.volume.array.ndim == 3
        assert np.isfinite(loaded.volume.affine).all()


def arrival(data: bytes, folder: Path) -> None:
    """What the rules are told of a series that the network brought."""
    files = [_file(folder, one, f"{number}") for number, one in enumerate(unpacked(data))]
    if files:
        candidate_of("key", files, "MODALITY", _settings(folder))


def nifti(data: bytes, folder: Path) -> None:
    with suppress(InputError):
        examine(Opened("nifti", (_file(folder, data),)), "ct", "auto", _settings(folder))


def archive(data: bytes, folder: Path) -> None:
    workspace = folder / "out"
    workspace.mkdir()
    with suppress(InputError):
        open_upload(Upload((_file(folder, data),)), workspace, _settings(folder))
    assert {found.parent for found in workspace.rglob("*")} <= {workspace}


def stow(data: bytes, folder: Path) -> None:
    incoming = Incoming(folder, Limits(2**20, 8), Path.unlink, lambda: False)
    with suppress(BrokenOffError, InputError):
        parts = Parts(BOUNDARY, incoming)
        for piece in (data[:7], data[7:]):
            parts.feed(piece)
        parts.finish()
    incoming.close()
    assert not list(folder.iterdir())


def form(data: bytes, folder: Path) -> None:
    """multipart/form-data; the first line is the boundary's."""
    from python_multipart.exceptions import FormParserError  # noqa: PLC0415

    boundary, _, body = data.partition(b"\n")
    settings = _settings(folder)
    store = FolderStore(folder / "store", folder / "staging")
    sink = None
    with suppress(InputError, BadMultipartError, FormParserError):  # ``pour`` translates the last
        sink = MultipartSink(boundary, Receiver(folder, settings, store), 8)
        sink.feed(body)
        sink.finish()
    if sink is not None:
        sink.close()


def site(data: bytes, folder: Path) -> None:
    with suppress(SiteError):
        load_site(_file(folder, data))


def qido(data: bytes, _: Path) -> None:
    """The answers of a node: the same bytes to every question."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=data))
    with httpx.Client(transport=transport, base_url=NODE.url) as client:
        ask = find._Qido(Web(NODE, client))
        with suppress(PacsUnavailableError, PacsRefusedError):
            list(ask.studies({"StudyDate": "20200101"}))
            for answer in ask.series("1.2.3"):
                found = find._series("1.2.3", answer)
                find._detailed(ask, find._counted(ask, found))


def query(data: bytes, _: Path) -> None:
    """Cursors, and the headers that are parsed here."""
    text = data.decode("latin-1")
    with suppress(InputError):
        place_of(data.decode("utf-8", "surrogateescape"))
    with suppress(InputError):
        audit_place_of(data.decode("utf-8", "replace"))
    headers = Headers(raw=[(b"prefer", data), (b"accept", data)])
    assert 0 <= wait_seconds(headers) <= 300
    assert wants_dicom(headers) in (True, False)
    assert isinstance(host_name(text), str)


TARGETS: Mapping[str, Target] = {
    "header": header, "head": head, "codestream": codestream, "series": series,
    "arrival": arrival, "nifti": nifti, "archive": archive, "stow": stow, "form": form,
    "site": site, "qido": qido, "query": query,
}  # fmt: skip


def once(name: str, root: Path) -> Callable[[bytes], None]:
    """A target with a folder of its own below ``root``, emptied after each input."""
    target = TARGETS[name]

    def run(data: bytes) -> None:
        folder = root / "x"
        folder.mkdir()
        try:
            target(data, folder)
        finally:
            shutil.rmtree(folder)

    return run


def packed(files: list[bytes]) -> bytes:
    """Files as one text of bytes: how many, their lengths, what is in them."""
    lengths = b"".join(len(one).to_bytes(2, "big") for one in files)
    return bytes([len(files)]) + lengths + b"".join(files)


def unpacked(data: bytes) -> list[bytes]:
    """The inverse; of damaged bytes whatever there is."""
    count = data[0] % 8 if data else 0
    lengths = [int.from_bytes(data[1 + 2 * n : 3 + 2 * n], "big") for n in range(count)]
    files, at = [], 1 + 2 * count
    for length in lengths:
        files.append(data[at : at + length])
        at += length
    return files


def _file(folder: Path, data: bytes, name: str = "in") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def _settings(folder: Path) -> Settings:
    return Settings(
        state_dir=folder, max_voxels=MAX_VOXELS, max_upload_bytes=2**20, max_files=16,
        max_extracted_bytes=2**22, min_free_bytes=0,
    )  # fmt: skip
