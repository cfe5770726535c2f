"""The wiring of settings to OpenTelemetry."""

from collections.abc import Iterator
from contextlib import contextmanager

from shardline_common.errors import UsageError
from shardline_common.settings.load import Settings
from shardline_common.telemetry.tracing import use_tracer


@contextmanager
def traced(settings: Settings, process: str) -> Iterator[None]:
    """Send spans to the collector of the settings while the context lasts; without a collector do nothing.

    There is one tracer for the whole process.

    Raises:
        UsageError: OpenTelemetry is not installed, or the collector's protocol is not http/protobuf.
    """
    url = settings.otel_traces_endpoint
    if url is None and settings.otel_endpoint is not None:
        url = settings.otel_endpoint.rstrip("/") + "/v1/traces"
    if url is None or settings.otel_disabled or "otlp" not in settings.otel_exporter.split(","):
        yield
        return
    if settings.otel_protocol != "http/protobuf":
        hint = "set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, and the collector's port for it (4318)"
        raise UsageError(f"spans cannot be sent by {settings.otel_protocol}", hint=hint)
    try:
        from shardline_common.telemetry.otel import OtelOptions, open_otel
    except ModuleNotFoundError as error:
        raise UsageError(
            f"a collector of traces is set, but OpenTelemetry is not installed ({error.name} is missing)",
            hint="install Shardline's extra 'otel', or set OTEL_SDK_DISABLED=true",
        ) from None
    headers = settings.otel_headers
    options = OtelOptions(
        url=url,
        service=settings.otel_service_name or f"shardline-{process}",
        headers=headers.get_secret_value() if headers else "",
    )
    with open_otel(options) as tracer, use_tracer(tracer):
        yield
