"""The whole report: as a page in a real browser, as Markdown, as data."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from playwright.sync_api import Browser, Page
from study_folder import EVIL, NAME

from training.report import write_report

CAPTIONS = [
    f"Table 2. CT of {NAME}", f"Table 3. MR of {NAME}", "Table 4. CT of 3D-IRCADb",
    "Table 5. MR of LiverHccSeg", "Table 6. Median", "Table 7. Mean DSC",
]  # fmt: skip
PICTURES = {
    "boxes.png", "curves.png", "curves_no_gate.png", "curves_no_quaternions.png",
    "curves_dynunet.png", "curves_unetr.png", "overlays_ct.png", "overlays_mr.png",
}  # fmt: skip


@dataclass(frozen=True)
class Opened:
    page: Page
    complaints: list[str]
    requested: list[str]


@pytest.fixture(scope="module")
def report(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(folder, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def opened(browser: Browser, report: Path) -> Iterator[Opened]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []
    requested: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text))
    page.on("request", lambda request: requested.append(request.url))
    page.goto(report.as_uri())
    yield Opened(page, complaints, requested)
    page.close()


def test_nothing_is_complained_about_or_fetched(opened: Opened) -> None:
    assert opened.complaints == []
    assert all(url.startswith("file://") for url in opened.requested)


def test_the_papers_tables_are_there_and_filled(opened: Opened) -> None:
    captions = opened.page.locator("caption").all_inner_texts()
    for start in CAPTIONS:
        assert any(caption.startswith(start) for caption in captions), start
        table = opened.page.locator("table", has=opened.page.locator(f"caption:text({start!r})"))
        cells = table.first.locator("tbody tr:first-child td").all_inner_texts()
        assert cells
        assert re.match(r"\d", cells[0])
    heads = opened.page.locator("table", has_text="Table 2").first.locator("thead tr")
    assert heads.nth(0).locator("th").all_inner_texts() == [
        "Dice (%) ↑", "HD95 (mm) ↓", "MSD (mm) ↓"
    ]  # fmt: skip
    assert heads.nth(1).locator("th").all_inner_texts() == ["Model", *["Liver", "Tumour"] * 3]


def test_pictures_load(opened: Opened) -> None:
    widths = opened.page.locator("img").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert len(widths) == len(PICTURES)
    assert min(widths) > 300


def test_names_are_text_and_not_markup(opened: Opened) -> None:
    assert opened.page.evaluate("window.hurt") is None
    assert opened.page.locator("main script, main b").count() == 0
    assert opened.page.locator("h1").inner_text() == f"Study {NAME}"
    assert opened.page.locator("tbody th", has_text=EVIL).count() > 0


def test_links_of_the_contents_lead_somewhere(opened: Opened) -> None:
    targets = opened.page.locator("nav a").evaluate_all("all => all.map(one => one.hash)")
    assert len(targets) > 8
    assert len(set(targets)) == len(targets)
    for target in targets:
        assert opened.page.locator(f"h2{target}").count() == 1


def test_a_phone_scrolls_tables_and_not_the_page(browser: Browser, report: Path) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme="dark")
    page.goto(report.as_uri())
    page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    wide = page.locator(".scroll").first
    assert wide.evaluate("one => one.scrollWidth > one.clientWidth")
    dark = page.locator("body").evaluate("one => getComputedStyle(one).backgroundColor")
    page.emulate_media(color_scheme="light")
    assert page.locator("body").evaluate("one => getComputedStyle(one).backgroundColor") != dark
    page.close()


class _Tables(HTMLParser):
    """The number of cells of each row of each table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[int]] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append(0)
        elif tag in ("td", "th"):
            self.tables[-1][-1] += 1


def test_markdown_renders_to_the_same_tables(report: Path) -> None:
    text = report.with_name("report.md").read_text("utf-8")
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    seen = _Tables(html)
    assert len(seen.tables) == len(_Tables(report.read_text("utf-8")).tables)
    for rows in seen.tables:
        assert len(rows) > 1
        assert len(set(rows)) == 1, rows
    assert not seen.tags & {"script", "b", "i"}
    assert "<strong>90.0 ± 5.0</strong>" in html
    assert "&lt;script&gt;window.hurt = 1&lt;/script&gt; | *x* $y$" in html
    for name in re.findall(r'<img src="([^"]+)"', html):
        assert (report.parent / name).is_file()


def test_data_holds_the_numbers(report: Path) -> None:
    found = json.loads(report.with_name("report.json").read_text("utf-8"))
    liver = found["comparison"]["ct"]["full"]["liver_dice"]
    assert liver["folds"]["mean"] == pytest.approx(0.9)
    assert liver["folds"]["sd"] == pytest.approx(0.05)
    assert liver["folds"]["values"] == pytest.approx({"0": 0.85, "1": 0.95, "2": 0.9})
    assert liver["cases"]["mean"] == pytest.approx(0.8875)
    assert found["comparison"]["mr"]["full"]["tumour_dice"]["folds"] is None
    assert found["external"]["ct"]["3D-IRCADb"]["full"]["liver_dice"]["folds"]["count"] == 3
    assert found["ablations"]["no_quaternions"]["percent"] == pytest.approx(-50)
    assert found["ablations"]["exchange_dropout"] is None
    assert found["gates"][0]["mr_to_ct"] == pytest.approx([0.3, 0.4, 0.5])
    assert len(found["cases"]["full"]) == 7
    first = found["statistics"][0]
    assert (first["against"], first["modality"]) == ("baselines", "ct")
    assert first["comparisons"][0]["cases"]["p"] == pytest.approx(0.125)


def test_nothing_names_a_place_of_this_machine(report: Path, folder: Path) -> None:
    for file in report.parent.iterdir():
        if file.is_file():
            text = file.read_text("utf-8")
            assert str(folder.parent) not in text
            assert "/home/me" not in text


def test_pictures_are_those_of_this_report(report: Path) -> None:
    assert {file.name for file in (report.parent / "pictures").iterdir()} == PICTURES


def test_an_earlier_picture_is_removed(make_plan: Callable[..., Path], tmp_path: Path) -> None:
    """It may show a case whose licence forbids it."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("overlays_ct.png", "curves_old.png", "boxes.png", "mine.png"):
        (pictures / name).write_bytes(b"old")
    write_report(make_plan(tmp_path / "new"), tmp_path, publishable=True)
    assert [file.name for file in pictures.iterdir()] == ["mine.png"]


def test_an_empty_study_is_a_page_of_what_is_missing(
    make_plan: Callable[..., Path], tmp_path: Path, browser: Browser
) -> None:
    made = write_report(make_plan(tmp_path / "new"), None)
    assert made == tmp_path / "new" / "report" / "index.html"
    page = browser.new_page()
    page.goto(made.as_uri())
    assert page.locator("img").count() == 0
    assert page.locator("p.missing").count() >= 8
    assert "aqcf-train crossval CONFIG --study …/new" in page.locator("pre").all_inner_texts()
    page.close()
