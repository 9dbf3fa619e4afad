"""A report that came back (TID 1500) against what the phantom holds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from model.spec import LIVER_LABEL, TUMOUR_LABEL

from ..dicom.algorithm import TEST
from ..domain import Outcome
from .fetch import concept, every_item
from .judge import tolerance_ml, volume_ml
from .records import Trial

GROUP, TRACKING, VOLUME = "125007", "112039", "118565006"
FAILURE = "114006"  # DCM, Measurement failure
WHOLE = "Liver including tumour"
MM3_PER_ML = 1000.0


@dataclass(frozen=True)
class Volume:
    """``failed``: the report says that it could not be measured."""

    name: str
    ml: float
    failed: bool


def judge_report(
    trial: Trial, reports: Sequence[Dataset], seg: Dataset | None, *, wanted: bool = True
) -> None:
    """Every check of a trial's SR; ``wanted``: whether the destination's profile asks for one."""
    count = len(reports)
    found = f"{count} SR" if count else "no SR in the archive"
    if not wanted:
        trial.check("no SR", not count, found, "no SR, as the profile says")
        return
    trial.check("one SR", count == 1, found, "1 SR")
    if not reports:
        return
    report = reports[0]
    said = str(report.get("SeriesDescription", ""))
    trial.check("SR says that it is a test", said.startswith(TEST), said or "nothing",
                TEST.strip())  # fmt: skip
    volumes = {one.name: one for one in _volumes(report)}
    if trial.written.phantom.outcome is Outcome.NOT_EVALUABLE:
        _check_failure(trial, volumes)
    else:
        _check_volumes(trial, volumes)
    if seg is not None and len(volumes) > 1:
        named = {str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
                 for item in every_item(report) if "ReferencedSOPSequence" in item}  # fmt: skip
        ok = named == {str(seg.SOPInstanceUID)}
        trial.check("SR names the SEG", ok, "yes" if ok else "another object", "yes")


def _check_failure(trial: Trial, volumes: dict[str, Volume]) -> None:
    found = volumes.get(WHOLE)
    ok = found is not None and found.failed and len(volumes) == 1
    text = "measurement failed" if ok else f"{len(volumes)} volumes"
    trial.check("SR without a liver", ok, text, "measurement failed, no volume")


def _check_volumes(trial: Trial, volumes: dict[str, Volume]) -> None:
    phantom = trial.written.phantom
    mask, scene = phantom.scene.mask, phantom.scene
    expected = {
        WHOLE: (mask > 0, scene.liver_edge),
        LIVER_LABEL.name: (mask == 1, scene.edge),
        TUMOUR_LABEL.name: (mask == 2, scene.tumour_edge),
    }
    for name, (voxels, edge) in expected.items():
        found, voxel_ml = volumes.get(name), phantom.stack.voxel_ml
        wanted = volume_ml(voxels, voxel_ml)
        room = tolerance_ml(wanted, volume_ml(edge < phantom.edge_mm, voxel_ml))
        ml = 0.0 if found is None else found.ml
        text = "not in the report" if found is None else f"{ml:.2f} ml"
        ok = abs(ml - wanted) <= room and (found is None) == (wanted == 0)
        target = f"{wanted:.2f} ml ± {room:.2f}" if wanted else "not in the report"
        trial.check(f"SR: {name.lower()}", ok, text, target)


def _volumes(report: Dataset) -> Iterator[Volume]:
    """Of each measurement group that has one."""
    for group in every_item(report):
        if concept(group) != GROUP:
            continue
        items = list(every_item(group))
        name = next((str(one.TextValue) for one in items if concept(one) == TRACKING), "")
        for item in items:
            if concept(item) == VOLUME:
                yield _volume(name, item)


def _volume(name: str, item: Dataset) -> Volume:
    values = item.get("MeasuredValueSequence")
    mm3 = float(values[0].NumericValue) if values else 0.0
    qualifiers = item.get("NumericValueQualifierCodeSequence")
    failed = bool(qualifiers) and str(qualifiers[0].CodeValue) == FAILURE
    return Volume(name, mm3 / MM3_PER_ML, failed)
