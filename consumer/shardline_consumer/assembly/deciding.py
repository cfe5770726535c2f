"""Deciding, by the worker with partition 0, from the sidecars alone. Each result is a create-only object."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from shardline_common.assembly.decider import Decider
from shardline_common.assembly.engine import DecisionInterrupted
from shardline_common.assembly.inputs import Input, Inputs
from shardline_common.dataset.chain import SegmentObject, total
from shardline_common.dataset.decision import DecisionHead
from shardline_common.dataset.decision_rules import Rules
from shardline_common.dataset.read import ObjectReader, read_hashes
from shardline_common.dataset.staged import prove_staged
from shardline_common.dataset.success import hash_of
from shardline_common.errors import FailureCode, JobFailed, ObjectMissing
from shardline_common.job.plan import read_plan
from shardline_common.ports.store import HashedFile
from shardline_common.runtime.create_or_read import create_or_read
from shardline_common.runtime.failpoints import failpoint
from shardline_common.runtime.file_hash import file_sha256
from shardline_common.runtime.retry import retry_forever
from shardline_common.runtime.tasks import await_uncancelled
from shardline_common.runtime.threads import run_in_thread
from shardline_common.runtime.waits import log_failure
from shardline_common.telemetry.tracing import span
from shardline_consumer.assembly.landed import LandedSegment, SidecarFolder
from shardline_consumer.assembly.other_datasets import read_against
from shardline_consumer.assembly.step_progress import StepProgress
from shardline_consumer.commit import SegmentSink

T = TypeVar("T")
_log = logging.getLogger(__name__)


async def decide(sink: SegmentSink, segments: list[LandedSegment], sidecars: SidecarFolder) -> DecisionHead:
    """Decide the dataset, unless another worker has. Returns the decision in the store.

    1. Look whether all staged rows are there, and fetch the sidecars. 2. Decide on a thread; a cancel
    interrupts the running statement. 3. Put the drop lists, then the head. Whoever decides again writes the
    same bytes.

    Raises:
        JobFailed: a sidecar is damaged or missing, staged rows are missing (`object_lost`), the job cannot be
            decided (`duplicate_ids`, `too_few_rows`), or an object exists with other content
            (`not_reproducible`).
        StoreUnavailable: the store cannot be read now.
        SpoolError: the spool cannot be written.
        UsageError: the extra `assembly` is not installed.
    """
    context, layout = sink.context, sink.layout
    # 1.
    plan = await read_plan(context.store, layout)
    # By their sizes. Who assembles a shard reads the rows, and compares the hash of each.
    await prove_staged(context.store, layout, [segment.record for segment in segments])
    inputs = Inputs(
        totals=total(segment.record.segment for segment in segments),
        records=await _fetched(sidecars, [segment.records for segment in segments]),
        bands=await _fetched(sidecars, [segment.bands for segment in segments]),
        signatures=await _fetched(sidecars, [segment.signatures for segment in segments]),
        against=await read_against(sink, plan, sidecars.path),
    )
    # 2.
    folder, rules = sidecars.path / "decision", Rules.of(sink.spec, [one["digest"] for one in plan.against])
    make = partial(Decider, folder, inputs, rules, context.decide_memory, context.decide_threads)
    decider = await run_in_thread(make)
    steps = StoredSteps(sink, sidecars.path, asyncio.get_running_loop())
    progress = StepProgress(sink, rules.steps, decider.statement_progress)
    with span("decide"):
        watch = asyncio.create_task(progress.publish(), name="progress of the decision")
        try:
            run = partial(decider.run, steps, progress.begin)
            decision = await _interruptible(run, decider.interrupt, steps.interrupt)
        finally:
            watch.cancel()
            (ended,) = await asyncio.gather(watch, return_exceptions=True)
            if isinstance(ended, Exception):
                log_failure(_log, ended, "the progress of the decision was not published: %s", ended)
    # 3.
    for (split, number), path in decision.drops.items():
        await _put_file(sink, layout.drops(split, number), path)
    if decision.moved is not None:
        await _put_file(sink, layout.moved, decision.moved)
    for warning in decision.head.warnings:
        _log.info("warning of the decision: %s", warning)
    failpoint("assembly.before_decision")
    await _create(sink, layout.decision, decision.head.encode())
    failpoint("assembly.after_decision")
    return decision.head


async def _fetched(sidecars: SidecarFolder, items: Sequence[SegmentObject | None]) -> list[Input]:
    present = [item for item in items if item is not None]
    paths = await sidecars.fetch(present)
    return [Input(item.key, path, item.plain_sha256) for item, path in zip(present, paths, strict=True)]


async def _put_file(sink: SegmentSink, key: str, path: Path) -> None:
    """Create an object of a file of the decider, which is never written again: a store may link it."""
    await _create(sink, key, HashedFile(path, await run_in_thread(partial(file_sha256, path))))


async def _create(sink: SegmentSink, key: str, body: bytes | HashedFile) -> None:
    """Create an object, in bounded memory.

    Raises:
        JobFailed: another one is there (`not_reproducible`).
    """
    context, expected = sink.context, body.sha256 if isinstance(body, HashedFile) else hash_of(body)
    put = partial(context.store.create, key, body)
    # What was created is read too: a store may acknowledge a put, and lose it.
    read = partial(read_hashes, context.store, key, "none", expected)
    create = partial(create_or_read, put, read, key, context.clock, confirm=True)
    found = await retry_forever(create, context.clock, f"put {key}", sink.count_store_error)
    if found is not None and found[0] != expected:
        raise JobFailed(
            FailureCode.NOT_REPRODUCIBLE,
            f"{key} exists with other content; nothing was overwritten",
            hint="submit a new job",
        )


async def _interruptible(call: Callable[[], T], *interrupts: Callable[[], None]) -> T:
    """Run a long call on a thread of its own. A cancel calls the interrupts, and waits for its end."""
    with ThreadPoolExecutor(1, thread_name_prefix="decide") as pool:
        future = asyncio.get_running_loop().run_in_executor(pool, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            for interrupt in interrupts:
                interrupt()
            await await_uncancelled(future)
            # asyncio logs an error that nobody has looked at.
            future.exception()
            raise


class StoredSteps:
    """Implements `StepStore` by create-only objects. Called on the thread of the decider."""

    def __init__(self, sink: SegmentSink, folder: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._sink = sink
        self._folder = folder
        self._loop = loop
        self._lock = Lock()
        self._interrupted = False
        self._running: Future[Any] | None = None

    def load(self, name: str) -> Path | None:
        """The result of a step that was done before, as a local file; None: it was not."""
        return self._wait(lambda: self._load(name))

    def save(self, name: str, path: Path) -> None:
        """Keep the result of a step."""
        self._wait(lambda: _put_file(self._sink, self._sink.layout.step(name), path))

    def interrupt(self) -> None:
        """Stop waiting for the store, which may be away for long. `load` and `save` raise then."""
        with self._lock:
            self._interrupted = True
            if self._running is not None:
                self._running.cancel()

    def _wait(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        with self._lock:
            if self._interrupted:
                raise DecisionInterrupted("the decision was interrupted")
            future: Future[T] = asyncio.run_coroutine_threadsafe(call(), self._loop)
            self._running = future
        try:
            return future.result()
        except CancelledError:
            raise DecisionInterrupted("the decision was interrupted") from None

    async def _load(self, name: str) -> Path | None:
        context, key, path = self._sink.context, self._sink.layout.step(name), self._folder / f"{name}.stored"
        # `Steps` proves what was read.
        read = partial(ObjectReader(context.store, key, "none").save, path)
        try:
            await retry_forever(read, context.clock, f"read {key}", self._sink.count_store_error)
        except ObjectMissing:
            return None
        return path
