"""Named places at which a test may kill or stop the process: no-ops until SHARDLINE_FAILPOINTS arms them.

`SHARDLINE_FAILPOINTS="worker.after_data=kill@3,producer.before_commit=stop"`: at the third passage of
the one and the first of the other the process gets the signal from itself, as if it came at exactly
that moment. For tests and drills only: nothing else sets the variable.
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
    """Pass the place of that name, unless it is armed."""
    if not _armed:
        return
    armed = _armed.get(name)
    if armed is None:
        return
    armed.passages -= 1
    if armed.passages == 0:
        os.kill(os.getpid(), getattr(signal, armed.signal))


def arm(environ: Mapping[str, str]) -> None:
    """Arm what the environment names.

    Raises:
        UsageError: a place or a signal that there is not.
    """
    _armed.clear()
    for part in filter(None, environ.get(VARIABLE, "").split(",")):
        name, _, order = part.partition("=")
        action, _, passages = order.partition("@")
        if name not in POINTS or action not in _SIGNALS or not (passages or "1").isdecimal():
            raise UsageError(
                f"{VARIABLE}: '{part}' is no failpoint",
                hint=f"NAME=kill|stop[@N], with NAME one of {', '.join(POINTS)}",
            )
        _armed[name] = _Armed(_SIGNALS[action], int(passages or "1"))
