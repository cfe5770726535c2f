"""A damaged batch is refused, by the checksum that aiokafka computes as well."""

from types import SimpleNamespace

import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from shardline_common.kafka.checksums import are_whole, check_fetched, crc32c


def batch(values: list[bytes]) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, 1, 1, 0, 0, 1 << 20)
    for offset, value in enumerate(values):
        builder.append(offset, 0, b"k", value, [])
    return bytes(builder.build())


def valid(log: bytes) -> bool:
    """Whether the client takes these batches."""
    records = MemoryRecords(log)
    try:
        while records.has_next():
            if not records.next_batch().validate_crc():
                return False
    except (CorruptRecordException, SystemError):
        return False
    return True


_log = st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=3).map(batch), min_size=1, max_size=3)


@settings(max_examples=60)
@given(data=st.binary(max_size=2000))
def test_the_checksum_is_that_of_the_client(data: bytes) -> None:
    assert crc32c(data) == calc_crc32c(data)


@settings(max_examples=60)
@given(batches=_log, cut=st.integers(0, 60), number=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_what_the_client_refuses_is_damaged(batches: list[bytes], cut: int, number: int, bit: int) -> None:
    # A broker cuts the last batch where the answer is full.
    log = bytearray(b"".join(batches) + batches[0][:cut])
    assert are_whole(bytes(log))
    number %= len(log) - cut
    log[number] ^= 1 << bit
    assert are_whole(bytes(log)) is valid(bytes(log))


def test_a_batch_of_an_old_layout_is_checked_by_the_client() -> None:
    builder = LegacyRecordBatchBuilder(1, 0, 1 << 20)
    builder.append(0, timestamp=0, key=b"k", value=b"value")
    whole = bytes(builder.build())
    assert are_whole(whole)
    assert not are_whole(whole[:-1] + b"!")


@pytest.mark.parametrize("layout", [0, 1])
def test_a_batch_whose_layout_is_damaged_is_refused(layout: int) -> None:
    log = bytearray(batch([b"value", b"another value"]))
    log[16] = layout
    assert not are_whole(bytes(log))
    for number in range(17, len(log)):
        for bit in range(8):
            damaged = bytearray(log)
            damaged[number] ^= 1 << bit
            assert not are_whole(bytes(damaged))


def test_the_answer_to_a_fetch_is_refused_with_the_partition() -> None:
    def answer(records: bytes) -> SimpleNamespace:
        return SimpleNamespace(topics=[("t", [(3, 0, 1, records)])])

    check_fetched(answer(batch([b"value"])))
    with pytest.raises(CorruptRecordException, match="of t, partition 3, is damaged"):
        check_fetched(answer(batch([b"value"])[:-1] + b"!"))
