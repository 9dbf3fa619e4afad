import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from model.measure import Measurements, lesion_labels, measure
from model.volume import Volume


def volume_of(array: np.ndarray, spacing_xyz: tuple[float, float, float] = (1, 2, 3)) -> Volume:
    affine = np.diag([*spacing_xyz, 1.0])
    affine[:3, 3] = [-10, -20, 30]
    return Volume(array, affine, "ct")


def test_known_boxes() -> None:
    mask = np.zeros((10, 20, 30), np.uint8)
    mask[1:9, 2:18, 2:28] = 1
    mask[2, 3:5, 4:9] = 2
    mask[5:8, 10:14, 10:13] = 2
    array = np.full(mask.shape, 50, np.int16)
    array[2, 3:5, 4:9] = 10
    array[2, 3, 4] = 30
    found = measure(mask, volume_of(array))
    assert found.liver_ml == pytest.approx(8 * 16 * 26 * 0.006)
    assert found.tumour_ml == pytest.approx(46 * 0.006)
    assert found.liver_without_tumour_ml == pytest.approx(found.liver_ml - found.tumour_ml)
    assert found.tumour_burden_percent == pytest.approx(100 * 46 / (8 * 16 * 26))
    first, second = found.lesions
    assert (first.number, first.voxels, second.number, second.voxels) == (1, 36, 2, 10)
    assert first.long_axis_mm == pytest.approx(np.hypot(2 * 1, 3 * 2))
    assert first.long_axis_slice == 5
    assert first.centroid_mm == pytest.approx((-10 + 11, -20 + 11.5 * 2, 30 + 6 * 3))
    assert second.long_axis_mm == pytest.approx(np.hypot(4, 2))
    assert second.intensity_mean == pytest.approx(12.0)
    assert second.intensity_sd == pytest.approx(6.0)
    assert np.linalg.norm(
        np.subtract(*second.long_axis_ends_mm)
    ) == pytest.approx(second.long_axis_mm)  # fmt: skip


def test_one_voxel_has_no_length() -> None:
    mask = np.zeros((3, 3, 3), np.uint8)
    mask[1, 1, 1] = 2
    (lesion,) = measure(mask, volume_of(mask.astype(np.int16))).lesions
    assert lesion.long_axis_mm == 0.0
    assert lesion.long_axis_slice == 1
    assert lesion.long_axis_ends_mm == ((-9, -18, 33), (-9, -18, 33))


def test_lesions_that_touch_by_a_corner_are_one() -> None:
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[1, 1, 1] = mask[2, 2, 2] = 2
    assert lesion_labels(mask).max() == 1


def test_nothing() -> None:
    mask = np.zeros((4, 4, 4), np.uint8)
    found = measure(mask, volume_of(mask.astype(np.int16)))
    assert (found.liver_ml, found.tumour_burden_percent, found.lesions) == (0.0, 0.0, ())


def test_the_record_is_json() -> None:
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[1:3, 1:3, 1:3] = 2
    found = measure(mask, volume_of(mask.astype(np.int16)))
    assert json.loads(json.dumps(found.to_dict()))["lesions"][0]["voxels"] == 8
    assert Measurements.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_many_lesions_are_numbered_by_size() -> None:
    mask = (np.random.default_rng(0).random((20, 40, 40)) < 0.05).astype(np.uint8) * 2
    labels = lesion_labels(mask)
    sizes = np.bincount(labels.ravel())[1:]
    assert (np.diff(sizes) <= 0).all()
    assert ((labels > 0) == (mask == 2)).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.floats(0.3, 5.0)] * 3))
def test_the_long_axis_is_the_largest_distance_in_a_slice(
    seed: int, spacing: tuple[float, float, float]
) -> None:
    mask = np.zeros((5, 9, 9), np.uint8)
    mask[1:4, 1:8, 1:8] = 2 * (np.random.default_rng(seed).random((3, 7, 7)) < 0.7)
    volume = volume_of(mask.astype(np.int16), spacing)
    labels = lesion_labels(mask)
    for lesion in measure(mask, volume).lesions:
        slices = [np.argwhere(plane == lesion.number) for plane in labels]
        step = volume.spacing_mm[1:]
        longest = max((pdist(p * step).max() for p in slices if len(p) > 1), default=0.0)
        assert lesion.long_axis_mm == pytest.approx(longest)
