"""What a faulty SEG or SR is told by: a doctored one fails by the check that names its fault."""

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from doctored import DOCTORS, Doctor, mirrored, one_slice_on
from pydicom import dcmread
from pydicom.dataset import Dataset

from service.acceptance.fetch import every_item
from service.acceptance.judge import judge_seg
from service.acceptance.measured import judge_report
from service.acceptance.phantoms import CATALOGUE, chosen
from service.acceptance.pictures import pictures
from service.acceptance.records import Trial, Verdict
from service.acceptance.write import Run, Written, write
from service.domain import ArtifactName, SubmitOptions
from service.forms import Form
from service.oneshot import segment_into
from service.settings import Settings
from service.uploads import Upload
from service.wiring import BackendCache

AT = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
Segmented = Callable[[str], tuple[Written, Path]]


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Segmented:
    """A phantom and the folder of its results, made once."""
    settings = Settings(models_dir=models_dir, default_model="tiny", engine="onnxruntime")
    engine = BackendCache("onnxruntime", 1)
    made: dict[str, tuple[Written, Path]] = {}

    def segment(name: str) -> tuple[Written, Path]:
        if name not in made:
            [phantom] = chosen([name])
            folder = tmp_path_factory.mktemp(name)
            written = write(phantom, Run("a", AT), 1, folder / "in")
            segment_into(
                settings, Upload(written.files), SubmitOptions(phantom.modality),
                out=folder, open_backend=engine, report=lambda *_: None,
                also=[Form.SEG_LABELMAP],
            )  # fmt: skip
            made[name] = written, folder
        return made[name]

    return segment


def failed(trial: Trial) -> set[str]:
    return {check.name for check in trial.checks if not check.ok}


@pytest.mark.parametrize("form", [ArtifactName.SEG, ArtifactName.LABELMAP])
@pytest.mark.parametrize("name", [one.name for one in CATALOGUE])
def test_what_the_service_writes_passes(segmented: Segmented, name: str, form: str) -> None:
    written, folder = segmented(name)
    trial = Trial(written)
    seg = judge_seg(trial, [dcmread(folder / form)])
    judge_report(trial, [dcmread(folder / ArtifactName.SR)], seg if "map" not in form else None)
    assert not failed(trial)
    assert trial.verdict is Verdict.PASS
    assert len(trial.checks) >= 10


@pytest.mark.parametrize("doctor", DOCTORS, ids=lambda one: one.__name__)
def test_a_doctored_seg_fails_where_it_is_wrong(segmented: Segmented, doctor: Doctor) -> None:
    trial = judged(segmented, "ct-axial", doctor)
    assert DOCTORS[doctor] <= failed(trial)
    assert trial.verdict is Verdict.FAIL


@pytest.mark.parametrize("name", ["ct-tilted", "ct-thick", "mr-coronal", "mr-oblique"])
@pytest.mark.parametrize("doctor", [mirrored, one_slice_on], ids=lambda one: one.__name__)
def test_so_it_does_where_edges_are_not_compared(
    segmented: Segmented, name: str, doctor: Doctor
) -> None:
    assert "mask" in failed(judged(segmented, name, doctor))


def judged(segmented: Segmented, name: str, doctor: Doctor) -> Trial:
    written, folder = segmented(name)
    seg = dcmread(folder / ArtifactName.SEG)
    doctor(seg)
    stored = BytesIO()
    seg.save_as(stored)
    stored.seek(0)
    trial = Trial(written)
    judge_seg(trial, [dcmread(stored)])
    return trial


def test_a_mirror_is_called_a_mirror(segmented: Segmented) -> None:
    [check] = [one for one in judged(segmented, "ct-axial", mirrored).checks if one.name == "mask"]
    assert "mirrored along the columns" in check.found


def test_none_and_two_segs_fail(segmented: Segmented) -> None:
    written, folder = segmented("ct-axial")
    none, two = Trial(written), Trial(written)
    judge_seg(none, [])
    seg = dcmread(folder / ArtifactName.SEG)
    judge_seg(two, [seg, seg])
    assert failed(none) == failed(two) == {"one SEG"}


def another_volume(report: Dataset) -> None:
    item = next(one for one in every_item(report) if "MeasuredValueSequence" in one)
    item.MeasuredValueSequence[0].NumericValue = "1000"


def another_seg(report: Dataset) -> None:
    for item in every_item(report):
        if "ReferencedSOPSequence" in item:
            item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3"


def no_tumour(report: Dataset) -> None:
    for group in report.ContentSequence[-1].ContentSequence:
        group.ContentSequence = [one for one in group.ContentSequence
                                 if one.get("TextValue") != "Liver tumour"]  # fmt: skip


@pytest.mark.parametrize(
    ("doctor", "check"),
    [
        (another_volume, "SR: liver including tumour"),
        (another_seg, "SR names the SEG"),
        (no_tumour, "SR: liver tumour"),
    ],
)
def test_a_doctored_report_fails(segmented: Segmented, doctor: Doctor, check: str) -> None:
    written, folder = segmented("ct-axial")
    report = deepcopy(dcmread(folder / ArtifactName.SR))
    doctor(report)
    trial = Trial(written)
    judge_report(trial, [report], dcmread(folder / ArtifactName.SEG))
    assert failed(trial) == {check}


def test_a_negative_phantom_fails_on_a_positive_result(segmented: Segmented) -> None:
    written, _ = segmented("ct-no-liver")
    _, folder = segmented("ct-axial")
    trial = Trial(written)
    judge_seg(trial, [dcmread(folder / ArtifactName.SEG)])
    judge_report(trial, [dcmread(folder / ArtifactName.SR)], None)
    assert {"mask", "liver in the SEG", "SR without a liver"} <= failed(trial)


def test_a_trial_without_a_check_has_not_passed(segmented: Segmented) -> None:
    written, _ = segmented("ct-axial")
    assert Trial(written).verdict is Verdict.FAIL


def test_the_pictures_show_what_differs(segmented: Segmented) -> None:
    written, folder = segmented("ct-axial")
    right = Trial(written)
    judge_seg(right, [dcmread(folder / ArtifactName.SEG)])
    wrong = judged(segmented, "ct-axial", mirrored)
    assert all(one.startswith("data:image/png;base64,") for one in pictures(right))
    assert not set(pictures(right)) & set(pictures(wrong))
