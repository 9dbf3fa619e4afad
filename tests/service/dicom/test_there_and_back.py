"""Any orientation, spacing, gap and tilt: what is segmented stays where it is in the patient."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from dicom_phantoms import ORIENTATIONS, Grid, Recipe, write_series
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.metrics import dice
from model.preprocess import prepare, to_native
from model.spec import LIVER_LABEL, TUMOUR_LABEL, FixedIntensity, ModalitySpec
from service.dicom.pixels import load
from service.dicom.proof import prove
from service.dicom.seg import Algorithm, build_seg, to_bytes
from service.dicom.series import choose, scan

PATIENTS = ORIENTATIONS | {
    "head first, prone": (-1, 0, 0, 0, -1, 0),
    "feet first, supine": (-1, 0, 0, 0, 1, 0),
    "feet first, prone": (1, 0, 0, 0, -1, 0),
    "sagittal, from the left": (0, -1, 0, 0, 0, -1),
    "coronal, from behind": (-1, 0, 0, 0, 0, -1),
}
VIEW = ModalitySpec(
    orientation="RAS",
    spacing_mm=(2.0, 1.5, 1.5),
    intensity=FixedIntensity(lo=0, hi=200),
    patch=(16, 32, 32),
)
AT = np.array([-6.0, 5.0, 3.0])  # off the middle of every grid
RADIUS_MM = 17.0


@dataclass(frozen=True)
class Stack:
    """How a stack is acquired. ``uneven``: relative lengths of the gaps; ``missing``: a slice."""

    orientation: str
    spacing: tuple[float, float, float]
    tilt: float
    uneven: tuple[float, ...] | None
    missing: int | None
    descending: bool

    @property
    def grid(self) -> Grid:
        sides = (66.0, 60.0, 70.0)
        shape = tuple(round(mm / step) for mm, step in zip(sides, self.spacing, strict=True))
        return Grid(shape, self.spacing, PATIENTS[self.orientation], tilt=self.tilt)  # type: ignore[arg-type]

    def positions(self) -> list[float]:
        gaps = np.full(self.grid.shape[0] - 1, self.spacing[0])
        if self.uneven:
            gaps *= np.resize(self.uneven, gaps.shape)
            gaps *= self.spacing[0] * len(gaps) / gaps.sum()
        return [0.0, *np.cumsum(gaps).tolist()]


def stacks() -> st.SearchStrategy[Stack]:
    flat = st.none()
    return st.builds(
        Stack,
        orientation=st.sampled_from(sorted(PATIENTS)),
        spacing=st.tuples(st.floats(1.5, 6.0), st.floats(0.8, 2.0), st.floats(0.8, 2.0)),
        tilt=st.one_of(st.just(0.0), st.floats(-30, 30)),
        uneven=st.one_of(
            flat, flat, st.lists(st.floats(1.0, 1.4), min_size=3, max_size=7).map(tuple)
        ),
        missing=st.one_of(flat, st.integers(2, 7)),
        descending=st.booleans(),
    ).filter(lambda stack: stack.missing is None or stack.uneven is None)


def soft_ball(points: NDArray[np.float64]) -> NDArray[np.int16]:
    inside = RADIUS_MM - np.linalg.norm(points - AT, axis=-1)
    return np.rint(200 * np.clip(inside / 2 + 0.5, 0, 1)).astype(np.int16)


@settings(max_examples=25, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(stacks())
def test_the_centroid_survives_the_way_in_and_back(stack: Stack) -> None:
    positions, grid = stack.positions(), stack.grid
    skip = frozenset() if stack.missing is None else frozenset({stack.missing})
    recipe = Recipe(
        positions=positions, skip=skip, descending=stack.descending, intercept=0, signed=True
    )
    points = grid.world(positions)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_series(Path(folder), soft_ball(points), grid, recipe)
        loaded = load(choose(scan(paths, "ct"))[0])
        prepared = prepare(loaded.volume, VIEW)
        scores = np.stack([0.5 - prepared.array, prepared.array - 0.5]) * np.float32(20)
        mask = loaded.mask_to_native(to_native(scores, prepared))
        seg = build_seg(
            loaded.series, mask, (LIVER_LABEL, TUMOUR_LABEL), Algorithm("ball", "1"), "key"
        )
    proof, _ = prove(to_bytes(seg), loaded.series, mask).segments
    kept = np.delete(points, sorted(skip), axis=0)
    truth = np.linalg.norm(kept - AT, axis=-1) < RADIUS_MM
    off = np.subtract(proof.centroid_found_mm, kept[truth].mean(axis=0))
    assert np.linalg.norm(off) < 0.5 * min(max(stack.spacing), 2.0)
    assert dice(mask > 0, truth) > 0.94
