"""Blocks: a worker that gets documents in them cuts the segments that single messages give, to the byte."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shardline_common.dataset.chain import Totals
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.columns import Columns
from shardline_common.job.message_blocks import decode_block, encode_block, is_block
from shardline_common.job.messages import MALFORMED
from shardline_common.job.segment_limits import SegmentLimits
from shardline_common.job.state import PartitionState
from shardline_common.ports.broker import Message, Record
from shardline_consumer.filters.clara import Judge
from shardline_consumer.rejected_lines import RejectedLines
from shardline_consumer.segment import OpenSegment
from shardline_producer import encoder as encoder_module
from shardline_producer.encoder import Encoder, end_markers, sends_blocks
from shardline_producer.sources.documents import DeadLetterReason, invalid_document
from shardline_producer.sources.files.line_workers import _joined
from shardline_producer.sources.source import AnyItem, Document, RenderedItem, SourceItem
from tests.make import job

SPEC = job(partitions=2, max_document_bytes=2000)
LIMITS = SegmentLimits(row_bytes=3000, scanned_bytes=6000, records=9)
KINDS = ("kept", "dropped", "blank", "scored", "dead", "vanished", "large", "kept", "kept")


def items(kinds: Sequence[str], *, each: Encoder) -> list[AnyItem]:
    """An item of each kind; documents are rendered, as a source does it."""
    found: list[AnyItem] = []
    for number, kind in enumerate(kinds, 1):
        position, key = (0, number, 10 * number, number), f"{kind}/{number}"
        if kind in ("dead", "vanished"):
            reason = DeadLetterReason.VANISHED if kind == "vanished" else DeadLetterReason.INVALID_JSON
            found.append(SourceItem(position, invalid_document(key, reason, b"x" * number), 1))
            continue
        long = {"large": 1900, "dropped": 3, "blank": 0}.get(kind, 300 + number)
        metadata = {"title": "t"} if kind in ("kept", "large") else {}
        document = Document(key, "ä x" * (long // 3), metadata, 1.0 if kind == "scored" else 0.0)
        found.append(each.render(position, 1, document))
    return found


def encoded(kinds: Sequence[str], sizes: Iterable[int], *, blocks: bool) -> tuple[list[Record], Any]:
    """The records of the topic, and what else the producer knows then."""
    parts = [PartitionState() for _ in range(2)]
    encoder = Encoder(SPEC, Columns({"title": "string"}), parts, slice_number=3, blocks=blocks)
    rest, messages, facts = items(kinds, each=encoder), list[Message](), list[Any]()
    for size in sizes:
        batch = encoder.encode(rest[:size])
        messages += batch.messages
        facts.append((batch.sent, batch.vanished, batch.first_usable, batch.last_dead_letter))
        rest = rest[size:]
        if not rest:
            break
    messages += end_markers(parts)
    ends = [0, 0]
    records = []
    for key, value, number, headers in messages:
        assert number is not None
        records.append(Record(number, ends[number], key, value, headers))
        ends[number] += 1
    return records, (facts, parts)


def segments(records: Sequence[Record], sizes: Iterable[int], spool: Path) -> list[Any]:
    """Where both partitions are cut, and what their segments hold."""
    found: list[Any] = []
    for number in range(2):
        segment, rest = _opened(0, Totals(), spool), [one for one in records if one.partition == number]
        documents = replayed = 0
        for size in sizes:
            batch, rest = rest[:size], rest[size:]
            while batch:
                taken = segment.take(batch)
                batch = batch[taken.used :]
                documents += taken.documents
                replayed += taken.replayed + taken.foreign
                if segment.closed:
                    digest = segment.rows.sha256 if segment.rows else ""
                    found.append((segment.first, segment.next, digest, segment.totals, segment.position))
                    before, segment_end = segment.before.plus(segment.totals), segment.next
                    segment.discard()
                    if segment.ended:
                        break
                    segment = _opened(segment_end, before, spool)
            if not rest:
                break
        segment.discard()
        found.append((number, documents, replayed))
    return found


def _opened(first: int, before: Totals, spool: Path) -> OpenSegment:
    return OpenSegment(first, before, Judge(0.3), LIMITS, spool, rejected_lines=None)


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=60),
    st.lists(st.integers(1, 20), min_size=1, max_size=4),
    st.lists(st.integers(1, 6), min_size=1, max_size=3),
    st.sampled_from([1, 1000, 1 << 19]),
)
@example(["kept"] * 40, [40], [1], 1 << 19)
@example(["dropped"] * 30 + ["kept"], [7], [2], 1 << 19)
def test_blocks_give_the_segments_of_single_messages(
    tmp_path_factory: pytest.TempPathFactory,
    kinds: list[str],
    batches: list[int],
    polls: list[int],
    block: int,
) -> None:
    spool = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder_module, "_FEWEST_OF_BLOCK", 0)
        patch.setattr(encoder_module, "_BLOCK_BYTES", block)
        (several, after), (single, before) = (
            encoded(kinds, cycle(batches), blocks=blocks) for blocks in (True, False)
        )
    assert after == before
    assert len(several) <= len(single)
    assert segments(several, cycle(polls), spool) == segments(single, cycle(polls), spool)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "_FEWEST_OF_BLOCK", 0)


def test_few_documents_have_messages_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "_FEWEST_OF_BLOCK", 4)
    for count, blocks in ((7, False), (8, True)):
        records, _ = encoded(["kept"] * count, [count], blocks=True)
        assert any(is_block(one.value) for one in records) is blocks


def test_a_message_has_the_documents_of_a_batch(tmp_path: Path) -> None:
    records, _ = encoded(["kept"] * 40, [40], blocks=True)
    assert len([one for one in records if is_block(one.value)]) == 2
    assert len(records) == 4
    assert [one[1] for one in segments(records, cycle([1]), tmp_path) if one[0] in (0, 1)][-1]


def test_a_block_that_was_taken_is_skipped_and_a_missing_one_is_a_gap(tmp_path: Path) -> None:
    records, _ = encoded(["kept"] * 10, [5, 5], blocks=True)
    first, second = [one for one in records if one.partition == 0][:2]
    segment = OpenSegment(
        0, Totals(), Judge(0.3), SegmentLimits(1 << 20, 1 << 20), tmp_path, rejected_lines=None
    )
    count = segment.take([first]).documents
    again = segment.take([first])
    assert (again.used, again.replayed, again.documents) == (1, count, count)
    assert segment.next == count
    segment.discard()
    with pytest.raises(JobFailed) as caught:
        _opened(0, Totals(), tmp_path).take([second])
    assert caught.value.code is FailureCode.SEQUENCE_GAP


def test_an_earlier_attempt_and_rows_over_the_limit_are_looked_at_one_by_one() -> None:
    parts = [PartitionState(), PartitionState(resume_after=(3, 0, 1, 10, 1))]
    encoder = Encoder(SPEC, Columns({"title": "string"}), parts, slice_number=3, blocks=True)
    batch = encoder.encode(items(["kept"] * 4, each=encoder))
    assert not any(is_block(message.value) for message in batch.messages)
    small = job(partitions=1, max_document_bytes=1024)
    encoder = Encoder(small, Columns({"title": "string"}), [PartitionState()], blocks=True)
    batch = encoder.encode(items(["large"] * 4, each=encoder))
    assert not any(is_block(message.value) for message in batch.messages)
    assert encoder._partitions[0].dead == 4


def test_a_block_that_another_process_made_is_numbered_as_its_documents() -> None:
    found = []
    for together in (True, False):
        encoder = Encoder(SPEC, Columns({}), [PartitionState(sequence=4), PartitionState()], blocks=True)
        some = cast("list[RenderedItem]", items(["kept"] * 5, each=encoder))
        if together:
            block = encoder.render.pack(some)
            assert block is not None
            sent = encoder.encode([replace(_joined(block), base=7, position=(0, 5, 50, 12))])
        else:
            moved = [one._replace(position=(*one.position[:3], one.position[3] + 7)) for one in some]
            sent = encoder.encode(moved)
        blocks = [decode_block(message.value or b"") for message in sent.messages]
        positions = [[one.position_of(index) for index in range(len(one.sizes))] for one in blocks]
        others = [one._replace(base=0, positions=b"") for one in blocks]
        found.append((positions, others, sent.first_usable, sent.sent, encoder._partitions))
    assert found[0] == found[1]
    assert found[0][0][-1][-1] == b"[0,5,50,12]" or found[0][0][0][-1] == b"[0,5,50,12]"


@pytest.mark.parametrize(
    "changes", [{"quality": {"keep_rejected": True}}, {"output": {"layout": "assembled"}}]
)
def test_jobs_whose_worker_looks_at_each_document_have_no_blocks(changes: dict[str, Any]) -> None:
    assert sends_blocks(SPEC)
    assert not sends_blocks(job(**changes))


@settings(max_examples=50)
@given(st.data())
def test_a_damaged_block_is_no_message(data: st.DataObject) -> None:
    records, _ = encoded(["kept"] * 3, [3], blocks=True)
    value = next(one.value for one in records if is_block(one.value))
    assert value is not None
    at = data.draw(st.integers(1, len(value) - 1))
    for damaged in (
        value[:at],
        value + b"x",
        value[:at] + data.draw(st.binary(max_size=9)) + value[at + 1 :],
    ):
        try:
            block = decode_block(damaged)
            block.position_of(0)
        except MALFORMED:
            continue
        assert sum(block.sizes) == len(block.rows)


def test_a_block_that_must_not_be_is_no_message(tmp_path: Path) -> None:
    records, _ = encoded(["kept"] * 3, [3], blocks=True)
    lines = RejectedLines(4)
    segment = OpenSegment(0, Totals(), Judge(0.3), LIMITS, tmp_path, rejected_lines=lines)
    assert segment.take([records[0]]).foreign == 1
    empty = encode_block(0, 0, (1,), 1, [b""])
    assert _opened(0, Totals(), tmp_path).take([records[0]._replace(value=empty)]).foreign == 1
