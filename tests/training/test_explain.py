"""A tiny network explained on cases it never saw, from the run's folder to the files."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from model.errors import ConfigError
from model.explain import normalised, saliency_iou
from model.nifti import read_nifti
from model.spec import ModelSpec, write_manifest
from model.types import TUMOUR
from training.config import TrainConfig
from training.data import list_cases, read_case
from training.evaluate import draft_spec
from training.explain import Explained, Options, default_layer, explain_run, summary_table
from training.methods import build_method, save_weights
from training.saliency_pictures import largest

ConfigMaker = Callable[..., TrainConfig]
HELD = {"validate_cases": ["ct/a", "mr/a"]}


def write_run(folder: Path, config: TrainConfig) -> Path:
    torch.manual_seed(0)
    folder.mkdir()
    (folder / "config.json").write_text(config.model_dump_json(), "utf-8")
    save_weights(folder / "best.safetensors", build_method(config))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, root: Path, make_config: ConfigMaker) -> Path:
    """A run that was never trained; ``a`` (full) and ``c`` (merged) of each modality are unseen."""
    config = make_config(data={"root": str(root), **HELD})
    return write_run(tmp_path_factory.mktemp("runs") / "run", config)


@pytest.fixture(scope="module")
def explained(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Explained]]:
    to = tmp_path_factory.mktemp("explained") / "new"
    return to, explain_run(run, to, options=Options(region="volume"))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_unseen_cases_with_a_known_tumour_are_explained(
    explained: tuple[Path, list[Explained]],
) -> None:
    to, found = explained
    assert [item.case for item in found] == ["ct/a", "mr/a"]
    assert [row["case"] for row in rows(to / "explain.csv")] == ["ct/a", "mr/a"]
    assert {item.layer for item in found} == {"decoder.levels.3"}
    text = (to / "summary.md").read_text("utf-8")
    assert "| Both | 2 |" in text
    assert "ct/c: left out, its label does not tell tumour from liver" in text


def test_the_map_lies_on_the_native_grid_and_gives_the_figures(
    explained: tuple[Path, list[Explained]], root: Path, make_config: ConfigMaker
) -> None:
    to, found = explained
    case = next(c for c in list_cases(make_config(data={"root": root}).data) if c.name == "ct/a")
    volume, label = read_case(case)
    saliency = read_nifti(to / "saliency" / "ct_a.nii.gz", "ct")
    assert saliency.shape == volume.shape
    np.testing.assert_allclose(saliency.affine, volume.affine, atol=1e-4)
    assert saliency.array.min() >= 0
    assert saliency.array.max() == 1.0
    iou = saliency_iou(normalised(saliency.array), label == TUMOUR)
    assert found[0].saliency_iou == pytest.approx(iou)
    assert found[0].reference_ml == pytest.approx((label == TUMOUR).sum() * volume.voxel_ml)
    assert found[0].band_coverage is None  # voxels of 8 to 10 mm
    assert rows(to / "explain.csv")[0]["band_coverage"] == ""


def test_pictures_of_both_figures_are_written(explained: tuple[Path, list[Explained]]) -> None:
    to, _ = explained
    for folder, columns in (("overlays", 3), ("features", 5)):
        for name in ("ct_a", "mr_a"):
            with Image.open(to / folder / f"{name}.png") as picture:
                assert picture.width > 300 * columns
                assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_the_reference_as_region_and_the_liver_as_target(run: Path, tmp_path: Path) -> None:
    options = Options(target="liver", region="reference", method="gradcam", layer="bottleneck")
    found = explain_run(run, tmp_path, cases=["ct/c", "ct/d"], options=options)
    assert [item.case for item in found] == ["ct/c"]  # d's label is another model's
    assert found[0].layer == "bottleneck"
    assert found[0].region_voxels > 0
    assert "ct/d: left out, its label is another model's" in (tmp_path / "summary.md").read_text()


def test_a_network_that_predicts_none_of_it_scores_nothing(
    root: Path, make_config: ConfigMaker, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", make_config(data={"root": str(root), **HELD}))
    net = build_method(make_config(data={"root": str(root), **HELD}))
    with torch.no_grad():
        for modality in ("ct", "mr"):
            net.get_submodule(f"decoders.{modality}.head").bias[TUMOUR] = -1e3  # type: ignore[operator,index]
    save_weights(run / "last.safetensors", net)
    (found,) = explain_run(run, tmp_path / "out", cases=["ct/a"], weights="last")
    assert found.region_voxels == 0
    assert (found.saliency_iou, found.pointing) == (0.0, False)


def test_a_model_folder_is_explained_on_the_cases_of_its_scores(
    run: Path, root: Path, make_config: ConfigMaker, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    weights = folder / "weights.safetensors"
    weights.write_bytes((run / "best.safetensors").read_bytes())
    spec: ModelSpec = draft_spec(make_config()).model_copy(update={"scores": {"mr/b": {}}})
    write_manifest(folder, spec, {weights.name: weights})
    options = Options(region="reference")
    found = explain_run(folder, tmp_path / "out", root=root, options=options)
    assert [item.case for item in found] == ["mr/b"]
    with pytest.raises(ConfigError, match="name the root"):
        explain_run(folder, tmp_path / "out")


def test_a_baseline_is_explained_without_figure_8(
    root: Path, make_config: ConfigMaker, tmp_path: Path
) -> None:
    method = {"name": "dynunet", "channels": (4, 4, 4)}
    config = make_config(data={"root": str(root), **HELD}, method=method)
    run = write_run(tmp_path / "run", config)
    options = Options(region="reference")
    (found,) = explain_run(run, tmp_path / "out", cases=["ct/a"], options=options)
    assert found.layer == "0"  # all but the head
    assert not (tmp_path / "out" / "features").exists()


def test_the_default_layer_is_the_last_before_the_head() -> None:
    first, head = torch.nn.Conv3d(1, 4, 3, 1, 1), torch.nn.Conv3d(4, 3, 1)
    net = torch.nn.Sequential(first, torch.nn.ReLU(), head, torch.nn.Identity())
    assert default_layer(net, (4, 4, 4), 3) == "1"
    with pytest.raises(ConfigError, match="name a layer"):
        default_layer(torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1)), (4, 4, 4), 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cases": ["ct/z"]}, "'ct/z' is not in"),
        ({"weights": "final"}, "'final': choose best or last"),
        ({"options": Options(layer="head")}, "no layer 'head'"),
        ({"options": Options(region="all")}, "'all': choose predicted"),  # type: ignore[arg-type]
    ],
)
def test_what_is_not_there_is_refused(
    run: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    options = {"options": Options(region="volume"), "cases": ["ct/a"], **changes}
    with pytest.raises(ConfigError) as refused:
        explain_run(run, tmp_path, **options)
    assert message in refused.value.message


def test_a_folder_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no run and no model"):
        explain_run(tmp_path, tmp_path / "out")


def test_the_summary_by_hand() -> None:
    def one(modality: str, iou: float, band: float | None, hit: bool) -> Explained:
        return Explained("x", modality, 1.0, "l", 9, iou, band, hit, 1.0)  # type: ignore[arg-type]

    cases = [one("ct", 0.4, 0.2, True), one("ct", 0.6, 0.3, False), one("mr", 0.5, None, True)]
    text = summary_table(cases, Options())
    assert "| CT | 2 | 0.50 ± 0.14 | 25 ± 7 | 50 % (1/2) |" in text
    assert "| MR | 1 | 0.50 | – | 100 % (1/1) |" in text
    assert "| Both | 3 | 0.50 ± 0.10 | 25 ± 7 | 67 % (2/3) |" in text


def test_the_largest_lesion_is_the_one_shown() -> None:
    mask = np.zeros((3, 6, 6), np.bool_)
    mask[0, 0, 0] = mask[2, 4:6, 4:6] = True
    assert np.argwhere(largest(mask)).min(axis=0).tolist() == [2, 4, 4]
