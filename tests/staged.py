"""Messages of one partition of an assembled job, and how a worker lands them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from shardline_common.assembly.sidecar import RECORDS, SidecarKind, sidecar_batches
from shardline_common.dataset.chain import Chain, ChainRecord, SegmentObject, Totals
from shardline_common.dataset.segment_check import SegmentRules
from shardline_common.job.columns import Columns
from shardline_common.job.messages import (
    DeadLetter,
    Facts,
    encode_dead_letter,
    encode_document,
    encode_position,
)
from shardline_common.job.names import Layout
from shardline_common.job.segment_limits import SegmentLimits
from shardline_common.job.spec import JobSpec
from shardline_common.memory.broker import MemoryBroker
from shardline_common.ports.broker import Record
from shardline_common.ports.store import ObjectStore
from shardline_consumer.commit import SegmentSink
from shardline_consumer.filters.clara import Judge
from shardline_consumer.staging.segment import StagedSegment
from tests.make import end, job, worker_context

SCORE = 0.2
"""The least score of a row: a document with no field and a short text has less."""
EVERYTHING: dict[str, Any] = {
    "dedup": {"exact": True, "near": {"bands": 3, "rows": 2, "verify": 0.5}},
    "sample": {"rows": 10, "seed": 3},
}
LIMITS = SegmentLimits(row_bytes=1500, scanned_bytes=6000, records=9)


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a source: `kind` is row, rejected, empty or dead. Two may have one id, or one text."""

    kind: str
    id: str
    text: str = ""


def assembled_job(**changes: Any) -> JobSpec:
    """An assembled job of one partition."""
    quality = {"min_score": SCORE, "keep_rejected": True}
    return job(**({"quality": quality, "output": {"layout": "assembled"}, "partitions": 1} | changes))


def message(sequence: int, item: Item) -> Record:
    """The message of an item; its ordinal in the source is 3 for sequence 0, then 6, 9 …"""
    key, position = item.id.encode(), encode_position((0, sequence, 3 * (sequence + 1)))
    if item.kind == "dead":
        letter = DeadLetter("invalid_json", "mend it", "00", 1, b"{")
        return Record(0, sequence, key, encode_dead_letter(sequence, position, letter))
    head = orjson.dumps({"text": item.text})[:-1] + b',"quality_score":'
    tail = b',"document_id":' + orjson.dumps(item.id) + b"}\n"
    facts = Facts(
        1001 if item.kind == "row" else 1, 3, 3 if item.kind == "row" else 0, item.kind == "empty", 0.0
    )
    return Record(0, sequence, key, encode_document(sequence, position, facts, head, tail))


def messages(items: Sequence[Item]) -> list[Record]:
    """The messages of a partition, with its end marker."""
    found = [message(sequence, item) for sequence, item in enumerate(items)]
    return [*found, end(found)]


def sink_of(store: ObjectStore, spool: Path, spec: JobSpec, attempt: int = 1) -> SegmentSink:
    """What commits the segments of a job."""
    return SegmentSink(worker_context(MemoryBroker(), store, spool), spec, attempt)


def open_segment(
    spec: JobSpec, spool: Path, head: ChainRecord | None, limits: SegmentLimits = LIMITS
) -> StagedSegment:
    """The segment behind a chain."""
    first, before = (head.next, head.upto) if head else (0, Totals())
    judge = Judge(spec.quality.min_score)
    return StagedSegment(first, before, judge, limits, spool, spec=spec, partition=0)


async def land(
    sink: SegmentSink, records: Sequence[Record], sizes: Iterator[int], limits: SegmentLimits = LIMITS
) -> list[ChainRecord]:
    """Land messages behind the end of the chain, polled in batches of these sizes, then all at once."""
    spec, spool, rest = sink.spec, sink.context.spool, list(records)
    head = await sink.chain(0).head()
    segment, found = open_segment(spec, spool, head, limits), list[ChainRecord]()
    try:
        while rest:
            size = next(sizes, len(rest))
            batch, rest = rest[:size], rest[size:]
            while batch:
                batch = batch[segment.take(batch).used :]
                if segment.closed:
                    head, _ = await sink.commit_segment(0, segment, lambda: None)
                    found.append(head)
                    segment.discard()
                    segment = open_segment(spec, spool, head, limits)
    finally:
        segment.discard()
    return found


async def chain(store: ObjectStore, spec: JobSpec) -> list[ChainRecord]:
    """The chain of the partition."""
    return [record async for record in Chain(store, Layout.of(spec), 0).records()]


def sidecar(record: ChainRecord, name: str) -> SegmentObject:
    """The sidecar of a segment with this name."""
    found = getattr(record.objects, name)
    assert isinstance(found, SegmentObject)
    return found


async def lines(
    store: ObjectStore, spec: JobSpec, key: str, folder: Path, kind: SidecarKind = RECORDS
) -> list[dict[str, Any]]:
    """The lines of a sidecar; `key` is relative to the dataset."""
    path = folder / "sidecar.parquet"
    path.write_bytes(await store.get(Layout.of(spec).root + key))
    try:
        return [line for batch in sidecar_batches(path, kind) for line in batch.to_pylist()]
    finally:
        path.unlink()


def rules_of(spec: JobSpec, **changes: Any) -> SegmentRules:
    """What segments of a job are checked against."""
    return SegmentRules(Layout.of(spec), Columns.from_json({}), spec.max_document_bytes, False, **changes)
