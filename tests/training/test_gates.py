from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from model.network import AQCFNet
from training.config import TrainConfig
from training.data import list_cases
from training.gates import centred_patch, measure_gates, write_gates

ConfigMaker = Callable[..., TrainConfig]


def test_the_patch_is_centred_on_the_mask_and_stays_inside() -> None:
    image = np.arange(10 * 12 * 14, dtype=np.float32).reshape(10, 12, 14)
    mask = np.zeros(image.shape, np.uint8)
    mask[5, 6, 7] = 2
    np.testing.assert_array_equal(centred_patch(image, mask, (2, 4, 6)), image[4:6, 4:8, 4:10])
    mask[:] = 0
    mask[0, 0, 13] = 1
    np.testing.assert_array_equal(centred_patch(image, mask, (2, 4, 6)), image[:2, :4, 8:])


def test_a_small_image_is_padded_with_zeros() -> None:
    image = np.ones((2, 3, 4), np.float32)
    patch = centred_patch(image, np.zeros(image.shape, np.uint8), (4, 4, 4))
    assert patch.shape == (4, 4, 4)
    assert patch.sum() == image.size


def test_every_ct_case_meets_every_mr_case(
    root: Path, make_config: ConfigMaker, tmp_path: Path
) -> None:
    config = make_config(data={"root": root})
    cases = [c for c in list_cases(config.data) if c.name in ("ct/a", "ct/b", "mr/b")]
    torch.manual_seed(0)
    rows = measure_gates(AQCFNet(config.network), cases, config)
    assert [(row.pair, row.stage) for row in rows] == [
        (pair, stage) for pair in ("ct/a mr/b", "ct/b mr/b") for stage in (1, 2, 3, 4)
    ]
    assert all(0 < row.mr_to_ct < 1 and 0 < row.ct_to_mr < 1 for row in rows)
    assert rows[0].mr_to_ct != rows[0].ct_to_mr
    write_gates(tmp_path, rows)
    write_gates(tmp_path, rows)
    lines = (tmp_path / "gates.csv").read_text().splitlines()
    assert lines[0] == "pair,stage,mr_to_ct,ct_to_mr"
    assert len(lines) == 1 + len(rows)


def test_without_an_adaptive_gate_it_is_open(root: Path, make_config: ConfigMaker) -> None:
    config = make_config(
        data={"root": root},
        network={"widths": (1, 2, 2, 2, 4), "bottleneck": 4, "adaptive_gate": False},
    )
    cases = [c for c in list_cases(config.data) if c.name in ("ct/b", "mr/b")]
    rows = measure_gates(AQCFNet(config.network), cases, config)
    assert {row.mr_to_ct for row in rows} == {1.0}
