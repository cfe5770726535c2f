"""The hashes that place a document: golden vectors, and what each of them keeps."""

from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.job.hashing import (
    MODULUS,
    document_hash,
    group_hash,
    in_validation,
    order_key,
    order_partition,
    partition_of,
    sample_key,
)

KEYS = st.binary(max_size=40)
SEEDS = st.integers(0, 1 << 53)


# Never made anew: the order, the splits and the samples of datasets hang on them.
@pytest.mark.parametrize(
    ("seed", "key", "order", "sample", "group"),
    [
        (0, b"doc-1", 0xAA0C21FA120A4AD0, 0x45A5DFDE26097253, 0xE197F64C3D11DCD4),
        (7, b"doc-1", 0xC4CAB2CF280459B2, 0xF1B7A297B255552D, 0xE197F64C3D11DCD4),
        (0, "§ 1".encode(), 0x7F982728B2DDC998, 0xE0F9998F31D0BA74, 0x2F1ED25ACA70A748),
        (1 << 53, b"", 0x6E1C15B1DD067F79, 0x3B66BE3A824137FF, 0xF3072461378D170E),
    ],
)
def test_the_hashes_of_an_assembled_dataset_are_frozen(
    seed: int, key: bytes, order: int, sample: int, group: int
) -> None:
    assert (order_key(seed, key), sample_key(seed, key), group_hash(key)) == (order, sample, group)


def test_the_hashes_of_every_dataset_are_frozen() -> None:
    assert document_hash(b"doc-1") == 0xD8B73A05BDD751E4
    assert [partition_of(b"doc-1", 4), partition_of(b"doc-1", 1000)] == [3, 471]


@given(SEEDS, KEYS)
def test_the_keys_are_a_hash_of_the_seed_in_eight_bytes_and_the_id(seed: int, key: bytes) -> None:
    for function, person in ((order_key, b"order"), (sample_key, b"sample")):
        digest = blake2b(seed.to_bytes(8, "big") + key, digest_size=8, person=person).digest()
        assert function(seed, key) == int.from_bytes(digest, "big")


@given(KEYS, st.floats(0, 0.9))
def test_the_validation_split_is_the_low_end_of_the_group_hash(group: bytes, fraction: float) -> None:
    assert in_validation(group, fraction) == (group_hash(group) < int(fraction * MODULUS))


@given(st.integers(0, MODULUS - 1), st.integers(0, MODULUS - 1), st.integers(1, 1024))
def test_partitions_divide_the_order_keys_into_ranges(one: int, other: int, partitions: int) -> None:
    first, second = sorted((one, other))
    assert 0 <= order_partition(first, partitions) <= order_partition(second, partitions) < partitions
    assert order_partition(MODULUS - 1, partitions) == partitions - 1
    assert order_partition(first, 1) == 0
    # A finer division never joins what a coarser one parts.
    if order_partition(first, partitions) < order_partition(second, partitions):
        assert order_partition(first, 2 * partitions) < order_partition(second, 2 * partitions)
