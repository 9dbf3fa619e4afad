from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from model.errors import ConfigError
from model.spec import NetworkConfig
from training.config import TrainConfig, load_config
from training.crossval import check_protocol
from training.variants import chosen_variants

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
MR_LAS = {
    "orientation": "LAS",
    "spacing_mm": [1, 1, 1],
    "intensity": {"kind": "percentile"},
    "patch": [16, 16, 32],
}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    check_protocol(config)
    assert chosen_variants(config)[0].name == "full"


@pytest.mark.parametrize("name", ["paper", "small"])
def test_configurations_of_models_have_the_service_s_profiles(name: str) -> None:
    assert {"paper", "balanced", "fast"} <= set(load_config(CONFIGS / f"{name}.yaml").profiles)


def test_paper_configuration_has_the_paper_s_numbers() -> None:
    """Sections 3.1.2 to 3.3.3."""
    config = load_config(CONFIGS / "paper.yaml")
    ct, mr = config.modalities["ct"], config.modalities["mr"]
    assert (ct.orientation, mr.orientation) == ("RAS", "LAS")
    assert (ct.intensity.lo, ct.intensity.hi) == (-16, 176)
    assert (mr.intensity.lo, mr.intensity.hi) == (74, 511)
    assert ct.intensity.kind == mr.intensity.kind == "fixed"
    for spec in (ct, mr):
        assert spec.spacing_mm == (1, 1, 1)
        assert spec.patch == (16, 256, 256)
    assert config.profiles["paper"].overlap == 0.8
    optimiser, augment = config.optimiser, config.augment
    assert (optimiser.lr, optimiser.weight_decay) == (1e-4, 1e-5)
    assert (optimiser.schedule, optimiser.patience, optimiser.factor) == ("plateau", 4, 0.5)
    assert (config.epochs, config.batch_size) == (200, 1)
    assert augment.flip_axes == (0, 1, 2)
    assert augment.rotate90
    assert augment.shift_intensity > 0


def test_paper_configuration_has_nothing_beyond_the_paper() -> None:
    config = load_config(CONFIGS / "paper.yaml")
    extras = "rotate_degrees scale contrast noise blur bias_field remap borrow_ct synthetic_tumours"
    assert not any(getattr(config.augment, name) for name in extras.split())
    assert (config.exchange_dropout, config.optimiser.ema, config.optimiser.clip_norm) == (
        0,
        0,
        None,
    )
    assert config.data.phantoms == 0


def test_paper_network_is_the_one_of_31_5_million_parameters() -> None:
    """The default network, whose parameters ``tests/model/test_network.py`` counts."""
    assert load_config(CONFIGS / "paper.yaml").network == NetworkConfig()


def test_overrides_replace_values(tmp_path: Path, values: dict[str, Any]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(_plain(values)))
    assert load_config(path).epochs == 2
    changed = load_config(path, ["epochs=7", "optimiser.lr=2e-3", "network.widths=[1, 2, 2, 2, 4]"])
    assert changed.steps == 28
    assert changed.optimiser.lr == 2e-3
    assert changed.optimiser.weight_decay == load_config(path).optimiser.weight_decay
    for wrong in ("epochs", "optimiser.speed=3", "epochs=many"):
        with pytest.raises(ConfigError, match=wrong.partition("=")[0]):
            load_config(path, [wrong])


def test_a_configuration_survives_json(
    tmp_path: Path, make_config: Callable[..., TrainConfig]
) -> None:
    """A run's folder keeps it so."""
    config = make_config(data={"weights": {"ct/a": 2}, "spacings_mm": {"ct/a": [1, 2, 3]}})
    (tmp_path / "config.json").write_text(config.model_dump_json())
    assert load_config(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 3}, "epoch"),
        ({"epochs": 0}, "epochs"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"batch_size": 0}, "batch_size"),
        ({"exchange_dropout": 1.5}, "exchange_dropout"),
        ({"precision": "f8"}, "precision"),
        ({"validation_profile": "paper"}, "'paper' is not a profile"),
        ({"augment": {"flip_axes": [3]}}, "flip_axes"),
        ({"augment": {"foreground": -0.1}}, "foreground"),
        ({"optimiser": {"ema": 1.0}}, "ema"),
        ({"data": {"weights": {"ct/a": 0}}}, "weights"),
        ({"modalities": {"mr": MR_LAS}}, "modalities must be ct, mr"),
        ({"postprocess": {"ct": {}}}, "postprocess must be ct, mr"),
    ],
)
def test_refuses_impossible_values_by_name(
    tmp_path: Path, values: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(_plain({**values, **change})))
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [", "just words"])
def test_refuses_what_is_no_mapping(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        load_config(path)


def test_names_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: No such file"):
        load_config(tmp_path / "absent.yaml")


def _plain(value: Any) -> Any:
    """Tuples as lists, which YAML knows."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
