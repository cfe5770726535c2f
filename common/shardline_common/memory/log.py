"""The logs of the in-memory broker: partitions with offsets, trimming, retention and compaction."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

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
    """The log of one partition: offsets from `start` up to `end`. Compaction may leave gaps in them."""

    start: int = 0
    end: int = 0
    records: deque[Record] = field(default_factory=deque)
    size: int = 0

    def append(self, number: int, message: Message) -> None:
        """Add a committed message."""
        record = Record(number, self.end, message.key, message.value, message.headers)
        self.records.append(record)
        self.size += _size(record)
        self.end += 1

    def read(self, offset: int, max_records: int) -> list[Record]:
        """Up to `max_records` records from `offset` on.

        Raises:
            OffsetOutOfRange: below the start or beyond the end.
        """
        if not self.start <= offset <= self.end:
            raise OffsetOutOfRange(
                f"offset {offset} is not in the log [{self.start}, {self.end})", partitions=()
            )
        if not self.records:
            return []
        # Without compaction offsets are dense, which gives the index. A compacted log is small.
        skip = offset - self.records[0].offset
        if len(self.records) == self.end - self.records[0].offset:
            return list(islice(self.records, max(0, skip), max(0, skip) + max_records))
        return list(islice((record for record in self.records if record.offset >= offset), max_records))

    def has_records(self, offset: int) -> bool:
        """Whether a read from `offset` on (-1: the start) would return records or raise."""
        if offset < 0:
            return self.end > self.start
        return not self.start <= offset <= self.end or self.end > offset

    def trim(self, before: int) -> None:
        """Delete the records below `before`."""
        self.start = max(self.start, min(before, self.end))
        while self.records and self.records[0].offset < self.start:
            self.size -= _size(self.records.popleft())

    def retain(self, limit: int) -> None:
        """Delete the oldest records until at most `limit` bytes are left."""
        while self.size > limit and len(self.records) > 1:
            self.trim(self.records[0].offset + 1)

    def compact(self) -> None:
        """Keep only the last record of each key. Does nothing while the log has fewer than 1,000 records."""
        if len(self.records) < _COMPACT_FROM:
            return
        latest = {record.key: record for record in self.records}
        self.records = deque(record for record in self.records if latest[record.key] is record)
        self.size = sum(map(_size, self.records))


def _size(record: Record) -> int:
    return len(record.key or b"") + len(record.value or b"")


class MemoryTopic:
    """A topic: its settings and the logs of its partitions."""

    def __init__(self, spec: TopicSpec) -> None:
        self.spec = spec
        self.logs = [PartitionLog() for _ in range(spec.partitions)]
        self._max_message_bytes = int(spec.config.get("max.message.bytes", 1 << 30))
        self._retention = int(spec.config.get("retention.bytes", -1))
        self._compacted = "compact" in spec.config.get("cleanup.policy", "delete")

    def partition_of(self, message: Message) -> int:
        """The partition of a message.

        Raises:
            BrokerUnavailable: the message is larger than the topic allows.
        """
        if len(message.value or b"") + len(message.key) > self._max_message_bytes:
            raise BrokerUnavailable(
                f"a message of {len(message.value or b'')} bytes is over max.message.bytes "
                f"{self._max_message_bytes}"
            )
        if message.partition is not None:
            return message.partition
        return partition_for(message.key, self.spec.partitions)

    def append(self, messages: Sequence[Message]) -> None:
        """Add committed messages."""
        touched = set()
        for message in messages:
            number = self.partition_of(message)
            self.logs[number].append(number, message)
            touched.add(number)
        for number in touched:
            if self._compacted:
                self.logs[number].compact()
            if self._retention >= 0:
                self.logs[number].retain(self._retention)
