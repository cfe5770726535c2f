r"""The messages of a job's topic: binary, so that the worker parses and renders nothing again.

A document travels as its finished row but for the quality score, beside the few facts the score
is made of. The worker fills the score in; the text is never decoded there.

```
document  B kind=1 | Q sequence | I chars | I words | B present | B flags | d relevance
          | H position length | I head length | position | head | tail
dead      B kind=2 | Q sequence | H position length | position | JSON {reason, …, size} \n original
end       B kind=3 | Q count    | Q hash sum
```

Integers are big-endian. The row is `head + quality score + tail`; `position` is a JSON array. The
Kafka key is the document's id (or, for what has none, its place in the source) and feeds the hash sum.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Any

import orjson

DOCUMENT, DEAD, END = 1, 2, 3
FLAG_BLANK = 1

KIND_SEQUENCE = Struct(">BQ")
DOCUMENT_HEAD = Struct(">BQIIBBdHI")
_DEAD_HEAD = Struct(">BQH")
_END = Struct(">BQQ")

Position = tuple[Any, ...]
"""A place in a source: totally ordered, JSON scalars only, the last one the ordinal (1, 2, 3 …)."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a filter may know without the text: `present` counts title, domain, document_type (0..3)."""

    chars: int
    words: int
    present: int
    blank: bool
    relevance: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What could not be a document: why, where, and the start of the original bytes."""

    reason: str
    hint: str
    sha256: str
    size: int
    original: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The end marker of a partition: how many messages came before it, and their ids' hash sum."""

    count: int
    hash_sum: int


def encode_position(position: Position) -> bytes:
    """A position as its JSON array."""
    return orjson.dumps(position)


def decode_position(data: bytes) -> Position:
    """The position of a JSON array."""
    return tuple(orjson.loads(data))


def encode_document(sequence: int, position: bytes, facts: Facts, head: bytes, tail: bytes) -> bytes:
    """A document message: the row's bytes before and after the quality score, and its facts."""
    flags = FLAG_BLANK if facts.blank else 0
    fixed = DOCUMENT_HEAD.pack(
        DOCUMENT,
        sequence,
        facts.chars,
        facts.words,
        facts.present,
        flags,
        facts.relevance,
        len(position),
        len(head),
    )
    return b"".join((fixed, position, head, tail))


def encode_dead(sequence: int, position: bytes, dead: DeadLetter) -> bytes:
    """A dead message."""
    about = orjson.dumps({"reason": dead.reason, "hint": dead.hint, "sha256": dead.sha256, "size": dead.size})
    return b"".join((_DEAD_HEAD.pack(DEAD, sequence, len(position)), position, about, b"\n", dead.original))


def decode_dead(value: bytes) -> tuple[bytes, DeadLetter]:
    """Position and content of a dead message. Raises ValueError, TypeError or struct.error if it is none."""
    _, _, length = _DEAD_HEAD.unpack_from(value)
    start = _DEAD_HEAD.size + length
    about, _, original = value[start:].partition(b"\n")
    letter = DeadLetter(original=original, **orjson.loads(about))
    if not isinstance(letter.reason, str):
        raise TypeError("a reason is text")
    return value[_DEAD_HEAD.size : start], letter


def encode_end(end: End) -> bytes:
    """An end marker."""
    return _END.pack(END, end.count, end.hash_sum)


def decode_end(value: bytes) -> End:
    """The end marker of a value of kind END."""
    _, count, hash_sum = _END.unpack(value)
    return End(count, hash_sum)
