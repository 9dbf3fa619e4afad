from collections.abc import Callable

import numpy as np

from model.postprocess import postprocess
from model.spec import PostprocessRules
from model.types import MaskArray

VOXEL_ML = 0.01
ALL = PostprocessRules(min_lesion_ml=0.05)
NONE = PostprocessRules(largest_liver_component=False, tumour_inside_liver=False)


def liver() -> np.ndarray:
    mask = np.zeros((20, 30, 30), np.uint8)
    mask[5:15, 5:20, 5:20] = 1
    mask[8:11, 8:11, 8:11] = 2
    return mask


def test_nothing_to_do_says_nothing() -> None:
    for mask in (liver(), np.zeros((4, 4, 4), np.uint8)):
        result, said = postprocess(mask, ALL, VOXEL_ML)
        np.testing.assert_array_equal(result, mask)
        assert said == ()


def test_only_the_largest_component_stays_and_the_input_is_untouched() -> None:
    mask = liver()
    mask[1:3, 25:28, 25:28] = 1
    mask[17, 1, 1] = 1
    before = mask.copy()
    result, said = postprocess(mask, ALL, VOXEL_ML)
    np.testing.assert_array_equal(result, liver())
    np.testing.assert_array_equal(mask, before)
    assert said == (
        "Kept the largest liver component and removed 2 parts apart from it (0.19 ml).",
    )


def test_a_part_that_touches_by_a_corner_belongs() -> None:
    mask = liver()
    mask[15, 20, 20] = 1
    assert postprocess(mask, ALL, VOXEL_ML)[1] == ()


def test_tumour_apart_from_the_liver_goes_before_the_largest_is_chosen() -> None:
    mask = liver()
    mask[:, 22:30, 22:30] = 2
    mask[:, 0:3, 22:30] = 2
    assert (mask == 2).sum() > 0
    result, said = postprocess(mask, ALL, VOXEL_ML)
    np.testing.assert_array_equal(result, liver())
    assert said == ("Removed 2 parts labelled tumour that do not touch the liver (17.60 ml).",)


def test_small_lesions_become_liver() -> None:
    mask = liver()
    mask[12, 15, 15:17] = 2
    result, said = postprocess(mask, ALL, VOXEL_ML)
    np.testing.assert_array_equal(result, liver())
    assert said == ("Counted 1 part labelled tumour and smaller than 0.05 ml as liver (0.02 ml).",)


def test_rules_can_be_off() -> None:
    mask = liver()
    mask[1, 25, 25], mask[1, 28, 28] = 1, 2
    result, said = postprocess(mask, NONE, VOXEL_ML)
    np.testing.assert_array_equal(result, mask)
    assert said == ()


def test_tumour_without_any_liver_goes() -> None:
    mask = np.zeros((5, 5, 5), np.uint8)
    mask[2, 2, 2] = 2
    result, said = postprocess(mask, ALL, VOXEL_ML)
    assert not result.any()
    assert len(said) == 1


def without(*slices: int) -> Callable[[MaskArray], MaskArray]:
    def shown(mask: MaskArray) -> MaskArray:
        left = mask.copy()
        left[list(slices)] = 0
        return left

    return shown


def test_a_lesion_that_no_acquired_slice_shows_becomes_liver() -> None:
    mask = liver()
    mask[12, 15, 15:17] = 2
    result, said = postprocess(mask, NONE, VOXEL_ML, without(8, 12))
    np.testing.assert_array_equal(result, liver())
    assert said == (
        "Counted 1 part labelled tumour that no acquired slice shows as liver (0.02 ml).",
    )


def test_a_part_that_no_acquired_slice_shows_is_removed_with_its_tumour() -> None:
    mask = liver()
    mask[17, 1:4, 1:4] = 1
    mask[17, 2, 2] = 2
    result, said = postprocess(mask, NONE, VOXEL_ML, without(17))
    np.testing.assert_array_equal(result, liver())
    assert said == ("Removed 1 part that no acquired slice shows (0.09 ml).",)


def test_what_some_acquired_slice_shows_stays_whole() -> None:
    result, said = postprocess(liver(), NONE, VOXEL_ML, without(5, 8, 10, 14))
    np.testing.assert_array_equal(result, liver())
    assert said == ()
