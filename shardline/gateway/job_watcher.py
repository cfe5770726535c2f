"""The state of all jobs, read from Kafka once for all requests."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Literal

from shardline.services.client import Client, JobTable, drain, submission
from shardline.services.job_rates import JobRates, RateEstimator
from shardline.services.job_view import JobView
from shardline_common.dataset.events import EventTotals
from shardline_common.errors import BrokerUnavailable, JobConflict, JobInvalid, JobUnknown, ServiceUnavailable
from shardline_common.job.names import JOBS
from shardline_common.job.spec import JobSpec, Request, parse_message
from shardline_common.job.state import JobState, State
from shardline_common.job.submission import Owner, Submission, submission_of
from shardline_common.ports.broker import Broker, Message, Record
from shardline_common.ports.clock import Clock
from shardline_common.runtime.clock import stamp
from shardline_common.runtime.retry import Backoff
from shardline_common.runtime.waits import log_failure
from shardline_common.telemetry.tracing import span

_log = logging.getLogger(__name__)
_INTERVAL_SECONDS = 0.5
_DEADLINE_SECONDS = 60.0
_BACKOFF = Backoff(0.2, 15.0)


class JobWatcher:
    """Keeps the table of jobs up to date while `run` runs in a task.

    Until the first read of the topics is complete, and while Kafka cannot be read, `jobs`, `job` and `submit`
    raise BrokerUnavailable.
    """

    def __init__(self, broker: Broker, partitions: int, clock: Clock) -> None:
        self._broker = broker
        self._clock = clock
        self._client = Client(broker, partitions)
        # The jobs of the last read; None until there is one, and while Kafka cannot be read.
        self._views: list[JobView] | None = None
        # The number of reads.
        self.refresh = 0
        # Jobs of dataset.jobs that no producer has accepted yet, by job id.
        self._submitted: dict[str, JobState] = {}
        self._estimators: dict[str, RateEstimator] = {}
        self._rates: dict[str, JobRates] = {}
        self._reason = "the jobs have not been read yet"
        self._refreshed = asyncio.Event()

    async def run(self) -> None:
        """Follow the jobs until cancelled. While Kafka cannot be read, try again with back-off."""
        failures = 0
        while True:
            try:
                await self._follow()
            except ServiceUnavailable as error:
                if self._views is not None:
                    failures = 0
                self._views, self._reason = None, str(error)
                log_failure(_log, error, "the jobs cannot be read: %s", error)
            await self._clock.sleep(_BACKOFF.pause(failures))
            failures += 1

    async def _follow(self) -> None:
        async with aclosing(self._client.follow(_INTERVAL_SECONDS)) as tables:
            first = await anext(tables)
            async with self._broker.table_reader(JOBS) as submissions:
                self._add_submitted(await submissions.catch_up(deadline=_DEADLINE_SECONDS))
                self._refresh(first)
                async for table in tables:
                    self._add_submitted(await drain(submissions))
                    self._refresh(table)

    def _add_submitted(self, records: Sequence[Record]) -> None:
        for record in records:
            try:
                message = parse_message(record.value or b"")
            except JobInvalid:
                # The producer that owns the partition writes a dead letter with the reason.
                continue
            if isinstance(message, JobSpec):
                self._add(message, submission_of(record.headers))

    def _add(self, spec: JobSpec, submitted: Submission) -> None:
        if spec.job_id in self._submitted:
            # The producer, too, accepts the first of two messages.
            return
        state = JobState(spec)
        state.submission = replace(submitted, submitted_at=submitted.submitted_at or stamp(self._clock))
        self._submitted[spec.job_id] = state

    def _refresh(self, table: JobTable) -> None:
        self._views = table.jobs()
        self.refresh += 1
        now = self._clock.monotonic()
        for view in self._views:
            job_id = view.state.spec.job_id
            self._submitted.pop(job_id, None)
            if view.state.active:
                self._rates[job_id] = self._estimators.setdefault(job_id, RateEstimator()).add(view, now)
            else:
                self._estimators.pop(job_id, None)
                self._rates.pop(job_id, None)
        refreshed, self._refreshed = self._refreshed, asyncio.Event()
        refreshed.set()

    async def wait_for_refresh(self) -> None:
        """Wait until the table is read again."""
        await self._refreshed.wait()

    def jobs(self) -> list[JobView]:
        """Return all jobs except deleted ones: the oldest first, those not yet accepted by a producer last.

        Raises:
            BrokerUnavailable: Kafka cannot be read now.
        """
        if self._views is None:
            raise BrokerUnavailable(self._reason, hint="try again in a moment")
        shown = [view for view in self._views if view.state.state is not State.DELETED]
        if not self._submitted:
            return shown
        known = {view.state.spec.job_id for view in self._views}
        submitted = [state for job_id, state in self._submitted.items() if job_id not in known]
        return shown + [JobView(state, EventTotals()) for state in submitted]

    def job(self, job_id: str) -> JobView:
        """Return one job.

        Raises:
            BrokerUnavailable: Kafka cannot be read now.
            JobUnknown: no job has this id, or it was deleted.
        """
        for view in self.jobs():
            if view.state.spec.job_id == job_id:
                return view
        raise JobUnknown(f"there is no dataset '{job_id[:100]}'")

    def rates(self, job_id: str) -> JobRates:
        """Return the rates of a job; those of a job that is not active are None."""
        return self._rates.get(job_id, JobRates())

    async def submit(self, spec: JobSpec, owner: Owner | None = None) -> JobView:
        """Submit a job. To submit the same job again changes nothing.

        Raises:
            JobConflict: the id belongs to another job, or to the job of another owner.
            BrokerUnavailable: Kafka cannot be read or written now.
        """
        known = {view.state.spec.job_id: view for view in self.jobs()}.get(spec.job_id)
        if known is not None and known.state.spec.body() != spec.body():
            raise JobConflict(f"the id '{spec.job_id}' was accepted before with another body")
        if known is not None and (other := known.state.submission.owner) and owner and other != owner:
            raise JobConflict(f"the id '{spec.job_id}' belongs to a job of another user")
        submitted = Submission(stamp(self._clock), owner)
        with span("submit", job=spec.job_id):
            await self._broker.publish(JOBS, [submission(spec, submitted)])
        # The client may ask for the job before the message is read back from Kafka.
        self._add(spec, submitted)
        views = {view.state.spec.job_id: view for view in self.jobs()}
        # The id of a deleted job stays taken: its producer ignores the message, and the list has no such job.
        return views.get(spec.job_id) or JobView(self._submitted[spec.job_id], EventTotals())

    async def request(self, job_id: str, action: Literal["cancel", "retry", "delete"], user: str) -> None:
        """Send a request to the producer of a job. Raise BrokerUnavailable when Kafka cannot be written."""
        request = Request(job_id=job_id, action=action, requested_by=user)
        await self._broker.publish(JOBS, [Message(job_id.encode(), request.body())])

    @property
    def unavailable_reason(self) -> str | None:
        """Why the jobs cannot be read now; None when they can."""
        return self._reason if self._views is None else None

    @property
    def count(self) -> int:
        """Number of datasets; 0 while the jobs cannot be read."""
        return len(self.jobs()) if self._views is not None else 0
