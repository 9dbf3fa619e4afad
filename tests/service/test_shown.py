"""Slices that are not the acquired ones: report, SEG and NIfTI mask tell of the same lesions.

What the network sees is made here, voxel by voxel; everything after it is real, and SEG and SR are
read back from their files.
"""

import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import cc3d
import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from dicom_phantoms import Grid, write_series
from dicom_phantoms import Recipe as Written
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.spec import (
    FixedIntensity,
    ModalitySpec,
    ModelFolder,
    ModelSpec,
    NetworkConfig,
    PostprocessRules,
    Profile,
)
from model.types import Batch
from model.volume import Volume
from service.cases import LoadedCase
from service.dicom.pixels import LoadedSeries, load
from service.dicom.series import choose, scan
from service.domain import ArtifactName, Finding
from service.produce import Recipe, produce

SIDE, STEP_MM = 32, 3.0
EVEN = tuple(STEP_MM * index for index in range(14))
STACKS = {  # an even number of slices each: then the network sees the grid voxel by voxel
    "even": EVEN,
    "one missing": EVEN[:6] + EVEN[7:],
    "two spacings": (*EVEN[:8], 27.0, 33.0, 39.0),
    "uneven": (0.0, 3.0, 6.0, 9.0, 12.4, 16.1, 19.1, 22.1, 26.0, 31.8, 34.8, 37.8, 40.8),
}
HU = np.array([0, 120, 200], np.int16)
CORNERS = [(y, x) for y in (6, 13, 20) for x in (6, 13, 20)]
WIDE = 3


class Steps:
    """An engine that calls what is brighter than 60 HU liver, than 160 HU tumour."""

    name = engine = "steps"
    precision = "f32"

    def logits(self, batch: Batch) -> Batch:
        return np.concatenate([0 * batch, 100 * batch - 30, 200 * batch - 110], axis=1)


@dataclass(frozen=True)
class Lesion:
    """``first``: its lowest slice of the network's grid; ``corner``: which of ``CORNERS``."""

    corner: int
    first: int
    slices: int = 1


@dataclass(frozen=True, eq=False)
class Told:
    """``lesions``: how many each result tells of. ``native``: the SEG on its source slices."""

    finding: Finding
    lesions: dict[str, int]
    native: NDArray[np.uint8]


Agree: TypeAlias = Callable[[str, list[Lesion]], int]


@pytest.fixture(scope="module")
def agree(tmp_path_factory: pytest.TempPathFactory) -> Agree:
    """Of a stack and the lesions that the network finds there: the count on which all results
    agree."""
    stacks: dict[str, LoadedSeries] = {}

    def told(stack: str, lesions: list[Lesion]) -> int:
        if stack not in stacks:
            stacks[stack] = stacked(tmp_path_factory.mktemp("stack"), STACKS[stack])
        return agreed(stacks[stack], lesions)

    return told


def stacked(folder: Path, positions: tuple[float, ...]) -> LoadedSeries:
    grid = Grid((len(positions), SIDE, SIDE), (STEP_MM, 2.0, 2.0))
    recipe = Written(positions=positions)
    files = write_series(folder, np.zeros(grid.shape, np.int16), grid, recipe)
    return load(choose(scan(files, "ct"))[0])


def mask_of(lesions: Iterable[Lesion], slices: int) -> NDArray[np.uint8]:
    mask = np.zeros((slices, SIDE, SIDE), np.uint8)
    mask[1:-1, 4:26, 4:26] = 1
    for lesion in lesions:
        y, x = CORNERS[lesion.corner]
        mask[lesion.first : lesion.first + lesion.slices, y : y + WIDE, x : x + WIDE] = 2
    return mask


def produced(loaded: LoadedSeries, wanted: NDArray[np.uint8]) -> Told:
    """All results of a series in which the network finds ``wanted``."""
    volume = Volume(HU[wanted], loaded.volume.affine, "ct")
    view = ModalitySpec(
        orientation="LPS",
        spacing_mm=volume.spacing_mm,
        intensity=FixedIntensity(lo=0, hi=200),
        patch=(32, SIDE, SIDE),
    )
    spec = ModelSpec(
        id="steps",
        version="1",
        network=NetworkConfig(),
        modalities={"ct": view},
        profiles={"balanced": Profile(overlap=0.25)},
        postprocess={"ct": PostprocessRules(min_liver_ml=0.1)},
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        recipe = Recipe(ModelFolder(out, spec, "0" * 64), "balanced", "key")
        case = LoadedCase(volume, replace(loaded, volume=volume))
        finding = produce(case, recipe, Steps(), out, lambda _stage, _part: None)
        return read_back(finding, loaded, out)


def read_back(finding: Finding, loaded: LoadedSeries, out: Path) -> Told:
    uids = [plane.file.sop_instance_uid for plane in loaded.series.instances]
    native = hd.seg.segread(out / ArtifactName.SEG).get_pixels_by_source_instance(
        source_sop_instance_uids=uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    content = hd.sr.srread(out / ArtifactName.SR).content
    groups = (
        *content.get_image_measurement_groups(),
        *content.get_volumetric_roi_measurement_groups(),
    )
    names = [str(group.tracking_identifier) for group in groups]
    mask = np.asarray(nib.load(out / ArtifactName.MASK).dataobj)
    told = json.loads((out / ArtifactName.MEASUREMENTS).read_text())
    assert ("Liver tumour" in names) == (native == 2).any()
    assert told["outcome"] == finding.outcome
    lesions = {
        "SEG": parts(native == 2),
        "SR": sum(name.startswith("Lesion ") for name in names),
        "NIfTI": parts(mask == 2),
        "measurements": len(told["measurements"]["lesions"]),
    }
    return Told(finding, lesions, np.asarray(native))


def parts(inside: NDArray[np.bool_]) -> int:
    return int(cc3d.connected_components(inside, connectivity=26, return_N=True)[1])


def beside(loaded: LoadedSeries, lesion: Lesion) -> float:
    """Slices of the network's grid from a lesion to the nearest acquired slice."""
    places = loaded.native.distances / loaded.volume.spacing_mm[0]
    last = lesion.first + lesion.slices - 1
    return float(np.maximum(np.maximum(lesion.first - places, places - last), 0).min())


def agreed(loaded: LoadedSeries, lesions: list[Lesion]) -> int:
    told = produced(loaded, mask_of(lesions, loaded.volume.shape[0]))
    assert len(set(told.lesions.values())) == 1, told.lesions
    count = told.lesions["SEG"]
    assert told.finding.outcome == ("lesion_found" if count else "no_lesion")
    apart = [beside(loaded, lesion) for lesion in lesions]
    assert sum(d < 0.49 for d in apart) <= count <= sum(d < 0.51 for d in apart)
    assert any("acquired slice" in said for said in told.finding.applied) == (count < len(lesions))
    return count


@pytest.mark.parametrize("stack", [name for name in STACKS if name != "even"])
def test_a_lesion_on_one_slice_is_in_every_result_or_in_none(agree: Agree, stack: str) -> None:
    counts = [agree(stack, [Lesion(4, first)]) for first in range(4, 12)]
    assert 1 in counts
    assert 0 in counts


def test_even_slices_are_all_shown(agree: Agree) -> None:
    assert agree("even", [Lesion(0, 1), Lesion(4, 6), Lesion(8, 12)]) == 3


def some_lesions() -> st.SearchStrategy[list[Lesion]]:
    lesion = st.builds(
        Lesion, st.integers(0, len(CORNERS) - 1), st.integers(1, 10), st.integers(1, 3)
    )
    return st.lists(lesion, max_size=6, unique_by=lambda lesion: lesion.corner)


@settings(max_examples=20, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(stack=st.sampled_from(sorted(STACKS)), lesions=some_lesions())
def test_every_lesion_is_in_every_result_or_in_none(
    agree: Agree, stack: str, lesions: list[Lesion]
) -> None:
    agree(stack, lesions)
