"""An audit row for everybody who was turned away."""

import threading
import time
from collections.abc import Callable
from typing import Final

from sqlalchemy.exc import SQLAlchemyError
from starlette.types import Scope

from ..container import Container
from ..observability import get_logger
from .deps import JOB_ID

UNKNOWN: Final = "unknown"
ROWS: Final = 60
WINDOW_S: Final = 60.0
LONGEST: Final = 64  # of an action, in the table

log = get_logger(__name__)


class DeniedTrail:
    """Rows with the action ``denied:<status>:<operation>``.

    Callers nobody knows get ``ROWS`` a minute and process; the rest is counted, in one row when
    the next one comes and in the metrics, or strangers could fill the disk.
    """

    def __init__(self, container: Container, clock: Callable[[], float] = time.monotonic) -> None:
        self._container, self._clock = container, clock
        self._lock = threading.Lock()
        self._since, self._rows, self._left_out = clock(), 0, 0

    def record(self, scope: Scope, status: int) -> None:
        """Write down what happened to a request, by its route and never by its path. A database
        that is away loses the row: the answer stays no."""
        self._container.metrics.denied.labels(str(status)).inc()
        actor = str(scope.get("state", {}).get("actor", UNKNOWN))
        operation = getattr(scope.get("route"), "name", UNKNOWN)
        try:
            for action in self._actions(actor, f"denied:{status}:{operation}"[:LONGEST]):
                self._container.audit.record(actor, action, _job_id(scope))
        except SQLAlchemyError as error:
            log.error("denied_not_recorded", status_code=status, exc_info=error)

    def _actions(self, actor: str, action: str) -> tuple[str, ...]:
        if actor != UNKNOWN:
            return (action,)
        with self._lock:
            left_out = 0
            if self._clock() - self._since >= WINDOW_S:
                left_out, self._since = self._left_out, self._clock()
                self._rows = self._left_out = 0
            self._rows += 1
            if self._rows > ROWS:
                self._left_out += 1
                return ()
        return (f"denied:left_out:{left_out}", action) if left_out else (action,)


def _job_id(scope: Scope) -> str | None:
    job_id = scope.get("path_params", {}).get("segmentation_id", "")
    return job_id if JOB_ID.fullmatch(job_id) else None
