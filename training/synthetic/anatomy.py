"""Where things are: a reference abdomen and a head in LPS mm (x left, y back, z head)."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.types import BACKGROUND, LIVER

from .canvas import Canvas, Point
from .noise import Field
from .tissues import Palette

CAVITY_MM = (128.0, 84.0)  # half width and half depth inside the ribs
SPINE_Y = 66.0
AORTA, CAVA = (11.0, 34.0), (-18.0, 30.0)
PORTA: Point = (-22.0, 2.0, -8.0)
KIDNEYS: tuple[Point, Point] = ((-54.0, 44.0, -68.0), (58.0, 44.0, -48.0))
BRANCHING = 5
Vector = NDArray[np.float64]  # (3,) x, y, z in mm


def paint_abdomen(canvas: Canvas, tissue: Palette, rng: Generator) -> None:
    """Everything from skin to vessels; the liver's voxels get label 1."""
    _resize(canvas, rng)
    cavity = canvas.column((0.0, 0.0), CAVITY_MM, power=2.3)
    diaphragm = canvas.z - _dome(canvas)
    _trunk(canvas, tissue, cavity, rng)
    _chest(canvas, tissue, cavity, diaphragm)
    _skeleton(canvas, tissue, cavity)
    abdomen = np.maximum(cavity + 3.0, diaphragm + 4.0)
    _bowel(canvas, tissue, abdomen, rng)
    _left_side(canvas, tissue, abdomen, rng)
    kidneys = _kidneys(canvas, tissue, abdomen, rng)
    _liver(canvas, tissue, np.maximum(abdomen, 3.0 - kidneys), rng)
    _great_vessels(canvas, tissue)
    _vessel_trees(canvas, tissue, rng)


def paint_head(canvas: Canvas, tissue: Palette) -> None:
    """Scalp, skull, brain with ventricles, and a neck."""
    neck = np.maximum(canvas.column((0.0, 20.0), (58.0, 62.0)), canvas.z + 30.0)
    canvas.paint(neck, tissue["muscle"])
    for shrink, name in ((0.0, "fat"), (5.0, "bone"), (8.0, "marrow"), (11.0, "bone")):
        canvas.paint(_skull(canvas, shrink), tissue[name])
    canvas.paint(_skull(canvas, 13.0), tissue["csf"])
    canvas.paint(_skull(canvas, 16.0), tissue["brain"])
    for side in (-1.0, 1.0):
        canvas.paint(canvas.ellipsoid((side * 13.0, 0.0, 15.0), (7.0, 30.0, 11.0)), tissue["csf"])
        canvas.paint(canvas.ellipsoid((side * 30.0, -76.0, -25.0), (12.0,) * 3), tissue["fluid"])
    canvas.paint(canvas.ellipsoid((0.0, -75.0, -45.0), (14.0, 20.0, 18.0)), tissue["air"])


def _skull(canvas: Canvas, shrink: float) -> Field:
    return canvas.ellipsoid((0.0, 0.0, 0.0), (76.0 - shrink, 95.0 - shrink, 86.0 - shrink))


def _resize(canvas: Canvas, rng: Generator) -> None:
    """Another body size: coordinates are divided, so every form grows or shrinks with them."""
    size = rng.uniform(0.9, 1.12)
    canvas.x = canvas.x / np.float32(size * rng.uniform(0.95, 1.05))
    canvas.y = canvas.y / np.float32(size * rng.uniform(0.95, 1.05))
    canvas.z = canvas.z / np.float32(rng.uniform(0.9, 1.1))


def _dome(canvas: Canvas) -> Field:
    """Height of the diaphragm: a dome on each side, the right one higher, the heart's bed."""
    x, y = canvas.x, canvas.y
    right = 92.0 - 75.0 * (((x + 66.0) / 80.0) ** 2 + ((y - 2.0) / 78.0) ** 2)
    left = 76.0 - 75.0 * (((x - 70.0) / 75.0) ** 2 + ((y - 5.0) / 75.0) ** 2)
    middle = 66.0 - 45.0 * ((x / 70.0) ** 2 + ((y + 25.0) / 80.0) ** 2)
    return np.maximum(np.maximum(right, left), np.maximum(middle, -50.0))


def _trunk(canvas: Canvas, tissue: Palette, cavity: Field, rng: Generator) -> None:
    wall, fat = 15.0, rng.uniform(6.0, 28.0)
    lean = np.minimum(cavity - wall, canvas.ellipsoid((0.0, 88.0, 0.0), (68.0, 30.0, 900.0)))
    skin = np.minimum(lean, cavity - wall + 2.0) - fat * (1.0 + 0.1 * canvas.noise(90.0, rng))
    canvas.paint(skin - 2.0, tissue["muscle"])
    canvas.paint(skin, tissue["fat"])
    canvas.paint(lean, tissue["muscle"])
    canvas.paint(np.abs(cavity - 7.0) - 0.8, tissue["fat"])
    canvas.paint(cavity, tissue["fat"])


def _chest(canvas: Canvas, tissue: Palette, cavity: Field, diaphragm: Field) -> None:
    canvas.paint(np.maximum(cavity + 1.0, np.abs(diaphragm + 1.0) - 1.5), tissue["muscle"])
    canvas.paint(np.maximum(cavity + 2.0, 1.0 - diaphragm), tissue["lung"])
    canvas.paint(canvas.column((2.0, 40.0), (24.0, 30.0)), tissue["fat"])
    heart = canvas.ellipsoid((22.0, -30.0, 108.0), (62.0, 48.0, 52.0))
    canvas.paint(np.maximum(heart - 5.0, -diaphragm), tissue["fat"])
    canvas.paint(np.maximum(heart, 3.0 - diaphragm), tissue["heart"])


def _skeleton(canvas: Canvas, tissue: Palette, cavity: Field) -> None:
    _spine(canvas, tissue)
    pitch, slope = 27.0, 0.45
    height = canvas.z - slope * canvas.y + 300.0
    between = np.abs(np.mod(height, pitch) - pitch / 2)
    rib = np.hypot(cavity - 7.5, between * 0.75) - 4.5
    margin = -1.1 * canvas.y - 45.0 - canvas.z  # the costal margin falls to the back
    rib = np.maximum(np.maximum(rib, margin), 14.0 - np.abs(canvas.x))
    canvas.paint(rib, tissue["bone"])
    canvas.paint(rib + 2.5, tissue["marrow"])


def _spine(canvas: Canvas, tissue: Palette) -> None:
    body = canvas.column((0.0, SPINE_Y), (22.0, 18.0))
    disc = 4.0 - np.abs(np.mod(canvas.z + 300.0, 33.0) - 16.5)
    arch = canvas.column((0.0, 92.0), (17.0, 13.0))
    spinous = np.maximum(np.abs(canvas.x) - 3.5, np.abs(canvas.y - 110.0) - 14.0)
    wing = np.maximum(np.abs(canvas.y - 94.0) - 4.0, np.abs(canvas.x) - 38.0)
    spinous = np.maximum(np.minimum(spinous, wing), disc + 2.0)
    canvas.paint(np.minimum(np.minimum(body, arch), spinous), tissue["bone"])
    canvas.paint(np.minimum(body, arch) + 2.5, tissue["marrow"])
    canvas.paint(np.maximum(body, -disc), tissue["disc"])
    canvas.paint(canvas.column((0.0, 91.0), (9.0, 8.0)), tissue["csf"])
    for side in (-1.0, 1.0):
        psoas = canvas.column((side * 36.0, 62.0), (15.0, 17.0))
        canvas.paint(np.maximum(psoas, canvas.z + 40.0), tissue["muscle"])


def _bowel(canvas: Canvas, tissue: Palette, abdomen: Field, rng: Generator) -> None:
    low = np.maximum(abdomen + 2.0, canvas.z + 8.0)
    low = np.maximum(low, canvas.y - 22.0)
    loops = 9.0 * (0.1 - canvas.noise(26.0, rng))
    canvas.paint(np.maximum(low, loops), tissue["bowel"])
    canvas.paint(np.maximum(low, np.maximum(loops + 11.0, canvas.y + 25.0)), tissue["gas"])
    pancreas = canvas.ellipsoid((14.0, -2.0, -14.0), (52.0, 11.0, 14.0))
    canvas.paint(pancreas, tissue["bowel"])


def _left_side(canvas: Canvas, tissue: Palette, abdomen: Field, rng: Generator) -> None:
    stomach = canvas.ellipsoid((58.0, -24.0, 26.0), (40.0, 40.0, 48.0))
    stomach = np.maximum(stomach, abdomen + 1.0)
    spleen = canvas.ellipsoid((92.0, 36.0, 26.0), (38.0, 42.0, 54.0))
    spleen = np.maximum(np.maximum(spleen, abdomen), 3.0 - stomach)
    canvas.paint(spleen, tissue["spleen"])
    canvas.paint(stomach, tissue["bowel"])
    canvas.paint(stomach + 4.0, tissue["fluid"])
    level = canvas.y + rng.uniform(15.0, 50.0)  # gas rises to the front of who lies on the back
    canvas.paint(np.maximum(stomach + 4.0, level), tissue["gas"])


def _kidneys(canvas: Canvas, tissue: Palette, abdomen: Field, rng: Generator) -> Field:
    both = np.full_like(abdomen, 1e3)
    for centre in KIDNEYS:
        kidney = np.maximum(canvas.ellipsoid(centre, (27.0, 25.0, 54.0)), abdomen)
        side = float(np.sign(centre[0]))
        hilum = canvas.ellipsoid((centre[0] - side * 14.0, centre[1], centre[2]), (16.0, 9.0, 20.0))
        canvas.paint(kidney, tissue["cortex"])
        canvas.paint(kidney + 7.0 + 2.5 * canvas.noise(14.0, rng), tissue["medulla"])
        canvas.paint(hilum, tissue["fat"])
        both = np.minimum(both, kidney)
    return both


def _liver(canvas: Canvas, tissue: Palette, room: Field, rng: Generator) -> None:
    def off(spread: float) -> float:
        return float(rng.normal(0.0, spread))

    low = off(10.0)
    right = canvas.ellipsoid((-66.0, -2.0, low), (80.0 + off(4.0), 84.0, 96.0 + off(8.0)))
    left = canvas.ellipsoid(
        (12.0 + off(8.0), -44.0, 34.0), (64.0 + off(10.0), 36.0 + off(3.0), 36.0 + off(5.0))
    )
    under = canvas.ellipsoid((2.0, 6.0, -58.0), (62.0, 70.0, 78.0))
    back = canvas.ellipsoid((4.0, SPINE_Y + 4.0, 0.0), (44.0, 52.0, 900.0))
    blend = np.maximum(14.0 - np.abs(right - left), 0.0) / 14.0
    liver = np.minimum(right, left) - 3.5 * blend**2 + 2.5 * canvas.noise(45.0, rng)
    for carved in (under, back):
        liver = np.maximum(liver, 2.0 - carved)
    canvas.paint(np.maximum(liver, room), tissue["liver"], LIVER)
    gallbladder = canvas.ellipsoid((-44.0, -42.0, -42.0 + low / 2), (15.0, 19.0, 30.0))
    canvas.paint(np.maximum(gallbladder, room), tissue["bile"], BACKGROUND)


def _great_vessels(canvas: Canvas, tissue: Palette) -> None:
    canvas.paint(canvas.column(AORTA, (10.5, 10.5)), tissue["artery"], BACKGROUND)
    cava = np.maximum(canvas.column(CAVA, (13.0, 10.0)), canvas.z - 85.0)
    canvas.paint(cava, tissue["vein"], BACKGROUND)
    trunk = canvas.ellipsoid((-6.0, 6.0, -20.0), (22.0, 8.0, 14.0))
    canvas.paint(trunk, tissue["portal"], BACKGROUND)


def _vessel_trees(canvas: Canvas, tissue: Palette, rng: Generator) -> None:
    """Portal branches fan out from the porta, hepatic veins from under the dome."""
    for way in ((-1.0, 0.2, 0.25), (-0.8, -0.3, -0.4), (0.35, -0.85, 0.6)):
        _branch(canvas, PORTA, np.array(way), 6.0, tissue["portal"], rng=rng)
    confluence: Point = (CAVA[0], CAVA[1] - 6.0, 58.0)
    for way in ((-1.0, 0.0, -0.35), (-0.55, -0.8, -0.35), (0.5, -0.9, -0.25)):
        _branch(canvas, confluence, np.array(way), 5.0, tissue["vein"], rng=rng)


def _branch(
    canvas: Canvas, start: Point, way: Vector, radius: float, value: float, *, rng: Generator
) -> None:
    """A vessel that bends, tapers and forks until it is too thin to see."""
    tips = [(np.array(start), way, radius)]
    for _ in range(BRANCHING):
        grown = []
        for point, direction, thick in tips:
            heading = direction + 0.3 * rng.standard_normal(3)
            end = point + heading / np.linalg.norm(heading) * rng.uniform(16.0, 30.0)
            canvas.stroke(_points(point, end), (thick,), value)
            fork = 0.6 * rng.standard_normal(3)
            grown += [(end, heading + fork, thick * 0.72), (end, heading - fork, thick * 0.66)]
        tips = [tip for tip in grown if tip[2] > 1.0]


def _points(a: Vector, b: Vector) -> tuple[Point, Point]:
    return (float(a[0]), float(a[1]), float(a[2])), (float(b[0]), float(b[1]), float(b[2]))
