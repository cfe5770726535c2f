"""The hashes that choose a document's partition and split, and that prove its presence. Pure.

All are BLAKE2b (RFC 7693) with 8 bytes of digest, each with its own `person` parameter.
"""

from functools import lru_cache
from hashlib import blake2b

MODULUS = 1 << 64
_MASK = MODULUS - 1


# To copy a started hash takes half the time of a new one with its parameters.
_DOCUMENT = blake2b(digest_size=8, person=b"document")
_PARTITION = blake2b(digest_size=8, person=b"partition")
_SPLIT = blake2b(digest_size=8, person=b"split")
_ORDER = blake2b(digest_size=8, person=b"order")
_SAMPLE = blake2b(digest_size=8, person=b"sample")


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


def group_hash(group: bytes) -> int:
    """64-bit hash of a group or a document id. Its place in the range 0 to 2^64 - 1 decides the split."""
    return _hash64(group, _SPLIT)


def in_validation(group: bytes, fraction: float) -> bool:
    """Whether a group or a document id belongs to a validation split that has this share (0 to 1)."""
    return group_hash(group) < int(fraction * MODULUS)


def order_key(seed: int, key: bytes) -> int:
    """64-bit key of a document in the global order of a seed: the hash of the seed (8 bytes) and its id."""
    return _hash64(key, _seeded_order(seed))


def sample_key(seed: int, key: bytes) -> int:
    """64-bit key of a document in the sample of this seed. It is independent of `order_key`."""
    return _hash64(key, _seeded_sample(seed))


def order_partition(order: int, partitions: int) -> int:
    """The partition of an order key. The order keys of a partition are smaller than those of the next one."""
    return order * partitions >> 64


def order_range(partition: int, partitions: int) -> range:
    """The order keys of a partition: the inverse of `order_partition`."""
    return range(-(-partition * MODULUS // partitions), -(-(partition + 1) * MODULUS // partitions))


@lru_cache(maxsize=64)
def _seeded_order(seed: int) -> blake2b:
    return _with_seed(_ORDER, seed)


@lru_cache(maxsize=64)
def _seeded_sample(seed: int) -> blake2b:
    return _with_seed(_SAMPLE, seed)


def _with_seed(started: blake2b, seed: int) -> blake2b:
    copied = started.copy()
    copied.update(seed.to_bytes(8, "big"))
    return copied
