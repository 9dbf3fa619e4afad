"""A running service and Debian's chromium, driven by playwright."""

import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from playwright.sync_api import Browser, Page, expect

from service import wiring
from service.api.app import create_app
from service.api.server import Server, bind, url_of
from service.settings import Settings

SLOW_MS = 60_000  # a bound, not an expectation: a busy machine is slow
expect.set_options(timeout=SLOW_MS)


@pytest.fixture(scope="session")
def made() -> ModuleType:
    """The makers of images and models that the service's tests share."""
    path = Path(__file__).parents[1] / "service" / "conftest.py"
    spec = importlib.util.spec_from_file_location("service_fixtures", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory, made: ModuleType) -> Settings:
    root = tmp_path_factory.mktemp("browser")
    made.make_model(root / "models" / "tiny")
    return Settings(
        state_dir=root / "state",
        models_dir=root / "models",
        default_model="tiny",
        engine="onnxruntime",
        threads=1,
        min_free_bytes=0,
        purge_free_bytes=0,
    )


@pytest.fixture(scope="session")
def url(settings: Settings) -> Iterator[str]:
    """The service, on a free loopback port."""
    with (
        wiring.embedded(settings) as container,
        bind("127.0.0.1", 0) as bound,
        _serving(Server(create_app(container), "127.0.0.1", 0), bound),
    ):
        yield url_of(bound)


@contextmanager
def _serving(server: Server, bound: object) -> Iterator[None]:
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """A fresh tab on the page; anything it complains about fails the test."""
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    page = context.new_page()
    page.set_default_timeout(SLOW_MS)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.goto(url)
    yield page
    context.close()
    unexpected = [text for text in complaints if "the server responded with a status" not in text]
    assert not unexpected
