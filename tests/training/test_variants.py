from typing import Any, get_args

import pytest

from model.errors import ConfigError
from training.config import MethodName, TrainConfig
from training.variants import CATALOGUE, applied, changed, chosen_variants, find_variant


@pytest.fixture
def config(values: dict[str, Any]) -> TrainConfig:
    return TrainConfig.model_validate(values)


def protocol(config: TrainConfig, **fields: Any) -> TrainConfig:
    return changed(config, {"protocol": fields})


def test_every_method_is_a_variant() -> None:
    baselines = {v.changes["method"]["name"] for v in CATALOGUE if v.group == "baseline"}
    assert baselines | {"aqcf"} == set(get_args(MethodName))


def test_table_7_has_its_five_ablations(config: TrainConfig) -> None:
    ablations = [v for v in CATALOGUE if v.group == "ablation"]
    assert len(ablations) == 5
    for variant in ablations:
        network = applied(config, variant).network
        given, new = config.network.model_dump(), network.model_dump()
        differing = {name: new[name] for name in given if given[name] != new[name]}
        assert list(differing.values()) == [False]


def test_a_change_leaves_its_neighbours(config: TrainConfig) -> None:
    new = applied(config, find_variant("no_gate"))
    assert new.network.widths == config.network.widths
    assert new.optimiser == config.optimiser


def test_all_are_those_that_change_something(config: TrainConfig) -> None:
    names = [v.name for v in chosen_variants(protocol(config, variants=["all"]))]
    assert names[0] == "full"
    assert "no_exchange_dropout" not in names  # it is off already
    assert {"exchange_dropout", "synthetic_tumours", "literal_absent", "swin_unetr"} <= set(names)
    trained = changed(config, {"exchange_dropout": 0.5})
    names = [v.name for v in chosen_variants(protocol(trained, variants=["all"]))]
    assert "exchange_dropout" not in names
    assert "no_exchange_dropout" in names


def test_a_variant_that_changes_nothing_is_refused(config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="'no_exchange_dropout' is what 'tiny' is already"):
        chosen_variants(protocol(config, variants=["no_exchange_dropout"]))


def test_unknown_variants_are_named_with_those_there_are(config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match=r"'no_luck' is not one of full, no_gate"):
        chosen_variants(protocol(config, variants=["no_luck"]))


def test_a_baseline_takes_its_settings_from_the_protocol(config: TrainConfig) -> None:
    method = {"name": "dynunet", "channels": [4, 8, 8]}
    variant = find_variant("dynunet")
    assert applied(protocol(config, methods=[method]), variant).method.channels == (4, 8, 8)
    assert applied(config, variant).method.channels == ()
