"""From source items to messages: partition, sequence, hash sum. The producer's hot path."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shardline_common.job.columns import Columns
from shardline_common.job.hashing import add, document_hash, in_validation, partition_of
from shardline_common.job.messages import (
    End,
    encode_dead_letter,
    encode_document,
    encode_end,
    encode_position,
)
from shardline_common.job.plan import RULES
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import PartitionState
from shardline_common.ports.broker import Message
from shardline_producer.rows import RowRenderer, with_limit
from shardline_producer.sources.documents import DeadLetterReason
from shardline_producer.sources.source import Document, InvalidDocument, SourceItem


@dataclass(slots=True)
class EncodedBatch:
    """The messages of a batch.

    `dropped`: how many of its items an earlier attempt has sent. `vanished`: how many of its messages stand
    for documents that vanished from the source. `first_usable`: the ordinal of the first document that is no
    dead letter. `first_dead_letter` and `last_dead_letter` name them with their reason; "" for none.
    """

    messages: list[Message]
    dropped: int = 0
    vanished: int = 0
    first_usable: int | None = None
    first_dead_letter: str = ""
    last_dead_letter: str = ""


class Encoder:
    """Encodes the items of one job. `partitions` is the job's state; it is updated in place."""

    def __init__(
        self, spec: JobSpec, columns: Columns, partitions: list[PartitionState], rules: int = RULES
    ) -> None:
        self._spec = spec
        self._renderer = RowRenderer(spec, columns, rules)
        self._partitions = partitions
        self._train = spec.partitions
        self._validation = spec.validation_partitions

    def encode(self, items: Iterable[SourceItem]) -> EncodedBatch:
        """The messages of items, in source order. Items that an earlier attempt has sent are dropped."""
        batch = EncodedBatch([])
        for item in items:
            content = item.content
            key = (content.id if isinstance(content, Document) else content.key).encode()
            number = self._partition(key, content)
            part = self._partitions[number]
            if part.resume_after is not None and item.position <= part.resume_after:
                batch.dropped += 1
                continue
            value = self._value(part, item, batch)
            part.hash_sum = add(part.hash_sum, document_hash(key))
            part.sequence += 1
            batch.messages.append(Message(key, value, number))
        return batch

    def _partition(self, key: bytes, content: Document | InvalidDocument) -> int:
        if self._validation and is_validation(self._spec, key, content):
            return self._train + partition_of(key, self._validation)
        return partition_of(key, self._train)

    def _value(self, part: PartitionState, item: SourceItem, batch: EncodedBatch) -> bytes:
        position, content = encode_position(item.position), item.content
        if isinstance(content, Document):
            key, row = content.id, self._renderer.render(content)
            dead_letter = self._renderer.check_size(row, key)
            if dead_letter is None:
                part.bytes += len(row.head) + len(row.tail)
                if batch.first_usable is None:
                    batch.first_usable = item.position[-1]
                return encode_document(part.sequence, position, *row)
        else:
            key = content.key
            dead_letter = with_limit(content.dead_letter, key, self._spec.max_document_bytes)
        part.bytes += len(dead_letter.original)
        part.dead += 1
        batch.vanished += dead_letter.reason == DeadLetterReason.VANISHED
        batch.first_dead_letter = batch.first_dead_letter or f"{dead_letter.hint} ({dead_letter.reason})"
        batch.last_dead_letter = f"{key}: {dead_letter.reason}"
        return encode_dead_letter(part.sequence, position, dead_letter)


def is_validation(spec: JobSpec, key: bytes, content: Document | InvalidDocument) -> bool:
    """Whether a job has a validation split, and the item with this key belongs to it."""
    name, fraction = spec.output.group_by, spec.output.validation_fraction
    value = content.metadata.get(name) if name and isinstance(content, Document) else None
    group = key if value is None else str(value).encode("utf-8", "surrogatepass")
    return in_validation(group, fraction)


def end_markers(
    partitions: Sequence[PartitionState], headers: tuple[tuple[str, bytes], ...] = ()
) -> list[Message]:
    """The end marker of every partition."""
    return [
        Message(b"end", encode_end(End(part.sequence, part.hash_sum)), number, headers)
        for number, part in enumerate(partitions)
    ]
