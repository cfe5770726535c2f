"""The hashes that choose a document's partition and split, and that prove its presence. Pure.

All are BLAKE2b (RFC 7693) with 8 bytes of digest, each with its own `person` parameter.
"""

from hashlib import blake2b

MODULUS = 1 << 64
_MASK = MODULUS - 1


# To copy a started hash takes half the time of a new one with its parameters.
_DOCUMENT = blake2b(digest_size=8, person=b"document")
_PARTITION = blake2b(digest_size=8, person=b"partition")
_SPLIT = blake2b(digest_size=8, person=b"split")


def _hash64(data: bytes, started: blake2b) -> int:
    copied = started.copy()
    copied.update(data)
    return int.from_bytes(copied.digest(), "big")


def document_hash(key: bytes) -> int:
    """64-bit hash of a document's key. Its sum mod 2^64 over a partition is part of the proof."""
    # As `_hash64`: producer and worker call it for each document.
    copied = _DOCUMENT.copy()
    copied.update(key)
    return int.from_bytes(copied.digest(), "big")


def key_hashes(key: bytes) -> tuple[int, int]:
    """The hash whose remainder is the partition of a key, and its `document_hash`, by one call."""
    placing, proving = _PARTITION.copy(), _DOCUMENT.copy()
    placing.update(key)
    proving.update(key)
    return int.from_bytes(placing.digest(), "big"), int.from_bytes(proving.digest(), "big")


def add(total: int, value: int) -> int:
    """Sum mod 2^64."""
    return (total + value) & _MASK


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key: a number from 0 to `partitions` - 1."""
    return _hash64(key, _PARTITION) % partitions


def in_validation(group: bytes, fraction: float) -> bool:
    """Whether a group or a document id belongs to a validation split that has this share (0 to 1)."""
    return _hash64(group, _SPLIT) < int(fraction * MODULUS)
