"""Traces as a port: spans of the work for a job, under one trace id in all processes.

Without a tracer (`use`) there are no spans, and the trace of a message is only passed on. A span covers a
request, a batch, a segment or an object; never a document.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol

_received: ContextVar[str | None] = ContextVar("traceparent", default=None)

Value = str | int | float | bool


class Span(Protocol):
    """A piece of work."""

    def set(self, **attributes: Value) -> None:
        """Add attributes."""


class Tracer(Protocol):
    """Makes spans. The current span is that of a task and of the tasks that it starts."""

    def span(self, name: str, attributes: Mapping[str, Value]) -> AbstractContextManager[Span]:
        """A child of the current span. It is the current span while the context lasts."""

    def continued(self, traceparent: str) -> AbstractContextManager[None]:
        """Make a span of another process the current one."""

    def current(self) -> str | None:
        """The current span for other processes (`traceparent` of W3C Trace Context)."""


class _NoSpan:
    def set(self, **attributes: Value) -> None:
        """Do nothing."""


class PassThroughTracer:
    """Makes no spans, and passes on the trace that it was given."""

    _nothing: AbstractContextManager[Span] = nullcontext(_NoSpan())

    def span(self, name: str, attributes: Mapping[str, Value]) -> AbstractContextManager[Span]:  # noqa: ARG002 - there is none
        """Do nothing."""
        return self._nothing

    @contextmanager
    def continued(self, traceparent: str) -> Iterator[None]:
        """Keep the trace for the messages that are sent meanwhile."""
        before = _received.get()
        _received.set(traceparent)
        try:
            yield
        finally:
            # Not by a token, which is refused where a coroutine is closed in another context.
            _received.set(before)

    def current(self) -> str | None:
        """The trace that was given."""
        return _received.get()


class _InUse:
    tracer: Tracer = PassThroughTracer()


@contextmanager
def use(tracer: Tracer) -> Iterator[None]:
    """Make the spans of this process by a tracer for as long as the context lasts."""
    before, _InUse.tracer = _InUse.tracer, tracer
    try:
        yield
    finally:
        _InUse.tracer = before


def span(name: str, **attributes: Value) -> AbstractContextManager[Span]:
    """A child of the current span. An error that leaves it marks it as failed, by its class."""
    return _InUse.tracer.span(name, attributes)


def continued(traceparent: str | None) -> AbstractContextManager[None]:
    """Continue a trace of another process; None changes nothing."""
    return nullcontext() if traceparent is None else _InUse.tracer.continued(traceparent)


def current() -> str | None:
    """The `traceparent` of the current span; None without one."""
    return _InUse.tracer.current()
