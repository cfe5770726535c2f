"""Deciding, by the worker with partition 0, from the sidecars alone. Each result is a create-only object."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from shardline_common.assembly.decider import Decider
from shardline_common.assembly.inputs import Input, Inputs
from shardline_common.dataset.chain import SegmentObject, total
from shardline_common.dataset.decision import DecisionHead
from shardline_common.dataset.decision_rules import Rules
from shardline_common.errors import FailureCode, JobFailed, ObjectMissing
from shardline_common.job.plan import read_plan
from shardline_common.runtime.create_or_read import create_or_get
from shardline_common.runtime.failpoints import failpoint
from shardline_common.runtime.retry import retry_forever
from shardline_common.runtime.tasks import await_uncancelled
from shardline_common.runtime.threads import run_in_thread
from shardline_common.telemetry.tracing import span
from shardline_consumer.assembly.landed import LandedSegment, SidecarFolder
from shardline_consumer.assembly.other_datasets import read_against
from shardline_consumer.commit import SegmentSink

T = TypeVar("T")


async def decide(sink: SegmentSink, segments: list[LandedSegment], sidecars: SidecarFolder) -> DecisionHead:
    """Decide the dataset, unless another worker has. Returns the decision in the store.

    1. Fetch the sidecars. 2. Decide on a thread; a cancel interrupts the running statement. 3. Put the drop
    lists, then the head. Whoever decides again writes the same bytes.

    Raises:
        JobFailed: a sidecar is damaged or missing, the job cannot be decided (`duplicate_ids`,
            `too_few_rows`), or an object exists with other content (`not_reproducible`).
        StoreUnavailable: the store cannot be read now.
        SpoolError: the spool cannot be written.
        UsageError: the extra `assembly` is not installed.
    """
    context, layout = sink.context, sink.layout
    # 1.
    plan = await read_plan(context.store, layout)
    inputs = Inputs(
        totals=total(segment.totals for segment in segments),
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
    with span("decide"):
        decision = await _interruptible(partial(decider.run, steps), decider.interrupt)
    # 3.
    for (split, number), path in decision.drops.items():
        await _put_file(sink, layout.drops(split, number), path)
    if decision.moved is not None:
        await _put_file(sink, layout.moved, decision.moved)
    failpoint("assembly.before_decision")
    await _create(sink, layout.decision, decision.head.encode())
    failpoint("assembly.after_decision")
    return decision.head


async def _fetched(sidecars: SidecarFolder, items: Sequence[SegmentObject | None]) -> list[Input]:
    present = [item for item in items if item is not None]
    paths = await sidecars.fetch(present)
    return [Input(item.key, path, item.plain_sha256) for item, path in zip(present, paths, strict=True)]


async def _put_file(sink: SegmentSink, key: str, path: Path) -> None:
    await _create(sink, key, await run_in_thread(path.read_bytes))


async def _create(sink: SegmentSink, key: str, body: bytes) -> None:
    create = partial(create_or_get, sink.context.store, key, body, sink.context.clock)
    standing = await retry_forever(create, sink.context.clock, f"put {key}", sink.count_store_error)
    if standing is not None:
        raise JobFailed(
            FailureCode.NOT_REPRODUCIBLE,
            f"{key} exists with other content; nothing was overwritten",
            hint="submit a new job",
        )


async def _interruptible(call: Callable[[], T], interrupt: Callable[[], None]) -> T:
    """Run a long call on a thread of its own. A cancel interrupts it, and waits for its end."""
    with ThreadPoolExecutor(1, thread_name_prefix="decide") as pool:
        future = asyncio.get_running_loop().run_in_executor(pool, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
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

    def load(self, name: str) -> Path | None:
        """The result of a step that was done before, as a local file; None: it was not."""
        return asyncio.run_coroutine_threadsafe(self._load(name), self._loop).result()

    def save(self, name: str, path: Path) -> None:
        """Keep the result of a step."""
        asyncio.run_coroutine_threadsafe(self._save(name, path), self._loop).result()

    async def _load(self, name: str) -> Path | None:
        context, key = self._sink.context, self._sink.layout.step(name)
        read = partial(context.store.get, key)
        try:
            body = await retry_forever(read, context.clock, f"read {key}", self._sink.count_store_error)
        except ObjectMissing:
            return None
        path = self._folder / f"{name}.stored"
        await run_in_thread(partial(path.write_bytes, body))
        return path

    async def _save(self, name: str, path: Path) -> None:
        await _put_file(self._sink, self._sink.layout.step(name), path)
