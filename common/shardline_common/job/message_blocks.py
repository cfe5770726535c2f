"""Blocks: many documents of one partition in one message, between a producer and a worker of one process.

```
block     B kind=5 | Q sequence | I documents | I position length | I positions length | position | positions
          | facts of each | Q key hash of each | I head length of each | I row length of each | rows
```

The documents have the sequences from `sequence` on. `position` is that of the last one, `positions` the JSON
array of all. Facts and rows are those of document messages; a key hash is the `document_hash` of the id.
The columns have the byte order of the machine: a block never leaves its process. On Kafka a document is a
message, which a worker can take, and any program can read, by itself.
"""

from array import array
from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Any, NamedTuple, TypeGuard

import orjson

from shardline_common.job.messages import BLOCK, FACTS, Position, decode_position, encode_position

_HEAD = Struct(">BQIII")
_HASH, _LENGTH = "Q", "I"


class Block(NamedTuple):
    """The documents of a block. `facts` are tuples of chars, words, present, flags and relevance.

    A row without its score is the next of `sizes` bytes of `rows`; the score belongs behind the next of
    `heads` of them.
    """

    sequence: int
    position: bytes
    positions: bytes
    facts: Sequence[tuple[int, int, int, int, float]]
    hashes: Sequence[int]
    heads: Sequence[int]
    sizes: Sequence[int]
    rows: bytes

    def position_of(self, index: int) -> bytes:
        """The position of a document, as its message would have it."""
        if index == len(self.sizes) - 1:
            return self.position
        return encode_position(tuple(orjson.loads(self.positions)[index]))


def encode_block(
    sequence: int,
    positions: Sequence[Position],
    facts: Iterable[bytes],
    hashes: Iterable[int],
    heads: Iterable[int],
    rows: Sequence[bytes],
) -> bytes:
    """A block of documents that follow each other in a partition. `facts` are those of `encode_facts`."""
    position, listed = encode_position(positions[-1]), orjson.dumps(positions)
    head = _HEAD.pack(BLOCK, sequence, len(rows), len(position), len(listed))
    sizes = array(_LENGTH, map(len, rows))
    columns = array(_HASH, hashes).tobytes(), array(_LENGTH, heads).tobytes(), sizes.tobytes()
    return b"".join((head, position, listed, *facts, *columns, *rows))


def decode_block(value: bytes) -> Block:
    """The documents of a block. Raises one of MALFORMED."""
    _, sequence, count, position, listed = _HEAD.unpack_from(value)
    end = _HEAD.size
    parts: list[bytes] = []
    for size in (position, listed, FACTS.size * count, 8 * count, 4 * count, 4 * count):
        parts.append(value[end : end + size])
        end += size
    facts = list(FACTS.iter_unpack(parts[2]))
    hashes, heads, sizes = (_column(kind, part) for kind, part in zip("QII", parts[3:], strict=True))
    whole = count and count == len(facts) == len(hashes) == len(heads) == len(sizes)
    if not whole or end + sum(sizes) != len(value) or any(map(int.__gt__, heads, sizes)):
        raise ValueError("not as long as its head says")
    decode_position(parts[0])
    return Block(sequence, parts[0], parts[1], facts, hashes, heads, sizes, value[end:])


def is_block(value: bytes | None) -> TypeGuard[bytes]:
    """Whether the value can be a block, by its first byte and its size."""
    return value is not None and len(value) >= _HEAD.size and value[0] == BLOCK


def block_range(value: bytes) -> tuple[int, int]:
    """The sequence of the first document of a block, and the one behind its last. Raises one of MALFORMED."""
    _, sequence, count, _, _ = _HEAD.unpack_from(value)
    return sequence, sequence + count


def _column(kind: str, data: bytes) -> list[Any]:
    found: array[Any] = array(kind)
    found.frombytes(data)
    return found.tolist()
