"""What a delivery holds: for every profile, against destinations that refuse this and that."""

from collections.abc import Collection

import pytest

from service.deliver.parcel import Lot, Parcel
from service.forms import Form
from service.site import OutputProfile

SEGS = {form for form in Form if form.value.startswith("seg")}


def profile(**words: object) -> OutputProfile:
    return OutputProfile.model_validate(words)


def delivered(wanted: OutputProfile, refused: Collection[Form] = ()) -> Parcel:
    """The parcel after everything that it asked for was tried, written down between any two."""
    parcel = Parcel(wanted)
    for _ in range(10):
        parcel = Parcel(wanted, parcel.as_json())
        forms = parcel.wanted()
        if not forms:
            return parcel
        for form in forms:
            parcel.put(form, Lot.REFUSED if form in refused else Lot.STORED, 1)
    raise AssertionError("it never ends")


def stored(parcel: Parcel) -> list[str]:
    return [item.form.value for item in parcel if item.lot.there]


def substitutes(parcel: Parcel) -> dict[str, str]:
    return {item.form.value: item.instead_of for item in parcel if item.instead_of}


@pytest.mark.parametrize(
    ("words", "refused", "expected", "instead"),
    [
        ({}, (), ["seg", "sr"], {}),
        ({"sr": False}, (), ["seg"], {}),
        ({"deflate": True}, (), ["seg_deflated", "sr"], {}),
        ({"deflate": True}, [Form.SEG_DEFLATED], ["sr", "seg"], {"seg": "seg_deflated"}),
        ({"seg": "labelmap"}, (), ["seg_labelmap", "sr_labelmap"], {}),
        ({"seg": "labelmap"}, [Form.SEG_LABELMAP], ["seg", "sr"], {"seg": "seg_labelmap"}),
        (
            {"seg": "labelmap", "deflate": True},
            [Form.SEG_LABELMAP_DEFLATED],
            ["seg_labelmap", "sr_labelmap"],
            {"seg_labelmap": "seg_labelmap_deflated"},
        ),
        ({}, SEGS, ["sr", "capture"], {"capture": "seg"}),
        (
            {"seg": "labelmap", "deflate": True},
            SEGS,
            ["sr", "capture"],
            {"capture": "seg_labelmap_deflated"},
        ),
        (
            {"rtstruct": "fallback"},
            SEGS,
            ["sr", "capture", "rtstruct"],
            {"capture": "seg", "rtstruct": "seg"},
        ),
        ({"rtstruct": "fallback"}, [*SEGS, Form.CAPTURE], ["sr", "rtstruct"], {"rtstruct": "seg"}),
        ({"capture": "always", "rtstruct": "always"}, (), ["seg", "sr", "capture", "rtstruct"], {}),
        ({"capture": "always"}, SEGS, ["sr", "capture"], {}),
        ({"seg": "none"}, (), ["sr"], {}),
        ({"sr_viewer": True}, (), ["seg", "sr", "sr_viewer"], {}),
        ({"sr_viewer": True, "sr": False}, SEGS, ["sr_viewer", "capture"], {"capture": "seg"}),
        (
            {"seg": "labelmap", "sr_viewer": True},
            (),
            ["seg_labelmap", "sr_labelmap", "sr_viewer"],
            {},
        ),
        ({"seg": "none", "capture": "always", "sr": False}, (), ["capture"], {}),
    ],
)
def test_what_is_stored_in_the_end(
    words: dict[str, object],
    refused: Collection[Form],
    expected: list[str],
    instead: dict[str, str],
) -> None:
    parcel = delivered(profile(**words), refused)
    assert sorted(stored(parcel)) == sorted(expected)
    assert {form: was for form, was in substitutes(parcel).items() if form in expected} == instead


@pytest.mark.parametrize(
    ("words", "refused", "lacking"),
    [
        ({}, (), ()),
        ({}, SEGS, ()),
        ({"capture": "never"}, SEGS, ("seg",)),
        ({}, [*SEGS, Form.CAPTURE], ("seg",)),
        ({"capture": "always"}, SEGS, ()),
        ({}, [Form.SR], ("sr",)),
        ({"capture": "always"}, [Form.CAPTURE], ("capture",)),
        ({"rtstruct": "always"}, [Form.RTSTRUCT], ("rtstruct",)),
        ({"rtstruct": "fallback"}, [*SEGS, Form.RTSTRUCT], ()),
        ({"seg": "labelmap"}, [Form.SR_LABELMAP], ("sr_labelmap",)),
        ({"sr_viewer": True}, [Form.SR_VIEWER], ("sr_viewer",)),
    ],
)
def test_what_is_lacking(
    words: dict[str, object], refused: Collection[Form], lacking: tuple[str, ...]
) -> None:
    assert delivered(profile(**words), refused).lacking() == lacking


def test_a_report_waits_for_the_fate_of_the_label_map() -> None:
    parcel = Parcel(profile(seg="labelmap"))
    assert parcel.wanted() == (Form.SEG_LABELMAP,)
    assert Parcel(profile()).wanted() == (Form.SEG, Form.SR), "one association for both"


def test_nothing_is_asked_for() -> None:
    parcel = Parcel(profile(seg="none", sr=False))
    assert parcel.wanted() == ()
    assert list(parcel) == []


def test_forgotten_is_sent_again_in_the_form_that_was_taken() -> None:
    parcel = delivered(profile(seg="labelmap"), [Form.SEG_LABELMAP])
    assert set(parcel.unconfirmed()) == {Form.SEG, Form.SR}
    parcel.confirm([Form.SR], "qido")
    parcel.forget([Form.SEG])
    assert parcel.wanted() == (Form.SEG,)
    parcel.put(Form.SEG, Lot.STORED, 1)
    assert parcel.unconfirmed() == (Form.SEG,)
    assert parcel.wanted() == ()
    assert {item.confirmed_by for item in parcel} == {None, "qido"}
