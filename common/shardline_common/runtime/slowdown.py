"""What slows a job down and is no failure, for `status`: a store that limits requests.

The producer of a job opens a Slowdown around the read of its source. A client below notes the reason, without
knowing the job. The reason is forgotten when it does not come again.
"""

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Slowdown:
    """The reason that was noted last, and until when it holds, in seconds of the event loop."""

    _reason: str = ""
    _until: float = 0.0

    def note(self, reason: str, seconds: float) -> None:
        """Note a reason that holds for so many seconds."""
        self._reason, self._until = reason, asyncio.get_running_loop().time() + seconds

    @property
    def reason(self) -> str | None:
        """The reason, while it holds."""
        return self._reason if asyncio.get_running_loop().time() < self._until else None


_current: ContextVar[Slowdown | None] = ContextVar("slowdown", default=None)


def open_slowdown() -> Slowdown:
    """A Slowdown for the rest of this task, and for the tasks that it starts from now on."""
    found = Slowdown()
    _current.set(found)
    return found


def note_slowdown(reason: str, seconds: float) -> None:
    """Note the reason in the Slowdown around this call, if there is one."""
    found = _current.get()
    if found is not None:
        found.note(reason, seconds)
