"""Why a submitted job is never accepted: the dead letter that a producer writes for its message."""

import logging
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from shardline_common.errors import BrokerUnavailable, FailureCode, JobConflict, JobFailed, JobInvalid
from shardline_common.job.dead_letters import DeadLetterRecord
from shardline_common.job.names import DEAD_LETTERS, JOBS
from shardline_common.job.spec import JobSpec
from shardline_common.job.spec_diff import own_id_advice
from shardline_common.ports.broker import Broker, TableReader

_log = logging.getLogger(__name__)
_DEADLINE = 15.0
# Other jobs may write dead letters faster than they are read here.
_MAX_POLLS = 50


class Refusals:
    """Follows the dead letters until that of one submission is found. It keeps none of them.

    Topics are opened at the first check: most jobs are accepted before.
    """

    def __init__(self, broker: Broker, submitted: JobSpec | None) -> None:
        self._broker = broker
        self._submitted = submitted
        self._stack = AsyncExitStack()
        self._key = b""
        self._table: TableReader | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def check(self) -> None:
        """Read the dead letters that came since the last check. A client without that right sees none.

        Raises:
            JobConflict: a producer refused the job, because its id belongs to another job.
            JobFailed: an unexpected error kept the producer from accepting the job (`internal`).
            JobInvalid: a producer refused the job for any other reason.
        """
        if (spec := self._submitted) is None:
            return
        try:
            found = await self._find(spec)
        except BrokerUnavailable as error:
            _log.warning("%s: a refusal of the job would not be seen: %s", spec.job_id, error)
            self._submitted = None
            return
        if found is None:
            return
        message = f"the job '{spec.job_id}' was refused: {found.hint}"
        if found.reason == "job_conflict":
            raise JobConflict(message, hint=own_id_advice(spec))
        if found.reason == FailureCode.INTERNAL:
            raise JobFailed(FailureCode.INTERNAL, message)
        raise JobInvalid(message, hint=f"`shardline dead-letters show {found.key}` prints the message")

    async def _find(self, spec: JobSpec) -> DeadLetterRecord | None:
        if self._table is None:
            self._key = await self._submission_key(spec)
            self._table = await self._stack.enter_async_context(self._broker.table_reader(DEAD_LETTERS))
        for _ in range(_MAX_POLLS):
            records = await self._table.poll(timeout=0.01)
            for record in records:
                if record.key == self._key and record.value is not None:
                    return DeadLetterRecord.decode(record)
            if not records:
                break
        return None

    async def _submission_key(self, spec: JobSpec) -> bytes:
        """The key of a dead letter of the last message that submits the job.

        An older message may have been refused for a reason that no longer holds.
        """
        async with self._broker.table_reader(JOBS) as jobs:
            records = await jobs.catch_up(deadline=_DEADLINE)
        key, body = spec.job_id.encode(), spec.body()
        own = [record for record in records if record.key == key and record.value == body]
        return f"{JOBS}/{own[-1].partition}/{own[-1].offset}".encode() if own else b""
