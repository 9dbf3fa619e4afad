"""The TID 1500 report, judged by dicom3tools and dcmqi."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_peers import BIN, Real, dciodvfy_errors
from dicom_phantoms import Grid, Recipe, body, labels, write_series
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from model.measure import measure
from model.spec import LIVER_LABEL, TUMOUR_LABEL
from service.dicom.pixels import LoadedSeries, load
from service.dicom.seg import Algorithm, build_seg, to_bytes
from service.dicom.series import choose, scan
from service.dicom.sr import MAX_LESIONS, build_sr, lesion_tracking_uid

LABELS = (LIVER_LABEL, TUMOUR_LABEL)
ALGORITHM = Algorithm("A-QCF-Net small", "1.0")
GRID = Grid()
VALUES = body(GRID)


def report(case: LoadedSeries, mask: NDArray[np.uint8], path: Path) -> tuple[Dataset, Dataset]:
    """SEG and SR; the SR is on disk and valid."""
    seg = build_seg(case.series, mask, LABELS, ALGORITHM, "key")
    measured = measure(mask, case.volume)
    path.write_bytes(to_bytes(build_sr(case.series, seg, measured, LABELS, ALGORITHM, "key")))
    assert not dciodvfy_errors(path)
    return seg, dcmread(path)


def groups(path: Path) -> list[dict[str, Any]]:
    """Measurement groups as dcmqi reads them."""
    out = path.with_suffix(".json")
    subprocess.run(
        [BIN / "tid1500reader", "--inputDICOM", path, "--outputMetadata", out],
        capture_output=True,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads(out.read_text())["Measurements"]
    return found


def values(group: dict[str, Any]) -> dict[str, float]:
    return {
        item["quantity"]["CodeMeaning"]: float(item["value"])
        for item in group["measurementItems"]
        if "value" in item
    }


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_report(tmp_path: Path, modality: str) -> None:
    intercept = -1024 if modality == "ct" else 0
    recipe = Recipe(modality=modality.upper(), intercept=intercept)
    paths = write_series(tmp_path / "in", VALUES, GRID, recipe)
    case = load(choose(scan(paths, modality))[0])  # type: ignore[arg-type]
    mask = labels(VALUES)
    seg, document = report(case, mask, tmp_path / "sr.dcm")
    read = {group["TrackingIdentifier"]: group for group in groups(tmp_path / "sr.dcm")}
    voxel = float(np.prod(GRID.spacing))
    liver, tumour = int((mask == 1).sum()), int((mask == 2).sum())
    assert values(read["Liver including tumour"])["Volume"] == pytest.approx(
        (liver + tumour) * voxel
    )
    assert values(read["Liver without tumour"])["Volume"] == pytest.approx(liver * voxel)
    assert values(read["Liver tumour"])["Volume"] == pytest.approx(tumour * voxel)
    lesion = values(read["Lesion 1"])
    assert lesion["Volume"] == pytest.approx(tumour * voxel)
    assert lesion["Long Axis"] > 0
    assert ("Attenuation Coefficient" in lesion) == (modality == "ct")
    if modality == "ct":
        assert lesion["Attenuation Coefficient"] == pytest.approx(40.0)
    assert read["Lesion 1"]["TrackingUniqueIdentifier"] == lesion_tracking_uid("key", 1)
    assert read["Liver tumour"]["TrackingUniqueIdentifier"] == seg.SegmentSequence[1].TrackingUID
    assert document.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    assert document.ConceptNameCodeSequence[0].CodeValue == "126001"
    assert document.StudyInstanceUID == seg.StudyInstanceUID
    evidence = document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == seg.SOPInstanceUID


def test_healthy_and_empty(tmp_path: Path) -> None:
    case = load(choose(scan(write_series(tmp_path / "in", VALUES, GRID), "ct"))[0])
    report(case, np.minimum(labels(VALUES), 1), tmp_path / "healthy.dcm")
    names = [group["TrackingIdentifier"] for group in groups(tmp_path / "healthy.dcm")]
    assert names == ["Liver including tumour", "Liver without tumour"]
    _, document = report(case, np.zeros_like(labels(VALUES)), tmp_path / "empty.dcm")
    assert "Measurement failure" in {
        str(element.value) for element in document.iterall() if element.keyword == "CodeMeaning"
    }


def test_a_noisy_mask_lists_its_largest_lesions_only(tmp_path: Path) -> None:
    case = load(choose(scan(write_series(tmp_path / "in", VALUES, GRID), "ct"))[0])
    mask = np.ones_like(labels(VALUES))
    mask[::3, ::3, ::3] = 2
    report(case, mask, tmp_path / "noisy.dcm")
    names = [group["TrackingIdentifier"] for group in groups(tmp_path / "noisy.dcm")]
    assert sum(name.startswith("Lesion ") for name in names) == MAX_LESIONS


def test_real_ct(real: Real, tmp_path: Path) -> None:
    case = load(choose(scan(real("ct_msd_liver0"), "ct"))[0])
    mask = np.zeros(case.volume.shape, np.uint8)
    mask[30:50, 200:300, 200:300], mask[40:42, 220:230, 220:230] = 1, 2
    mask[45, 260:270, 260:264] = 2
    report(case, mask, tmp_path / "sr.dcm")
    assert len(groups(tmp_path / "sr.dcm")) == 5


def test_real_mr(real: Real, tmp_path: Path) -> None:
    case = load(choose(scan(real("mr_chaos_t1dual_10"), "mr"))[0])
    mask = np.zeros(case.volume.shape, np.uint8)
    mask[20:30, 90:140, 60:120] = 1
    report(case, mask, tmp_path / "sr.dcm")
