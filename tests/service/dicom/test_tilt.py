"""A phantom scanned by a tilted gantry, the whole way: from files to a SEG that others read.

The patient lies straight: the table moves along z, and the slices are turned about x. Truth is
analytic: what lies inside an ellipsoid at the centre of a voxel.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_peers import dciodvfy_errors, dcmqi_slices
from dicom_phantoms import Grid, Recipe, write_series
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from model.metrics import dice
from service.domain import SubmitOptions
from service.oneshot import OneShot, segment_into
from service.settings import Settings
from service.uploads import Upload
from service.wiring import BackendCache

AROUND, LIVER_HU, TUMOUR_HU = 60, 140, 180  # the tiny model divides at 100 and 160
LIVER_AT, LIVER_RADII = np.array([-22.0, 5.0, 4.0]), np.array([44.0, 36.0, 30.0])
TUMOUR_AT, TUMOUR_RADII = np.array([-38.0, -4.0, 10.0]), np.array([14.0, 13.0, 13.0])
EDGE_MM = 2.0
UNEVEN = (4.0, 4.0, 4.0, 5.5, 3.7, 4.4, 4.0, 5.1, 4.6, 4.0, 3.7, 5.3, 4.0, 4.0, 4.9, 4.0, 4.3, 4.0)


def within(points: NDArray[np.float64], at: NDArray[np.float64], radii: NDArray[np.float64]):
    """Signed mm to the surface, roughly; positive inside."""
    unit = np.linalg.norm((points - at) / radii, axis=-1)
    return (1 - unit) * radii.min()


@dataclass(frozen=True)
class Scan:
    """One scan: where its slices are and what is in them."""

    tilt: float
    uneven: bool = False
    missing: int | None = None
    descending: bool = False

    @property
    def grid(self) -> Grid:
        # A gantry tilted by t about x: slices turned, the stack still along the patient's z.
        turn = np.radians(self.tilt)
        orientation = (1, 0, 0, 0, float(np.cos(turn)), float(-np.sin(turn)))
        return Grid((19, 76, 88), (4.0, 1.6, 1.4), orientation, tilt=-self.tilt)

    @property
    def positions(self) -> NDArray[np.float64]:
        steps = np.array(UNEVEN) if self.uneven else np.full(18, 4.0)
        return np.r_[0.0, np.cumsum(steps)]

    def points(self) -> NDArray[np.float64]:
        return self.grid.world(self.positions.tolist())

    def truth(self) -> NDArray[np.uint8]:
        points = self.points()
        liver, tumour = (
            within(points, LIVER_AT, LIVER_RADII),
            within(points, TUMOUR_AT, TUMOUR_RADII),
        )
        return np.where(tumour > 0, 2, np.where(liver > 0, 1, 0)).astype(np.uint8)

    def image(self) -> NDArray[np.int16]:
        """Outlines as soft as a scanner's; an L of air at the patient's left front."""
        points = self.points()
        share = [
            np.clip(within(points, at, radii) / EDGE_MM + 0.5, 0, 1)
            for at, radii in ((LIVER_AT, LIVER_RADII), (TUMOUR_AT, TUMOUR_RADII))
        ]
        values = AROUND + (LIVER_HU - AROUND) * share[0] + (TUMOUR_HU - LIVER_HU) * share[1]
        x, y, z = np.moveaxis(points, -1, 0)
        letter = (abs(x - 45) < 3) & (abs(y + 38) < 10) | (abs(x - 50) < 8) & (abs(y + 30) < 3)
        values[letter & (abs(z) < 20)] = -900
        return np.rint(values).astype(np.int16)

    @property
    def kept(self) -> NDArray[np.intp]:
        return np.delete(np.arange(19), [] if self.missing is None else [self.missing])

    def write(self, folder: Path) -> list[Path]:
        skip = frozenset() if self.missing is None else frozenset({self.missing})
        recipe = Recipe(
            positions=self.positions.tolist(), skip=skip, descending=self.descending, edit=numbered
        )
        return write_series(folder, self.image(), self.grid, recipe)


def numbered(dataset: Dataset, index: int) -> None:
    dataset.AcquisitionNumber = 1


@pytest.fixture(scope="module")
def segmented(models_dir: Path, tmp_path_factory: pytest.TempPathFactory):
    """The files of a scan, and what the whole way made of them."""
    settings = Settings(
        models_dir=models_dir, default_model="tiny", engine="onnxruntime", threads=1
    )
    backends = BackendCache(settings.engine, settings.threads)
    known: dict[Scan, tuple[list[Path], Path, OneShot]] = {}

    def run(scan: Scan) -> tuple[list[Path], Path, OneShot]:
        if scan not in known:
            folder = tmp_path_factory.mktemp("tilt")
            files = scan.write(folder / "in")
            shot = segment_into(
                settings, Upload(tuple(files)), SubmitOptions("ct", "tiny", "balanced"),
                out=folder / "out", open_backend=backends, report=lambda _stage, _part: None,
            )  # fmt: skip
            known[scan] = files, folder / "out", shot
        return known[scan]

    return run


Segmented = Callable[[Scan], tuple[list[Path], Path, OneShot]]
SCANS = {
    "straight": Scan(0.0),
    "tilted by +20": Scan(20.0),
    "tilted by -15": Scan(-15.0),
    "tilted by -15, from above": Scan(-15.0, descending=True),
    "tilted by +20, uneven": Scan(20.0, uneven=True),
    "tilted by -15, one missing": Scan(-15.0, missing=4),
    "uneven": Scan(0.0, uneven=True),
}


def seg_by_slices(seg: Path, files: list[Path]) -> NDArray[np.uint8]:
    """The mask that highdicom reads, put on the source slices that the frames name."""
    dataset = hd.seg.segread(seg)
    order = sorted((dcmread(file, stop_before_pixels=True) for file in files), key=height)
    uids = [str(image.SOPInstanceUID) for image in order]
    frames = dataset.get_pixels_by_source_instance(
        source_sop_instance_uids=uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    return np.asarray(frames, np.uint8)


def height(image: Dataset) -> float:
    cosines = np.array(image.ImageOrientationPatient, float)
    normal = np.cross(cosines[:3], cosines[3:])
    return float(normal @ np.array(image.ImagePositionPatient, float))


@pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS.keys())
def test_the_mask_lies_where_the_liver_is(segmented: Segmented, scan: Scan) -> None:
    files, out, _ = segmented(scan)
    mask = seg_by_slices(out / "seg.dcm", files)
    truth, points = scan.truth()[scan.kept], scan.points()[scan.kept]
    assert dice(mask > 0, truth > 0) > 0.97
    assert dice(mask == 2, truth == 2) > 0.97
    for inside, wanted in ((mask > 0, truth > 0), (mask == 2, truth == 2)):
        off = points[inside].mean(axis=0) - points[wanted].mean(axis=0)
        assert np.linalg.norm(off) < 0.7  # half a pixel
    # The frames lie exactly where their source slices lie, and as they do.
    sources = {str((image := dcmread(file)).SOPInstanceUID): image for file in files}
    seg = dcmread(out / "seg.dcm")
    shared = seg.SharedFunctionalGroupsSequence[0]
    for frame in seg.PerFrameFunctionalGroupsSequence:
        image = sources[
            frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        ]
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(place, image.ImagePositionPatient, atol=1e-6)
    turned = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    assert np.allclose(turned, image.ImageOrientationPatient, atol=1e-6)
    assert not dciodvfy_errors(out / "seg.dcm")


@pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS.keys())
def test_the_measurements_are_those_of_the_phantom(segmented: Segmented, scan: Scan) -> None:
    _, out, _ = segmented(scan)
    found = json.loads((out / "measurements.json").read_text())["measurements"]
    assert found["liver_ml"] == pytest.approx(4 / 3 * np.pi * LIVER_RADII.prod() / 1000, rel=0.03)
    (lesion,) = found["lesions"]
    assert lesion["volume_ml"] == pytest.approx(
        4 / 3 * np.pi * TUMOUR_RADII.prod() / 1000, rel=0.06
    )
    assert lesion["long_axis_mm"] == pytest.approx(2 * TUMOUR_RADII[0], abs=2.0)
    assert np.abs(np.array(lesion["centroid_mm"]) - TUMOUR_AT).max() < 1.0


@pytest.mark.parametrize("name", ["tilted by -15", "tilted by -15, from above"])
def test_dcmqi_finds_every_voxel_in_its_slice(
    segmented: Segmented, tmp_path: Path, name: str
) -> None:
    """dcmqi has no shear: it stacks the frames straight over the first (and refuses them where
    that leads out of its grid, as at +20 degrees). Slice for slice they are the mask."""
    files, out, _ = segmented(SCANS[name])
    mask = seg_by_slices(out / "seg.dcm", files)
    theirs = dcmqi_slices(out / "seg.dcm", tmp_path / "nii")
    held = np.flatnonzero(mask.any(axis=(1, 2)))
    assert np.array_equal(theirs, mask[held[0] : held[-1] + 1])


@pytest.mark.parametrize("name", ["tilted by +20", "tilted by +20, uneven"])
def test_the_nifti_mask_is_in_the_patient(segmented: Segmented, name: str) -> None:
    _, out, _ = segmented(SCANS[name])
    image = nib.load(out / "mask.nii.gz")
    voxels = np.argwhere(np.asarray(image.dataobj) > 0)
    found = nib.affines.apply_affine(image.affine, voxels).mean(axis=0) * [-1, -1, 1]
    scan = SCANS[name]
    truth = scan.points()[scan.truth() > 0].mean(axis=0)
    assert np.linalg.norm(found - truth) < 1.4


def test_the_receipt_tells_the_tilt(segmented: Segmented) -> None:
    notes = {name: segmented(scan)[2].case.receipt[0]["notes"] for name, scan in SCANS.items()}
    assert notes["straight"] == []
    assert notes["tilted by +20"] == ["tilted by 20.0 degrees"]
    assert notes["tilted by -15"] == ["tilted by 15.0 degrees"]
    assert [note[:4] for note in notes["tilted by +20, uneven"]] == ["tilt", "slic"]
    assert [note[:9] for note in notes["tilted by -15, one missing"]] == ["tilted by", "one slice"]


def test_simpleitks_reader_misplaces_the_same_series(segmented: Segmented) -> None:
    """Why it is never used: it takes the first slice's place and the mean step along the normal."""
    files, out, _ = segmented(SCANS["tilted by +20"])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(list(reader.GetGDCMSeriesFileNames(str(files[0].parent))))
    image = reader.Execute()
    tumour = sitk.GetArrayFromImage(image) > 160
    z, y, x = np.argwhere(tumour).mean(axis=0)
    theirs = np.array(image.TransformContinuousIndexToPhysicalPoint((x, y, z)))
    found = json.loads((out / "measurements.json").read_text())["measurements"]["lesions"][0]
    assert np.linalg.norm(theirs - TUMOUR_AT) > 10
    assert np.linalg.norm(np.array(found["centroid_mm"]) - TUMOUR_AT) < 1
