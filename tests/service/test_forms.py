"""The forms of a finished job: made once, from its own SEG, and kept."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_peers import dciodvfy_errors, inflated
from pydicom import dcmread

from service import execute, intake, wiring
from service.container import Container
from service.domain import ArtifactName, Job, Outcome, SubmitOptions
from service.errors import NotFoundError
from service.forms import FILES, Form, form_path, make
from service.settings import Settings
from service.uploads import Upload

CLASSES = {
    Form.SEG: "1.2.840.10008.5.1.4.1.1.66.4",
    Form.SEG_DEFLATED: "1.2.840.10008.5.1.4.1.1.66.4",
    Form.SEG_LABELMAP: "1.2.840.10008.5.1.4.1.1.66.7",
    Form.SEG_LABELMAP_DEFLATED: "1.2.840.10008.5.1.4.1.1.66.7",
    Form.SR: "1.2.840.10008.5.1.4.1.1.88.34",
    Form.SR_LABELMAP: "1.2.840.10008.5.1.4.1.1.88.34",
    Form.SR_VIEWER: "1.2.840.10008.5.1.4.1.1.88.33",
    Form.CAPTURE: "1.2.840.10008.5.1.4.1.1.7",
    Form.RTSTRUCT: "1.2.840.10008.5.1.4.1.1.481.3",
}


@contextmanager
def finished(settings: Settings, *files: Path) -> Iterator[tuple[Container, Job]]:
    container = wiring.build(settings)
    job = intake.submit(container, Upload(files), SubmitOptions("ct"))
    execute.run(container, job.id)
    yield container, container.jobs.require(job.id)
    container.database.close()


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path, made: Any
) -> Iterator[tuple[Container, Job]]:
    """One job with a lesion for the tests that only read."""
    root = tmp_path_factory.mktemp("forms")
    settings = Settings(
        state_dir=root / "state", models_dir=models_dir, default_model="tiny",
        engine="onnxruntime", threads=1, min_free_bytes=0, purge_free_bytes=0,
    )  # fmt: skip
    series = made.zip(root / "ct.zip", made.series(root / "series", made.phantom()))
    with finished(settings, series) as found:
        yield found


@pytest.mark.parametrize("form", Form)
def test_every_form_is_valid_and_of_the_study(done: tuple[Container, Job], form: Form) -> None:
    container, job = done
    seg = dcmread(container.artifacts.path(job.id, ArtifactName.SEG))
    with make(container, job, form) as paths:
        assert len(paths) == (1 if form is not Form.CAPTURE else 24)
        found = [dcmread(path) for path in paths]
        deflated = found[0].file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1.99"
        checked = inflated(paths[0]) if deflated else paths[0]
        errors = dciodvfy_errors(checked)
        if form is Form.SR_LABELMAP:  # dciodvfy does not count a label map as a segmentation
            errors = [line for line in errors if "class that is not seg" not in line.lower()]
        assert not errors
        if deflated:
            checked.unlink()
    assert deflated == form.value.endswith("deflated")
    assert {str(dataset.SOPClassUID) for dataset in found} == {CLASSES[form]}
    assert {str(dataset.StudyInstanceUID) for dataset in found} == {str(seg.StudyInstanceUID)}
    assert container.artifacts.path(job.id, FILES[form]).is_file()


def test_every_form_is_an_object_of_its_own_but_a_deflated_one(done: tuple[Container, Job]) -> None:
    uids: dict[Form, str] = {}
    series: dict[Form, str] = {}
    numbers: set[int] = set()
    for form in Form:
        with make(*done, form) as paths:
            dataset = dcmread(paths[0], stop_before_pixels=True)
        uids[form], series[form] = dataset.SOPInstanceUID, dataset.SeriesInstanceUID
        numbers.add(int(dataset.SeriesNumber))
    assert uids[Form.SEG] == uids[Form.SEG_DEFLATED]
    assert uids[Form.SEG_LABELMAP] == uids[Form.SEG_LABELMAP_DEFLATED]
    assert len(set(uids.values())) == len(set(series.values())) == len(Form) - 2
    assert numbers == set(range(9001, 9008))


def test_a_form_is_made_once(done: tuple[Container, Job]) -> None:
    container, job = done
    first = form_path(container, job, Form.RTSTRUCT)
    before = first.stat().st_mtime_ns
    assert form_path(container, job, Form.RTSTRUCT).stat().st_mtime_ns == before


@pytest.mark.parametrize("form", [form for form in Form if form not in (Form.SEG, Form.SR)])
def test_made_again_a_form_is_the_same_file(done: tuple[Container, Job], form: Form) -> None:
    container, job = done
    path = form_path(container, job, form)
    first = path.read_bytes()
    path.unlink()
    again = form_path(container, job, form).read_bytes()
    assert first == again


def test_the_report_for_a_labelmap_refers_to_it(done: tuple[Container, Job]) -> None:
    with make(*done, Form.SR_LABELMAP) as (report,), make(*done, Form.SEG_LABELMAP) as (seg,):
        document, labelmap = dcmread(report), dcmread(seg)
    named = {
        (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
        for study in document.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert named == {(str(labelmap.SOPClassUID), str(labelmap.SOPInstanceUID))}


def test_the_pictures_are_a_plain_zip(done: tuple[Container, Job]) -> None:
    with zipfile.ZipFile(form_path(*done, Form.CAPTURE)) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    assert names == [f"image-{number:05d}.dcm" for number in range(1, 25)]


def test_a_healthy_liver_has_no_line_to_draw(settings: Settings, tmp_path: Path, made: Any) -> None:
    image = made.phantom()
    image[image == 180] = 120
    files = made.series(tmp_path / "series", image)
    with finished(settings, *files) as (container, job):
        assert job.outcome is Outcome.NO_LESION
        with make(container, job, Form.SR_VIEWER) as paths:
            assert paths == ()
        with pytest.raises(NotFoundError) as caught:
            form_path(container, job, Form.SR_VIEWER)
        assert caught.value.code == "artifact_not_found"
        with make(container, job, Form.RTSTRUCT) as (path,):
            rois = dcmread(path).ROIContourSequence
        assert [len(roi.get("ContourSequence", ())) > 0 for roi in rois] == [True, False, True]


def test_not_evaluable_is_one_picture(settings: Settings, tmp_path: Path, made: Any) -> None:
    image = np.full((24, 40, 40), 20, np.int16)
    with finished(settings, *made.series(tmp_path / "series", image)) as (container, job):
        assert job.outcome is Outcome.NOT_EVALUABLE
        with make(container, job, Form.CAPTURE) as paths:
            assert len(paths) == 1
        for form in Form:
            with make(container, job, form) as paths:
                assert len(paths) == (form is not Form.SR_VIEWER)


def test_nifti_has_no_dicom_form(settings: Settings, tmp_path: Path, made: Any) -> None:
    with finished(settings, made.nifti(tmp_path / "a.nii.gz")) as (container, job):
        for form in Form:
            with pytest.raises(NotFoundError), make(container, job, form):
                pass


def test_a_purged_input_leaves_what_was_made(settings: Settings, tmp_path: Path, made: Any) -> None:
    files = made.series(tmp_path / "series", made.phantom())
    with finished(settings, *files) as (container, job):
        form_path(container, job, Form.RTSTRUCT)
        container.artifacts.delete_input(job.input_key)
        assert form_path(container, job, Form.RTSTRUCT).is_file()
        with pytest.raises(NotFoundError) as caught:
            form_path(container, job, Form.CAPTURE)
        assert caught.value.code == "input_not_found"
