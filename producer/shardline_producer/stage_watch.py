"""How far an assembled job is behind the landing of its documents, by the objects that its workers create."""

import logging
from dataclasses import replace
from functools import partial

from shardline_common.dataset.assembled import read_head
from shardline_common.dataset.decision_rules import Rules
from shardline_common.dataset.stage_events import Counts, Stage, StageEvent, share_of_job, stage_message
from shardline_common.errors import BrokerUnavailable, JobFailed, ObjectMissing
from shardline_common.job.names import EVENTS, Layout
from shardline_common.job.state import JobState
from shardline_common.runtime.clock import stamp
from shardline_common.runtime.waits import log_failure
from shardline_common.telemetry.metrics import JobSnapshot
from shardline_producer.context import ProducerContext

_log = logging.getLogger(__name__)
# A look lists the records of all shards.
_LOOKS = 5
_TIMES_AS_LONG = 10


class StageWatch:
    """Looks at the store when all documents of an assembled job have landed, and publishes what it finds.

    `latest` is the last event; None before the first look. No worker is asked: the one that decides may be
    killed, and its partitions move.
    """

    def __init__(self, context: ProducerContext, state: JobState) -> None:
        self._context = context
        self._spec = state.spec
        self._attempt = state.attempt
        self._layout = Layout.of(state.spec)
        self.latest: StageEvent | None = None
        self._counts: Counts | None = None
        self._shards = 0
        self._due = 0.0

    async def look(self, *, last: bool = False) -> None:
        """Look, unless the last look was a moment ago. `last`: in any case.

        Raises:
            StoreUnavailable: look again later.
        """
        context, clock = self._context, self._context.clock
        began = clock.monotonic()
        if not self._spec.assembled or (began < self._due and not last):
            return
        event = await self._event()
        now = clock.monotonic()
        self._due = now + max(_LOOKS * context.policy.progress_seconds, _TIMES_AS_LONG * (now - began))
        if event is None or (self.latest is not None and event.rank <= self.latest.rank):
            return
        self.latest = event
        try:
            await context.broker.publish(EVENTS, [stage_message(event)])
        except BrokerUnavailable as error:
            # Events are hints. The last one is published again when the attempt ends.
            log_failure(_log, error, "the stage of the job is not published: %s", error)

    def measure(self, snapshot: JobSnapshot) -> JobSnapshot:
        """Set the gauges of the stages. Returns the progress of the whole job, of that of its landing."""
        if not self._spec.assembled:
            return snapshot
        event, documents = self.latest, dict(snapshot.documents)
        stage, share = (event.stage, event.share) if event else (Stage.LANDING, snapshot.ratio)
        self._context.metrics.stage(self._spec.job_id, stage, share)
        if self._counts is not None:
            documents["kept"] = self._counts.rows
            documents["rejected"] = sum(self._counts.rejected.values())
        return replace(snapshot, documents=documents, ratio=share_of_job(stage, share))

    async def _event(self) -> StageEvent | None:
        store, layout = self._context.store, self._layout
        if self._counts is None:
            try:
                head, _ = await read_head(store, layout)
            except ObjectMissing:
                dedup = self._spec.dedup
                steps = Rules.of(self._spec, dedup.against if dedup else ()).steps
                found = {info.key async for info in store.list(layout.steps)}
                # The drop lists and the head are the last part.
                done = sum(layout.step(name) in found for name in steps)
                return self._made(Stage.DECIDING, done, len(steps) + 1)
            except JobFailed as error:
                # Its workers end the job.
                _log.warning("the stage of the job is not known: %s", error)
                return None
            self._counts = Counts.of(head)
            self._shards = sum(len(split.shards) for split in head.splits)
        done = 0
        async for _ in store.list(layout.shard_records):
            done += 1
        return self._made(Stage.ASSEMBLING, min(done, self._shards), self._shards)

    def _made(self, stage: Stage, done: int, parts: int) -> StageEvent:
        make = partial(StageEvent, self._spec.job_id, self._attempt, stage, done, parts)
        return make(stamp(self._context.clock), self._counts)
