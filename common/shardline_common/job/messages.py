r"""The messages of an attempt's topic: binary, so that the worker neither parses nor renders a row.

A document travels as its finished row without the quality score, beside the facts that the score is
computed from. The worker inserts the score; it never decodes the text.

```
document  B kind=1 | Q sequence | I chars | I words | B present | B flags | d relevance
          | H position length | I head length | position | head | tail
dead      B kind=2 | Q sequence | H position length | position | JSON {reason, …, size} \n original
end       B kind=3 | Q count    | Q hash sum
grouped   B kind=4 | Q sequence | I chars | I words | B present | B flags | d relevance | Q group
          | H position length | I head length | position | head | tail
```

Integers are big-endian. The row is `head + quality score + tail`; `position` is a JSON array. The
Kafka key is the document's id (for a dead letter without an id, its place in the source) and feeds the
hash sum. `grouped` is a document with the hash of its group, of a job with `output.group_by` whose splits
are made when all documents have landed. A worker of a version that does not know this kind cannot read
such a job either, so it takes none of its messages.
"""
# Only this module knows the layout: the worker reads messages through its functions. Kind 5 is on no Kafka
# topic (`message_blocks`).

import struct
from dataclasses import dataclass
from struct import Struct
from typing import Any, NamedTuple, TypeGuard

import orjson

DOCUMENT, DEAD, END, GROUPED, BLOCK = 1, 2, 3, 4, 5
DOCUMENT_KINDS = (DOCUMENT, GROUPED)
MAX_ORIGINAL_BYTES = 65_536
"""How many bytes of the original a dead letter keeps."""
MALFORMED = (struct.error, ValueError, KeyError, TypeError, OverflowError)
"""The errors that the decoders raise for a value that no producer of Shardline wrote."""

_FLAG_BLANK = 1
_KIND_SEQUENCE = Struct(">BQ")
FACTS = Struct(">IIBBd")
_LENGTHS = Struct(">HI")
# Big-endian layouts have no padding, so this is the three before it, joined.
_DOCUMENT_HEAD = Struct(">BQIIBBdHI")
_GROUPED_HEAD = Struct(">BQIIBBdQHI")
_GROUP = Struct(">Q")
_GROUP_START = _KIND_SEQUENCE.size + FACTS.size
_DEAD_LETTER_HEAD = Struct(">BQH")
_END = Struct(">BQQ")

Position = tuple[Any, ...]
"""A place in a source: JSON scalars, totally ordered; the last one is the ordinal (1, 2, 3 …)."""


_ORDINAL_BITS = 48


def position_number(number: int, ordinal: int) -> int:
    """A place in the source as one integer, in the order of the source: the slice, then the ordinal in it."""
    return number << _ORDINAL_BITS | ordinal


def slice_of_position(number: int) -> int:
    """The slice of a `position_number`."""
    return number >> _ORDINAL_BITS


class Facts(NamedTuple):
    """The properties of a document that a filter decides by; its text is not among them.

    `chars` and `words` count the text. `present`: how many of title, domain and document_type the document
    has (0 to 3). `blank`: the text is only white space. `relevance`: the score of the search, or the
    document's own.
    """

    chars: int
    words: int
    present: int
    blank: bool
    relevance: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Input that could not become a document: the reason, a sentence about it, and the original bytes.

    `sha256` and `size` are those of the whole original; `original` is its start, at most MAX_ORIGINAL_BYTES.
    """

    reason: str
    hint: str
    sha256: str
    size: int
    original: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The end marker of a partition: the number of messages before it, and the hash sum of their keys."""

    count: int
    hash_sum: int


def encode_position(position: Position) -> bytes:
    """A position as its JSON array."""
    return orjson.dumps(position)


def decode_position(data: bytes) -> Position:
    """The position of a JSON array."""
    return tuple(orjson.loads(data))


def encode_facts(chars: int, words: int, present: int, blank: bool, relevance: float) -> bytes:
    """The facts of a document as in its message."""
    return FACTS.pack(chars, words, present, _FLAG_BLANK if blank else 0, relevance)


def encode_group(group: int) -> bytes:
    """The hash of a group. Behind the facts of a document, it makes its message a `grouped` one."""
    return _GROUP.pack(group)


def encode_document(sequence: int, position: bytes, facts: Facts, head: bytes, tail: bytes) -> bytes:
    """A document message: the row's bytes before and after the quality score, and its facts."""
    return encode_rendered(sequence, position, encode_facts(*facts), len(head), head + tail)


def encode_rendered(sequence: int, position: bytes, facts: bytes, head: int, row: bytes) -> bytes:
    """The same of `encode_facts`, and of the whole row; `head` is the length of the part before the score."""
    kind = DOCUMENT if len(facts) == FACTS.size else GROUPED
    lengths = _LENGTHS.pack(len(position), head)
    return b"".join((_KIND_SEQUENCE.pack(kind, sequence), facts, lengths, position, row))


def encode_dead_letter(sequence: int, position: bytes, dead_letter: DeadLetter) -> bytes:
    """A dead letter."""
    details = orjson.dumps(
        {
            "reason": dead_letter.reason,
            "hint": dead_letter.hint,
            "sha256": dead_letter.sha256,
            "size": dead_letter.size,
        }
    )
    head = _DEAD_LETTER_HEAD.pack(DEAD, sequence, len(position))
    return b"".join((head, position, details, b"\n", dead_letter.original))


def is_message(value: bytes | None) -> TypeGuard[bytes]:
    """Whether the value can be one of these messages, by its first byte and its size."""
    return value is not None and len(value) >= _KIND_SEQUENCE.size and DOCUMENT <= value[0] <= GROUPED


def decode_kind_and_sequence(value: bytes) -> tuple[int, int]:
    """Kind and sequence of a message."""
    return _KIND_SEQUENCE.unpack_from(value)


def decode_document(value: bytes) -> tuple[int, int, int, int, float, int, int, int]:
    """(chars, words, present, flags, relevance, position start, head start, tail start) of a document.

    The position is `value[position start:head start]`, the row's head `value[head start:tail start]`, its
    tail the rest. `flags` is not 0 where the text is only white space. Raises one of MALFORMED.
    """
    kind, _, chars, words, present, flags, relevance, position, head = _DOCUMENT_HEAD.unpack_from(value)
    start = _DOCUMENT_HEAD.size
    if kind == GROUPED:
        position, head = _LENGTHS.unpack_from(value, _GROUP_START + _GROUP.size)
        start = _GROUPED_HEAD.size
    head_start = start + position
    tail_start = head_start + head
    if tail_start > len(value):
        raise ValueError("shorter than its head says")
    return chars, words, present, flags, relevance, start, head_start, tail_start


def decode_group(value: bytes) -> int | None:
    """The hash of the group of a document; None where its message has none. Raises one of MALFORMED."""
    group: int | None = _GROUP.unpack_from(value, _GROUP_START)[0] if value[0] == GROUPED else None
    return group


def decode_dead_letter(value: bytes) -> tuple[bytes, DeadLetter]:
    """Position (JSON) and content of a dead letter. Raises one of MALFORMED."""
    _, _, length = _DEAD_LETTER_HEAD.unpack_from(value)
    start = _DEAD_LETTER_HEAD.size + length
    details, _, original = value[start:].partition(b"\n")
    dead_letter = DeadLetter(original=original, **orjson.loads(details))
    if not isinstance(dead_letter.reason, str):
        raise TypeError("a reason is text")
    return value[_DEAD_LETTER_HEAD.size : start], dead_letter


def encode_end(end: End) -> bytes:
    """An end marker."""
    return _END.pack(END, end.count, end.hash_sum)


def decode_end(value: bytes) -> End:
    """An end marker. Raises one of MALFORMED."""
    kind, count, hash_sum = _END.unpack(value)
    if kind != END:
        raise ValueError("no end marker")
    return End(count, hash_sum)


def next_document(
    value: bytes | None, sequence: int
) -> tuple[int, int, int, int, float, int, int, int] | None:
    """As `decode_document`, of the document that has this sequence; None for all other messages."""
    if value is None or len(value) < _DOCUMENT_HEAD.size:
        return None
    kind, found, chars, words, present, flags, relevance, position, head = _DOCUMENT_HEAD.unpack_from(value)
    head_start = _DOCUMENT_HEAD.size + position
    tail_start = head_start + head
    if kind != DOCUMENT or found != sequence or tail_start > len(value):
        return None
    return chars, words, present, flags, relevance, _DOCUMENT_HEAD.size, head_start, tail_start
