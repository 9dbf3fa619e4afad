"""The service itself: models, health, readiness, metrics."""

from collections.abc import Callable
from typing import Final

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from model.errors import AqcfError
from model.spec import ModelFolder

from ... import sweep
from ...container import Container
from ...observability import get_logger
from ..deps import Reader, Services
from ..responses import Responses, problems
from ..schemas import Health, ModelInfo, ModelList, ProfileInfo, Readiness

router = APIRouter(tags=["service"])
log = get_logger(__name__)

NOT_READY: Final[Responses] = {503: {"model": Readiness, "description": "Something is missing."}}
METRICS: Final[Responses] = {
    200: {"description": "Prometheus", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


@router.get(
    "/v1/models", response_model=ModelList, responses=problems(), summary="The installed models"
)
def list_models(container: Services, caller: Reader) -> ModelList:  # noqa: ARG001
    """The default one first, with its profiles and measured scores."""
    default = container.models.default_model
    return ModelList(items=[_info(folder, default) for folder in container.models.all()])


@router.get("/healthz", response_model=Health, summary="Is the process alive?")
async def get_health() -> Health:
    """Answers as long as the process lives; asks nothing else."""
    return Health()


@router.get(
    "/readyz", response_model=Readiness, responses=NOT_READY, summary="Can it take and finish work?"
)
def get_readiness(container: Services, response: Response) -> Readiness:
    """Database, queue, a worker with a loaded model, disk, and the default model."""
    checks = {
        "database": _works(container.jobs.ping),
        "queue": container.queue.reachable(),
        "worker": not container.lane.closed and _works(container.queue.alive),
        "disk": _works(lambda: container.artifacts.require_room(_min_free(container))),
        "store": _works(container.artifacts.ping),
        "model": any(f.spec.id == container.models.default_model for f in container.models.all()),
    }
    ready = all(checks.values())
    response.status_code = 200 if ready else 503
    return Readiness(status="ready" if ready else "not_ready", checks=checks)


@router.get(
    "/metrics",
    response_class=Response,
    responses=METRICS | problems(),
    summary="Prometheus metrics",
)
def get_metrics(container: Services, caller: Reader) -> Response:  # noqa: ARG001
    """Counts and seconds; no label can carry patient data."""
    sweep.measure(container)
    registry = container.metrics.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _works(check: Callable[[], bool | None]) -> bool:
    """Whether ``check`` neither raises nor says no."""
    try:
        return check() is not False
    except (AqcfError, SQLAlchemyError, OSError):
        log.warning("not_ready")
        return False


def _min_free(container: Container) -> int:
    return container.settings.min_free_bytes


def _info(folder: ModelFolder, default: str) -> ModelInfo:
    spec = folder.spec
    return ModelInfo(
        id=spec.id,
        version=spec.version,
        description=spec.description,
        licence=spec.licence,
        sha256=folder.sha256,
        default=spec.id == default,
        modalities=list(spec.modalities),
        profiles=[
            ProfileInfo(
                name=name,
                overlap=profile.overlap,
                precision=profile.precision,
                agreement=profile.agreement,
                speedup=profile.speedup,
            )
            for name, profile in spec.profiles.items()
        ],
        default_profile=spec.default_profile,
        scores=spec.scores,
    )
