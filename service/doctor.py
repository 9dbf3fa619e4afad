"""``aqcf doctor``: what runs here, one line per check."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from model.backends import available_engines

from .registry import ModelRegistry
from .settings import Settings

CODECS: tuple[UID, ...] = (
    RLELossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    JPEG2000,
    HTJ2KLossless,
    HTJ2K,
)


@dataclass(frozen=True)
class Check:
    """``needed``: without it nothing works; else it is only good to have."""

    name: str
    ok: bool
    detail: str
    needed: bool = True


def examine_machine(settings: Settings) -> Iterator[Check]:
    """Every check, as it is made."""
    yield from _engines()
    yield from _codecs()
    yield from _models(settings)
    yield _disk(settings)


def _engines() -> Iterator[Check]:
    infos = available_engines()
    for info in infos:
        where = ", ".join((*info.devices, *info.precisions))
        detail = " ".join(filter(None, (info.detail, f"({where})" if where else "")))
        yield Check(f"engine {info.engine}", info.available, detail, needed=False)
    usable = [info.engine for info in infos if info.available and info.engine != "torch"]
    yield Check("an engine", bool(usable), ", ".join(usable) or "pip install openvino")
    gpus = [device for info in infos for device in info.devices if _is_gpu(device)]
    yield Check("gpu", bool(gpus), ", ".join(gpus) or "none; the CPU is used", needed=False)


def _is_gpu(device: str) -> bool:
    return any(word in device.lower() for word in ("cuda", "gpu", "tensorrt"))


def _codecs() -> Iterator[Check]:
    for syntax in CODECS:
        missing = missing_codec(syntax)
        yield Check(f"codec {syntax.name}", not missing, missing)


def missing_codec(syntax: UID) -> str:
    """What this machine lacks to decode a transfer syntax; nothing where it can."""
    decoder = get_decoder(syntax)
    if decoder.is_available:
        return ""
    return "; ".join(decoder.missing_dependencies) or "no decoder"


def _models(settings: Settings) -> Iterator[Check]:
    registry = ModelRegistry(settings.models_dir, settings.default_model)
    for folder in registry.all():
        yield Check(f"model {folder.spec.id}", True, f"hashes verified, {folder.sha256[:12]}")
    for broken in registry.broken():
        yield Check(f"model {broken.id}", False, broken.error)
    if all(folder.spec.id != settings.default_model for folder in registry.all()):
        detail = f"the default model is not installed in {settings.models_dir}"
        yield Check(f"model {settings.default_model}", False, detail)


def _disk(settings: Settings) -> Check:
    """Of the fullest of the disks that are written to."""
    places = [settings.state_dir, settings.arrivals_dir]
    url = urlsplit(settings.artifacts_url or "")
    if url.scheme == "file":
        places.append(Path(unquote(url.path)))
    free, place = min((_free_bytes(place), place) for place in places)
    needed = settings.min_free_bytes
    detail = f"{free / 1024**3:.1f} GiB free in {place}, {needed / 1024**3:.1f} GiB needed"
    return Check("disk", free >= needed, detail)


def _free_bytes(folder: Path) -> int:
    """Where ``folder`` is, or will be."""
    folder = folder.resolve()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
