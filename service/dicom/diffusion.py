"""b-values that older scanners keep in private elements only."""

from typing import Any

from pydicom.dataset import Dataset
from pydicom.tag import Tag

from .values import raw_at

# Private creator, the element that names it, and the element that holds the b-value (IS).
KEPT = (
    ("SIEMENS MR HEADER", Tag(0x00190010), Tag(0x0019100C)),
    ("GEMS_PARM_01", Tag(0x00430010), Tag(0x00431039)),
)
PRIVATE_TAGS = tuple(tag for _, *tags in KEPT for tag in tags)
GE_OFFSET = 1_000_000_000  # added by GE to the b-values of some sequences


def private_b_value(dataset: Dataset) -> float | None:
    """s/mm2, ``None`` where no known private element tells."""
    for creator, named, held in KEPT:
        if str(raw_at(dataset, named) or "").strip() == creator:
            value = _first_number(raw_at(dataset, held))
            if value is not None:
                return value % GE_OFFSET
    return None


def _first_number(value: Any) -> float | None:
    """Of a number, several, or the raw bytes of an element whose VR nobody knew."""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    try:
        return abs(float(text.strip(" []\x00").replace("\\", ",").split(",")[0]))
    except ValueError:
        return None
