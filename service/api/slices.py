"""The pictures of a result: one slice with the mask over it, in anatomical planes.

Volumes are turned so that axes run feet to head, front to back and right to left (a permutation,
never an interpolation), reduced to the display's 8 bits, and kept for the next slice.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model.nifti import Limits, read_nifti
from model.render import display_window, render_slice
from model.resample import reorient
from model.types import TUMOUR, Affine, MaskArray, NativeArray, SpacingZYX
from model.volume import Volume, spacing_mm

from ..container import Container
from ..domain import ArtifactName, Job
from ..errors import ConflictError, NotFoundError
from ..images import load_image
from .responses import deletion_told
from .schemas import LesionPlace, PlaneLayout, SliceLayout

Plane: TypeAlias = Literal["axial", "coronal", "sagittal"]
PLANES: Final[tuple[Plane, ...]] = ("axial", "coronal", "sagittal")
AXIS: Final[dict[Plane, int]] = {"axial": 0, "coronal": 1, "sagittal": 2}
ORDER: Final = "LPS"
PICTURE_PX: Final = 720  # the longer side of a picture
CACHE_BYTES: Final = 768 * 1024**2
BAND: Final = 32  # slices windowed at a time, so that no float copy of a whole volume exists


@dataclass(frozen=True, eq=False)
class Display:
    """``image`` uint8 and ``mask``, both ``(z, y, x)``: feet to head, front to back, right to
    left. ``lesions``: voxel index (z, y, x) of each lesion's centroid."""

    image: NDArray[np.uint8]
    mask: MaskArray
    spacing_mm: SpacingZYX
    lesions: tuple[tuple[int, tuple[int, int, int]], ...]

    @property
    def nbytes(self) -> int:
        return self.image.nbytes + self.mask.nbytes

    def layout(self) -> SliceLayout:
        """Slices per plane, where to start, and where the lesions are."""
        planes: dict[str, PlaneLayout] = {
            plane: PlaneLayout(count=self.image.shape[axis], start=_widest(self.mask, axis))
            for plane, axis in AXIS.items()
        }
        lesions = [
            LesionPlace(number=number, axial=z, coronal=y, sagittal=x)
            for number, (z, y, x) in self.lesions
        ]
        return SliceLayout(planes=planes, lesions=lesions)

    def png(self, plane: Plane, index: int, *, overlay: bool) -> bytes:
        """A picture, head or front up; raises ``NotFoundError`` (``slice_not_found``)."""
        axis = AXIS[plane]
        if not 0 <= index < self.image.shape[axis]:
            count = self.image.shape[axis]
            raise NotFoundError(
                f"the {plane} plane has slices 0 to {count - 1}", code="slice_not_found"
            )
        spacing = tuple(mm for other, mm in enumerate(self.spacing_mm) if other != axis)
        mask = _cut(self.mask, axis, index) if overlay else None
        image = _cut(self.image, axis, index)
        scale = PICTURE_PX / max(n * mm for n, mm in zip(image.shape, spacing, strict=True))
        return render_slice(image, mask, (0.0, 255.0), (spacing[0], spacing[1]), scale)


class SliceCache:
    """The last volumes looked at, up to ``max_bytes``; safe to use from several threads."""

    def __init__(self, container: Container, max_bytes: int = CACHE_BYTES) -> None:
        self._container = container
        self._max_bytes = max_bytes
        self._loading = threading.Lock()  # one volume at a time is in memory twice
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Display] = OrderedDict()

    def get(self, job: Job) -> Display:
        """Raises ``ConflictError`` (``not_finished``, ``no_result``) or ``NotFoundError``."""
        require_result(job)
        if found := self._find(job.id):
            return found
        with self._loading:
            return self._find(job.id) or self._keep(job)

    def drop(self, job_id: str) -> None:
        """Forget a deleted job's images."""
        with self._loading, self._lock:
            self._kept.pop(job_id, None)

    def _find(self, job_id: str) -> Display | None:
        with self._lock:
            if job_id in self._kept:
                self._kept.move_to_end(job_id)
            return self._kept.get(job_id)

    def _keep(self, job: Job) -> Display:
        with deletion_told(self._container, job):
            loaded = self._load(job)
        with self._lock:
            self._kept[job.id] = loaded
            self._shrink()
        return loaded

    def _load(self, job: Job) -> Display:
        # The mask is our own file, judged when the upload came: no limit is needed again.
        path = self._container.artifacts.path(job.id, ArtifactName.MASK)
        mask = read_nifti(path, job.modality, limits=Limits(max_voxels=2**40))
        image = load_image(self._container, job).volume
        return build_display(image, mask.array, job.measurements or {})

    def _shrink(self) -> None:
        while len(self._kept) > 1 and self._bytes() > self._max_bytes:
            self._kept.popitem(last=False)

    def _bytes(self) -> int:
        return sum(display.nbytes for display in self._kept.values())


def require_result(job: Job) -> None:
    """Raise ``ConflictError`` unless the job succeeded: ``not_finished`` or ``no_result``."""
    if not job.status.finished:
        raise ConflictError("the segmentation has not finished", code="not_finished")
    if job.outcome is None:
        raise ConflictError(f"the segmentation is {job.status}, it has no result", code="no_result")


def build_display(image: Volume, mask: NativeArray, measurements: object) -> Display:
    """Turn image and mask for display; ``measurements`` as the job keeps them."""
    window = display_window(image)
    turned, affine = reorient(image.array, image.affine, ORDER)
    turned_mask, _ = reorient(mask, image.affine, ORDER)
    return Display(
        image=_eight_bits(turned, window),
        mask=np.ascontiguousarray(turned_mask, dtype=np.uint8),
        spacing_mm=spacing_mm(affine),
        lesions=_places(measurements, affine, turned.shape),
    )


def _eight_bits(array: NativeArray, window: tuple[float, float]) -> NDArray[np.uint8]:
    low, high = window
    result = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), BAND):
        band = array[start : start + BAND].astype(np.float32)
        scaled = (band - low) * (255.0 / max(high - low, 1e-6))
        result[start : start + BAND] = np.clip(scaled, 0.0, 255.0).round()
    return result


def _places(
    measurements: object, affine: Affine, shape: tuple[int, ...]
) -> tuple[tuple[int, tuple[int, int, int]], ...]:
    if not isinstance(measurements, dict):
        return ()
    inverse = np.linalg.inv(affine)
    found = []
    for lesion in measurements.get("lesions", ()):
        xyz = inverse @ np.array([*lesion["centroid_mm"], 1.0])
        z, y, x = np.clip(np.rint(xyz[2::-1]), 0, np.array(shape) - 1).astype(int)
        found.append((int(lesion["number"]), (int(z), int(y), int(x))))
    return tuple(found)


def _widest(mask: MaskArray, axis: int) -> int:
    """The slice with the most tumour, else the most liver, else the middle one."""
    others = tuple(other for other in range(3) if other != axis)
    for found in (mask == TUMOUR, mask > 0):
        area = np.count_nonzero(found, axis=others)
        if area.any():
            return int(area.argmax())
    return int(mask.shape[axis]) // 2


def _cut(array: NDArray[np.uint8], axis: int, index: int) -> NDArray[np.uint8]:
    """Rows from the top: front to back in axial slices, head to feet in the others."""
    plane: NDArray[np.uint8] = np.moveaxis(array, axis, 0)[index]
    return plane if axis == 0 else plane[::-1]
