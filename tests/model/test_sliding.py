import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import sliding_window_inference
from monai.inferers.utils import _get_scan_interval

from model.errors import CancelledError, ConfigError
from model.sliding import importance, plan, slide, window_count


def convolution(bias: bool = False) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Conv3d(1, 3, 3, padding=1, bias=bias).eval()


def predictor(layer: torch.nn.Module):
    def predict(batch: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return layer(torch.from_numpy(batch)).numpy()

    return predict


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.8])
@pytest.mark.parametrize(
    ("shape", "patch"),
    [((20, 32, 27), (16, 16, 16)), ((33, 40, 30), (16, 32, 16)), ((16, 40, 64), (16, 32, 32))],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_blend_is_monais(
    shape: tuple[int, int, int], patch: tuple[int, int, int], overlap: float, batch: int
) -> None:
    array = np.random.default_rng(0).random(shape, np.float32)
    array[:, : shape[1] // 2] = 0
    layer = convolution(bias=True)
    ours = slide(array, patch, overlap, predictor(layer), 3, batch=batch)
    with torch.no_grad():
        theirs = sliding_window_inference(
            torch.from_numpy(array)[None, None], patch, 4, layer, overlap=overlap, mode="gaussian"
        )
    np.testing.assert_allclose(ours, theirs[0].numpy(), atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(16, 44)] * 3), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75]))
def test_the_plan_is_monais(shape: tuple[int, int, int], overlap: float) -> None:
    patch = (16, 12, 8)
    steps = _get_scan_interval(shape, patch, 3, (overlap,) * 3)
    assert [window.box for window in plan(shape, patch, overlap)] == dense_patch_slices(
        shape, patch, steps
    )
    assert window_count(shape, patch, overlap) == len(plan(shape, patch, overlap))


def test_windows_are_counted_without_a_list_of_them() -> None:
    assert window_count((10**15, 16, 16), (16, 16, 16), 0.5) == 1 + (10**15 - 16) // 8


@pytest.mark.parametrize("patch", [(16, 256, 256), (32, 96, 96), (16, 16, 16)])
def test_the_importance_is_monais(patch: tuple[int, int, int]) -> None:
    theirs = compute_importance_map(patch, "gaussian", 0.125)
    np.testing.assert_allclose(importance(patch), theirs.numpy(), atol=1e-6)


def test_empty_windows_run_once_at_most() -> None:
    array = np.zeros((64, 64, 64), np.float32)
    array[:16, :16, :16] = 1
    seen: list[int] = []
    run = predictor(convolution(bias=True))

    def predict(batch: np.ndarray) -> np.ndarray:
        seen.append(len(batch))
        return run(batch)

    fast = slide(array, (16, 16, 16), 0.0, predict, 3, batch=4)
    assert sum(seen) == 2
    plain = slide(array, (16, 16, 16), 0.0, run, 3, batch=4, skip_empty=False)
    np.testing.assert_allclose(fast, plain, atol=1e-6)


def test_an_empty_volume_is_one_window() -> None:
    logits = slide(np.zeros((32, 32, 32), np.float32), (16, 16, 16), 0.5,
                   predictor(convolution(bias=True)), 3)  # fmt: skip
    assert np.ptp(logits[0, 2:14, 2:14, 2:14]) < 1e-6


def test_progress_rises_to_one_and_may_stop() -> None:
    array = np.ones((32, 32, 32), np.float32)
    heard: list[float] = []
    slide(array, (16, 16, 16), 0.0, predictor(convolution()), 3, batch=3, progress=heard.append)
    assert heard == pytest.approx([3 / 8, 6 / 8, 1.0])

    def stop(fraction: float) -> None:
        raise CancelledError("stop")

    with pytest.raises(CancelledError):
        slide(array, (16, 16, 16), 0.0, predictor(convolution()), 3, progress=stop)


def test_a_patch_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not fit"):
        plan((16, 16, 15), (16, 16, 16), 0.5)


def bright(batch: np.ndarray) -> np.ndarray:
    """Foreground where a voxel is above one half."""
    return np.concatenate([0.5 - batch, batch - 0.5], axis=1)


def counting(seen: list[int]):  # type: ignore[no-untyped-def]
    def predict(batch: np.ndarray) -> np.ndarray:
        seen.append(len(batch))
        return bright(batch)

    return predict


@given(
    centre=st.tuples(st.integers(0, 79), st.integers(0, 63), st.integers(0, 63)),
    radius=st.integers(20, 34),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.8]),
)
@settings(max_examples=60, deadline=None)
def test_following_finds_the_whole_of_a_connected_organ(
    centre: tuple[int, int, int], radius: int, overlap: float
) -> None:
    grid = np.indices((80, 64, 64)) - np.array(centre)[:, None, None, None]
    array = np.where((grid**2).sum(0) <= radius**2, 0.9, 0.1).astype(np.float32)
    seen: list[int] = []
    followed = slide(array, (16, 32, 32), overlap, counting(seen), 2, follow=True)
    every = slide(array, (16, 32, 32), overlap, bright, 2)
    np.testing.assert_array_equal(followed.argmax(0), every.argmax(0))
    assert sum(seen) <= len(plan((80, 64, 64), (16, 32, 32), overlap))


def test_following_leaves_out_windows_far_from_anything() -> None:
    array = np.full((160, 32, 32), 0.1, np.float32)
    array[4:12, 10:20, 10:20] = 0.9
    seen: list[int] = []
    slide(array, (16, 32, 32), 0.5, counting(seen), 2, follow=True)
    assert sum(seen) == 11  # of 19: ten white fields, and the one beside the first
