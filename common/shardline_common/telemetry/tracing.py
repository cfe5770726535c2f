"""The port of tracing: spans of the work for a job, with one trace id in all processes.

Without `use_tracer` there are no spans, and the trace of a message is only passed on. A span covers a
request, a batch, a segment or an object; never a single document.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol

_received: ContextVar[str | None] = ContextVar("traceparent", default=None)

Value = str | int | float | bool


class Span(Protocol):
    """A span that is open."""

    def set(self, **attributes: Value) -> None:
        """Add attributes."""


class Tracer(Protocol):
    """Makes spans. The current span is that of a task and of the tasks that it starts."""

    def span(self, name: str, attributes: Mapping[str, Value]) -> AbstractContextManager[Span]:
        """A child of the current span. It is the current span while the context lasts."""

    def continue_trace(self, traceparent: str) -> AbstractContextManager[None]:
        """Make a span of another process the current one."""

    def current_traceparent(self) -> str | None:
        """The current span as a `traceparent` of W3C Trace Context, for other processes; None without one."""


class _NoSpan:
    def set(self, **attributes: Value) -> None:
        """Do nothing."""


class PassThroughTracer:
    """Makes no spans. It passes on the trace that `continue_trace` sets."""

    _no_span: AbstractContextManager[Span] = nullcontext(_NoSpan())

    def span(self, name: str, attributes: Mapping[str, Value]) -> AbstractContextManager[Span]:  # noqa: ARG002 - there is no span
        """Do nothing."""
        return self._no_span

    @contextmanager
    def continue_trace(self, traceparent: str) -> Iterator[None]:
        """Keep the trace for messages that are sent while the context lasts."""
        before = _received.get()
        _received.set(traceparent)
        try:
            yield
        finally:
            # Not by a token: a token is refused when a coroutine is closed in another context.
            _received.set(before)

    def current_traceparent(self) -> str | None:
        """The trace that `continue_trace` has set."""
        return _received.get()


class _ActiveTracer:
    tracer: Tracer = PassThroughTracer()


@contextmanager
def use_tracer(tracer: Tracer) -> Iterator[None]:
    """Use a tracer for all spans of this process while the context lasts."""
    before, _ActiveTracer.tracer = _ActiveTracer.tracer, tracer
    try:
        yield
    finally:
        _ActiveTracer.tracer = before


def span(name: str, **attributes: Value) -> AbstractContextManager[Span]:
    """Open a child of the current span. An error that leaves the context marks the span as failed."""
    return _ActiveTracer.tracer.span(name, attributes)


def continue_trace(traceparent: str | None) -> AbstractContextManager[None]:
    """Continue a trace of another process while the context lasts; None changes nothing."""
    return nullcontext() if traceparent is None else _ActiveTracer.tracer.continue_trace(traceparent)


def current_traceparent() -> str | None:
    """The `traceparent` of the current span; None without one."""
    return _ActiveTracer.tracer.current_traceparent()
