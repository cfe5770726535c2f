"""What a producer is made of, and its policy."""

import asyncio
from dataclasses import dataclass, field

from shardline_common.ports.broker import Broker
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.notifications.outbox import Receiver
from shardline_producer.pipeline import Pace
from shardline_producer.sources.source import OpenSource


@dataclass(frozen=True, slots=True)
class Limits:
    """A producer's policy: bytes a topic may hold unconsumed, seconds, and documents per second."""

    topic_bytes: int = 1 << 30
    topic_grace: float = 60.0
    progress_seconds: float = 1.0
    catch_up_seconds: float = 120.0
    sweep_seconds: float = 300.0
    source_seconds: float = 900.0
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True, slots=True)
class ProducerParts:
    """The ports, the policy, and the slots: as many jobs run at once, more are queued.

    `receiver`: who is told how attempts end; None is nobody.
    """

    broker: Broker
    store: ObjectStore
    clock: Clock
    metrics: Metrics
    open_source: OpenSource
    limits: Limits
    slots: asyncio.Semaphore
    receiver: Receiver | None = None
