"""The documents of a block, judged one by one as those of single messages."""

from collections import Counter
from dataclasses import dataclass, field

from shardline_common.job.message_blocks import Block
from shardline_common.job.segment_limits import SegmentLimits
from shardline_consumer.filters.clara import Judge

# No score has more digits (`repr` of a float).
_SCORE_BYTES = 24


@dataclass(slots=True)
class JudgedBlock:
    """What became of the documents `first` to `end` of a block. The sums go on from those of the segment."""

    row_bytes: int
    scanned: int
    records: int
    pieces: list[bytes] = field(default_factory=list)
    kept: int = 0
    words: int = 0
    quality: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    closed: bool = False


def judge_block(block: Block, first: int, judge: Judge, limits: SegmentLimits, taken: JudgedBlock) -> None:
    """Judge the documents from `first` on, up to the one that closes the segment. `taken` is updated.

    `pieces` are the rows of the kept ones with their scores. Raises one of MALFORMED.
    """
    rows, reached, pieces = block.rows, limits.reached, taken.pieces
    row_bytes, scanned, records = taken.row_bytes, taken.scanned, taken.records
    count = len(block.sizes) - first
    most = row_bytes + len(rows) + _SCORE_BYTES * count
    open_at_end = not reached(most, scanned + len(rows), records + count)
    start = written = sum(block.sizes[:first])
    kept = words = quality = 0
    columns = zip(block.facts[first:], block.heads[first:], block.sizes[first:], strict=True)
    for (chars, counted, present, flags, relevance), head, size in columns:
        verdict = judge(chars, present, flags, relevance)
        if verdict.reason is None:
            # Up to the score, the end of the row before it included.
            place, text = start + head, verdict.text
            pieces += (rows[written:place], text)
            written = place
            kept += 1
            row_bytes += size + len(text)
            words += counted
            quality += verdict.score
        else:
            pieces.append(rows[written:start])
            written = start + size
            taken.rejected[verdict.reason.value] += 1
        start += size
        scanned += size
        records += 1
        if not open_at_end and reached(row_bytes, scanned, records):
            taken.closed = True
            break
    pieces.append(rows[written:start])
    taken.row_bytes, taken.scanned, taken.records = row_bytes, scanned, records
    taken.kept, taken.words, taken.quality = kept, words, quality
