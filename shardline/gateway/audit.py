"""The audit log: who did what, when, under which request id, and how it ended. One JSON line each."""

import logging
from pathlib import Path
from typing import Any

import orjson

from shardline.gateway.middleware import request_id
from shardline.gateway.users import User
from shardline_common.errors import UsageError
from shardline_common.ports.clock import Clock
from shardline_common.runtime.clock import stamp
from shardline_common.telemetry.logs import about as fields

_log = logging.getLogger("shardline.audit")


class Audit:
    """Appends to a file, or to the log where there is none. Query texts and tokens are never in it."""

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def check(self) -> None:
        """Raise UsageError when the file cannot be appended to."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.open("ab").close()
        except OSError as error:
            raise UsageError(f"GATEWAY_AUDIT_LOG: {self._path}: {error.strerror}") from None

    def record(self, user: User | None, action: str, outcome: str, **about: Any) -> None:
        """Record one act: `outcome` is a status, or a word such as complete, aborted, client_gone."""
        line = {
            "at": stamp(self._clock),
            "request_id": request_id.get(),
            "user_id": user.id if user else None,
            "user": user.name if user else None,
            "action": action,
            "outcome": outcome,
        }
        if self._path is None:
            _log.info("%s: %s", action, outcome, extra=fields(**line | about))
            return
        body = orjson.dumps(line | about)
        # One short write in append mode: lines of several gateways do not mix.
        with self._path.open("ab", buffering=0) as file:
            file.write(body + b"\n")
