"""The stages of an assembled job, each in a process of its own, over one store in a folder.

What a worker does with messages is measured; the messages are made between the measurements.
"""

import asyncio
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from shardline_common.dataset.assembled import read_head
from shardline_common.dataset.chain import Totals
from shardline_common.errors import ObjectMissing
from shardline_common.job.plan import Plan
from shardline_common.job.segment_limits import SegmentLimits
from shardline_common.job.spec import JobSpec
from shardline_common.memory.broker import MemoryBroker
from shardline_common.storage.directory import DirectoryStore
from shardline_consumer.assembly.deciding import decide as decide_attempt
from shardline_consumer.assembly.landed import SidecarFolder, read_landed
from shardline_consumer.assembly.stages import Assembly
from shardline_consumer.commit import SegmentSink
from shardline_consumer.filters.clara import Judge
from shardline_consumer.segment import OpenSegment
from shardline_consumer.spool.budget import SpoolBudget
from shardline_consumer.staging.segment import StagedSegment
from tests.benchmarks.assembly.documents import SEED, Topic, documents
from tests.make import job, worker_context

PARTITIONS = 4
_SPLITS = {"order": {"seed": SEED}, "splits": {"validation": 0.05, "train": 0.95}}
_JOBS: dict[str, dict[str, Any]] = {
    "stream": {},
    "order": {"output": _SPLITS},
    "exact": {"output": _SPLITS, "dedup": {"exact": True}},
    "near": {"output": _SPLITS, "dedup": {"near": True}},
}
KINDS = tuple(_JOBS)


def spec_of(kind: str) -> JobSpec:
    """A job of this kind."""
    return job(**(_JOBS[kind] | {"partitions": PARTITIONS, "quality": {"min_score": 0.1}}))


def sink_of(folder: Path, kind: str, memory: int, threads: int) -> SegmentSink:
    """What commits the segments of a job to the store in the folder."""
    spool = folder / "spool"
    spool.mkdir(parents=True, exist_ok=True)
    context = worker_context(
        MemoryBroker(),
        DirectoryStore(folder / "store"),
        spool,
        budget=SpoolBudget(1 << 40),
        decide_memory=memory << 20,
        decide_threads=threads,
    )
    return SegmentSink(context, spec_of(kind), 1)


async def land(sink: SegmentSink, count: int) -> float:
    """Land the documents, and return the CPU-seconds that it took."""
    spec, topic, cost = sink.spec, Topic(PARTITIONS), 0.0
    limits = SegmentLimits.of(spec)
    await sink.context.store.create(sink.layout.plan, Plan([], {}).encode())
    segments = [_opened(sink, number, Totals(), 0, limits) for number in range(PARTITIONS)]

    async def commit(number: int) -> None:
        segment = segments[number]
        await sink.commit_segment(number, segment, lambda: None)
        before = segment.before.plus(segment.totals)
        segment.discard()
        segments[number] = _opened(sink, number, before, segment.next, limits)

    for part in documents(count):
        sent = topic.send(part)
        started = time.process_time()
        for number, records in enumerate(sent):
            while records:
                records = records[segments[number].take(records).used :]  # noqa: PLW2901 - the rest of them
                if segments[number].closed:
                    await commit(number)
        cost += time.process_time() - started
    started = time.process_time()
    for number, segment in enumerate(segments):
        if segment.next > segment.first:
            await commit(number)
        segment.discard()
    return cost + time.process_time() - started


def _opened(sink: SegmentSink, number: int, before: Totals, first: int, limits: SegmentLimits) -> OpenSegment:
    spec, judge = sink.spec, Judge(sink.spec.quality.min_score)
    if not spec.assembled:
        return OpenSegment(first, before, judge, limits, sink.context.spool, rejected_lines=None)
    return StagedSegment(first, before, judge, limits, sink.context.spool, spec=spec, partition=number)


async def decide(sink: SegmentSink) -> float:
    """Decide the dataset from what has landed. Returns the CPU-seconds."""
    started = time.process_time()
    segments = await read_landed(sink)
    sidecars = SidecarFolder(sink, segments)
    await sidecars.open()
    try:
        await decide_attempt(sink, segments, sidecars)
    finally:
        await sidecars.close()
    return time.process_time() - started


async def assemble(sink: SegmentSink) -> float:
    """Make all final shards of a decided dataset, one time more where they exist. Returns the CPU-seconds."""
    head, _ = await read_head(sink.context.store, sink.layout)
    for split in head.splits:
        for cut in split.shards:
            keys = [sink.layout.shard_record(split.name, cut.number)]
            keys.append(sink.layout.shard(split.name, cut.number, len(split.shards)))
            with suppress(ObjectMissing):
                await sink.context.store.delete(keys)
    started = time.process_time()
    assembly = Assembly(sink, range(PARTITIONS))
    try:
        if not await assembly.advance():
            raise RuntimeError("shards are missing")
    finally:
        await assembly.close()
    return time.process_time() - started


def run_stage(stage: str, folder: Path, kind: str, count: int, memory: int, threads: int) -> float:
    """Run one stage in this process, and return its CPU-seconds, without those of importing packages."""
    for name in ("duckdb", "numpy", "pyarrow.compute", "pyarrow.parquet"):
        import_module(name)

    async def run() -> float:
        sink = sink_of(folder, kind, memory, threads)
        if stage == "land":
            return await land(sink, count)
        return await (decide(sink) if stage == "decide" else assemble(sink))

    return asyncio.run(run())
