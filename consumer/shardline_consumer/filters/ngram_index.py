"""The n-grams of words of a list of texts, and which of them a document has. The memory is bounded.

Each n-gram is a hash of 64 bits, sorted. In a document, shorter n-grams at a few places are looked up in a
bit field: an n-gram of the list covers one of these places. Only around those that hit, n-grams are hashed.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

MOST_NGRAMS = 20_000_000
"""Of one list: 160 MB of hashes, and 64 MB for the bit field."""

_BUCKETS = 256
_BITS_PER_NGRAM = 24
_LEAST_BITS = 1 << 16
_HALF = 29


class TooManyNgrams(ValueError):
    """The list has more n-grams than fit the memory that a filter may take."""


class NgramIndex:
    """The n-grams of some texts.

    Args:
        size: how many words an n-gram has.
        texts: the words of each text. A text of fewer words than `size` has no n-gram.
        expected: about how many words there are; decides how large the bit field is, and no result.

    Raises:
        TooManyNgrams: there are more than MOST_NGRAMS.
    """

    def __init__(self, size: int, texts: Iterable[Sequence[bytes]], expected: int) -> None:
        self._size = size
        self._part = (size + 1) // 2
        bits = max(_LEAST_BITS, 1 << (min(expected, MOST_NGRAMS) * _BITS_PER_NGRAM - 1).bit_length())
        self._mask = bits - 1
        self._field = bytearray(bits // 8)
        self._buckets = [array("Q") for _ in range(_BUCKETS)]
        count = 0
        for words in texts:
            count += max(0, len(words) - size + 1)
            if count > MOST_NGRAMS:
                raise TooManyNgrams
            self._add(words)
        # A bucket after the other: sorting all at once would take an object for each n-gram.
        for number, bucket in enumerate(self._buckets):
            self._buckets[number] = array("Q", sorted(set(bucket)))

    def __len__(self) -> int:
        """How many different n-grams there are."""
        return sum(map(len, self._buckets))

    def places(self, words: Sequence[bytes]) -> Iterator[int]:
        """The words at which an n-gram of the list starts, in order."""
        size, part, field, mask = self._size, self._part, self._field, self._mask
        last = len(words) - size
        # The hash of Python may differ in each process: it decides where to look, never what is found.
        shorts = enumerate(map(hash, zip(*[iter(words)] * part, strict=False)))
        hits = [number for number, short in shorts if field[(short & mask) >> 3] >> (short & 7) & 1]
        for place in [number * part for number in hits]:
            if self._is_listed(words, place):
                for first in range(max(0, place - part + 1), min(last, place) + 1):
                    if self._has(words[first : first + size]):
                        yield first

    def _is_listed(self, words: Sequence[bytes], place: int) -> bool:
        """The second bit of the words at a place: a chance hit of both is rare."""
        other = hash(tuple(words[place : place + self._part])) >> _HALF & self._mask
        return bool(self._field[other >> 3] >> (other & 7) & 1)

    def _add(self, words: Sequence[bytes]) -> None:
        size, part, field, mask = self._size, self._part, self._field, self._mask
        if len(words) < size:
            return
        for first in range(len(words) - part + 1):
            short = hash(tuple(words[first : first + part]))
            for bit in (short & mask, short >> _HALF & mask):
                field[bit >> 3] |= 1 << (bit & 7)
        for first in range(len(words) - size + 1):
            digest = _digest(words[first : first + size])
            self._buckets[digest % _BUCKETS].append(digest)

    def _has(self, words: Sequence[bytes]) -> bool:
        digest = _digest(words)
        bucket = self._buckets[digest % _BUCKETS]
        place = bisect_left(bucket, digest)
        return place < len(bucket) and bucket[place] == digest


def _digest(words: Sequence[bytes]) -> int:
    return int.from_bytes(blake2b(b" ".join(words), digest_size=8).digest(), "little")
