"""A collector of traces in the test's process: OTLP over HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.listening import QuietHandler, listening


@dataclass(frozen=True)
class Seen:
    """A span, and the process that made it."""

    name: str
    trace_id: str
    service: str
    instance: str
    attributes: dict[str, str]


@dataclass
class Collector:
    """The spans and headers received so far."""

    url: str
    spans: list[Seen] = field(default_factory=list)
    authorizations: set[str | None] = field(default_factory=set)

    def take(self, path: str, authorization: str | None, body: bytes) -> int:
        """Store a request; returns the status of the response."""
        if path != "/v1/traces":
            return 404
        self.authorizations.add(authorization)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {item.key: item.value.string_value for item in resource.resource.attributes}
            self.spans += [
                Seen(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    service=about["service.name"],
                    instance=about["service.instance.id"],
                    attributes={item.key: item.value.string_value for item in span.attributes},
                )
                for scope in resource.scope_spans
                for span in scope.spans
            ]
        return 200


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector."""

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(collector.take(self.path, self.headers["Authorization"], body))
            self.send_header("Content-Length", "0")
            self.end_headers()

    with listening(Handler) as port:
        collector = Collector(f"http://127.0.0.1:{port}")
        yield collector
