"""The audit log: one JSON line for each action, with user, time, request id and outcome."""

import logging
from pathlib import Path

import orjson

from shardline.gateway.middleware import request_id
from shardline.gateway.users import User
from shardline_common.errors import UsageError
from shardline_common.ports.clock import Clock
from shardline_common.runtime.clock import stamp
from shardline_common.telemetry.logs import log_fields

_log = logging.getLogger("shardline.audit")


class AuditLog:
    """Appends to a file, or to the process log when `path` is None. It never holds query texts or tokens."""

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def check_writable(self) -> None:
        """Create the file's folder. Raise UsageError when the file cannot be opened for appending."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.open("ab").close()
        except OSError as error:
            raise UsageError(
                f"GATEWAY_AUDIT_LOG: {self._path} cannot be written: {error.strerror}",
                hint="set GATEWAY_AUDIT_LOG to a file that the gateway may append to",
            ) from None

    def record(self, user: User | None, action: str, outcome: str, **details: object) -> None:
        """Record an action. `outcome` is an HTTP status or, for a stream, a StreamOutcome."""
        line = {
            "at": stamp(self._clock),
            "request_id": request_id.get(),
            "user_id": user.id if user else None,
            "user": user.name if user else None,
            "action": action,
            "outcome": outcome,
        }
        if self._path is None:
            _log.info("%s: %s", action, outcome, extra=log_fields(**line | details))
            return
        body = orjson.dumps(line | details)
        # One short write in append mode, so that lines of several gateways do not mix.
        with self._path.open("ab", buffering=0) as file:
            file.write(body + b"\n")
