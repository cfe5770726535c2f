"""Logs: one line for each event, as JSON or in columns.

All modules log by the standard library (`logging.getLogger(__name__)`). A line has the fields time, level,
logger and event; those of `log_context` (job, attempt, partition, request_id); those of `log_fields`;
`trace_id` within a trace; and `hint`, that of the first ShardlineError among the arguments of the record.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, TextIO

from structlog.contextvars import bound_contextvars, get_contextvars
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import JSONRenderer, format_exc_info
from structlog.stdlib import ProcessorFormatter
from structlog.typing import Processor

from shardline_common.errors import ShardlineError
from shardline_common.runtime.masking import Masker
from shardline_common.telemetry.tracing import current_traceparent

_Fields = MutableMapping[str, Any]

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
_UNMASKED = frozenset({"time", "level", "logger"})
_ORDER = {"job": 1, "attempt": 2, "partition": 3, "request_id": 4}
_CONTROL = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160))}
_CONTROL_BUT_NEWLINE = {number: text for number, text in _CONTROL.items() if chr(number) != "\n"}


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


def log_formatter(style: str, secrets: Collection[str], stream: TextIO) -> logging.Formatter:
    """The formatter of the lines of a stream."""
    console = style == "console" or (style == "auto" and stream.isatty())
    last: list[Processor] = [_escape_control, _console(stream)] if console else [_JSON]
    processors: list[Processor] = [
        _add_record,
        _add_context,
        _add_line_fields,
        _add_trace_id,
        _add_hint,
        format_exc_info,
        ProcessorFormatter.remove_processors_meta,
        Masking(secrets),
    ]
    return ProcessorFormatter(processors=processors + last, pass_foreign_args=True)


def log_context(**fields: str | int) -> AbstractContextManager[None]:
    """Add fields to every line of this task, and of the tasks that it starts, while the context lasts."""
    return bound_contextvars(**fields)


def context_fields() -> dict[str, Any]:
    """The current fields of `log_context`."""
    return get_contextvars()


def log_fields(**fields: object) -> Mapping[str, Any]:
    """Fields of one line: `_log.info("answered", extra=log_fields(status=200))`."""
    return {"fields": fields}


def _console(stream: TextIO) -> Processor:
    # Rich's tracebacks, the default, show local variables, which may hold secrets.
    return ConsoleRenderer(
        colors=stream.isatty(),
        pad_event_to=40,
        timestamp_key="time",
        exception_formatter=plain_traceback,
        sort_keys=False,
    )


# Without ASCII escapes, so that words can be searched. stderr escapes a lone surrogate.
_JSON = JSONRenderer(json.dumps, ensure_ascii=False)


def _add_record(_: Any, __: str, fields: _Fields) -> _Fields:
    record: logging.LogRecord = fields["_record"]
    stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return {
        "time": stamp.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        **fields,
    }


def _add_context(_: Any, __: str, fields: _Fields) -> _Fields:
    bound = context_fields()
    # In a fixed order, so that lines can be compared.
    return {**fields, **{name: bound[name] for name in sorted(bound, key=lambda name: _ORDER.get(name, 9))}}


def _add_line_fields(_: Any, __: str, fields: _Fields) -> _Fields:
    for name, value in getattr(fields["_record"], "fields", {}).items():
        fields.setdefault(name, value)
    return fields


def _add_trace_id(_: Any, __: str, fields: _Fields) -> _Fields:
    traceparent = current_traceparent()
    return fields if traceparent is None else {**fields, "trace_id": traceparent.split("-")[1]}


def _add_hint(_: Any, __: str, fields: _Fields) -> _Fields:
    # A record whose only argument is a mapping has no positional arguments.
    arguments = fields.pop("positional_args", ())
    found = arguments if isinstance(arguments, tuple) else ()
    hints = [error.hint for error in found if isinstance(error, ShardlineError) and error.hint]
    return {**fields, "hint": hints[0]} if hints else fields


def _escape_control(_: Any, __: str, fields: _Fields) -> _Fields:
    # Input, such as a path or an id, must not start a new line or control the terminal.
    return {
        name: value.translate(_CONTROL_BUT_NEWLINE if name == "exception" else _CONTROL)
        if isinstance(value, str)
        else value
        for name, value in fields.items()
    }


class Masking:
    """Masks secrets in the values of a line (`runtime.masking`)."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._masker = Masker(secrets)

    def __call__(self, _: Any, __: str, fields: _Fields) -> _Fields:
        """Mask the values. A value of an unknown type becomes text."""
        return {name: value if name in _UNMASKED else self._masked(value) for name, value in fields.items()}

    def _masked(self, value: object) -> object:
        if value is None or isinstance(value, int | float):
            return value
        if isinstance(value, Mapping):
            return {str(name): self._masked(item) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._masked(item) for item in value]
        return self._masker.mask(str(value))


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
