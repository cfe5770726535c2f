"""Traces as a port: spans of what is done for a job, under one trace id in all processes.

Without a tracer (`use`) a span is nothing, and the trace that a message came with is only handed on. Spans
are made for a request, a batch, a segment, an object; never for a document.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol

HEADER = "traceparent"
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_received: ContextVar[str | None] = ContextVar("traceparent", default=None)

Value = str | int | float | bool


class Span(Protocol):
    """Something that is being done."""

    def set(self, **attributes: Value) -> None:
        """Tell more about it."""


class Tracer(Protocol):
    """Makes spans. What is current is so for a task and the tasks it starts."""

    def span(self, name: str, attributes: Mapping[str, Value]) -> AbstractContextManager[Span]:
        """A span below the current one, and the current one itself while the context lasts."""

    def continued(self, traceparent: str) -> AbstractContextManager[None]:
        """Let a span of another process be the current one."""

    def current(self) -> str | None:
        """The current span as other processes are told of it (W3C Trace Context)."""


class _NoSpan:
    def set(self, **attributes: Value) -> None:
        """Tell it nobody."""


class Passing:
    """Makes no spans, and hands on the trace it was given."""

    _nothing: AbstractContextManager[Span] = nullcontext(_NoSpan())

    def span(self, name: str, attributes: Mapping[str, Value]) -> AbstractContextManager[Span]:  # noqa: ARG002 - there is none
        """Nothing."""
        return self._nothing

    @contextmanager
    def continued(self, traceparent: str) -> Iterator[None]:
        """Keep it for the messages that are sent meanwhile."""
        before = _received.get()
        _received.set(traceparent)
        try:
            yield
        finally:
            # Not by a token: it would be refused where a coroutine is closed in another context.
            _received.set(before)

    def current(self) -> str | None:
        """What was given."""
        return _received.get()


class _InUse:
    tracer: Tracer = Passing()


@contextmanager
def use(tracer: Tracer) -> Iterator[None]:
    """Let this process make its spans with a tracer for as long as the context lasts."""
    before, _InUse.tracer = _InUse.tracer, tracer
    try:
        yield
    finally:
        _InUse.tracer = before


def span(name: str, **attributes: Value) -> AbstractContextManager[Span]:
    """A span below the current one. An error that leaves it marks it as failed, by the error's class."""
    return _InUse.tracer.span(name, attributes)


def continued(traceparent: str | None) -> AbstractContextManager[None]:
    """Go on with a trace that began elsewhere; None leaves things as they are."""
    return nullcontext() if traceparent is None else _InUse.tracer.continued(traceparent)


def current() -> str | None:
    """The `traceparent` of what is being done."""
    return _InUse.tracer.current()


def headers_of(traceparent: str | None) -> tuple[tuple[str, bytes], ...]:
    """The headers of a message that belongs to a trace."""
    return () if traceparent is None else ((HEADER, traceparent.encode()),)


def traceparent_of(headers: Iterable[tuple[str, bytes | None]]) -> str | None:
    """The trace a message belongs to; what is no valid `traceparent` is none."""
    for name, value in headers:
        if name == HEADER and _TRACEPARENT.fullmatch(text := (value or b"").decode("ascii", "replace")):
            return text
    return None
