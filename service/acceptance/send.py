"""The phantoms to the archive or the listener, read back from there, and the service told."""

import tempfile
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from model.errors import AqcfError

from ..container import Container
from ..dicom.quiet import quiet
from ..domain import NewPull
from ..pacs.find import timeouts_of, web_timeout_of
from ..pacs.incoming import Limits
from ..pacs.objects import Fate, ObjectResult, read_objects
from ..pacs.retrieve import Wanted, retrieve
from ..pacs.send import send_dimse, send_stow
from ..phantoms import DEVICE, PATIENT_ID
from ..pull import ask
from ..registry import ACCEPTANCE
from ..settings import Settings
from .records import Trial
from .way import Way

ACTOR = "acceptance"
LIMITS = Limits(1024**3, 1000)
NEAR_MM = 1e-3


def send(settings: Settings, way: Way, by: str, trial: Trial) -> None:
    """All images of a phantom; ``by``: as the destination says, ``dimse`` or ``dicomweb``."""
    started = time.monotonic()
    try:
        results = _sent(settings, way, by, trial.written.files)
    except AqcfError as error:
        trial.give_up("sent", f"{error.code}: {error.message}")
        return
    trial.seconds["send"] = time.monotonic() - started
    _judge_sent(trial, results)


def read_back(settings: Settings, way: Way, trial: Trial) -> None:
    """Whether the archive gives the very images back that it took."""
    written = trial.written
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="aqcf-") as name:
            wanted = Wanted(written.study, (written.series,))
            retrieve(way.reading, wanted, Path(name), LIMITS, calling=settings.ae_title)
            same, odd = _compared(written.files, sorted(Path(name).iterdir()))
    except AqcfError as error:
        trial.check("images come back", False, f"{error.code}: {error.message}")
        return
    trial.seconds["read back"] = time.monotonic() - started
    count = len(written.files)
    found = f"{same} of {count} unchanged" + (f"; {odd}" if odd else "")
    trial.check("images come back", same == count and not odd, found, f"{count} of {count}")


def tell(container: Container, way: Way, trial: Trial) -> None:
    """Ask the service to fetch the phantom: by name of model and destination, or by the rules."""
    written = trial.written
    modality = None if way.by_rules else written.phantom.modality
    asked = NewPull(
        node=way.name,
        study_uid=written.study,
        series_uid=written.series,
        modality=modality,
        actor=ACTOR,
        model=ACCEPTANCE if modality else None,
        destinations=(way.destination,) if modality else (),
    )
    try:
        trial.pull_id = ask(container, asked).id
    except AqcfError as error:
        trial.give_up("asked to fetch", f"{error.code}: {error.message}")


def mark_asked(trials: Iterable[Trial]) -> None:
    """The moment from which the service is waited for."""
    for trial in trials:
        trial.asked_at = datetime.now(UTC)


def _sent(settings: Settings, way: Way, by: str, files: Sequence[Path]) -> tuple[ObjectResult, ...]:
    objects = read_objects(files)
    if way.listener is not None:
        return send_dimse(way.listener, objects, settings.ae_title)
    node = way.node
    if by == "dimse" and node.dimse is not None:
        return send_dimse(node.dimse, objects, settings.ae_title, timeouts=timeouts_of(node))
    if node.dicomweb is not None:
        return send_stow(node.dicomweb, objects, timeout=web_timeout_of(node))
    return ()


def _judge_sent(trial: Trial, results: Sequence[ObjectResult]) -> None:
    stored = sum(result.fate is Fate.STORED for result in results)
    count = len(trial.written.files)
    notes = sorted({result.note for result in results if result.note})
    if trial.written.phantom.optional and results and not stored:
        trial.skipped = "; ".join(notes) or "not taken"
        trial.ended = True
        return
    found = "; ".join([f"{stored} of {count} images taken", *notes])
    trial.check("sent", stored == count, found, f"{count} of {count}")
    trial.ended = stored != count


def _compared(sent: Sequence[Path], back: Sequence[Path]) -> tuple[int, str]:
    """How many are the same, and the first thing that is not."""
    with quiet():
        there = {str(one.SOPInstanceUID): one for one in map(dcmread, back)}
        said = [_difference(one, there.pop(str(one.SOPInstanceUID), None))
                for one in map(dcmread, sent)]  # fmt: skip
    odd = next((text for text in said if text), "")
    if there:
        odd = odd or f"{len(there)} images that were not sent"
    return said.count(""), odd


def _difference(sent: Dataset, back: Dataset | None) -> str:
    if back is None:
        return "images are missing"
    if PATIENT_ID not in str(back.get("PatientID")) or back.get("ManufacturerModelName") != DEVICE:
        return "the archive changed PatientID or ManufacturerModelName, by which phantoms are known"
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        if not _near(sent.get(keyword), back.get(keyword)):
            return f"the archive changed {keyword}"
    if sent.get("FrameOfReferenceUID") != back.get("FrameOfReferenceUID"):
        return "the archive changed FrameOfReferenceUID"
    return "" if np.array_equal(sent.pixel_array, back.pixel_array) else "pixels changed"


def _near(one: object, other: object) -> bool:
    if one is None or other is None:
        return one is other
    values = (np.asarray(each, dtype=np.float64) for each in (one, other))
    first, second = values
    return first.shape == second.shape and bool(np.abs(first - second).max() < NEAR_MM)
