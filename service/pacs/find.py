"""Questions to a node about studies, series and instances: QIDO-RS (PS3.18 10.6) or C-FIND with
the study root model (PS3.4 C.6.2). No pixels move.

A node with ``dicomweb`` is asked over QIDO-RS, else over C-FIND. What it answers is read leniently:
it is another system's data. Every function raises ``PacsUnavailableError`` (also as
``PacsDeniedError``) and ``PacsRefusedError``.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import httpx
import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind as StudyRootFind,
)

from model.errors import InputError

from ..site import DimseNode, Node, SeriesFacts, orientation_of
from .association import Context, Timeouts, association, where
from .errors import PacsRefusedError, PacsUnavailableError
from .http import Web, web

UID = re.compile(r"[0-9]+(\.[0-9]+)*")
DATES = re.compile(r"\d{8}(-\d{8})?")
PAGE = 500
MAX_FOUND = 20_000
CONNECT_S = 10.0
PENDING = frozenset({0xFF00, 0xFF01})
BUSY = range(0xA700, 0xA800)  # out of resources, PS3.4 C.4.1.1.4
SERIES_KEYS = (
    "SeriesInstanceUID",
    "SeriesNumber",
    "Modality",
    "SeriesDescription",
    "ProtocolName",
    "BodyPartExamined",
    "NumberOfSeriesRelatedInstances",
)
IMAGE_KEYS = ("SOPInstanceUID", "SliceThickness", "ImageOrientationPatient", "NumberOfFrames")
UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
FIND_CONTEXTS: tuple[Context, ...] = ((StudyRootFind, UNCOMPRESSED),)


@dataclass(frozen=True)
class FoundSeries:
    """A series that a node has. The UIDs are patient data. ``facts.images``: as many, or the frames
    of them all, estimated from one, where an image was asked for."""

    study_uid: str
    uid: str
    number: int
    instances: int
    facts: SeriesFacts


def find_series(
    node: Node, study_uid: str, *, calling: str = "AQCF", details: bool = True
) -> tuple[FoundSeries, ...]:
    """The series of a study, by number; none where the node knows no such study. ``details``: ask
    for an image of each CT and MR series too, for its slice thickness and orientation."""
    with _asking(node, calling) as ask:
        found = [_series(study_uid, answer) for answer in ask.series(_uid(study_uid))]
        found = [one for one in found if UID.fullmatch(one.uid)]
        counted = [_counted(ask, one) for one in found]
        detailed = [_detailed(ask, one) for one in counted] if details else counted
    return tuple(sorted(detailed, key=lambda one: (one.number, one.uid)))


def count_instances(node: Node, study_uid: str, *, calling: str = "AQCF") -> dict[str, int]:
    """How many instances the node has of each series of a study, by series UID
    (NumberOfSeriesRelatedInstances, 0020,1209, or counted where it does not say). Empty where it
    knows no such study."""
    found = find_series(node, study_uid, calling=calling, details=False)
    return {one.uid: one.instances for one in found}


def find_instances(
    node: Node, study_uid: str, series_uid: str, *, calling: str = "AQCF"
) -> tuple[str, ...]:
    """SOP instance UIDs of a series."""
    with _asking(node, calling) as ask:
        answers = ask.images(_uid(study_uid), _uid(series_uid))
        return tuple(_text(answer, "SOPInstanceUID") for answer in answers)


def find_studies(
    node: Node, date: str, modality: str | None = None, *, calling: str = "AQCF"
) -> tuple[str, ...]:
    """UIDs of the studies of a day (``YYYYMMDD``) or of some days (``YYYYMMDD-YYYYMMDD``) that
    hold a series of ``modality`` (``CT``). Raises ``InputError`` (``invalid_date``)."""
    if not DATES.fullmatch(date):
        raise InputError(f"{date!r} is no date; write YYYYMMDD", code="invalid_date")
    wanted = {"StudyDate": date} | ({"ModalitiesInStudy": modality.upper()} if modality else {})
    with _asking(node, calling) as ask:
        uids = [_text(answer, "StudyInstanceUID") for answer in ask.studies(wanted)]
    return tuple(dict.fromkeys(uid for uid in uids if UID.fullmatch(uid)))


def is_uid(text: str) -> bool:
    """Whether this can be a UID (PS3.5 9.1): no wildcard, no path, nothing empty."""
    return len(text) <= 64 and UID.fullmatch(text) is not None


def timeouts_of(node: Node) -> Timeouts:
    """For associations with a node: all of them as it says, the way there 10 s at most."""
    seconds = node.timeout_s
    return Timeouts(min(seconds, CONNECT_S), seconds, seconds, seconds)


def web_timeout_of(node: Node) -> httpx.Timeout:
    return httpx.Timeout(node.timeout_s, connect=min(node.timeout_s, CONNECT_S))


class _Questions(Protocol):
    def studies(self, wanted: Mapping[str, str]) -> Iterator[Dataset]: ...

    def series(self, study_uid: str) -> Iterator[Dataset]: ...

    def images(self, study_uid: str, series_uid: str) -> Iterator[Dataset]: ...

    def one_image(self, study_uid: str, series_uid: str) -> Dataset | None: ...


@contextmanager
def _asking(node: Node, calling: str) -> Iterator[_Questions]:
    """One connection for all questions of an errand."""
    if node.dicomweb is not None:
        with web(node.dicomweb, web_timeout_of(node)) as client:
            yield _Qido(client)
    elif node.dimse is not None:
        dimse = node.dimse
        title = dimse.calling or calling
        with association(dimse, FIND_CONTEXTS, title, timeouts=timeouts_of(node)) as opened:
            yield _Find(opened, dimse)


class _Qido:
    """QIDO-RS, page by page."""

    def __init__(self, client: Web) -> None:
        self._web = client

    def studies(self, wanted: Mapping[str, str]) -> Iterator[Dataset]:
        return self._pages("/studies", "StudyInstanceUID", wanted.items())

    def series(self, study_uid: str) -> Iterator[Dataset]:
        path = f"/studies/{study_uid}/series"
        return self._pages(path, "SeriesInstanceUID", _including(SERIES_KEYS))

    def images(self, study_uid: str, series_uid: str) -> Iterator[Dataset]:
        path = f"/studies/{study_uid}/series/{series_uid}/instances"
        return self._pages(path, "SOPInstanceUID", ())

    def one_image(self, study_uid: str, series_uid: str) -> Dataset | None:
        """With its metadata where the answer to the question lacks what is asked for."""
        path = f"/studies/{study_uid}/series/{series_uid}/instances"
        query = [*_including(IMAGE_KEYS), ("limit", "1")]
        found = next(iter(self._asked(path, query)), None)
        if found is None or "SliceThickness" in found or not is_uid(_text(found, "SOPInstanceUID")):
            return found
        name = _text(found, "SOPInstanceUID")
        return next(iter(self._asked(f"{path}/{name}/metadata", ())), None)

    def _pages(self, path: str, unique: str, query: Iterable[tuple[str, str]]) -> Iterator[Dataset]:
        """A server that does not know ``offset`` says the same again: then all is said."""
        seen: set[str] = set()
        while len(seen) < MAX_FOUND:
            window = [("limit", str(PAGE)), ("offset", str(len(seen)))]
            answers = self._asked(path, [*query, *window])
            fresh = [one for one in answers if _text(one, unique) not in seen]
            seen |= {_text(one, unique) for one in fresh}
            yield from fresh
            if not fresh or len(answers) < PAGE:
                return

    def _asked(self, path: str, query: Iterable[tuple[str, str]]) -> list[Dataset]:
        return [_read(answer) for answer in self._web.json(path, query)]


class _Find:
    """C-FIND over one association."""

    def __init__(self, opened: Any, node: DimseNode) -> None:
        self._association = opened
        self._node = node

    def studies(self, wanted: Mapping[str, str]) -> Iterator[Dataset]:
        return self._asked("STUDY", {"StudyInstanceUID": "", **wanted})

    def series(self, study_uid: str) -> Iterator[Dataset]:
        keys = dict.fromkeys(SERIES_KEYS, "")
        return self._asked("SERIES", {**keys, "StudyInstanceUID": study_uid})

    def images(self, study_uid: str, series_uid: str) -> Iterator[Dataset]:
        keys = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
        return self._asked("IMAGE", {**dict.fromkeys(IMAGE_KEYS, ""), **keys})

    def one_image(self, study_uid: str, series_uid: str) -> Dataset | None:
        found = list(self.images(study_uid, series_uid))
        return found[len(found) // 2] if found else None

    def _asked(self, level: str, keys: Mapping[str, str]) -> Iterator[Dataset]:
        question = Dataset()
        question.QueryRetrieveLevel = level
        for keyword, value in keys.items():
            setattr(question, keyword, value or None)
        count = 0
        for status, answer in self._association.send_c_find(question, StudyRootFind):
            if not _pending(status, self._node):
                return
            if answer is not None and (count := count + 1) <= MAX_FOUND:
                yield answer


def _pending(status: Dataset, node: DimseNode) -> bool:
    """Whether more answers come; raises for a failure (PS3.4 C.4.1.1.4)."""
    code = status.get("Status")
    if code in PENDING:
        return True
    if code == 0:
        return False
    if code is None or code in BUSY:
        raise PacsUnavailableError(f"{where(node)} broke off, or is overloaded (C-FIND)")
    raise PacsRefusedError(f"{where(node)} refuses the question with {code:#06x} (C-FIND)")


def _including(keywords: Iterable[str]) -> list[tuple[str, str]]:
    return [("includefield", f"{tag_for_keyword(word):08X}") for word in keywords]


def _uid(text: str) -> str:
    if not is_uid(text):
        raise InputError("no UID: digits and dots, 64 at most", code="invalid_uid")
    return text


def _read(answer: Mapping[str, Any]) -> Dataset:
    """DICOM JSON (PS3.18 F); elements that are not right are left out."""
    try:
        return Dataset.from_json(dict(answer))
    except Exception:  # pydicom raises nearly anything; one odd element must not hide the rest
        found = Dataset()
        for tag, element in answer.items():
            try:
                found.update(Dataset.from_json({tag: element}))
            except Exception:  # noqa: S112
                continue
        return found


def _series(study_uid: str, answer: Dataset) -> FoundSeries:
    instances = int(_number(answer, "NumberOfSeriesRelatedInstances") or 0)
    facts = SeriesFacts(
        modality=_text(answer, "Modality").upper(),
        description=_text(answer, "SeriesDescription") or _text(answer, "ProtocolName"),
        body_part=_text(answer, "BodyPartExamined").upper(),
        images=instances,
    )
    number = int(_number(answer, "SeriesNumber") or 0)
    uid = _text(answer, "SeriesInstanceUID")
    return FoundSeries(study_uid, uid, number, instances, facts)


def _counted(ask: _Questions, found: FoundSeries) -> FoundSeries:
    if found.instances > 0:
        return found
    count = sum(1 for _ in ask.images(found.study_uid, found.uid))
    return replace(found, instances=count, facts=replace(found.facts, images=count))


def _detailed(ask: _Questions, found: FoundSeries) -> FoundSeries:
    if found.facts.modality not in ("CT", "MR"):
        return found
    image = ask.one_image(found.study_uid, found.uid)
    if image is None:
        return found
    frames = max(1, int(_number(image, "NumberOfFrames") or 1))
    facts = replace(
        found.facts,
        images=found.instances * frames,
        thickness_mm=_number(image, "SliceThickness"),
        orientation=orientation_of(_cosines(image)),
    )
    return replace(found, facts=facts)


def _cosines(image: Dataset) -> list[float] | None:
    try:
        return [float(value) for value in _value(image, "ImageOrientationPatient")]
    except (TypeError, ValueError):
        return None


def _text(answer: Dataset, keyword: str) -> str:
    value = _value(answer, keyword)
    return "" if value is None else str(value).strip("\x00 ")


def _number(answer: Dataset, keyword: str) -> float | None:
    try:
        value = float(_value(answer, keyword))
    except (TypeError, ValueError):
        return None
    return value if np.isfinite(value) else None


def _value(answer: Dataset, keyword: str) -> Any:
    try:
        return answer.get(keyword)
    except Exception:  # pydicom raises nearly anything on malformed values
        return None
