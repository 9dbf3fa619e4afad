"""What a reader sees: a series sent by C-STORE comes back into the PACS, and OHIF shows its
segmentation voxel by voxel where it lies, in its colours, and its reports as text and as lines.

Quick: one CT. ``--full``: MR, a label map, enhanced multi-frame, oblique, tilted, 300 slices.
"""

import hashlib
import io
import json
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import ohif
import pytest
from dicom_phantoms import Grid
from numpy.typing import NDArray
from ohif import Labelled, OhifMissingError, Shown, Viewer
from PIL import Image
from playwright.sync_api import Browser
from pydicom import Dataset, dcmread
from roles import Deployment
from scipy import ndimage
from scipy.spatial.distance import pdist
from servers import OrthancServer, free_port, wait_until
from viewer_cases import MORE, QUICK, Case, files_of, image_of, phantom, truth_of

from model.spec import LIVER_LABEL, TUMOUR_LABEL
from service.dicom.codes import as_rgb

Mask: TypeAlias = NDArray[np.uint8]
Slices: TypeAlias = dict[tuple[str, int], Mask]
"""By SOP instance UID and frame of the image."""

SEG, SR, LINES = "Liver segmentation", "Liver measurements", "Liver lesions, long axes"
LABELS = (LIVER_LABEL, TUMOUR_LABEL)
PATIENCE_S = 180.0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        cases = QUICK + (MORE if metafunc.config.getoption("--full") else [])
        metafunc.parametrize("case", cases, ids=lambda case: case.name)


@dataclass(frozen=True)
class Hospital:
    """A PACS, the service that listens beside it, and the viewer of the PACS."""

    pacs: OrthancServer
    service: Deployment
    listen_port: int
    viewer_url: str

    def send(self, files: list[Path]) -> None:
        """To the PACS, and by dcmtk's C-STORE to the service."""
        self.pacs.load(files)
        where = ["-R", "-aec", "AQCF", "127.0.0.1", str(self.listen_port)]
        command = ["/usr/bin/storescu", *where, *map(str, files)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def segmentation(self, case: Case) -> Dataset:
        """Once the PACS has all results."""
        wanted = {SEG, SR, LINES} if case.lines else {SEG, SR}
        wait_until(lambda: wanted <= self._series(case).keys(), "no results", PATIENCE_S)
        return self._instance(self._series(case)[SEG])

    def _series(self, case: Case) -> dict[str, str]:
        """The identifiers of a study's series, by their descriptions."""
        query = {"Level": "Series", "Expand": True, "Query": {"StudyInstanceUID": case.study}}
        with self.pacs.http() as http:
            found = http.post("/tools/find", json=query).raise_for_status().json()
        return {one["MainDicomTags"]["SeriesDescription"]: one["ID"] for one in found}

    def _instance(self, series: str) -> Dataset:
        with self.pacs.http() as http:
            (instance,) = http.get(f"/series/{series}").raise_for_status().json()["Instances"]
            return dcmread(io.BytesIO(http.get(f"/instances/{instance}/file").content))


@pytest.fixture(scope="module")
def built(full: bool) -> Path:
    """The viewer; without it the quick test is skipped."""
    try:
        return ohif.provide()
    except OhifMissingError as error:
        if full:
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def hospital(
    built: Path,
    orthanc_server: OrthancServer,
    models_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Hospital]:
    folder, port = tmp_path_factory.mktemp("hospital"), free_port()
    (folder / "site.yaml").write_text(site_of(orthanc_server))
    orthanc_server.clear()
    service = Deployment(
        folder,
        {
            "AQCF_STATE_DIR": str(folder / "state"),
            "AQCF_MODELS_DIR": str(models_dir),
            "AQCF_SITE_FILE": str(folder / "site.yaml"),
            "AQCF_LISTEN_PORT": str(port),
            "AQCF_QUIET_S": "1",
        },
    )
    try:
        role = service.start("serve", "--port", str(service.port), "--listen")
        wait_until(lambda: role.says("listening on"), "it does not serve", 90)
        with ohif.serving(built, orthanc_server) as url:
            yield Hospital(orthanc_server, service, port, url)
    finally:
        service.close()


def site_of(pacs: OrthancServer) -> str:
    """Label maps go by STOW-RS: this PACS refuses their class in an association."""
    node = pacs.node().model_dump(mode="json", exclude_defaults=True)
    wanted = {
        "nodes": {"pacs": node},
        "archive": "pacs",
        "profiles": {"map": {"seg": "labelmap"}, "all": {"sr_viewer": True}},
        "destinations": {
            "pacs": {"node": "pacs", "by": "dimse", "profile": "all"},
            "maps": {"node": "pacs", "by": "dicomweb", "profile": "map"},
        },
        "rules": [
            {
                "when": {"description": "labelmap"},
                "then": {"destinations": ["maps"]},
                "name": "map",
            },
            {"when": {}, "then": {"destinations": ["pacs"]}, "name": "rest"},
        ],
    }
    return json.dumps(wanted)  # which is YAML


@pytest.fixture(scope="module")
def figures(
    record: Callable[[str, dict[str, Any]], None], browser: Browser
) -> Iterator[dict[str, Any]]:
    """What was seen of each series; written at the end."""
    seen: dict[str, Any] = {}
    yield seen
    record("viewer", {"ohif": ohif.VERSION, "chromium": browser.version, "series": seen})


def test_a_series_sent_by_c_store_opens_in_ohif(
    case: Case,
    hospital: Hospital,
    browser: Browser,
    figures: dict[str, Any],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    values = phantom(case.grid.shape)
    hospital.send(files_of(case, values, tmp_path))
    expected = decoded(hospital.segmentation(case), case)
    check_truth(case, expected, truth_of(values))

    def see(viewer: Viewer) -> dict[str, Any]:
        listed_s = viewer.open(case.study, SEG, SR)
        opened_s = viewer.load_segmentation(SEG)
        shown = viewer.label_map()
        check_voxels(shown, expected)
        check_order(case, shown)
        check_names(viewer)
        check_picture(viewer, case, expected)
        keep_picture(viewer, case, request.config.getoption("--figures"))
        if case.lines:
            check_lines(viewer, case, expected)
        check_report(viewer, case, expected)
        assert not viewer.failures()
        return told(shown, listed_s, opened_s)

    figures[case.name] = ohif.look(browser, hospital.viewer_url, see)


def told(shown: list[Shown], listed_s: float, opened_s: float) -> dict[str, Any]:
    return {
        "slices": len(shown),
        "slices with voxels": sum(bool(one.voxels) for one in shown),
        "liver voxels": sum(one.voxels.get(1, 0) for one in shown),
        "tumour voxels": sum(one.voxels.get(2, 0) for one in shown),
        "slices that differ": 0,
        "seconds until listed": round(listed_s, 1),
        "seconds until the segmentation is drawn": round(opened_s, 1),
    }


def keep_picture(viewer: Viewer, case: Case, folder: Path | None) -> None:
    if folder is not None and case in QUICK:
        folder.mkdir(parents=True, exist_ok=True)
        viewer.picture(folder / "viewer.png")


def decoded(seg: Dataset, case: Case) -> Slices:
    """By pydicom, under the image that each frame names; empty for images that no frame names."""
    assert seg.SegmentationType == ("LABELMAP" if case.labelmap else "BINARY")
    shape = case.grid.shape
    found = {image_of(case, index): np.zeros(shape[1:], np.uint8) for index in range(shape[0])}
    frames = zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True)
    for item, pixels in frames:
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        name = str(source.ReferencedSOPInstanceUID), int(source.get("ReferencedFrameNumber", 1))
        value = 1 if case.labelmap else segment_of(item)
        found[name] = np.maximum(found[name], pixels * np.uint8(value))
    return found


def segment_of(item: Dataset) -> int:
    return int(item.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def count(slices: Slices, value: int) -> int:
    return sum(int((plane == value).sum()) for plane in slices.values())


def stacked(case: Case, slices: Slices) -> Mask:
    return np.stack([slices[image_of(case, index)] for index in range(case.grid.shape[0])])


def check_truth(case: Case, expected: Slices, truth: Mask) -> None:
    mask = stacked(case, expected)
    if case.exact:
        np.testing.assert_array_equal(mask, truth)
    for value in (1, 2):
        ours, theirs = mask == value, truth == value
        assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.9


def check_voxels(shown: list[Shown], expected: Slices) -> None:
    """Every image has its slice once, with the very values."""
    assert sorted(one.image for one in shown) == sorted(expected)
    assert {one.image: one.voxels for one in shown} == {
        image: {value: n for value in (1, 2) if (n := int((plane == value).sum()))}
        for image, plane in expected.items()
    }
    assert {one.image: one.digest for one in shown} == {
        image: hashlib.sha256(plane.tobytes()).hexdigest() for image, plane in expected.items()
    }


def check_order(case: Case, shown: list[Shown]) -> None:
    """One after the other, from one end of the series or from the other."""
    forward = [image_of(case, index) for index in range(case.grid.shape[0])]
    assert [one.image for one in shown] in (forward, forward[::-1])


def check_names(viewer: Viewer) -> None:
    """In the viewer's state and in its panel. It lists a label map's background too."""
    listed = [one for one in viewer.segments() if one.number]
    assert listed == [Labelled(one.value, one.name, as_rgb(one)) for one in LABELS]
    assert viewer.listed(one.name for one in LABELS)


def check_picture(viewer: Viewer, case: Case, expected: Slices) -> None:
    """Liver and tumour are drawn in their colours where they lie, and nothing at the mirror image
    of the liver, nor on a slice without liver."""
    mask = stacked(case, expected)
    index = int((mask == TUMOUR_LABEL.value).sum(axis=(1, 2)).argmax())
    spots = spots_of(mask[index])
    viewer.go_to(image_of(case, index))
    places = [viewer.place(point(case.grid, index, spot)) for spot in spots]
    wanted = (as_rgb(LIVER_LABEL), as_rgb(TUMOUR_LABEL), None)
    wait_until(lambda: tints(viewer, places, wanted), "it is not drawn so", PATIENCE_S)
    viewer.go_to(image_of(case, 0))
    wait_until(lambda: tints(viewer, places, (None,) * 3), "an empty slice has colours", PATIENCE_S)
    viewer.go_to(image_of(case, index))


def spots_of(plane: Mask) -> list[tuple[int, int]]:
    """(row, column) deep in the liver, deep in the tumour, and deep in the liver's mirror image."""
    mirrored = (plane == 0) & (plane[:, ::-1] == LIVER_LABEL.value)
    regions = (plane == LIVER_LABEL.value, plane == TUMOUR_LABEL.value, mirrored)
    depths = [ndimage.distance_transform_edt(region) for region in regions]
    return [np.unravel_index(int(depth.argmax()), plane.shape) for depth in depths]


def point(grid: Grid, index: int, spot: tuple[int, int]) -> NDArray[np.float64]:
    """LPS mm of a pixel."""
    row, column = spot
    place: NDArray[np.float64] = (grid.affine @ (column, row, index, 1))[:3]
    return place


def tints(
    viewer: Viewer,
    places: Sequence[tuple[int, int]],
    wanted: Sequence[tuple[int, int, int] | None],
) -> bool:
    """Whether the page is of these hues there; ``None`` is grey."""
    with Image.open(io.BytesIO(viewer.picture())) as picture:
        colours = [np.array(picture.convert("RGB").getpixel(place), float) for place in places]
    return all(is_tint(colour, hue) for colour, hue in zip(colours, wanted, strict=True))


def is_tint(colour: NDArray[np.float64], hue: tuple[int, int, int] | None) -> bool:
    """A colour laid thinly on grey keeps its direction away from grey."""
    away = colour - colour.mean()
    if hue is None:
        return bool(np.abs(away).max() < 3)
    wanted = np.array(hue) - np.mean(hue)
    length = float(np.linalg.norm(away))
    return length > 8 and float(away @ wanted) / length / float(np.linalg.norm(wanted)) > 0.97


def check_lines(viewer: Viewer, case: Case, expected: Slices) -> None:
    """The tumour's long axis is drawn on one of its slices, from voxel to voxel."""
    (line,) = viewer.read_lines(LINES)
    (index,) = {int(place[2]) for place in indices(case.grid, line.ends)}
    assert line.image == image_of(case, index)
    plane = expected[line.image]
    assert [plane[row, column] for column, row, _ in indices(case.grid, line.ends)] == [2, 2]
    longest = max(diameter(plane == 2, case.grid) for plane in expected.values())
    assert np.linalg.norm(np.subtract(*line.ends)) == pytest.approx(longest, abs=0.01)


def indices(grid: Grid, points: Sequence[Sequence[float]]) -> list[tuple[int, ...]]:
    """(x, y, z) of voxels at whose centres points (LPS mm) lie."""
    homogeneous = np.column_stack([points, np.ones(len(points))])
    places = (homogeneous @ np.linalg.inv(grid.affine).T)[:, :3]
    assert np.abs(places - np.rint(places)).max() < 0.01
    return [tuple(place) for place in np.rint(places).astype(int)]


def diameter(region: NDArray[np.bool_], grid: Grid) -> float:
    """The largest distance between two pixels, in mm."""
    return float(max(pdist(np.argwhere(region) * grid.spacing[1:]), default=0.0))


def check_report(viewer: Viewer, case: Case, expected: Slices) -> None:
    """It opens as text, with the volumes of what is shown."""
    text = viewer.read_report(SR, "Oncology Measurement Report")
    said = [float(value) for value in re.findall(r"([\d.]+) mm3", text)]
    liver, tumour = (count(expected, value) * float(np.prod(case.grid.spacing)) for value in (1, 2))
    assert said[:3] == pytest.approx([liver + tumour, liver, tumour], rel=1e-6)
