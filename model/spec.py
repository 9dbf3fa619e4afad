"""ModelSpec: everything that changes a mask, kept beside the weights it belongs to.

A model is a folder: ``manifest.json`` (a ``ModelSpec``), ``weights.safetensors``, ``ct.onnx``,
``mr.onnx``. Loading verifies the SHA-256 of each file that the manifest names.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ModelFolderError
from .types import Modality

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
STAGES = 4
DIVISOR = 2**STAGES  # four halvings: every patch side is a multiple of this


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkConfig(Frozen):
    """The architecture (section 3.2) and its ablations (table 7).

    ``widths``: quaternion channels of the stem and the four stages; ``bottleneck``: of the shared
    bottleneck. A quaternion channel is four real ones. ``literal_absent`` leaves out the presence
    factor, as the paper's eq. (10) is literally written, so that its effect can be measured.
    """

    widths: tuple[int, int, int, int, int] = (12, 24, 48, 96, 192)
    bottleneck: int = 256
    classes: int = 3
    norm_eps: float = 1e-3
    quaternion: bool = True
    cross_fusion: bool = True
    adaptive_gate: bool = True
    shared_bottleneck: bool = True
    attention_gates: bool = True
    literal_absent: bool = False


class FixedIntensity(Frozen):
    """[lo, hi] -> [0, 1], clamped: HU for CT, the paper's rule for ATLAS (section 3.1.2)."""

    kind: Literal["fixed"] = "fixed"
    lo: float
    hi: float


class PercentileIntensity(Frozen):
    """The lo-th and hi-th percentile of the foreground -> [0, 1], clamped."""

    kind: Literal["percentile"] = "percentile"
    lo: float = 1.0
    hi: float = 99.0


Intensity = Annotated[FixedIntensity | PercentileIntensity, Field(discriminator="kind")]


class ModalitySpec(Frozen):
    """Preprocessing of one modality. Triples are (z, y, x); orientation names the array's axes
    x, y, z in that order, as NIfTI tools do (RAS: x grows to the right, y anterior, z superior)."""

    orientation: str
    spacing_mm: tuple[float, float, float]
    intensity: Intensity
    patch: tuple[int, int, int]

    @model_validator(mode="after")
    def _check(self) -> "ModalitySpec":
        if any(side % DIVISOR for side in self.patch):
            raise ValueError(f"patch {self.patch} is not a multiple of {DIVISOR} in each axis")
        if self.patch == (DIVISOR, DIVISOR, DIVISOR):
            raise ValueError(f"patch {self.patch} leaves one voxel at the deepest scale")
        if sorted(self.orientation.translate(str.maketrans("LPI", "RAS"))) != ["A", "R", "S"]:
            raise ValueError(f"orientation {self.orientation!r} does not name three axes")
        return self


class Profile(Frozen):
    """How densely the window slides. ``agreement`` and ``speedup`` are against ``paper``,
    measured by ``benchmarks/volume.py``, absent until measured."""

    overlap: float = Field(ge=0.0, lt=1.0)
    precision: Literal["f32", "bf16"] = "f32"
    skip_empty: bool = True
    follow: bool = False  # run only windows that the liver comes near to, beside every other one
    agreement: float | None = None
    speedup: float | None = None


class Code(Frozen):
    """A coded concept: value, scheme, meaning (DICOM PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str


class Label(Frozen):
    """One class of the mask and how DICOM names it."""

    value: int
    name: str
    category: Code
    type: Code
    cielab: tuple[int, int, int]
    region: Code | None = None


class PostprocessRules(Frozen):
    """Rules applied after argmax, each reported when it changed something."""

    largest_liver_component: bool = True
    tumour_inside_liver: bool = True
    min_lesion_ml: float = 0.0
    min_liver_ml: float = 50.0  # less liver than this: the outcome is ``not_evaluable``


LIVER_LABEL = Label(
    value=1,
    name="Liver without tumour",
    category=Code(value="123037004", scheme="SCT", meaning="Anatomical Structure"),
    type=Code(value="10200004", scheme="SCT", meaning="Liver"),
    cielab=(41661, 41167, 40792),
)
TUMOUR_LABEL = Label(
    value=2,
    name="Liver tumour",
    category=Code(value="49755003", scheme="SCT", meaning="Morphologically Abnormal Structure"),
    type=Code(value="108369006", scheme="SCT", meaning="Neoplasm"),
    cielab=(56720, 20990, 42391),
    region=Code(value="10200004", scheme="SCT", meaning="Liver"),
)


class ModelSpec(Frozen):
    """The manifest of a model folder."""

    format: Literal[1] = 1
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    version: str
    description: str = ""
    network: NetworkConfig
    modalities: dict[Modality, ModalitySpec]
    profiles: dict[str, Profile]
    default_profile: str = "balanced"
    labels: tuple[Label, ...] = (LIVER_LABEL, TUMOUR_LABEL)
    postprocess: dict[Modality, PostprocessRules]
    training: dict[str, Any] = Field(default_factory=dict)
    scores: dict[str, Any] = Field(default_factory=dict)
    export: dict[str, Any] = Field(default_factory=dict)
    licence: str = ""
    files: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> "ModelSpec":
        if self.default_profile not in self.profiles:
            raise ValueError(f"default profile {self.default_profile!r} is not a profile")
        return self


@dataclass(frozen=True)
class ModelFolder:
    """A verified model on disk. ``sha256`` is the manifest's, which covers every other file."""

    path: Path
    spec: ModelSpec
    sha256: str

    def file(self, name: str) -> Path:
        return self.path / name

    def graph(self, modality: Modality) -> Path:
        """The one-stream ONNX graph of a modality."""
        return self.path / f"{modality}.onnx"


def load_model_folder(path: Path) -> ModelFolder:
    """Read the manifest and verify the hash of every file it names.

    Raises ``ModelFolderError``: no manifest, an invalid one, a file missing, a hash that differs.
    """
    manifest = path / MANIFEST
    if not manifest.is_file():
        raise ModelFolderError(f"{path.name}: no {MANIFEST} in this model folder")
    raw = manifest.read_bytes()
    try:
        spec = ModelSpec.model_validate_json(raw)
    except ValidationError as error:
        raise ModelFolderError(f"{path.name}/{MANIFEST}: {error}") from error
    _verify(path, spec.files)
    return ModelFolder(path, spec, hashlib.sha256(raw).hexdigest())


def write_manifest(path: Path, spec: ModelSpec, files: Mapping[str, Path]) -> ModelSpec:
    """Write ``manifest.json`` into ``path`` with the hashes of ``files`` (name -> file)."""
    hashes = {name: sha256_of(file) for name, file in sorted(files.items())}
    hashed = spec.model_copy(update={"files": hashes})
    text = json.dumps(hashed.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (path / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return hashed


def sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _verify(path: Path, files: Mapping[str, str]) -> None:
    for name, expected in files.items():
        file = path / name
        if file.resolve().parent != path.resolve() or not file.is_file():
            raise ModelFolderError(f"{path.name}: the file {name!r} of the manifest is missing")
        if (found := sha256_of(file)) != expected:
            raise ModelFolderError(
                f"{path.name}/{name}: SHA-256 {found[:12]}… differs from the manifest's "
                f"{expected[:12]}…; fetch the model again"
            )
