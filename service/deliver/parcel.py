"""What one delivery has to hold, and what takes the place of what a destination refuses. No I/O."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from ..forms import Form
from ..site import OutputProfile

LABELMAPS: Final = frozenset({Form.SEG_LABELMAP, Form.SEG_LABELMAP_DEFLATED})
CHAINS: Final[Mapping[tuple[str, bool], tuple[Form, ...]]] = {
    ("binary", False): (Form.SEG,),
    ("binary", True): (Form.SEG_DEFLATED, Form.SEG),
    ("labelmap", False): (Form.SEG_LABELMAP, Form.SEG),
    ("labelmap", True): (Form.SEG_LABELMAP_DEFLATED, Form.SEG_LABELMAP, Form.SEG),
    ("none", False): (),
    ("none", True): (),
}
"""Forms of the SEG, the profile's own first; each stands in for the one before."""


class Lot(StrEnum):
    """What became of a form. ``refused``: by the destination, or it cannot be made."""

    STORED = "stored"
    CONFIRMED = "confirmed"
    REFUSED = "refused"

    @property
    def there(self) -> bool:
        return self is not Lot.REFUSED


@dataclass(frozen=True)
class Item:
    """One form of the results. ``instead_of``: what the profile asks for, where this is a
    substitute. ``confirmed_by``: the way in which the destination was asked."""

    form: Form
    lot: Lot
    objects: int
    instead_of: str | None = None
    confirmed_by: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "form": self.form.value,
            "state": self.lot.value,
            "objects": self.objects,
            "instead_of": self.instead_of,
            "confirmed_by": self.confirmed_by,
        }


class Parcel:
    """Starts from what earlier attempts wrote down; ``as_json`` is what the next one reads."""

    def __init__(self, profile: OutputProfile, sent: Iterable[Mapping[str, Any]] = ()) -> None:
        self._profile = profile
        self._chain = CHAINS[profile.seg, profile.deflate]
        self._items = {item.form: item for item in map(_item, sent)}

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items.values())

    def __contains__(self, form: Form) -> bool:
        return form in self._items

    def as_json(self) -> list[dict[str, Any]]:
        return [item.as_json() for item in self]

    def wanted(self) -> tuple[Form, ...]:
        """What is to be sent now; empty when there is no more to try. Ask again afterwards: a
        refusal calls for a substitute."""
        return tuple(form for form in dict.fromkeys(self._candidates()) if form not in self)

    def substitutes(self) -> tuple[Form, ...]:
        """Of what is wanted now: what stands in for a refused SEG."""
        return tuple(form for form in self.wanted() if self._stands_for(form) is not None)

    def unconfirmed(self) -> tuple[Form, ...]:
        return tuple(item.form for item in self if item.lot is Lot.STORED)

    def put(self, form: Form, lot: Lot, objects: int) -> None:
        self._items[form] = Item(form, lot, objects, self._stands_for(form))

    def confirm(self, forms: Iterable[Form], way: str) -> None:
        for form in forms:
            found = self._items[form]
            self._items[form] = replace(found, lot=Lot.CONFIRMED, confirmed_by=way)

    def forget(self, forms: Iterable[Form]) -> None:
        """Send these again."""
        for form in forms:
            self._items.pop(form, None)

    def lacking(self) -> tuple[str, ...]:
        """What the profile asks for and the destination has in no form. Meaningful at the end."""
        lacking = [form.value for form in self._certain() if not self._there(form)]
        if self._chain and not any(map(self._there, (*self._chain, Form.CAPTURE, Form.RTSTRUCT))):
            lacking.insert(0, "seg")
        return tuple(lacking)

    def _candidates(self) -> Iterator[Form]:
        seg = next((form for form in self._chain if self._open(form)), None)
        if seg is not None:
            yield seg
        if self._settled(seg):
            yield from self._certain()
            if self._chain and seg is None:
                yield from self._substitutes()

    def _settled(self, seg: Form | None) -> bool:
        """Whether it is known to which SEG the report has to refer."""
        return seg not in LABELMAPS or self._there(seg)

    def _certain(self) -> Iterator[Form]:
        """What goes beside the SEG, whatever becomes of it."""
        if self._profile.sr:
            refers_to_labelmap = any(self._there(form) for form in LABELMAPS)
            yield Form.SR_LABELMAP if refers_to_labelmap else Form.SR
        if self._profile.sr_viewer:
            yield Form.SR_VIEWER
        if self._profile.capture == "always":
            yield Form.CAPTURE
        if self._profile.rtstruct == "always":
            yield Form.RTSTRUCT

    def _substitutes(self) -> Iterator[Form]:
        if self._profile.capture == "fallback":
            yield Form.CAPTURE
        if self._profile.rtstruct == "fallback":
            yield Form.RTSTRUCT

    def _stands_for(self, form: Form) -> str | None:
        if not self._chain or form == self._chain[0]:
            return None
        substitute = form in self._chain or form in self._substitutes()
        return self._chain[0].value if substitute else None

    def _open(self, form: Form) -> bool:
        """Not refused."""
        return form not in self._items or self._items[form].lot.there

    def _there(self, form: Form) -> bool:
        return form in self._items and self._items[form].lot.there


def _item(plain: Mapping[str, Any]) -> Item:
    return Item(
        Form(plain["form"]),
        Lot(plain["state"]),
        int(plain["objects"]),
        plain["instead_of"],
        plain["confirmed_by"],
    )
