"""Where a segment ends, and how many bytes an open segment may need. Pure: shards and digest depend on it."""

from dataclasses import dataclass

from shardline_common.job.spec import JobSpec

_SCAN_FACTOR = 4
_MAX_RECORDS = 1_000_000
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
        return cls(spec.output.shard_bytes, _SCAN_FACTOR * spec.output.shard_bytes)

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

    These are its rows, rejected documents, originals of dead letters, and compressed copies.
    """
    limits = SegmentLimits.of(spec)
    rejected = limits.scanned_bytes if spec.quality.keep_rejected else 0
    if spec.quality.keep_rejected == "full":
        # The line of a short text may be longer than its row.
        rejected += limits.scanned_bytes // 4 + spec.max_document_bytes
    copies = 1 if spec.output.compression == "none" else 2
    originals = max(0, max_original_bytes(spec)) * 4 // 3
    return copies * (limits.row_bytes + spec.max_document_bytes + rejected + originals)


def max_original_bytes(spec: JobSpec) -> int:
    """Bytes of originals that the dead letters of one segment keep in the dataset; -1 for none at all.

    Unlike the other limits it closes no segment. It bounds the spool.
    """
    return min(spec.output.shard_bytes, _MAX_ORIGINAL_BYTES) if spec.dead_letter_originals else -1
