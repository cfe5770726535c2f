"""The encoder: sequences without gaps, and a restart from the chain that sends the rest and only the rest."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from shardline_common.job.columns import Columns
from shardline_common.job.hashing import document_hash
from shardline_common.job.messages import (
    DEAD,
    DeadLetter,
    decode_dead_letter,
    decode_document,
    decode_kind_and_sequence,
    decode_position,
)
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import PartitionState
from shardline_common.ports.broker import Message
from shardline_producer.encoder import DocumentRenderer, Encoder, end_markers
from shardline_producer.sources.documents import DeadLetterReason, dead_letter, invalid_document
from shardline_producer.sources.source import Document, InvalidDocument, SourceItem
from tests.make import job

SPEC = job(partitions=3, output={"validation_fraction": 0.3}, max_document_bytes=2048)


def item(number: int, kind: str) -> SourceItem:
    position = (0, number, number * 10, number)
    if kind == "broken":
        return SourceItem(
            position, InvalidDocument(f"in:{number}", DeadLetter("invalid_json", "", "", 1, b"{")), 1
        )
    return SourceItem(position, Document(f"d{number}", "x" * (3000 if kind == "large" else 5), {}), 5)


def encode(
    spec: JobSpec, items: Sequence[SourceItem], parts: list[PartitionState], size: int
) -> list[Message]:
    encoder = Encoder(spec, Columns({}), parts)
    found = []
    for start in range(0, len(items), size):
        found += encoder.encode(items[start : start + size]).messages
    return found


kinds = st.lists(st.sampled_from(["good", "broken", "large"]), max_size=40)


@given(kinds, st.integers(1, 9))
def test_sequences_have_no_gaps_and_sums_agree(found: list[str], size: int) -> None:
    items = [item(number + 1, kind) for number, kind in enumerate(found)]
    parts = [PartitionState() for _ in range(SPEC.total_partitions)]
    messages = encode(SPEC, items, parts, size)
    assert messages == encode(SPEC, items, [PartitionState() for _ in parts], 1)
    for number, part in enumerate(parts):
        own = [message for message in messages if message.partition == number]
        sequences = [decode_kind_and_sequence(message.value or b"")[1] for message in own]
        assert sequences == list(range(part.sequence))
        assert part.hash_sum == sum(document_hash(message.key) for message in own) % (1 << 64)
        assert part.dead == sum((message.value or b"")[0] == DEAD for message in own)
    assert sum(part.dead for part in parts) == len(found) - found.count("good")
    assert len(end_markers(parts)) == SPEC.total_partitions


@given(kinds, st.data())
def test_a_restart_sends_the_rest_and_only_the_rest(found: list[str], data: st.DataObject) -> None:
    items = [item(number + 1, kind) for number, kind in enumerate(found)]
    whole = encode(SPEC, items, [PartitionState() for _ in range(SPEC.total_partitions)], 100)
    own = [[m for m in whole if m.partition == number] for number in range(SPEC.total_partitions)]
    kept = [data.draw(st.integers(0, len(messages))) for messages in own]
    parts = []
    for number, count in enumerate(kept):
        part = PartitionState()
        held = [entry for entry in items if place(entry) == number][:count]
        encode(SPEC, held, scratch := [PartitionState() for _ in own], 100)
        part = scratch[number]
        part.resume_after = held[-1].position if held else None
        parts.append(part)
    rest = encode(SPEC, items, parts, 7)
    for number, count in enumerate(kept):
        assert [m for m in rest if m.partition == number] == own[number][count:]


def test_the_number_of_a_slice_leads_the_positions_that_are_sent() -> None:
    items = [item(1, "good"), item(2, "broken"), item(3, "good")]
    spec, part = job(partitions=1), PartitionState(resume_after=(4, *items[0].position))
    encoder = Encoder(spec, Columns({}), [part], slice_number=4)
    batch = encoder.encode(items)
    assert batch.dropped == 1
    dead, good = (message.value or b"" for message in batch.messages)
    start, end = decode_document(good)[5:7]
    assert decode_position(decode_dead_letter(dead)[0]) == (4, 0, 2, 20, 2)
    assert decode_position(good[start:end]) == (4, 0, 3, 30, 3)
    assert encoder.sent_position(items[-1]) == (4, 0, 3, 30, 3)


@given(kinds, st.integers(0, 40))
def test_rendered_items_are_sent_as_their_documents(found: list[str], sent: int) -> None:
    items = [item(number + 1, kind) for number, kind in enumerate(found)]
    render, results = DocumentRenderer(SPEC, Columns({})), []
    rendered = [
        render(entry.position, entry.size, entry.content) if isinstance(entry.content, Document) else entry
        for entry in items
    ]
    for number, entries in ((0, items), (0, rendered), (1, items), (1, rendered)):
        parts = [PartitionState() for _ in range(SPEC.total_partitions)]
        # An earlier attempt has sent some of the first partition.
        position = items[sent].position if sent < len(items) else None
        parts[0].resume_after = (7, *position) if number and position else position
        encoder = Encoder(SPEC, Columns({}), parts, first=5, slice_number=7 if number else None)
        results.append((encoder.encode(entries), parts))
    assert results[0] == results[1]
    assert results[2] == results[3]


def place(entry: SourceItem) -> int:
    parts = [PartitionState() for _ in range(SPEC.total_partitions)]
    encode(SPEC, [entry], parts, 1)
    return next(number for number, part in enumerate(parts) if part.sequence)


def hint(content: Document | InvalidDocument) -> str:
    spec = job(partitions=1, max_document_bytes=2048)
    encoded = Encoder(spec, Columns({}), [PartitionState()]).encode([SourceItem((0, 1, 1, 1), content, 1)])
    return decode_dead_letter(encoded.messages[0].value or b"")[1].hint


def test_what_is_too_large_says_its_size_and_the_limit() -> None:
    limit = "max_document_bytes is 2,048"
    line = dead_letter(DeadLetterReason.TOO_LARGE, "in:7", b"{", "00", 5_242_881)
    assert hint(InvalidDocument("in:7", line)) == f"in:7: the document has 5,242,881 bytes; {limit}"
    start = invalid_document("d7", DeadLetterReason.TOO_LARGE, b"only the start")
    assert hint(start) == "d7: the document has more than max_document_bytes, 2,048"
    row = hint(Document("d8", "x" * 3000, {}))
    assert row.startswith("d8: the row has 3,")
    assert row.endswith(f" bytes; {limit}")
    other = invalid_document("in:9", DeadLetterReason.INVALID_JSON, b"{")
    assert hint(other) == other.dead_letter.hint
