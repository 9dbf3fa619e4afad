"""TrainConfig: everything that changes a run, read from one YAML file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from model.errors import ConfigError
from model.spec import Frozen, ModalitySpec, NetworkConfig, PostprocessRules, Profile
from model.types import MODALITIES, Modality, SpacingZYX

Probability: TypeAlias = Annotated[float, Field(ge=0.0, le=1.0)]


class DataConfig(Frozen):
    """Which cases: ``root`` holds ``cases.json`` and ``{ct,mr}/<case>/{image,label}.nii.gz``.

    ``validate_cases`` are held out with every other case of the same patients; so are
    ``test_cases``, which are not even looked at during training. ``spacings_mm``
    gives a case (z, y, x) spacing where its header has lost it. ``phantoms`` synthetic volumes per
    modality join the training cases. ``weights`` sets how often a case is drawn (default 1).
    """

    root: Path = Path("../shared/data")
    validate_cases: tuple[str, ...] = ()
    test_cases: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    spacings_mm: dict[str, SpacingZYX] = Field(default_factory=dict)
    weights: dict[str, PositiveFloat] = Field(default_factory=dict)
    phantoms: NonNegativeInt = 0
    phantom_weight: PositiveFloat = 0.25
    heads: NonNegativeInt = 0  # phantoms without a liver, per modality: what is not to be found
    head_weight: PositiveFloat = 0.1


class AugmentConfig(Frozen):
    """Random transforms, each modality by itself (section 3.1.3). Axes are (z, y, x)."""

    foreground: Probability = 0.7  # probability that a patch is centred on liver or tumour
    flip_axes: tuple[Literal[0, 1, 2], ...] = (0, 1, 2)
    rotate90: bool = True
    rotate_degrees: float = 0.0
    scale: float = 0.0
    shift_intensity: float = 0.1
    contrast: float = 0.0  # gamma in [1/(1+c), 1+c]
    noise: float = 0.0
    blur: float = 0.0
    bias_field: float = 0.0  # MR only
    remap: Probability = 0.0  # probability of a random smooth intensity curve, MR only
    borrow_ct: Probability = 0.0  # ... that the MR patch is a CT patch with remapped intensities
    synthetic_tumours: Probability = 0.0  # probability, in healthy, pseudo and merged livers


class OptimiserConfig(Frozen):
    """AdamW (eq. 16). ``plateau`` is the paper's schedule; ``trapezoid`` warms up, holds, and falls
    to zero over the last ``cooldown`` steps, so that a run can be made longer while it holds."""

    lr: float = 1e-4
    weight_decay: float = 1e-5
    schedule: Literal["plateau", "trapezoid"] = "plateau"
    patience: int = 4
    factor: float = 0.5
    warmup: int = 0
    cooldown: int = 0
    clip_norm: float | None = None
    # Decay of the averaged weights that are validated and exported; 0 is off.
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0


MethodName: TypeAlias = Literal[
    "aqcf", "dynunet", "attention_unet", "unetr", "swin_unetr", "unpaired_kd"
]


class MethodConfig(Frozen):
    """What is trained: A-QCF-Net, or a baseline of section 4.1.3.

    ``channels`` per scale, finest first (UNETR, Swin UNETR: its one feature size); none: as
    published. ``hidden`` and ``heads`` are UNETR's. ``temperature`` and ``distillation``, the
    weight of the loss, are those of Dou et al. 2020.
    """

    name: MethodName = "aqcf"
    channels: tuple[PositiveInt, ...] = ()
    hidden: PositiveInt = 768
    heads: PositiveInt = 12
    temperature: PositiveFloat = 2.0
    distillation: NonNegativeFloat = 0.5

    @model_validator(mode="after")
    def _check(self) -> "MethodConfig":
        if problem := _unbuildable(self):
            raise ValueError(f"{self.name}: {problem}")
        return self


def _unbuildable(method: MethodConfig) -> str | None:
    """What keeps the settings from being a network."""
    fewest, most = _CHANNELS[method.name]
    channels, count = method.channels, len(method.channels)
    if channels and not fewest <= count <= most:
        return f"channels {channels} are {count}; {fewest} to {most} can be used"
    if method.name == "attention_unet" and min(channels, default=2) < 2:
        return f"channels {channels}: the gates halve them, so each must be 2 at least"
    if method.name == "swin_unetr" and any(size % 12 for size in channels):
        return f"channels {channels} must be a multiple of 12"
    if method.name == "unetr" and method.hidden % method.heads:
        return f"hidden {method.hidden} is no multiple of heads {method.heads}"
    return None


# How many entries ``channels`` may have; A-QCF-Net has ``network.widths``.
_CHANNELS: dict[MethodName, tuple[int, int]] = {
    "aqcf": (0, 0),
    "dynunet": (3, 8),
    "attention_unet": (2, 8),
    "unetr": (1, 1),
    "swin_unetr": (1, 1),
    "unpaired_kd": (3, 8),
}


class ExternalConfig(Frozen):
    """A data set that a trained model is tested on without fine-tuning (section 4.2.4).

    ``cases`` of the prepared ``root`` (all, when none is named); ``title`` heads its table.
    """

    root: Path
    cases: tuple[str, ...] = ()
    title: str = ""


class ProtocolConfig(Frozen):
    """How the experiment is run (section 4.1.1). ``variants`` are names of ``training.variants``,
    or ``all``.

    ``validation``: ``inner`` takes a share ``inner_share`` of the training patients to steer the
    schedule and choose weights, so that the test fold steers nothing; ``fold`` draws the learning
    curves on the test fold itself, and is refused where validation would choose anything.
    """

    folds: Annotated[int, Field(ge=2)] = 5
    variants: tuple[str, ...] = ("full",)
    methods: tuple[MethodConfig, ...] = ()  # settings of baselines; default: as published
    validation: Literal["inner", "fold"] = "inner"
    inner_share: Probability = 0.1
    weights: Literal["best", "last"] = "best"
    profile: str | None = None
    external: dict[str, ExternalConfig] = Field(default_factory=dict)


class TrainConfig(Frozen):
    """One run. An epoch is ``steps_per_epoch`` steps and ends with validation and a checkpoint;
    another checkpoint follows every ``checkpoint_every`` steps."""

    name: str
    seed: int = 0
    data: DataConfig = DataConfig()
    method: MethodConfig = MethodConfig()
    network: NetworkConfig = NetworkConfig()
    modalities: dict[Modality, ModalitySpec]
    profiles: dict[str, Profile]
    postprocess: dict[Modality, PostprocessRules]
    validation_profile: str = "fast"
    augment: AugmentConfig = AugmentConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    batch_size: PositiveInt = 1
    epochs: PositiveInt = 200
    steps_per_epoch: PositiveInt = 250
    exchange_dropout: Probability = 0.0
    pseudo_weight: float = 0.5
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: str = "auto"
    devices: PositiveInt = 1
    nodes: PositiveInt = 1
    accumulate: PositiveInt = 1  # batches whose gradients are averaged into one step
    checkpoint_activations: bool = False  # recompute them in the backward pass: less memory
    checkpoint_every: PositiveInt = 50
    protocol: ProtocolConfig = ProtocolConfig()

    @model_validator(mode="after")
    def _check(self) -> "TrainConfig":
        for name, given in (("modalities", self.modalities), ("postprocess", self.postprocess)):
            if len(given) != len(MODALITIES):
                raise ValueError(f"{name} must be {', '.join(MODALITIES)}")
        if self.validation_profile not in self.profiles:
            raise ValueError(f"validation_profile {self.validation_profile!r} is not a profile")
        return self

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch


def load_config(path: Path, changes: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file. ``changes``: ``a.b=value``, each in place of a field, its value in YAML.

    Raises ``ConfigError`` naming the field and the value.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        for change in changes:
            values = merged(values, _nested(change))
        return TrainConfig.model_validate(values)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, ValidationError, TypeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with nested fields replaced by those of ``changes``."""
    result = dict(values)
    for key, value in changes.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = merged(old, value) if both else value  # type: ignore[arg-type]
    return result


def _nested(change: str) -> dict[str, Any]:
    """``a.b=1`` as ``{"a": {"b": 1}}``."""
    path, equals, text = change.partition("=")
    if not equals:
        raise ConfigError(f"--set {change!r}: write FIELD=VALUE, such as optimiser.lr=1e-3")
    value = yaml.safe_load(text)
    for name in reversed(path.split(".")):
        value = {name: value}
    return dict(value)
