"""The hashes that choose a document's partition and split, and that prove its presence. Pure.

All are BLAKE2b (RFC 7693) with 8 bytes of digest, each with its own `person` parameter.
"""

from hashlib import blake2b

MODULUS = 1 << 64
_MASK = MODULUS - 1


def _hash64(data: bytes, person: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8, person=person).digest(), "big")


def document_hash(key: bytes) -> int:
    """64-bit hash of a document's key. Its sum mod 2^64 over a partition is part of the proof."""
    return int.from_bytes(blake2b(key, digest_size=8, person=b"document").digest(), "big")


def add(total: int, value: int) -> int:
    """Sum mod 2^64."""
    return (total + value) & _MASK


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key: a number from 0 to `partitions` - 1."""
    return _hash64(key, b"partition") % partitions


def in_validation(group: bytes, fraction: float) -> bool:
    """Whether a group or a document id belongs to a validation split that has this share (0 to 1)."""
    return _hash64(group, b"split") < int(fraction * MODULUS)
