"""What an ended attempt leaves behind: its topic, the checkpoints of its slices, and staged rows."""

import logging
from dataclasses import dataclass
from functools import partial

from shardline_common.dataset.staged import remove_staged
from shardline_common.job.names import attempt_topic
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import State
from shardline_common.runtime.retry import retry_forever
from shardline_common.runtime.task_group import no_foreign_cancel
from shardline_producer.context import ProducerContext
from shardline_producer.slice_states import remove_slices

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Remains:
    """Those of one job, whose checkpoint is in `partition`."""

    context: ProducerContext
    spec: JobSpec
    partition: int

    async def remove_topic(self, attempt: int) -> None:
        """Delete the topic of an attempt, and the checkpoints of its slices."""
        topic = attempt_topic(self.spec.job_id, attempt)
        delete = partial(self.context.broker.delete_topic, topic)
        try:
            with no_foreign_cancel():
                await retry_forever(delete, self.context.clock, f"delete topic {topic}")
                await self.remove_slices(attempt)
        except Exception as error:  # noqa: BLE001 - the sweep deletes the topics of ended attempts too
            _log.error("the topic %s is deleted later: %s: %s", topic, type(error).__name__, error)

    async def remove_staged(self, state: State) -> None:
        """Remove the staged rows of a job in this state, if it is completed."""
        if state is not State.COMPLETED:
            return
        remove = partial(remove_staged, self.context.store, self.spec)
        try:
            with no_foreign_cancel():
                await retry_forever(remove, self.context.clock, "remove the staged rows")
        except Exception as error:  # noqa: BLE001 - the dataset is complete without it
            _log.error("the staged rows are not removed: %s: %s", type(error).__name__, error)

    async def remove_slices(self, attempt: int) -> None:
        """Delete the checkpoints of the slices of an attempt."""
        if self.spec.slices > 1:
            remove = partial(remove_slices, self.context, self.spec, self.partition, attempt)
            await retry_forever(remove, self.context.clock, f"remove the slices of {self.spec.job_id}")
