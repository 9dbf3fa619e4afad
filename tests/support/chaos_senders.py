"""Senders that do not give up: a client of the gateway, a modality that speaks to the listener."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from chaos import Tally
from dimse_senders import associated
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import build_context

CONTEXTS = [
    build_context(uid, ExplicitVRLittleEndian)
    for uid in ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4")
]
GIVE_UP_S = 240.0
AGAIN_S = 0.4
COME_AGAIN = (429, 502, 503, 507)
ROOT = "1.2.826.0.1.3680043.8.498.91"


@dataclass(frozen=True)
class Series:
    """One study of one series, as files and as a zip."""

    number: int
    modality: str
    study_uid: str
    series_uid: str
    files: tuple[Path, ...]
    archive: Path


def make_series(made: Any, folder: Path, number: int, shape: tuple[int, int, int]) -> Series:
    """CT for even numbers, MR for odd ones."""
    modality = "MR" if number % 2 else "CT"
    study = f"{ROOT}.{number + 1}"

    def place(dataset: Dataset, index: int) -> None:
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.1"
        dataset.SOPInstanceUID = f"{study}.1.{index + 1}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.PatientID, dataset.AccessionNumber = f"P{number}", f"A{number}"

    array = made.phantom(shape, seed=number)
    files = made.series(folder / f"{number}", array, modality=modality, edit=place)
    archive = made.zip(folder / f"{number}.zip", files)
    return Series(number, modality, study, f"{study}.1", tuple(files), archive)


@contextmanager
def _patience(what: str) -> Iterator[Any]:
    """A check that raises when it takes too long."""
    end = time.monotonic() + GIVE_UP_S

    def check() -> None:
        if time.monotonic() > end:
            raise TimeoutError(f"{what} is not taken in {GIVE_UP_S:g} s")
        time.sleep(AGAIN_S)

    yield check


@dataclass(frozen=True)
class Client:
    """POSTs and, when it is refused for now or hears nothing, POSTs the same again."""

    url: str
    options: Mapping[str, str]
    told: Tally

    def post(self, series: Series, *, impatient: bool = False) -> str:
        """The id of the accepted job. ``impatient``: the first answer is not waited for."""
        with _patience(f"series {series.number}") as again:
            while True:
                answer = self._answer(series, 0.02 if impatient else 30.0)
                if answer is not None and answer.status_code in (200, 202):
                    return str(answer.json()["id"])
                impatient = False
                again()

    def _answer(self, series: Series, read_s: float) -> httpx.Response | None:
        try:
            answer = httpx.post(
                f"{self.url}/v1/segmentations",
                params={"modality": series.modality.lower(), **self.options},
                content=series.archive.read_bytes(),
                headers={"Content-Type": "application/zip"},
                timeout=httpx.Timeout(30, read=read_s),
            )
        except httpx.TransportError as error:
            self.told.add(f"POST {_kind(error)}")
            return None
        self._judge(answer)
        return answer

    def _judge(self, answer: httpx.Response) -> None:
        if answer.is_success:
            self.told.add(f"POST {answer.status_code}")
            return
        code = answer.json().get("code")
        self.told.add(f"POST {answer.status_code} {code}")
        if answer.status_code not in COME_AGAIN:
            raise RuntimeError(f"POST is answered with {answer.status_code} {code}")


@dataclass(frozen=True)
class Reader:
    """Somebody who looks at the list all the time."""

    url: str
    told: Tally

    def look(self) -> None:
        try:
            answer = httpx.get(f"{self.url}/v1/segmentations", timeout=30)
        except httpx.TransportError as error:
            self.told.add(f"GET {_kind(error)}")
            return
        code = "" if answer.is_success else f" {answer.json().get('code')}"
        self.told.add(f"GET {answer.status_code}{code}")


@dataclass(frozen=True)
class Modality:
    """Sends a series in one association; when that breaks or an instance is refused, all of it
    again."""

    port: int
    told: Tally

    def send(self, series: Series, *, breaks_off: bool = False) -> None:
        """``breaks_off``: the first association ends in the middle."""
        with _patience(f"series {series.number}") as again:
            while not self._sent(series, len(series.files) // 2 if breaks_off else None):
                breaks_off = False
                again()

    def _sent(self, series: Series, abort_at: int | None) -> bool:
        with associated(self.port, CONTEXTS, calling=f"{series.modality}1") as made:
            if not made.is_established:
                self.told.add("association not made")
                return False
            for number, file in enumerate(series.files):
                if number == abort_at:
                    made.abort()
                if not made.is_established or not self._stored(made, file):
                    return False
        return True

    def _stored(self, association: Any, file: Path) -> bool:
        try:
            status = association.send_c_store(dcmread(file)).get("Status")
        except (RuntimeError, ValueError):  # it ended a moment ago
            status = None
        self.told.add("C-STORE broken off" if status is None else f"C-STORE {status:04X}")
        return bool(status == 0)


def spread(numbers: Sequence[Series], lanes: int) -> list[list[Series]]:
    """Dealt out to so many senders."""
    return [list(numbers[lane::lanes]) for lane in range(lanes)]


def _kind(error: httpx.TransportError) -> str:
    waited = isinstance(error, httpx.TimeoutException)
    return "not answered in time" if waited else "not answered"
