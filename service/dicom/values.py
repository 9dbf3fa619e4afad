"""Lenient reads of header values: what is absent, malformed or not finite is ``None`` or empty."""

import math
from functools import cache
from typing import Any

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

tag_of = cache(Tag)  # of a keyword; headers are read by hundreds, and a look-up costs as a read


def raw(dataset: Dataset, keyword: str) -> Any:
    """The value, or ``None`` where it is absent or cannot be converted."""
    return raw_at(dataset, tag_of(keyword))


def raw_at(dataset: Dataset, tag: BaseTag) -> Any:
    """The same by tag, for elements that have no keyword."""
    try:
        return dataset[tag].value if tag in dataset else None
    except Exception:  # the libraries raise nearly anything on malformed values
        return None


def has(dataset: Dataset, keyword: str) -> bool:
    return tag_of(keyword) in dataset


def text(dataset: Dataset, keyword: str) -> str:
    value = raw(dataset, keyword)
    return "" if value is None else str(value).strip().strip("\x00").strip()


def texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """A multi-valued text, upper case, empty values dropped."""
    value = raw(dataset, keyword)
    if value is None:
        return ()
    values = [value] if isinstance(value, str) else value
    try:
        return tuple(str(item).strip().upper() for item in values if str(item).strip())
    except TypeError:
        return (str(values).strip().upper(),)


def integer(dataset: Dataset, keyword: str) -> int | None:
    value = number(dataset, keyword)
    return None if value is None else int(value)


def number(dataset: Dataset, keyword: str) -> float | None:
    """The first value as a finite number."""
    value = raw(dataset, keyword)
    if isinstance(value, (str, bytes)) or not hasattr(value, "__getitem__"):
        return _finite(value)
    return _finite(value[0]) if len(value) else None


def floats(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Exactly ``count`` finite numbers, or ``None``."""
    value = raw(dataset, keyword)
    try:
        numbers = tuple(float(item) for item in value)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence."""
    value = raw(dataset, keyword)
    try:
        return [item for item in value if isinstance(item, Dataset)]
    except TypeError:
        return []


def _finite(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None
