"""Builders of jobs and messages."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from shardline_common.job.hashing import add, document_hash
from shardline_common.job.messages import (
    DeadLetter,
    End,
    Facts,
    encode_dead_letter,
    encode_document,
    encode_end,
    encode_position,
)
from shardline_common.job.spec import JobSpec, parse_job
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.broker import Broker, Record
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.telemetry.metrics import Metrics
from shardline_consumer.context import WorkerContext
from shardline_consumer.spool.budget import SpoolBudget
from shardline_producer.plan_pages import StoredPlanPages


def memory_pages() -> StoredPlanPages:
    """Plan pages in memory, of one process."""
    return StoredPlanPages(MemoryStore(), "")


def job(**changes: Any) -> JobSpec:
    """A job over files, with the given fields changed."""
    body = {"job_id": "test", "name": "Test", "source": {"type": "files", "paths": ["in.jsonl"]}} | changes
    return parse_job(orjson.dumps(body))


def sample_job(job_id: str, **changes: object) -> dict[str, object]:
    """The body of a job over sample.jsonl: two partitions, chains of several segments."""
    body: dict[str, object] = {
        "job_id": job_id,
        "name": "sample",
        "source": {"type": "files", "paths": ["sample.jsonl"]},
        "output": {"shard_bytes": 65_536},
        "partitions": 2,
    }
    return body | changes


def document(
    sequence: int, *, chars: int = 1200, blank: bool = False, present: int = 3, relevance: float = 0.0
) -> Record:
    """A document message at the offset of its sequence."""
    key = f"doc-{sequence}".encode()
    head = b'{"text":"' + b"x" * chars + b'","quality_score":'
    tail = b',"document_id":"' + key + b'"}\n'
    facts = Facts(chars, 3, present, blank, relevance)
    position = encode_position((0, sequence + 1, sequence + 1))
    return Record(0, sequence, key, encode_document(sequence, position, facts, head, tail))


def dead(sequence: int, original: bytes = b"{") -> Record:
    """A dead message."""
    letter = DeadLetter("invalid_json", "mend it", "00", len(original), original)
    position = encode_position((0, sequence + 1, sequence + 1))
    return Record(
        0, sequence, f"in.jsonl:{sequence}".encode(), encode_dead_letter(sequence, position, letter)
    )


def end(records: Sequence[Record]) -> Record:
    """The end marker behind these messages, which are a partition's from 0 on."""
    hash_sum = 0
    for record in records:
        hash_sum = add(hash_sum, document_hash(record.key or b""))
    return Record(0, len(records), b"end", encode_end(End(len(records), hash_sum)))


def worker_context(broker: Broker, store: ObjectStore, spool: Path, **changes: Any) -> WorkerContext:
    """What a worker of a test works with: it looks for the end of attempts every 0.2 s."""
    values: dict[str, Any] = {
        "clock": SystemClock(),
        "metrics": Metrics(),
        "budget": SpoolBudget(1 << 30),
        "uploads": asyncio.Semaphore(4),
        "finish_seconds": 0.2,
    }
    return WorkerContext(broker=broker, store=store, spool=spool, **(values | changes))
