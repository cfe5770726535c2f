"""The port through which an attempt reads and changes the committed state of its job."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from shardline_common.errors import JobFailed
from shardline_common.job.state import JobState
from shardline_common.ports.broker import TransactionalWriter


class JobStateStore(Protocol):
    """Access to the committed state of one job."""

    def fence_and_load(self) -> AbstractAsyncContextManager[tuple[TransactionalWriter, JobState]]:
        """Open a writer that fences every other producer of the job, and read the last committed state.

        Raises:
            BrokerUnavailable: try again.
        """

    async def load_state(self) -> JobState:
        """Read the last committed state without fencing. Raises BrokerUnavailable."""

    async def record_blocked(self, attempt: int, error: JobFailed) -> None:
        """Commit why the attempt cannot end: `JobState.blocked`."""
