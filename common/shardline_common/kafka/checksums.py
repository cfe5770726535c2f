"""The checksums of record batches, by the instruction of the processor.

aiokafka computes them by tables, at 2 GB/s: a seventh of the time that reading takes. google-crc32c does it
ten times as fast; where its compiled part is missing, aiokafka's is taken.
"""

import warnings
from collections.abc import Callable
from struct import Struct
from typing import Any

from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

with warnings.catch_warnings():
    # It warns that its part in Python is slow; that one is not used.
    warnings.simplefilter("ignore", RuntimeWarning)
    import google_crc32c

crc32c: Callable[[bytes], int] = google_crc32c.value if google_crc32c.implementation == "c" else calc_crc32c
"""CRC-32C of these bytes."""

# Offset and length of a batch, the epoch of its leader, the version of its layout, and its checksum.
_HEAD = Struct(">qiibI")
_LENGTH_FROM = 12
_LAYOUT = 2


def check_fetched(response: Any) -> None:
    """Check the batches of the answer to a fetch. A consumer need not check them again.

    Raises:
        CorruptRecordException: a batch has other bytes than were written.
    """
    for topic, partitions in response.topics:
        for partition in partitions:
            if not are_whole(partition[-1]):
                raise CorruptRecordException(f"a batch of {topic}, partition {partition[0]}, is damaged")


def are_whole(batches: bytes) -> bool:
    """Whether each of these batches has its checksum. The last one may be cut, as brokers send them."""
    start = 0
    while start + _HEAD.size <= len(batches):
        _, length, _, layout, checksum = _HEAD.unpack_from(batches, start)
        end = start + _LENGTH_FROM + length
        if end > len(batches):
            break
        if end < start + _HEAD.size:
            return False
        if layout != _LAYOUT:
            # Of Kafka before 0.11, which has no transactions. Only tables may have such messages.
            if not _is_whole_for_client(batches[start:end]):
                return False
        elif crc32c(batches[start + _HEAD.size : end]) != checksum:
            return False
        start = end
    return True


def _is_whole_for_client(batch: bytes) -> bool:
    try:
        return bool(MemoryRecords(batch).next_batch().validate_crc())
    except (CorruptRecordException, SystemError):
        # Damaged lengths lead its compiled parser to negative sizes.
        return False
