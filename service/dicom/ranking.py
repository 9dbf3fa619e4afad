"""The order in which ``auto`` prefers usable series.

Compared in this order, the first difference decides:

1. covers enough to hold a liver (80 mm along the slices, 200 mm across);
2. axial;
3. an image of the patient as acquired, not a projection, difference or parameter map;
4. not diffusion weighted;
5. the header names liver or abdomen;
6. not another body part by its name;
7. MR: in phase, before unknown or water, before out of phase, before fat;
8. CT: a phase named portal venous, before none named, before another;
9. ORIGINAL before DERIVED;
10. how much of 300 mm along the slices is covered (in steps of 20 mm);
11. more slices; 12. finer spacing; 13. lower series number, then the order in the receipt.
"""

import math
import re

from .geometry import NativeGrid
from .header import SeriesFacts
from .phases import PORTAL, dixon
from .planes import Plane

LIVER_HEIGHT_MM = 80.0
BODY_WIDTH_MM = 200.0
ENOUGH_MM, COVER_STEP_MM = 300.0, 20.0
AXIAL_COSINE = 0.8
FAT_WATER_HZ_PER_TESLA = 145.0  # 3.4 ppm at 42.58 MHz/T
NO_ANATOMY = frozenset(
    {"ADC", "FA", "MIP", "MINIP", "SUBTRACTION", "PROJECTION IMAGE", "PHASE", "PHASE MAP", "P",
     "T1 MAP", "T2 MAP", "R2", "R2_STAR", "R2STAR", "T2_STAR", "T2STAR", "FF", "FAT_FRACTION",
     "FATFRAC", "PARAMETRIC", "SCREENSHOT"}
)  # fmt: skip
HERE = re.compile(r"liver|hepat|leber|foie|abdom|\babd", re.IGNORECASE)
ELSEWHERE = re.compile(
    r"brain|head|skull|neck|knee|hip\b|ankle|shoulder|spine|wrist|breast|prostat|heart|cardi",
    re.IGNORECASE,
)


def rank(facts: SeriesFacts, planes: tuple[Plane, ...], grid: NativeGrid) -> tuple[float, ...]:
    """Greater is better; see the module's docstring."""
    height = float(grid.distances[-1])
    width = min(grid.rows * grid.pixel_spacing[0], grid.columns * grid.pixel_spacing[1])
    words = f"{facts.body_part} {facts.description}"
    first = planes[0]
    return (
        height >= LIVER_HEIGHT_MM and width >= BODY_WIDTH_MM,
        abs(float(grid.axes[2, 2])) >= AXIAL_COSINE,
        NO_ANATOMY.isdisjoint(first.image_type),
        not _diffusion(first),
        HERE.search(words) is not None,
        ELSEWHERE.search(words) is None,
        _echo_phase(facts, first),
        _contrast(facts),
        "DERIVED" not in first.image_type,
        math.floor(min(height, ENOUGH_MM) / COVER_STEP_MM),
        grid.slices,
        -round(math.prod(grid.spacing_mm), 6),
        -facts.number,
    )


def _contrast(facts: SeriesFacts) -> int:
    """Portal venous is what models of the liver are trained on, in CT."""
    if facts.modality == "MR" or facts.phase is None:
        return 0
    return 1 if facts.phase == PORTAL else -1


def _echo_phase(facts: SeriesFacts, plane: Plane) -> int:
    """1 in phase, -1 out of phase, -2 fat, 0 unknown, water or not applicable."""
    told = dixon(plane.image_type)
    if told is not None:
        return {"in phase": 1, "water": 0, "out of phase": -1, "fat": -2}[told]
    echo = plane.splitters.get("EchoTime")
    milliseconds = echo[0] if isinstance(echo, tuple) else math.inf
    if not (facts.gradient_echo and facts.field_strength and math.isfinite(milliseconds)):
        return 0
    turns = FAT_WATER_HZ_PER_TESLA * facts.field_strength * milliseconds / 1000.0
    return round(math.cos(2 * math.pi * turns))


def _diffusion(plane: Plane) -> bool:
    value = plane.splitters.get("DiffusionBValue")
    return isinstance(value, tuple) and value[0] > 0
