"""Segments: where they are cut depends on the messages alone."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.dataset.chain import Totals, total
from shardline_common.errors import FailureCode, JobFailed, SpoolError
from shardline_common.job.segment_limits import SegmentLimits
from shardline_common.ports.broker import Record
from shardline_consumer import segment as segment_module
from shardline_consumer.filters.clara import Judge
from shardline_consumer.rejected_lines import RejectedLines
from shardline_consumer.segment import OpenSegment
from tests.make import dead, document, end

LIMITS = SegmentLimits(row_bytes=3000, scanned_bytes=12_000, records=7)
Landed = tuple[int, int, str, Totals]


def segments(
    records: Sequence[Record],
    sizes: Iterator[int],
    spool: Path,
    limits: SegmentLimits = LIMITS,
    min_score: float = 0.5,
) -> list[Landed]:
    """Cut the records, fed in batches of the given sizes."""
    judge, found = Judge(min_score), list[Landed]()
    segment = OpenSegment(0, Totals(), judge, limits, spool, rejected_lines=None)
    rest = list(records)
    while rest:
        size = next(sizes, len(rest))
        batch, rest = rest[:size], rest[size:]
        while batch:
            taken = segment.take(batch)
            batch = batch[taken.used :]
            if segment.closed:
                found.append(landed(segment))
                before = segment.before.plus(segment.totals)
                segment = OpenSegment(segment.next, before, judge, limits, spool, rejected_lines=None)
    segment.discard()
    return found


def landed(segment: OpenSegment) -> Landed:
    digest = segment.rows.sha256 if segment.rows else ""
    segment.discard()
    return segment.first, segment.next, digest, segment.totals


kinds = st.lists(st.sampled_from(["kept", "dropped", "blank", "dead", "long"]), max_size=60)


def message(kind: str, number: int) -> Record:
    if kind == "dead":
        return dead(number)
    if kind == "dropped":
        return document(number, chars=10, present=0)
    return document(number, chars=5000 if kind == "long" else 1001, blank=kind == "blank")


def messages(kinds: Sequence[str]) -> list[Record]:
    records = [message(kind, number) for number, kind in enumerate(kinds)]
    return [*records, end(records)]


@given(kinds, st.lists(st.integers(1, 20)))
def test_cuts_do_not_depend_on_batches(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], sizes: list[int]
) -> None:
    spool = tmp_path_factory.mktemp("spool")
    records = messages(kinds)
    assert segments(records, iter(sizes), spool) == segments(records, iter(()), spool)
    assert list(spool.iterdir()) == []


@given(kinds)
def test_segments_follow_each_other_and_conserve_every_message(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str]
) -> None:
    found = segments(messages(kinds), iter(()), tmp_path_factory.mktemp("spool"))
    assert [first for first, _, _, _ in found] == [0, *(after for _, after, _, _ in found)][: len(found)]
    sums = total(part for _, _, _, part in found)
    assert sums.records == len(kinds)
    assert sums.rows == kinds.count("kept") + kinds.count("long")
    assert sums.rejected.get("empty", 0) == kinds.count("blank")
    assert sums.dead.get("invalid_json", 0) == kinds.count("dead")


@given(kinds, st.data())
def test_replayed_messages_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], data: st.DataObject
) -> None:
    records = messages(kinds)
    again = data.draw(st.integers(0, len(records)))
    back = data.draw(st.integers(0, again))
    replayed = records[:again] + records[back:]
    spool = tmp_path_factory.mktemp("spool")
    assert segments(replayed, iter(()), spool) == segments(records, iter(()), spool)


ODD = {
    "foreign": lambda number: document(number)._replace(value=b"{}"),
    "without a key": lambda number: document(number)._replace(key=None),
    "damaged": lambda number: document(number)._replace(value=(document(number).value or b"")[:60]),
    "no score": lambda number: document(number, relevance=math.nan),
    "again": lambda number: document(max(0, number - 1)),
}


@given(
    st.lists(st.sampled_from(["kept", "dropped", "blank", "dead", "long", *ODD]), max_size=40), st.booleans()
)
def test_documents_are_taken_together_as_one_by_one(
    tmp_path_factory: pytest.TempPathFactory,
    kinds: list[str],
    keeps: bool,
) -> None:
    records, number = list[Record](), 0
    for kind in kinds:
        records.append(ODD[kind](number) if kind in ODD else message(kind, number))
        number += kind not in ODD
    spool, found = tmp_path_factory.mktemp("spool"), list[list[Any]]()
    for together in (True, False):
        segment = OpenSegment(
            0, Totals(), Judge(0.5), LIMITS, spool, rejected_lines=RejectedLines(4) if keeps else None
        )
        with pytest.MonkeyPatch.context() as patch:
            if not together:
                patch.setattr(segment_module, "next_document", lambda *_: None)
            taken = segment.take(records)
        files = [file.path.read_bytes() if file else b"" for file in (segment.rows, segment.rejected)]
        state = [segment.next, segment.offset, segment.position, segment.closed, segment.ended]
        found.append([taken, files, state, segment.totals])
        segment.discard()
    assert found[0] == found[1]


def test_each_bound_closes_a_segment(tmp_path: Path) -> None:
    many = [document(number, chars=10, present=0) for number in range(20)]
    by_records = segments(many, iter(()), tmp_path)
    assert [after for _, after, _, _ in by_records] == [7, 14]
    rejected = [document(number, chars=100, present=0) for number in range(20)]
    size = len(rejected[0].value or b"")
    by_scan = segments(rejected, iter(()), tmp_path, SegmentLimits(10**9, 3 * size, 10**6))
    assert all(part.rows == 0 for _, _, _, part in by_scan)
    assert by_scan[0][1] > 3
    by_rows = segments([document(number) for number in range(20)], iter(()), tmp_path)
    assert [after for _, after, _, _ in by_rows][:2] == [3, 6]


def test_a_missing_sequence_fails_the_job(tmp_path: Path) -> None:
    segment = OpenSegment(0, Totals(), Judge(0.5), LIMITS, tmp_path, rejected_lines=None)
    with pytest.raises(JobFailed) as caught:
        segment.take([document(0), document(2)])
    assert caught.value.code is FailureCode.SEQUENCE_GAP
    segment.discard()


def test_an_end_marker_of_other_documents_fails_the_job(tmp_path: Path) -> None:
    segment = OpenSegment(0, Totals(), Judge(0.5), LIMITS, tmp_path, rejected_lines=None)
    with pytest.raises(JobFailed) as caught:
        segment.take([document(0), end([document(0)._replace(key=b"another")])])
    assert caught.value.code is FailureCode.CONSERVATION
    segment.discard()


@pytest.mark.parametrize("value", [None, b"", b"\x00garbage", b"{}", b"\x09" * 30])
def test_foreign_messages_are_counted_and_passed_over(tmp_path: Path, value: bytes | None) -> None:
    segment = OpenSegment(0, Totals(), Judge(0.5), LIMITS, tmp_path, rejected_lines=None)
    taken = segment.take([Record(0, 0, b"k", value), document(0)])
    assert (taken.foreign, segment.next) == (1, 1)
    segment.discard()


@given(st.sampled_from([b"\x01", b"\x02", b"\x03"]), st.binary(max_size=200), st.booleans())
def test_any_bytes_as_a_message_are_passed_over_or_fail_the_job(
    tmp_path_factory: pytest.TempPathFactory, kind: bytes, body: bytes, due: bool
) -> None:
    # With the sequence that is due it gets as far as a message can.
    value = kind + (bytes(8) if due else b"") + body
    segment = OpenSegment(
        0, Totals(), Judge(0.5), LIMITS, tmp_path_factory.getbasetemp(), rejected_lines=RejectedLines(1)
    )
    before = segment.totals
    try:
        taken = segment.take([Record(0, 0, b"k", value)])
    except JobFailed:
        return
    finally:
        segment.discard()
    if taken.foreign:
        assert (segment.next, segment.totals, segment.ended) == (0, before, False)


def test_a_spool_that_is_gone_is_a_clear_error(tmp_path: Path) -> None:
    segment = OpenSegment(0, Totals(), Judge(0.5), LIMITS, tmp_path / "gone", rejected_lines=None)
    with pytest.raises(SpoolError, match="cannot be written"):
        segment.take([document(0)])


def test_rejected_documents_are_kept_where_the_job_asks(tmp_path: Path) -> None:
    segment = OpenSegment(0, Totals(), Judge(0.5), LIMITS, tmp_path, rejected_lines=RejectedLines(4))
    segment.take([document(0, chars=10, present=0, relevance=0.25)])
    assert segment.rejected is not None
    assert segment.rejected.path.read_bytes() == (
        b'{"document_id":"doc-0","reason":"below_min_score","scores":{"quality":0.175,"relevance":0.25}}\n'
    )
    segment.discard()
