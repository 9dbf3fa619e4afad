"""What tests of several packages share: real data, a real browser."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("reliability", "chaos, load, fuzz and viewer (docs/reliability.md)")
    group.addoption("--full", action="store_true", help="at the size of the published figures")
    group.addoption("--figures", type=Path, metavar="FOLDER", help="write what was measured there")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real cases: ``AQCF_DATA``, by default ``../shared/data`` beside the checkout.

    The test is skipped where it is absent.
    """
    folder = Path(os.environ.get("AQCF_DATA", BESIDE))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set AQCF_DATA")
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """Debian's chromium. One for the session: playwright's loop runs once in a thread."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    if not CHROMIUM.is_file():
        pytest.fail(f"{CHROMIUM} is missing: apt-get install -y chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()
