"""Values that stand for patient data: where they are planted, and the search for them in whatever
disguise they come."""

import base64
import html
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import quote, quote_plus

import re2
from pydicom import Dataset
from pydicom.valuerep import PersonName

DIGITS = "90417733862"
ROOT = f"1.2.826.0.1.3680043.8.498.{DIGITS}"
DESCRIPTION = "Goldammernest"  # receipts show it: see docs/security.md
NAMES: Mapping[str, tuple[list[str], str]] = {
    "japanese": (
        ["", "ISO 2022 IR 87"],
        "Zwitscherbein^Klothildegunde^Baroninka=蒲公英山^黄金虫子=タンポポ^コガネムシ",
    ),
    "cyrillic": (["ISO_IR 144"], "Жаворонкова^Пелагея"),
    "latin": (["ISO_IR 100"], "Müßiggängerin^Ölgötzine"),
    "utf-8": (["ISO_IR 192"], "Ştefănescuvici^蒲公英山=Жаворонкова"),
}
"""Specific character sets and a PatientName in each, with its component groups (PS3.5 6.2)."""
TEXTS: Mapping[str, str] = {
    "PatientID": "PIDQ7X4471",
    "OtherPatientIDs": "OPIDW8K5520",
    "IssuerOfPatientID": "ISSUERV9J63",
    "AccessionNumber": "ACCZ6H3318",
    "StudyID": "STUDQ5G2207",
    "AdmissionID": "ADMID8Q2M41",
    "RequestedProcedureID": "RPIDK4W9X7",
    "PlacerOrderNumberImagingServiceRequest": "PLACR6Y1Z83",
    "DeviceSerialNumber": "DEVSN7H3T52",
    "MedicalRecordLocator": "MRLOC5T9B26",
    "PatientTelephoneNumbers": "437719041822",
    "OtherPatientNames": "Nachtigallow^Ilsebill",
    "PatientBirthName": "Regenpfeiferin",
    "PatientMotherBirthName": "Pfefferkuchnow",
    "ReferringPhysicianName": "Ueberweiserstorch^Ottokarl",
    "PerformingPhysicianName": "Untersuchungsuhu",
    "NameOfPhysiciansReadingStudy": "Befunderfalke",
    "OperatorsName": "Bedienerbussard",
    "RequestingPhysician": "Anfordererelster",
    "PatientAddress": "Kuckucksgassenweg",
    "Occupation": "Berufskormoran",
    "EthnicGroup": "Ethnopirol",
    "PatientReligiousPreference": "Religionstaube",
    "PatientComments": "Kommentarmeise",
    "AdditionalPatientHistory": "Vorgeschichtsdohle",
    "ImageComments": "Bildspatzentext",
    "StudyDescription": "Leberfleckhase",
    "SeriesDescription": DESCRIPTION,
    "ProtocolName": "Protokollfinkin",
    "RequestedProcedureDescription": "Anforderungsmoewe",
    "InstitutionName": "Klinikumdrossel",
    "InstitutionAddress": "Spitalsalbatros",
    "InstitutionalDepartmentName": "Abteilungskiwi",
    "StationName": "STATIONSGEIER",
}
DATES: Mapping[str, str] = {
    "PatientBirthDate": "19170314",
    "StudyDate": "19430827",
    "SeriesDate": "19380611",
    "AcquisitionDate": "19291205",
    "ContentDate": "19460419",
    "LastMenstrualDate": "19331022",
}
TIMES: Mapping[str, str] = {
    "StudyTime": "052937.418263",
    "SeriesTime": "061844.930517",
    "AcquisitionTime": "173502.264189",
    "ContentTime": "214416.701953",
}
SENT: Mapping[str, str] = {
    "name in a zip": "Ziprohrsaenger",
    "name of a part": "Eisvogelmannin",
    "name of a field": "Feldlerchenfeld",
    "query": "Fragespechtin",
    "path": "Pfadpelikan",
    "method": "METHODEMEISE",
    "user agent": "Agentenreiher",
    "cookie": "Keksuhuine",
    "request id": "REQIDT6N2V4",
    "idempotency key": "IDEMW3K8Q55",
    "traced": "Spurenstrauss",
    "host": "wirtswachtel",
    "body": "Koerperkranich",
    "nifti description": "Niftibachstelze",
    "nifti file": "Auxzaunkoenig",
    "gzip name": "Gzipkolibri",
    "subject": "subjektkauzen",
    "person of a token": "Tokenhabicht",
    "secret of a key": "0badcafe5eed" * 4,
    "words of a node": "Muelltonnenrabe",
    "folder": "Ordnerseeadler",
    "private element": "Privatwiedehopf",
}
CODECS = ("utf-8", "latin-1", "iso2022_jp", "shift_jis", "iso8859_5", "cp1251", "utf-16-le")
SHORTEST = 6


def planted() -> dict[str, str]:
    """Every value that must not be found, each with where it was planted."""
    names = {
        f"PatientName {number}": word
        for number, word in enumerate(
            dict.fromkeys(
                word for _, name in NAMES.values() for word in name.replace("=", "^").split("^")
            )
        )
    }
    return names | _words(TEXTS) | dict(DATES) | dict(TIMES) | dict(SENT) | {"a UID": DIGITS}


def _words(texts: Mapping[str, str]) -> dict[str, str]:
    return {
        keyword + "'" * number: word
        for keyword, text in texts.items()
        for number, word in enumerate(text.split("^"))
    }


def plant(study: int, series: int, names: str = "latin") -> Callable[[Dataset, int], None]:
    """For ``edit`` of a series writer: canaries in every attribute that can hold patient data."""
    charset, name = NAMES[names]

    def edit(dataset: Dataset, index: int) -> None:
        dataset.SpecificCharacterSet = charset
        for keyword, value in {**TEXTS, **DATES, **TIMES}.items():
            setattr(dataset, keyword, value)
        dataset.PatientName = PersonName(name)
        _identify(dataset, study, series, index)
        dataset.RequestAttributesSequence = [_requested()]
        dataset.add_new(0x00090010, "LO", "CANARIES")
        dataset.add_new(0x00091001, "LO", SENT["private element"])

    return edit


def study_uid(study: int) -> str:
    return f"{ROOT}.1.{study}"


def _identify(dataset: Dataset, study: int, series: int, index: int) -> None:
    dataset.StudyInstanceUID = study_uid(study)
    dataset.SeriesInstanceUID = f"{ROOT}.2.{study}.{series}"
    dataset.SOPInstanceUID = f"{ROOT}.3.{study}.{series}.{index + 1}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.FrameOfReferenceUID = f"{ROOT}.4.{study}"
    dataset.SynchronizationFrameOfReferenceUID = f"{ROOT}.5.{study}"
    dataset.SeriesNumber, dataset.InstanceNumber = series, index + 1


def _requested() -> Dataset:
    item = Dataset()
    item.RequestedProcedureID = TEXTS["RequestedProcedureID"]
    item.AccessionNumber = TEXTS["AccessionNumber"]
    item.StudyInstanceUID = f"{ROOT}.6"
    return item


def disguises(value: str) -> dict[str, bytes]:
    """Ways in which a value can be written, by name."""
    found: dict[str, bytes] = {}
    for form, text in _forms(value).items():
        for codec in CODECS:
            try:
                plain = _without_escapes(text.encode(codec))
            except UnicodeEncodeError:
                continue
            for way, written in _written(plain):
                found.setdefault(f"{form} {codec} {way}", written)
        found[f"{form} JSON"] = json.dumps(text)[1:-1].encode()
        found[f"{form} HTML"] = html.escape(text).encode("ascii", "xmlcharrefreplace")
    return {way: written for way, written in found.items() if len(written) >= SHORTEST}


def _forms(value: str) -> dict[str, str]:
    if value in DATES.values():
        return _dates(value)
    if value in TIMES.values():
        clock = f"{value[:2]}:{value[2:4]}:{value[4:]}"
        return {"as in DICOM": value, "clock": clock}
    return {"as it is": value, "lower": value.lower(), "upper": value.upper()}


def _dates(value: str) -> dict[str, str]:
    year, month, day = value[:4], value[4:6], value[6:]
    orders = {"ISO": (year, month, day), "German": (day, month, year), "US": (month, day, year)}
    forms = {"as in DICOM": value, "backwards": f"{day}{month}{year}"}
    for name, parts in orders.items():
        forms |= {f"{name} with {mark}": mark.join(parts) for mark in "-./"}
    return forms


def _without_escapes(text: bytes) -> bytes:
    return text.replace(b"\x1b$B", b"").replace(b"\x1b(B", b"").replace(b"\x1b(J", b"")


def _written(plain: bytes) -> Iterator[tuple[str, bytes]]:
    yield "", plain
    yield "percent", quote(plain, safe="").encode()
    yield "form", quote_plus(plain).encode()
    yield "hex", plain.hex().encode()
    yield "escaped", repr(plain)[2:-1].encode()
    for offset in range(3):
        yield f"base64 at {offset}", _inside(base64.b64encode(bytes(offset) + plain), offset, plain)
        yield (
            f"base64url at {offset}",
            _inside(base64.urlsafe_b64encode(bytes(offset) + plain), offset, plain),
        )


def _inside(encoded: bytes, offset: int, plain: bytes) -> bytes:
    """The characters that depend on nothing but the value."""
    return encoded[-(-offset * 8 // 6) : (offset + len(plain)) * 8 // 6]


@dataclass(frozen=True)
class Hit:
    """``value``: which canary, by where it was planted. ``around``: how it looks there."""

    place: str
    value: str
    around: bytes


@dataclass(frozen=True)
class Allowed:
    """``row``: the first cell of a row of the table in docs/security.md. ``place``: a pattern of
    places. ``values``: which canaries may be there; empty for all."""

    row: str
    place: str
    values: frozenset[str] = frozenset()

    def covers(self, hit: Hit) -> bool:
        here = re2.fullmatch(self.place, hit.place) is not None
        return here and (not self.values or hit.value in self.values)


@dataclass
class Evidence:
    """What was written, shown or sent, by place."""

    pieces: list[tuple[str, bytes]] = field(default_factory=list)

    def add(self, place: str, *contents: str | bytes) -> None:
        for content in contents:
            self.pieces.append((place, content.encode() if isinstance(content, str) else content))

    def text(self, start: str = "") -> str:
        """Everything of the places that begin so."""
        return b"\n".join(c for place, c in self.pieces if place.startswith(start)).decode("latin1")

    def places(self) -> set[str]:
        return {place for place, _ in self.pieces}

    def hits(self) -> list[Hit]:
        """One for each canary and place."""
        found: dict[tuple[str, str], Hit] = {}
        for place, content in self.pieces:
            for hit in search(place, content):
                found.setdefault((place, hit.value), hit)
        return list(found.values())


def search(place: str, content: bytes) -> Iterator[Hit]:
    """Every canary in ``content``, in any disguise, also where backslashes were doubled."""
    pattern, values = _needles()
    if b"\\\\" in content:
        content += b"\n" + content.replace(b"\\\\", b"\\")
    for match in pattern.finditer(content):
        around = content[max(0, match.start() - 60) : match.end() + 40]
        yield Hit(place, values[match.group().lower()], around)


@cache
def _needles() -> tuple[Any, dict[bytes, str]]:
    values = {
        written.lower(): name
        for name, value in planted().items()
        for written in disguises(value).values()
    }
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.case_sensitive = False
    options.max_mem = 2**28
    longest_first = sorted(values, key=len, reverse=True)
    return re2.compile(b"|".join(map(re2.escape, longest_first)), options), values
