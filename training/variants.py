"""The named changes to a configuration that the experiment compares: ablations, baselines."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from model.errors import ConfigError

from .config import MethodConfig, MethodName, TrainConfig, merged

Group: TypeAlias = Literal["main", "ablation", "option", "baseline"]
MAIN = "full"


@dataclass(frozen=True)
class Variant:
    """``changes``: what differs from the base configuration, as nested fields."""

    name: str
    title: str
    group: Group
    changes: Mapping[str, Any]


def _network(name: str, title: str, **fields: bool) -> Variant:
    return Variant(name, title, "ablation", {"network": fields})


def _baseline(name: MethodName, title: str) -> Variant:
    return Variant(name, title, "baseline", {"method": {"name": name}})


CATALOGUE = (
    Variant(MAIN, "A-QCF-Net", "main", {}),
    _network("no_gate", "No adaptive gate", adaptive_gate=False),
    _network("no_cross_fusion", "No cross-fusion (independent streams)", cross_fusion=False),
    _network("no_quaternions", "No quaternions (real-valued net)", quaternion=False),
    _network("no_shared_bottleneck", "No shared bottleneck", shared_bottleneck=False),
    _network("no_attention_gates", "No attention gates (decoder)", attention_gates=False),
    Variant(
        "literal_absent", "Absent stream by eq. 10 as written", "option",
        {"network": {"literal_absent": True}},
    ),
    Variant("exchange_dropout", "Exchange dropout 0.5", "option", {"exchange_dropout": 0.5}),
    Variant("no_exchange_dropout", "No exchange dropout", "option", {"exchange_dropout": 0.0}),
    Variant(
        "synthetic_tumours", "Synthetic tumours 0.75", "option",
        {"augment": {"synthetic_tumours": 0.75}},
    ),
    Variant(
        "no_synthetic_tumours", "No synthetic tumours", "option",
        {"augment": {"synthetic_tumours": 0.0}},
    ),
    _baseline("dynunet", "Unimodal nnU-Net (DynUNet)"),
    _baseline("attention_unet", "Attention U-Net"),
    _baseline("unetr", "UNETR"),
    _baseline("swin_unetr", "Swin UNETR"),
    _baseline("unpaired_kd", "Unpaired via KD"),
)  # fmt: skip
_BY_NAME = {variant.name: variant for variant in CATALOGUE}
ALL = "all"


def find_variant(name: str) -> Variant:
    """Raises ``ConfigError`` that lists the names there are."""
    if name not in _BY_NAME:
        raise ConfigError(f"variant {name!r} is not one of {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def chosen_variants(config: TrainConfig) -> list[Variant]:
    """The variants of ``config.protocol``, the main one first; ``all`` are those that change
    something.

    Raises ``ConfigError`` for an unknown name and for one that changes nothing.
    """
    names = config.protocol.variants
    if ALL in names:
        return [v for v in CATALOGUE if v.name == MAIN or applied(config, v) != config]
    variants = [find_variant(name) for name in dict.fromkeys((MAIN, *names))]
    for variant in variants:
        if variant.name != MAIN and applied(config, variant) == config:
            raise ConfigError(f"variant {variant.name!r} is what {config.name!r} is already")
    return variants


def applied(config: TrainConfig, variant: Variant) -> TrainConfig:
    """``config`` with the changes; a baseline takes its settings from ``protocol.methods``."""
    changes = dict(variant.changes)
    if variant.group == "baseline":
        changes["method"] = _method(config, variant).model_dump()
    return changed(config, changes)


def changed(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """``config`` with nested fields replaced, checked anew."""
    return TrainConfig.model_validate(merged(config.model_dump(), changes))


def _method(config: TrainConfig, variant: Variant) -> MethodConfig:
    name = variant.changes["method"]["name"]
    settings = {method.name: method for method in config.protocol.methods}
    return settings.get(name, MethodConfig(name=name))
