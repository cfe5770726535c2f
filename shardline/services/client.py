"""Talking to a running system: submit and request, and the view of its jobs."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from shardline_common.dataset.events import Event, Progress, fold
from shardline_common.errors import JobConflict, JobUnknown
from shardline_common.job.dead_letters import DeadLetterRecord
from shardline_common.job.names import CHECKPOINTS, DEAD_LETTERS, EVENTS, JOBS
from shardline_common.job.spec import JobSpec, Request
from shardline_common.job.state import JobState, State, latest_states
from shardline_common.job.trace_headers import trace_headers
from shardline_common.ports.broker import Broker, Message, Record, TableReader
from shardline_common.telemetry.tracing import current, span
from shardline_producer.topics import ensure_system_topics

_DEADLINE = 60.0
UNKNOWN_HINT = "`shardline jobs` lists them; one submitted a moment ago is known once a producer has taken it"


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as `status` shows it: its checkpoint and the fold of its events."""

    state: JobState
    progress: Progress

    @property
    def lag(self) -> int:
        """Messages produced that no chain holds, as far as was heard."""
        return max(0, self.state.produced - self.progress.chained)

    @property
    def ratio(self) -> float:
        """Share of the job that is done, 0 to 1."""
        if self.state.state is State.COMPLETED:
            return 1.0
        done = self.progress.chained / self.state.produced if self.state.produced else 0.0
        return self.state.progress * min(1.0, done)

    def to_json(self) -> dict[str, Any]:
        """The view as `status --json` prints it."""
        state, progress = self.state, self.progress
        return {
            "job_id": state.spec.job_id,
            "name": state.spec.name,
            "state": state.state.value,
            "attempt": state.attempt,
            "accepted_at": state.accepted_at,
            "updated_at": state.updated_at,
            "progress": round(self.ratio, 4),
            "source_documents": state.source_count,
            "produced": state.produced,
            "chained": progress.chained,
            "lag": self.lag,
            "rows": progress.rows,
            "bytes": progress.bytes,
            "rejected": dict(progress.rejected),
            "dead_letters": dict(progress.dead),
            "code": state.code,
            "message": state.message,
            "warning": state.warning,
            "source": {"type": state.spec.source.type, **state.notes},
            "spec": state.spec.model_dump(mode="json"),
        }


class JobTable:
    """All jobs, kept up to date from the checkpoints and events topics."""

    def __init__(self) -> None:
        self._states: dict[str, JobState] = {}
        self._events: dict[str, dict[int, Event]] = {}

    def apply_checkpoints(self, records: Sequence[Record]) -> None:
        """Take in checkpoints; the last of a job stands."""
        self._states |= latest_states(records)

    def apply_events(self, records: Sequence[Record]) -> None:
        """Take in events, in any order."""
        for record in records:
            if record.value is None:
                continue
            event = Event.decode(record.value)
            known = self._events.setdefault(event.job_id, {})
            if event.partition not in known or known[event.partition].next < event.next:
                known[event.partition] = event

    def jobs(self) -> list[JobView]:
        """All jobs, the oldest first."""
        states = sorted(self._states.values(), key=lambda state: (state.accepted_at, state.spec.job_id))
        return [self._view(state) for state in states]

    def job(self, job_id: str) -> JobView:
        """One job. Raises JobUnknown."""
        if job_id not in self._states:
            raise JobUnknown(f"no job '{job_id}' is known", hint=UNKNOWN_HINT)
        return self._view(self._states[job_id])

    def _view(self, state: JobState) -> JobView:
        return JobView(state, fold(self._events.get(state.spec.job_id, {}).values()))


class Client:
    """Submits, requests and watches through Kafka alone."""

    def __init__(self, broker: Broker, partitions: int) -> None:
        self._broker = broker
        self._partitions = partitions

    async def job_table(self) -> JobTable:
        """The jobs as they stand now."""
        async with aclosing(self.follow(0.0)) as tables:
            return await anext(tables)

    async def follow(self, interval: float) -> AsyncGenerator[JobTable, None]:
        """The table, again every `interval` seconds or so, for as long as it is asked for."""
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
                table.apply_checkpoints(await _drain(checkpoints, interval))
                table.apply_events(await _drain(events, 0.05))

    async def submit(self, spec: JobSpec) -> JobView | None:
        """Submit a job; gives its view where the same job is known already.

        Raises:
            JobConflict: the id belongs to another job.
        """
        try:
            view = (await self.job_table()).job(spec.job_id)
        except JobUnknown:
            view = None
        if view is not None and view.state.spec.body() != spec.body():
            raise JobConflict(
                f"the job id '{spec.job_id}' was accepted before with another body",
                hint="the first job is untouched; choose another job_id, or leave it out",
            )
        with span("submit", job=spec.job_id):
            await self._broker.publish(JOBS, [submission(spec)])
        return view

    async def request(self, request: Request) -> JobView:
        """Send a request about a known job. Raises JobUnknown."""
        view = (await self.job_table()).job(request.job_id)
        await self._broker.publish(JOBS, [Message(request.job_id.encode(), request.body())])
        return view

    async def dead_letters(self) -> Mapping[str, DeadLetterRecord]:
        """The dead letters that are kept, by key; a tombstone forgets one."""
        await ensure_system_topics(self._broker, self._partitions)
        async with self._broker.table_reader(DEAD_LETTERS) as table:
            records = await table.catch_up(deadline=_DEADLINE)
        latest = {(record.key or b"").decode(): record for record in records}
        return {
            key: DeadLetterRecord.decode(record) for key, record in latest.items() if record.value is not None
        }

    async def requeue(self, letter: DeadLetterRecord) -> None:
        """Send a job message's original again, as it is, to dataset.jobs, and forget the letter."""
        key = (letter.job_id or "").encode()
        await self._broker.publish(JOBS, [Message(key, letter.original)])
        await self._broker.publish(DEAD_LETTERS, [Message(letter.key.encode(), None)])


def submission(spec: JobSpec) -> Message:
    """The message that submits a job; its trace, if it has one, stands beside the body."""
    return Message(spec.job_id.encode(), spec.body(), headers=trace_headers(current()))


async def _drain(table: TableReader, wait: float) -> list[Record]:
    records = list(await table.poll(timeout=wait))
    while more := await table.poll(timeout=0.01):
        records += more
    return records
