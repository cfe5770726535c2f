"""Logs: one line for each event, as JSON or in columns.

All modules log by the standard library (`logging.getLogger(__name__)`). A line has the fields time, level,
logger and event; those of `log_context` (job, attempt, partition, request_id); those of `log_fields`;
`trace_id` within a trace; and `hint`, that of the first ShardlineError among the arguments of the record.
"""

import logging
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

# Shardline raises or logs what these fail with, in a sentence of its own. Their lines come before it, and
# name classes of the client.
_SPOKEN_FOR = (
    "aiokafka",
    "aiobotocore",
    "aioboto3",
    "boto3",
    "botocore",
    "s3transfer",
    "urllib3",
    "neo4j",
    "asyncpg",
    "chromadb",
    "httpx",
    "httpcore",
    "backoff",
    "py.warnings",
)
_CLIENTS = ("aiohttp", "asyncio", "opentelemetry")
ENDS_JOB = {"ends_job": True}
"""The `extra` of a record about the failure that becomes the job's outcome. A command that shows the outcome
does not log it as well."""
_NONE: Mapping[str, Any] = {}
_context: ContextVar[Mapping[str, Any]] = ContextVar("log_context", default=_NONE)


def log_to_stderr(
    level: str, style: str = "auto", secrets: Collection[str] = (), *, shows_outcomes: bool = False
) -> None:
    """Log to stderr.

    Args:
        level: the lowest level that is logged. Client libraries log only at DEBUG, except those that run
            beside Shardline's calls, such as asyncio: they log from WARNING on.
        style: json, console, or auto: console when stderr is a terminal, else json.
        secrets: texts that are masked in every line.
        shows_outcomes: the command itself shows how a job ends, so no line does (`ENDS_JOB`).
    """
    handler = _StderrHandler(sys.stderr)
    handler.setFormatter(log_formatter(style, secrets, sys.stderr))
    if shows_outcomes:
        handler.addFilter(lambda record: not getattr(record, "ends_job", False))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _CLIENTS:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
    debugging = logging.getLogger().level <= logging.DEBUG
    for name in _SPOKEN_FOR:
        logging.getLogger(name).setLevel(logging.NOTSET if debugging else logging.CRITICAL + 1)
    logging.captureWarnings(capture=True)


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the current `sys.stderr`: a live panel replaces it, to print the lines above the panel."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line."""
        self.stream = sys.stderr
        super().emit(record)


class _LazyFormatter(logging.Formatter):
    """Makes the formatter when the first line is written.

    structlog imports half of Rich, which takes a tenth of the start of a command. Most write no line.
    """

    def __init__(self, style: str, secrets: Collection[str], stream: TextIO) -> None:
        super().__init__()
        self._wanted = style, secrets, stream
        self._formatter: logging.Formatter | None = None

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        if self._formatter is None:
            from shardline_common.telemetry.log_lines import (  # noqa: PLC0415 - slow to import
                line_formatter,
            )

            self._formatter = line_formatter(*self._wanted)
        return self._formatter.format(record)


def log_formatter(style: str, secrets: Collection[str], stream: TextIO) -> logging.Formatter:
    """The formatter of the lines of a stream. Its libraries are imported for the first line."""
    return _LazyFormatter(style, secrets, stream)


@contextmanager
def log_context(**fields: str | int) -> Iterator[None]:
    """Add fields to every line of this task, and of the tasks that it starts, while the context lasts."""
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def context_fields() -> dict[str, Any]:
    """The current fields of `log_context`."""
    return dict(_context.get())


def log_fields(**fields: object) -> Mapping[str, Any]:
    """Fields of one line: `_log.info("answered", extra=log_fields(status=200))`."""
    return {"fields": fields}


class RateLimitFilter(logging.Filter):
    """Passes one record of each message format in `seconds`, and drops the others.

    A client that cannot reach its server logs ten times a second; one whose topic was deleted, thousands of
    times. The next record that passes has the number of dropped records in the field `repeated`.
    """

    def __init__(self, seconds: float = 60.0, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds = seconds
        self._now = now
        self._passed: dict[str, float] = {}
        self._dropped: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record passes."""
        form, now = str(record.msg), self._now()
        if now - self._passed.get(form, -self._seconds) < self._seconds:
            self._dropped[form] = self._dropped.get(form, 0) + 1
            return False
        self._passed[form] = now
        if dropped := self._dropped.pop(form, 0):
            record.fields = {"repeated": dropped}
        return True


def limit_rate(*names: str) -> None:
    """Pass each message format of these loggers once a minute."""
    for name in names:
        logger = logging.getLogger(name)
        if not any(isinstance(item, RateLimitFilter) for item in logger.filters):
            logger.addFilter(RateLimitFilter())
