"""From a series on disk through the pipeline to what dcmqi reads: everything stays in its place."""

from pathlib import Path

import numpy as np
import pytest
from dicom_peers import dcmqi_mask
from dicom_phantoms import ORIENTATIONS, Grid, Recipe, body, labels, write_series

from model.pipeline import segment
from model.spec import (
    FixedIntensity,
    ModalitySpec,
    ModelSpec,
    NetworkConfig,
    PostprocessRules,
    Profile,
)
from model.types import Batch
from service.dicom.pixels import load
from service.dicom.seg import Algorithm, build_seg, to_bytes
from service.dicom.series import choose, scan

SPEC = ModelSpec(
    id="threshold",
    version="1",
    network=NetworkConfig(),
    modalities={
        "ct": ModalitySpec(
            orientation="RAS",
            spacing_mm=(1.5, 1.5, 1.5),
            intensity=FixedIntensity(lo=-100, hi=100),
            patch=(16, 32, 32),
        )
    },
    profiles={"balanced": Profile(overlap=0.25)},
    postprocess={"ct": PostprocessRules(min_liver_ml=0)},
)


class Threshold:
    """An engine that calls what is brighter than 30 HU liver; the tumour's 40 HU are, too."""

    name = engine = "threshold"
    precision = "f32"

    def logits(self, batch: Batch) -> Batch:
        bright = (batch - np.float32(0.65)) * 100
        return np.concatenate([-bright, bright, np.full_like(bright, -100)], axis=1)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_an_asymmetric_phantom_ends_in_the_same_physical_place(
    tmp_path: Path, name: str, descending: bool
) -> None:
    grid = Grid((16, 44, 52), (2.5, 1.25, 0.75), ORIENTATIONS[name], (11.0, -7.0, 30.0))
    values = body(Grid(grid.shape, grid.spacing, grid.orientation))
    paths = write_series(tmp_path / "in", values, grid, Recipe(descending=descending))
    case = load(choose(scan(paths, "ct"))[0])

    result = segment(case.volume, SPEC, Threshold())
    mask = case.mask_to_native(result.mask)
    seg = build_seg(case.series, mask, SPEC.labels, Algorithm("threshold", "1"), "key")
    (tmp_path / "seg.dcm").write_bytes(to_bytes(seg))

    theirs = dcmqi_mask(tmp_path / "seg.dcm", tmp_path / "out", case.native)
    np.testing.assert_array_equal(theirs, mask)
    z, y, x = np.nonzero(theirs)
    found = (case.native.affine @ np.stack([x, y, z, np.ones_like(x)])).mean(axis=1)[:3]
    truth = grid.world()[labels(values) > 0].mean(axis=0)
    assert np.abs(found - truth).max() < min(grid.spacing)
    assert abs(np.count_nonzero(mask) / np.count_nonzero(labels(values)) - 1) < 0.15
