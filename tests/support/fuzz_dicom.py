"""DICOM files as lists of elements that can be damaged in any way, and strategies that do it."""

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from hypothesis import strategies as st

LONG = frozenset({b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UR", b"UT", b"UN"})
UNDEFINED = 0xFFFFFFFF
PIXELS, SYNTAX, NESTED = 0x7FE00010, 0x00020010, 0x00081140
IMPLICIT, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"
Elements: TypeAlias = list["Element"]
Damage: TypeAlias = tuple[Any, ...]  # its kind, then what it takes


@dataclass(frozen=True)
class Element:
    """``declared``: the length that is written, where that is not the value's."""

    tag: int
    vr: bytes
    value: bytes
    declared: int | None = None

    def encoded(self, *, implicit: bool = False) -> bytes:
        head = struct.pack("<2H", self.tag >> 16, self.tag & 0xFFFF)
        length = len(self.value) if self.declared is None else self.declared
        if implicit:
            return head + struct.pack("<L", length) + self.value
        if self.vr in LONG:
            return head + self.vr + struct.pack("<HL", 0, length) + self.value
        return head + self.vr + struct.pack("<H", length & 0xFFFF) + self.value


def read_elements(data: bytes) -> Elements:
    """Of a whole file in Explicit VR Little Endian, encapsulated pixels as one value."""
    found, at = [], 132
    while at < len(data):
        group, number = struct.unpack_from("<2H", data, at)
        vr = data[at + 4 : at + 6]
        size, kind = (12, "<L") if vr in LONG else (8, "<H")
        (length,) = struct.unpack_from(kind, data, at + (8 if size == 12 else 6))
        declared = UNDEFINED if length == UNDEFINED else None
        end = len(data) if declared else at + size + length
        found.append(Element(group << 16 | number, vr, data[at + size : end], declared))
        at = end
    return found


def written(elements: Elements, encoding: str = "") -> bytes:
    """The file; ``encoding`` is the UID of the syntax that it is really in."""
    meta = b"".join(one.encoded() for one in elements if one.tag >> 16 == 2)
    implicit = encoding == IMPLICIT
    rest = b"".join(one.encoded(implicit=implicit) for one in elements if one.tag >> 16 != 2)
    if encoding == DEFLATED:
        engine = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        rest = engine.compress(rest) + engine.flush()
    return bytes(128) + b"DICM" + meta + rest


def said(elements: Elements, uid: str) -> Elements:
    """With another transfer syntax in the file meta group."""
    return _changed(elements, SYNTAX, lambda one: replace(one, value=_even(uid.encode())))


def apply(damage: Damage, elements: Elements) -> Elements:
    kind, *arguments = damage
    return KINDS[kind](elements, *arguments)


def _drop(elements: Elements, tag: int) -> Elements:
    return [one for one in elements if one.tag != tag]


def _twice(elements: Elements, tag: int) -> Elements:
    return [copy for one in elements for copy in [one] * (2 if one.tag == tag else 1)]


def _value(elements: Elements, tag: int, value: bytes) -> Elements:
    """Set, or put where it belongs."""
    if any(one.tag == tag for one in elements):
        return _changed(elements, tag, lambda one: replace(one, value=value, declared=None))
    return sorted([*elements, Element(tag, VRS.get(tag, b"UN"), value)], key=lambda one: one.tag)


def _vr(elements: Elements, tag: int, vr: bytes) -> Elements:
    return _changed(elements, tag, lambda one: replace(one, vr=vr))


def _lie(elements: Elements, tag: int, length: int) -> Elements:
    return _changed(elements, tag, lambda one: replace(one, declared=length))


def _last(elements: Elements, tag: int) -> Elements:
    """Out of order, behind the pixels."""
    return [*_drop(elements, tag), *(one for one in elements if one.tag == tag)]


def _nest(elements: Elements, tag: int, depth: int, closed: bool) -> Elements:
    """Sequences in sequences, with or without their ends."""
    head = struct.pack("<2H", tag >> 16, tag & 0xFFFF) + b"SQ" + struct.pack("<HL", 0, UNDEFINED)
    item = struct.pack("<2HL", 0xFFFE, 0xE000, UNDEFINED)
    ends = struct.pack("<4H", 0xFFFE, 0xE00D, 0, 0) + struct.pack("<4H", 0xFFFE, 0xE0DD, 0, 0)
    inner = item + (head + item) * depth + (ends * (depth + 1) if closed else b"")
    nested = Element(tag, b"SQ", inner, UNDEFINED)
    return sorted([*_drop(elements, tag), nested], key=lambda one: one.tag)


def _private(elements: Elements, group: int, vr: bytes, value: bytes) -> Elements:
    made = [Element(group << 16 | 0x10, b"LO", b"SIEMENS MR HEADER "),
            Element(group << 16 | 0x100C, vr, value)]  # fmt: skip
    return sorted([*elements, *made], key=lambda one: one.tag)


def _cut(elements: Elements, share: float) -> Elements:
    """Pixels that end early."""
    return _changed(
        elements, PIXELS, lambda one: replace(one, value=one.value[: int(share * len(one.value))])
    )


def _garbage(elements: Elements, fragments: Sequence[bytes], ended: bool) -> Elements:
    """Fragments of nothing that a codec knows, in an encapsulated pixel element."""
    items = b"".join(struct.pack("<2HL", 0xFFFE, 0xE000, len(one)) + one for one in fragments)
    end = struct.pack("<2HL", 0xFFFE, 0xE0DD, 0) if ended else b""
    made = replace(Element(PIXELS, b"OB", items + end), declared=UNDEFINED)
    return _changed(elements, PIXELS, lambda _: made)


def _hit(elements: Elements, tag: int, place: float, garbage: bytes) -> Elements:
    """Overwritten somewhere in a value."""

    def change(one: Element) -> Element:
        at = int(place * len(one.value))
        return replace(one, value=one.value[:at] + garbage + one.value[at + len(garbage) :])

    return _changed(elements, tag, change)


def _changed(elements: Elements, tag: int, change: Callable[[Element], Element]) -> Elements:
    return [change(one) if one.tag == tag else one for one in elements]


def _even(value: bytes) -> bytes:
    return value + b"\x00" * (len(value) % 2)


KINDS: Mapping[str, Callable[..., Elements]] = {
    "drop": _drop, "twice": _twice, "value": _value, "vr": _vr, "lie": _lie, "last": _last,
    "nest": _nest, "private": _private, "cut": _cut, "garbage": _garbage, "hit": _hit,
    "syntax": said,
}  # fmt: skip
_US, _DS, _IS = b"US", b"DS", b"IS"
VRS: Mapping[int, bytes] = {
    0x00080005: b"CS", 0x00080008: b"CS", 0x00080016: b"UI", 0x00080018: b"UI",
    0x00080020: b"DA", 0x00080022: b"DA", 0x00080030: b"TM", 0x00080032: b"TM",
    0x0008002A: b"DT", 0x00080050: b"SH", 0x00080060: b"CS", 0x00080070: b"LO",
    0x00080080: b"LO", 0x00080090: b"PN", 0x0008103E: b"LO", 0x00081140: b"SQ",
    0x00100010: b"PN", 0x00100020: b"LO", 0x00100030: b"DA", 0x00100040: b"CS",
    0x00101010: b"AS", 0x00101030: _DS, 0x00180015: b"CS", 0x00180020: b"CS",
    0x00180050: _DS, 0x00180081: _DS, 0x00180086: _IS, 0x00180087: _DS, 0x00180088: _DS,
    0x00181060: _DS, 0x00185100: b"CS", 0x00189087: b"FD", 0x0020000D: b"UI",
    0x0020000E: b"UI", 0x00200010: b"SH", 0x00200011: _IS, 0x00200012: _IS, 0x00200013: _IS,
    0x00200032: _DS, 0x00200037: _DS, 0x00200052: b"UI", 0x00200100: _IS, 0x00209161: b"UI",
    0x00209162: _US, 0x00280002: _US, 0x00280004: b"CS", 0x00280008: _IS, 0x00280010: _US,
    0x00280011: _US, 0x00280030: _DS, 0x00280100: _US, 0x00280101: _US, 0x00280102: _US,
    0x00280103: _US, 0x00280120: b"SS", 0x00280121: b"SS", 0x00281050: _DS, 0x00281051: _DS,
    0x00281052: _DS, 0x00281053: _DS, 0x52009229: b"SQ", 0x52009230: b"SQ", PIXELS: b"OW",
}  # fmt: skip
SYNTAXES = (
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.95", "1.2.3.4", "", "x" * 300,
)  # fmt: skip
TEXTS = (
    b"", b"NaN", b"NaN\\NaN\\NaN", b"inf\\0\\0", b"-inf", b"1e308", b"1e308\\1e308\\1e308",
    b"1e400", b"1e-308", b"-1", b"0", b"0\\0\\0", b"0\\0\\0\\0\\0\\0", b"1\\0\\0\\1\\0\\0",
    b"0\\1\\0\\0\\0\\-1", b"1e9\\1e9", b"0.001\\0.001", b"49\\49", b"1e-9\\1e-9", b"\\\\\\\\",
    b"1,5", b"9" * 400, b"1" * 70 + b".", b"1.2..3", b"1.02.3", b"..", b"*", b"\xff\xfe\x00\x00",
    b"M\xfcller^J\xfcrg", b"\x1b$B;3ED\x1b(B^\x1b$B", b"ISO 2022 IR 87", b"ISO_IR 192",
    b"\\ISO 2022 IR 149", b"GB18030", b"nonsense", b"\x00" * 8, b"A" * 5000, b"=^=^=",
    b"99999999", b"20260230", b"256199", b"999Y", b"CT", b"MR", b"SEG", b"LOCALIZER", b"RGB",
    b"1.2.840.10008.5.1.4.1.1.66.4", b"1.2.840.10008.5.1.4.1.1.2.1", b"\xe2\x80\xae", b"\r\n\t",
)  # fmt: skip
NUMBERS = (0, 1, 2, 3, 7, 8, 12, 15, 16, 17, 31, 32, 63, 64, 255, 256, 40000, 65535)

_tags = st.sampled_from(sorted(VRS))
_numeric = sorted(tag for tag, vr in VRS.items() if vr == _US)
_decimal = sorted(tag for tag, vr in VRS.items() if vr in (_DS, _IS))
_lengths = st.sampled_from((0, 1, 3, 255, 65534, 65535, 2**31, 2**32 - 2, UNDEFINED))
_values = st.sampled_from(TEXTS) | st.binary(max_size=24)
damages: st.SearchStrategy[Damage] = st.one_of(
    st.tuples(st.just("value"), st.sampled_from(_numeric),
              st.sampled_from(NUMBERS).map(lambda number: struct.pack("<H", number))),
    st.tuples(st.just("value"), st.sampled_from(_decimal), st.sampled_from(TEXTS)),
    st.tuples(st.just("value"), _tags, _values),
    st.tuples(st.just("drop"), _tags),
    st.tuples(st.just("twice"), _tags),
    st.tuples(st.just("last"), _tags),
    st.tuples(st.just("vr"), _tags, st.sampled_from((*sorted(LONG), *sorted(set(VRS.values())),
                                                     b"\x00\x00", b"ZZ", b"AT", b"SV"))),
    st.tuples(st.just("lie"), _tags, _lengths),
    st.tuples(st.just("nest"), st.sampled_from((NESTED, 0x52009229, 0x52009230, 0x00091001)),
              st.sampled_from((1, 40, 900, 4000)), st.booleans()),
    st.tuples(st.just("private"), st.sampled_from((0x0009, 0x0019, 0x0043)),
              st.sampled_from((b"UN", b"IS", b"SQ", b"OB")), _values),
    st.tuples(st.just("cut"), st.floats(0, 1)),
    st.tuples(st.just("garbage"), st.lists(st.binary(max_size=64), max_size=5), st.booleans()),
    st.tuples(st.just("hit"), _tags | st.just(PIXELS), st.floats(0, 1), st.binary(max_size=8)),
    st.tuples(st.just("syntax"), st.sampled_from(SYNTAXES)),
)  # fmt: skip
places = st.sampled_from(("all", "all", "first", "last", "odd"))


def damaged(
    files: Sequence[Elements], hits: Sequence[tuple[str, Damage]], encoding: str
) -> Iterator[bytes]:
    """The files of a series with damage in all, some or one of them."""
    for number, elements in enumerate(files):
        changed = said(elements, encoding) if encoding else elements
        for place, damage in hits:
            if _meant(place, number, len(files)):
                changed = apply(damage, changed)
        yield written(changed, encoding)


def _meant(place: str, number: int, count: int) -> bool:
    return {
        "all": True, "first": number == 0, "last": number == count - 1, "odd": number % 2 == 1
    }[place]  # fmt: skip
