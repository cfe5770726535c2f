"""A client of a running system: submit jobs, send requests about them, and follow their state."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Literal

from shardline.services.job_view import JobView
from shardline.services.refusals import Refusals
from shardline.services.wiring.broker import open_broker
from shardline_common.dataset.events import Event, fold
from shardline_common.dataset.left_alone import LeftAlone, left_alone_of
from shardline_common.dataset.stage_events import StageEvent, further, stage_of
from shardline_common.errors import JobConflict, JobUnknown, UsageError
from shardline_common.job.dead_letters import DeadLetterRecord
from shardline_common.job.field_faults import did_you_mean
from shardline_common.job.names import CHECKPOINTS, DEAD_LETTERS, EVENTS, JOBS
from shardline_common.job.spec import JobSpec, Request
from shardline_common.job.spec_diff import check_same_job, own_id_advice
from shardline_common.job.state import JobState, State, latest_states
from shardline_common.job.submission import Submission, submission_headers
from shardline_common.job.trace_headers import trace_headers
from shardline_common.ports.broker import Broker, Message, Record, TableReader
from shardline_common.runtime.clock import SYSTEM_CLOCK, stamp
from shardline_common.settings.load import Settings
from shardline_common.telemetry.tracing import current_traceparent, span
from shardline_producer.topics import ensure_system_topics

Action = Literal["cancel", "retry", "delete"]
_DEADLINE = 60.0
_WATCH_SECONDS = 0.5
# If no producer has accepted a submitted job after this time, its refusal is looked for, a message is shown.
_REFUSE_SECONDS = 1.0
_ACCEPT_SECONDS = 5.0
UNKNOWN_HINT = (
    "`shardline jobs` lists them; a job that was just submitted is known once a producer has accepted it"
)


class JobTable:
    """The state of all jobs, kept up to date from the checkpoints and events topics."""

    def __init__(self) -> None:
        self._states: dict[str, JobState] = {}
        self._events: dict[str, dict[int, Event]] = {}
        self._stages: dict[str, StageEvent] = {}
        self._left_alone: dict[str, LeftAlone] = {}

    def apply_checkpoints(self, records: Sequence[Record]) -> None:
        """Apply checkpoints; the last one of a job is its state."""
        self._states |= latest_states(records)

    def apply_events(self, records: Sequence[Record]) -> None:
        """Apply events, in any order."""
        for record in records:
            if record.value is None:
                continue
            if (stage := stage_of(record)) is not None:
                self._stages[stage.job_id] = further(self._stages.get(stage.job_id), stage)
                continue
            if (left := left_alone_of(record)) is not None:
                self._left_alone[left.job_id] = left
                continue
            event = Event.of_record(record)
            known = self._events.setdefault(event.job_id, {})
            if event.partition not in known or known[event.partition].next < event.next:
                known[event.partition] = event

    def jobs(self) -> list[JobView]:
        """Return all jobs, the oldest first."""
        states = sorted(self._states.values(), key=lambda state: (state.accepted_at, state.spec.job_id))
        return [self._view(state) for state in states]

    def find(self, job_id: str) -> JobView | None:
        """Return one job; None when there is no checkpoint of it."""
        return self._view(self._states[job_id]) if job_id in self._states else None

    def job(self, job_id: str) -> JobView:
        """Return one job.

        Raises:
            JobUnknown: there is no checkpoint of the job.
        """
        view = self.find(job_id)
        if view is None:
            near = did_you_mean(job_id, self._states)
            meant = f"; did you mean `{near}`?" if near else ""
            raise JobUnknown(f"no job '{job_id}' is known{meant}", hint=UNKNOWN_HINT)
        return view

    def _view(self, state: JobState) -> JobView:
        job_id = state.spec.job_id
        progress, stage = fold(self._events.get(job_id, {}).values()), self._stages.get(job_id)
        if stage is not None and (counts := stage.counts) is not None:
            # Else a completed job would show the rows that landed, with those that were dropped.
            progress = replace(
                progress, rows=counts.rows, bytes=counts.bytes, rejected=counts.rejected, dead=counts.dead
            )
        return JobView(state, progress, stage_event=stage, left_alone=self._left_alone.get(job_id))


class Client:
    """Submits jobs, sends requests about them and follows them, all through Kafka.

    `partitions` is the number of partitions of dataset.jobs if this client has to create it.
    """

    def __init__(self, broker: Broker, partitions: int) -> None:
        self._broker = broker
        self._partitions = partitions

    async def job_table(self) -> JobTable:
        """Read the state of all jobs as of now."""
        async with aclosing(self.follow(0.0)) as tables:
            return await anext(tables)

    async def follow(self, interval: float) -> AsyncGenerator[JobTable, None]:
        """Yield the table of jobs about every `interval` seconds, without end. It is one object."""
        table = JobTable()
        await ensure_system_topics(self._broker, self._partitions)
        async with (
            self._broker.table_reader(CHECKPOINTS) as checkpoints,
            self._broker.table_reader(EVENTS) as events,
        ):
            table.apply_checkpoints(await checkpoints.catch_up(deadline=_DEADLINE))
            table.apply_events(await events.catch_up(deadline=_DEADLINE))
            while True:
                yield table
                table.apply_checkpoints(await drain(checkpoints, interval))
                table.apply_events(await drain(events, 0.05))

    async def submit(self, spec: JobSpec) -> JobView | None:
        """Submit a job. Returns its view when the same job was accepted before, else None.

        Raises:
            JobConflict: a job with the same id and another body was accepted before, or the job was deleted.
        """
        view = (await self.job_table()).find(spec.job_id)
        if view is not None:
            check_same_job(view.state.spec, spec)
        if view is not None and view.state.state is State.DELETED:
            # A producer ignores the message: the job would be neither accepted nor refused.
            raise JobConflict(
                f"the job id '{spec.job_id}' belongs to a job that was deleted, and is never used again",
                hint=own_id_advice(spec),
            )
        with span("submit", job=spec.job_id):
            await self._broker.publish(JOBS, [submission(spec)])
        return view

    async def request(self, request: Request) -> JobView:
        """Send a request about a job. Returns the job's view before the request.

        Raises:
            JobUnknown: no job has the id.
        """
        view = (await self.job_table()).job(request.job_id)
        await self._broker.publish(JOBS, [Message(request.job_id.encode(), request.body())])
        return view

    async def request_action(self, job_id: str, action: Action, *, versions: bool = False) -> JobView:
        """Send a request about a job if its state allows it. Returns the job's view before the request.

        With `versions`, a delete also removes the versions that the store keeps.

        Raises:
            JobUnknown: no job has the id.
            UsageError: the job is in a state in which the action has no effect.
        """
        view = (await self.job_table()).job(job_id)
        state = view.state.state
        if action == "retry" and not view.state.retriable:
            raise UsageError(f"the job is {state}; only a failed or cancelled one can be retried")
        if action == "cancel" and not view.state.active:
            raise UsageError(f"the job is {state}; there is nothing to cancel")
        return await self.request(Request(job_id=job_id, action=action, versions=versions))

    async def wait(
        self,
        job_id: str,
        on_view: Callable[[JobView], None],
        *,
        until: Callable[[JobView], bool] = lambda view: view.state.settled,
        on_unaccepted: Callable[[], None] = lambda: None,
        submitted: JobSpec | None = None,
    ) -> JobView:
        """Follow a job until it has ended or cannot be published, and return its last view.

        Args:
            job_id: the job; it need not be accepted yet.
            on_view: called with each view, about every half second.
            until: whether a view ends the wait.
            on_unaccepted: called once if no producer has accepted the job after 5 seconds.
            submitted: the job that was submitted with this id.

        Raises:
            JobConflict: the id belongs to another job than `submitted`.
            JobInvalid: a producer refused `submitted`.
        """
        started, warned, refusals = time.monotonic(), False, Refusals(self._broker, submitted)
        async with refusals, aclosing(self.follow(_WATCH_SECONDS)) as tables:
            async for table in tables:
                view = table.find(job_id)
                if view is None:
                    unaccepted = time.monotonic() - started
                    if unaccepted > _REFUSE_SECONDS:
                        await refusals.check()
                    if not warned and unaccepted > _ACCEPT_SECONDS:
                        warned = True
                        on_unaccepted()
                    continue
                if submitted is not None:
                    check_same_job(view.state.spec, submitted)
                on_view(view)
                if until(view):
                    return view
        raise AssertionError("follow never ends")

    async def dead_letters(self) -> Mapping[str, DeadLetterRecord]:
        """Read the dead letters in the topic, by key, without those that a tombstone removes."""
        await ensure_system_topics(self._broker, self._partitions)
        async with self._broker.table_reader(DEAD_LETTERS) as table:
            records = await table.catch_up(deadline=_DEADLINE)
        latest = {(record.key or b"").decode(): record for record in records}
        return {
            key: DeadLetterRecord.decode(record) for key, record in latest.items() if record.value is not None
        }

    async def requeue(self, dead_letter: DeadLetterRecord) -> None:
        """Send the original of a refused job message to dataset.jobs again, and remove the dead letter."""
        key = (dead_letter.job_id or "").encode()
        await self._broker.publish(JOBS, [Message(key, dead_letter.original)])
        await self._broker.publish(DEAD_LETTERS, [Message(dead_letter.key.encode(), None)])


@asynccontextmanager
async def open_client(settings: Settings) -> AsyncIterator[Client]:
    """Open a client on the Kafka of the settings.

    Raises:
        BrokerUnavailable: Kafka cannot be reached or refuses the credentials.
    """
    async with open_broker(settings) as broker:
        yield Client(broker, settings.jobs_partitions)


def submission(spec: JobSpec, submitted: Submission | None = None) -> Message:
    """Return the message that submits a job. The current trace, if any, is in its headers.

    `submitted` None: the job is submitted now, and has no owner.
    """
    submitted = submitted or Submission(stamp(SYSTEM_CLOCK))
    headers = (*trace_headers(current_traceparent()), *submission_headers(submitted))
    return Message(spec.job_id.encode(), spec.body(), headers=headers)


async def drain(table: TableReader, wait: float = 0.01) -> list[Record]:
    """Read the records of a table until there are no more; wait up to `wait` seconds for the first."""
    records = list(await table.poll(timeout=wait))
    while more := await table.poll(timeout=0.01):
        records += more
    return records
