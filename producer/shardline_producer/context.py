"""What a producer works with, and its policy."""

import asyncio
from dataclasses import dataclass, field

from shardline_common.ports.broker import Broker
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.notifications.outbox import Receiver
from shardline_producer.sources.source import OpenSource

_SLICE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a job may read: documents per second; 0 is no limit."""

    rate: float = 0.0

    @property
    def slice(self) -> int:
        """Documents of one transaction under this limit; 0: as many as the source gives at once."""
        return max(1, int(self.rate * _SLICE_SECONDS)) if self.rate else 0


@dataclass(frozen=True, slots=True)
class ProducerPolicy:
    """The limits of a producer, in bytes and seconds.

    `topic_bytes`: what a topic may hold that no chain holds. `topic_grace`: how long a topic outlives its
    attempt. `progress_seconds`: how often the chains are read. `catch_up_seconds`: the longest time to read
    the checkpoints. `sweep_seconds`: how often orphan topics are looked for. `source_seconds`: how long a
    source may be unreachable before its job fails.
    """

    topic_bytes: int = 1 << 30
    topic_grace: float = 60.0
    progress_seconds: float = 1.0
    catch_up_seconds: float = 120.0
    sweep_seconds: float = 300.0
    source_seconds: float = 900.0
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True, slots=True)
class ProducerContext:
    """The ports of a producer, its policy, and what its jobs share.

    `slots` bounds the jobs that run at once; more are queued. `receiver` gets a notification of each
    attempt that ends; None: there are no notifications.
    """

    broker: Broker
    store: ObjectStore
    clock: Clock
    metrics: Metrics
    open_source: OpenSource
    policy: ProducerPolicy
    slots: asyncio.Semaphore
    receiver: Receiver | None = None
