"""Spans to a collector, by OTLP over HTTP."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Final
from uuid import UUID

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)

from ..observability import redact
from .base import Span, Tracing

PATH: Final = "/v1/traces"
TIMEOUT_S: Final = 5.0  # of one request, its repetitions included
HTTP: Final[Mapping[str, str]] = {
    "method": "http.request.method",
    "route": "http.route",
    "status_code": "http.response.status_code",
}
"""OpenTelemetry's names for what our logs call otherwise."""
SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
LOW_64: Final = 2**64 - 1


class OtlpTracing(Tracing):
    """``endpoint``: base URL of the collector, or the whole URL of its traces."""

    enabled = True

    def __init__(self, endpoint: str, role: str, instance: str) -> None:
        named = {"service.name": f"aqcf-{role}", "service.instance.id": instance}
        self._ids = _Ids()
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource(named),  # its own detectors would add what the environment says
            id_generator=self._ids,
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_span_attributes=32),
        )
        exporter = OTLPSpanExporter(endpoint=_traces(endpoint), timeout=TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("aqcf")

    @contextmanager
    def span(self, _name: str, _job_id: str | None = None, **_told: object) -> Iterator[Span]:
        context = None if _job_id is None else _context_of(_job_id)
        kind = SpanKind.SERVER if _name == "request" else SpanKind.INTERNAL
        made = self._tracer.start_span(_name, context=context, kind=kind)
        span = _Recorded(self, made)
        span.tell(**_told, **({"job_id": _job_id} if _job_id else {}))
        try:
            with trace.use_span(made, record_exception=False, set_status_on_exception=False):
                yield span
        except BaseException as error:
            span.failed(getattr(error, "code", type(error).__name__))
            raise
        finally:
            span.end()

    def past(self, _name: str, _job_id: str, _since: datetime) -> None:
        start = int(_since.timestamp() * 1e9)
        context = _context_of(_job_id)
        made = self._tracer.start_span(_name, context=context, start_time=start)
        made.set_attribute("job_id", _job_id)
        made.end(max(start, time.time_ns()))

    def begin_job(self, job_id: str, cause: trace.Span) -> None:
        """The root of a job's trace; it has no length, what follows has."""
        with self._ids.given(UUID(job_id)):
            made = self._tracer.start_span(
                "job", context=Context(), links=[Link(cause.get_span_context())]
            )
        made.set_attribute("job_id", job_id)
        made.end()

    def begin_part(self, name: str, whole: trace.Span) -> trace.Span:
        return self._tracer.start_span(name, context=trace.set_span_in_context(whole, Context()))

    def close(self) -> None:
        self._provider.shutdown()


class _Recorded(Span):
    def __init__(self, tracing: OtlpTracing, made: trace.Span) -> None:
        self._tracing, self._made = tracing, made
        self._part: trace.Span | None = None

    def tell(self, **attributes: object) -> None:
        for key, value in redact(None, "", dict(attributes)).items():
            if value is not None:
                self._made.set_attribute(HTTP.get(key, key), value)
        if attributes.get("code") is not None:
            self._made.set_status(Status(StatusCode.ERROR))
        if "method" in attributes or "route" in attributes:
            self._made.update_name(f"{attributes.get('method')} {attributes.get('route')}")

    def failed(self, code: object) -> None:
        self.tell(code=code)
        if self._part is not None:
            self._part.set_status(Status(StatusCode.ERROR))

    def stage(self, name: str) -> None:
        self._end_part()
        self._part = self._tracing.begin_part(name, self._made)

    def accepted(self, job_id: str, *, new: bool) -> None:
        self.tell(job_id=job_id)
        if new:
            self._tracing.begin_job(job_id, self._made)

    def end(self) -> None:
        self._end_part()
        self._made.end()

    def _end_part(self) -> None:
        part, self._part = self._part, None
        if part is not None:
            part.end()


class _Ids(RandomIdGenerator):
    """Random, but for the root of a job's trace."""

    def __init__(self) -> None:
        self._given: ContextVar[UUID | None] = ContextVar("given", default=None)

    @contextmanager
    def given(self, job_id: UUID) -> Iterator[None]:
        token = self._given.set(job_id)
        try:
            yield
        finally:
            self._given.reset(token)

    def generate_trace_id(self) -> int:
        job_id = self._given.get()
        return job_id.int if job_id else super().generate_trace_id()

    def generate_span_id(self) -> int:
        job_id = self._given.get()
        return _root_of(job_id) if job_id else super().generate_span_id()


def _context_of(job_id: str) -> Context:
    """Below the root of the job's trace, whichever process made that."""
    known = UUID(job_id)
    root = SpanContext(known.int, _root_of(known), is_remote=True, trace_flags=SAMPLED)
    return trace.set_span_in_context(NonRecordingSpan(root), Context())


def _root_of(job_id: UUID) -> int:
    return job_id.int & LOW_64  # never 0: a UUID has its variant there


def _traces(endpoint: str) -> str:
    base = endpoint.rstrip("/")
    return base if base.endswith(PATH) else base + PATH
