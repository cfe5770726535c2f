"""Blocks: many documents of one partition in one message, between a producer and a worker of one process.

```
block     B kind=5 | Q sequence | Q base | I documents | I position length | position | body
body      I positions length | positions | facts of each | Q key hash of each | I head length of each
          | I row length of each | rows
```

The documents have the sequences from `sequence` on. `position` is that of the last one, `positions` the JSON
array of all, without what leads all positions, and without `base` in their ordinals. So who renders documents
makes the body, and who numbers them need not look into it. Facts and rows are those of document messages; a
key hash is the `document_hash` of the id. The columns have the byte order of the machine, which a block never
leaves. On Kafka a document is a message, which a worker can take, and any program can read, by itself.
"""

from array import array
from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Any, NamedTuple, TypeGuard

import orjson

from shardline_common.job.messages import BLOCK, FACTS, Position, decode_position, encode_position

_HEAD = Struct(">BQQII")
_LISTED = Struct(">I")
_HASH, _LENGTH = "Q", "I"


class Block(NamedTuple):
    """The documents of a block. `facts` are tuples of chars, words, present, flags and relevance.

    A row without its score is the next of `sizes` bytes of `rows`; the score belongs behind the next of
    `heads` of them.
    """

    sequence: int
    base: int
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
        *place, ordinal = orjson.loads(self.positions)[index]
        last = decode_position(self.position)
        return encode_position((*last[: -len(place) - 1], *place, self.base + ordinal))


def block_body(
    positions: Sequence[Position],
    facts: Iterable[bytes],
    hashes: Iterable[int],
    heads: Iterable[int],
    rows: Sequence[bytes],
) -> list[bytes]:
    """The body of a block, in pieces. `facts` are those of `encode_facts`."""
    listed, sizes = orjson.dumps(positions), array(_LENGTH, map(len, rows))
    columns = array(_HASH, hashes).tobytes(), array(_LENGTH, heads).tobytes(), sizes.tobytes()
    return [_LISTED.pack(len(listed)), listed, *facts, *columns, *rows]


def encode_block(sequence: int, base: int, position: Position, count: int, body: Iterable[bytes]) -> bytes:
    """A block of `count` documents that follow each other in a partition; the last one is at `position`."""
    encoded = encode_position(position)
    return b"".join((_HEAD.pack(BLOCK, sequence, base, count, len(encoded)), encoded, *body))


def decode_block(value: bytes) -> Block:
    """The documents of a block. Raises one of MALFORMED."""
    _, sequence, base, count, position = _HEAD.unpack_from(value)
    (listed,) = _LISTED.unpack_from(value, _HEAD.size + position)
    end = _HEAD.size
    parts: list[bytes] = []
    for size in (position, _LISTED.size, listed, FACTS.size * count, 8 * count, 4 * count, 4 * count):
        parts.append(value[end : end + size])
        end += size
    position_json, _, positions, all_facts, *columns = parts
    facts = list(FACTS.iter_unpack(all_facts))
    hashes, heads, sizes = (_column(kind, part) for kind, part in zip("QII", columns, strict=True))
    whole = count and count == len(facts) == len(hashes) == len(heads) == len(sizes)
    if not whole or end + sum(sizes) != len(value) or any(map(int.__gt__, heads, sizes)):
        raise ValueError("not as long as its head says")
    decode_position(position_json)
    return Block(sequence, base, position_json, positions, facts, hashes, heads, sizes, value[end:])


def is_block(value: bytes | None) -> TypeGuard[bytes]:
    """Whether the value can be a block, by its first byte and its size."""
    return value is not None and len(value) >= _HEAD.size and value[0] == BLOCK


def block_range(value: bytes) -> tuple[int, int]:
    """The sequence of the first document of a block, and the one behind its last. Raises one of MALFORMED."""
    _, sequence, _, count, _ = _HEAD.unpack_from(value)
    return sequence, sequence + count


def _column(kind: str, data: bytes) -> list[Any]:
    found: array[Any] = array(kind)
    found.frombytes(data)
    return found.tolist()
