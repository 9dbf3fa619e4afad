"""One segmentation without a ledger: the command line's way through the same steps as a job's."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from model.measure import Measurements

from .cases import Case, LoadedCase, examine, load_case, settings_key
from .container import OpenBackend
from .domain import ArtifactName, Finding, Stage, SubmitOptions
from .forms import Form, Material, NothingToDrawError, write_form
from .observability import StageTimer
from .phantoms import settled
from .produce import Recipe, Report, produce
from .registry import ModelRegistry, profile_of
from .settings import Settings
from .uploads import Upload, open_upload


@dataclass(frozen=True)
class OneShot:
    """What was segmented and what was found; the files lie in the folder that was named."""

    case: Case
    finding: Finding
    recipe: Recipe


def segment_into(
    settings: Settings,
    upload: Upload,
    options: SubmitOptions,
    *,
    out: Path,
    open_backend: OpenBackend,
    report: Report,
    also: Sequence[Form] = (),
) -> OneShot:
    """Segment an upload and put the result files into ``out``, all of them or none. ``also``: other
    forms of a DICOM result.

    Raises ``InputError`` for input that cannot be used, other ``AqcfError`` for failures.
    """
    models = ModelRegistry(settings.models_dir, settings.default_model)
    folder = models.find(options.model, options.modality)
    profile = profile_of(folder, options.profile)
    timer = StageTimer()
    with tempfile.TemporaryDirectory(prefix="aqcf-") as name:
        report(Stage.READ, 0.0)
        with timer.stage(Stage.READ):
            opened = open_upload(upload, _subfolder(name, "in"), settings)
            case = examine(opened, options.modality, options.series, settings)
            if (own := settled(models, folder, case)) is not folder:
                folder, profile = own, own.spec.default_profile
            loaded = load_case(case.kind, case.files, case.modality, settings, case.content)
        report(Stage.PREPARE, 0.0)
        backend = open_backend(folder, case.modality, folder.spec.profiles[profile].precision)
        recipe = Recipe(folder, profile, settings_key(case, folder.sha256, profile))
        results = _subfolder(name, "out")
        finding = produce(loaded, recipe, backend, results, report)
        left_out = list(_also(also, loaded, finding, recipe, results))
        _deliver(results, out)
    seconds = timer.seconds | dict(finding.seconds)
    notes = (*case.notes, *finding.notes, *left_out)
    return OneShot(case, replace(finding, seconds=seconds, notes=notes), recipe)


def _subfolder(parent: str, name: str) -> Path:
    folder = Path(parent) / name
    folder.mkdir()
    return folder


def _also(
    forms: Sequence[Form], loaded: LoadedCase, finding: Finding, recipe: Recipe, results: Path
) -> Iterator[str]:
    """Write other forms; yields a sentence for each that there is not."""
    if loaded.series is None:
        yield from ("NIfTI input has no DICOM forms." for _ in forms[:1])
        return
    measurements = Measurements.from_dict(finding.measurements)
    seg = results / ArtifactName.SEG
    material = Material(loaded.series.series, seg, measurements, recipe.uid_key)
    for form in forms:
        try:
            write_form(form, material, results)
        except NothingToDrawError as error:
            yield f"{form}: {error.message}"


def _deliver(results: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(results.iterdir()):
        part = out / f".{file.name}.part"
        part.write_bytes(file.read_bytes())
        part.replace(out / file.name)
