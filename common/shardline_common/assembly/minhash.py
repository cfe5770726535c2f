"""Signatures of texts by `minhash-v1`: near duplicates have equal bands (docs/minhash-v1.md).

The values are a function of text, bands, rows and seed, for ever: not of a library or a machine.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, cast

from shardline_common.assembly.extra import assembly_extra
from shardline_common.assembly.words import words_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHINGLE = 5  # words
VALUE_BYTES = 4
BAND_BYTES = 8

_FACTOR = 0x9E3779B97F4A7C15
_MIX = 0xBF58476D1CE4E5B9
_HALF = 32
_CACHED_WORDS = 1 << 16
_CACHED_LENGTH = 64
_BLOCK_VALUES = 1 << 16

_WORD = blake2b(digest_size=8, person=b"minhash-v1 word")
_BAND = blake2b(digest_size=BAND_BYTES, person=b"minhash-v1 band")
_PERMUTATION = blake2b(digest_size=8, person=b"minhash-v1 perm")


def _digest(data: bytes, started: blake2b) -> bytes:
    copied = started.copy()
    copied.update(data)
    return copied.digest()


class _WordHashes(dict[bytes, int]):
    """The hashes of the words of before. It holds at most about 16 MB."""

    def __missing__(self, word: bytes) -> int:
        value = int.from_bytes(_digest(word, _WORD), "little")
        # A document may be one word of megabytes.
        if len(word) <= _CACHED_LENGTH:
            if len(self) >= _CACHED_WORDS:
                self.clear()
            self[word] = value
        return value


_WORD_HASHES = _WordHashes()


class Signer:
    """Makes the signatures and band hashes of one job.

    Raises:
        UsageError: numpy is not installed.
    """

    def __init__(self, bands: int, rows: int, seed: int) -> None:
        with assembly_extra():
            import numpy as np

        self.permutations = bands * rows
        self._band_size = rows * VALUE_BYTES
        # Even permutations use the lower half of a shingle's hash, odd ones the upper half.
        pairs = (self.permutations + 1) // 2
        digests = b"".join(
            _digest(seed.to_bytes(8, "little") + index.to_bytes(4, "little"), _PERMUTATION)
            for index in range(2 * pairs)
        )
        constants = np.frombuffer(digests, "<u4").reshape(pairs, 2, 2).astype(np.uint32)
        self._factors = (constants[:, :, 0].T | np.uint32(1))[:, :, np.newaxis].copy()
        self._summands = constants[:, :, 1].T[:, :, np.newaxis].copy()
        self._block = max(SHINGLE, _BLOCK_VALUES // pairs)

    def sign(self, text: str) -> bytes | None:
        """The signature, a little-endian uint32 for each permutation; None for a text of under 5 words."""
        import numpy as np

        words = words_of(text)
        if len(words) < SHINGLE:
            return None
        hashes = np.fromiter(map(_WORD_HASHES.__getitem__, words), np.uint64, len(words))
        shingles = _shingle_hashes(hashes)
        halves = np.ascontiguousarray(shingles.astype("<u8", copy=False).view("<u4").reshape(-1, 2).T)
        # By blocks that fit into a core's cache, whatever the length of the text.
        starts = range(0, len(shingles), self._block)
        minima = self._minima(halves[:, : self._block])
        for start in starts[1:]:
            np.minimum(minima, self._minima(halves[:, start : start + self._block]), out=minima)
        return minima.T.ravel()[: self.permutations].astype("<u4").tobytes()

    def _minima(self, halves: NDArray[np.uint32]) -> NDArray[np.uint32]:
        values = halves[:, None, :] * self._factors
        values += self._summands
        return cast("NDArray[np.uint32]", values.min(axis=2))

    def band_hashes(self, signature: bytes) -> bytes:
        """The hash of each band, as little-endian uint64."""
        size = self._band_size
        return b"".join(
            [_digest(signature[start : start + size], _BAND) for start in range(0, len(signature), size)]
        )

    def bands(self, signature: bytes) -> list[tuple[int, int]]:
        """The number and the hash of each band."""
        hashes = self.band_hashes(signature)
        starts = range(0, len(hashes), BAND_BYTES)
        return [
            (number, int.from_bytes(hashes[start : start + BAND_BYTES], "little"))
            for number, start in enumerate(starts)
        ]


def _shingle_hashes(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The hash of each five words in sequence: a polynomial of their hashes mod 2^64, mixed."""
    import numpy as np

    count = len(words) - SHINGLE + 1
    found = words[:count].copy()
    for place in range(1, SHINGLE):
        found *= np.uint64(_FACTOR)
        found += words[place : place + count]
    found ^= found >> np.uint64(_HALF)
    found *= np.uint64(_MIX)
    found ^= found >> np.uint64(_HALF)
    return found


def equal_components(left: bytes, right: bytes) -> int:
    """How many values of two signatures are equal. Their share is the estimated similarity."""
    import numpy as np

    return int((np.frombuffer(left, "<u4") == np.frombuffer(right, "<u4")).sum())
