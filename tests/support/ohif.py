"""The OHIF viewer of a PACS, in a real browser: what it makes of a segmentation.

Ready-built from npm (``@ohif/app``), fetched once into the user's cache folder.
"""

import base64
import hashlib
import json
import mimetypes
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from playwright.sync_api import Browser, ConsoleMessage, Page, Request
from playwright.sync_api import Error as BrowserError
from servers import OrthancServer
from web_peers import Answer, Asked, answering

VERSION = "3.13.2"
# of npm's "integrity"
SHA512 = "WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
INSIDE = "package/dist/"
LEFT_OUT = (f"{INSIDE}ort/", f"{INSIDE}dicom-microscopy-viewer/")  # two thirds, for other jobs
FETCH_S = 180
PATIENCE_MS = 120_000  # a bound, not an expectation: a busy machine is slow
LOOKS = 4
SIZE = {"width": 1280, "height": 800}


Seen = TypeVar("Seen")


class OhifMissingError(Exception):
    """The package cannot be had here; the message says why."""


def provide() -> Path:
    """The folder of the built viewer. Raises ``OhifMissingError`` without npm or its registry, and
    ``ValueError`` when the package is not the pinned one."""
    folder = _cache() / f"ohif-{VERSION}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            unpacked = _unpack(_fetch(Path(work)), Path(work))
            if not folder.is_dir():  # another run may have been quicker
                unpacked.rename(folder)
    return folder


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "aqcf-tests"


def _fetch(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise OhifMissingError("the viewer comes from npm, which is missing: apt-get install npm")
    package = f"@ohif/app@{VERSION}"
    quick = ["--loglevel=error", "--fetch-retries=1"]
    command = [npm, "pack", package, *quick, "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=FETCH_S, check=False)
    except subprocess.TimeoutExpired:
        raise OhifMissingError(f"npm does not bring {package} in {FETCH_S} s") from None
    if done.returncode:
        why = done.stderr.decode().partition("\n")[0]
        raise OhifMissingError(f"npm cannot bring {package}: {why}")
    (archive,) = folder.glob("*.tgz")
    return archive


def _unpack(archive: Path, folder: Path) -> Path:
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != SHA512:
        raise ValueError(f"{archive.name}, sha512-{found}, is not the pinned package")
    with tarfile.open(archive) as tar:
        wanted = [
            one
            for one in tar.getmembers()
            if one.name.startswith(INSIDE) and not one.name.startswith(LEFT_OUT)
        ]
        tar.extractall(folder, wanted, filter="data")
    return folder / INSIDE


@contextmanager
def serving(built: Path, pacs: OrthancServer) -> Iterator[str]:
    """The viewer's URL. The PACS' DICOMweb is under the same one, so that the browser needs neither
    its password nor its permission."""
    with (
        httpx.Client(base_url=pacs.url, auth=(pacs.username, pacs.password), timeout=60) as client,
        answering(_Site(built, client)) as (url, _),
    ):
        yield url


@dataclass(frozen=True)
class _Site:
    built: Path
    pacs: httpx.Client

    def __call__(self, asked: Asked) -> Answer:
        path = asked.path.partition("?")[0]
        if path.startswith("/dicom-web/"):
            return self._from_pacs(asked)
        if path == "/app-config.js":
            return Answer(200, f"window.config = {json.dumps(CONFIG)};".encode(), _kind(path))
        file = self.built / path.lstrip("/")
        file = file if file.is_file() else self.built / "index.html"  # its own routes
        return Answer(200, file.read_bytes(), _kind(file.name))

    def _from_pacs(self, asked: Asked) -> Answer:
        passed = {name: asked.headers[name] for name in ("accept", "host") if name in asked.headers}
        said = self.pacs.get(asked.path, headers=passed)
        kind = {"Content-Type": said.headers.get("content-type", "application/octet-stream")}
        return Answer(said.status_code, said.content, kind)


def _kind(name: str) -> dict[str, str]:
    return {"Content-Type": mimetypes.guess_type(name)[0] or "application/octet-stream"}


CONFIG: Mapping[str, object] = {
    "routerBasename": "/",
    "extensions": [],
    "modes": [],
    "showStudyList": True,
    "showWarningMessageForCrossOrigin": False,
    "showCPUFallbackMessage": False,
    "maxNumberOfWebWorkers": 2,
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "pacs",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "pacs",
            "configuration": {
                "friendlyName": "PACS",
                "name": "pacs",
                "qidoRoot": "/dicom-web",
                "wadoRoot": "/dicom-web",
                "wadoUriRoot": "/dicom-web",
                "qidoSupportsIncludeField": False,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "supportsFuzzyMatching": False,
                "supportsWildcard": True,
                "bulkDataURI": {"enabled": True},
            },
        }
    ],
}


@dataclass(frozen=True)
class Shown:
    """One slice of a label map. ``image``: SOP instance UID and frame of the image it lies on;
    ``voxels``: how many of each value but 0; ``digest``: SHA-256 of the values, row by row."""

    image: tuple[str, int]
    voxels: dict[int, int]
    digest: str


@dataclass(frozen=True)
class Labelled:
    """A segment as the viewer lists and draws it."""

    number: int
    label: str
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class Line:
    """What an SR draws on an image. ``ends``: LPS mm."""

    image: tuple[str, int]
    ends: tuple[tuple[float, ...], ...]


@dataclass
class Viewer:
    """A tab of the viewer. ``complaints``: errors of scripts, of the console, and of requests;
    ``disturbed``: its requests were dropped for a change of the machine's networks."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    disturbed: bool = False

    def open(self, study_uid: str, *descriptions: str) -> float:
        """Seconds until these series of a study are listed and the first image is drawn."""
        began = time.monotonic()
        self.page.goto(f"{self.url}/viewer?StudyInstanceUIDs={study_uid}")
        for description in descriptions:
            self.page.get_by_text(description, exact=True).first.wait_for()
        self.page.wait_for_function(DRAWN)
        return time.monotonic() - began

    def load_segmentation(self, description: str) -> float:
        """Open a SEG as a reader does, by a double click and "Yes"; seconds until every slice of
        its label map is there and drawn on the images."""
        began = time.monotonic()
        self.page.get_by_text(description, exact=True).dblclick()
        self.page.get_by_role("button", name="Yes").click()
        self.page.wait_for_function(LOADED)
        return time.monotonic() - began

    def read_report(self, description: str, title: str) -> str:
        """Open an SR by a double click; its text after the title."""
        self.page.get_by_text(description, exact=True).dblclick()
        self.page.get_by_text(title).wait_for()
        return self.page.inner_text("body").partition(title)[2]

    def read_lines(self, description: str) -> list[Line]:
        """Open an SR of lines by a double click; what it draws."""
        self.page.get_by_text(description, exact=True).dblclick()
        self.page.wait_for_function(f"() => ({LINES})().length > 0")
        found: list[dict[str, Any]] = self.page.evaluate(LINES)
        return [Line(_named(one["image"]), tuple(map(tuple, one["ends"]))) for one in found]

    def label_map(self) -> list[Shown]:
        """Of the one segmentation, slice by slice in the viewer's order."""
        found: list[dict[str, Any]] = self.page.evaluate(LABEL_MAP)
        return [_shown(one) for one in found]

    def segments(self) -> list[Labelled]:
        """Of the one segmentation, by number."""
        found: list[dict[str, Any]] = self.page.evaluate(SEGMENTS)
        return [Labelled(one["number"], one["label"], tuple(one["colour"][:3])) for one in found]

    def listed(self, labels: Iterable[str]) -> bool:
        """Whether the panel of segments, which is closed at first, has all these."""
        self.page.locator('[data-cy="panelSegmentation-btn"]').click()
        for label in labels:
            self.page.get_by_text(label, exact=True).first.wait_for()
        return True

    def failures(self) -> list[str]:
        """What scripts, the console and the viewer itself complained about."""
        unhandled: list[str] = self.page.evaluate("() => window.unhandled ?? []")
        return [*self.complaints, *unhandled]

    def go_to(self, image: tuple[str, int]) -> None:
        """Show this image."""
        self.page.evaluate(GO_TO, "/instances/{}/frames/{}".format(*image))
        self.page.wait_for_function(DRAWN)

    def place(self, point: Sequence[float]) -> tuple[int, int]:
        """Where a point (LPS mm) is on the page, in pixels from its left upper corner."""
        x, y = self.page.evaluate(PLACE, [float(value) for value in point])
        return round(x), round(y)

    def picture(self, path: Path | None = None) -> bytes:
        """The page as PNG."""
        return self.page.screenshot(path=path)


def _shown(one: Mapping[str, Any]) -> Shown:
    voxels = {int(value): int(count) for value, count in one["voxels"].items()}
    return Shown(_named(one["image"]), voxels, one["digest"])


def _named(image: str) -> tuple[str, int]:
    """Instance and frame of the viewer's own name for an image."""
    uid, frame = image.partition("/instances/")[2].split("/frames/")
    return uid, int(frame)


def look(browser: Browser, url: str, see: Callable[[Viewer], Seen]) -> Seen:
    """What ``see`` tells of a fresh tab. Chromium drops requests whenever a network of the machine
    comes or goes, as a container's does; then once more, a few times at most."""
    for _ in range(LOOKS - 1):
        with _viewing(browser, url) as viewer:
            try:
                return see(viewer)
            except BrowserError:
                if not viewer.disturbed:
                    raise
    with _viewing(browser, url) as viewer:
        return see(viewer)


@contextmanager
def _viewing(browser: Browser, url: str) -> Iterator[Viewer]:
    context = browser.new_context(viewport=SIZE)
    context.set_default_timeout(PATIENCE_MS)
    context.add_init_script(BEFORE)
    viewer = Viewer(context.new_page(), url)
    _watch(viewer)
    try:
        yield viewer
    finally:
        context.close()


def _watch(viewer: Viewer) -> None:
    def said(message: ConsoleMessage) -> None:
        if message.type == "error":
            viewer.complaints.append(message.text)

    def lost(request: Request) -> None:
        if request.failure == "net::ERR_NETWORK_CHANGED":
            viewer.disturbed = True
            viewer.page.close()  # whoever waits for something on it hears of it at once

    viewer.page.on("pageerror", lambda error: viewer.complaints.append(str(error)))
    viewer.page.on("console", said)
    viewer.page.on("requestfailed", lost)


# A first visitor's tour is taken as seen.
BEFORE = """
  localStorage.setItem('shownTours', '["basicViewerTour"]');
  window.addEventListener('unhandledrejection', event => {
    (window.unhandled ??= []).push(String(event.reason));
  });
"""
DRAWN = """() => {
  const id = window.services?.viewportGridService?.getActiveViewportId?.();
  const viewport = id && window.services.cornerstoneViewportService.getCornerstoneViewport(id);
  return Boolean(viewport?.viewportStatus === 'rendered');
}"""
LOADED = """() => {
  const id = window.services.viewportGridService.getActiveViewportId();
  const state = window.cornerstoneTools.segmentation.state;
  const viewport = window.services.cornerstoneViewportService.getCornerstoneViewport(id);
  const [one] = state.getSegmentations();
  const images = one?.representationData?.Labelmap?.imageIds ?? [];
  return images.length > 0
    && images.every(image => window.cornerstone.cache.getImage(image))
    && state.getSegmentationRepresentations(id).length === 1
    && viewport.viewportStatus === 'rendered';
}"""
LABEL_MAP = """async () => {
  const [one] = window.cornerstoneTools.segmentation.state.getSegmentations();
  const slices = [];
  for (const id of one.representationData.Labelmap.imageIds) {
    const image = window.cornerstone.cache.getImage(id);
    const values = Uint8Array.from(image.voxelManager.getScalarData());
    const voxels = {};
    for (const value of values) if (value) voxels[value] = (voxels[value] ?? 0) + 1;
    const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', values));
    const digest = [...hash].map(byte => byte.toString(16).padStart(2, '0')).join('');
    slices.push({ image: image.referencedImageId, voxels, digest });
  }
  return slices;
}"""
SEGMENTS = """() => {
  const [one] = window.cornerstoneTools.segmentation.state.getSegmentations();
  const viewport = window.services.viewportGridService.getActiveViewportId();
  const color = window.cornerstoneTools.segmentation.config.color;
  return Object.values(one.segments).map(segment => ({
    number: segment.segmentIndex,
    label: segment.label,
    colour: [...color.getSegmentIndexColor(viewport, one.segmentationId, segment.segmentIndex)],
  }));
}"""
LINES = """() => window.cornerstoneTools.annotation.state.getAllAnnotations()
  .filter(one => one.metadata.toolName === 'DICOMSRDisplay')
  .map(one => ({ image: one.metadata.referencedImageId, ends: one.data.handles.points }))"""
GO_TO = """async name => {
  const id = window.services.viewportGridService.getActiveViewportId();
  const viewport = window.services.cornerstoneViewportService.getCornerstoneViewport(id);
  await viewport.setImageIdIndex(viewport.getImageIds().findIndex(one => one.endsWith(name)));
  viewport.render();
}"""
PLACE = """point => {
  const id = window.services.viewportGridService.getActiveViewportId();
  const viewport = window.services.cornerstoneViewportService.getCornerstoneViewport(id);
  const [x, y] = viewport.worldToCanvas(point);
  const box = viewport.element.getBoundingClientRect();
  return [box.x + x, box.y + y];
}"""
