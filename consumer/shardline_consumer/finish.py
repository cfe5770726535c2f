"""The finish: any worker may try it, all agree, one wins."""

import asyncio
from typing import TYPE_CHECKING

from shardline_common import __version__
from shardline_common.errors import JobFailed
from shardline_common.job.names import Layout
from shardline_common.job.outcome import Outcome, decide, failed, read_outcome
from shardline_common.job.state import JobState, State
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.clock import stamp
from shardline_common.runtime.failpoints import failpoint
from shardline_common.telemetry.tracing import span
from shardline_consumer.publish import Dataset, produced_counts, prove

if TYPE_CHECKING:
    from shardline_common.dataset.chain import ChainRecord


class Finisher:
    """Watches one attempt whose documents are all produced, until it is decided and published."""

    def __init__(self, store: ObjectStore, clock: Clock, state: JobState) -> None:
        self._dataset = Dataset(store, state.spec)
        self._store = store
        self._clock = clock
        self._tips: list[ChainRecord | None] = [None] * state.spec.total_partitions

    async def try_finish(self, state: JobState) -> bool:
        """Finish if the chains are complete; True when the attempt is decided and, if completed, published.

        Raises:
            StoreUnavailable: try again later.
            JobFailed: the chain is broken, or what stands under the manifest's key is not ours.
            ObjectMissing: the dataset was deleted meanwhile.
        """
        outcome = await read_outcome(self._store, self._dataset.layout, state.attempt)
        if outcome is None and (state.state is not State.COMPLETING or not await self._all_landed(state)):
            return False
        with span("finish") as told:
            if outcome is None:
                # A worker that slept through a deletion finds nothing decided: that is no reason to decide.
                await self._dataset.plan()
                failpoint("worker.before_outcome")
                outcome = await decide(self._store, self._dataset.layout, self._verdict(state))
                failpoint("worker.after_outcome")
            told.set(ending=outcome.ending)
            if outcome.ending == "completed":
                await self._dataset.publish(outcome)
        return True

    async def _all_landed(self, state: JobState) -> bool:
        # No further than the first partition that lacks something: with many of them every look costs.
        for number, part in enumerate(state.partitions):
            if self._held(number) < part.sequence:
                self._tips[number] = await self._dataset.tip(number, self._tips[number])
                if self._held(number) < part.sequence:
                    return False
        # The proof is about all of them as they stand now.
        self._tips = list(await asyncio.gather(*map(self._dataset.tip, range(len(self._tips)), self._tips)))
        return all(self._held(number) >= part.sequence for number, part in enumerate(state.partitions))

    def _held(self, number: int) -> int:
        tip = self._tips[number]
        return tip.next if tip else 0

    def _verdict(self, state: JobState) -> Outcome:
        try:
            prove(state.partitions, self._tips, state.source_count)
        except JobFailed as error:
            return failed(state, error, self._clock)
        return Outcome(
            attempt=state.attempt,
            ending="completed",
            at=stamp(self._clock),
            accepted_at=state.accepted_at,
            software=__version__,
            source_count=state.source_count,
            produced=produced_counts(state),
        )


async def fail(store: ObjectStore, state: JobState, error: JobFailed, clock: Clock) -> Outcome:
    """Decide an attempt as failed, if nothing else was decided before.

    Raises:
        ObjectMissing: the dataset was deleted meanwhile.
        StoreUnavailable: try again later.
    """
    await Dataset(store, state.spec).plan()
    return await decide(store, Layout.of(state.spec), failed(state, error, clock))
