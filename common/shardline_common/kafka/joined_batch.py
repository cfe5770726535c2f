"""A batch of records that is encoded by one join.

aiokafka's builder takes three calls for each message, of which two are in Python, and computes the checksum
by tables. The bytes are the same: tests/unit/test_kafka_joined_batch.py compares them. Its accumulator, which
numbers the batches of a producer, sends them again and fails them, works with these as with its own;
tests/unit/test_aiokafka_internals.py fails where a later aiokafka needs more of them.
"""

import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from struct import Struct

from aiokafka.producer.message_accumulator import BatchBuilder

from shardline_common.kafka.checksums import crc32c
from shardline_common.ports.broker import Message

# Offset (the broker sets it), length behind it, epoch of the leader (none), version of the layout, checksum.
_HEAD = Struct(">qiibI")
# Attributes, last offset, first and last time, producer's id and epoch, first sequence, number of records.
_CHECKED_HEAD = Struct(">hiqqqhii")
_HEAD_BYTES = _HEAD.size + _CHECKED_HEAD.size
_LENGTH_FROM, _NO_EPOCH, _LAYOUT, _TRANSACTIONAL = 12, -1, 2, 0x10


@lru_cache(1 << 14)
def _varint(value: int) -> bytes:
    rest, found = value * 2 if value >= 0 else -value * 2 - 1, bytearray()
    while rest > 0x7F:  # noqa: PLR2004 - seven bits of a byte
        found.append(rest & 0x7F | 0x80)
        rest >>= 7
    found.append(rest)
    return bytes(found)


class JoinedBatch(BatchBuilder):  # type: ignore[misc]  # aiokafka is untyped
    """A closed batch of a transactional producer, without compression, all of whose records have one time."""

    def __init__(self, parts: list[bytes], count: int, size: int, milliseconds: int) -> None:
        self._parts, self._count, self._bytes, self._time = parts, count, size, milliseconds
        self._producer = (-1, -1, 0)
        self._buffer: bytes | None = None
        self._closed = True

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._producer = (producer_id, producer_epoch, base_sequence)

    def _build(self) -> bytes:
        if self._buffer is None:
            head = _CHECKED_HEAD.pack(
                _TRANSACTIONAL, self._count - 1, self._time, self._time, *self._producer, self._count
            )
            checked = b"".join((head, *self._parts))
            length = _HEAD.size - _LENGTH_FROM + len(checked)
            self._buffer = _HEAD.pack(0, length, _NO_EPOCH, _LAYOUT, crc32c(checked)) + checked
            self._parts = []
        return self._buffer

    def size(self) -> int:
        """The size in bytes."""
        return self._bytes

    def record_count(self) -> int:
        """The number of records."""
        return self._count


def joined_batches(
    messages: Iterable[Message], max_bytes: int, milliseconds: int | None = None
) -> Iterator[JoinedBatch]:
    """The messages of one partition in batches of at most so many bytes, or of one message."""
    now = time.time_ns() // 1_000_000 if milliseconds is None else milliseconds
    parts: list[bytes] = []
    count, size = 0, _HEAD_BYTES
    for key, value, _, headers in messages:
        behind = _headers(headers) if headers else b"\0"
        length = _varint(-1 if value is None else len(value))
        content = value or b""
        while True:
            # Attributes and the difference of its time are 0.
            head = b"".join((b"\0\0", _varint(count), _varint(len(key)), key, length))
            body = len(head) + len(content) + len(behind)
            framed = (_varint(body), head, content, behind)
            if not count or size + body + len(framed[0]) <= max_bytes:
                break
            yield JoinedBatch(parts, count, size, now)
            parts, count, size = [], 0, _HEAD_BYTES
        parts += framed
        count += 1
        size += body + len(framed[0])
    if count:
        yield JoinedBatch(parts, count, size, now)


def _headers(headers: Iterable[tuple[str, bytes | None]]) -> bytes:
    found: list[bytes] = []
    for name, value in headers:
        text = name.encode()
        found += (_varint(len(text)), text, _varint(-1 if value is None else len(value)), value or b"")
    return _varint(len(found) // 4) + b"".join(found)
