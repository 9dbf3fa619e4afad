"""The page in a real browser: send, follow, look, delete."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect


@pytest.fixture
def nifti(made: Any, tmp_path: Path) -> Path:
    file: Path = made.make_nifti(tmp_path / "Canary_Name.nii.gz")
    return file


def send(page: Page, *files: Path) -> None:
    page.set_input_files("#files", [str(file) for file in files])
    page.get_by_role("button", name="Segment", exact=True).click()


def test_a_zip_goes_all_the_way(page: Page, made: Any, tmp_path: Path) -> None:
    files = made.write_series(tmp_path / "series", made.phantom(seed=7))
    archive = made.make_zip(tmp_path / "ct.zip", {file.name: file for file in files})
    expect(page.locator("#ready")).to_have_text("Ready")
    expect(page.locator(".ruo")).to_contain_text("Research use only")
    send(page, archive)

    result = page.locator("#result")
    expect(result.locator(".chip").first).to_have_text("Lesion found")
    expect(result.get_by_text("Measurements", exact=True)).to_be_visible()
    expect(result.locator("table").first.locator("tbody tr")).to_have_count(1)
    expect(result.get_by_text("Series that were looked at")).to_be_visible()
    expect(result.get_by_text("Chosen")).to_be_visible()
    expect(page.locator("#jobs button[aria-current=true] .chip")).to_have_text("Lesion found")
    with page.expect_download() as download:
        result.get_by_role("link", name="Mask (NIfTI)").click()
    assert re.fullmatch(r"[0-9a-f]{8}-mask\.nii\.gz", download.value.suggested_filename)


def test_viewer_by_keyboard_slider_and_lesion(page: Page, nifti: Path) -> None:
    send(page, nifti)
    place, picture = page.locator(".corner.tl"), page.locator("#stage img")
    expect(place).to_have_text("11 / 24")  # the first slice of the tumour
    expect(picture).to_have_attribute("alt", re.compile("slice 11 of 24, mask shown"))
    assert picture.evaluate("image => image.naturalWidth") > 300
    shown = picture.get_attribute("src")

    page.locator("#stage").focus()
    page.keyboard.press("o")
    expect(picture).to_have_attribute("alt", re.compile("mask hidden"))
    expect(page.locator("#overlay")).not_to_be_checked()
    assert picture.get_attribute("src") != shown
    page.keyboard.press("ArrowUp")
    expect(place).to_have_text("12 / 24")
    page.keyboard.press("End")
    expect(place).to_have_text("24 / 24")
    page.keyboard.press("ArrowRight")
    expect(place).to_have_text("24 / 24")
    page.locator("#slice").fill("2")
    expect(place).to_have_text("3 / 24")
    page.get_by_role("button", name="Show lesion 1").click()
    expect(place).to_have_text("13 / 24")
    page.locator(".controls label", has_text="Coronal").click()
    expect(page.locator(".corner.tr")).to_have_text("Coronal")
    expect(picture).to_have_attribute("alt", re.compile("Coronal slice"))


def test_a_refused_upload_shows_code_and_receipt(page: Page, made: Any, tmp_path: Path) -> None:
    files = made.write_series(tmp_path / "one", made.phantom()[:1])
    send(page, *files)
    problem = page.locator("#problem .notice")
    expect(problem.locator("code")).to_have_text("too_few_slices")
    expect(problem.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_role("button", name="Segment", exact=True)).to_be_enabled()


def test_no_file_name_is_sent(page: Page, nifti: Path) -> None:
    with page.expect_request(lambda request: request.method == "POST") as sent:
        send(page, nifti)
    assert "modality=ct" in sent.value.url
    assert b"Canary" not in (sent.value.post_data_buffer or b"")
    expect(page.locator("#stage")).to_be_visible()


def test_delete_forgets(page: Page, nifti: Path) -> None:
    send(page, nifti)
    expect(page.locator("#stage")).to_be_visible()
    before = page.locator("#jobs li").count()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.locator("#jobs li")).to_have_count(before - 1)


def test_modality_and_profile_reach_the_service(page: Page, nifti: Path) -> None:
    page.locator("label", has_text="MR").click()
    page.locator("#profile").select_option("paper")
    send(page, nifti)
    expect(page.locator("#result h2")).to_contain_text("MR")
    expect(page.locator("#result .meta").first).to_contain_text("profile paper")


@pytest.mark.parametrize("width", [360, 800])
def test_small_screens_do_not_scroll_sideways(page: Page, nifti: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    send(page, nifti)
    expect(page.locator("#stage")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
