"""The open segment of a partition, which takes messages until a limit closes it."""

import base64
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from shardline_common.dataset.chain import Totals
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.hashing import MODULUS, document_hash
from shardline_common.job.message_blocks import block_range, decode_block, is_block
from shardline_common.job.messages import (
    DEAD,
    DOCUMENT_KINDS,
    MALFORMED,
    DeadLetter,
    Facts,
    Position,
    decode_dead_letter,
    decode_document,
    decode_end,
    decode_kind_and_sequence,
    decode_position,
    is_message,
    next_document,
)
from shardline_common.job.segment_limits import SegmentLimits
from shardline_common.ports.broker import Record
from shardline_consumer.blocks import JudgedBlock, judge_block
from shardline_consumer.curation.verdicts import Curated
from shardline_consumer.filters.clara import Judge
from shardline_consumer.rejected_lines import RejectedLines
from shardline_consumer.spool.file import SpoolFile

if TYPE_CHECKING:
    from shardline_consumer.curation.curator import Curator


@dataclass(frozen=True, slots=True)
class SequencedDeadLetter:
    """A dead letter of the topic, with its sequence and its source position (JSON)."""

    sequence: int
    position: bytes
    dead_letter: DeadLetter


@dataclass(slots=True)
class TakeResult:
    """The result of `OpenSegment.take`.

    `used`: how many records it took or skipped, from the first on. Of these, `replayed` were taken before,
    and `foreign` are not messages of Shardline. `documents` were in them: a block has several. Of a block in
    which the segment closes, the first documents are taken, and it is not used.
    """

    used: int = 0
    documents: int = 0
    replayed: int = 0
    foreign: int = 0
    dead_letters: list[SequencedDeadLetter] = field(default_factory=list)


class OpenSegment:
    """A segment that begins at sequence `first`. When it is `closed`, its totals and files are final.

    `ended` is set by the end marker: no segment follows. `next` is the sequence behind the last message,
    `offset` the Kafka offset behind it. `take` writes spool files: call it on a thread.

    Args:
        first: sequence of the first message.
        before: the totals of the chain up to `first`.
        judge: decides which documents become rows; a curator does for a job with filters.
        limits: when the segment closes.
        spool: folder of the spool files.
        rejected_lines: renders the lines of rejected documents; None: these are not kept.
        original_bytes: how many bytes of originals the dead letters keep in all; from the first one that does
            not fit, no more are kept. -1: none is kept.
    """

    def __init__(
        self,
        first: int,
        before: Totals,
        judge: "Judge | Curator",
        limits: SegmentLimits,
        spool: Path,
        *,
        rejected_lines: RejectedLines | None,
        original_bytes: int = -1,
    ) -> None:
        self.first = first
        self.next = first
        self.before = before
        self.closed = False
        self.ended = False
        self.offset = -1
        # Of a job with filters, every document is taken by `_take_message`, and the hot path by none.
        self._judge = judge if isinstance(judge, Judge) else Judge(0.0)
        self._curator = None if isinstance(judge, Judge) else judge
        self._curated: list[Curated] | None = None
        self._limits = limits
        self._spool = spool
        self._rejected_lines = rejected_lines
        self._original_bytes = original_bytes
        self.rows: SpoolFile | None = None
        self.rejected: SpoolFile | None = None
        self.dead_letters: SpoolFile | None = None
        self._position = b"[]"
        self._rejected_by_reason: Counter[str] = Counter()
        self._dead_by_reason: Counter[str] = Counter()
        self._pii: Counter[str] = Counter()
        self._kept = self._row_bytes = self._hash_sum = self._words = self._quality = self._scanned = 0

    @property
    def position(self) -> Position:
        """The source position of the last message."""
        return decode_position(self._position)

    @property
    def totals(self) -> Totals:
        """The counts of the messages taken so far."""
        return Totals(
            rows=self._kept,
            bytes=self._row_bytes,
            rejected=dict(sorted(self._rejected_by_reason.items())),
            dead=dict(sorted(self._dead_by_reason.items())),
            hash_sum=self._hash_sum % MODULUS,
            words=self._words,
            quality=self._quality,
            scanned_bytes=self._scanned,
            segments=1,
            pii=dict(sorted(self._pii.items())),
        )

    def take(self, records: Sequence[Record]) -> TakeResult:
        """Take records until the segment closes or all are used.

        Raises:
            JobFailed: a sequence is missing, or the sums of the end marker disagree.
            SpoolError: the spool cannot be written.
        """
        result = TakeResult()
        rows: list[bytes] = []
        rejected: list[bytes] = []
        dead: list[bytes] = []
        rest = iter(records)
        # What comes first in a job with filters is taken as what is no plain document in any other.
        following = (
            partial(next, rest, None) if self._curator else partial(self._take_documents, rest, result, rows)
        )
        while (record := following()) is not None:
            if is_block(record.value):
                # Behind what came before it, and at once: the records of one call may be many blocks.
                self._write(rows, rejected, dead)
                # The same lists, because `following` appends to them.
                for written in (rows, rejected, dead):
                    written.clear()
                if not self._take_block(record, record.value, result):
                    break
                continue
            result.used += 1
            result.documents += 1
            if not self._take_message(record, result, rows, rejected, dead):
                break
        self._write(rows, rejected, dead)
        return result

    def _take_documents(
        self, records: Iterator[Record], result: TakeResult, rows: list[bytes]
    ) -> Record | None:
        """Take the documents at the start of the records. Returns the record behind them, which is not taken.

        `_take_message` must look at that one: it is no document, not the next one or damaged, or its line is
        kept elsewhere. None: there is no such record, or a document has closed the segment.
        """
        # The hot path: a row is never decoded, only joined with its score. The sums are local until its end.
        first, number, keeps_rejected = self.first, self.next, self._rejected_lines is not None
        kept, row_bytes, scanned, hash_sum = self._kept, self._row_bytes, self._scanned, self._hash_sum
        word_sum, quality, judge, reached = self._words, self._quality, self._judge, self._limits.reached
        value, start, head, behind, other = b"", 0, 0, self.offset, None
        for record in records:
            _, offset, key, found, _ = record
            fields = next_document(found, number)
            if fields is None or found is None or key is None:
                other = record
                break
            chars, words, present, flags, relevance, position, row, tail = fields
            try:
                verdict = judge(chars, present, flags, relevance)
            except MALFORMED:
                other = record
                break
            if verdict.reason is None:
                rows += (found[row:tail], verdict.text, found[tail:])
                kept += 1
                row_bytes += len(found) - row + len(verdict.text)
                word_sum += words
                quality += verdict.score
            elif keeps_rejected:
                other = record
                break
            else:
                self._rejected_by_reason[verdict.reason.value] += 1
            value, start, head, behind = found, position, row, offset + 1
            hash_sum += document_hash(key)
            scanned += len(found) - row
            number += 1
            if reached(row_bytes, scanned, number - first):
                self.closed = True
                break
        result.used += number - self.next
        result.documents += number - self.next
        if number > self.next:
            self._position = value[start:head]
        self.next, self.offset, self._kept, self._row_bytes = number, behind, kept, row_bytes
        self._scanned, self._hash_sum, self._words, self._quality = scanned, hash_sum, word_sum, quality
        return other

    def _take_block(self, record: Record, value: bytes, result: TakeResult) -> bool:
        """Take the documents of a block that were not taken before. False when one has closed the segment."""
        try:
            first, end = block_range(value)
            if end <= self.next:
                result.used += 1
                result.replayed += end - first
                result.documents += end - first
                return True
            if first > self.next:
                raise self._gap(record, first)
            if self._rejected_lines is not None or self._curator is not None:
                raise ValueError("a block has no lines of rejected documents, and no filters")
            block, skipped = decode_block(value), self.next - first
            taken = JudgedBlock(self._row_bytes, self._scanned, self.next - self.first)
            judge_block(block, skipped, self._judge, self._limits, taken)
        except MALFORMED:
            result.used += 1
            result.foreign += 1
            return True
        last = taken.records - (self.next - self.first) + skipped
        self._position = block.position_of(last - 1)
        self._hash_sum += sum(block.hashes[skipped:last])
        self._row_bytes, self._scanned = taken.row_bytes, taken.scanned
        self._kept += taken.kept
        self._words += taken.words
        self._quality += taken.quality
        self._rejected_by_reason += taken.rejected
        result.documents += last - skipped
        self.next, self.closed = first + last, taken.closed
        self._write(taken.pieces if taken.kept else [], [], [])
        # The next segment takes the rest of a block in which this one closes.
        whole = self.next == end
        result.used += whole
        self.offset = record.offset + whole
        return not self.closed

    def _take_message(
        self,
        record: Record,
        result: TakeResult,
        rows: list[bytes],
        rejected: list[bytes],
        dead: list[bytes],
    ) -> bool:
        """Take any record. False when it has closed or ended the segment."""
        value = record.value
        if not is_message(value) or record.key is None:
            result.foreign += 1
            return True
        kind, sequence = decode_kind_and_sequence(value)
        if sequence < self.next:
            result.replayed += 1
            return True
        if sequence > self.next:
            raise self._gap(record, sequence)
        try:
            if kind in DOCUMENT_KINDS:
                self._take_document(record.key, value, rows, rejected)
            elif kind == DEAD:
                result.dead_letters.append(self._take_dead_letter(record.key, value, dead))
            else:
                self._take_end(value)
        except MALFORMED:
            # No producer of Shardline wrote it. If it is a damaged message of a producer, it leaves a gap,
            # which the next sequence shows.
            result.foreign += 1
            return True
        self.offset = record.offset + 1
        if self.ended:
            return False
        self.next += 1
        self.closed = self._limits.reached(self._row_bytes, self._scanned, self.next - self.first)
        return not self.closed

    def _take_document(self, key: bytes, value: bytes, rows: list[bytes], rejected: list[bytes]) -> None:
        chars, words, present, flags, relevance, start, head, tail = decode_document(value)
        if self._curator is not None:
            facts = Facts(chars, words, present, bool(flags), relevance)
            # Before anything is counted: the message may be no row.
            curated = self._curator.judge(facts, value[head:tail], value[tail:])
            self._position = value[start:head]
            self._scanned += len(value) - head
            self._take_curated(key, curated, relevance, rows, rejected)
            return
        verdict = self._judge(chars, present, flags, relevance)
        self._position = value[start:head]
        self._hash_sum += document_hash(key)
        self._scanned += len(value) - head
        if verdict.reason is None:
            rows += (value[head:tail], verdict.text, value[tail:])
            self._kept += 1
            self._row_bytes += len(value) - head + len(verdict.text)
            self._words += words
            self._quality += verdict.score
            return
        self._rejected_by_reason[verdict.reason.value] += 1
        if self._rejected_lines is not None:
            rejected.append(self._rejected_lines.render(key, verdict, relevance, value[head:tail]))

    def _take_curated(
        self, key: bytes, found: Curated, relevance: float, rows: list[bytes], rejected: list[bytes]
    ) -> None:
        self._hash_sum += document_hash(key)
        if self._curated is not None:
            self._curated.append(found)
        if found.reason is None:
            rows += (found.head, found.score_text, found.tail)
            self._kept += 1
            self._row_bytes += len(found.head) + len(found.score_text) + len(found.tail)
            self._words += found.facts.words
            self._pii.update(found.pii)
            self._quality += found.score
            return
        self._rejected_by_reason[found.reason] += 1
        if self._rejected_lines is not None:
            rejected.append(self._rejected_lines.render_curated(key, found, relevance))

    def _take_dead_letter(self, key: bytes, value: bytes, dead: list[bytes]) -> SequencedDeadLetter:
        position, dead_letter = decode_dead_letter(value)
        dead.append(self._dead_letter_line(decode_position(position), dead_letter))
        self._position = position
        self._hash_sum += document_hash(key)
        self._scanned += len(dead_letter.original)
        self._dead_by_reason[dead_letter.reason] += 1
        return SequencedDeadLetter(self.next, position, dead_letter)

    def _take_end(self, value: bytes) -> None:
        end = decode_end(value)
        if (self.before.hash_sum + self._hash_sum) % MODULUS != end.hash_sum:
            raise JobFailed(
                FailureCode.CONSERVATION,
                f"the hash sum of {end.count} documents disagrees with the producer's",
                hint="the topic holds other documents than the producer sent; retry the job",
            )
        self.ended = True
        self.closed = self.next > self.first

    def _gap(self, record: Record, sequence: int) -> JobFailed:
        return JobFailed(
            FailureCode.SEQUENCE_GAP,
            f"partition {record.partition}, offset {record.offset}: "
            f"sequence {sequence} instead of {self.next}",
            hint="messages were lost from the topic; retry the job",
        )

    def _dead_letter_line(self, position: Position, dead_letter: DeadLetter) -> bytes:
        # Without the hint, whose wording may change: a later version must give the same bytes.
        original = None
        if len(dead_letter.original) <= self._original_bytes:
            self._original_bytes -= len(dead_letter.original)
            original = base64.b64encode(dead_letter.original).decode()
        else:
            self._original_bytes = min(self._original_bytes, 0)
        line = {
            "sequence": self.next,
            "position": position,
            "reason": dead_letter.reason,
            "sha256": dead_letter.sha256,
            "size": dead_letter.size,
            "original_base64": original,
        }
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)

    def _write(self, rows: list[bytes], rejected: list[bytes], dead_letters: list[bytes]) -> None:
        if rows:
            self.rows = self.rows or SpoolFile(self._spool)
            self.rows.write(rows)
        if rejected:
            self.rejected = self.rejected or SpoolFile(self._spool)
            self.rejected.write(rejected)
        if dead_letters:
            self.dead_letters = self.dead_letters or SpoolFile(self._spool)
            self.dead_letters.write(dead_letters)

    def discard(self) -> None:
        """Close and remove the spool files. May be repeated."""
        # Each one, although another cannot be closed or removed.
        with ExitStack() as stack:
            for file in (self.rows, self.rejected, self.dead_letters):
                if file is not None:
                    stack.callback(file.discard)
