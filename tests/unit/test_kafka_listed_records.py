"""Records in lists are those that aiokafka gives one by one."""

import gc
from collections.abc import Sequence
from itertools import accumulate
from struct import Struct, pack, pack_into
from typing import Any
from weakref import ref

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from shardline_common.kafka.listed_records import ListedRecords, ListLimit
from shardline_common.ports.broker import Record

WHERE = TopicPartition("t", 3)
ABORT, COMMIT = b"\0\0\0\0", b"\0\0\0\1"
_ATTRIBUTES, _CRC, _CONTROL = Struct(">h"), Struct(">I"), 0x20

Content = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]
_content = st.tuples(
    st.none() | st.binary(max_size=5),
    st.none() | st.binary(max_size=300),
    st.lists(st.tuples(st.text(max_size=3), st.binary(max_size=3)), max_size=2),
)
# The producer of a batch, and its records; None: the marker that ends its transaction.
_batch = st.tuples(
    st.integers(1, 3), st.lists(_content, min_size=1, max_size=12) | st.none(), st.sampled_from([0, 1, 4])
)


def encoded(base: int, producer: int, records: Sequence[Content] | None, codec: int, marker: bytes) -> bytes:
    builder = DefaultRecordBatchBuilder(
        2, codec if records else 0, is_transactional=1, producer_id=producer, producer_epoch=0,
        base_sequence=0, batch_size=1 << 20,
    )  # fmt: skip
    for offset, (key, value, headers) in enumerate(records or [(marker, b"\0" * 6, [])]):
        builder.append(offset, 0, key, value, headers)
    found = builder.build()
    pack_into(">q", found, 0, base)
    if records is None:
        _ATTRIBUTES.pack_into(found, 21, _ATTRIBUTES.unpack_from(found, 21)[0] | _CONTROL)
        _CRC.pack_into(found, 17, calc_crc32c(found[21:]))
    return bytes(found)


def log_of(batches: Sequence[Any], aborted: frozenset[int]) -> tuple[bytes, list[tuple[int, int]]]:
    """A log, and its aborted transactions as a broker names them: those of some producers."""
    bases = accumulate((len(records or [0]) for _, records, _ in batches), initial=0)
    log, transactions, begun = [], [], set[int]()
    for base, (producer, records, codec) in zip(bases, batches, strict=False):
        if records is None:
            begun.discard(producer)
        elif producer not in begun:
            begun.add(producer)
            if producer in aborted:
                transactions.append((producer, base))
        log.append(encoded(base, producer, records, codec, ABORT if producer in aborted else COMMIT))
    return b"".join(log), transactions


def fetched(log: bytes, aborted: Sequence[tuple[int, int]], start: int) -> PartitionRecords:
    return PartitionRecords(WHERE, MemoryRecords(log), list(aborted), start, None, None, True, READ_COMMITTED)


@settings(max_examples=60)
@given(
    batches=st.lists(_batch, max_size=8),
    aborted=st.frozensets(st.integers(1, 3)),
    start=st.integers(0, 30),
    limits=st.lists(st.integers(1, 20), min_size=1, max_size=5),
)
def test_lists_have_the_records_of_the_client(
    batches: Sequence[Any], aborted: frozenset[int], start: int, limits: Sequence[int]
) -> None:
    log, transactions = log_of(batches, aborted)
    plain = fetched(log, transactions, start)
    steps = [
        (Record(WHERE.partition, one.offset, one.key, one.value, one.headers), plain.next_fetch_offset)
        for one in plain
    ]
    listed, limit = fetched(log, transactions, start), ListLimit()
    listed.__class__ = ListedRecords
    listed.prepare(limit)
    found: list[Record] = []
    for number in range(100):
        limit.records = limits[number % len(limits)]
        if (some := next(listed, None)) is None:
            break
        found += some
        if len(some) < limit.records:
            assert next(listed, None) is None
            break
        # A consumer that stops here reads on behind the last record, as after a record.
        assert steps[len(found) - 1][1] == listed.next_fetch_offset
    assert found == [record for record, _ in steps]
    assert listed.next_fetch_offset == plain.next_fetch_offset


def test_a_damaged_batch_raises_as_before() -> None:
    log = encoded(0, 1, [(b"k", b"value", [])], 0, b"")
    for damaged in (log[:-1] + b"!", log[:61] + pack(">b", 99) + log[62:]):
        kinds = []
        for listed in (False, True):
            records = fetched(damaged, [], 0)
            if listed:
                records.__class__ = ListedRecords
                records.prepare(ListLimit())
            try:
                list(records)
            except Exception as error:  # noqa: BLE001 - compared
                kinds.append(type(error))
        assert len(kinds) == 2
        assert kinds[0] is kinds[1]


def test_what_was_fetched_is_freed_once_it_is_read() -> None:
    records = fetched(encoded(0, 1, [(b"k", b"value", [])] * 3, 0, b""), [], 0)
    records.__class__ = ListedRecords
    records.prepare(ListLimit())
    kept = ref(records)
    gc.disable()
    try:
        assert len(list(records)) == 3
        del records
        assert kept() is None
    finally:
        gc.enable()
