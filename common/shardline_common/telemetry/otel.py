"""Traces by OpenTelemetry (extra `otel`)."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry.context import attach, detach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.re import parse_env_headers

from shardline_common import __version__
from shardline_common.job.trace_headers import TRACE_HEADER
from shardline_common.telemetry.logs import context_fields, limit_rate
from shardline_common.telemetry.tracing import Span, Value

_FLUSH_SECONDS = 3.0
_PROPAGATOR = TraceContextTextMapPropagator()


@dataclass(frozen=True, slots=True)
class OtelOptions:
    """The whole URL for spans, the service name, and headers (name=value, separated by commas)."""

    url: str
    service: str
    headers: str = ""


@contextmanager
def open_otel(options: OtelOptions) -> Iterator["OtelTracer"]:
    """A tracer that sends spans in the background, and has 3 seconds for the rest when the context ends."""
    limit_rate("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    headers = dict(parse_env_headers(options.headers, liberal=True))
    exporter = OTLPSpanExporter(options.url, headers=headers)
    tracer = OtelTracer(BatchSpanProcessor(exporter), options.service)
    try:
        yield tracer
    finally:
        # The SDK tries for half a minute to reach a collector that is down.
        flush = threading.Thread(target=tracer.close, daemon=True)
        flush.start()
        flush.join(_FLUSH_SECONDS)


class OtelTracer:
    """Implements `telemetry.tracing.Tracer`. Spans carry the fields that `log_context` bound."""

    def __init__(self, processor: SpanProcessor, service: str) -> None:
        resource = Resource.create({"service.name": service, "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("shardline", __version__)

    def close(self) -> None:
        """Send the remaining spans and stop."""
        self._provider.shutdown()

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, Value]) -> Iterator[Span]:
        """A span. An error sets only error.type: its text could hold a secret, and goes to the masked log."""
        with self._tracer.start_as_current_span(
            name,
            attributes=_prefixed({**context_fields(), **attributes}),
            record_exception=False,
            set_status_on_exception=False,
        ) as found:
            try:
                yield _SpanAdapter(found)
            except Exception as error:
                found.set_status(StatusCode.ERROR)
                found.set_attribute("error.type", type(error).__name__)
                raise

    @contextmanager
    def continue_trace(self, traceparent: str) -> Iterator[None]:
        """Make a span of another process the current one."""
        token = attach(_PROPAGATOR.extract({TRACE_HEADER: traceparent}))
        try:
            yield
        finally:
            detach(token)

    def current_traceparent(self) -> str | None:
        """The `traceparent` of the current span."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        return carrier.get(TRACE_HEADER)


@dataclass(frozen=True, slots=True)
class _SpanAdapter:
    span: OtelSpan

    def set(self, **attributes: Value) -> None:
        self.span.set_attributes(_prefixed(attributes))


def _prefixed(attributes: Mapping[str, Value]) -> dict[str, Value]:
    return {f"shardline.{name}": value for name, value in attributes.items()}
