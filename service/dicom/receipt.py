"""The receipt: one line for every series found and for every kind of file refused."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

ReceiptStatus: TypeAlias = Literal["chosen", "usable", "rejected", "set_aside"]


@dataclass(frozen=True)
class ReceiptLine:
    """What became of one series. ``description`` is the client's own text: shown to the client,
    never logged. ``spacing_mm``: (z, y, x). ``code`` and ``reason`` say why it was not used."""

    key: str
    modality: str
    images: int
    rows: int | None
    columns: int | None
    spacing_mm: tuple[float, float, float] | None
    description: str
    status: ReceiptStatus
    code: str | None = None
    reason: str | None = None
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The line as JSON types."""
        line = asdict(self)
        line["notes"] = list(self.notes)
        line["spacing_mm"] = list(self.spacing_mm) if self.spacing_mm else None
        return line
