"""From source items to messages: partition, sequence, hash sum. The producer's hot path."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from shardline_common.job.columns import Columns
from shardline_common.job.hashing import add, document_hash, in_validation, partition_of
from shardline_common.job.messages import (
    DeadLetter,
    End,
    encode_dead,
    encode_document,
    encode_end,
    encode_position,
)
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import PartitionState
from shardline_common.ports.broker import Message
from shardline_producer.rows import render
from shardline_producer.sources.documents import ORIGINAL_BYTES, DeadLetterReason
from shardline_producer.sources.source import Document, InvalidDocument, SourceItem


@dataclass(slots=True)
class Encoded:
    """Messages of a batch; how many documents earlier attempts had sent; the last dead letter."""

    messages: list[Message]
    dropped: int = 0
    last_dead: str = ""


class Encoder:
    """Numbers documents per partition. `partitions` is the job's state and is counted up in place."""

    def __init__(self, spec: JobSpec, columns: Columns, partitions: list[PartitionState]) -> None:
        self._spec = spec
        self._columns = columns
        self._partitions = partitions
        self._label = spec.source_label
        self._decimals = spec.relevance_decimals
        self._train = spec.partitions
        self._validation = spec.validation_partitions

    def encode(self, items: Iterable[SourceItem]) -> Encoded:
        """The messages of items in source order; what a partition holds already is dropped."""
        encoded = Encoded([])
        for item in items:
            content = item.content
            key = (content.id if isinstance(content, Document) else content.key).encode()
            number = self._place(key, content)
            part = self._partitions[number]
            if part.resume_after is not None and item.position <= part.resume_after:
                encoded.dropped += 1
                continue
            value = self._value(part, item, encoded)
            part.hash_sum = add(part.hash_sum, document_hash(key))
            part.sequence += 1
            encoded.messages.append(Message(key, value, number))
        return encoded

    def _place(self, key: bytes, content: Document | InvalidDocument) -> int:
        if self._validation and in_validation(
            self._group(key, content), self._spec.output.validation_fraction
        ):
            return self._train + partition_of(key, self._validation)
        return partition_of(key, self._train)

    def _group(self, key: bytes, content: Document | InvalidDocument) -> bytes:
        name = self._spec.output.group_by
        value = content.metadata.get(name) if name and isinstance(content, Document) else None
        return key if value is None else str(value).encode("utf-8", "surrogatepass")

    def _value(self, part: PartitionState, item: SourceItem, encoded: Encoded) -> bytes:
        position, content = encode_position(item.position), item.content
        if isinstance(content, Document):
            facts, head, tail = render(content, self._columns, self._label, self._decimals)
            size = len(head) + len(tail)
            if size <= self._spec.max_document_bytes:
                part.bytes += size
                return encode_document(part.sequence, position, facts, head, tail)
            dead = self._too_large(head + tail)
        else:
            dead = content.dead_letter
        part.bytes += len(dead.original)
        part.dead += 1
        encoded.last_dead = f"{content.id if isinstance(content, Document) else content.key}: {dead.reason}"
        return encode_dead(part.sequence, position, dead)

    def _too_large(self, row: bytes) -> DeadLetter:
        limit = self._spec.max_document_bytes
        hint = f"the row needs {len(row)} bytes, max_document_bytes is {limit}; raise it in the job"
        return DeadLetter(
            DeadLetterReason.TOO_LARGE.value, hint, sha256(row).hexdigest(), len(row), row[:ORIGINAL_BYTES]
        )


def end_markers(
    partitions: Sequence[PartitionState], headers: tuple[tuple[str, bytes], ...] = ()
) -> list[Message]:
    """The end marker of every partition."""
    return [
        Message(b"end", encode_end(End(part.sequence, part.hash_sum)), number, headers)
        for number, part in enumerate(partitions)
    ]
