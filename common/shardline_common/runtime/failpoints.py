"""Failpoints: named places in the code at which a test kills or stops the process.

`SHARDLINE_FAILPOINTS="worker.after_data=kill@3,producer.after_commit=stop"` sends SIGKILL at the third
passage of the first, and SIGSTOP at the first passage of the second. Without the variable a failpoint does
nothing. For tests and drills only.
"""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from shardline_common.errors import UsageError

VARIABLE = "SHARDLINE_FAILPOINTS"
POINTS = (
    "producer.before_begin",
    "producer.after_publish",
    "producer.after_checkpoint",
    "producer.after_commit",
    "worker.before_spool",
    "worker.after_spool",
    "worker.before_data",
    "worker.after_data",
    "staging.before_sidecar",
    "assembly.before_decision",
    "assembly.after_decision",
    "assembly.before_shard",
    "assembly.after_shard",
    "worker.before_chain",
    "worker.after_chain",
    "worker.after_commit",
    "webhook.before_checkpoint",
    "webhook.before_send",
    "webhook.after_send",
    "worker.before_outcome",
    "worker.after_outcome",
    "worker.after_manifest",
    "worker.after_success",
)
_SIGNALS = {"kill": "SIGKILL", "stop": "SIGSTOP"}


@dataclass(slots=True)
class _Armed:
    signal: str
    passages: int


_armed: dict[str, _Armed] = {}


def failpoint(name: str) -> None:
    """Count a passage of the failpoint. Send the signal when it is armed for this passage."""
    if not _armed:
        return
    armed = _armed.get(name)
    if armed is None:
        return
    armed.passages -= 1
    if armed.passages == 0:
        os.kill(os.getpid(), getattr(signal, armed.signal))


def arm(environ: Mapping[str, str]) -> None:
    """Arm the failpoints that the environment names, and disarm all others.

    Raises:
        UsageError: the variable names an unknown failpoint or action.
    """
    _armed.clear()
    for part in filter(None, environ.get(VARIABLE, "").split(",")):
        name, _, command = part.partition("=")
        action, _, passages = command.partition("@")
        if name not in POINTS or action not in _SIGNALS or not (passages or "1").isdecimal():
            raise UsageError(
                f"{VARIABLE}: '{part}' is not a failpoint",
                hint=f"write NAME=kill|stop[@N], with NAME one of {', '.join(POINTS)}",
            )
        _armed[name] = _Armed(_SIGNALS[action], int(passages or "1"))
