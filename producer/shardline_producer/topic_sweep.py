"""Orphan topics: those that appeared after their attempt had ended.

A request to create a topic can be late: its producer was stopped or cut off, and the attempt was
cancelled and cleaned up meanwhile. Kafka then holds a topic that nobody will ever use.
"""

import logging
from collections.abc import Callable

from shardline_common.errors import BrokerUnavailable
from shardline_common.job.names import parse_attempt_topic
from shardline_common.job.state import JobState
from shardline_common.ports.broker import Broker
from shardline_common.ports.clock import Clock

_log = logging.getLogger(__name__)


async def sweep_topics(
    broker: Broker, clock: Clock, seconds: float, known: Callable[[str], JobState | None]
) -> None:
    """Look again and again, until cancelled; `known` gives the state of a job that this producer owns.

    What is alive is never touched: of jobs unknown here nothing is removed, and a state that is old
    can only make us leave a topic, never take one.
    """
    while True:
        await clock.sleep(seconds)
        try:
            for name in await broker.topics():
                await _remove_if_orphan(broker, name, known)
        except BrokerUnavailable as error:
            _log.info("orphan topics are looked for later: %s", error)


async def _remove_if_orphan(broker: Broker, name: str, known: Callable[[str], JobState | None]) -> None:
    found = parse_attempt_topic(name)
    state = known(found[0]) if found else None
    if found and state is not None and state.has_done_with(found[1]) and await broker.delete_topic(name):
        _log.warning("the topic %s belonged to an attempt that has ended; removed", name)
