"""The application: routes, page, guard and problems around one container."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from fastapi.telemetry import TelemetryConfig

from ..container import Container
from .denied import DeniedTrail
from .errors import PROBLEM_JSON, install
from .guard import Guard
from .oidc import open_oidc
from .routers import (
    arrivals,
    audit,
    deliveries,
    pulls,
    results,
    segmentations,
    stow,
    submissions,
    system,
)
from .security import allowed_hosts, check_address
from .slices import SliceCache
from .traced import Traced

WEB: Final = Path(__file__).resolve().parent / "web"
DESCRIPTION: Final = (
    "A CT or MR series in, liver and liver tumour out: DICOM-SEG, DICOM SR, NIfTI and "
    "measurements. Errors are RFC 9457 problems with a stable `code`. Research use only; not for "
    "diagnosis."
)
TAGS: Final = [
    {"name": "segmentations", "description": "Submit images and follow what becomes of them."},
    {"name": "results", "description": "Masks, reports, measurements and pictures."},
    {"name": "pulls", "description": "Studies that are fetched from the site's nodes."},
    {"name": "arrivals", "description": "Series that come from the site's network."},
    {"name": "deliveries", "description": "Results on their way to the site's destinations."},
    {"name": "service", "description": "Models, health and metrics."},
]

ROUTERS: Final = (
    submissions, segmentations, results, stow, arrivals, pulls, deliveries, audit, system,
)  # fmt: skip
SILENT: Final[TelemetryConfig] = {
    "tracing": False, "metrics": False, "logs": False, "operation_spans": False,
    "auto_configure": False,
}  # fmt: skip
"""FastAPI's own telemetry tells paths, queries and the words of exceptions, whatever provider it
finds; ours (``Traced``) does not."""


def create_app(container: Container) -> FastAPI:
    """The application over ``container``, whose workers the caller starts and stops.

    Raises ``UnsafeAddressError`` for a public address without API keys or an issuer of tokens,
    ``ConfigError`` for an issuer that cannot be used.
    """
    check_address(container.settings, container.keys)
    app = bare_app()
    app.state.container = container
    app.state.slices = SliceCache(container)
    app.state.stopping = False
    app.state.oidc = open_oidc(container.settings)
    denied = DeniedTrail(container).record
    app.add_middleware(Guard, hosts=allowed_hosts(container.settings), denied=denied)
    if container.tracing.enabled:
        app.add_middleware(Traced, tracing=container.tracing)
    return app


def bare_app() -> FastAPI:
    """Routes, problems and page without a container: enough to describe the interface."""
    app = FastAPI(
        title="A-QCF-Net",
        summary="Liver and liver-tumour segmentation of CT and MR series",
        description=DESCRIPTION,
        version=_version(),
        openapi_tags=TAGS,
        docs_url=None,  # both load scripts from elsewhere
        redoc_url=None,
        generate_unique_id_function=_operation_id,
        redirect_slashes=False,
        telemetry=SILENT,
    )
    install(app)
    for router in ROUTERS:
        app.include_router(router.router)
    app.add_api_route("/", _page, include_in_schema=False, response_class=FileResponse)
    app.mount("/web", StaticFiles(directory=WEB), name="web")
    app.openapi = _document(app)  # type: ignore[method-assign]
    return app


def _page() -> FileResponse:
    return FileResponse(WEB / "index.html")


def _operation_id(route: APIRoute) -> str:
    return route.name


def _version() -> str:
    try:
        return version("a-qcf-net")
    except PackageNotFoundError:
        return "0"


def _document(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """The OpenAPI document, made once: problems under their own media type."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            app.openapi_schema = _with_problems(document)
        return app.openapi_schema

    return openapi


def _with_problems(document: dict[str, Any]) -> dict[str, Any]:
    problem = {"$ref": "#/components/schemas/Problem"}
    for operations in document["paths"].values():
        for operation in operations.values():
            for response in operation["responses"].values():
                _rename(response, problem)
            _drop_unused_validation(operation["responses"])
    for unused in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(unused, None)
    return document


def _rename(response: dict[str, Any], problem: dict[str, str]) -> None:
    content = response.get("content", {})
    if content.get("application/json", {}).get("schema") == problem:
        content[PROBLEM_JSON] = content.pop("application/json")


def _drop_unused_validation(responses: dict[str, Any]) -> None:
    """FastAPI declares a 422 of its own shape; where we declare none, a path id is never invalid
    but not found."""
    schema = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema")
    if schema == {"$ref": "#/components/schemas/HTTPValidationError"}:
        del responses["422"]
