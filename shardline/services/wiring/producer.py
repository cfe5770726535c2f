"""The wiring of settings to a producer's policy."""

import asyncio

from shardline_common.runtime.waits import LoggedSemaphore
from shardline_common.settings.load import Settings
from shardline_producer.context import Pace, ProducerPolicy


def producer_policy(settings: Settings) -> ProducerPolicy:
    """Return the limits of a producer."""
    return ProducerPolicy(
        topic_bytes=settings.topic_limit_bytes,
        topic_grace=settings.topic_grace_seconds,
        progress_seconds=settings.progress_seconds,
        catch_up_seconds=2 * settings.kafka_transaction_timeout_ms / 1000,
        sweep_seconds=settings.sweep_seconds,
        source_seconds=settings.source_patience_seconds,
        pace=Pace(settings.source_rate),
    )


def job_slots(settings: Settings) -> asyncio.Semaphore:
    """Return a semaphore that limits the jobs that a producer runs at once."""
    return LoggedSemaphore(settings.max_jobs, f"a slot: {settings.max_jobs} jobs run (SHARDLINE_MAX_JOBS)")
