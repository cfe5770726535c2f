"""Planted bugs: the oracle must catch each of them, or the design makes it harmless."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any
from unittest.mock import patch

from shardline_common.dataset.chain import Chain, ChainRecord, SegmentObject
from shardline_common.errors import FailureCode, JobFailed, ObjectExists, ServiceUnavailable
from shardline_common.job.messages import decode_kind_and_sequence
from shardline_common.job.names import CHECKPOINTS
from shardline_common.job.state import JobState, PartitionState, checkpoint
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.broker import Message, Record
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import Body
from shardline_consumer.attempt_consumer import AttemptConsumer
from shardline_consumer.commit import SegmentSink
from shardline_consumer.segment import OpenSegment
from shardline_consumer.spool.file import SpoolFile, compress, packed_path
from shardline_producer import resume
from shardline_producer.backlog import Backlog
from shardline_producer.encoder import Encoder
from shardline_producer.pipeline import Pipeline
from tests.simulation import content_mutants as content
from tests.simulation.group import Group, Reader
from tests.simulation.ports import NetTransaction
from tests.simulation.world import Process

Mutant = Callable[[ExitStack], None]


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """The system with a bug."""
    with ExitStack() as stack:
        mutant(stack)
        yield


def _overwrite(stack: ExitStack) -> None:
    """A put replaces an existing object."""

    async def create(self: MemoryStore, key: str, body: Body, **_: object) -> None:
        self._objects[key] = body if isinstance(body, bytes) else body.read_bytes()

    stack.enter_context(patch.object(MemoryStore, "create", create))


def _chain_before_data(stack: ExitStack) -> None:
    """The chain record, which is the commit, is written before the rows."""
    real = Chain.append
    late: list[Callable[[], Awaitable[None]]] = []

    async def put_later(
        sink: SegmentSink, key: str, file: SpoolFile, compression: str | None = None
    ) -> SegmentObject:
        path, stored = file.path, (file.size, file.sha256)
        compression = compression or sink.spec.output.compression
        if compression != "none":
            path = packed_path(file.path, compression)
            stored = compress(file.path, path, file.size, compression)
        late.append(partial(sink.context.store.create, key, path.read_bytes()))
        return SegmentObject(key.removeprefix(sink.layout.root), file.sha256, *stored)

    async def append(self: Chain, record: ChainRecord, clock: Clock) -> ChainRecord:
        standing = await real(self, record, clock)
        while late:
            with suppress(ObjectExists):
                await late.pop()()
        return standing

    stack.enter_context(patch.object(SegmentSink, "put", put_later))
    stack.enter_context(patch.object(Chain, "append", append))


def _no_epoch(stack: ExitStack) -> None:
    """What was revoked goes on: neither cancelled nor asked for its epoch."""

    async def revoked(self: AttemptConsumer, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self._processors.pop(partition, None)

    stack.enter_context(patch.object(AttemptConsumer, "_revoked", revoked))
    stack.enter_context(patch.object(AttemptConsumer, "_is_current", lambda _self, _epoch: True))


def _checkpoint_apart(stack: ExitStack) -> None:
    """The checkpoint is written in a separate transaction after that of the documents."""

    async def commit(self: Pipeline, messages: list[Message]) -> None:
        async with self._writer.transaction() as transaction:
            await transaction.send(self._topic, messages)
        async with self._writer.transaction() as transaction:
            await transaction.send(CHECKPOINTS, [checkpoint(self._state)])

    stack.enter_context(patch.object(Pipeline, "_commit", commit))


def _deliveries_forgotten(stack: ExitStack) -> None:
    """The commit does not wait for the deliveries: a refused batch is missing from the transaction."""
    stack.enter_context(patch.object(NetTransaction, "delivered", lambda _: None))


def _trim_by_committed(stack: ExitStack) -> None:
    """Offsets are committed as they are read, and the topic is trimmed by them."""
    real = Reader.poll

    async def poll(self: Reader, partitions: Sequence[int] | None, **more: Any) -> Mapping[int, Any]:
        found = await real(self, partitions, **more)
        if found and self._topic.startswith("dataset.job."):
            await self.commit({number: records[-1].offset + 1 for number, records in found.items()})
        return found

    async def trim(self: Backlog) -> None:
        groups: dict[tuple[str, str], Group] = self._broker._process.world.groups  # type: ignore[attr-defined]
        for (topic, _), group in groups.items():
            if topic == self._topic and group.committed:
                await self._broker.delete_records(topic, group.committed)

    stack.enter_context(patch.object(Reader, "poll", poll))
    stack.enter_context(patch.object(Backlog, "_trim", trim))


def _no_resume_after(stack: ExitStack) -> None:
    """A retry does not drop what earlier attempts had sent."""
    real = resume.continue_chains

    def forget(state: JobState, heads: Sequence[ChainRecord | None]) -> None:
        real(state, heads)
        for part in state.partitions:
            part.resume_after = None

    stack.enter_context(patch.object(resume, "continue_chains", forget))


def _sequences_anew(stack: ExitStack) -> None:
    """A producer that takes over counts from zero."""
    real = Encoder.__init__

    def init(self: Encoder, spec: Any, columns: Any, partitions: list[PartitionState], *more: Any) -> None:
        for part in partitions:
            part.sequence = 0
        real(self, spec, columns, partitions, *more)

    stack.enter_context(patch.object(Encoder, "__init__", init))


def _no_fencing(stack: ExitStack) -> None:
    """Two producers of one job do not shut each other out."""
    from shardline_common.memory.broker import MemoryBroker

    stack.enter_context(patch.object(MemoryBroker, "check_epoch", lambda *_: None))


def _gaps_unnoticed(stack: ExitStack) -> None:
    """A worker takes whatever sequence comes, and every batch may begin anywhere."""
    real = OpenSegment.take

    def take(self: OpenSegment, records: Sequence[Record]) -> Any:
        for record in records:
            if record.value:
                self.next = decode_kind_and_sequence(record.value)[1]
                break
        return real(self, records)

    stack.enter_context(patch.object(OpenSegment, "take", take))


def _lost_answer_is_a_failure(stack: ExitStack) -> None:
    """A refused create fails the job, even where the object has the same bytes."""

    def different(_sink: SegmentSink, key: str, *_: object) -> None:
        raise JobFailed(FailureCode.NOT_REPRODUCIBLE, f"{key} was written before")

    stack.enter_context(patch.object(SegmentSink, "_expect_same", different))


def _unproven_finish(stack: ExitStack) -> None:
    """The finish does not wait for the chains."""
    from shardline_consumer.finish import Finisher

    async def all_committed(self: Finisher, _state: JobState) -> bool:
        self._heads = [await self._read_head(number) for number in range(len(self._heads))]
        return True

    stack.enter_context(patch.object(Finisher, "_all_committed", all_committed))
    stack.enter_context(patch("shardline_consumer.finish.prove_conservation", lambda *_: None))


def _answers_believed(stack: ExitStack) -> None:
    """A commit whose answer was lost is sent again, as if it had not happened."""
    real = Process.request

    async def request(self: Process, server: str, apply: Callable[[], Awaitable[Any]], failure: Any) -> Any:
        try:
            return await real(self, server, apply, failure)
        except ServiceUnavailable:
            if isinstance(apply, partial) and apply.func.__name__ == "publish":
                return await apply()
            raise

    stack.enter_context(patch.object(Process, "request", request))


CAUGHT: dict[str, Mutant] = {
    "overwrite instead of create-only": _overwrite,
    "chain record before the shard": _chain_before_data,
    "checkpoint outside the transaction": _checkpoint_apart,
    "delivery futures not awaited": _deliveries_forgotten,
    "trimming by committed offsets": _trim_by_committed,
    "a retry sends all again": _no_resume_after,
    "sequences begin anew": _sequences_anew,
    "no fencing of producers": _no_fencing,
    "gaps are not noticed": _gaps_unnoticed,
    "one's own object is taken for another's": _lost_answer_is_a_failure,
    "the finish does not wait": _unproven_finish,
    "no epochs": _no_epoch,
    "handled requests are not saved": content.request_offset_not_saved,
    "dead letters are lost": content.dead_letters_lost,
    "the producer never waits for room": content.no_wait_for_room,
    "scanned bytes are checked once a fetch": content.scanned_bound_once_a_fetch,
    "the record limit is ignored": content.record_bound_ignored,
    "a tail without rows is not committed": content.tail_without_rows,
    "a dead letter does not move the position": content.dead_letter_without_position,
    "the spool is reused after a rebalance": content.spool_reused,
    "an idle segment keeps its spool": content.spool_never_yielded,
    "a failure of publishing is not recorded": content.publishing_error_not_recorded,
    "objects are not looked for before the outcome": content.dataset_not_proven,
    "second documents of an id are dropped": content.doubles_dropped,
    "rejections are kept beside rows only": content.rejections_without_rows_lost,
    "a retry starts at the furthest chain": content.furthest_chain,
    "verdicts are cached without the relevance": content.verdicts_by_length,
    "the split ignores the group": content.group_ignored,
}
"""Each of these breaks a guarantee in some schedules."""

CAUGHT_BY_TEST: dict[str, tuple[Mutant, str]] = {
    "trimming by an earlier attempt's offsets": (
        content.trim_by_earlier_attempt,
        "test_offsets_of_an_earlier_attempt_trim_nothing",
    ),
    "a standing chain record with other content is accepted": (
        content.standing_record_accepted,
        "test_a_standing_chain_record_with_other_content_is_refused",
    ),
}
"""Schedules meet these rarely or never: a test of tests/unit/test_planted_bugs.py plants each."""

HARMLESS: dict[str, Mutant] = {
    "events and letters twice": _answers_believed,
}
"""These break nothing, because cumulative and keyed messages may arrive twice."""
