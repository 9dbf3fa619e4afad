"""The results as the archive gives them back."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from ..dicom.algorithm import TEST
from ..dicom.quiet import quiet
from ..domain import Outcome
from ..pacs.find import FoundSeries, find_series
from ..pacs.retrieve import Wanted, retrieve
from ..settings import Settings
from .records import Trial
from .send import LIMITS
from .way import Way

POLL_S = 0.5
SHOWN_S = 30.0  # a delivery is confirmed; an archive may index a little longer


@dataclass
class Results:
    """SEG and SR by the UID of the series they are of. ``strays``: how many are of none of it.
    Reports of lines on the phantoms' images (``sr_viewer``) are in none of them."""

    segs: dict[str, list[Dataset]] = field(default_factory=dict)
    reports: dict[str, list[Dataset]] = field(default_factory=dict)
    strays: int = 0
    seconds: float = 0.0


def fetch(settings: Settings, way: Way, trials: Sequence[Trial]) -> Results:
    """All SEG and SR series of the phantoms' studies. Raises ``PacsUnavailableError``,
    ``PacsRefusedError``."""
    started = time.monotonic()
    found = _shown(settings, way, trials)
    results = _sorted(list(_datasets(settings, way, found)), trials)
    results.seconds = time.monotonic() - started
    return results


def _shown(settings: Settings, way: Way, trials: Sequence[Trial]) -> list[FoundSeries]:
    """Until the archive shows what the profile asks for of each that was delivered, or time is
    up."""
    studies = dict.fromkeys(trial.written.study for trial in trials)
    wanted = sum(_wanted(way, trial) for trial in trials if not _failed(trial))
    deadline = time.monotonic() + SHOWN_S
    while True:
        found = [one for study in studies for one in _of_study(settings, way, study)]
        if len(found) >= wanted or time.monotonic() > deadline:
            return found
        time.sleep(POLL_S)


def _wanted(way: Way, trial: Trial) -> int:
    """SEG and SR series."""
    lines = way.profile.sr_viewer and trial.written.phantom.outcome is Outcome.LESION_FOUND
    return 1 + way.profile.sr + lines


def _failed(trial: Trial) -> bool:
    return bool(trial.skipped) or not all(check.ok for check in trial.checks)


def _of_study(settings: Settings, way: Way, study: str) -> list[FoundSeries]:
    found = find_series(way.node, study, calling=settings.ae_title, details=False)
    return [one for one in found if one.facts.modality in ("SEG", "SR")]


def _datasets(settings: Settings, way: Way, found: Sequence[FoundSeries]) -> Iterator[Dataset]:
    for one in found:
        with tempfile.TemporaryDirectory(prefix="aqcf-") as name, quiet():
            wanted = Wanted(one.study_uid, (one.uid,))
            retrieve(
                way.reading, wanted, Path(name), LIMITS, calling=settings.ae_title, results=True
            )
            for file in sorted(Path(name).iterdir()):
                yield dcmread(file)


def _sorted(datasets: Sequence[Dataset], trials: Sequence[Trial]) -> Results:
    results = Results()
    known = {trial.written.series for trial in trials}
    images = {source.instance for trial in trials for source in trial.written.sources}
    of_seg: dict[str, str] = {}
    for dataset in (one for one in datasets if one.Modality == "SEG"):
        source = next((str(item.SeriesInstanceUID)
                       for item in dataset.get("ReferencedSeriesSequence", ())), "")  # fmt: skip
        of_seg[str(dataset.SOPInstanceUID)] = source
        _put(results, results.segs, source, dataset, known)
    for dataset in (one for one in datasets if one.Modality != "SEG" and not _lines(one, images)):
        source = next((of_seg[uid] for uid in _evidence(dataset) if uid in of_seg), "")
        _put(results, results.reports, source, dataset, known)
    return results


def _put(
    results: Results, kind: dict[str, list[Dataset]], source: str, dataset: Dataset, known: set[str]
) -> None:
    if source in known:
        kind.setdefault(source, []).append(dataset)
    else:
        results.strays += 1


def _lines(report: Dataset, images: set[str]) -> bool:
    """Whether it is ours and stands on the phantoms' own images alone."""
    ours = str(report.get("SeriesDescription", "")).startswith(TEST)
    evidence = set(_evidence(report))
    return ours and bool(evidence) and evidence <= images


def _evidence(report: Dataset) -> Iterator[str]:
    """SOP instance UIDs that the report stands on (PS3.3 C.17.2)."""
    for study in report.get("CurrentRequestedProcedureEvidenceSequence", ()):
        for series in study.ReferencedSeriesSequence:
            for item in series.ReferencedSOPSequence:
                yield str(item.ReferencedSOPInstanceUID)


def every_item(dataset: Dataset) -> Iterator[Dataset]:
    """All content items below this one (PS3.3 C.17.3)."""
    for item in dataset.get("ContentSequence", ()):
        yield item
        yield from every_item(item)


def concept(item: Dataset) -> str:
    """The code of an item's name."""
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""
