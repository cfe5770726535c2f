"""The consumers of aiokafka behind the readers: made, watched and stopped."""

import asyncio
import logging
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import LeaderNotAvailableError

from shardline_common.kafka.answers import Answers
from shardline_common.kafka.client_errors import Request
from shardline_common.kafka.client_internals import brokers_of, close_connections, without_leader
from shardline_common.kafka.operations import Operations
from shardline_common.kafka.options import KafkaOptions
from shardline_common.ports.broker import Record
from shardline_common.runtime.tasks import close_shielded

_log = logging.getLogger(__name__)
_STOP_SECONDS = 10.0


def make_consumer(options: KafkaOptions, *topics: str, **more: Any) -> AIOKafkaConsumer:
    """A consumer that commits nothing by itself. It is not started."""
    return AIOKafkaConsumer(
        *topics,
        **options.client(),
        enable_auto_commit=False,
        # The client that is watched checks them.
        check_crcs=False,
        max_partition_fetch_bytes=options.fetch_bytes,
        **{"isolation_level": "read_committed", "auto_offset_reset": "none"} | more,
    )


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer, and close its connections even when its `stop` fails or hangs."""

    async def stop() -> None:
        # The helper task of the consumer must have run once: cancelled before, it cancels this task.
        await asyncio.sleep(0)
        try:
            # It waits for the answer to a request to join, which a coordinator that is frozen does not give.
            async with asyncio.timeout(_STOP_SECONDS):
                await consumer.stop()
        except TimeoutError:
            _log.info("a consumer did not stop within %.0f s; its connections are closed", _STOP_SECONDS)
        finally:
            # `stop` fails early when the consumer waits to fetch again from a broker that is down.
            await close_connections(consumer)

    await close_shielded(stop)


def to_record(found: Any) -> Record:
    """A record of the client as one of the port."""
    return Record(found.partition, found.offset, found.key, found.value, found.headers)


class ReadWatch:
    """Counts a reader as failing while brokers refuse its fetches, or while a partition has no leader.

    The client repeats fetches in silence: to its user a refused fetch looks like a partition without news.
    """

    def __init__(
        self, operations: Operations, consumer: AIOKafkaConsumer, answers: Answers, request: Request
    ) -> None:
        self._consumer = consumer
        self._answers = answers
        self._wait = operations.wait(request)

    def check(self) -> None:
        """Look at the answers of the brokers that are needed. Call it after each poll."""
        needed = brokers_of(self._consumer)
        if needed is not None:
            # Another broker may lead the partitions by now.
            self._answers.forget_brokers(needed)
        if without_leader(self._consumer):
            self._answers.failed("Leader", None, LeaderNotAvailableError())
        else:
            self._answers.succeeded("Leader", None)
        if self._answers.last is not None:
            self._wait.begin()
        elif "Fetch" in self._answers.successes:
            self._wait.succeed()
        else:
            self._wait.end()

    def end(self) -> None:
        """The reader is closed."""
        self._wait.end()
