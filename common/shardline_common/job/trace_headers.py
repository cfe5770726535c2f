"""The trace of a job in the headers of messages (W3C Trace Context)."""

import re
from collections.abc import Iterable

TRACE_HEADER = "traceparent"
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def trace_headers(traceparent: str | None) -> tuple[tuple[str, bytes], ...]:
    """The headers of a message that belongs to a trace; none without a trace."""
    return () if traceparent is None else ((TRACE_HEADER, traceparent.encode()),)


def traceparent_of(headers: Iterable[tuple[str, bytes | None]]) -> str | None:
    """The trace that a message belongs to; None when it has no valid one."""
    for name, value in headers:
        if name == TRACE_HEADER:
            text = (value or b"").decode("ascii", "replace")
            if _TRACEPARENT.fullmatch(text):
                return text
    return None
