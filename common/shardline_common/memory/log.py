"""The logs of the in-memory broker: partitions with offsets, trimming, retention and compaction."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from shardline_common.errors import BrokerUnavailable, OffsetOutOfRange
from shardline_common.ports.broker import Message, Record, TopicSpec

_COMPACT_FROM = 1000


def murmur2(data: bytes) -> int:
    """The 32-bit MurmurHash2 by which Kafka's default partitioner chooses a partition."""
    length, m = len(data), 0x5BD1E995
    h = (0x9747B28C ^ length) & 0xFFFFFFFF
    for start in range(0, length - length % 4, 4):
        k = int.from_bytes(data[start : start + 4], "little") * m & 0xFFFFFFFF
        k = (k ^ k >> 24) * m & 0xFFFFFFFF
        h = (h * m & 0xFFFFFFFF) ^ k
    if tail := data[length - length % 4 :]:
        h = (h ^ int.from_bytes(tail, "little")) * m & 0xFFFFFFFF
    h = (h ^ h >> 13) * m & 0xFFFFFFFF
    return h ^ h >> 15


def partition_for(key: bytes, partitions: int) -> int:
    """The partition of a message that names none, by its key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


@dataclass(slots=True)
class PartitionLog:
    """The log of one partition: offsets from `start` up to `end`. Compaction may leave gaps in them.

    `retention`: the most bytes that it keeps; -1: without a limit. Only then is its `size` counted.
    """

    retention: int = -1
    size: int = 0
    start: int = 0
    end: int = 0
    # A list, because a deque reads from its middle as slowly as it is long.
    records: list[Record] = field(default_factory=list)

    def append(self, number: int, messages: Iterable[Message]) -> None:
        """Add committed messages, all of them of this partition."""
        end, new = self.end, tuple.__new__
        # A NamedTuple's own constructor takes twice as long, and there is one for each document.
        added = [
            new(Record, (number, offset, key, value, headers))
            for offset, (key, value, _, headers) in enumerate(messages, end)
        ]
        self.records += added
        self.end = end + len(added)
        self.size += self._size(added)

    def read(self, offset: int, max_records: int) -> list[Record]:
        """Up to `max_records` records from `offset` on.

        Raises:
            OffsetOutOfRange: below the start or beyond the end.
        """
        if not self.start <= offset <= self.end:
            raise OffsetOutOfRange(
                f"offset {offset} is not in the log [{self.start}, {self.end})", partitions=()
            )
        first = self._index(offset)
        return self.records[first : first + max_records]

    def _index(self, offset: int) -> int:
        """The index of the first record from an offset on."""
        if not self.records:
            return 0
        # Without compaction offsets are dense, which gives the index.
        first = self.records[0].offset
        if len(self.records) == self.end - first:
            return max(0, offset - first)
        return bisect_left(self.records, offset, key=_offset)

    def has_records(self, offset: int) -> bool:
        """Whether a read from `offset` on (-1: the start) would return records or raise."""
        if offset < 0:
            return self.end > self.start
        return not self.start <= offset <= self.end or self.end > offset

    def count_from(self, offset: int) -> int:
        """About how many records there are from an offset on; -1 is the start of the log."""
        return self.end - max(offset, self.start)

    def trim(self, before: int) -> None:
        """Delete the records below `before`."""
        self.start = max(self.start, min(before, self.end))
        index = self._index(self.start)
        self.size -= self._size(self.records[:index])
        del self.records[:index]

    def retain(self) -> None:
        """Delete the oldest records until the log is within its limit, but never the last one."""
        while self.size > self.retention >= 0 and len(self.records) > 1:
            self.trim(self.records[0].offset + 1)

    def compact(self) -> None:
        """Keep only the last record of each key. Does nothing while the log has fewer than 1,000 records."""
        if len(self.records) < _COMPACT_FROM:
            return
        latest = {record.key: record for record in self.records}
        self.records = [record for record in self.records if latest[record.key] is record]
        self.size = self._size(self.records)

    def _size(self, records: Iterable[Record]) -> int:
        if self.retention < 0:
            return 0
        return sum(len(record.key or b"") + len(record.value or b"") for record in records)


def _offset(record: Record) -> int:
    return record.offset


class MemoryTopic:
    """A topic: its settings and the logs of its partitions."""

    def __init__(self, spec: TopicSpec) -> None:
        self.spec = spec
        retention = int(spec.config.get("retention.bytes", -1))
        self.logs = [PartitionLog(retention) for _ in range(spec.partitions)]
        self._max_message_bytes = int(spec.config.get("max.message.bytes", 1 << 30))
        self._compacted = "compact" in spec.config.get("cleanup.policy", "delete")

    def by_partition(self, messages: Iterable[Message]) -> dict[int, list[Message]]:
        """Messages by their partition, in their order.

        Raises:
            BrokerUnavailable: a message is larger than the topic allows.
        """
        limit, found = self._max_message_bytes, defaultdict[int, list[Message]](list)
        for message in messages:
            key, value, number, _ = message
            if value is not None and len(value) + len(key) > limit:
                raise BrokerUnavailable(f"a message of {len(value)} bytes is over max.message.bytes {limit}")
            found[partition_for(key, self.spec.partitions) if number is None else number].append(message)
        return found

    def append(self, messages: Mapping[int, Iterable[Message]]) -> None:
        """Add committed messages by their partition, as `by_partition` returns them."""
        for number, added in messages.items():
            log = self.logs[number]
            log.append(number, added)
            if self._compacted:
                log.compact()
            log.retain()
