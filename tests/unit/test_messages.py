"""The bytes of the messages of an attempt's topic: golden, read back, and refused when they are none."""

import struct
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.job.columns import Columns
from shardline_common.job.hashing import group_hash, order_key, order_partition, partition_of
from shardline_common.job.messages import (
    DOCUMENT,
    GROUPED,
    MALFORMED,
    DeadLetter,
    End,
    Facts,
    decode_document,
    decode_end,
    decode_group,
    encode_dead_letter,
    encode_document,
    encode_end,
    encode_facts,
    encode_group,
    encode_position,
    encode_rendered,
    is_message,
)
from shardline_common.job.spec import JobSpec
from shardline_common.job.spec_model import FIELDS_OF_0_1
from shardline_common.job.state import PartitionState
from shardline_producer.encoder import Encoder
from shardline_producer.sources.documents import DeadLetterReason, invalid_document
from shardline_producer.sources.source import Document, SourceItem
from tests.make import job

FACTS = encode_facts(1200, 300, 3, False, 0.25)
FACTS_HEX = "000004b00000012c03003fd0000000000000"
POSITION = encode_position((0, 7, 90, 7))
SPLITS = {"train": 0.9, "test": 0.1}


# Never made anew: topics of running jobs hold these bytes, and workers of several versions read them.
@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            encode_rendered(5, POSITION, FACTS, 3, b"abcdef"),
            "010000000000000005" + FACTS_HEX + "000a00000003" + (b"[0,7,90,7]abcdef").hex(),
        ),
        (
            encode_rendered(5, POSITION, FACTS + encode_group(0xFEDCBA9876543210), 3, b"abcdef"),
            "040000000000000005" + FACTS_HEX + "fedcba9876543210000a00000003" + (b"[0,7,90,7]abcdef").hex(),
        ),
        (
            encode_dead_letter(6, POSITION, DeadLetter("empty", "no text", "00", 2, b"{}")),
            "02"
            "0000000000000006"
            "000a" + (b'[0,7,90,7]{"reason":"empty","hint":"no text","sha256":"00","size":2}\n{}').hex(),
        ),
        (encode_end(End(7, 0xFEDCBA9876543210)), "030000000000000007fedcba9876543210"),
    ],
    ids=["document", "grouped", "dead", "end"],
)
def test_the_bytes_of_each_kind_are_frozen(message: bytes, expected: str) -> None:
    assert message.hex() == expected
    assert is_message(message)


@given(
    st.integers(0, (1 << 64) - 1),
    st.integers(0, (1 << 32) - 1),
    st.booleans(),
    st.binary(max_size=30),
    st.binary(max_size=30),
    st.none() | st.integers(0, (1 << 64) - 1),
)
def test_a_document_is_read_back_with_its_group_or_without(
    sequence: int, chars: int, blank: bool, head: bytes, tail: bytes, group: int | None
) -> None:
    facts = encode_facts(chars, 3, 2, blank, 0.5) + (b"" if group is None else encode_group(group))
    value = encode_rendered(sequence, POSITION, facts, len(head), head + tail)
    *read, start, head_start, tail_start = decode_document(value)
    assert read == [chars, 3, 2, int(blank), 0.5]
    assert (value[start:head_start], value[head_start:tail_start], value[tail_start:]) == (
        POSITION,
        head,
        tail,
    )
    assert (value[0], decode_group(value)) == (DOCUMENT if group is None else GROUPED, group)
    if group is None:
        assert value == encode_document(sequence, POSITION, Facts(chars, 3, 2, blank, 0.5), head, tail)


@given(st.integers(0, 60), st.booleans())
def test_a_message_that_is_cut_is_malformed(length: int, grouped: bool) -> None:
    facts = FACTS + encode_group(1) * grouped
    value = encode_rendered(5, POSITION, facts, 6, b"abcdef")
    if length < len(value):
        with pytest.raises(MALFORMED):
            decode_document(value[:length])


def test_an_end_marker_has_its_kind() -> None:
    value = struct.pack(">BQQ", GROUPED, 7, 9)
    with pytest.raises(MALFORMED):
        decode_end(value)
    assert not is_message(struct.pack(">BQQ", GROUPED + 1, 7, 9))


def encoded(spec: JobSpec, *contents: Any) -> list[Any]:
    items = [SourceItem((0, n, n, n), content, 5) for n, content in enumerate(contents, 1)]
    parts = [PartitionState() for _ in range(spec.total_partitions)]
    return Encoder(spec, Columns({}), parts).encode(items).messages


@given(
    st.lists(st.text(st.characters(codec="ascii", categories=["L"]), min_size=1), max_size=20, unique=True)
)
def test_a_seeded_order_places_by_order_key_and_a_source_order_by_id(ids: list[str]) -> None:
    broken = invalid_document("in:9", DeadLetterReason.INVALID_JSON, b"{")
    contents = [*(Document(name, "text", {}) for name in ids), broken]
    for seed in (0, 7):
        spec = job(partitions=5, output={"order": {"seed": seed}})
        for message in encoded(spec, *contents):
            assert message.partition == order_partition(order_key(seed, message.key), 5)
    spec = job(partitions=5, output={"order": "source"})
    for message in encoded(spec, *contents):
        assert message.partition == partition_of(message.key, 5)


@pytest.mark.parametrize(
    ("output", "sends"),
    [
        ({"splits": SPLITS, "group_by": "court"}, True),
        ({"splits": SPLITS | {"exact": True}, "group_by": "court", "order": "source"}, True),
        ({"layout": "assembled", "validation_fraction": 0.1, "group_by": "court"}, True),
        ({"splits": SPLITS}, False),
        ({"splits": {"train": 1}, "group_by": "court"}, False),
        ({"layout": "assembled", "group_by": "court"}, False),
        ({"validation_fraction": 0.1, "group_by": "court"}, False),
    ],
)
def test_a_document_travels_with_its_group_where_that_decides_its_split(
    output: dict[str, Any], sends: bool
) -> None:
    spec = job(output=output)
    assert spec.sends_groups == sends
    broken = invalid_document("in:9", DeadLetterReason.INVALID_JSON, b"{")
    with_value, without, number, dead = encoded(
        spec,
        Document("a", "text", {"court": "VG Köln"}),
        Document("b", "text", {"court": None}),
        Document("c", "text", {"court": 7}),
        broken,
    )
    groups = [decode_group(message.value) for message in (with_value, without, number)]
    expected = [group_hash("VG Köln".encode()), group_hash(b"b"), group_hash(b"7")]
    assert groups == (expected if sends else [None] * 3)
    assert dead.value[0] == 2


@pytest.mark.parametrize("output", [{"splits": SPLITS}, {"layout": "assembled", "validation_fraction": 0.1}])
def test_a_version_that_does_not_know_grouped_messages_cannot_read_their_jobs(output: dict[str, Any]) -> None:
    # It refuses unknown fields, so its workers join no job that has such messages.
    spec = job(output=output | {"group_by": "court"})
    assert spec.sends_groups
    names = {f"Output.{name}" for name in orjson.loads(spec.body())["output"]}
    assert names - FIELDS_OF_0_1
