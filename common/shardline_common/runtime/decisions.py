"""Attempts that were decided, as the tasks of one process tell each other."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Decisions:
    """Calls listeners when the attempt of a job was decided or published in this process.

    A producer and a worker of one process share it, so that neither polls for what the other has done. An
    attempt that another process decides is still found by the polls.
    """

    def __init__(self) -> None:
        self._listeners: defaultdict[str, list[Callable[[], None]]] = defaultdict(list)

    def notify(self, job_id: str) -> None:
        """Call the listeners of a job. They must not raise."""
        for listener in tuple(self._listeners.get(job_id, ())):
            listener()

    @contextmanager
    def listening(self, job_id: str, listener: Callable[[], None]) -> Iterator[None]:
        """Call `listener` for each notification about a job while the body runs."""
        self._listeners[job_id].append(listener)
        try:
            yield
        finally:
            self._listeners[job_id].remove(listener)
            if not self._listeners[job_id]:
                del self._listeners[job_id]
