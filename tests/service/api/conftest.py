"""The real application on a real socket, with running workers and a model of a few voxels."""

import importlib.util
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from service import wiring
from service.api.app import create_app
from service.api.server import Server, bind, url_of
from service.container import Container
from service.settings import Settings


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("service_fixtures", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Live:
    """A running service and a client of it."""

    container: Container
    http: httpx.Client
    stop: Callable[[], None]

    def post(self, data: bytes, kind: str = "application/zip", **options: Any) -> httpx.Response:
        query = {"modality": "ct"} | options.pop("params", {})
        headers = {"Content-Type": kind} | options.pop("headers", {})
        return self.http.post(
            "/v1/segmentations", params=query, content=data, headers=headers, **options
        )

    def done(self, data: bytes, **options: Any) -> dict[str, Any]:
        """Submit and wait for the end."""
        headers = {"Prefer": "wait=60"} | options.pop("headers", {})
        response = self.post(data, headers=headers, **options)
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    def problem(self, response: httpx.Response, status: int, code: str) -> dict[str, Any]:
        """Check the shape of a problem and hand it out."""
        assert response.headers["content-type"] == "application/problem+json", response.text
        body: dict[str, Any] = response.json()
        assert (response.status_code, body["code"]) == (status, code), body
        assert body["status"] == status
        assert body["type"] == f"urn:aqcf:problem:{code}"
        assert body["title"]
        assert body["detail"]
        return body


@contextmanager
def running(container: Container) -> Iterator[Live]:
    """Serve a container on a free loopback port."""
    server = Server(create_app(container), "127.0.0.1", 0)
    with bind("127.0.0.1", 0) as bound:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()

        def stop() -> None:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()

        try:
            with httpx.Client(base_url=url_of(bound), timeout=60) as http:
                yield Live(container, http, stop)
        finally:
            stop()


@pytest.fixture(scope="session")
def made() -> ModuleType:
    """The makers of images and models that the service's tests share."""
    return _module(Path(__file__).parents[1] / "conftest.py")


@pytest.fixture
def start() -> Callable[[Container], Any]:
    return running


@pytest.fixture
def live(settings: Settings) -> Iterator[Live]:
    """A service of its own, with workers."""
    with wiring.embedded(settings) as container, running(container) as service:
        yield service


@pytest.fixture
def idle(container: Container) -> Iterator[Live]:
    """A service without workers: what is submitted stays queued."""
    with running(container) as service:
        yield service


@pytest.fixture(scope="module")
def shared(made: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A service without workers for requests that leave nothing behind."""
    root = tmp_path_factory.mktemp("shared")
    made.make_model(root / "models" / "tiny")
    settings = Settings(
        state_dir=root / "state",
        models_dir=root / "models",
        default_model="tiny",
        min_free_bytes=0,
        max_upload_bytes=64 * 1024**2,
        max_files=500,
    )
    container = wiring.build(settings)
    with running(container) as service:
        yield service
    container.database.close()
