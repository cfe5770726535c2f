"""The audit log: one JSON line for each action, with user, roles, dataset, time, request id and outcome."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shardline.gateway.audit_file import AuditFile, AuditLimits
from shardline.gateway.middleware import request_id
from shardline.gateway.users import User
from shardline_common.errors import UsageError
from shardline_common.ports.clock import Clock
from shardline_common.runtime.clock import stamp
from shardline_common.telemetry.logs import log_fields

_log = logging.getLogger("shardline.audit")

OnAction = Callable[[str, str, str], None]
"""Called with the action, the highest role of the user ("none" without one) and the outcome of each line."""


class AuditLog:
    """Appends to a file, or to the process log when `path` is None. It never holds query texts or tokens."""

    def __init__(
        self,
        path: Path | None,
        clock: Clock,
        limits: AuditLimits | None = None,
        on_action: OnAction = lambda *_: None,
    ) -> None:
        self._path = path
        self._file = AuditFile(path, limits) if path is not None else None
        self._clock = clock
        self._on_action = on_action

    def check_writable(self) -> None:
        """Create the file's folder. Raise UsageError when the file cannot be opened for appending."""
        if self._file is None:
            return
        try:
            missing = self._file.check_writable()
        except OSError as error:
            raise UsageError(
                f"GATEWAY_AUDIT_LOG: {self._path} cannot be written: {error.strerror}",
                hint="set GATEWAY_AUDIT_LOG to a file that the gateway may append to",
            ) from None
        if missing is not None:
            _log.error("the audit log is not whole: %s", missing)

    def record(self, user: User | None, action: str, outcome: str, **details: object) -> None:
        """Record an action.

        Args:
            user: None when nobody is authenticated.
            action: a word, or for a request that was refused before its action is known, method and path.
            outcome: an HTTP status or, for a stream, a StreamOutcome.
            details: `dataset`, and what else is known about the action.
        """
        fields: dict[str, Any] = {
            "at": stamp(self._clock),
            "request_id": request_id.get(),
            "user_id": user.id if user else None,
            "user": user.name if user else None,
            "roles": list(user.known_roles) if user else [],
            "action": action,
            "outcome": outcome,
        }
        fields |= details
        self._on_action(action if " " not in action else "request", _role(user), outcome)
        if self._file is None:
            _log.info("%s: %s", action, outcome, extra=log_fields(**fields))
            return
        self._file.append({name: _writable(value) for name, value in fields.items()})


def _role(user: User | None) -> str:
    return next(iter(user.known_roles), "none") if user else "none"


def _writable(value: object) -> object:
    # JSON has no lone surrogates, and a line that cannot be written would be an action without a record.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
