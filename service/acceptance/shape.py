"""What the phantoms hold: a body, a liver, a tumour, known everywhere in the patient.

Edges are ramps over several millimetres, so that interpolation on the way there and back moves
them by less than ``Phantom.edge_mm``. No flip and no turn maps the liver onto itself.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model.types import MaskArray

from .stack import Stack

Points = NDArray[np.float64]
Sphere = tuple[tuple[float, float, float], float]

LIVER: tuple[Sphere, ...] = (
    ((-18.0, 2.0, 6.0), 33.0),
    ((18.0, -14.0, 14.0), 18.0),
    ((-28.0, 14.0, -26.0), 15.0),
)
"""Centre (LPS mm) and radius of the spheres that melt into one liver, on the patient's right."""

TUMOUR: Sphere = ((-20.0, -2.0, 11.0), 13.0)
BODY_MM = (74.0, 58.0)  # half axes to the left and to the back
MELT_MM = 4.0
LIVER_RAMP_MM, TUMOUR_RAMP_MM = 12.0, 10.0
AIR, TISSUE, LIVER_STEP, TUMOUR_STEP = -1000, 40, 80, 80
"""HU of air and body; what the liver adds, what the tumour adds. For MR the same without air."""

IS_LIVER, IS_TUMOUR = 80.5, 160.5
"""The thresholds of the acceptance model, half-way up the ramps, where no whole value lies."""


@dataclass(frozen=True)
class Content:
    """Which organs a phantom has."""

    liver: bool = True
    tumour: bool = True


@dataclass(frozen=True, eq=False)
class Scene:
    """A phantom's content on the voxels of a stack, ``(n, rows, columns)``.

    ``values``: HU or signal. ``mask``: 0, 1 liver, 2 tumour. ``liver_edge``, ``tumour_edge``: mm
    from each voxel's centre to the organ's surface; infinite where there is none.
    """

    values: NDArray[np.int16]
    mask: MaskArray
    liver_edge: NDArray[np.float64] = field(repr=False)
    tumour_edge: NDArray[np.float64] = field(repr=False)

    @property
    def edge(self) -> NDArray[np.float64]:
        """mm to the nearest surface of both."""
        return np.minimum(self.liver_edge, self.tumour_edge)


def scene(stack: Stack, content: Content, *, air: bool) -> Scene:
    """``air``: what is outside the body is -1000 (CT), else 0 (MR)."""
    points = stack.points()
    to_liver = _liver(points) if content.liver else np.full(points.shape[:3], -np.inf)
    to_tumour = _sphere(points, TUMOUR) if content.tumour else np.full(points.shape[:3], -np.inf)
    values = TISSUE + LIVER_STEP * _ramp(to_liver, LIVER_RAMP_MM)
    values = values + TUMOUR_STEP * _ramp(to_tumour, TUMOUR_RAMP_MM)
    whole = np.rint(np.where(_body(points), values, AIR if air else 0)).astype(np.int16)
    mask = np.where(whole > IS_TUMOUR, 2, np.where(whole > IS_LIVER, 1, 0)).astype(np.uint8)
    return Scene(whole, mask, np.abs(to_liver), np.abs(to_tumour))


def _liver(points: Points) -> Points:
    """About mm to the surface, positive inside; the spheres melt over ``MELT_MM``."""
    each = np.stack([_sphere(points, one) for one in LIVER])
    melted: Points = MELT_MM * np.logaddexp.reduce(each / MELT_MM, axis=0)
    return melted


def _sphere(points: Points, sphere: Sphere) -> Points:
    centre, radius = sphere
    inside: Points = radius - np.linalg.norm(points - np.array(centre), axis=-1)
    return inside


def _body(points: Points) -> NDArray[np.bool_]:
    left, back = points[..., 0] / BODY_MM[0], points[..., 1] / BODY_MM[1]
    inside: NDArray[np.bool_] = left**2 + back**2 < 1
    return inside


def _ramp(inside_mm: Points, width_mm: float) -> Points:
    return np.clip(0.5 + inside_mm / width_mm, 0.0, 1.0)
