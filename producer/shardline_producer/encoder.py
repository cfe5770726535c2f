"""From source items to messages: partition, sequence, hash sum. The producer's hot path."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import cast

from shardline_common.job.columns import Columns
from shardline_common.job.filters import is_curated
from shardline_common.job.hashing import (
    MODULUS,
    add,
    document_hash,
    group_hash,
    in_validation,
    order_key,
    order_partition,
    partition_of,
)
from shardline_common.job.message_blocks import block_body, encode_block
from shardline_common.job.messages import (
    End,
    Position,
    encode_dead_letter,
    encode_end,
    encode_facts,
    encode_group,
    encode_position,
    encode_rendered,
)
from shardline_common.job.plan import RULES
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import PartitionState
from shardline_common.ports.broker import Message
from shardline_producer.plain_lines import line_renderer
from shardline_producer.plain_rows import row_renderer
from shardline_producer.rows import RowRenderer, too_large_row, with_limit
from shardline_producer.sources.documents import DeadLetterReason, without_values
from shardline_producer.sources.source import (
    AnyItem,
    BlockPart,
    Document,
    InvalidDocument,
    RenderedBlock,
    RenderedItem,
    RenderLine,
    RenderRow,
    SingleItem,
)

# A block must fit into a message with one row more, which may be as large as a document.
_BLOCK_BYTES = 1 << 19
# A block of fewer documents, on the average, costs more than a message for each.
_FEWEST_OF_BLOCK = 4


@dataclass(slots=True)
class EncodedBatch:
    """The messages of a batch, with so many items in them: a block has several.

    `dropped`: how many of its items an earlier attempt has sent. `vanished`: how many of its messages stand
    for documents that vanished from the source. `first_usable`: the ordinal of the first document that is no
    dead letter. `first_dead_letter` and `last_dead_letter` name them with their reason; "" for none.
    """

    messages: list[Message]
    sent: int = 0
    dropped: int = 0
    vanished: int = 0
    first_usable: int | None = None
    first_dead_letter: str = ""
    last_dead_letter: str = ""


class Encoder:
    """Encodes the items of one job or slice. `partitions` is its state; it is updated in place.

    `first` is the number of its first partition. The number of a slice leads the positions that are sent.
    `blocks`: documents that follow each other are sent as blocks. What an earlier attempt has sent, and rows
    that may be too large, are looked at one by one.
    """

    def __init__(
        self,
        spec: JobSpec,
        columns: Columns,
        partitions: list[PartitionState],
        rules: int = RULES,
        first: int = 0,
        slice_number: int | None = None,
        *,
        blocks: bool = False,
    ) -> None:
        blocks = blocks and all(part.resume_after is None for part in partitions)
        self.render = DocumentRenderer(spec, columns, rules, blocks=blocks)
        self._blocks = blocks
        self._spec = spec
        self._partitions = partitions
        self._first = first
        self._leading: Position = () if slice_number is None else (slice_number,)

    def sent_position(self, item: AnyItem) -> Position:
        """The position of an item as it is sent, and as the cursor of the job or slice."""
        return self._leading + item.position

    def encode(self, items: Iterable[AnyItem]) -> EncodedBatch:
        """The messages of items, in source order. Items that an earlier attempt has sent are dropped."""
        batch = EncodedBatch([])
        if not self._blocks:
            self._encode_each(cast("Iterable[SingleItem]", items), batch)
            return batch
        for kind, run in groupby(items, type):
            if kind is RenderedBlock:
                for block in cast("Iterator[RenderedBlock]", run):
                    self._encode_block(block, batch)
                continue
            some = cast("list[SingleItem]", list(run))
            found = self.render.pack(cast("list[RenderedItem]", some)) if kind is RenderedItem else None
            if found is None:
                self._encode_each(some, batch)
            else:
                self._encode_block(found, batch)
        return batch

    def _encode_block(self, block: RenderedBlock, batch: EncodedBatch) -> None:
        if batch.first_usable is None:
            # All documents of a block are usable.
            batch.first_usable = first_ordinal(block)
        batch.sent += block.count
        for one in block.parts:
            *place, ordinal = self._leading + one.position
            part, last = self._partitions[one.partition], (*place, block.base + ordinal)
            value = encode_block(part.sequence, block.base, last, one.count, one.body)
            part.bytes += one.size
            part.hash_sum = (part.hash_sum + one.key_hashes) % MODULUS
            part.sequence += one.count
            batch.messages.append(Message(b"", value, self._first + one.partition))

    def _encode_each(self, items: Iterable[SingleItem], batch: EncodedBatch) -> None:
        limit, sent_before = self._spec.max_document_bytes, len(batch.messages)
        messages, partitions, render, leading = batch.messages, self._partitions, self.render, self._leading
        # A NamedTuple's own constructor takes twice as long.
        new, first_partition = tuple.__new__, self._first
        content: RenderedItem | InvalidDocument
        for item in items:
            if type(item) is RenderedItem:
                # The hot path: a document that was rendered where it was parsed, and nothing to look at.
                position, _, key, number, key_hash, facts, head, row = item
                part = partitions[number]
                if part.resume_after is None and len(row) <= limit and batch.first_usable is not None:
                    sent = encode_position(leading + position if leading else position)
                    value = encode_rendered(part.sequence, sent, facts, head, row)
                    part.bytes += len(row)
                    part.hash_sum = (part.hash_sum + key_hash) % MODULUS
                    part.sequence += 1
                    messages.append(new(Message, (key, value, first_partition + number, ())))
                    continue
            # Without a slice, nothing is added: Python returns the same tuple.
            position = leading + item.position
            if isinstance(item, RenderedItem):
                content = item
            elif isinstance(item.content, Document):
                content = render(position, item.size, item.content)
            else:
                content = item.content
            if isinstance(content, RenderedItem):
                _, _, key, number, key_hash, facts, head, row = content
            else:
                row, key = b"", content.key.encode()
                number, key_hash = self.render.place(key, content), document_hash(key)
            part = partitions[number]
            if part.resume_after is not None and position <= part.resume_after:
                batch.dropped += 1
                continue
            if row and len(row) <= limit:
                part.bytes += len(row)
                if batch.first_usable is None:
                    batch.first_usable = position[-1]
                value = encode_rendered(part.sequence, encode_position(position), facts, head, row)
            else:
                value = self._dead_letter(part, position, content, batch)
            part.hash_sum = add(part.hash_sum, key_hash)
            part.sequence += 1
            messages.append(Message(key, value, self._first + number))
        batch.sent += len(messages) - sent_before

    def _dead_letter(
        self,
        part: PartitionState,
        position: Position,
        content: InvalidDocument | RenderedItem,
        batch: EncodedBatch,
    ) -> bytes:
        max_bytes = self._spec.max_document_bytes
        if isinstance(content, InvalidDocument):
            key = content.key
            dead_letter = with_limit(content.dead_letter, key, max_bytes)
        else:
            key = content.key.decode()
            dead_letter = too_large_row(content.row, key, max_bytes)
        if self._spec.redacts:
            dead_letter = without_values(dead_letter)
        part.bytes += len(dead_letter.original)
        part.dead += 1
        batch.vanished += dead_letter.reason == DeadLetterReason.VANISHED
        batch.first_dead_letter = batch.first_dead_letter or f"{dead_letter.hint} ({dead_letter.reason})"
        batch.last_dead_letter = f"{key}: {dead_letter.reason}"
        return encode_dead_letter(part.sequence, encode_position(position), dead_letter)


class DocumentRenderer:
    """Renders the documents of one job. It holds no state of the job, so any process can have one.

    `blocks`: it puts them together as well.
    """

    def __init__(self, spec: JobSpec, columns: Columns, rules: int = RULES, *, blocks: bool = False) -> None:
        self._spec, self._columns, self._rules, self._blocks = spec, columns, rules, blocks
        self._rows = RowRenderer(spec, columns, rules)
        self._fewest = _FEWEST_OF_BLOCK * spec.total_partitions
        self.place = Placement(spec)
        self._by_id = self.place.by_id
        self._sends_groups = spec.sends_groups

    def of_rows(self, fields: Mapping[str, str]) -> RenderRow | None:
        """Implements `RowRendering`."""
        return row_renderer(self._spec, self._columns, self._rules, fields)

    def of_lines(self, identity: str, text: str) -> RenderLine | None:
        """Implements `LineRendering`."""
        return line_renderer(self._spec, self._columns, self._rules, identity, text)

    def pack(self, items: Sequence[RenderedItem]) -> RenderedBlock | None:
        """Implements `BlockRendering`. None where a row is too large, or the blocks are too small."""
        limit = self._spec.max_document_bytes
        if not self._blocks or len(items) < self._fewest or max(len(item[7]) for item in items) > limit:
            return None
        # By their partition, and cut where a part is large enough.
        found: defaultdict[int, list[RenderedItem]] = defaultdict(list)
        sizes: defaultdict[int, int] = defaultdict(int)
        parts: list[BlockPart] = []
        for item in items:
            number = item[3]
            found[number].append(item)
            sizes[number] += len(item[7])
            if sizes[number] >= _BLOCK_BYTES:
                parts.append(_part(number, found.pop(number), sizes.pop(number)))
        parts += [_part(number, some, sizes[number]) for number, some in found.items()]
        return RenderedBlock(items[-1].position, sum(item[1] for item in items), len(items), 0, parts)

    def __call__(self, position: Position, size: int, document: Document) -> RenderedItem:
        """The document as it is sent."""
        facts, head, tail = self._rows.parts(document)
        key = document.id.encode()
        number = partition_of(key, self._by_id) if self._by_id else self.place(key, document)
        sent = encode_facts(*facts)
        if self._sends_groups:
            sent += encode_group(group_hash(group_of(self._spec, key, document)))
        return RenderedItem(position, size, key, number, document_hash(key), sent, len(head), head + tail)


def _part(number: int, items: Sequence[RenderedItem], size: int) -> BlockPart:
    positions, _, _, _, hashes, facts, heads, rows = zip(*items, strict=True)
    body = block_body(positions, facts, hashes, heads, rows)
    return BlockPart(number, len(items), positions[-1], sum(hashes), size, body)


class Placement:
    """Chooses the partitions of the items of one job or slice.

    `by_id` is the number of partitions where the id alone decides (`partition_of`), else 0.
    """

    def __init__(self, spec: JobSpec) -> None:
        self._spec = spec
        self._train = spec.partitions
        self._validation = spec.validation_partitions
        self._seed = spec.order_seed if spec.assembled else None
        self.by_id = self._train if self._seed is None and not self._validation else 0

    def __call__(self, key: bytes, content: Document | InvalidDocument) -> int:
        """The partition of an item with this key.

        In a seeded order, a range of the order; else one of the validation split, or one of the others.
        """
        if self._seed is not None:
            return order_partition(order_key(self._seed, key), self._train)
        if self._validation and is_validation(self._spec, key, content):
            return self._train + partition_of(key, self._validation)
        return partition_of(key, self._train)


def is_validation(spec: JobSpec, key: bytes, content: Document | InvalidDocument) -> bool:
    """Whether a job has a validation split, and the item with this key belongs to it."""
    return in_validation(group_of(spec, key, content), spec.output.validation_fraction)


def group_of(spec: JobSpec, key: bytes, content: Document | InvalidDocument) -> bytes:
    """The group of an item with this key: the value of `output.group_by`, else the key."""
    name = spec.output.group_by
    value = content.metadata.get(name) if name and isinstance(content, Document) else None
    return key if value is None else str(value).encode("utf-8", "surrogatepass")


def first_ordinal(item: AnyItem) -> int:
    """The ordinal of an item, or of the first document of a block: ordinals have no gaps."""
    ordinal: int = item.position[-1]
    return ordinal - item.count + 1 if isinstance(item, RenderedBlock) else ordinal


def sends_blocks(spec: JobSpec) -> bool:
    """Whether a worker of the same process can take the documents of a job in blocks.

    It looks at each message of a job that keeps rejected documents, stages its records, or has filters.
    """
    return not spec.assembled and not spec.quality.keep_rejected and not is_curated(spec)


def end_markers(
    partitions: Sequence[PartitionState], headers: tuple[tuple[str, bytes], ...] = (), first: int = 0
) -> list[Message]:
    """The end marker of every partition. `first` is the number of the first one."""
    return [
        Message(b"end", encode_end(End(part.sequence, part.hash_sum)), number, headers)
        for number, part in enumerate(partitions, first)
    ]
