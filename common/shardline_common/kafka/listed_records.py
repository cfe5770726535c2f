"""Records of a consumer in lists, without an object of aiokafka for each.

aiokafka passes each record through two generators and makes a ConsumerRecord of eleven fields of it, which
takes longer than to read the record. Here its loop over batches, which leaves out control records and
aborted transactions, gets an item for many records of a batch instead of one for each.
tests/unit/test_aiokafka_internals.py fails where a later aiokafka has moved a part.
"""
# ruff: noqa: SLF001 - aiokafka has no public call for this

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords

from shardline_common.ports.broker import Record


class _Listed(NamedTuple):
    """Consecutive records of a batch, as one item. `offset` is that of the last one."""

    offset: int
    records: list[Record]


class _Room:
    """How many records the list that is being made still takes."""

    left = 0


class _ListingBatch:
    """A batch whose items are lists of as many records as there is room for."""

    def __init__(self, batch: Any, partition: int, room: _Room) -> None:
        self._batch = batch
        self._partition = partition
        self._room = room

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        # aiokafka takes the record of a control batch so.
        return next(self._batch)

    def __iter__(self) -> Iterator[_Listed]:
        # A NamedTuple's own constructor takes three times as long, and most records have no headers.
        number, new = self._partition, tuple.__new__
        records = (
            new(Record, (number, one.offset, one.key, one.value, tuple(one.headers) if one.headers else ()))
            for one in self._batch
        )
        while found := list(islice(records, self._room.left)):
            yield _Listed(found[-1].offset, found)


class _ListingBatches:
    """Batches that give lists."""

    # They do not refer to the ListedRecords that they are of: the bytes of a fetch would wait for the
    # collector of cyclic garbage, which seldom runs.
    def __init__(self, batches: Any, partition: int, room: _Room) -> None:
        self._batches = batches
        self._partition = partition
        self._room = room

    def has_next(self) -> bool:
        return bool(self._batches.has_next())

    def next_batch(self) -> _ListingBatch:
        return _ListingBatch(self._batches.next_batch(), self._partition, self._room)


class ListedRecords(PartitionRecords):  # type: ignore[misc]  # aiokafka is untyped
    """The fetched records of a partition, in lists of at most `limit.records`."""

    def prepare(self, limit: "ListLimit") -> None:
        """Set what a constructor would set. No record has been taken yet."""
        self._limit = limit
        self._room = _Room()
        self._records: Any = _ListingBatches(self._records, self._tp.partition, self._room)
        self._records_iterator = self._unpack_records()

    def __next__(self) -> list[Record]:
        """The next list: full, unless no more are fetched."""
        self._room.left = self._limit.records
        found: list[Record] = []
        # The base class forgets its iterator at the end.
        while self._room.left and self._records_iterator is not None:
            try:
                some = super().__next__()
            except StopIteration:
                break
            found += some
            self._room.left -= len(some)
        if not found:
            raise StopIteration
        return found

    def _consumer_record(self, tp: TopicPartition, record: _Listed) -> list[Record]:  # noqa: ARG002 - as in the base class
        # A broker sends whole batches, also those that begin before the offset that was asked for.
        if record.records[0].offset < self.next_fetch_offset:
            return [one for one in record.records if one.offset >= self.next_fetch_offset]
        return record.records


class ListLimit:
    """How many records a list holds at most."""

    records = 1


class _ListedResults(OrderedDict[TopicPartition, Any]):
    """The fetched records of a consumer, by partition."""

    def __init__(self, limit: ListLimit) -> None:
        super().__init__()
        self._limit = limit

    def __setitem__(self, where: TopicPartition, result: Any) -> None:
        # The other results are errors.
        if type(result) is FetchResult:
            records = result._partition_records
            records.__class__ = ListedRecords
            records.prepare(self._limit)
        super().__setitem__(where, result)


class ListingConsumer:
    """Fetches records of a consumer in lists. Make it when the consumer has started and reads nothing yet."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._limit = ListLimit()
        consumer._fetcher._records = _ListedResults(self._limit)

    async def fetch(
        self, wanted: Sequence[TopicPartition], timeout: float, max_records: int
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        """As `getmany` of the consumer, with these records in it."""
        # Each partition gets its share, and those behind it what it leaves.
        self._limit.records = most = max(1, max_records // len(wanted))
        found = await self._consumer.getmany(
            *wanted, timeout_ms=int(timeout * 1000), max_records=max_records // most
        )
        return {where: list(chain.from_iterable(lists)) for where, lists in found.items()}
