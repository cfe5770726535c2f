"""Calls for a pool of processes that end their process."""

import os
import signal
from multiprocessing.connection import Connection
from typing import Any


def die_while_sending() -> bytes:
    """Half of this result is sent; then the process is killed."""

    def send(self: Connection, data: Any, *_: object) -> None:
        os.write(self.fileno(), bytes(data)[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    Connection._send = send  # type: ignore[attr-defined]
    return b"x" * 60_000
