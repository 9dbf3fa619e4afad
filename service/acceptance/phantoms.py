"""The set of phantoms: each is a way in which real series differ."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, TypeAlias

from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from model.errors import InputError
from model.types import Modality

from ..domain import Outcome
from .shape import Content, Scene, scene
from .stack import CORONAL, FEET_FIRST, OBLIQUE, Stack

Kind: TypeAlias = Literal["slices", "multi-frame"]

WHOLE = Content()
PLAIN = Stack((48, 64, 80), (2.0, 2.0, 2.0))  # the grid of the acceptance model: nothing moves


@dataclass(frozen=True)
class Phantom:
    """One series. ``edge_mm``: voxels nearer than this to a surface may fall on either side of it
    and are not compared, because resampling moves an edge by that much; less than half of the
    smallest voxel side, so that a shift by one voxel shows. ``optional``: an archive need not take
    it. ``descending``: instance numbers run against the slice normal."""

    name: str
    what: str
    stack: Stack
    modality: Modality = "ct"
    content: Content = WHOLE
    outcome: Outcome = Outcome.LESION_FOUND
    edge_mm: float = 0.5
    kind: Kind = "slices"
    syntax: str = ExplicitVRLittleEndian
    position: str = "HFS"
    descending: bool = False
    optional: bool = False

    @cached_property
    def scene(self) -> Scene:
        return scene(self.stack, self.content, air=self.modality == "ct")


CATALOGUE: Final = (
    Phantom("ct-axial", "CT, axial slices", PLAIN, edge_mm=0.0),
    Phantom(
        "ct-feet-first",
        "CT, feet first, images numbered from the head down",
        Stack((48, 64, 80), (2.0, 2.0, 2.0), FEET_FIRST),
        edge_mm=0.0,
        position="FFS",
        descending=True,
    ),
    Phantom("ct-tilted", "CT, gantry tilted by 18 degrees",
            Stack((42, 64, 68), (2.5, 2.4, 2.2), tilt=18.0)),
    Phantom(
        "ct-thick",
        "CT, 5 mm slices, uneven: wider apart in the second half",
        Stack((24, 60, 68), (5.0, 2.4, 2.2), gaps_mm=(4.0,) * 12 + (5.0,) * 11),
        edge_mm=1.0,
    ),
    Phantom("ct-enhanced", "enhanced CT, all slices in one multi-frame image", PLAIN,
            edge_mm=0.0, kind="multi-frame", optional=True),
    Phantom("ct-compressed", "CT, JPEG 2000 lossless", PLAIN,
            edge_mm=0.0, syntax=JPEG2000Lossless, optional=True),
    Phantom("mr-axial", "MR, axial slices", PLAIN, modality="mr", edge_mm=0.0),
    Phantom("mr-coronal", "MR, coronal slices",
            Stack((64, 48, 80), (2.0, 2.0, 2.0), CORONAL), modality="mr", edge_mm=0.0),
    Phantom("mr-oblique", "MR, double oblique slices",
            Stack((44, 60, 68), (2.5, 2.4, 2.2), OBLIQUE), modality="mr"),
    Phantom("ct-no-lesion", "CT with a liver and no tumour", PLAIN,
            content=Content(tumour=False), outcome=Outcome.NO_LESION, edge_mm=0.0),
    Phantom("ct-no-liver", "CT without a liver", PLAIN,
            content=Content(liver=False, tumour=False), outcome=Outcome.NOT_EVALUABLE,
            edge_mm=0.0),
)  # fmt: skip


def chosen(names: Iterable[str]) -> tuple[Phantom, ...]:
    """Those of these names, all without any. Raises ``InputError`` (``unknown_phantom``)."""
    wanted = tuple(names)
    known = [phantom.name for phantom in CATALOGUE]
    if unknown := [name for name in wanted if name not in known]:
        raise InputError(
            f"there is no phantom {unknown[0]!r}; there are: {', '.join(known)}",
            code="unknown_phantom",
        )
    return tuple(one for one in CATALOGUE if not wanted or one.name in wanted)
