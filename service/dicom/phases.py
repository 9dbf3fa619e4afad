"""What a part of a series is, in words: contrast phase, echo, Dixon image, b-value.

Only what headers tell. Of a header's own text nothing is repeated but known words, and of times
only their distance: both can hold what identifies a patient.
"""

import math
import re
from collections.abc import Hashable, Iterable, Sequence

from .planes import Plane

ATTRIBUTES = {
    "TemporalPositionIdentifier": "temporal position",
    "TemporalPositionIndex": "temporal position",
    "TemporalPositionTimeOffset": "temporal position",
    "StackID": "stack",
    "EchoNumbers": "echo number",
    "EchoTime": "echo time",
    "EffectiveEchoTime": "echo time",
    "ComplexImageComponent": "complex component",
    "DiffusionBValue": "b-value",
    "DiffusionGradientOrientation": "diffusion direction",
    "InversionTime": "inversion time",
    "InversionTimes": "inversion time",
    "TriggerTime": "trigger time",
    "NominalCardiacTriggerDelayTime": "trigger time",
    "ContrastBolusAgentPhase": "contrast phase",
    "AcquisitionNumber": "acquisition number",
    "SequenceName": "sequence",
    "SeriesDescription": "description",
    "AcquisitionTime": "acquisition time",
    "AcquisitionDateTime": "acquisition time",
    "FrameAcquisitionDateTime": "acquisition time",
    "ContentTime": "content time",
    "ConvolutionKernel": "reconstruction kernel",
    "InstanceNumber": "instance number",
}
UNITS = {
    "TemporalPositionTimeOffset": "s",
    "EchoTime": "ms",
    "EffectiveEchoTime": "ms",
    "DiffusionBValue": "s/mm2",
    "InversionTime": "ms",
    "InversionTimes": "ms",
    "TriggerTime": "ms",
    "NominalCardiacTriggerDelayTime": "ms",
}
CLOCKS = frozenset(
    {"AcquisitionTime", "AcquisitionDateTime", "FrameAcquisitionDateTime", "ContentTime"}
)
DIXON = {
    "in phase": frozenset({"IN_PHASE", "IP", "INPHASE"}),
    "out of phase": frozenset({"OUT_PHASE", "OPP_PHASE", "OP", "OUTPHASE", "OUT_OF_PHASE"}),
    "water": frozenset({"WATER", "W"}),
    "fat": frozenset({"FAT", "F"}),
}
CODED = {
    "PRE_CONTRAST": "without contrast",
    "ARTERIAL": "arterial",
    "PORTAL_VENOUS": "portal venous",
    "DELAYED": "delayed",
}
PORTAL = "portal venous"
# In this order: a word taken by an earlier phase does not count for a later one.
WORDS = {
    "late arterial": r"\blate[ -]?art|sp[aä]t[ -]?art",
    "arterial": r"\bart(\b|[eé]r)|\bhap\b",
    PORTAL: r"\bport(o|al)|\bpvp?\b|\bven(\b|ous|[oö]s)|veineu",
    "hepatobiliary": r"hepato[ -]?bil|\bhbp\b",
    "delayed": r"\bdelay|\bdel\b|\blate\b|sp[aä]t|tardi|equilib",
    "without contrast": (
        r"\bnativ|unenhanced|\bnon?[ -]?(contrast|enhanced)|\bpre[ -]?(contrast|gd|km)|\bplain\b"
        r"|without[ -]contrast|\bnect\b"
    ),
}
PATTERNS = {phase: re.compile(pattern, re.IGNORECASE) for phase, pattern in WORDS.items()}


def split_note(name: str, values: Sequence[Hashable], index: int) -> str:
    """How one of several parts was told from the others, e.g. ``split by echo time: 2.3 ms, 1 of
    2``. ``values``: of every part, as ``Plane.splitters`` has them."""
    told = _told(name, values, index)
    place = f"{index + 1} of {len(values)}"
    return f"split by {ATTRIBUTES.get(name, name)}: {f'{told}, {place}' if told else place}"


def dixon(image_type: Iterable[str]) -> str | None:
    """``in phase``, ``out of phase``, ``water`` or ``fat``, where Image Type says so."""
    kinds = set(tuple(image_type)[2:])
    found = [word for word, names in DIXON.items() if kinds & names]
    return found[0] if len(found) == 1 else None


def contrast_phase(text: str, coded: str = "") -> str | None:
    """The contrast phase that a description names (or Contrast/Bolus Agent Phase, PS3.3
    C.8.15.3.13); ``None`` where it names none, or more than one."""
    if coded.upper() in CODED:
        return CODED[coded.upper()]
    found, text = [], text.replace("_", " ")
    for phase, pattern in PATTERNS.items():
        text, count = pattern.subn(" ", text)
        found += [phase] if count else []
    return found[0] if len(found) == 1 else None


def phase_of(plane: Plane, description: str) -> str | None:
    """See ``contrast_phase``."""
    coded = plane.splitters.get("ContrastBolusAgentPhase")
    return contrast_phase(description, str(coded[1]) if isinstance(coded, tuple) else "")


def _told(name: str, values: Sequence[Hashable], index: int) -> str:
    numbers = [value[0] if isinstance(value, tuple) else math.inf for value in values]
    value = values[index]
    if name == "ContrastBolusAgentPhase" and isinstance(value, tuple):
        return CODED.get(str(value[1]).upper(), "")
    if not math.isfinite(numbers[index]):
        return ""
    if name in CLOCKS:
        return _after(numbers, index)
    return f"{numbers[index]:g} {UNITS[name]}" if name in UNITS else ""


def _after(numbers: Sequence[float], index: int) -> str:
    """Distance to the earliest, of times as DICOM writes them: (YYYYMMDD)HHMMSS.FFFFFF."""
    days = {number // 1_000_000 for number in numbers}
    if index == 0 or len(days) > 1 or not all(map(math.isfinite, numbers)):
        return ""
    seconds = [_seconds(number % 1_000_000) for number in numbers]
    return f"{seconds[index] - min(seconds):.0f} s after the first"


def _seconds(clock: float) -> float:
    return clock // 10_000 * 3600 + clock // 100 % 100 * 60 + clock % 100
