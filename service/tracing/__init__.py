"""Traces over OpenTelemetry, where the settings name a collector; else nothing is made or loaded.

The trace of a job has the job's id as trace id: whoever knows the id finds it, and nothing but the
id has to cross the queue. A span holds what a log line may hold (``observability.SAFE_KEYS``).
"""

from ..errors import TracingUnavailableError
from .base import Span, Tracing

__all__ = ["Span", "Tracing", "open_tracing"]


def open_tracing(endpoint: str | None, role: str, instance: str) -> Tracing:
    """Spans of this process go to ``endpoint`` (OTLP over HTTP); without it nowhere.

    ``role`` and ``instance`` name the process there. Raises ``TracingUnavailableError`` where the
    extra ``trace`` is not installed.
    """
    if endpoint is None:
        return Tracing()
    try:
        from .otlp import OtlpTracing  # noqa: PLC0415  (nobody pays for what is not asked for)
    except ImportError as error:
        raise TracingUnavailableError(
            "AQCF_OTLP_ENDPOINT is set, and OpenTelemetry is not installed: pip install "
            "'a-qcf-net[trace]', or unset it"
        ) from error
    return OtlpTracing(endpoint, role, instance)
