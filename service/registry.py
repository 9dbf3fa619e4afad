"""The installed models: folders below one folder, each verified once."""

import threading
from dataclasses import dataclass
from pathlib import Path

from model.errors import ModelFolderError
from model.spec import MANIFEST, ModelFolder, load_model_folder
from model.types import Modality

from .errors import ModelUnavailableError, UnknownModelError, UnknownProfileError
from .settings import PHANTOM_MODEL

ACCEPTANCE = "acceptance"  # reserved: the model for the phantoms of `aqcf acceptance`


@dataclass(frozen=True)
class BrokenModel:
    """A folder that is no usable model, and why."""

    id: str
    error: str


class ModelRegistry:
    """Loads lazily and keeps what it verified. A model's id is its manifest's. The acceptance model
    comes with the software, is found by its id, and is in no list."""

    def __init__(self, models_dir: Path, default_model: str) -> None:
        self.models_dir = models_dir
        self.default_model = default_model
        self._lock = threading.Lock()
        self._acceptance: ModelFolder | None = None
        self._loaded: tuple[tuple[ModelFolder, ...], tuple[BrokenModel, ...]] | None = None

    def all(self) -> tuple[ModelFolder, ...]:
        """The usable models, the default first, then by id."""
        return self._load()[0]

    def broken(self) -> tuple[BrokenModel, ...]:
        return self._load()[1]

    def default(self) -> ModelFolder:
        """The model that is used when none is asked for; raises ``ModelUnavailableError``."""
        for folder in self.all():
            if folder.spec.id == self.default_model:
                return folder
        raise self._missing(self.default_model)

    def find(self, model_id: str | None, modality: Modality) -> ModelFolder:
        """The model of this id (``None``: the default one) if it knows the modality.

        Raises ``ModelUnavailableError`` when the default one is asked for and missing,
        ``UnknownModelError`` for any other id or a modality the model does not know.
        """
        wanted = model_id or self.default_model
        if wanted == ACCEPTANCE:
            return self.acceptance()
        found = next((folder for folder in self.all() if folder.spec.id == wanted), None)
        if found is None:
            raise self._missing(wanted)
        if modality not in found.spec.modalities:
            raise UnknownModelError(f"the model {wanted} does not segment {modality}")
        return found

    def acceptance(self) -> ModelFolder:
        """The model for phantoms; raises ``ModelUnavailableError`` where it is damaged."""
        with self._lock:
            if self._acceptance is None:
                try:
                    self._acceptance = load_model_folder(PHANTOM_MODEL)
                except ModelFolderError as error:
                    raise ModelUnavailableError(error.message) from error
            return self._acceptance

    def _missing(self, wanted: str) -> UnknownModelError | ModelUnavailableError:
        have = ", ".join(folder.spec.id for folder in self.all()) or "none"
        if wanted == self.default_model:
            unusable = ", ".join(folder.id for folder in self.broken()) or "none"
            return ModelUnavailableError(
                f"the default model {wanted!r} is not installed in {self.models_dir} (installed: "
                f"{have}; unusable, `aqcf models` says why: {unusable}); "
                "set AQCF_MODELS_DIR or AQCF_DEFAULT_MODEL"
            )
        return UnknownModelError(f"no model of this id is installed (installed: {have})")

    def _load(self) -> tuple[tuple[ModelFolder, ...], tuple[BrokenModel, ...]]:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._scan()
            return self._loaded

    def _scan(self) -> tuple[tuple[ModelFolder, ...], tuple[BrokenModel, ...]]:
        found: list[ModelFolder] = []
        broken: list[BrokenModel] = []
        for manifest in sorted(self.models_dir.glob(f"*/{MANIFEST}")):
            try:
                found.append(_usable(manifest.parent))
            except ModelFolderError as error:
                broken.append(BrokenModel(manifest.parent.name, error.message))
        usable, twice = _told_apart(found)
        broken += twice
        usable.sort(key=lambda folder: (folder.spec.id != self.default_model, folder.spec.id))
        return tuple(usable), tuple(broken)


def _usable(path: Path) -> ModelFolder:
    folder = load_model_folder(path)
    if folder.spec.id == ACCEPTANCE:
        raise ModelFolderError(f"{path.name}: the id {ACCEPTANCE} is taken; choose another")
    return folder


def _told_apart(found: list[ModelFolder]) -> tuple[list[ModelFolder], list[BrokenModel]]:
    """An id that two folders have names neither: one may be the back-up of the other."""
    usable: list[ModelFolder] = []
    twice: list[BrokenModel] = []
    for folder in found:
        model_id, name = folder.spec.id, folder.path.name
        same = [one.path.name for one in found if one.spec.id == model_id and one is not folder]
        if same:
            error = f"{name}: the id {model_id} is also in {', '.join(same)}; keep one of them"
            twice.append(BrokenModel(name, error))
        else:
            usable.append(folder)
    return usable, twice


def profile_of(folder: ModelFolder, name: str | None) -> str:
    """The profile's name, the model's default for ``None``; raises ``UnknownProfileError``."""
    spec = folder.spec
    if name is None:
        return spec.default_profile
    if name not in spec.profiles:
        known = ", ".join(sorted(spec.profiles))
        raise UnknownProfileError(f"the model {spec.id} has no such profile; it has: {known}")
    return name
