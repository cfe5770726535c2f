"""The jobs as they stand, read from Kafka once for all requests, and told to whoever watches."""

import asyncio
import logging
import random
from collections.abc import Sequence
from contextlib import aclosing
from typing import Literal

from shardline.services.client import Client, JobTable, JobView, submission
from shardline.services.job_rates import JobRates, RateEstimator
from shardline_common.dataset.events import Progress
from shardline_common.errors import BrokerUnavailable, JobConflict, JobInvalid, JobUnknown, ServiceUnavailable
from shardline_common.job.names import JOBS
from shardline_common.job.spec import JobSpec, Request, parse_message
from shardline_common.job.state import JobState, State
from shardline_common.ports.broker import Broker, Message, Record, TableReader
from shardline_common.ports.clock import Clock
from shardline_common.telemetry.tracing import span

_log = logging.getLogger(__name__)
_INTERVAL = 0.5
_DEADLINE = 60.0
_MOST_WAIT = 15.0

Action = Literal["cancel", "retry", "delete"]


class Watch:
    """Keeps the table. `run` it in a task; until it has read the jobs once, asking raises."""

    def __init__(self, broker: Broker, partitions: int, clock: Clock) -> None:
        self._broker = broker
        self._clock = clock
        self._client = Client(broker, partitions)
        self._table: JobTable | None = None
        self._submitted: dict[str, JobSpec] = {}
        self._pulses: dict[str, RateEstimator] = {}
        self._rates: dict[str, JobRates] = {}
        self._trouble = "the jobs have not been read yet"
        self._tick = asyncio.Event()

    async def run(self) -> None:
        """Follow the jobs for ever; while Kafka is away, try again with back-off."""
        wait = 0.2
        while True:
            try:
                await self._follow()
            except ServiceUnavailable as error:
                if self._table is not None:
                    wait = 0.2
                self._table, self._trouble = None, str(error)
                _log.warning("the jobs cannot be followed: %s", error)
            await self._clock.sleep(random.uniform(0.0, wait))  # noqa: S311 - jitter
            wait = min(_MOST_WAIT, 2 * wait)

    async def _follow(self) -> None:
        async with aclosing(self._client.follow(_INTERVAL)) as tables:
            first = await anext(tables)
            async with self._broker.table_reader(JOBS) as submissions:
                self._take(await submissions.catch_up(deadline=_DEADLINE))
                self._advance(first)
                async for table in tables:
                    self._take(await _drain(submissions))
                    self._advance(table)

    def _take(self, records: Sequence[Record]) -> None:
        for record in records:
            try:
                message = parse_message(record.value or b"")
            except JobInvalid:
                # The producer that owns the job refuses it, and says why in a dead letter.
                continue
            if isinstance(message, JobSpec):
                self._submitted.setdefault(message.job_id, message)

    def _advance(self, table: JobTable) -> None:
        self._table = table
        now = self._clock.monotonic()
        for view in table.jobs():
            job_id = view.state.spec.job_id
            self._submitted.pop(job_id, None)
            if view.state.active:
                self._rates[job_id] = self._pulses.setdefault(job_id, RateEstimator()).add(view, now)
            else:
                self._pulses.pop(job_id, None)
                self._rates.pop(job_id, None)
        tick, self._tick = self._tick, asyncio.Event()
        tick.set()

    async def changed(self) -> None:
        """Return when the jobs have been looked at again."""
        await self._tick.wait()

    def jobs(self) -> list[JobView]:
        """All jobs but the deleted ones, the oldest first; those no producer has taken yet come last.

        Raises:
            BrokerUnavailable: Kafka cannot be read now.
        """
        if self._table is None:
            raise BrokerUnavailable(self._trouble, hint="try again in a moment")
        known = [view for view in self._table.jobs() if view.state.state is not State.DELETED]
        return known + [JobView(JobState(spec), Progress()) for spec in self._submitted.values()]

    def job(self, job_id: str) -> JobView:
        """One job.

        Raises:
            BrokerUnavailable: Kafka cannot be read now.
            JobUnknown: there is none of that id, or it was deleted.
        """
        for view in self.jobs():
            if view.state.spec.job_id == job_id:
                return view
        raise JobUnknown(f"there is no dataset '{job_id[:100]}'")

    def rates(self, job_id: str) -> JobRates:
        """How fast a job is moving."""
        return self._rates.get(job_id, JobRates())

    async def submit(self, spec: JobSpec) -> JobView:
        """Submit a job. The same job again is the same job.

        Raises:
            JobConflict: the id belongs to another job.
            BrokerUnavailable: Kafka cannot be written now.
        """
        known = {view.state.spec.job_id: view for view in self.jobs()}.get(spec.job_id)
        if known is not None and known.state.spec.body() != spec.body():
            raise JobConflict(f"the id '{spec.job_id}' was accepted before with another body")
        with span("submit", job=spec.job_id):
            await self._broker.publish(JOBS, [submission(spec)])
        # Shown before Kafka gives it back.
        self._submitted.setdefault(spec.job_id, spec)
        return self.job(spec.job_id)

    async def request(self, job_id: str, action: Action, user: str) -> None:
        """Ask the producer that owns a job for something. Raises BrokerUnavailable."""
        request = Request(job_id=job_id, action=action, requested_by=user)
        await self._broker.publish(JOBS, [Message(job_id.encode(), request.body())])

    @property
    def trouble(self) -> str | None:
        """Why the jobs cannot be read now."""
        return self._trouble if self._table is None else None

    @property
    def count(self) -> int:
        """Datasets known, 0 where they cannot be read."""
        return len(self.jobs()) if self._table is not None else 0


async def _drain(table: TableReader) -> list[Record]:
    records = list(await table.poll(timeout=0.01))
    while more := await table.poll(timeout=0.01):
        records += more
    return records
