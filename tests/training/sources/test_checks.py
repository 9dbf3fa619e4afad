"""What is measured of a case, what is odd, what is impossible."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from downloads import grid, outline, picture

from model.errors import GeometryError, InputError
from model.types import Affine, Modality
from model.volume import Volume
from training.sources import Entry, Facts, check_case, find_duplicates
from training.sources.checks import axis_letters, shape_moments
from training.synthetic import phantom


def case(affine: Affine | None = None, modality: Modality = "ct") -> tuple[Volume, np.ndarray]:
    return Volume(picture(0), grid() if affine is None else affine, modality), outline()


def codes(facts: Facts) -> set[str]:
    return {warning.partition(":")[0] for warning in facts.warnings}


def test_measures() -> None:
    volume, label = case()
    facts = check_case(volume, label)
    assert (facts.shape, facts.orientation) == ((8, 14, 12), "LPS")
    assert facts.spacing_mm == pytest.approx((4.0, 2.0, 1.5))
    assert (facts.liver_voxels, facts.tumour_voxels) == ((label == 1).sum(), (label == 2).sum())
    assert facts.liver_ml == pytest.approx((label > 0).sum() * 0.012, abs=0.01)
    assert facts.tumour_ml == pytest.approx((label == 2).sum() * 0.012, abs=0.001)
    assert facts.lesions == 2
    assert codes(facts) == {"liver_volume"}


@pytest.mark.parametrize(("turn", "letters"), [("axial", "LPS"), ("flipped", "LAI"),
                                               ("oblique", "PIL")])  # fmt: skip
def test_axes_are_named(turn: str, letters: str) -> None:
    assert axis_letters(grid(turn=turn)) == letters


def test_axes_that_share_a_direction_are_refused() -> None:
    affine = np.eye(4)
    affine[:3, :3] = [[0.9, 0.9, 0], [0.1, -0.1, 0], [0, 0, 1]]
    with pytest.raises(GeometryError) as caught:
        axis_letters(affine)
    assert caught.value.code == "oblique_grid"


@pytest.mark.parametrize("spacing", [(1, 1, 1), (5, 0.05, 0.05), (30, 1, 1), (5, 5, 5)])
def test_odd_spacings_are_suspect(spacing: tuple[float, ...]) -> None:
    facts = check_case(*case(grid(spacing)))
    assert "spacing_suspect" in codes(facts)
    assert not facts.spacing_known


@pytest.mark.parametrize("spacing", [(5, 0.7, 0.7), (0.7, 0.6, 5), (2.5, 2.5, 2.5), (9, 1.5, 1.5)])
def test_usual_spacings_are_not(spacing: tuple[float, ...]) -> None:
    assert check_case(*case(grid(spacing))).spacing_known


@pytest.mark.parametrize(("scale", "odd"), [(3, True), (8, False), (20, True)])
def test_livers_of_odd_size_are_named(scale: float, odd: bool) -> None:
    """0.04, 0.8 and 13 litres."""
    volume, label = case(grid((scale * 2, scale * 2, scale * 2)))
    assert ("liver_volume" in codes(check_case(volume, label))) is odd


def test_an_empty_label_is_refused() -> None:
    volume, label = case()
    with pytest.raises(InputError, match="empty") as caught:
        check_case(volume, label * 0)
    assert caught.value.code == "empty_label"


def test_infinite_voxels_are_refused() -> None:
    volume, label = case()
    array = volume.array.astype(np.float32)
    array[0, 0, 0] = np.inf
    with pytest.raises(InputError) as caught:
        check_case(replace(volume, array=array), label)
    assert caught.value.code == "non_finite_voxels"


@pytest.fixture(scope="module", params=["ct", "mr"])
def body(request: pytest.FixtureRequest) -> tuple[Volume, np.ndarray]:
    return phantom(request.param, np.random.default_rng(3), shape_zyx=(24, 48, 60),
                   spacing_mm=(9.0, 7.0, 7.0))  # fmt: skip


def test_a_phantom_raises_no_eyebrow(body: tuple[Volume, np.ndarray]) -> None:
    assert not codes(check_case(*body)) - {"spacing_suspect"}


def test_a_mirrored_label_is_named(body: tuple[Volume, np.ndarray]) -> None:
    volume, label = body
    assert "label_mirrored" in codes(check_case(volume, label[:, :, ::-1]))


def test_a_label_in_the_air_is_refused(body: tuple[Volume, np.ndarray]) -> None:
    volume, _ = body
    array, label = volume.array.copy(), np.zeros(volume.shape, np.uint8)
    array[:, :3, :3], label[:, :3, :3] = (-1000 if volume.modality == "ct" else 0), 1
    with pytest.raises(InputError) as caught:
        check_case(replace(volume, array=array), label)
    assert caught.value.code == "label_misplaced"


def test_a_ct_that_is_not_in_hounsfield_units_is_named() -> None:
    volume, label = case()
    facts = check_case(replace(volume, array=volume.array + np.int16(1024)), label)
    assert "liver_intensity" in codes(facts)
    assert "liver_intensity" not in codes(check_case(*case(modality="mr")))


BIG = outline((20, 40, 36))


def entry(name: str, mask: np.ndarray = BIG, source: str = "A", **changes: object) -> Entry:
    values = {
        "case": name, "patient": name, "source": source, "shape": mask.shape,
        "spacing_mm": (5.0, 0.7, 0.7), "liver_voxels": int((mask == 1).sum()),
        "tumour_voxels": int((mask == 2).sum()), "moments": shape_moments(mask),
    }  # fmt: skip
    return Entry(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_mask_is_known_again_however_it_is_turned(order: tuple[int, int, int]) -> None:
    for flips in product((1, -1), repeat=3):
        turned = BIG.transpose(order)[tuple(slice(None, None, f) for f in flips)]
        new = entry("b", turned, "B", spacing_mm=(1.0, 1.0, 1.0))
        (found,) = find_duplicates([new], [entry("a")])
        assert (found.case, found.of, found.by) == ("b", "a", "mask")


def test_a_liver_without_its_tumours_is_known_by_the_whole() -> None:
    merged = np.minimum(BIG, 1)
    assert find_duplicates([entry("b", merged, "B")], [entry("a")])[0].by == "mask"


def test_other_livers_of_one_voxel_count_are_not_duplicates() -> None:
    other = np.roll(BIG, 1, 0)
    other[:2] = BIG[-2:]
    line = np.zeros((200, 20, 36), np.uint8)
    line.ravel()[: int((BIG > 0).sum())] = 1
    assert find_duplicates([entry("b", line, "B")], [entry("a", np.minimum(BIG, 1))]) == []


def test_headers_alone_are_a_hint_between_sources() -> None:
    smaller = BIG.copy()
    smaller[:6] = 0
    found = find_duplicates([entry("b", smaller, "B")], [entry("a")])
    assert [(d.case, d.of, d.by) for d in found] == [("b", "a", "header")]
    assert find_duplicates([entry("b", smaller, "A")], [entry("a")]) == []
    assert find_duplicates([entry("b", smaller[:, 1:], "B")], [entry("a")]) == []


def test_series_of_one_patient_share_masks_by_design() -> None:
    pair = [entry("in", patient="x"), entry("out", patient="x")]
    assert find_duplicates(pair, []) == []
    assert [d.of for d in find_duplicates([entry("in"), entry("out")], [])] == ["in"]
    assert find_duplicates([entry("in", patient="x")], [entry("lits", source="L", patient="x")])
