"""The settings of tracing, with the names of OpenTelemetry. Its SDK reads its other settings itself."""

from pydantic import BaseModel, SecretStr

from shardline_common.settings.fields import setting


class TraceSettings(BaseModel):
    """The collector of spans. Without its address there is no tracing (docs/observability.md)."""

    otel_endpoint: str | None = setting(
        None,
        "OTLP/HTTP collector, such as http://collector:4318; none: no tracing (extra otel)",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        pattern="^https?://[^/@]+",
    )
    otel_traces_endpoint: str | None = setting(
        None,
        "whole address for spans, such as http://collector:4318/v1/traces; overrides the collector's",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        pattern="^https?://[^/@]+",
    )
    otel_headers: SecretStr | None = setting(
        None,
        "headers for the collector: name=value, separated by commas",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        "OTEL_EXPORTER_OTLP_HEADERS",
    )
    otel_protocol: str = setting(
        "http/protobuf",
        "protocol of the collector; only http/protobuf",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    )
    otel_exporter: str = setting(
        "otlp", "exporters; a list without otlp, such as none, turns tracing off", "OTEL_TRACES_EXPORTER"
    )
    otel_disabled: bool = setting(False, "true: no tracing", "OTEL_SDK_DISABLED")
    otel_service_name: str | None = setting(
        None,
        "name of the service in traces; none: shardline-producer, -worker, -gateway or -cli",
        "OTEL_SERVICE_NAME",
    )
