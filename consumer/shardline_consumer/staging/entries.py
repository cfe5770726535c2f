"""The entries of a segment's index, read back as arrays when the segment is committed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.hashing import MODULUS
from shardline_consumer.spool.file import SpoolDamaged, is_damaged
from shardline_consumer.staging.index import CHUNK, DEAD_LETTER, REJECTED, ROW, SegmentIndex

# NumPy comes with the extra `assembly`, so it is imported where it is called.
if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from shardline_common.dataset.chain import Totals

    Numbers: TypeAlias = np.ndarray[Any, Any]

_FIELDS = [
    ("position", "<i8"),
    ("order", "<u8"),
    ("group", "<u8"),
    ("sample", "<u8"),
    ("id_hash", "<u8"),
    ("row_hash", "<u8"),
    ("value", "<f8"),
    ("words", "<u4"),
    ("score", "<u4"),
    ("size", "<u4"),
    ("id_size", "<u4"),
    ("reason", "<u4"),
    ("status", "u1"),
    ("content", "V16"),
]


@dataclass(slots=True)
class IndexEntries:
    """The entries of one segment, in the order in which its records came.

    `names` are the ids one behind the other. `signed` has positions and band hashes, and signatures where
    the job keeps them, of the rows that have a signature.
    """

    fields: Numbers
    names: bytes
    signed: Numbers
    _ends: Numbers

    @classmethod
    def read(cls, index: SegmentIndex) -> IndexEntries:
        """Read an index. Blocks.

        Raises:
            SpoolDamaged: its file has other bytes than were written to it.
        """
        import numpy as np

        if index.file is None:
            raise ValueError("a segment without records is not committed")
        if is_damaged(index.file.path, index.file.sha256):
            raise SpoolDamaged(f"the bytes of {index.file.path} are not those that were written")
        of_entries, of_signed = np.dtype(_FIELDS), np.dtype(index.rules.signature_fields)
        entries, ids, signed = [], [], []
        data = np.memmap(index.file.path, np.uint8, "r")
        start = 0
        while start < len(data):
            count, ids_size, signed_size = CHUNK.unpack(data[start : start + CHUNK.size].tobytes())
            first = start + CHUNK.size
            second = first + count * of_entries.itemsize
            third = second + ids_size
            start = third + signed_size
            entries.append(data[first:second].view(of_entries))
            ids.append(data[second:third].tobytes())
            signed.append(data[third:start].view(of_signed))
        fields = np.concatenate(entries)
        return cls(fields, b"".join(ids), np.concatenate(signed), fields["id_size"].cumsum(dtype="int64"))

    def check(self, totals: Totals, reasons: Sequence[str]) -> None:
        """Check that the entries sum to the counts of the segment.

        Raises:
            JobFailed: they do not (`internal`).
        """
        import numpy as np

        entries = self.fields
        status, hash_sum = entries["status"], int(entries["id_hash"].sum(dtype=np.uint64))
        counts = [_by_reason(entries["reason"][status == kind], reasons) for kind in (REJECTED, DEAD_LETTER)]
        found = (
            int((status == ROW).sum()),
            int(entries["size"].sum(dtype=np.int64)),
            hash_sum % MODULUS,
            *counts,
        )
        expected = (totals.rows, totals.bytes, totals.hash_sum, dict(totals.rejected), dict(totals.dead))
        if found != expected:
            raise JobFailed(
                FailureCode.INTERNAL,
                f"the index of a segment sums to {found}, its messages to {expected}",
                hint="report this; a retry reads the segment again",
            )

    def order(self) -> Numbers:
        """The numbers of the entries, sorted by order key, then by position."""
        import numpy as np

        return np.lexsort((self.fields["position"], self.fields["order"]))

    def ids(self, numbers: Numbers) -> list[bytes]:
        """The ids of the entries with these numbers, in UTF-8."""
        ends = self._ends[numbers]
        starts = ends - self.fields["id_size"][numbers]
        bounds = zip(starts.tolist(), ends.tolist(), strict=True)
        return [self.names[start:end] for start, end in bounds]


def _by_reason(codes: Numbers, reasons: Sequence[str]) -> dict[str, int]:
    import numpy as np

    found, counts = np.unique(codes, return_counts=True)
    return {reasons[code]: int(count) for code, count in zip(found, counts, strict=True)}
