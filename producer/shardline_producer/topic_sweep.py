"""The sweep of orphan topics: topics that were created after their attempt had ended.

A request to create a topic can reach Kafka late: its producer was paused or disconnected while the attempt
was cancelled and cleaned up. Nothing else removes such a topic.
"""

import logging
from collections.abc import Callable

from shardline_common.job.names import parse_attempt_topic
from shardline_common.job.state import JobState
from shardline_common.ports.broker import Broker
from shardline_common.ports.clock import Clock
from shardline_common.runtime.unexpected import UnexpectedErrors
from shardline_producer.sweep import repeat_sweep

_log = logging.getLogger(__name__)


async def sweep_topics(
    broker: Broker,
    clock: Clock,
    seconds: float,
    state_of: Callable[[str], JobState | None],
    errors: UnexpectedErrors,
) -> None:
    """Delete orphan topics every `seconds`, until cancelled.

    Args:
        broker: the broker of the topics.
        clock: sleeps between sweeps.
        seconds: the interval.
        state_of: returns the state of a job that this producer owns, else None. Topics of other jobs are
            kept. With an old state an orphan may be kept, but no topic in use is deleted.
        errors: logs what nobody has foreseen; the next sweep follows.
    """

    async def sweep() -> None:
        for name in await broker.topics():
            await _remove_if_orphan(broker, name, state_of)

    await repeat_sweep(sweep, "orphan topics", clock, seconds, errors)


async def _remove_if_orphan(broker: Broker, name: str, state_of: Callable[[str], JobState | None]) -> None:
    found = parse_attempt_topic(name)
    state = state_of(found[0]) if found else None
    if found and state is not None and state.releases_topic_of(found[1]) and await broker.delete_topic(name):
        _log.warning("the topic %s of an ended attempt was deleted", name)
