"""A result as DICOM files: SEG, proved before it is kept, and SR."""

from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset

from model.pipeline import Result
from model.spec import ModelSpec

from .dicom.pixels import LoadedSeries
from .dicom.proof import Proof, prove
from .dicom.sanitise import Sources, canonical_sources
from .dicom.seg import Algorithm, build_seg, to_bytes
from .dicom.sr import build_sr


@dataclass(frozen=True)
class SegFile:
    """A written SEG, its proof, and what the SR needs of it."""

    dataset: Dataset
    sources: Sources
    proof: Proof


def write_seg(
    loaded: LoadedSeries, result: Result, spec: ModelSpec, uid_key: str, path: Path
) -> SegFile:
    """Write the SEG and prove it from the bytes that were written. Raises ``SegMismatchError``."""
    series = loaded.series
    mask = loaded.mask_to_native(result.mask)
    sources = canonical_sources(series, uid_key)
    dataset = build_seg(series, mask, spec.labels, algorithm_of(spec), uid_key, sources)
    path.write_bytes(to_bytes(dataset))
    return SegFile(dataset, sources, prove(path, series, mask))


def write_sr(
    loaded: LoadedSeries,
    result: Result,
    spec: ModelSpec,
    uid_key: str,
    *,
    seg: SegFile,
    path: Path,
) -> None:
    """Write the measurements; the SEG is their evidence."""
    dataset = build_sr(
        loaded.series,
        seg.dataset,
        result.measurements,
        spec.labels,
        algorithm_of(spec),
        uid_key,
        seg.sources,
    )
    path.write_bytes(to_bytes(dataset))


def algorithm_of(spec: ModelSpec) -> Algorithm:
    return Algorithm(f"A-QCF-Net {spec.id}", spec.version)
