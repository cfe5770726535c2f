"""Finishing an attempt. Every worker tries it, all write the same bytes, and one create succeeds."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from shardline_common import __version__
from shardline_common.dataset.chain import Chain, ChainRecord
from shardline_common.dataset.conservation import prove_conservation
from shardline_common.dataset.heads import READS_AT_ONCE, are_short, read_heads
from shardline_common.dataset.publish import Sign, prove_publishable, publish_dataset
from shardline_common.errors import JobFailed
from shardline_common.job.names import Layout
from shardline_common.job.outcome import Outcome, decide, failed, read_outcome
from shardline_common.job.plan import read_plan
from shardline_common.job.state import JobState, State
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.clock import stamp
from shardline_common.runtime.failpoints import failpoint
from shardline_common.telemetry.tracing import span

if TYPE_CHECKING:
    from shardline_consumer.assembly.stages import Assembly


class Finisher:
    """Decides and publishes one attempt when the chains hold everything that was produced.

    `assembly` makes the shards of an assembled dataset before that; None for any other.
    """

    def __init__(
        self,
        store: ObjectStore,
        clock: Clock,
        state: JobState,
        sign: Sign | None = None,
        assembly: "Assembly | None" = None,
    ) -> None:
        self._assembly = assembly
        self._store = store
        self._clock = clock
        self._sign = sign
        self._spec = state.spec
        self._layout = Layout.of(state.spec)
        self._heads: list[ChainRecord | None] = [None] * state.spec.total_partitions

    def segment_committed(self, record: ChainRecord) -> None:
        """Note a record that this worker has put, or found, in the chain of its partition."""
        if record.next > self._committed(record.partition):
            self._heads[record.partition] = record

    def lacks(self, state: JobState, owned: Collection[int]) -> bool:
        """Whether the attempt cannot be finished before this worker commits segments of its own partitions.

        Costs no request, unlike `try_finish`. What another worker has committed in them is not known here.
        """
        if state.state is not State.COMPLETING:
            return True
        sent = enumerate(state.partitions)
        return any(number in owned and self._committed(number) < part.sequence for number, part in sent)

    async def try_finish(self, state: JobState) -> bool:
        """Finish the attempt if possible. Returns True when it is decided and, if completed, published.

        1. Read the outcome. 2. Without one, check that the chains are complete, assemble what is left to this
        worker, and prove the dataset. 3. Decide. 4. Publish a completed dataset.

        Raises:
            StoreUnavailable: try again later.
            JobFailed: the dataset cannot be completed; once the attempt is decided, it cannot be published.
            ObjectMissing: the dataset was deleted.
        """
        # 1. Another worker or a cancel may have decided the attempt.
        outcome = await read_outcome(self._store, self._layout, state.attempt)
        # 2. Only the producer's last checkpoint, with the state `completing`, has the final counts.
        if outcome is None and (state.state is not State.COMPLETING or not await self._all_committed(state)):
            return False
        with span("finish") as finish_span:
            if outcome is None:
                # A worker that was paused while the dataset was deleted finds no outcome either. Raises
                # ObjectMissing then: without a plan there is no dataset, and nothing may be decided.
                await read_plan(self._store, self._layout)
                if self._assembly is not None and not await self._assembly.advance():
                    return False
                decision = await self._prove(state)
                # 3. The create decides. If another outcome exists, that one is returned.
                failpoint("worker.before_outcome")
                outcome = await decide(self._store, self._layout, decision, self._clock)
                failpoint("worker.after_outcome")
            finish_span.set(ending=outcome.ending)
            # 4. Also when another worker has decided: it may have been killed before it published.
            if outcome.ending == "completed":
                await publish_dataset(self._store, self._spec, outcome, self._clock, self._sign)
        return True

    async def _all_committed(self, state: JobState) -> bool:
        if len(self._heads) <= READS_AT_ONCE:
            # Stops at the first incomplete partition, because each head costs a request. Short chains are
            # listed by one.
            for number in () if are_short(self._heads) else range(len(state.partitions)):
                if not await self._is_committed(number, state):
                    return False
        else:
            # Partitions are committed about in their order. With the first missing one instead of the last,
            # each look would list all chains.
            last = self._last_missing(state)
            if last is not None and not await self._is_committed(last, state):
                return False
        # The proof needs the current heads of all partitions.
        self._heads = await read_heads(self._store, self._layout, self._heads)
        return all(self._committed(number) >= sent.sequence for number, sent in enumerate(state.partitions))

    def _last_missing(self, state: JobState) -> int | None:
        sent = tuple(enumerate(state.partitions))
        return next(
            (number for number, part in reversed(sent) if self._committed(number) < part.sequence), None
        )

    async def _is_committed(self, number: int, state: JobState) -> bool:
        wanted = state.partitions[number].sequence
        if self._committed(number) < wanted:
            self._heads[number] = await self._read_head(number)
        return self._committed(number) >= wanted

    async def _read_head(self, number: int) -> ChainRecord | None:
        return await Chain(self._store, self._layout, number).head(self._heads[number])

    def _committed(self, number: int) -> int:
        head = self._heads[number]
        return head.next if head else 0

    async def _prove(self, state: JobState) -> Outcome:
        # Nothing may fail after the outcome `completed`, so the whole dataset is proven before it.
        produced = [(part.sequence, part.hash_sum) for part in state.partitions]
        try:
            prove_conservation(state.partitions, self._heads, state.source_count)
            await prove_publishable(self._store, self._spec, produced)
        except JobFailed as error:
            return failed(state, error, self._clock)
        return Outcome(
            attempt=state.attempt,
            ending="completed",
            at=stamp(self._clock),
            accepted_at=state.accepted_at,
            software=__version__,
            source_count=state.source_count,
            produced=produced,
            findings=state.findings,
        )


async def fail_attempt(store: ObjectStore, state: JobState, error: JobFailed, clock: Clock) -> Outcome:
    """Decide an attempt as failed, unless it is decided. Returns the outcome in the store.

    Raises:
        JobFailed: the failure cannot be recorded: the store refuses the record and has none, or the one in
            the store cannot be read.
        ObjectMissing: the dataset was deleted.
        StoreUnavailable: try again later.
    """
    layout = Layout.of(state.spec)
    # Only whether there is a plan counts: one that cannot be read is a reason to fail.
    await store.get(layout.plan)
    return await decide(store, layout, failed(state, error, clock), clock)
