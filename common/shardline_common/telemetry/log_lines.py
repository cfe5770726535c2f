"""How a record of the standard library becomes a line. It imports structlog, and with it Rich."""

import json
import logging
from collections.abc import Collection, Iterable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO

from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import JSONRenderer, format_exc_info
from structlog.stdlib import ProcessorFormatter
from structlog.typing import Processor

from shardline_common.errors import ShardlineError
from shardline_common.runtime.masking import Masker
from shardline_common.telemetry.logs import context_fields
from shardline_common.telemetry.tracing import current_traceparent

_Fields = MutableMapping[str, Any]

_UNMASKED = frozenset({"time", "level", "logger"})
_ORDER = {"job": 1, "attempt": 2, "partition": 3, "request_id": 4}
_CONTROL = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160))}
_CONTROL_BUT_NEWLINE = {number: text for number, text in _CONTROL.items() if chr(number) != "\n"}


def line_formatter(style: str, secrets: Collection[str], stream: TextIO) -> logging.Formatter:
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
