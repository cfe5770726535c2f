"""Where a segment ends, and how many bytes an open segment may need. Pure: shards and digest depend on it."""

from dataclasses import dataclass

from shardline_common.job.spec import JobSpec

_SCAN_FACTOR = 4
_MAX_RECORDS = 1_000_000
# A staged segment has at most a record for so many bytes of rows: that bounds its index.
_STAGED_RECORD_BYTES = 256
_FEWEST_STAGED_RECORDS = 1024
# 93 bytes, and an id. Ids of more than 64 bytes need more than is reserved: the disk has a reserve for it.
_INDEX_ENTRY_BYTES = 157
_REDACTED_FACTOR = 4
_MAX_ORIGINAL_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SegmentLimits:
    """A segment closes after the record with which it reaches one of these.

    `row_bytes` counts uncompressed rows, `scanned_bytes` all documents (rows without their score, originals
    of dead letters), `records` all messages.
    """

    row_bytes: int
    scanned_bytes: int
    records: int = _MAX_RECORDS

    @classmethod
    def of(cls, spec: JobSpec) -> "SegmentLimits":
        """The limits of a job."""
        row_bytes, records = spec.output.shard_bytes, _MAX_RECORDS
        if spec.assembled:
            records = min(records, max(row_bytes // _STAGED_RECORD_BYTES, _FEWEST_STAGED_RECORDS))
        return cls(row_bytes, _SCAN_FACTOR * row_bytes, records)

    def reached(self, row_bytes: int, scanned_bytes: int, records: int) -> bool:
        """Whether a segment with these sums is closed."""
        return row_bytes >= self.row_bytes or scanned_bytes >= self.scanned_bytes or records >= self.records


def max_topic_bytes(spec: JobSpec) -> int:
    """Bytes that the open segments of all partitions may scan before they close.

    A topic that may hold less would block the producer while every worker waits for more documents.
    """
    return spec.total_partitions * (SegmentLimits.of(spec).scanned_bytes + spec.max_document_bytes)


def max_spool_bytes(spec: JobSpec) -> int:
    """Bytes of spool that one open segment may need.

    These are its rows, rejected documents, originals of dead letters, and compressed copies. A staged segment
    has sorted rows instead of compressed ones, and an index and sidecars.
    """
    limits = SegmentLimits.of(spec)
    rejected = limits.scanned_bytes if spec.quality.keep_rejected else 0
    if spec.quality.keep_rejected == "full":
        # The line of a short text may be longer than its row.
        rejected += limits.scanned_bytes // 4 + spec.max_document_bytes
    copies = 1 if spec.output.compression == "none" else 2
    originals = max(0, max_original_bytes(spec)) * 4 // 3
    # A placeholder may be several times as long as what it stands for.
    rows = limits.row_bytes + spec.max_document_bytes * (_REDACTED_FACTOR if spec.redacts else 1)
    rejected *= 2 if spec.redacts and spec.quality.keep_rejected == "full" else 1
    if spec.assembled:
        index = limits.records * _staged_record_bytes(spec)
        return 2 * rows + index + copies * (rejected + originals)
    return copies * (rows + rejected + originals)


def _staged_record_bytes(spec: JobSpec) -> int:
    """Bytes of spool that the index and the sidecars of a staged segment may need for a record."""
    index, sidecars, near = _INDEX_ENTRY_BYTES, _INDEX_ENTRY_BYTES, spec.near
    if near is not None:
        signature = 4 * near.bands * near.rows if near.verify is not None else 0
        index += 8 + 8 * near.bands + signature
        sidecars += 8 + 18 * near.bands + signature
    # A sidecar that is in the store already is read into the spool.
    return index + 2 * sidecars


def max_original_bytes(spec: JobSpec) -> int:
    """Bytes of originals that the dead letters of one segment keep in the dataset; -1 for none at all.

    Unlike the other limits it closes no segment. It bounds the spool.
    """
    if not spec.dead_letter_originals or spec.redacts:
        return -1
    return min(spec.output.shard_bytes, _MAX_ORIGINAL_BYTES)
